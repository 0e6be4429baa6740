//! Reacting, and importing scores.

use axum::{extract::State, response::Response};
use events::{PostId, Stream, limits};
use garde::Validate;
use platform::extract::{Json, NoBody, Path};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ClearReaction, ImportScore, Kind, Reaction, ReactionCommand, ReactionRefusal, Score, SetReaction, Target};
use crate::{
    App, Refusal,
    access::AccessRefusal,
    answer::done,
    command::Command,
    place::{AtPost, Found, PostPath, actor},
    post::PostRefusal,
    refusal::Refused,
    store::{Answer, Operation, Stop, Work},
    text::ReactionKind,
};

type Refusals = Refused<(AccessRefusal, PostRefusal, ReactionRefusal)>;

/// A reaction to be set.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewReaction {
    /// `up`, `down`, `like`, or another kind that the community allows.
    #[garde(dive)]
    pub kind: ReactionKind,
}

/// The votes that a post was imported with.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewScore {
    /// Votes up.
    #[garde(range(max = limits::VOTES))]
    #[schema(example = 12, maximum = 1_000_000_000)]
    pub up: u32,
    /// Votes down.
    #[garde(range(max = limits::VOTES))]
    #[schema(example = 1, maximum = 1_000_000_000)]
    pub down: u32,
}

/// A reaction or an imported score, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReactionChanged {
    /// `<post>.<account>`, or `<post>.imported`.
    #[schema(example = "018f3f4e-7c2a-7d10-8a3b-5e6f708192a3.018f3f4e-7c2a-7d10-8a3b-5e6f708192a4")]
    id: String,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    /// Its kind; none where it is clear.
    #[schema(example = "like")]
    kind: Option<String>,
}

/// Reacts to a post, in place of one's reaction before. Not to one's own.
#[utoipa::path(
    put,
    path = "/v2/posts/{id}/reaction",
    tag = "reactions",
    params(PostPath),
    responses((status = 200, description = "It is set now.", body = ReactionChanged), Refusals)
)]
pub(crate) async fn set(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    Json(body): Json<NewReaction>,
) -> Response {
    let request = command.request(&body);
    app.store.execute(request, &React { post: path.id, kind: Some(body.kind.into()) }).await
}

/// Takes one's reaction to a post back.
#[utoipa::path(
    delete,
    path = "/v2/posts/{id}/reaction",
    tag = "reactions",
    params(PostPath),
    responses((status = 200, description = "It is clear now.", body = ReactionChanged), Refusals)
)]
pub(crate) async fn clear(State(app): State<App>, command: Command, Path(path): Path<PostPath>, _: NoBody) -> Response {
    app.store.execute(command.request(&()), &React { post: path.id, kind: None }).await
}

/// States the votes that a post was imported with, in place of those stated before. Operators only.
#[utoipa::path(
    put,
    path = "/v2/posts/{id}/imported-score",
    tag = "reactions",
    params(PostPath),
    responses((status = 200, description = "They count now.", body = ReactionChanged), Refusals)
)]
pub(crate) async fn import_score(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    Json(body): Json<NewScore>,
) -> Response {
    let request = command.request(&body);
    let score = Score { up: body.up, down: body.down };
    app.store.execute(request, &StateScore { post: path.id, score }).await
}

struct React {
    post: PostId,
    /// None clears.
    kind: Option<String>,
}

impl Operation for React {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtPost::find(work, self.post).await?;
        let by = at.standing().participant()?.voter()?;
        let command = match &self.kind {
            Some(kind) => {
                let kind = Kind::of(&at.at.at.place.community.state, kind.clone())?;
                SetReaction { by, kind }.into()
            }
            None => ClearReaction { by }.into(),
        };
        handle(work, &at, &Stream::reaction(self.post, by.account()), command).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct StateScore {
    post: PostId,
    score: Score,
}

impl Operation for StateScore {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let by = actor(work.request()).as_operator()?;
        let at = AtPost::find(work, self.post).await?;
        let import = ImportScore { by, score: self.score };
        handle(work, &at, &Stream::imported_score(self.post), import.into()).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

async fn handle(work: &mut Work<'_>, at: &AtPost, stream: &Stream, command: ReactionCommand) -> Found<Answer> {
    let before = work.load::<Reaction>(stream).await?;
    work.require_version(before.version)?;
    let target = Target::of(at.id, &at.post.state, at.at.surroundings()?);
    let after = work.handle::<Reaction>(stream, command, &target).await?;
    let kind = after.state.kind.clone();
    Ok(done(&ReactionChanged { id: stream.id.clone(), version: after.version, kind }))
}

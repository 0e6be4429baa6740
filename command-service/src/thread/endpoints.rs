//! Starting threads, and what their authors and moderators do with them.

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use events::{CategoryId, CommunityId, PostId, Stream, ThreadId, post::Format};
use garde::Validate;
use platform::extract::{Json, NoBody, Path, optional_moment_field};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    AcceptAnswer, Answer as AnswerPost, ClearAnswer, DeleteThread, Ground, Lock, MoveThread, Pin, PinThread,
    RestoreThread, Retitle, SetTags, StartThread, Thread, ThreadCommand, ThreadRefusal, Unlock, Unpin,
};
use crate::{
    App, Refusal,
    access::AccessRefusal,
    answer::{Because, created, done},
    category::CategoryRefusal,
    command::Command,
    community::CommunityRefusal,
    place::{AtThread, AtTree, CommunityPath, CommunityRef, Found, Place, ThreadPath},
    post::{Post, PostRefusal, Surroundings, Text, WriteOpening},
    refusal::Refused,
    store::{Answer, Operation, Request, Stop, Work},
    text::{Body, Tags, Title, chosen_id, present},
};

type Refusals = Refused<(AccessRefusal, ThreadRefusal)>;

/// A thread to be started.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewThread {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<ThreadId>,
    /// Where.
    #[garde(skip)]
    pub category_id: CategoryId,
    /// Its title.
    #[garde(dive)]
    pub title: Title,
    /// Its tags.
    #[garde(dive)]
    #[serde(default)]
    #[schema(required = false)]
    pub tags: Tags,
    /// The id of its opening post; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub opening_post_id: Option<PostId>,
    /// What the opening post says.
    #[garde(dive)]
    pub body: Body,
    /// What that is written in: Markdown, where it is not said.
    #[garde(skip)]
    #[serde(default)]
    #[schema(required = false)]
    pub format: Format,
}

/// What changes of a thread: what is absent stays.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct ThreadPatch {
    /// Its title. The author and moderators change it.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Title, required = false)]
    pub title: Option<Title>,
    /// The category it goes to, of the same community. Moderators change it.
    #[garde(skip)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = CategoryId, required = false)]
    pub category_id: Option<CategoryId>,
    /// Its tags, in place of those before; null for none. The author and moderators change them.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Tags>, required = false)]
    pub tags: Option<Option<Tags>>,
}

/// How long a thread is pinned.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewPin {
    /// The end; until it is unpinned, where it is not said.
    #[garde(skip)]
    #[serde(default, deserialize_with = "optional_moment_field")]
    #[schema(required = false)]
    pub until: Option<DateTime<Utc>>,
}

/// The answer of a thread.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewAnswer {
    /// A reply of the thread.
    #[garde(skip)]
    pub post_id: PostId,
}

/// A thread, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ThreadChanged {
    id: ThreadId,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    community_id: CommunityId,
    opening_post_id: PostId,
}

/// Starts a thread, with its opening post.
#[utoipa::path(
    post,
    path = "/v2/communities/{c}/threads",
    tag = "threads",
    params(CommunityPath),
    responses(
        (status = 201, description = "Started.", body = ThreadChanged),
        Refused<(AccessRefusal, (CommunityRefusal, CategoryRefusal), ThreadRefusal)>,
    )
)]
pub(crate) async fn start(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    Json(body): Json<NewThread>,
) -> Response {
    let request = command.request(&body);
    let id = body.id.unwrap_or_else(ThreadId::new);
    let opening_post = body.opening_post_id.unwrap_or_else(PostId::new);
    app.store.execute(request, &BeginThread { community: path.c, id, opening_post, body }).await
}

/// Changes a thread's title, tags and category, all or nothing.
#[utoipa::path(
    patch,
    path = "/v2/threads/{id}",
    tag = "threads",
    params(ThreadPath),
    responses(
        (status = 200, description = "It is so now.", body = ThreadChanged),
        Refused<(AccessRefusal, CategoryRefusal, ThreadRefusal)>,
    )
)]
pub(crate) async fn change(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    Json(body): Json<ThreadPatch>,
) -> Response {
    let request = command.request(&body);
    let commands = move |at: &AtThread, _: &Request| body.commands(at);
    app.store.execute(request, &OnThread { id: path.id, commands }).await
}

/// Deletes a thread: only moderators still see it. Its author and moderators may.
#[utoipa::path(
    delete,
    path = "/v2/threads/{id}",
    tag = "threads",
    params(ThreadPath, Because),
    responses((status = 200, description = "It is deleted now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn delete(
    State(app): State<App>,
    command: Command<Because>,
    Path(path): Path<ThreadPath>,
    _: NoBody,
) -> Response {
    let because = command.query.clone();
    let delete = |at: &AtThread, _: &Request| {
        Ok(vec![DeleteThread { by: at.standing().curator(at.author())?, reason: because.reason() }.into()])
    };
    app.store.execute(command.request(&because), &OnThread { id: path.id, commands: delete }).await
}

/// Restores a deleted thread: its author, what it deleted itself; moderators, everything.
#[utoipa::path(
    post,
    path = "/v2/threads/{id}/restore",
    tag = "threads",
    params(ThreadPath),
    responses((status = 200, description = "It is shown now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn restore(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    _: NoBody,
) -> Response {
    let restore =
        |at: &AtThread, _: &Request| Ok(vec![RestoreThread { by: at.standing().curator(at.author())? }.into()]);
    app.store.execute(command.request(&()), &OnThread { id: path.id, commands: restore }).await
}

/// Locks a thread: only moderators reply. Moderators may.
#[utoipa::path(
    put,
    path = "/v2/threads/{id}/lock",
    tag = "threads",
    params(ThreadPath),
    request_body = Option<Because>,
    responses((status = 200, description = "It is locked now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn lock(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    body: Option<Json<Because>>,
) -> Response {
    let Json(because) = body.unwrap_or_default();
    let lock =
        |at: &AtThread, _: &Request| Ok(vec![Lock { by: at.standing().moderator()?, reason: because.reason() }.into()]);
    app.store.execute(command.request(&because), &OnThread { id: path.id, commands: lock }).await
}

/// Unlocks a thread. Moderators may.
#[utoipa::path(
    delete,
    path = "/v2/threads/{id}/lock",
    tag = "threads",
    params(ThreadPath),
    responses((status = 200, description = "It takes replies now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn unlock(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    _: NoBody,
) -> Response {
    let unlock = |at: &AtThread, _: &Request| Ok(vec![Unlock { by: at.standing().moderator()? }.into()]);
    app.store.execute(command.request(&()), &OnThread { id: path.id, commands: unlock }).await
}

/// Pins a thread to the top of its lists. Moderators may.
#[utoipa::path(
    put,
    path = "/v2/threads/{id}/pin",
    tag = "threads",
    params(ThreadPath),
    request_body = Option<NewPin>,
    responses((status = 200, description = "It is pinned now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn pin(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    body: Option<Json<NewPin>>,
) -> Response {
    let Json(body) = body.unwrap_or_default();
    let pin = |at: &AtThread, request: &Request| {
        let pin = Pin { until: body.until };
        Ok(vec![PinThread { by: at.standing().moderator()?, pin, now: request.now }.into()])
    };
    app.store.execute(command.request(&body), &OnThread { id: path.id, commands: pin }).await
}

/// Unpins a thread. Moderators may.
#[utoipa::path(
    delete,
    path = "/v2/threads/{id}/pin",
    tag = "threads",
    params(ThreadPath),
    responses((status = 200, description = "It is not pinned now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn unpin(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    _: NoBody,
) -> Response {
    let unpin = |at: &AtThread, _: &Request| Ok(vec![Unpin { by: at.standing().moderator()? }.into()]);
    app.store.execute(command.request(&()), &OnThread { id: path.id, commands: unpin }).await
}

/// Accepts a reply as the answer, in place of the one before. The author and moderators may.
#[utoipa::path(
    put,
    path = "/v2/threads/{id}/answer",
    tag = "threads",
    params(ThreadPath),
    responses((status = 200, description = "It is the answer now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn accept_answer(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    Json(body): Json<NewAnswer>,
) -> Response {
    app.store.execute(command.request(&body), &AcceptReply { id: path.id, post: body.post_id }).await
}

/// Takes the mark of the answer away. The author and moderators may.
#[utoipa::path(
    delete,
    path = "/v2/threads/{id}/answer",
    tag = "threads",
    params(ThreadPath),
    responses((status = 200, description = "It has no answer now.", body = ThreadChanged), Refusals)
)]
pub(crate) async fn clear_answer(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    _: NoBody,
) -> Response {
    let clear = |at: &AtThread, _: &Request| Ok(vec![ClearAnswer { by: at.standing().curator(at.author())? }.into()]);
    app.store.execute(command.request(&()), &OnThread { id: path.id, commands: clear }).await
}

impl ThreadPatch {
    /// The move first: out of an archived category, the rest can be changed.
    fn commands(&self, at: &AtThread) -> Result<Vec<ThreadCommand>, Refusal> {
        let mut commands = Vec::new();
        let Self { title, category_id, tags } = self.clone();
        if let Some(category) = category_id {
            commands.push(MoveThread { by: at.standing().moderator()?, to: at.at.tree.state.open(category)? }.into());
        }
        if let Some(title) = title {
            commands.push(Retitle { by: at.standing().curator(at.author())?, title: title.into() }.into());
        }
        if let Some(tags) = tags {
            let tags = tags.unwrap_or_default().into();
            commands.push(SetTags { by: at.standing().curator(at.author())?, tags }.into());
        }
        Ok(commands)
    }
}

/// Commands on a thread; `commands` says which, and by which permission.
struct OnThread<F> {
    id: ThreadId,
    commands: F,
}

impl<F> Operation for OnThread<F>
where
    F: Fn(&AtThread, &Request) -> Result<Vec<ThreadCommand>, Refusal> + Send + Sync,
{
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtThread::find(work, self.id).await?;
        work.require_version(at.thread.version)?;
        handle(work, &at, (self.commands)(&at, work.request())?).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct AcceptReply {
    id: ThreadId,
    post: PostId,
}

impl Operation for AcceptReply {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtThread::find(work, self.id).await?;
        work.require_version(at.thread.version)?;
        let by = at.standing().curator(at.author())?;
        let post = work.load::<Post>(&Stream::post(self.post)).await?;
        let answer = AnswerPost::of(self.id, self.post, &post.state)?;
        handle(work, &at, vec![AcceptAnswer { by, answer }.into()]).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct BeginThread {
    community: CommunityRef,
    id: ThreadId,
    opening_post: PostId,
    body: NewThread,
}

impl Operation for BeginThread {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let Self { id, opening_post, .. } = *self;
        let place = Place::find(work, &self.community).await?;
        let AtTree { place, tree } = AtTree::of(work, place).await?;
        let NewThread { category_id, title, tags, body, format, .. } = self.body.clone();
        let (by, category) = (place.standing.participant()?, tree.state.open(category_id)?);
        let start = StartThread { by, category, title: title.into(), tags: tags.into(), opening_post };
        let thread = work.begin::<Thread>(&Stream::thread(id), start.into(), &Ground::default()).await?;
        let write = WriteOpening { by, text: Text { body: body.0, format } };
        let around = Surroundings::of_new(id, opening_post);
        work.begin::<Post>(&Stream::post(opening_post), write.into(), &around).await.map_err(opening_post_id)?;
        Ok(created(&changed(id, thread.version, place.id, opening_post)))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        Some(format!("/v2/threads/{}", body.get("id")?.as_str()?))
    }
}

/// A duplicate id is here not the one that the body calls `id`.
fn opening_post_id(stop: Stop<Refusal>) -> Stop<Refusal> {
    stop.map(|refusal| match refusal {
        Refusal::Post(PostRefusal::DuplicateId) => ThreadRefusal::DuplicateOpeningPost.into(),
        refusal => refusal,
    })
}

async fn handle(work: &mut Work<'_>, at: &AtThread, commands: Vec<ThreadCommand>) -> Found<Answer> {
    let mut thread = at.thread.clone();
    for command in commands {
        let ground = Ground::of(&thread.state, &at.at.tree.state);
        thread = work.handle::<Thread>(&Stream::thread(at.id), command, &ground).await?;
    }
    let opening_post = thread.state.opening_post.ok_or(ThreadRefusal::NotFound)?;
    Ok(done(&changed(at.id, thread.version, at.at.place.id, opening_post)))
}

fn changed(id: ThreadId, version: i64, community_id: CommunityId, opening_post_id: PostId) -> ThreadChanged {
    ThreadChanged { id, version, community_id, opening_post_id }
}

//! Replying, and what authors and moderators do with posts.

use axum::{extract::State, response::Response};
use events::{PostId, Stream, ThreadId, post::Format};
use garde::Validate;
use platform::extract::{Json, NoBody, Path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    DeletePost, EditPost, Hide, Post, PostCommand, PostRefusal, RestorePost, Surroundings, Text, Unhide, WriteReply,
};
use crate::{
    App, Refusal,
    access::{AccessRefusal, Participant},
    answer::{Because, created, done},
    command::Command,
    place::{AtPost, AtThread, Found, PostPath, ThreadPath},
    refusal::Refused,
    store::{Answer, Loaded, Operation, Request, Stop, Work},
    text::{Body, Reason, chosen_id, present},
    thread::ThreadRefusal,
};

type Refusals = Refused<(AccessRefusal, PostRefusal)>;

/// A reply to a thread.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewPost {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<PostId>,
    /// The post of the thread that it answers; the thread itself, where it is not said.
    #[garde(skip)]
    pub parent_id: Option<PostId>,
    /// What it says.
    #[garde(dive)]
    pub body: Body,
    /// What that is written in: Markdown, where it is not said.
    #[garde(skip)]
    #[serde(default)]
    #[schema(required = false)]
    pub format: Format,
}

/// A reply to a post.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewReply {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<PostId>,
    /// What it says.
    #[garde(dive)]
    pub body: Body,
    /// What that is written in: Markdown, where it is not said.
    #[garde(skip)]
    #[serde(default)]
    #[schema(required = false)]
    pub format: Format,
}

/// An edit of a post.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct PostPatch {
    /// The revision that it was made from, unless `If-Match` names a version.
    #[garde(range(min = 1))]
    #[schema(example = 1)]
    pub base_revision: Option<u32>,
    /// What it says from now on.
    #[garde(dive)]
    pub body: Body,
    /// What that is written in: what it was written in before, where it is not said.
    #[garde(skip)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Format, required = false)]
    pub format: Option<Format>,
    /// Why.
    #[garde(dive)]
    pub reason: Option<Reason>,
}

/// A post, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct PostChanged {
    id: PostId,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    /// The newest revision of its text: what an edit names as its `base_revision`.
    revision: u32,
    thread_id: ThreadId,
}

/// Replies to a thread, or to one of its posts.
#[utoipa::path(
    post,
    path = "/v2/threads/{id}/posts",
    tag = "posts",
    params(ThreadPath),
    responses(
        (status = 201, description = "Written.", body = PostChanged),
        Refused<(AccessRefusal, ThreadRefusal, PostRefusal)>,
    )
)]
pub(crate) async fn write(
    State(app): State<App>,
    command: Command,
    Path(path): Path<ThreadPath>,
    Json(body): Json<NewPost>,
) -> Response {
    let request = command.request(&body);
    let NewPost { id, parent_id: parent, body, format } = body;
    let (id, text) = (id.unwrap_or_else(PostId::new), Text { body: body.0, format });
    app.store.execute(request, &ReplyToThread { thread: path.id, parent, reply: Reply { id, text } }).await
}

/// Replies to a post.
#[utoipa::path(
    post,
    path = "/v2/posts/{id}/replies",
    tag = "posts",
    params(PostPath),
    responses((status = 201, description = "Written.", body = PostChanged), Refusals)
)]
pub(crate) async fn reply(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    Json(body): Json<NewReply>,
) -> Response {
    let request = command.request(&body);
    let NewReply { id, body, format } = body;
    let (id, text) = (id.unwrap_or_else(PostId::new), Text { body: body.0, format });
    app.store.execute(request, &ReplyToPost { parent: path.id, reply: Reply { id, text } }).await
}

/// Edits a post. Its author and moderators may; its history is kept.
///
/// An edit says what it was made from: the revision, or by `If-Match` the version.
#[utoipa::path(
    patch,
    path = "/v2/posts/{id}",
    tag = "posts",
    params(PostPath),
    responses((status = 200, description = "It is so now.", body = PostChanged), Refusals)
)]
pub(crate) async fn edit(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    Json(body): Json<PostPatch>,
) -> Response {
    let request = command.request(&body);
    let edit = move |at: &AtPost, request: &Request| body.command(at, request);
    app.store.execute(request, &OnPost { id: path.id, command: edit }).await
}

/// Deletes a post: it is shown as deleted, its replies stay. Its author and moderators may.
#[utoipa::path(
    delete,
    path = "/v2/posts/{id}",
    tag = "posts",
    params(PostPath, Because),
    responses((status = 200, description = "It is deleted now.", body = PostChanged), Refusals)
)]
pub(crate) async fn delete(
    State(app): State<App>,
    command: Command<Because>,
    Path(path): Path<PostPath>,
    _: NoBody,
) -> Response {
    let because = command.query.clone();
    let delete = |at: &AtPost, _: &Request| {
        Ok(DeletePost { by: at.standing().curator(at.author())?, reason: because.reason() }.into())
    };
    app.store.execute(command.request(&because), &OnPost { id: path.id, command: delete }).await
}

/// Restores a deleted post: its author, what it deleted itself; moderators, everything.
#[utoipa::path(
    post,
    path = "/v2/posts/{id}/restore",
    tag = "posts",
    params(PostPath),
    responses((status = 200, description = "It is shown now.", body = PostChanged), Refusals)
)]
pub(crate) async fn restore(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    _: NoBody,
) -> Response {
    let restore = |at: &AtPost, _: &Request| Ok(RestorePost { by: at.standing().curator(at.author())? }.into());
    app.store.execute(command.request(&()), &OnPost { id: path.id, command: restore }).await
}

/// Hides a post: only moderators and its author see the text. Moderators may.
#[utoipa::path(
    put,
    path = "/v2/posts/{id}/hide",
    tag = "posts",
    params(PostPath),
    request_body = Option<Because>,
    responses((status = 200, description = "It is hidden now.", body = PostChanged), Refusals)
)]
pub(crate) async fn hide(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    body: Option<Json<Because>>,
) -> Response {
    let Json(because) = body.unwrap_or_default();
    let hide = |at: &AtPost, _: &Request| Ok(Hide { by: at.standing().moderator()?, reason: because.reason() }.into());
    app.store.execute(command.request(&because), &OnPost { id: path.id, command: hide }).await
}

/// Shows a hidden post again. Moderators may.
#[utoipa::path(
    delete,
    path = "/v2/posts/{id}/hide",
    tag = "posts",
    params(PostPath),
    responses((status = 200, description = "It is shown now.", body = PostChanged), Refusals)
)]
pub(crate) async fn unhide(
    State(app): State<App>,
    command: Command,
    Path(path): Path<PostPath>,
    _: NoBody,
) -> Response {
    let unhide = |at: &AtPost, _: &Request| Ok(Unhide { by: at.standing().moderator()? }.into());
    app.store.execute(command.request(&()), &OnPost { id: path.id, command: unhide }).await
}

impl PostChanged {
    fn of(id: PostId, post: &Loaded<Post>, around: &Surroundings) -> Self {
        Self { id, version: post.version, revision: post.state.revision, thread_id: around.thread() }
    }
}

impl PostPatch {
    fn command(&self, at: &AtPost, request: &Request) -> Result<PostCommand, Refusal> {
        let by = at.standing().curator(at.author())?;
        if self.base_revision.is_none() && request.if_match.is_none() {
            return Err(PostRefusal::BaseMissing.into());
        }
        let Self { base_revision: base, body, format, reason } = self.clone();
        let text = Text { body: body.0, format: format.unwrap_or(at.post.state.format) };
        Ok(EditPost { by, base, text, reason: reason.map(String::from) }.into())
    }
}

/// A reply to be written.
struct Reply {
    id: PostId,
    text: Text,
}

impl Reply {
    async fn write(&self, work: &mut Work<'_>, by: Participant, around: &Surroundings) -> Found<Answer> {
        let write = WriteReply { by, text: self.text.clone() };
        let post = work.begin::<Post>(&Stream::post(self.id), write.into(), around).await?;
        Ok(created(&PostChanged::of(self.id, &post, around)))
    }
}

struct ReplyToThread {
    thread: ThreadId,
    parent: Option<PostId>,
    reply: Reply,
}

impl Operation for ReplyToThread {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtThread::find(work, self.thread).await?;
        let by = at.standing().participant()?;
        let mut around = at.surroundings()?;
        if let Some(parent) = self.parent {
            let post = work.load::<Post>(&Stream::post(parent)).await?;
            around = around.below(parent, &post.state);
        }
        self.reply.write(work, by, &around).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        location(body)
    }
}

struct ReplyToPost {
    parent: PostId,
    reply: Reply,
}

impl Operation for ReplyToPost {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtPost::find(work, self.parent).await?;
        let by = at.standing().participant()?;
        let around = at.at.surroundings()?.below(self.parent, &at.post.state);
        self.reply.write(work, by, &around).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        location(body)
    }
}

/// One command on a post; `command` says by which permission.
struct OnPost<F> {
    id: PostId,
    command: F,
}

impl<F> Operation for OnPost<F>
where
    F: Fn(&AtPost, &Request) -> Result<PostCommand, Refusal> + Send + Sync,
{
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtPost::find(work, self.id).await?;
        work.require_version(at.post.version)?;
        let command = (self.command)(&at, work.request())?;
        let around = at.at.surroundings()?;
        let post = work.handle::<Post>(&Stream::post(self.id), command, &around).await?;
        Ok(done(&PostChanged::of(self.id, &post, &around)))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

fn location(body: &Value) -> Option<String> {
    Some(format!("/v2/posts/{}", body.get("id")?.as_str()?))
}

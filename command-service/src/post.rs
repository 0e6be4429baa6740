//! A post: the opening post of its thread, or a reply. Its history is kept.

use events::{
    AccountId, PostEvent, PostId, ThreadId, limits,
    post::{Deleted, Edited, Format, Hidden, Restored, Unhidden, Written},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    access::{Curator, Moderator, Participant},
    thread::{Deletion, Ground, Thread},
};

pub mod endpoints;
#[cfg(test)]
mod tests;

/// A post, folded from its stream. Its text is not kept: a digest is enough to tell an edit that changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Where it stands. Where there is none, there is no such post.
    pub thread: Option<ThreadId>,
    /// The post it answers; none for an opening post.
    pub parent: Option<PostId>,
    /// Who wrote it; none where the account was deleted before an import.
    pub author: Option<AccountId>,
    /// The newest revision of its text, from 1.
    pub revision: u32,
    /// What that is written in.
    pub format: Format,
    depth: u8,
    text: [u8; 16],
    hidden: bool,
    deletion: Option<Deletion>,
}

/// A text, and what it is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The text, as written.
    pub body: String,
    /// What it is written in.
    pub format: Format,
}

/// What a post's rules look at besides the post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    thread: ThreadId,
    opening_post: PostId,
    locked: bool,
    deleted: bool,
    archived: bool,
    parent: Option<Parent>,
}

/// What a reply's rules look at of the post that it names as its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    id: PostId,
    thread: Option<ThreadId>,
    depth: u8,
    deleted: bool,
    hidden: bool,
}

aggregate! {
    /// What can be done with a post.
    Post("post", 1) given Surroundings => PostEvent, or PostRefusal;
    PostCommand { WriteOpening, WriteReply, EditPost, DeletePost, RestorePost, Hide, Unhide }
}

/// Writes the opening post of a thread that is started in the same append.
#[derive(Clone, Debug)]
pub struct WriteOpening {
    /// The author.
    pub by: Participant,
    /// What it says.
    pub text: Text,
}

/// Writes a reply: to the post that the surroundings name as parent, else to the thread itself.
#[derive(Clone, Debug)]
pub struct WriteReply {
    /// The author.
    pub by: Participant,
    /// What it says.
    pub text: Text,
}

/// Gives it another text.
#[derive(Clone, Debug)]
pub struct EditPost {
    /// Its author, or a moderator.
    pub by: Curator,
    /// The revision that it was made from; none where `If-Match` named a version.
    pub base: Option<u32>,
    /// What it shall say.
    pub text: Text,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// Shows it as deleted; its replies stay.
#[derive(Clone, Debug)]
pub struct DeletePost {
    /// Its author, or a moderator.
    pub by: Curator,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// Shows it again.
#[derive(Clone, Debug)]
pub struct RestorePost {
    /// Its author, of what it deleted itself; a moderator, always.
    pub by: Curator,
}

/// Shows its text to moderators and its author only.
#[derive(Clone, Debug)]
pub struct Hide {
    /// Moderators hide.
    pub by: Moderator,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// Shows its text again.
#[derive(Clone, Debug)]
pub struct Unhide {
    /// Moderators unhide.
    pub by: Moderator,
}

/// Why a post's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostRefusal {
    /// No such post, or none of a community that shows itself to who asks.
    #[error("There is no such post.")]
    NotFound,
    /// The id is in use.
    #[error("A post of this id is there already.")]
    DuplicateId,
    /// Only moderators reply.
    #[error("The thread is locked: only moderators reply.")]
    ThreadLocked,
    /// It is deleted.
    #[error("The thread is deleted.")]
    ThreadDeleted,
    /// Its category is read-only.
    #[error("The thread's category is archived, and read-only.")]
    CategoryArchived,
    /// A reply stays in the thread of what it answers.
    #[error("The thread has no such post to reply to.")]
    ParentElsewhere,
    /// Nobody answers what is gone.
    #[error("The post to reply to is deleted or hidden.")]
    ParentGone,
    /// Too far down.
    #[error("Replies go at most {} levels deep: reply to a post further up.", limits::POST_DEPTH)]
    TooDeep,
    /// It is deleted.
    #[error("The post is deleted.")]
    Deleted,
    /// A moderator deleted it.
    #[error("A moderator deleted the post: only moderators restore it.")]
    DeletedByModerator,
    /// A moderator hid it.
    #[error("The post is hidden.")]
    Hidden,
    /// An edit says what it is based on.
    #[error("An edit names what it was made from: `base_revision` in the body, or a version in If-Match.")]
    BaseMissing,
    /// Somebody else was faster.
    #[error("The post was edited meanwhile: its newest revision is {current}.")]
    Moved {
        /// The newest revision.
        current: u32,
    },
}

impl Surroundings {
    /// Those of a post of `thread`.
    pub fn of(id: ThreadId, thread: &Thread, ground: Ground) -> Result<Self, PostRefusal> {
        Ok(Self {
            thread: id,
            opening_post: thread.opening_post.ok_or(PostRefusal::NotFound)?,
            locked: thread.is_locked(),
            deleted: thread.is_deleted(),
            archived: ground.archived,
            parent: None,
        })
    }

    /// Those of the opening post of a thread that is being started.
    pub fn of_new(thread: ThreadId, opening_post: PostId) -> Self {
        Self { thread, opening_post, locked: false, deleted: false, archived: false, parent: None }
    }

    /// The same, for a reply to this post.
    #[must_use]
    pub fn below(self, id: PostId, post: &Post) -> Self {
        let Post { thread, depth, hidden, .. } = *post;
        Self { parent: Some(Parent { id, thread, depth, deleted: post.is_deleted(), hidden }), ..self }
    }

    /// Which thread it is of.
    pub fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Whether what stands here may be worked on.
    pub fn editable(&self) -> Result<(), PostRefusal> {
        if self.archived {
            return Err(PostRefusal::CategoryArchived);
        }
        if self.deleted { Err(PostRefusal::ThreadDeleted) } else { Ok(()) }
    }
}

impl Text {
    fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update([self.format as u8]);
        hash.update(&self.body);
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        half
    }
}

impl Post {
    /// Whether it is shown as deleted.
    pub fn is_deleted(&self) -> bool {
        self.deletion.is_some()
    }

    /// Whether a moderator hid it.
    pub fn is_hidden(&self) -> bool {
        self.hidden
    }

    fn fold(&mut self, event: PostEvent) {
        match event {
            PostEvent::Written(Written { thread, parent, depth, author, body, format }) => {
                let text = Text { body, format }.digest();
                let thread = Some(thread);
                *self = Self { thread, parent, author, revision: 1, format, depth, text, ..Self::default() };
            }
            PostEvent::Edited(Edited { revision, body, format, .. }) => {
                self.revision = revision;
                self.format = format;
                self.text = Text { body, format }.digest();
            }
            PostEvent::Deleted(Deleted { moderated, .. }) => self.deletion = Some(Deletion { moderated }),
            PostEvent::Restored(Restored { .. }) => self.deletion = None,
            PostEvent::Hidden(Hidden { .. }) => self.hidden = true,
            PostEvent::Unhidden(Unhidden { .. }) => self.hidden = false,
        }
    }
}

type Decision = Result<Option<PostEvent>, PostRefusal>;

impl WriteOpening {
    /// The thread's own decision says whether it may be started.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        write(post, self.by, self.text, around.thread, None, 0)
    }
}

impl WriteReply {
    /// No reply in a locked (but moderators'), deleted or archived place, to what is gone, or too far down.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        around.editable()?;
        if around.locked && !self.by.keeps_order() {
            return Err(PostRefusal::ThreadLocked);
        }
        let (parent, depth) = match around.parent {
            None => (around.opening_post, 0),
            Some(parent) if parent.thread != Some(around.thread) => return Err(PostRefusal::ParentElsewhere),
            Some(parent) if parent.deleted => return Err(PostRefusal::ParentGone),
            Some(parent) if parent.hidden && !self.by.keeps_order() => return Err(PostRefusal::ParentGone),
            Some(parent) => (parent.id, parent.depth),
        };
        if depth >= limits::POST_DEPTH {
            return Err(PostRefusal::TooDeep);
        }
        write(post, self.by, self.text, around.thread, Some(parent), depth + 1)
    }
}

impl EditPost {
    /// The same text is no revision.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        around.editable()?;
        let Self { by, base, text, reason } = self;
        if post.is_deleted() {
            return Err(PostRefusal::Deleted);
        }
        if base.is_some_and(|base| base != post.revision) {
            return Err(PostRefusal::Moved { current: post.revision });
        }
        if text.digest() == post.text {
            return Ok(None);
        }
        let Text { body, format } = text;
        let (thread, revision, moderated) = (around.thread, post.revision + 1, by.moderated());
        Ok(Some(PostEvent::Edited(Edited { thread, revision, body, format, reason, moderated })))
    }
}

impl DeletePost {
    /// What is deleted stays as it was deleted; but what its author deleted, a moderator deletes too, and then only
    /// moderators restore it. In an archived category only moderators delete.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        let Self { by, reason } = self;
        if around.archived && !by.keeps_order() {
            return Err(PostRefusal::CategoryArchived);
        }
        let (thread, moderated) = (around.thread, by.moderated());
        let deletes = post.deletion.is_none_or(|before| moderated && !before.moderated);
        Ok(deletes.then_some(PostEvent::Deleted(Deleted { thread, reason, moderated })))
    }
}

impl RestorePost {
    /// What a moderator deleted takes a moderator's right to restore, also for its author.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        let Some(deletion) = post.deletion else { return Ok(None) };
        if around.archived && !self.by.keeps_order() {
            return Err(PostRefusal::CategoryArchived);
        }
        if deletion.moderated && !self.by.keeps_order() {
            return Err(PostRefusal::DeletedByModerator);
        }
        let moderated = self.by.moderated() || deletion.moderated;
        Ok(Some(PostEvent::Restored(Restored { thread: around.thread, moderated })))
    }
}

impl Hide {
    /// What is hidden keeps its reason.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        let Self { reason, by: _ } = self;
        Ok((!post.hidden).then_some(PostEvent::Hidden(Hidden { thread: around.thread, reason })))
    }
}

impl Unhide {
    /// What is shown stays so.
    pub fn decide(self, post: &Post, around: &Surroundings) -> Decision {
        Ok(post.hidden.then_some(PostEvent::Unhidden(Unhidden { thread: around.thread })))
    }
}

fn write(post: &Post, by: Participant, text: Text, thread: ThreadId, parent: Option<PostId>, depth: u8) -> Decision {
    if post.thread.is_some() {
        return Err(PostRefusal::DuplicateId);
    }
    let Text { body, format } = text;
    Ok(Some(PostEvent::Written(Written { thread, parent, depth, author: by.author(), body, format })))
}

problems! { PostRefusal:
    NotFound => NOT_FOUND "post-not-found",
    DuplicateId => CONFLICT "duplicate" at "#/id",
    ThreadLocked => UNPROCESSABLE_ENTITY "thread-locked",
    ThreadDeleted => UNPROCESSABLE_ENTITY "thread-deleted",
    CategoryArchived => UNPROCESSABLE_ENTITY "category-archived",
    ParentElsewhere => UNPROCESSABLE_ENTITY "unknown-parent" at "#/parent_id",
    ParentGone => UNPROCESSABLE_ENTITY "parent-gone",
    TooDeep => UNPROCESSABLE_ENTITY "too-deep",
    Deleted => UNPROCESSABLE_ENTITY "post-deleted",
    DeletedByModerator => FORBIDDEN "role-required",
    Hidden => UNPROCESSABLE_ENTITY "post-hidden",
    BaseMissing => UNPROCESSABLE_ENTITY "base-revision-required" at "#/base_revision",
    Moved => CONFLICT "edit-conflict" at "#/base_revision",
}

//! A thread: where it stands, what it is called, and what moderators made of it. Its posts have streams of their own.

use chrono::{DateTime, Utc};
use events::{
    AccountId, CategoryId, PostId, ThreadEvent, ThreadId,
    thread::{
        AnswerAccepted, AnswerCleared, Deleted, Locked, Moved, Pinned, Restored, Retitled, Started, TagsSet, Unlocked,
        Unpinned,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    access::{Curator, Moderator, Over, Participant},
    category::{CategoryTree, OpenCategory},
    post::Post,
};

pub mod endpoints;
#[cfg(test)]
mod tests;

/// A thread, folded from its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Where it stands. Where there is none, there is no such thread.
    pub category: Option<CategoryId>,
    /// Who started it; none where the account was deleted before an import.
    pub author: Option<AccountId>,
    /// Its first post.
    pub opening_post: Option<PostId>,
    title: String,
    tags: Vec<String>,
    locked: bool,
    pin: Option<Pin>,
    answer: Option<PostId>,
    deletion: Option<Deletion>,
}

/// A thread stands at the top of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Its end; none where it stays until it is unpinned.
    pub until: Option<DateTime<Utc>>,
}

/// How a thread or a post came to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// By a moderator's right: its author cannot undo it.
    pub moderated: bool,
}

/// What a thread's rules look at besides the thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Its category is read-only. Moderators still take away what must not be seen, and move threads out.
    pub archived: bool,
}

/// A post that can be accepted as the answer of its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(PostId);

aggregate! {
    /// What can be done with a thread.
    Thread("thread", 1) given Ground => ThreadEvent, or ThreadRefusal;
    ThreadCommand {
        StartThread, Retitle, MoveThread, SetTags, Lock, Unlock, PinThread, Unpin, EndPin, AcceptAnswer, ClearAnswer,
        DeleteThread, RestoreThread,
    }
}

/// Starts a thread; its opening post is written in the same append.
#[derive(Clone, Debug)]
pub struct StartThread {
    /// The author.
    pub by: Participant,
    /// Where.
    pub category: OpenCategory,
    /// Its title.
    pub title: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its first post.
    pub opening_post: PostId,
}

/// Gives it another title.
#[derive(Clone, Debug)]
pub struct Retitle {
    /// Its author, or a moderator.
    pub by: Curator,
    /// The title.
    pub title: String,
}

/// Puts it into another category of its community.
#[derive(Clone, Debug)]
pub struct MoveThread {
    /// Moderators move.
    pub by: Moderator,
    /// Where to.
    pub to: OpenCategory,
}

/// Gives it other tags.
#[derive(Clone, Debug)]
pub struct SetTags {
    /// Its author, or a moderator.
    pub by: Curator,
    /// All of them.
    pub tags: Vec<String>,
}

/// Closes it to replies but moderators'.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Moderators lock.
    pub by: Moderator,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// Opens it to replies.
#[derive(Clone, Debug)]
pub struct Unlock {
    /// Moderators unlock.
    pub by: Moderator,
}

/// Puts it at the top of its lists.
#[derive(Clone, Debug)]
pub struct PinThread {
    /// Moderators pin.
    pub by: Moderator,
    /// For how long.
    pub pin: Pin,
    /// What a pin's end must be after.
    pub now: DateTime<Utc>,
}

/// Lets it stand where its sort key puts it.
#[derive(Clone, Debug)]
pub struct Unpin {
    /// Moderators unpin.
    pub by: Moderator,
}

/// States that the pin which lasted until then is over.
#[derive(Clone, Debug)]
pub struct EndPin {
    /// Its end has come.
    pub over: Over,
}

/// Marks a reply as the answer, in place of the one before.
#[derive(Clone, Debug)]
pub struct AcceptAnswer {
    /// Its author, or a moderator.
    pub by: Curator,
    /// The reply.
    pub answer: Answer,
}

/// Takes the mark of the answer away.
#[derive(Clone, Debug)]
pub struct ClearAnswer {
    /// Its author, or a moderator.
    pub by: Curator,
}

/// Shows it to moderators only.
#[derive(Clone, Debug)]
pub struct DeleteThread {
    /// Its author, or a moderator.
    pub by: Curator,
    /// Why, where it was said.
    pub reason: Option<String>,
}

/// Shows it again.
#[derive(Clone, Debug)]
pub struct RestoreThread {
    /// Its author, of what it deleted itself; a moderator, always.
    pub by: Curator,
}

/// Why a thread's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThreadRefusal {
    /// No such thread, or none of a community that shows itself to who asks.
    #[error("There is no such thread.")]
    NotFound,
    /// The id is in use.
    #[error("A thread of this id is there already.")]
    DuplicateId,
    /// The opening post's id is in use.
    #[error("A post of this id is there already.")]
    DuplicateOpeningPost,
    /// Its category is read-only.
    #[error("The thread's category is archived, and read-only.")]
    CategoryArchived,
    /// It is deleted.
    #[error("The thread is deleted.")]
    Deleted,
    /// A moderator deleted it.
    #[error("A moderator deleted the thread: only moderators restore it.")]
    DeletedByModerator,
    /// The answer is a reply of this thread that can be seen.
    #[error("The answer has to be a reply of this thread that is neither deleted nor hidden.")]
    NoAnswer,
    /// An end has to be ahead.
    #[error("`until` is in the past.")]
    UntilPast,
}

impl Ground {
    /// What the thread stands on.
    pub fn of(thread: &Thread, tree: &CategoryTree) -> Self {
        Self { archived: thread.category.is_some_and(|category| tree.is_archived(category)) }
    }

    fn open(self) -> Result<(), ThreadRefusal> {
        if self.archived { Err(ThreadRefusal::CategoryArchived) } else { Ok(()) }
    }
}

impl Answer {
    /// A reply of `thread` that can be seen. The opening post answers nothing.
    pub fn of(thread: ThreadId, id: PostId, post: &Post) -> Result<Self, ThreadRefusal> {
        let answers = post.thread == Some(thread) && post.parent.is_some() && !post.is_deleted() && !post.is_hidden();
        if answers { Ok(Self(id)) } else { Err(ThreadRefusal::NoAnswer) }
    }
}

impl Thread {
    /// Whether only moderators reply.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether it is deleted.
    pub fn is_deleted(&self) -> bool {
        self.deletion.is_some()
    }

    fn fold(&mut self, event: ThreadEvent) {
        match event {
            ThreadEvent::Started(Started { category, title, tags, author, opening_post }) => {
                *self = Self {
                    category: Some(category),
                    author,
                    opening_post: Some(opening_post),
                    title,
                    tags,
                    ..Self::default()
                };
            }
            ThreadEvent::Retitled(Retitled { title, .. }) => self.title = title,
            ThreadEvent::Moved(Moved { to, .. }) => self.category = Some(to),
            ThreadEvent::TagsSet(TagsSet { tags, .. }) => self.tags = tags,
            ThreadEvent::Locked(Locked { .. }) => self.locked = true,
            ThreadEvent::Unlocked(Unlocked {}) => self.locked = false,
            ThreadEvent::Pinned(Pinned { until }) => self.pin = Some(Pin { until }),
            ThreadEvent::Unpinned(Unpinned {}) => self.pin = None,
            ThreadEvent::AnswerAccepted(AnswerAccepted { post, .. }) => self.answer = Some(post),
            ThreadEvent::AnswerCleared(AnswerCleared { .. }) => self.answer = None,
            ThreadEvent::Deleted(Deleted { moderated, .. }) => self.deletion = Some(Deletion { moderated }),
            ThreadEvent::Restored(Restored { .. }) => self.deletion = None,
        }
    }

    /// What its author and moderators may still work on.
    fn editable(&self, ground: Ground) -> Result<(), ThreadRefusal> {
        ground.open()?;
        if self.is_deleted() { Err(ThreadRefusal::Deleted) } else { Ok(()) }
    }
}

type Decision = Result<Option<ThreadEvent>, ThreadRefusal>;

impl StartThread {
    /// That the place admits the author, the permission and the category say.
    pub fn decide(self, thread: &Thread, _: &Ground) -> Decision {
        if thread.category.is_some() {
            return Err(ThreadRefusal::DuplicateId);
        }
        let Self { by, category, title, tags, opening_post } = self;
        let author = by.author();
        Ok(Some(ThreadEvent::Started(Started { category: category.id(), title, tags, author, opening_post })))
    }
}

impl Retitle {
    /// The same title is no fact.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        thread.editable(*ground)?;
        let Self { by, title } = self;
        let moderated = by.moderated();
        Ok((thread.title != title).then_some(ThreadEvent::Retitled(Retitled { title, moderated })))
    }
}

impl MoveThread {
    /// Also out of an archived category; where it is already is no move.
    pub fn decide(self, thread: &Thread, _: &Ground) -> Decision {
        let from = thread.category.ok_or(ThreadRefusal::NotFound)?;
        let to = self.to.id();
        Ok((from != to).then_some(ThreadEvent::Moved(Moved { from, to })))
    }
}

impl SetTags {
    /// The same tags in the same order are no fact.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        thread.editable(*ground)?;
        let Self { by, tags } = self;
        let moderated = by.moderated();
        Ok((thread.tags != tags).then_some(ThreadEvent::TagsSet(TagsSet { tags, moderated })))
    }
}

impl Lock {
    /// A lock does not change its reason.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        ground.open()?;
        let Self { reason, by: _ } = self;
        Ok((!thread.locked).then_some(ThreadEvent::Locked(Locked { reason })))
    }
}

impl Unlock {
    /// What is open stays so.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        ground.open()?;
        Ok(thread.locked.then_some(ThreadEvent::Unlocked(Unlocked {})))
    }
}

impl PinThread {
    /// Another end is another pin, in place of the one before.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        thread.editable(*ground)?;
        let Self { pin, now, by: _ } = self;
        if pin.until.is_some_and(|until| until <= now) {
            return Err(ThreadRefusal::UntilPast);
        }
        let Pin { until } = pin;
        Ok((thread.pin != Some(pin)).then_some(ThreadEvent::Pinned(Pinned { until })))
    }
}

impl Unpin {
    /// Also a pin that is over, as long as it stands in the stream.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        ground.open()?;
        Ok(thread.pin.is_some().then_some(ThreadEvent::Unpinned(Unpinned {})))
    }
}

impl EndPin {
    /// Also of a thread that is deleted, or that nobody works on: a pin's end was said with it. Another pin, with another
    /// end or none, stays.
    pub fn decide(self, thread: &Thread, _: &Ground) -> Decision {
        let stands = thread.pin.as_ref().and_then(|pin| pin.until).is_some_and(|until| self.over.is_of(until));
        Ok(stands.then_some(ThreadEvent::Unpinned(Unpinned {})))
    }
}

impl AcceptAnswer {
    /// At most one: the new one takes the old one's place.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        thread.editable(*ground)?;
        let Self { by, answer: Answer(post) } = self;
        let moderated = by.moderated();
        let accepts = thread.answer != Some(post);
        Ok(accepts.then_some(ThreadEvent::AnswerAccepted(AnswerAccepted { post, moderated })))
    }
}

impl ClearAnswer {
    /// No answer is cleared already.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        thread.editable(*ground)?;
        let moderated = self.by.moderated();
        Ok(thread.answer.map(|post| ThreadEvent::AnswerCleared(AnswerCleared { post, moderated })))
    }
}

impl DeleteThread {
    /// What is deleted stays as it was deleted; but what its author deleted, a moderator deletes too, and then only
    /// moderators restore it. In an archived category only moderators delete.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        let Self { by, reason } = self;
        if ground.archived && !by.keeps_order() {
            return Err(ThreadRefusal::CategoryArchived);
        }
        let moderated = by.moderated();
        let deletes = thread.deletion.is_none_or(|before| moderated && !before.moderated);
        Ok(deletes.then_some(ThreadEvent::Deleted(Deleted { reason, moderated })))
    }
}

impl RestoreThread {
    /// What a moderator deleted takes a moderator's right to restore, also for its author.
    pub fn decide(self, thread: &Thread, ground: &Ground) -> Decision {
        let Some(deletion) = thread.deletion else { return Ok(None) };
        if ground.archived && !self.by.keeps_order() {
            return Err(ThreadRefusal::CategoryArchived);
        }
        if deletion.moderated && !self.by.keeps_order() {
            return Err(ThreadRefusal::DeletedByModerator);
        }
        let moderated = self.by.moderated() || deletion.moderated;
        Ok(Some(ThreadEvent::Restored(Restored { moderated })))
    }
}

problems! { ThreadRefusal:
    NotFound => NOT_FOUND "thread-not-found",
    DuplicateId => CONFLICT "duplicate" at "#/id",
    DuplicateOpeningPost => CONFLICT "duplicate" at "#/opening_post_id",
    CategoryArchived => UNPROCESSABLE_ENTITY "category-archived",
    Deleted => UNPROCESSABLE_ENTITY "thread-deleted",
    DeletedByModerator => FORBIDDEN "role-required",
    NoAnswer => UNPROCESSABLE_ENTITY "not-an-answer" at "#/post_id",
    UntilPast => UNPROCESSABLE_ENTITY "until-in-the-past" at "#/until",
}

//! What happens to a thread. Its posts have streams of their own: a reply guards on the thread, and does not write it.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AccountId, CategoryId, PostId};

/// A thread was started, together with its opening post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// Where.
    pub category: CategoryId,
    /// Its title.
    pub title: String,
    /// Its tags, in the author's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// By whom; none where the account was deleted before an import.
    pub author: Option<AccountId>,
    /// Its first post, written in the same append.
    pub opening_post: PostId,
}

/// A thread has a new title.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retitled {
    /// The title from now on.
    pub title: String,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A thread went to another category of its community.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Where it was.
    pub from: CategoryId,
    /// Where it is.
    pub to: CategoryId,
}

/// A thread has new tags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TagsSet {
    /// All of them.
    pub tags: Vec<String>,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A thread takes no replies but moderators'.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Locked {
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A thread takes replies again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unlocked {}

/// A thread stands at the top of its lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pinned {
    /// Until when; until it is unpinned where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
}

/// A thread stands where its sort key puts it; by nobody, where its pin came to its end (the envelope's causation id is
/// the event that began it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unpinned {}

/// A reply answers the opening post; an answer accepted before is no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerAccepted {
    /// Which: of this thread.
    pub post: PostId,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// The thread has no accepted answer any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AnswerCleared {
    /// The one that was.
    pub post: PostId,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A thread is shown to moderators only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A deleted thread is shown again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restored {
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

aggregate_events! {
    /// The stream of a thread, named by its [`crate::ThreadId`].
    ThreadEvent {
        /// See [`Started`].
        Started(Started) = ("thread.started", 1),
        /// See [`Retitled`].
        Retitled(Retitled) = ("thread.retitled", 1),
        /// See [`Moved`].
        Moved(Moved) = ("thread.moved", 1),
        /// See [`TagsSet`].
        TagsSet(TagsSet) = ("thread.tags_set", 1),
        /// See [`Locked`].
        Locked(Locked) = ("thread.locked", 1),
        /// See [`Unlocked`].
        Unlocked(Unlocked) = ("thread.unlocked", 1),
        /// See [`Pinned`].
        Pinned(Pinned) = ("thread.pinned", 1),
        /// See [`Unpinned`].
        Unpinned(Unpinned) = ("thread.unpinned", 1),
        /// See [`AnswerAccepted`].
        AnswerAccepted(AnswerAccepted) = ("thread.answer_accepted", 1),
        /// See [`AnswerCleared`].
        AnswerCleared(AnswerCleared) = ("thread.answer_cleared", 1),
        /// See [`Deleted`].
        Deleted(Deleted) = ("thread.deleted", 1),
        /// See [`Restored`].
        Restored(Restored) = ("thread.restored", 1),
    }
}

//! What happens to a post. Every event names its thread, so that a reader needs no look-up to place it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AccountId, PostId, ThreadId};

/// What language a body is written in. Both are sanitised when shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `CommonMark` with GitHub's tables, strikethrough, task lists and bare links.
    #[default]
    Markdown,
    /// HTML.
    Html,
}

/// A post was written: the opening post of its thread, or a reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Written {
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// The post it answers, of the same thread. None for the opening post, and for it only.
    pub parent: Option<PostId>,
    /// 0 for the opening post, else one more than its parent's.
    pub depth: u8,
    /// By whom; none where the account was deleted before an import.
    pub author: Option<AccountId>,
    /// The text, as written.
    pub body: String,
    /// What it is written in.
    pub format: Format,
}

/// A post has a new text. What it was written as is revision 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Edited {
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// The number of the revision that this makes, from 2.
    pub revision: u32,
    /// The text from now on.
    pub body: String,
    /// What it is written in.
    pub format: Format,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A post is shown as deleted; its replies stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A deleted post is shown again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restored {
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// True where it took a moderator's right: the actor is not the author.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moderated: bool,
}

/// A moderator hid a post: only moderators and its author see the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hidden {
    /// The thread it belongs to.
    pub thread: ThreadId,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A hidden post is shown again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unhidden {
    /// The thread it belongs to.
    pub thread: ThreadId,
}

aggregate_events! {
    /// The stream of a post, named by its [`crate::PostId`].
    PostEvent {
        /// See [`Written`].
        Written(Written) = ("post.written", 1),
        /// See [`Edited`].
        Edited(Edited) = ("post.edited", 1),
        /// See [`Deleted`].
        Deleted(Deleted) = ("post.deleted", 1),
        /// See [`Restored`].
        Restored(Restored) = ("post.restored", 1),
        /// See [`Hidden`].
        Hidden(Hidden) = ("post.hidden", 1),
        /// See [`Unhidden`].
        Unhidden(Unhidden) = ("post.unhidden", 1),
    }
}

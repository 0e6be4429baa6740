//! What happens between one account and one post. Counts are projections: each event says what it replaces, so that
//! a count changes without a look at the reaction before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AccountId, PostId, ThreadId};

/// The kinds that every community allows.
pub const KINDS: [&str; 3] = ["up", "down", "like"];

/// An account reacts to a post; one reaction per account and post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Set {
    /// The post's thread.
    pub thread: ThreadId,
    /// Which post.
    pub post: PostId,
    /// Whose reaction.
    pub account: AccountId,
    /// `up`, `down`, `like` or another kind that the community allows.
    pub kind: String,
    /// The kind that it takes the place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<String>,
}

/// A reaction was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Cleared {
    /// The post's thread.
    pub thread: ThreadId,
    /// Which post.
    pub post: PostId,
    /// Whose reaction.
    pub account: AccountId,
    /// The kind that is gone.
    pub kind: String,
}

/// Anonymous votes were brought over from elsewhere. They count besides the reactions set here; stated again, the
/// new numbers take the old ones' place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScoreImported {
    /// The post's thread.
    pub thread: ThreadId,
    /// Which post.
    pub post: PostId,
    /// Votes up.
    pub up: u32,
    /// Votes down.
    pub down: u32,
}

aggregate_events! {
    /// The stream of a reaction, named `<post>.<account>`; imported scores have `<post>.imported`.
    ReactionEvent {
        /// See [`Set`].
        Set(Set) = ("reaction.set", 1),
        /// See [`Cleared`].
        Cleared(Cleared) = ("reaction.cleared", 1),
        /// See [`ScoreImported`].
        ScoreImported(ScoreImported) = ("reaction.score_imported", 1),
    }
}

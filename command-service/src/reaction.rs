//! What an account says to a post without words: one reaction each. Imported scores stand beside them.

use events::{
    AccountId, PostId, ReactionEvent,
    reaction::{Cleared, KINDS, ScoreImported, Set},
};
use serde::{Deserialize, Serialize};

use crate::{
    Refusal,
    access::{Operator, Voter},
    community::Community,
    post::{Post, PostRefusal, Surroundings},
};

pub mod endpoints;
#[cfg(test)]
mod tests;

/// A reaction, folded from its stream; or an imported score, from its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaction {
    /// Its kind; none where it was cleared, or never set.
    pub kind: Option<String>,
    imported: Option<Score>,
}

/// Anonymous votes from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Votes up.
    pub up: u32,
    /// Votes down.
    pub down: u32,
}

/// A kind of reaction that a community allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind(String);

/// What a reaction's rules look at besides the reaction: the post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    id: PostId,
    author: Option<AccountId>,
    deleted: bool,
    hidden: bool,
    around: Surroundings,
}

aggregate! {
    /// What can be done with a reaction.
    Reaction("reaction", 1) given Target => ReactionEvent, or Refusal;
    ReactionCommand { SetReaction, ClearReaction, ImportScore }
}

/// Reacts to a post, in place of the reaction before.
#[derive(Clone, Debug)]
pub struct SetReaction {
    /// Whose reaction.
    pub by: Voter,
    /// Which.
    pub kind: Kind,
}

/// Takes the reaction back.
#[derive(Clone, Debug)]
pub struct ClearReaction {
    /// Whose reaction.
    pub by: Voter,
}

/// States the votes that a post was imported with, in place of those stated before.
#[derive(Clone, Debug)]
pub struct ImportScore {
    /// Operators import.
    pub by: Operator,
    /// The votes.
    pub score: Score,
}

/// Why a reaction's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReactionRefusal {
    /// Nobody reacts to itself.
    #[error("This is your own post: it is for others to react to.")]
    OwnPost,
    /// Not allowed here.
    #[error("This community has no such reaction. It has: {}.", .allowed.join(", "))]
    UnknownKind {
        /// What is.
        allowed: Vec<String>,
    },
}

impl Kind {
    /// What everybody has, and what the community allows besides.
    pub fn of(community: &Community, kind: String) -> Result<Self, ReactionRefusal> {
        let allowed = || KINDS.into_iter().chain(community.settings.reactions.iter().map(String::as_str));
        if allowed().any(|it| it == kind) {
            return Ok(Self(kind));
        }
        Err(ReactionRefusal::UnknownKind { allowed: allowed().map(str::to_owned).collect() })
    }
}

impl Target {
    /// This post, where it stands.
    pub fn of(id: PostId, post: &Post, around: Surroundings) -> Self {
        Self { id, author: post.author, deleted: post.is_deleted(), hidden: post.is_hidden(), around }
    }
}

impl Reaction {
    fn fold(&mut self, event: ReactionEvent) {
        match event {
            ReactionEvent::Set(Set { kind, .. }) => self.kind = Some(kind),
            ReactionEvent::Cleared(Cleared { .. }) => self.kind = None,
            ReactionEvent::ScoreImported(ScoreImported { up, down, .. }) => self.imported = Some(Score { up, down }),
        }
    }
}

type Decision = Result<Option<ReactionEvent>, Refusal>;

impl SetReaction {
    /// Repeating a reaction is no fact and no error.
    pub fn decide(self, reaction: &Reaction, post: &Target) -> Decision {
        post.around.editable()?;
        let (account, Kind(kind)) = (self.by.account(), self.kind);
        if post.author == Some(account) {
            return Err(ReactionRefusal::OwnPost.into());
        }
        if post.deleted {
            return Err(PostRefusal::Deleted.into());
        }
        if post.hidden {
            return Err(PostRefusal::Hidden.into());
        }
        if reaction.kind.as_ref() == Some(&kind) {
            return Ok(None);
        }
        let replaced = reaction.kind.clone();
        Ok(Some(ReactionEvent::Set(Set { thread: post.around.thread(), post: post.id, account, kind, replaced })))
    }
}

impl ClearReaction {
    /// Also from a post that is deleted or hidden; what nobody set is clear.
    pub fn decide(self, reaction: &Reaction, post: &Target) -> Decision {
        post.around.editable()?;
        let (thread, account) = (post.around.thread(), self.by.account());
        let cleared = reaction.kind.clone();
        Ok(cleared.map(|kind| ReactionEvent::Cleared(Cleared { thread, post: post.id, account, kind })))
    }
}

impl ImportScore {
    /// The same numbers again are no fact.
    pub fn decide(self, reaction: &Reaction, post: &Target) -> Decision {
        let Self { score, by: _ } = self;
        let Score { up, down } = score;
        let event = ScoreImported { thread: post.around.thread(), post: post.id, up, down };
        Ok((reaction.imported != Some(score)).then_some(ReactionEvent::ScoreImported(event)))
    }
}

problems! { ReactionRefusal:
    OwnPost => UNPROCESSABLE_ENTITY "own-post",
    UnknownKind => UNPROCESSABLE_ENTITY "unknown-reaction" at "#/kind",
}

//! A community: its settings, its owners, and whether it takes posts.

use std::collections::BTreeSet;

use events::{
    AccountId, CommunityEvent,
    community::{Archived, Created, OwnerAdded, OwnerRemoved, Resumed, Settings, SettingsChanged, Suspended},
    limits,
};
use serde::{Deserialize, Serialize};

use crate::{
    access::{Admin, Operator, Owner, Rank},
    membership::Membership,
};

pub mod endpoints;
#[cfg(test)]
mod tests;

/// The kind of claim that makes slugs unique.
pub const SLUG: &str = "slug";

/// A community, folded from its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Community {
    /// How it is set up.
    pub settings: Settings,
    /// At least one, from its creation on: where there is none, there is no such community.
    pub owners: BTreeSet<AccountId>,
    /// Whether it takes posts.
    pub status: Status,
}

/// Whether a community takes posts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It does.
    #[default]
    Active,
    /// Read-only, by the operator's decision.
    Suspended,
    /// Read-only, by its owners' decision.
    Archived,
}

aggregate! {
    /// What can be done with a community.
    Community("community", 1) given () => CommunityEvent, or CommunityRefusal;
    CommunityCommand { CreateCommunity, ChangeSettings, AddOwner, RemoveOwner, Suspend, Resume, Archive, Reopen }
}

/// Makes a community, owned by its maker.
#[derive(Clone, Debug)]
pub struct CreateCommunity {
    /// How it is set up; the slug is claimed beside.
    pub settings: Settings,
    /// Its first owner.
    pub owner: AccountId,
}

/// Sets a community up anew; the slug is claimed beside.
#[derive(Clone, Debug)]
pub struct ChangeSettings {
    /// An admin sets the place up.
    pub by: Admin,
    /// All settings, as they shall be.
    pub settings: Settings,
}

/// Makes a member an owner.
#[derive(Clone, Debug)]
pub struct AddOwner {
    /// Owners choose their peers.
    pub by: Owner,
    /// Who.
    pub account: AccountId,
    /// Whether it is a member, and not banned.
    pub member: bool,
}

/// Ends an ownership: one's own, or, for an operator, anybody's.
#[derive(Clone, Debug)]
pub struct RemoveOwner {
    /// Nobody sanctions a peer.
    pub by: Owner,
    /// Who.
    pub account: AccountId,
}

/// Makes a community read-only until the operator resumes it.
#[derive(Clone, Debug)]
pub struct Suspend {
    /// The platform's operator.
    pub by: Operator,
    /// Why.
    pub reason: String,
}

/// Ends a suspension.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The platform's operator.
    pub by: Operator,
}

/// Makes a community read-only until an owner resumes it.
#[derive(Clone, Debug)]
pub struct Archive {
    /// An owner.
    pub by: Owner,
}

/// Lets an archived community take posts again.
#[derive(Clone, Debug)]
pub struct Reopen {
    /// An owner.
    pub by: Owner,
}

/// Why a community's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommunityRefusal {
    /// No such community, or none that shows itself to who asks.
    #[error("There is no such community.")]
    NotFound,
    /// The id is in use.
    #[error("A community of this id is there already.")]
    DuplicateId,
    /// The slug is in use.
    #[error("Another community has this slug.")]
    SlugTaken,
    /// An owner is a member first.
    #[error("The account is not a member of this community: only members become owners.")]
    OwnerNotMember,
    /// More owners than a community has.
    #[error("A community has at most {} owners.", limits::OWNERS)]
    TooManyOwners,
    /// A community has at least one owner.
    #[error("The last owner cannot leave: add another owner first, or archive the community.")]
    LastOwner,
    /// Owners are peers.
    #[error("Only the owner itself, or an operator, ends an ownership: nobody sanctions a peer.")]
    PeerOwner,
    /// What the operator suspended, the operator resumes.
    #[error("This community was suspended by the platform's operators: only they resume it.")]
    SuspendedByOperator,
}

impl Community {
    /// Whether it was ever created.
    pub fn exists(&self) -> bool {
        !self.owners.is_empty()
    }

    /// How high `account`, whose membership this is, stands here.
    pub fn rank(&self, account: AccountId, membership: &Membership) -> Rank {
        match membership.role() {
            _ if self.owners.contains(&account) => Rank::Owner,
            Some(role) => role.into(),
            None => Rank::Guest,
        }
    }

    fn fold(&mut self, event: CommunityEvent) {
        match event {
            CommunityEvent::Created(Created { settings, owner }) => {
                self.settings = settings;
                self.owners.insert(owner);
            }
            CommunityEvent::SettingsChanged(SettingsChanged { settings }) => self.settings = settings,
            CommunityEvent::OwnerAdded(OwnerAdded { account }) => {
                self.owners.insert(account);
            }
            CommunityEvent::OwnerRemoved(OwnerRemoved { account }) => {
                self.owners.remove(&account);
            }
            CommunityEvent::Suspended(Suspended { .. }) => self.status = Status::Suspended,
            CommunityEvent::Resumed(Resumed {}) => self.status = Status::Active,
            CommunityEvent::Archived(Archived {}) => self.status = Status::Archived,
        }
    }
}

type Decision = Result<Option<CommunityEvent>, CommunityRefusal>;

impl CreateCommunity {
    /// Whose slug it is, the claim decides.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        if community.exists() {
            return Err(CommunityRefusal::DuplicateId);
        }
        let Self { settings, owner } = self;
        Ok(Some(CommunityEvent::Created(Created { settings, owner })))
    }
}

impl ChangeSettings {
    /// Settings that are so already are no fact.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        let Self { settings, by: _ } = self;
        Ok((settings != community.settings).then_some(CommunityEvent::SettingsChanged(SettingsChanged { settings })))
    }
}

impl AddOwner {
    /// An owner is a member first, so that what role is left after it stands in the membership.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        let Self { account, member, by: _ } = self;
        if community.owners.contains(&account) {
            return Ok(None);
        }
        if !member {
            return Err(CommunityRefusal::OwnerNotMember);
        }
        if community.owners.len() >= limits::OWNERS {
            return Err(CommunityRefusal::TooManyOwners);
        }
        Ok(Some(CommunityEvent::OwnerAdded(OwnerAdded { account })))
    }
}

impl RemoveOwner {
    /// The last owner stays.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        let Self { by, account } = self;
        if !community.owners.contains(&account) {
            return Ok(None);
        }
        if !by.is(account) && !by.is_operator() {
            return Err(CommunityRefusal::PeerOwner);
        }
        if community.owners.len() == 1 {
            return Err(CommunityRefusal::LastOwner);
        }
        Ok(Some(CommunityEvent::OwnerRemoved(OwnerRemoved { account })))
    }
}

impl Suspend {
    /// Also what its owners archived, so that they cannot resume it.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        let Self { reason, by: _ } = self;
        Ok((community.status != Status::Suspended).then_some(CommunityEvent::Suspended(Suspended { reason })))
    }
}

impl Resume {
    /// What is not suspended stays as it is.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        Ok((community.status == Status::Suspended).then_some(CommunityEvent::Resumed(Resumed {})))
    }
}

impl Archive {
    /// A suspended community stays suspended: else its owners could resume it.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        match community.status {
            Status::Active => Ok(Some(CommunityEvent::Archived(Archived {}))),
            Status::Suspended => Err(CommunityRefusal::SuspendedByOperator),
            Status::Archived => Ok(None),
        }
    }
}

impl Reopen {
    /// Owners undo what owners did, and no more.
    pub fn decide(self, community: &Community, (): &()) -> Decision {
        match community.status {
            Status::Active => Ok(None),
            Status::Suspended => Err(CommunityRefusal::SuspendedByOperator),
            Status::Archived => Ok(Some(CommunityEvent::Resumed(Resumed {}))),
        }
    }
}

problems! { CommunityRefusal:
    NotFound => NOT_FOUND "community-not-found",
    DuplicateId => CONFLICT "duplicate" at "#/id",
    SlugTaken => CONFLICT "duplicate" at "#/slug",
    OwnerNotMember => UNPROCESSABLE_ENTITY "not-a-member",
    TooManyOwners => UNPROCESSABLE_ENTITY "too-many",
    LastOwner => UNPROCESSABLE_ENTITY "last-owner",
    PeerOwner => FORBIDDEN "not-superior",
    SuspendedByOperator => FORBIDDEN "operators-only",
}

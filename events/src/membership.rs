//! What happens between one account and one community. Ownership is a fact of the community's own stream.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AccountId;

/// What a member may do, least first. Nobody sanctions a peer or a superior.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and posts.
    #[default]
    Member,
    /// Keeps order: locks, moves, hides, bans.
    Moderator,
    /// Sets the place up: categories, settings, moderators.
    Admin,
    /// Answers for it. A fact of the community's stream, never assigned by `membership.role_assigned`.
    Owner,
}

/// An account became a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Joined {
    /// Who.
    pub account: AccountId,
}

/// An account may join, also where joining is by invitation only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invited {
    /// Who.
    pub account: AccountId,
}

/// A member left, or was removed (the envelope's actor says by whom); its role is gone with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Left {
    /// Who.
    pub account: AccountId,
}

/// A member was given a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleAssigned {
    /// Who.
    pub account: AccountId,
    /// `moderator` or `admin`.
    pub role: Role,
}

/// A member's role was taken back to `member`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleRevoked {
    /// Who.
    pub account: AccountId,
    /// The role that is gone.
    pub role: Role,
}

/// An account may not take part; in a private community, not read either. Its role is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Banned {
    /// Who.
    pub account: AccountId,
    /// Until when; for good where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: String,
}

/// A ban was lifted; by nobody, where it came to its end (the envelope's causation id is the event that began it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BanLifted {
    /// Who.
    pub account: AccountId,
}

/// An account may read but not write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Silenced {
    /// Who.
    pub account: AccountId,
    /// Until when.
    pub until: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// A silence was lifted; by nobody, where it came to its end (the envelope's causation id is the event that began it).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SilenceLifted {
    /// Who.
    pub account: AccountId,
}

aggregate_events! {
    /// The stream of a membership, named `<community>.<account>`.
    MembershipEvent {
        /// See [`Joined`].
        Joined(Joined) = ("membership.joined", 1),
        /// See [`Invited`].
        Invited(Invited) = ("membership.invited", 1),
        /// See [`Left`].
        Left(Left) = ("membership.left", 1),
        /// See [`RoleAssigned`].
        RoleAssigned(RoleAssigned) = ("membership.role_assigned", 1),
        /// See [`RoleRevoked`].
        RoleRevoked(RoleRevoked) = ("membership.role_revoked", 1),
        /// See [`Banned`].
        Banned(Banned) = ("membership.banned", 1),
        /// See [`BanLifted`].
        BanLifted(BanLifted) = ("membership.ban_lifted", 1),
        /// See [`Silenced`].
        Silenced(Silenced) = ("membership.silenced", 1),
        /// See [`SilenceLifted`].
        SilenceLifted(SilenceLifted) = ("membership.silence_lifted", 1),
    }
}

impl MembershipEvent {
    /// Whose membership it is about.
    pub fn account(&self) -> AccountId {
        match self {
            Self::Joined(Joined { account, .. })
            | Self::Invited(Invited { account, .. })
            | Self::Left(Left { account, .. })
            | Self::RoleAssigned(RoleAssigned { account, .. })
            | Self::RoleRevoked(RoleRevoked { account, .. })
            | Self::Banned(Banned { account, .. })
            | Self::BanLifted(BanLifted { account, .. })
            | Self::Silenced(Silenced { account, .. })
            | Self::SilenceLifted(SilenceLifted { account, .. }) => *account,
        }
    }
}

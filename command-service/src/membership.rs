//! What is between one account and one community: membership, role, ban, silence. Ownership is the community's.

use chrono::{DateTime, Utc};
use events::{
    AccountId, MembershipEvent,
    membership::{BanLifted, Banned, Invited, Joined, Left, Role, RoleAssigned, RoleRevoked, SilenceLifted, Silenced},
};
use serde::{Deserialize, Serialize};

use crate::access::{Joiner, Moderator, Over, Superior};

pub mod endpoints;
#[cfg(test)]
mod tests;

/// A membership, folded from its stream. Its default is what is between strangers: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    belongs: Belongs,
    role: Role,
    ban: Option<Ban>,
    silence: Option<Silence>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Belongs {
    #[default]
    Not,
    Invited,
    Member,
}

/// A ban, in force until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Its end; none where it is for good.
    pub until: Option<DateTime<Utc>>,
    /// Why.
    pub reason: String,
}

/// A silence, in force until its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Its end.
    pub until: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

aggregate! {
    /// What can be done about a membership. The facts are whose it is.
    Membership("membership", 1) given AccountId => MembershipEvent, or MembershipRefusal;
    MembershipCommand {
        Join, Invite, Leave, Remove, AssignRole, RevokeRole, BanMember, LiftBan, EndBan, SilenceMember, LiftSilence,
        EndSilence,
    }
}

/// Becomes a member.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who may.
    pub by: Joiner,
}

/// Lets an account join where that takes an invitation.
#[derive(Clone, Debug)]
pub struct Invite {
    /// Moderators invite.
    pub by: Moderator,
}

/// Ends one's own membership, or declines an invitation. Nothing forbids it; an owner gives up its ownership with it.
#[derive(Clone, Debug)]
pub struct Leave {}

/// Ends another's membership, or takes an invitation back.
#[derive(Clone, Debug)]
pub struct Remove {
    /// Who stands above the member.
    pub by: Superior,
}

/// Gives a member a role, in place of the one it has.
#[derive(Clone, Debug)]
pub struct AssignRole {
    /// Who stands above the member and the role.
    pub by: Superior,
    /// The role. As [`Role::Member`], it takes a role back.
    pub role: Role,
}

/// Takes a role back.
#[derive(Clone, Debug)]
pub struct RevokeRole {
    /// Who stands above the member, or the member itself.
    pub by: Superior,
}

/// Keeps an account from taking part, member or not.
#[derive(Clone, Debug)]
pub struct BanMember {
    /// Who stands above the account.
    pub by: Superior,
    /// The ban.
    pub ban: Ban,
    /// What a ban's end must be after.
    pub now: DateTime<Utc>,
}

/// Ends a ban.
#[derive(Clone, Debug)]
pub struct LiftBan {
    /// A moderator, of any ban.
    pub by: Moderator,
}

/// States that the ban which lasted until then is over.
#[derive(Clone, Debug)]
pub struct EndBan {
    /// Its end has come.
    pub over: Over,
}

/// Keeps an account from writing, member or not.
#[derive(Clone, Debug)]
pub struct SilenceMember {
    /// Who stands above the account.
    pub by: Superior,
    /// The silence.
    pub silence: Silence,
    /// What a silence's end must be after.
    pub now: DateTime<Utc>,
}

/// Ends a silence before its end.
#[derive(Clone, Debug)]
pub struct LiftSilence {
    /// A moderator, of any silence.
    pub by: Moderator,
}

/// States that the silence which lasted until then is over.
#[derive(Clone, Debug)]
pub struct EndSilence {
    /// Its end has come.
    pub over: Over,
}

/// Why a membership's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembershipRefusal {
    /// Roles are members'.
    #[error("The account is not a member of this community.")]
    NotMember,
    /// An end has to be ahead.
    #[error("`until` is in the past.")]
    UntilPast,
}

impl Membership {
    /// The role of a member; none where it is not one. An owner's role is in the community.
    pub fn role(&self) -> Option<Role> {
        (self.belongs == Belongs::Member).then_some(self.role)
    }

    /// Whether an invitation waits to be accepted.
    pub fn is_invited(&self) -> bool {
        self.belongs == Belongs::Invited
    }

    /// The ban in force at `now`.
    pub fn ban(&self, now: DateTime<Utc>) -> Option<&Ban> {
        self.ban.as_ref().filter(|ban| ban.until.is_none_or(|until| until > now))
    }

    /// The silence in force at `now`.
    pub fn silence(&self, now: DateTime<Utc>) -> Option<&Silence> {
        self.silence.as_ref().filter(|silence| silence.until > now)
    }

    fn fold(&mut self, event: MembershipEvent) {
        match event {
            MembershipEvent::Joined(Joined { .. }) => self.belongs = Belongs::Member,
            MembershipEvent::Invited(Invited { .. }) => self.belongs = Belongs::Invited,
            MembershipEvent::Left(Left { .. }) => {
                self.belongs = Belongs::Not;
                self.role = Role::Member;
            }
            MembershipEvent::RoleAssigned(RoleAssigned { role, .. }) => self.role = role,
            MembershipEvent::RoleRevoked(RoleRevoked { .. }) => self.role = Role::Member,
            MembershipEvent::Banned(Banned { until, reason, .. }) => {
                self.ban = Some(Ban { until, reason });
                self.role = Role::Member;
            }
            MembershipEvent::BanLifted(BanLifted { .. }) => self.ban = None,
            MembershipEvent::Silenced(Silenced { until, reason, .. }) => self.silence = Some(Silence { until, reason }),
            MembershipEvent::SilenceLifted(SilenceLifted { .. }) => self.silence = None,
        }
    }
}

type Decision = Result<Option<MembershipEvent>, MembershipRefusal>;

impl Join {
    /// A member joins once.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let joins = membership.belongs != Belongs::Member;
        Ok(joins.then_some(MembershipEvent::Joined(Joined { account })))
    }
}

impl Invite {
    /// A member needs no invitation.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let invites = membership.belongs == Belongs::Not;
        Ok(invites.then_some(MembershipEvent::Invited(Invited { account })))
    }
}

impl Leave {
    /// A ban stays.
    pub fn decide(self, membership: &Membership, account: &AccountId) -> Decision {
        Ok(left(membership, *account))
    }
}

impl Remove {
    /// A ban stays.
    pub fn decide(self, membership: &Membership, account: &AccountId) -> Decision {
        Ok(left(membership, *account))
    }
}

impl AssignRole {
    /// A role that it has already is no fact.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let role = membership.role().ok_or(MembershipRefusal::NotMember)?;
        Ok(match self.role {
            assigned if assigned == role => None,
            Role::Member => Some(MembershipEvent::RoleRevoked(RoleRevoked { account, role })),
            assigned => Some(MembershipEvent::RoleAssigned(RoleAssigned { account, role: assigned })),
        })
    }
}

impl RevokeRole {
    /// What nobody has is revoked already.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let revoked = membership.role().filter(|role| *role != Role::Member);
        Ok(revoked.map(|role| MembershipEvent::RoleRevoked(RoleRevoked { account, role })))
    }
}

impl BanMember {
    /// Another end or reason is another ban, in place of the one before.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let Self { ban, now, by: _ } = self;
        if ban.until.is_some_and(|until| until <= now) {
            return Err(MembershipRefusal::UntilPast);
        }
        if membership.ban.as_ref() == Some(&ban) {
            return Ok(None);
        }
        let Ban { until, reason } = ban;
        Ok(Some(MembershipEvent::Banned(Banned { account, until, reason })))
    }
}

impl LiftBan {
    /// Also one that is over, as long as it stands in the stream.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        Ok(membership.ban.is_some().then_some(MembershipEvent::BanLifted(BanLifted { account })))
    }
}

impl EndBan {
    /// Another ban, with another end or none, stays.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let stands = membership.ban.as_ref().and_then(|ban| ban.until).is_some_and(|until| self.over.is_of(until));
        Ok(stands.then_some(MembershipEvent::BanLifted(BanLifted { account })))
    }
}

impl SilenceMember {
    /// Another end or reason is another silence, in place of the one before.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let Self { silence, now, by: _ } = self;
        if silence.until <= now {
            return Err(MembershipRefusal::UntilPast);
        }
        if membership.silence.as_ref() == Some(&silence) {
            return Ok(None);
        }
        let Silence { until, reason } = silence;
        Ok(Some(MembershipEvent::Silenced(Silenced { account, until, reason })))
    }
}

impl LiftSilence {
    /// Also one that is over, as long as it stands in the stream.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let lifts = membership.silence.is_some();
        Ok(lifts.then_some(MembershipEvent::SilenceLifted(SilenceLifted { account })))
    }
}

impl EndSilence {
    /// Another silence, with another end, stays.
    pub fn decide(self, membership: &Membership, &account: &AccountId) -> Decision {
        let stands = membership.silence.as_ref().is_some_and(|silence| self.over.is_of(silence.until));
        Ok(stands.then_some(MembershipEvent::SilenceLifted(SilenceLifted { account })))
    }
}

fn left(membership: &Membership, account: AccountId) -> Option<MembershipEvent> {
    (membership.belongs != Belongs::Not).then_some(MembershipEvent::Left(Left { account }))
}

problems! { MembershipRefusal:
    NotMember => UNPROCESSABLE_ENTITY "not-a-member",
    UntilPast => UNPROCESSABLE_ENTITY "until-in-the-past" at "#/until",
}

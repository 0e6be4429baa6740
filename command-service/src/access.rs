//! Who may do what in a community. A permission is a value that only its checked constructor makes: a command that
//! holds a [`Moderator`] cannot be decided for anybody else, and no body has a check to forget.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use events::{AccountId, community::Visibility, membership::Role};

use crate::{
    community::{Community, Status},
    membership::Membership,
};

#[cfg(test)]
mod tests;

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// None where an operator acts for a deleted account.
    pub account: Option<AccountId>,
    /// Whether it runs the platform. An operator stands above every owner, also while acting for somebody else.
    pub operator: bool,
}

/// How high somebody stands in a community, lowest first. Nobody sanctions a peer or a superior.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// No member.
    Guest,
    /// See [`Role::Member`].
    Member,
    /// See [`Role::Moderator`].
    Moderator,
    /// See [`Role::Admin`].
    Admin,
    /// See [`Role::Owner`].
    Owner,
    /// Runs the platform.
    Operator,
}

impl From<Role> for Rank {
    fn from(role: Role) -> Self {
        match role {
            Role::Member => Self::Member,
            Role::Moderator => Self::Moderator,
            Role::Admin => Self::Admin,
            Role::Owner => Self::Owner,
        }
    }
}

/// What somebody is in a community at a moment. The permissions come from here.
#[derive(Clone, Debug)]
pub struct Standing {
    actor: Actor,
    rank: Rank,
    invited: bool,
    banned: Option<Sanction>,
    silenced: Option<Sanction>,
    visibility: Visibility,
    status: Status,
}

/// A sanction in force, and its end where it has one.
type Sanction = Option<DateTime<Utc>>;

/// May write here now: neither banned nor silenced, a member where only members write, and the community takes posts.
#[derive(Clone, Copy, Debug)]
pub struct Participant {
    actor: Actor,
    rank: Rank,
}

/// A [`Participant`] that is an account: what a deleted one cannot do.
#[derive(Clone, Copy, Debug)]
pub struct Voter(AccountId);

/// A [`Participant`] who keeps order.
#[derive(Clone, Copy, Debug)]
pub struct Moderator(());

/// A [`Participant`] who sets the place up.
#[derive(Clone, Copy, Debug)]
pub struct Admin(());

/// Answers for the community as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Owner(Actor);

/// Runs the platform.
#[derive(Clone, Copy, Debug)]
pub struct Operator(());

/// A [`Participant`] who wrote the thing at hand, or may deal with everybody's.
#[derive(Clone, Copy, Debug)]
pub struct Curator {
    own: bool,
    moderator: bool,
}

/// A [`Moderator`] (for roles: an [`Admin`]) who stands above the member at hand.
#[derive(Clone, Copy, Debug)]
pub struct Superior(());

/// An end that has come. What was to last until then, nobody has to end: the platform states that it is over.
#[derive(Clone, Copy, Debug)]
pub struct Over(DateTime<Utc>);

/// May become a member.
#[derive(Clone, Copy, Debug)]
pub struct Joiner(AccountId);

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessRefusal {
    /// Banned from the community.
    #[error("You are banned from this community{}.", until(*.0))]
    Banned(Option<DateTime<Utc>>),
    /// May read, but not write.
    #[error("You are silenced in this community{}: you may read, but not write.", until(*.0))]
    Silenced(Option<DateTime<Utc>>),
    /// Only members write here.
    #[error("Only members may write in this community. Join it first.")]
    MembersOnly,
    /// Joining takes an invitation.
    #[error("This community is joined by invitation only.")]
    InvitationOnly,
    /// The operator made the community read-only.
    #[error("This community is suspended, and read-only until it is resumed.")]
    Suspended,
    /// The owners made the community read-only.
    #[error("This community is archived and read-only.")]
    Archived,
    /// It takes a higher role.
    #[error("It takes {} or more to do this here.", rank_in_words(*.0))]
    RankTooLow(Rank),
    /// It takes the author, or a moderator.
    #[error("Only its author and moderators may do this.")]
    NotAuthor,
    /// Nobody sanctions a peer or a superior.
    #[error("The account stands as high as you do, or higher: nobody sanctions a peer or a superior.")]
    NotSuperior,
    /// An owner is no mere member.
    #[error("The account is an owner: it has to give up its ownership first.")]
    TargetIsOwner,
    /// Ownership is a fact of the community.
    #[error("Ownership is no role of a membership: add the account to the community's owners.")]
    OwnershipIsNoRole,
    /// It takes an operator.
    #[error("Only the platform's operators may do this.")]
    OperatorsOnly,
    /// It takes an account.
    #[error("This takes an account: a deleted one cannot do it.")]
    NoAccount,
    /// It is another account's business.
    #[error("Only the account itself may do this.")]
    NotYourself,
}

impl Actor {
    /// May run the platform.
    pub fn as_operator(self) -> Result<Operator, AccessRefusal> {
        if self.operator { Ok(Operator(())) } else { Err(AccessRefusal::OperatorsOnly) }
    }

    /// The account it acts as.
    pub fn account(self) -> Result<AccountId, AccessRefusal> {
        self.account.ok_or(AccessRefusal::NoAccount)
    }
}

impl Participant {
    /// The author of what it writes; none for a deleted account.
    pub fn author(self) -> Option<AccountId> {
        self.actor.account
    }

    /// Whether it is a moderator or higher.
    pub fn keeps_order(self) -> bool {
        self.rank >= Rank::Moderator
    }

    /// The account, for what a deleted one cannot do.
    pub fn voter(self) -> Result<Voter, AccessRefusal> {
        self.actor.account().map(Voter)
    }
}

impl Voter {
    /// Which.
    pub fn account(self) -> AccountId {
        self.0
    }
}

impl Owner {
    /// Whether it is one by running the platform.
    pub fn is_operator(self) -> bool {
        self.0.operator
    }

    /// Whether it is this account.
    pub fn is(self, account: AccountId) -> bool {
        self.0.account == Some(account)
    }
}

impl Curator {
    /// True where it takes a moderator's right.
    pub fn moderated(self) -> bool {
        !self.own
    }

    /// Whether it is a moderator or higher, whoever wrote the thing at hand.
    pub fn keeps_order(self) -> bool {
        self.moderator
    }
}

impl Over {
    /// None where the end is still ahead at `now`.
    pub fn at(end: DateTime<Utc>, now: DateTime<Utc>) -> Option<Self> {
        (end <= now).then_some(Self(end))
    }

    /// The end, in whole microseconds, as the database keeps it.
    pub fn end(self) -> DateTime<Utc> {
        self.0
    }

    /// Whether it is the end that was said, which may have been said more finely.
    pub fn is_of(self, said: DateTime<Utc>) -> bool {
        (said - self.0).abs() <= TimeDelta::microseconds(1)
    }
}

impl Joiner {
    /// Who.
    pub fn account(self) -> AccountId {
        self.0
    }
}

impl Standing {
    /// What `actor`, whose membership of `community` this is, is there at `now`.
    pub fn of(actor: Actor, community: &Community, membership: &Membership, now: DateTime<Utc>) -> Self {
        let rank = match actor.account {
            _ if actor.operator => Rank::Operator,
            Some(account) => community.rank(account, membership),
            None => Rank::Guest,
        };
        Self {
            actor,
            rank,
            invited: membership.is_invited(),
            banned: membership.ban(now).filter(|_| !actor.operator).map(|ban| ban.until),
            silenced: membership.silence(now).filter(|_| !actor.operator).map(|silence| Some(silence.until)),
            visibility: community.settings.visibility,
            status: community.status,
        }
    }

    /// Whether the community shows itself. To whom it does not, everything in it is not found.
    pub fn sees(&self) -> bool {
        match self.visibility {
            Visibility::Public | Visibility::Restricted => true,
            Visibility::Private => self.rank >= Rank::Member && self.banned.is_none(),
        }
    }

    /// Whether it shows itself, or would to one who accepts its invitation.
    pub fn knows(&self) -> bool {
        self.sees() || (self.invited && self.banned.is_none())
    }

    /// Whether a thread of `author` shows itself that is deleted: who may restore it knows of it.
    pub fn sees_deleted(&self, author: Option<AccountId>) -> bool {
        self.rank >= Rank::Moderator || (author.is_some() && self.actor.account == author)
    }

    /// May write.
    pub fn participant(&self) -> Result<Participant, AccessRefusal> {
        self.not_banned()?;
        self.not_read_only()?;
        if let Some(until) = self.silenced {
            return Err(AccessRefusal::Silenced(until));
        }
        if self.visibility != Visibility::Public && self.rank < Rank::Member {
            return Err(AccessRefusal::MembersOnly);
        }
        Ok(Participant { actor: self.actor, rank: self.rank })
    }

    /// May keep order.
    pub fn moderator(&self) -> Result<Moderator, AccessRefusal> {
        self.at_least(Rank::Moderator).map(|_| Moderator(()))
    }

    /// May set the place up.
    pub fn admin(&self) -> Result<Admin, AccessRefusal> {
        self.at_least(Rank::Admin).map(|_| Admin(()))
    }

    /// May decide about the community as a whole.
    pub fn owner(&self) -> Result<Owner, AccessRefusal> {
        self.not_read_only()?;
        self.caretaker()
    }

    /// The same, also while it is read-only: may make it so, and end that.
    pub fn caretaker(&self) -> Result<Owner, AccessRefusal> {
        self.not_banned()?;
        if self.rank < Rank::Owner {
            return Err(AccessRefusal::RankTooLow(Rank::Owner));
        }
        Ok(Owner(self.actor))
    }

    /// May deal with what `author` wrote: as its author, or as a moderator. What a deleted account wrote is its own
    /// to the operator who acts for one.
    pub fn curator(&self, author: Option<AccountId>) -> Result<Curator, AccessRefusal> {
        let participant = self.participant()?;
        let curator = Curator { own: participant.actor.account == author, moderator: self.rank >= Rank::Moderator };
        if curator.own || curator.moderator { Ok(curator) } else { Err(AccessRefusal::NotAuthor) }
    }

    /// May ban, silence or remove a member of rank `target`.
    pub fn superior(&self, target: Rank) -> Result<Superior, AccessRefusal> {
        self.moderator()?;
        self.above(target)
    }

    /// May give and take roles up to `role` to and from a member of rank `target`.
    pub fn appointer(&self, target: Rank, role: Role) -> Result<Superior, AccessRefusal> {
        if role == Role::Owner {
            return Err(AccessRefusal::OwnershipIsNoRole);
        }
        self.admin()?;
        self.above(target)?;
        self.above(role.into())
    }

    /// May give up its own role: that is no sanction.
    pub fn resigner(&self, target: AccountId) -> Option<Superior> {
        let may = self.not_banned().and_then(|()| self.not_read_only()).is_ok();
        (may && self.actor.account == Some(target)).then_some(Superior(()))
    }

    /// May become a member.
    pub fn joiner(&self) -> Result<Joiner, AccessRefusal> {
        self.not_banned()?;
        self.not_read_only()?;
        let account = self.actor.account.ok_or(AccessRefusal::NoAccount)?;
        if self.visibility == Visibility::Private && self.rank < Rank::Member && !self.invited {
            return Err(AccessRefusal::InvitationOnly);
        }
        Ok(Joiner(account))
    }

    fn at_least(&self, rank: Rank) -> Result<Participant, AccessRefusal> {
        self.not_banned()?;
        if self.rank < rank {
            return Err(AccessRefusal::RankTooLow(rank));
        }
        self.participant()
    }

    fn above(&self, target: Rank) -> Result<Superior, AccessRefusal> {
        match target {
            Rank::Owner if self.rank >= Rank::Owner => Err(AccessRefusal::TargetIsOwner),
            target if target >= self.rank => Err(AccessRefusal::NotSuperior),
            _ => Ok(Superior(())),
        }
    }

    fn not_banned(&self) -> Result<(), AccessRefusal> {
        self.banned.map_or(Ok(()), |until| Err(AccessRefusal::Banned(until)))
    }

    fn not_read_only(&self) -> Result<(), AccessRefusal> {
        match self.status {
            Status::Active => Ok(()),
            Status::Suspended => Err(AccessRefusal::Suspended),
            Status::Archived => Err(AccessRefusal::Archived),
        }
    }
}

fn until(end: Option<DateTime<Utc>>) -> String {
    end.map(|end| format!(" until {}", end.to_rfc3339_opts(SecondsFormat::Secs, true))).unwrap_or_default()
}

fn rank_in_words(rank: Rank) -> &'static str {
    match rank {
        Rank::Guest => "anyone",
        Rank::Member => "a member",
        Rank::Moderator => "a moderator",
        Rank::Admin => "an admin",
        Rank::Owner => "an owner",
        Rank::Operator => "an operator",
    }
}

problems! { AccessRefusal:
    Banned => FORBIDDEN "banned",
    Silenced => FORBIDDEN "silenced",
    MembersOnly => FORBIDDEN "members-only",
    InvitationOnly => FORBIDDEN "invitation-only",
    RankTooLow => FORBIDDEN "role-required",
    NotAuthor => FORBIDDEN "not-author",
    NotSuperior => FORBIDDEN "not-superior",
    TargetIsOwner => UNPROCESSABLE_ENTITY "target-is-owner",
    OwnershipIsNoRole => UNPROCESSABLE_ENTITY "ownership-is-no-role",
    OperatorsOnly => FORBIDDEN "operators-only",
    NoAccount => UNPROCESSABLE_ENTITY "account-required",
    NotYourself => FORBIDDEN "not-yourself",
    Suspended => UNPROCESSABLE_ENTITY "community-suspended",
    Archived => UNPROCESSABLE_ENTITY "community-archived",
}

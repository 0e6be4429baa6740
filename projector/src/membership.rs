//! Projection: who belongs to a community, in which role, and who may not take part.

use chrono::{DateTime, Utc};
use events::{
    AccountId, CommunityEvent, Event, MembershipEvent,
    community::{Created, OwnerAdded, OwnerRemoved},
    membership::{BanLifted, Banned, Invited, Joined, Left, Role, RoleAssigned, RoleRevoked, SilenceLifted, Silenced},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Word, Writes, read_table},
};

pub(crate) struct Memberships;

read_table! {
    /// What is between an account and a community.
    Member in "member" {
        key { community_id: Uuid, account_id: Uuid }
        status: Word,
        role: Word,
        rank: i16,
        assigned: Word,
        owner: bool,
        joined_at: Option<DateTime<Utc>>,
        banned: bool,
        banned_until: Option<DateTime<Utc>>,
        ban_reason: Option<String>,
        silenced_until: Option<DateTime<Utc>>,
        silence_reason: Option<String>,
        version: i64,
        position: i64,
    }

    /// How many members a community has.
    MemberCount in "member_count" {
        key { community_id: Uuid }
        members: i64 => Add,
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    members: Table<Member>,
    counts: Table<MemberCount>,
}

impl Projection for Memberships {
    const NAME: &'static str = "membership";
    const TABLES: &'static [Kept] = &[Kept::of_community("member"), Kept::of_community("member_count")];
    type Rows = Rows;

    fn concerns(event: &Event) -> bool {
        account(event).is_some()
    }

    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Rows> {
        let key = |recorded: &Recorded<'_>| Some((recorded.community().ok()?, account(recorded.event)?.0));
        let members = Table::load(events.iter().filter_map(key), from).await?;
        Ok(Rows { members, ..Rows::default() })
    }

    fn fold(rows: &mut Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let Some(AccountId(account)) = account(recorded.event) else { return Ok(()) };
        let community = recorded.community()?;
        let member = rows.members.change_or((community, account), || stranger(community, account));
        let was_member = is_member(member);
        match recorded.event {
            Event::Membership(event) => {
                change(member, event, recorded.at());
                member.version = recorded.version();
            }
            Event::Community(CommunityEvent::Created(_) | CommunityEvent::OwnerAdded(_)) => member.owner = true,
            Event::Community(CommunityEvent::OwnerRemoved(_)) => member.owner = false,
            _ => {}
        }
        settle(member);
        member.position = recorded.position();
        let difference = i64::from(is_member(member)) - i64::from(was_member);
        rows.counts.change_or(community, || MemberCount { community_id: community, members: 0 }).members += difference;
        changed.community(community);
        changed.account(account);
        Ok(())
    }

    fn write(rows: Rows, to: &mut Writes) {
        rows.members.write(to);
        rows.counts.write(to);
    }
}

/// Whose membership an event concerns.
fn account(event: &Event) -> Option<AccountId> {
    use MembershipEvent as M;
    match event {
        Event::Membership(
            M::Joined(Joined { account })
            | M::Invited(Invited { account })
            | M::Left(Left { account })
            | M::RoleAssigned(RoleAssigned { account, .. })
            | M::RoleRevoked(RoleRevoked { account, .. })
            | M::Banned(Banned { account, .. })
            | M::BanLifted(BanLifted { account })
            | M::Silenced(Silenced { account, .. })
            | M::SilenceLifted(SilenceLifted { account }),
        )
        | Event::Community(
            CommunityEvent::Created(Created { owner: account, .. })
            | CommunityEvent::OwnerAdded(OwnerAdded { account })
            | CommunityEvent::OwnerRemoved(OwnerRemoved { account }),
        ) => Some(*account),
        _ => None,
    }
}

fn change(member: &mut Member, event: &MembershipEvent, at: DateTime<Utc>) {
    match event {
        MembershipEvent::Joined(_) => member.joined_at = Some(at),
        MembershipEvent::Invited(_) => member.status = "invited".into(),
        MembershipEvent::Left(_) => {
            member.joined_at = None;
            member.status = "none".into();
            member.assigned = name(Role::Member).into();
        }
        MembershipEvent::RoleAssigned(RoleAssigned { role, .. }) => member.assigned = name(*role).into(),
        MembershipEvent::RoleRevoked(_) => member.assigned = name(Role::Member).into(),
        MembershipEvent::Banned(Banned { until, reason, .. }) => {
            (member.banned, member.banned_until, member.ban_reason) = (true, *until, Some(reason.clone()));
            member.assigned = name(Role::Member).into();
        }
        MembershipEvent::BanLifted(_) => (member.banned, member.banned_until, member.ban_reason) = (false, None, None),
        MembershipEvent::Silenced(Silenced { until, reason, .. }) => {
            (member.silenced_until, member.silence_reason) = (Some(*until), Some(reason.clone()));
        }
        MembershipEvent::SilenceLifted(_) => (member.silenced_until, member.silence_reason) = (None, None),
    }
}

/// What follows from the rest: an owner belongs to its community, joined or not, and stands above every assigned role.
fn settle(member: &mut Member) {
    if member.owner || member.joined_at.is_some() {
        member.status = "member".into();
    } else if &*member.status == "member" {
        member.status = "none".into();
    }
    member.role = if member.owner { name(Role::Owner).into() } else { member.assigned.clone() };
    let roles = (0..).zip([Role::Member, Role::Moderator, Role::Admin, Role::Owner]);
    member.rank = roles.filter(|(_, role)| name(*role) == &*member.role).map(|(rank, _)| rank).sum();
}

fn stranger(community_id: Uuid, account_id: Uuid) -> Member {
    Member {
        community_id,
        account_id,
        status: "none".into(),
        role: name(Role::Member).into(),
        rank: 0,
        assigned: name(Role::Member).into(),
        owner: false,
        joined_at: None,
        banned: false,
        banned_until: None,
        ban_reason: None,
        silenced_until: None,
        silence_reason: None,
        version: 0,
        position: 0,
    }
}

fn is_member(member: &Member) -> bool {
    &*member.status == "member"
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Moderator => "moderator",
        Role::Admin => "admin",
        Role::Owner => "owner",
    }
}

#[cfg(test)]
mod tests {
    use events::{Stream, community::Settings};

    use super::*;
    use crate::fixture::History;

    struct Given {
        history: History,
        account: AccountId,
    }

    impl Given {
        fn new() -> Self {
            Self { history: History::new(), account: AccountId::new() }
        }

        fn then(&mut self, event: MembershipEvent) -> &mut Self {
            let stream = Stream::membership(self.history.community, self.account);
            self.history.then(&stream, event);
            self
        }

        fn community(&mut self, event: CommunityEvent) -> &mut Self {
            let stream = Stream::community(self.history.community);
            self.history.then(&stream, event);
            self
        }

        fn member(&self) -> (Member, i64) {
            let mut rows = Rows::default();
            self.history.fold::<Memberships>(&mut rows).expect("it folds");
            let community = self.history.community.0;
            let member = rows.members.get((community, self.account.0)).expect("a row").clone();
            (member, rows.counts.get(community).expect("a count").members)
        }
    }

    #[test]
    fn members_are_counted_while_they_are() {
        let mut given = Given::new();
        let account = given.account;
        given.then(MembershipEvent::Invited(Invited { account }));
        assert_eq!((&*given.member().0.status, given.member().1), ("invited", 0));
        given.then(MembershipEvent::Joined(Joined { account }));
        given.then(MembershipEvent::RoleAssigned(RoleAssigned { account, role: Role::Moderator }));
        let (member, count) = given.member();
        assert_eq!((&*member.status, &*member.role, member.rank, count), ("member", "moderator", 1, 1));
        given.then(MembershipEvent::Left(Left { account }));
        let (member, count) = given.member();
        assert_eq!((&*member.status, &*member.role, member.joined_at, count), ("none", "member", None, 0));
    }

    #[test]
    fn an_owner_belongs_whatever_its_membership_says() {
        let mut given = Given::new();
        let owner = given.account;
        given.community(CommunityEvent::Created(Created { settings: Settings::default(), owner }));
        let (member, count) = given.member();
        assert_eq!((&*member.status, &*member.role, member.rank, count), ("member", "owner", 3, 1));
        given.then(MembershipEvent::Joined(Joined { account: owner }));
        given.then(MembershipEvent::RoleAssigned(RoleAssigned { account: owner, role: Role::Admin }));
        assert_eq!((&*given.member().0.role, given.member().1), ("owner", 1));
        given.community(CommunityEvent::OwnerRemoved(OwnerRemoved { account: owner }));
        let (member, count) = given.member();
        assert_eq!((&*member.role, member.rank, member.version, member.position, count), ("admin", 2, 2, 4, 1));
    }

    #[test]
    fn a_ban_takes_the_role_and_not_the_membership() {
        let mut given = Given::new();
        let (account, reason) = (given.account, "spam".to_owned());
        given.then(MembershipEvent::Joined(Joined { account }));
        given.then(MembershipEvent::RoleAssigned(RoleAssigned { account, role: Role::Moderator }));
        given.then(MembershipEvent::Banned(Banned { account, until: None, reason: reason.clone() }));
        let (member, count) = given.member();
        assert_eq!((member.banned, member.ban_reason, &*member.role, count), (true, Some(reason), "member", 1));
        given.then(MembershipEvent::BanLifted(BanLifted { account }));
        assert_eq!((given.member().0.banned, given.member().0.ban_reason), (false, None));
    }
}

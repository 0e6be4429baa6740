use chrono::TimeDelta;
use events::{
    CommunityEvent, MembershipEvent,
    community::{Archived, Suspended},
    membership::{Banned, Invited, Silenced},
};

use super::*;
use crate::fixture::{ADA, BOB, OWNER, actor, community, given, later, member, now, operator, standing};

const VISIBILITIES: [Visibility; 3] = [Visibility::Public, Visibility::Restricted, Visibility::Private];

fn stranger(visibility: Visibility) -> Standing {
    Standing::of(actor(BOB), &community(visibility), &Membership::default(), now())
}

fn who(role: Role, event: MembershipEvent) -> Standing {
    let mut membership = member(ADA, role);
    cqrs_es::Aggregate::apply(&mut membership, event);
    Standing::of(actor(ADA), &community(Visibility::Private), &membership, now())
}

fn banned(until: Option<DateTime<Utc>>) -> MembershipEvent {
    MembershipEvent::Banned(Banned { account: ADA, until, reason: String::new() })
}

fn silenced(until: DateTime<Utc>) -> MembershipEvent {
    MembershipEvent::Silenced(Silenced { account: ADA, until, reason: String::new() })
}

fn read_only(event: CommunityEvent, actor: Actor) -> Standing {
    let mut community = community(Visibility::Public);
    cqrs_es::Aggregate::apply(&mut community, event);
    Standing::of(actor, &community, &member(OWNER, Role::Owner), now())
}

#[test]
fn a_stranger_writes_in_public_places_only() {
    let refusals = VISIBILITIES.map(|visibility| stranger(visibility).participant().err());
    assert_eq!(refusals, [None, Some(AccessRefusal::MembersOnly), Some(AccessRefusal::MembersOnly)]);
}

#[test]
fn a_private_community_shows_itself_to_its_members_only() {
    assert_eq!(VISIBILITIES.map(|visibility| stranger(visibility).sees()), [true, true, false]);
    for visibility in VISIBILITIES {
        let membership = member(ADA, Role::Member);
        assert!(Standing::of(actor(ADA), &community(visibility), &membership, now()).sees());
        assert!(Standing::of(operator(), &community(visibility), &Membership::default(), now()).sees());
    }
    assert!(!who(Role::Member, banned(None)).sees(), "a ban hides a private community");
}

#[test]
fn an_invitation_shows_that_a_private_community_is_there_and_lets_in() {
    let stranger = stranger(Visibility::Private);
    assert!(!stranger.knows());
    assert_eq!(stranger.joiner().err(), Some(AccessRefusal::InvitationOnly));
    let invited: Membership = given([MembershipEvent::Invited(Invited { account: BOB })]);
    let invited = Standing::of(actor(BOB), &community(Visibility::Private), &invited, now());
    assert!(invited.knows() && !invited.sees());
    assert_eq!(invited.joiner().map(Joiner::account), Ok(BOB));
}

#[test]
fn anybody_joins_where_no_invitation_is_needed() {
    for visibility in [Visibility::Public, Visibility::Restricted] {
        assert_eq!(stranger(visibility).joiner().map(Joiner::account), Ok(BOB));
    }
}

#[test]
fn a_ban_ends_at_its_time_and_takes_the_role_with_it() {
    assert_eq!(who(Role::Admin, banned(None)).participant().err(), Some(AccessRefusal::Banned(None)));
    assert_eq!(who(Role::Admin, banned(Some(later()))).joiner().err(), Some(AccessRefusal::Banned(Some(later()))));
    let over = who(Role::Admin, banned(Some(now())));
    assert!(over.participant().is_ok());
    assert_eq!(over.moderator().err(), Some(AccessRefusal::RankTooLow(Rank::Moderator)));
}

#[test]
fn a_silence_forbids_writing_and_ends_at_its_time() {
    let silence = who(Role::Moderator, silenced(later()));
    assert!(silence.sees());
    for refusal in [silence.participant().err(), silence.moderator().err(), silence.curator(Some(ADA)).err()] {
        assert_eq!(refusal, Some(AccessRefusal::Silenced(Some(later()))));
    }
    assert!(who(Role::Moderator, silenced(now() - TimeDelta::seconds(1))).moderator().is_ok());
}

#[test]
fn ranks_rise_from_member_to_operator() {
    let may = |standing: Standing| {
        let (moderator, admin, owner) = (standing.moderator(), standing.admin(), standing.owner());
        [standing.participant().is_ok(), moderator.is_ok(), admin.is_ok(), owner.is_ok()]
    };
    assert_eq!(may(standing(Role::Member)), [true, false, false, false]);
    assert_eq!(may(standing(Role::Moderator)), [true, true, false, false]);
    assert_eq!(may(standing(Role::Admin)), [true, true, true, false]);
    assert_eq!(may(standing(Role::Owner)), [true, true, true, true]);
    let everywhere = Standing::of(operator(), &community(Visibility::Private), &Membership::default(), now());
    assert_eq!(may(everywhere), [true, true, true, true]);
    assert_eq!(actor(OWNER).as_operator().err(), Some(AccessRefusal::OperatorsOnly));
    assert!(operator().as_operator().is_ok());
}

#[test]
fn nobody_sanctions_a_peer_or_a_superior() {
    let ranks = [Rank::Guest, Rank::Member, Rank::Moderator, Rank::Admin, Rank::Owner];
    let may = |role| ranks.map(|target| standing(role).superior(target).is_ok());
    assert_eq!(may(Role::Member), [false; 5]);
    assert_eq!(may(Role::Moderator), [true, true, false, false, false]);
    assert_eq!(may(Role::Admin), [true, true, true, false, false]);
    assert_eq!(may(Role::Owner), [true, true, true, true, false]);
    assert_eq!(standing(Role::Admin).superior(Rank::Admin).err(), Some(AccessRefusal::NotSuperior));
    assert_eq!(standing(Role::Owner).superior(Rank::Owner).err(), Some(AccessRefusal::TargetIsOwner));
}

#[test]
fn roles_are_given_from_above() {
    let may = |role, target, given| standing(role).appointer(target, given).err();
    assert_eq!(may(Role::Owner, Rank::Member, Role::Admin), None);
    assert_eq!(may(Role::Admin, Rank::Member, Role::Moderator), None);
    assert_eq!(may(Role::Admin, Rank::Member, Role::Admin), Some(AccessRefusal::NotSuperior));
    assert_eq!(may(Role::Admin, Rank::Admin, Role::Member), Some(AccessRefusal::NotSuperior));
    assert_eq!(may(Role::Moderator, Rank::Member, Role::Moderator), Some(AccessRefusal::RankTooLow(Rank::Admin)));
    assert_eq!(may(Role::Owner, Rank::Member, Role::Owner), Some(AccessRefusal::OwnershipIsNoRole));
    assert!(standing(Role::Moderator).resigner(ADA).is_some(), "a role can be given up");
    assert!(standing(Role::Moderator).resigner(BOB).is_none());
}

#[test]
fn the_author_and_moderators_curate() {
    let curator = |role, author| standing(role).curator(author).map(|it| (it.moderated(), it.keeps_order()));
    assert_eq!(curator(Role::Member, Some(ADA)), Ok((false, false)));
    assert_eq!(curator(Role::Member, Some(BOB)), Err(AccessRefusal::NotAuthor));
    assert_eq!(curator(Role::Member, None), Err(AccessRefusal::NotAuthor));
    assert_eq!(curator(Role::Moderator, Some(ADA)), Ok((false, true)));
    assert_eq!(curator(Role::Moderator, Some(BOB)), Ok((true, true)));
}

#[test]
fn an_operator_acts_for_a_deleted_account() {
    let deleted = Actor { account: None, operator: true };
    let standing = Standing::of(deleted, &community(Visibility::Private), &Membership::default(), now());
    assert_eq!(standing.participant().map(Participant::author), Ok(None));
    assert_eq!(standing.curator(None).map(Curator::moderated), Ok(false));
    let voter = standing.participant().and_then(|participant| participant.voter().map(Voter::account));
    assert_eq!(voter, Err(AccessRefusal::NoAccount));
    assert_eq!(standing.joiner().err(), Some(AccessRefusal::NoAccount));
}

#[test]
fn suspended_and_archived_communities_are_read_only_even_for_who_runs_them() {
    let suspended = || CommunityEvent::Suspended(Suspended { reason: String::new() });
    let archived = || CommunityEvent::Archived(Archived {});
    for actor in [actor(OWNER), operator()] {
        assert_eq!(read_only(suspended(), actor).admin().err(), Some(AccessRefusal::Suspended));
        assert_eq!(read_only(archived(), actor).participant().err(), Some(AccessRefusal::Archived));
        assert_eq!(read_only(archived(), actor).joiner().err(), Some(AccessRefusal::Archived));
        assert_eq!(read_only(archived(), actor).owner().err(), Some(AccessRefusal::Archived));
        assert!(read_only(archived(), actor).caretaker().is_ok(), "its owners can still decide to resume it");
        assert!(actor.account.and_then(|account| read_only(archived(), actor).resigner(account)).is_none());
    }
}

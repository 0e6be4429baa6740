use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use events::community::Visibility;

use super::*;
use crate::{
    Refusal,
    access::{Rank, Standing},
    fixture::{ADA, actor, before, community, later, now, standing},
};

fn given(events: Vec<MembershipEvent>) -> AggregateTestExecutor<Membership> {
    TestFramework::with(ADA).given(events)
}

fn joined() -> MembershipEvent {
    MembershipEvent::Joined(Joined { account: ADA })
}

fn invited() -> MembershipEvent {
    MembershipEvent::Invited(Invited { account: ADA })
}

fn left() -> MembershipEvent {
    MembershipEvent::Left(Left { account: ADA })
}

fn assigned(role: Role) -> MembershipEvent {
    MembershipEvent::RoleAssigned(RoleAssigned { account: ADA, role })
}

fn revoked(role: Role) -> MembershipEvent {
    MembershipEvent::RoleRevoked(RoleRevoked { account: ADA, role })
}

fn banned(until: Option<DateTime<Utc>>) -> MembershipEvent {
    MembershipEvent::Banned(Banned { account: ADA, until, reason: "spam".into() })
}

fn silenced(until: DateTime<Utc>) -> MembershipEvent {
    MembershipEvent::Silenced(Silenced { account: ADA, until, reason: "shouting".into() })
}

fn superior() -> Superior {
    standing(Role::Owner).superior(Rank::Admin).expect("owners stand above admins")
}

fn moderator() -> Moderator {
    standing(Role::Moderator).moderator().expect("a moderator")
}

fn join() -> MembershipCommand {
    let community = community(Visibility::Public);
    let by = Standing::of(actor(ADA), &community, &Membership::default(), now()).joiner().expect("anybody joins");
    Join { by }.into()
}

fn ban(until: Option<DateTime<Utc>>) -> MembershipCommand {
    BanMember { by: superior(), ban: Ban { until, reason: "spam".into() }, now: now() }.into()
}

fn silence(until: DateTime<Utc>) -> MembershipCommand {
    SilenceMember { by: superior(), silence: Silence { until, reason: "shouting".into() }, now: now() }.into()
}

fn refused(refusal: MembershipRefusal) -> Refusal {
    refusal.into()
}

#[test]
fn one_joins_once_and_again_after_leaving() {
    given(vec![]).when(join()).then_expect_events(vec![joined()]);
    given(vec![invited()]).when(join()).then_expect_events(vec![joined()]);
    given(vec![joined()]).when(join()).then_expect_events(vec![]);
    given(vec![joined(), left()]).when(join()).then_expect_events(vec![joined()]);
}

#[test]
fn strangers_are_invited_once() {
    let invite = || Invite { by: moderator() }.into();
    given(vec![]).when(invite()).then_expect_events(vec![invited()]);
    given(vec![invited()]).when(invite()).then_expect_events(vec![]);
    given(vec![joined()]).when(invite()).then_expect_events(vec![]);
}

#[test]
fn members_and_the_invited_leave_or_are_removed() {
    for command in [|| Leave {}.into(), || MembershipCommand::from(Remove { by: superior() })] {
        given(vec![joined()]).when(command()).then_expect_events(vec![left()]);
        given(vec![invited()]).when(command()).then_expect_events(vec![left()]);
        given(vec![]).when(command()).then_expect_events(vec![]);
    }
}

#[test]
fn leaving_takes_the_role_and_keeps_the_ban() {
    let membership: Membership =
        crate::fixture::given([joined(), assigned(Role::Admin), banned(None), left(), joined()]);
    assert_eq!(membership.role(), Some(Role::Member));
    assert!(membership.ban(now()).is_some());
}

#[test]
fn members_are_given_roles() {
    let assign = |role| AssignRole { by: superior(), role }.into();
    let moderates = || vec![joined(), assigned(Role::Moderator)];
    given(vec![joined()]).when(assign(Role::Moderator)).then_expect_events(vec![assigned(Role::Moderator)]);
    given(moderates()).when(assign(Role::Moderator)).then_expect_events(vec![]);
    given(moderates()).when(assign(Role::Admin)).then_expect_events(vec![assigned(Role::Admin)]);
    given(moderates()).when(assign(Role::Member)).then_expect_events(vec![revoked(Role::Moderator)]);
    for strangers in [vec![], vec![invited()]] {
        given(strangers).when(assign(Role::Moderator)).then_expect_error(refused(MembershipRefusal::NotMember));
    }
}

#[test]
fn roles_are_taken_back_where_there_is_one() {
    let revoke = || RevokeRole { by: superior() }.into();
    given(vec![joined(), assigned(Role::Admin)]).when(revoke()).then_expect_events(vec![revoked(Role::Admin)]);
    given(vec![joined()]).when(revoke()).then_expect_events(vec![]);
    given(vec![]).when(revoke()).then_expect_events(vec![]);
}

#[test]
fn members_and_strangers_are_banned_and_another_ban_takes_the_place_of_the_first() {
    for before in [vec![], vec![joined()]] {
        given(before).when(ban(None)).then_expect_events(vec![banned(None)]);
    }
    given(vec![banned(None)]).when(ban(None)).then_expect_events(vec![]);
    given(vec![banned(None)]).when(ban(Some(later()))).then_expect_events(vec![banned(Some(later()))]);
    given(vec![]).when(ban(Some(now()))).then_expect_error(refused(MembershipRefusal::UntilPast));
}

#[test]
fn a_ban_is_lifted_also_when_it_is_over() {
    let lift = || LiftBan { by: moderator() }.into();
    let lifted = || vec![MembershipEvent::BanLifted(BanLifted { account: ADA })];
    given(vec![banned(None)]).when(lift()).then_expect_events(lifted());
    given(vec![banned(Some(before()))]).when(lift()).then_expect_events(lifted());
    given(vec![joined()]).when(lift()).then_expect_events(vec![]);
}

#[test]
fn silences_begin_once_and_are_lifted_once() {
    given(vec![joined()]).when(silence(later())).then_expect_events(vec![silenced(later())]);
    given(vec![silenced(later())]).when(silence(later())).then_expect_events(vec![]);
    given(vec![]).when(silence(before())).then_expect_error(refused(MembershipRefusal::UntilPast));
    let lift = || LiftSilence { by: moderator() }.into();
    let lifted = vec![MembershipEvent::SilenceLifted(SilenceLifted { account: ADA })];
    given(vec![silenced(later())]).when(lift()).then_expect_events(lifted);
    given(vec![]).when(lift()).then_expect_events(vec![]);
}

fn over(end: DateTime<Utc>) -> Over {
    Over::at(end, later()).expect("its end has come")
}

#[test]
fn the_ban_that_is_over_ends_and_another_stays() {
    let end = || EndBan { over: over(now()) }.into();
    let lifted = vec![MembershipEvent::BanLifted(BanLifted { account: ADA })];
    given(vec![joined(), banned(Some(now()))]).when(end()).then_expect_events(lifted.clone());
    // Said more finely than the database keeps it, which rounds.
    let finely = banned(Some(now() + chrono::TimeDelta::nanoseconds(789)));
    given(vec![joined(), finely]).when(end()).then_expect_events(lifted);
    for another in [banned(None), banned(Some(later())), banned(Some(before()))] {
        given(vec![banned(Some(now())), another]).when(end()).then_expect_events(vec![]);
    }
    given(vec![joined()]).when(end()).then_expect_events(vec![]);
}

#[test]
fn the_silence_that_is_over_ends_and_another_stays() {
    let end = || EndSilence { over: over(now()) }.into();
    let lifted = vec![MembershipEvent::SilenceLifted(SilenceLifted { account: ADA })];
    given(vec![silenced(now())]).when(end()).then_expect_events(lifted);
    given(vec![silenced(now()), silenced(later())]).when(end()).then_expect_events(vec![]);
    given(vec![joined()]).when(end()).then_expect_events(vec![]);
}

#[test]
fn nothing_is_over_before_its_end() {
    assert!(Over::at(later(), now()).is_none());
    assert!(Over::at(now(), now()).is_some());
}

#[test]
fn sanctions_end_at_their_time() {
    let membership: Membership = crate::fixture::given([banned(Some(later())), silenced(later())]);
    assert!(membership.ban(now()).is_some() && membership.silence(now()).is_some());
    assert!(membership.ban(later()).is_none() && membership.silence(later()).is_none());
}

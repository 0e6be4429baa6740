use cqrs_es::test::TestFramework;
use events::{AccountId, community::Visibility, membership::Role};
use uuid::Uuid;

use super::*;
use crate::{
    Refusal,
    access::Standing,
    fixture::{ADA, BOB, OWNER, member, now, operator, standing},
};

fn tea() -> Settings {
    Settings { slug: "tea".into(), name: "Tea".into(), ..Settings::default() }
}

fn created() -> CommunityEvent {
    CommunityEvent::Created(Created { settings: tea(), owner: OWNER })
}

fn owner_added(account: AccountId) -> CommunityEvent {
    CommunityEvent::OwnerAdded(OwnerAdded { account })
}

fn archived() -> CommunityEvent {
    CommunityEvent::Archived(Archived {})
}

fn suspended() -> CommunityEvent {
    CommunityEvent::Suspended(Suspended { reason: "spam".into() })
}

fn given(events: Vec<CommunityEvent>) -> cqrs_es::test::AggregateTestExecutor<Community> {
    TestFramework::with(()).given(events)
}

fn owner() -> Owner {
    standing(Role::Owner).owner().expect("the owner is one")
}

fn operating() -> Owner {
    let community = crate::fixture::community(Visibility::Public);
    Standing::of(operator(), &community, &Membership::default(), now()).owner().expect("above every owner")
}

fn refused(refusal: CommunityRefusal) -> Refusal {
    refusal.into()
}

#[test]
fn a_community_is_created_once_with_its_maker_as_owner() {
    let create = || CreateCommunity { settings: tea(), owner: OWNER };
    given(vec![]).when(create().into()).then_expect_events(vec![created()]);
    given(vec![created()]).when(create().into()).then_expect_error(refused(CommunityRefusal::DuplicateId));
}

#[test]
fn settings_change_where_they_differ() {
    let by = standing(Role::Admin).admin().expect("an admin");
    let settings = Settings { visibility: Visibility::Private, ..tea() };
    let changed = CommunityEvent::SettingsChanged(SettingsChanged { settings: settings.clone() });
    given(vec![created()])
        .when(ChangeSettings { by, settings: settings.clone() }.into())
        .then_expect_events(vec![changed.clone()]);
    given(vec![created(), changed]).when(ChangeSettings { by, settings }.into()).then_expect_events(vec![]);
}

#[test]
fn members_become_owners_once() {
    let add = |account, member| AddOwner { by: owner(), account, member }.into();
    given(vec![created()]).when(add(ADA, true)).then_expect_events(vec![owner_added(ADA)]);
    given(vec![created()]).when(add(OWNER, true)).then_expect_events(vec![]);
    given(vec![created()]).when(add(BOB, false)).then_expect_error(refused(CommunityRefusal::OwnerNotMember));
}

#[test]
fn owners_are_limited() {
    let others = (1..limits::OWNERS).map(|n| owner_added(AccountId(Uuid::from_u128(n as u128))));
    let full = std::iter::once(created()).chain(others).collect();
    let add = AddOwner { by: owner(), account: BOB, member: true };
    given(full).when(add.into()).then_expect_error(refused(CommunityRefusal::TooManyOwners));
}

#[test]
fn the_last_owner_stays_whoever_asks() {
    for by in [owner(), operating()] {
        let remove = RemoveOwner { by, account: OWNER };
        given(vec![created()]).when(remove.into()).then_expect_error(refused(CommunityRefusal::LastOwner));
    }
}

#[test]
fn an_owner_gives_up_its_own_ownership_and_an_operator_ends_anybodys() {
    let two = || vec![created(), owner_added(ADA)];
    let removed = |account| vec![CommunityEvent::OwnerRemoved(OwnerRemoved { account })];
    given(two()).when(RemoveOwner { by: owner(), account: OWNER }.into()).then_expect_events(removed(OWNER));
    given(two()).when(RemoveOwner { by: operating(), account: ADA }.into()).then_expect_events(removed(ADA));
    given(two())
        .when(RemoveOwner { by: owner(), account: ADA }.into())
        .then_expect_error(refused(CommunityRefusal::PeerOwner));
    given(two()).when(RemoveOwner { by: owner(), account: BOB }.into()).then_expect_events(vec![]);
}

#[test]
fn operators_suspend_also_what_is_archived() {
    let suspend = || {
        let by = operator().as_operator().expect("an operator");
        Suspend { by, reason: "spam".into() }
    };
    given(vec![created()]).when(suspend().into()).then_expect_events(vec![suspended()]);
    given(vec![created(), archived()]).when(suspend().into()).then_expect_events(vec![suspended()]);
    given(vec![created(), suspended()]).when(suspend().into()).then_expect_events(vec![]);
}

#[test]
fn operators_resume_what_is_suspended_and_owners_reopen_what_is_archived() {
    let resumed = || vec![CommunityEvent::Resumed(Resumed {})];
    let resume = || Resume { by: operator().as_operator().expect("an operator") }.into();
    let reopen = || Reopen { by: owner() }.into();
    given(vec![created(), suspended()]).when(resume()).then_expect_events(resumed());
    given(vec![created(), archived()]).when(resume()).then_expect_events(vec![]);
    given(vec![created(), archived()]).when(reopen()).then_expect_events(resumed());
    given(vec![created(), suspended()])
        .when(reopen())
        .then_expect_error(refused(CommunityRefusal::SuspendedByOperator));
    for command in [resume(), reopen()] {
        given(vec![created()]).when(command).then_expect_events(vec![]);
    }
}

#[test]
fn owners_archive_what_is_not_suspended() {
    let archive = || Archive { by: owner() };
    given(vec![created()]).when(archive().into()).then_expect_events(vec![archived()]);
    given(vec![created(), archived()]).when(archive().into()).then_expect_events(vec![]);
    given(vec![created(), suspended()])
        .when(archive().into())
        .then_expect_error(refused(CommunityRefusal::SuspendedByOperator));
}

#[test]
fn an_owner_outranks_the_role_that_its_membership_says() {
    let community = crate::fixture::community(Visibility::Public);
    assert_eq!(community.rank(OWNER, &member(OWNER, Role::Member)), Rank::Owner);
    assert_eq!(community.rank(ADA, &member(ADA, Role::Admin)), Rank::Admin);
    assert_eq!(community.rank(BOB, &Membership::default()), Rank::Guest);
}

//! People and places for the tests of decisions. Nobody gets a permission here but through its constructor.

use chrono::{DateTime, TimeDelta, Utc};
use cqrs_es::Aggregate;
use events::{
    AccountId, CategoryEvent, CategoryId, CommunityEvent, MembershipEvent,
    category::{Created as CategoryCreated, Presentation},
    community::{Created, Settings, Visibility},
    membership::{Joined, Role, RoleAssigned},
};
use uuid::Uuid;

use crate::{
    access::{Actor, Standing},
    category::CategoryTree,
    community::Community,
    membership::Membership,
};

/// A member of every community made here.
pub(crate) const ADA: AccountId = AccountId(Uuid::from_u128(0xada));
/// Another one.
pub(crate) const BOB: AccountId = AccountId(Uuid::from_u128(0xb0b));
/// The owner of every community made here.
pub(crate) const OWNER: AccountId = AccountId(Uuid::from_u128(0x0));

/// The same moment in all tests.
pub(crate) fn now() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// An hour later.
pub(crate) fn later() -> DateTime<Utc> {
    now() + TimeDelta::hours(1)
}

/// An hour before.
pub(crate) fn before() -> DateTime<Utc> {
    now() - TimeDelta::hours(1)
}

/// An aggregate to which this happened.
pub(crate) fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> A {
    let mut state = A::default();
    events.into_iter().for_each(|event| state.apply(event));
    state
}

/// Somebody without an operator's rights.
pub(crate) fn actor(account: AccountId) -> Actor {
    Actor { account: Some(account), operator: false }
}

/// An operator, acting as nobody's account but its own.
pub(crate) fn operator() -> Actor {
    Actor { account: Some(AccountId(Uuid::from_u128(0x0b))), operator: true }
}

/// A community of [`OWNER`]'s.
pub(crate) fn community(visibility: Visibility) -> Community {
    let settings = Settings { slug: "tea".into(), name: "Tea".into(), visibility, ..Settings::default() };
    given([CommunityEvent::Created(Created { settings, owner: OWNER })])
}

/// A membership with this role, an owner's included.
pub(crate) fn member(account: AccountId, role: Role) -> Membership {
    let joined = MembershipEvent::Joined(Joined { account });
    match role {
        Role::Member | Role::Owner => given([joined]),
        role => given([joined, MembershipEvent::RoleAssigned(RoleAssigned { account, role })]),
    }
}

/// What [`ADA`] with this role (or the owner) is in a public community.
pub(crate) fn standing(role: Role) -> Standing {
    let account = if role == Role::Owner { OWNER } else { ADA };
    Standing::of(actor(account), &community(Visibility::Public), &member(account, role), now())
}

/// A category.
pub(crate) fn category(n: u128) -> CategoryId {
    CategoryId(Uuid::from_u128(n))
}

/// A category of that slug comes to be.
pub(crate) fn category_created(n: u128, parent: Option<u128>, slug: &str) -> CategoryEvent {
    let presentation = Presentation { slug: slug.into(), name: slug.into(), description: String::new() };
    CategoryEvent::Created(CategoryCreated { category: category(n), parent: parent.map(category), presentation })
}

/// A tree of one category, 1, and one below it, 2.
pub(crate) fn tree() -> CategoryTree {
    given([category_created(1, None, "green"), category_created(2, Some(1), "sencha")])
}

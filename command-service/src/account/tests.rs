use cqrs_es::test::{AggregateTestExecutor, TestFramework};

use super::*;
use crate::{Refusal, fixture::operator};

fn given(events: Vec<AccountEvent>) -> AggregateTestExecutor<Account> {
    TestFramework::with(()).given(events)
}

fn profile(display_name: &str) -> Profile {
    Profile { display_name: display_name.into(), ..Profile::default() }
}

fn registered() -> AccountEvent {
    AccountEvent::Registered(Registered { username: "ada".into(), profile: profile("Ada") })
}

fn imported() -> AccountEvent {
    let source = "stackexchange/tea/1".into();
    AccountEvent::Imported(Imported { username: "ada".into(), profile: profile("Ada"), source })
}

fn register() -> AccountCommand {
    Register { username: "ada".into(), profile: profile("Ada") }.into()
}

fn import() -> AccountCommand {
    let by = operator().as_operator().expect("an operator");
    Import { by, username: "ada".into(), profile: profile("Ada"), source: "stackexchange/tea/1".into() }.into()
}

#[test]
fn an_account_comes_to_be_once() {
    given(vec![]).when(register()).then_expect_events(vec![registered()]);
    given(vec![]).when(import()).then_expect_events(vec![imported()]);
    for before in [registered(), imported()] {
        for again in [register(), import()] {
            let refused: Refusal = AccountRefusal::DuplicateId.into();
            given(vec![before.clone()]).when(again).then_expect_error(refused);
        }
    }
}

#[test]
fn a_profile_changes_where_it_differs() {
    let change = |name| ChangeProfile { profile: profile(name) }.into();
    let changed = AccountEvent::ProfileChanged(ProfileChanged { profile: profile("Countess") });
    given(vec![registered()]).when(change("Countess")).then_expect_events(vec![changed.clone()]);
    given(vec![registered()]).when(change("Ada")).then_expect_events(vec![]);
    given(vec![registered(), changed]).when(change("Countess")).then_expect_events(vec![]);
}

#[test]
fn a_password_is_changed_without_a_word_of_it() {
    let changed = AccountEvent::PasswordChanged(PasswordChanged {});
    given(vec![registered()]).when(ChangePassword {}.into()).then_expect_events(vec![changed]);
}

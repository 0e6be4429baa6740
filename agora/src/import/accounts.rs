//! A dump's users as accounts: which username each gets, and what of its profile fits.

use std::collections::HashSet;

use events::{limits, visible::is_visible};

use super::{origin::Origin, report::At, scan::NAME_CHARS, tables::User, thread::one_line};
use crate::{client::command::NewAccount, slug::slug};

/// An account to be brought over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The row.
    pub at: At,
    /// The user.
    pub user: User,
    /// Usernames to be tried, best first: another account on the platform may have one already, or it may be reserved.
    pub usernames: Vec<String>,
}

/// Gives the users whose names have the same slugs their usernames: the first of each slug, in the file's order, gets
/// the plain one, the others have their id behind it. So names come out the same however often an import was
/// interrupted.
pub fn name(origin: &Origin, users: Vec<(At, User)>) -> Vec<Account> {
    let mut given = HashSet::new();
    let named = users.into_iter().map(|(at, user)| {
        let plain = slug(&user.name, NAME_CHARS);
        let first = given.insert(plain.clone());
        let usernames = usernames(origin, &user, &plain, first);
        Account { at, user, usernames }
    });
    named.collect()
}

/// A slug has no underscore, so a plain name and one with an id never meet.
fn usernames(origin: &Origin, user: &User, plain: &str, first: bool) -> Vec<String> {
    let base = if plain.is_empty() { "user" } else { plain };
    // Ids of Stack Exchange's own accounts are negative; no other id begins with 0.
    let sign = if user.id < 0 { "0" } else { "" };
    let with_id = format!("{base}_{sign}{}", user.id.unsigned_abs());
    let account = origin.account(user.id, user.created).to_string();
    let with_more = format!("{with_id}_{}", &account[account.len() - 6..]);
    let mut usernames = vec![with_id, with_more];
    if first && !plain.is_empty() {
        usernames.insert(0, plain.to_owned());
    }
    usernames
}

impl Account {
    /// As it is sent, under one of its usernames. A field that does not fit is left out.
    pub fn new_account(&self, origin: &Origin, username: &str) -> NewAccount {
        let User { id, created, name, about, location, website } = &self.user;
        let name = one_line(name);
        let display_name = if is_visible(&name) { &name } else { username };
        let fits = |text: &Option<String>, most| {
            text.clone().filter(|text: &String| text.chars().count() <= most && is_visible(text))
        };
        let line = |text: &Option<String>| fits(&text.as_deref().map(one_line), limits::LINE_CHARS);
        let scheme = |text: &str| text.starts_with("http://") || text.starts_with("https://");
        let is_web = |text: &String| scheme(text) && !text.contains(char::is_whitespace);
        NewAccount {
            id: origin.account(*id, *created),
            username: username.to_owned(),
            display_name: display_name.chars().take(limits::DISPLAY_NAME_CHARS).collect(),
            about: fits(about, limits::ABOUT_CHARS),
            location: line(location),
            website: line(website).filter(is_web),
            source: origin.source(*id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::report::Table;

    fn users(names: &[&str]) -> Vec<(At, User)> {
        let user = |(id, name): (i64, &&str)| {
            let created = "2011-08-17T19:30:44Z".parse().expect("a time");
            let user = User { id, created, name: (*name).into(), about: None, location: None, website: None };
            (At { table: Table::Users, row: id.unsigned_abs() + 2 }, user)
        };
        (-1..).zip(names).map(user).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        let accounts = name(&Origin::new("site", "site"), users(names));
        accounts.into_iter().map(|account| account.usernames[0].clone()).collect()
    }

    #[test]
    fn the_first_in_the_file_gets_the_plain_name() {
        assert_eq!(names(&["Marie", "Luc", "marie", "MARIE!"]), ["marie", "luc", "marie_1", "marie_2"]);
    }

    #[test]
    fn a_name_that_looks_like_one_with_an_id_is_another() {
        assert_eq!(names(&["Marie 1", "Marie", "Marie"]), ["marie-1", "marie", "marie_1"]);
        assert_eq!(names(&["user_0", ""]), ["user-0", "user_0"]);
    }

    #[test]
    fn usernames_never_meet_and_fit() {
        let odd = ["a", "a", "a 1", "a-1", "a 1 1", "", "", "😀", "user", "user 5", &"x".repeat(90), &"x".repeat(91)];
        let found = names(&odd);
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), odd.len(), "{found:?}");
        assert!(found.iter().all(|name| name.len() <= limits::NAME_CHARS));
    }

    #[test]
    fn a_field_that_does_not_fit_is_left_out() {
        let origin = Origin::new("site", "site");
        let mut account = name(&origin, users(&["Marie"])).remove(0);
        account.user.about = Some("x".repeat(limits::ABOUT_CHARS + 1));
        account.user.website = Some("javascript:alert(1)".into());
        account.user.location = Some("Québec".into());
        let new = account.new_account(&origin, "marie");
        assert_eq!((new.about, new.website, new.location.as_deref()), (None, None, Some("Québec")));
        assert_eq!(new.source, "stackexchange/site/-1");
    }
}

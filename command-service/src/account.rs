//! An account: its name and its profile. E-mail address and password hash are private data beside it.

use events::{
    AccountEvent,
    account::{Imported, PasswordChanged, Profile, ProfileChanged, Registered},
};
use serde::{Deserialize, Serialize};

use crate::access::Operator;

pub mod endpoints;
#[cfg(test)]
mod tests;

/// The kind of claim that makes usernames unique, ignoring case.
pub const USERNAME: &str = "username";
/// The kind of claim that makes e-mail addresses unique, ignoring case; and the kind of private data that keeps them.
pub const EMAIL: &str = "email";
/// The kind of private data that keeps password hashes (argon2id).
pub const PASSWORD: &str = "password";
/// The kind of private data that names the session which survives the change of its password, for that change only.
pub const KEPT_SESSION: &str = "kept_session";

/// An account, folded from its stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name. Where there is none, there is no such account.
    pub username: Option<String>,
    /// What it shows of itself.
    pub profile: Profile,
}

aggregate! {
    /// What can be done with an account.
    Account("account", 1) given () => AccountEvent, or AccountRefusal;
    AccountCommand { Register, Import, ChangeProfile, ChangePassword }
}

/// Makes an account.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its name; claimed beside.
    pub username: String,
    /// What it shows of itself.
    pub profile: Profile,
}

/// Brings an account over from elsewhere; nobody can log in to it.
#[derive(Clone, Debug)]
pub struct Import {
    /// Operators import.
    pub by: Operator,
    /// Its name; claimed beside.
    pub username: String,
    /// What it shows of itself.
    pub profile: Profile,
    /// Where it comes from.
    pub source: String,
}

/// Shows other things of itself.
#[derive(Clone, Debug)]
pub struct ChangeProfile {
    /// All that it shall show.
    pub profile: Profile,
}

/// States that the password, which is private data, changed in the same append.
#[derive(Clone, Debug)]
pub struct ChangePassword {}

/// Why an account's command was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountRefusal {
    /// No such account.
    #[error("There is no such account.")]
    NotFound,
    /// The account that an operator acts for, or as, is not there.
    #[error("There is no account of the id that acts: the one in Agora-On-Behalf-Of, or else the token's own.")]
    NobodyToActFor,
    /// The id is in use.
    #[error("An account of this id is there already.")]
    DuplicateId,
    /// The name is in use.
    #[error("Another account has this username. Upper and lower case are the same here.")]
    UsernameTaken,
    /// The address is in use.
    #[error("Another account has this e-mail address.")]
    EmailTaken,
    /// Changing a password takes the current one.
    #[error("The current password is another one.")]
    WrongPassword,
    /// It was imported, and has none.
    #[error("This account was imported and has no password to change.")]
    NoPassword,
}

impl Account {
    fn fold(&mut self, event: AccountEvent) {
        match event {
            AccountEvent::Registered(Registered { username, profile })
            | AccountEvent::Imported(Imported { username, profile, .. }) => {
                *self = Self { username: Some(username), profile };
            }
            AccountEvent::ProfileChanged(ProfileChanged { profile }) => self.profile = profile,
            AccountEvent::PasswordChanged(PasswordChanged {}) => {}
        }
    }

    fn unused(&self) -> Result<(), AccountRefusal> {
        if self.username.is_some() { Err(AccountRefusal::DuplicateId) } else { Ok(()) }
    }
}

type Decision = Result<Option<AccountEvent>, AccountRefusal>;

impl Register {
    /// Whose name it is, the claim decides.
    pub fn decide(self, account: &Account, (): &()) -> Decision {
        account.unused()?;
        let Self { username, profile } = self;
        Ok(Some(AccountEvent::Registered(Registered { username, profile })))
    }
}

impl Import {
    /// Whose name it is, the claim decides.
    pub fn decide(self, account: &Account, (): &()) -> Decision {
        account.unused()?;
        let Self { username, profile, source, by: _ } = self;
        Ok(Some(AccountEvent::Imported(Imported { username, profile, source })))
    }
}

impl ChangeProfile {
    /// What it shows already is no fact.
    pub fn decide(self, account: &Account, (): &()) -> Decision {
        let Self { profile } = self;
        Ok((account.profile != profile).then_some(AccountEvent::ProfileChanged(ProfileChanged { profile })))
    }
}

impl ChangePassword {
    /// Always a fact: whether it is the same password, nobody can see.
    pub fn decide(self, _: &Account, (): &()) -> Decision {
        Ok(Some(AccountEvent::PasswordChanged(PasswordChanged {})))
    }
}

problems! { AccountRefusal:
    NotFound => NOT_FOUND "account-not-found",
    NobodyToActFor => UNPROCESSABLE_ENTITY "unknown-account",
    DuplicateId => CONFLICT "duplicate" at "#/id",
    UsernameTaken => CONFLICT "duplicate" at "#/username",
    EmailTaken => CONFLICT "duplicate" at "#/email",
    WrongPassword => UNPROCESSABLE_ENTITY "wrong-password" at "#/current_password",
    NoPassword => UNPROCESSABLE_ENTITY "no-password",
}

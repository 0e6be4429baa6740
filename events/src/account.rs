//! What happens to an account. E-mail addresses, password hashes and providers' subjects are private data of the
//! write side, never in an event: events say only that they changed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an account shows of itself, whole: a change states all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Profile {
    /// The name shown.
    pub display_name: String,
    /// About itself, in Markdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Where it says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Its website.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
}

/// An account was registered by its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Registered {
    /// Unique on the platform, as written; compared ignoring case.
    pub username: String,
    /// What it shows of itself.
    #[serde(flatten)]
    pub profile: Profile,
}

/// An account was brought over from elsewhere by an operator. Nobody can log in to it yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Imported {
    /// Unique on the platform, as written; compared ignoring case.
    pub username: String,
    /// What it shows of itself.
    #[serde(flatten)]
    pub profile: Profile,
    /// Where it comes from: `stackexchange/french-meta/42`.
    pub source: String,
}

/// A profile was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProfileChanged {
    /// What the account shows of itself from now on.
    #[serde(flatten)]
    pub profile: Profile,
}

/// The password was changed; its hash is private data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PasswordChanged {}

aggregate_events! {
    /// The stream of an account, named by its [`crate::AccountId`].
    AccountEvent {
        /// See [`Registered`].
        Registered(Registered) = ("account.registered", 1),
        /// See [`Imported`].
        Imported(Imported) = ("account.imported", 1),
        /// See [`ProfileChanged`].
        ProfileChanged(ProfileChanged) = ("account.profile_changed", 1),
        /// See [`PasswordChanged`].
        PasswordChanged(PasswordChanged) = ("account.password_changed", 1),
    }
}

//! Who is asking: passwords, sessions, and the tokens that say so.
//!
//! An access token is a JWT signed with Ed25519 (RFC 8037, RFC 9068), good for 15 minutes and checked without asking the
//! database. A refresh token is opaque, kept by its hash only, and renewed each time it is used. A session is one log-in:
//! the family of its refresh tokens. Every instance that shares the database signs with the same keys, and learns of
//! ended sessions within a second.

mod access;
mod authenticate;
mod keys;
mod operators;
mod password;
mod purge;
mod sessions;
mod verifier;

pub use access::{TokenError, mint_operator};
pub use authenticate::{Authenticated, Authenticates, Authenticator, Credentials, MaybeAuthenticated};
pub use operators::{add_operator, operators, remove_operator};
pub use password::{PasswordConfig, PasswordError, Passwords, password_rule};
pub use purge::purge_expired;
pub use sessions::{Identities, RefreshError, Tokens};
pub use verifier::Verifier;

pub use crate::limits::PASSWORD_CHARS;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::config::duration;

/// Who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Whose token it is.
    pub account: Uuid,
    /// The log-in it came from; nil for a token of [`mint_operator`].
    pub session: Uuid,
    /// Whether it runs the platform.
    pub operator: bool,
}

/// How passwords are hashed and tokens made. All services of one deployment need the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Who issues the tokens: their claim `iss`.
    pub issuer: String,
    /// For whom: their claim `aud`.
    pub audience: String,
    /// How long an access token is good.
    #[serde(with = "duration::positive")]
    pub access_ttl: Duration,
    /// How long a refresh token is good: a session that is not renewed for so long is over.
    #[serde(with = "duration::positive")]
    pub refresh_ttl: Duration,
    /// How long a used refresh token may be used again, as the answer to its first use may have been lost.
    #[serde(with = "duration")]
    pub refresh_reuse: Duration,
    /// How long a key signs before a new one does.
    #[serde(with = "duration::positive")]
    pub rotate_every: Duration,
    /// How long a key that signs no more still verifies; at least `access_ttl`.
    #[serde(with = "duration")]
    pub key_overlap: Duration,
    /// Checked tokens remembered at most, in one process; about 200 bytes each.
    pub remembered_tokens: u64,
    /// How passwords are hashed.
    pub password: PasswordConfig,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            issuer: "agora".to_owned(),
            audience: "agora".to_owned(),
            access_ttl: Duration::from_secs(15 * 60),
            refresh_ttl: Duration::from_secs(30 * DAY),
            refresh_reuse: Duration::from_secs(10),
            rotate_every: Duration::from_secs(30 * DAY),
            key_overlap: Duration::from_secs(DAY),
            remembered_tokens: 100_000,
            password: PasswordConfig::default(),
        }
    }
}

impl IdentityConfig {
    /// How long a key verifies after it stopped signing: never shorter than the tokens it signed live.
    fn overlap(&self) -> Duration {
        self.key_overlap.max(self.access_ttl + access::LEEWAY)
    }
}

use std::sync::{Arc, OnceLock};

use anyhow::Context;
use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{Error as HashError, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    extract::invalid,
    limits::{PASSWORD_CHARS, PASSWORD_QUEUE},
    problem::Problem,
};

/// The cost of hashing a password with argon2id (RFC 9106).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PasswordConfig {
    /// Memory for one hash, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Hashes at once, each on a thread and with its memory; 0 for one a core.
    pub concurrency: usize,
}

impl Default for PasswordConfig {
    /// OWASP's recommendation (Password Storage Cheat Sheet).
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, iterations: 2, concurrency: 0 }
    }
}

/// Why a password was not hashed or compared.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are waiting already.
    #[error("too many passwords are waiting to be checked")]
    Busy,
    /// The stored hash is none, or the parameters are out of range.
    #[error("the password cannot be hashed: {0}")]
    Hash(#[from] HashError),
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => {
                Self::unavailable("Too many people are logging in at once.", std::time::Duration::from_secs(1))
            }
            PasswordError::Hash(_) => Self::internal(&error),
        }
    }
}

/// Hashes and compares passwords, on threads of their own and a bounded number at once: each takes tens of milliseconds
/// and megabytes. Clones share the bounds.
#[derive(Clone)]
pub struct Passwords {
    argon: Argon2<'static>,
    queue: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    /// Compared with where there is no account, so that the time taken does not tell.
    dummy: Arc<OnceLock<String>>,
}

impl Passwords {
    /// Hashes as `config` says.
    ///
    /// # Errors
    /// Parameters that argon2 does not take.
    pub fn new(config: &PasswordConfig) -> anyhow::Result<Self> {
        let params = Params::new(config.memory_kib, config.iterations, 1, None)
            .map_err(|error| anyhow::anyhow!("{error}"))
            .context("`identity.password` has values that argon2 does not take")?;
        let threads = match config.concurrency {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        };
        Ok(Self {
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            queue: Arc::new(Semaphore::new(PASSWORD_QUEUE)),
            threads: Arc::new(Semaphore::new(threads)),
            dummy: Arc::default(),
        })
    }

    /// The hash to store, in PHC format, with a salt of its own. [`password_rule`] is for the caller to apply.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] where too many are waiting.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.run(move |this| this.hash_now(&password)).await
    }

    /// Whether `password` is the one that `hash` was made from. Without a hash, no, after the same time.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] where too many are waiting; [`PasswordError::Hash`] where `hash` is none.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, PasswordError> {
        if password.chars().nth(*PASSWORD_CHARS.end()).is_some() {
            return Ok(false);
        }
        self.run(move |this| {
            let known = hash.is_some();
            let hash = match hash {
                Some(hash) => hash,
                None => this.dummy()?,
            };
            match this.argon.verify_password(password.as_bytes(), &PasswordHash::new(&hash).map_err(HashError::from)?) {
                Ok(()) => Ok(known),
                Err(HashError::PasswordInvalid) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _place = Arc::clone(&self.queue).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let thread = Arc::clone(&self.threads).acquire_owned().await.expect("it is never closed");
        let this = self.clone();
        let work = spawn_blocking(move || {
            // Held by the work itself: a client that goes away does not make room.
            let _thread = thread;
            work(&this)
        });
        work.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    fn hash_now(&self, password: &str) -> Result<String, PasswordError> {
        Ok(self.argon.hash_password(password.as_bytes())?.to_string())
    }

    fn dummy(&self) -> Result<String, PasswordError> {
        if let Some(dummy) = self.dummy.get() {
            return Ok(dummy.clone());
        }
        let dummy = self.hash_now("no account has this password")?;
        Ok(self.dummy.get_or_init(|| dummy).clone())
    }
}

/// What a new password must be, as a rule for `garde`: `#[garde(custom(password_rule))]`.
///
/// # Errors
/// `too_short` and `too_long`, by [`PASSWORD_CHARS`].
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that garde asks for")]
pub fn password_rule(password: &str, _context: &()) -> garde::Result {
    let (min, max) = PASSWORD_CHARS.into_inner();
    match password.chars().count() {
        length if length < min => Err(invalid("too_short", format_args!("must have at least {min} characters"))),
        length if length > max => Err(invalid("too_long", format_args!("must have at most {max} characters"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords::new(&PasswordConfig { memory_kib: 8, iterations: 1, concurrency: 1 }).expect("good parameters")
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let passwords = cheap();
        let hash = passwords.hash("correct horse".to_owned()).await.expect("a hash");
        assert!(hash.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse".to_owned()).await.expect("a hash"), "salted");
        let verify = |password: &str, hash| {
            let passwords = passwords.clone();
            let password = password.to_owned();
            async move { passwords.verify(password, hash).await.expect("it is compared") }
        };
        assert!(verify("correct horse", Some(hash.clone())).await);
        assert!(!verify("battery staple", Some(hash.clone())).await);
        assert!(!verify(&"x".repeat(257), Some(hash)).await);
    }

    #[tokio::test]
    async fn no_account_is_never_a_match() {
        let passwords = cheap();
        for password in ["guess", "no account has this password"] {
            assert!(!passwords.verify(password.to_owned(), None).await.expect("it is compared"));
        }
    }

    #[tokio::test]
    async fn a_broken_hash_is_an_error_not_a_refusal() {
        let outcome = cheap().verify("x".to_owned(), Some("plain".to_owned())).await;
        assert!(matches!(outcome, Err(PasswordError::Hash(_))));
    }

    #[tokio::test]
    async fn no_more_than_the_queue_wait() {
        let passwords = cheap();
        let _all = passwords.queue.try_acquire_many(u32::try_from(PASSWORD_QUEUE).expect("it fits")).expect("all free");
        assert!(matches!(passwords.hash("x".to_owned()).await, Err(PasswordError::Busy)));
    }

    #[test]
    fn the_rule_counts_characters() {
        assert!(password_rule("ééééééé", &()).is_err());
        assert!(password_rule("éééééééé", &()).is_ok());
        assert!(password_rule(&"é".repeat(256), &()).is_ok());
        assert!(password_rule(&"é".repeat(257), &()).is_err());
    }
}

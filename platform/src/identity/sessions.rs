use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::http::StatusCode;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Authenticator, Identity, IdentityConfig, Passwords, Verifier, access::Claims, keys::SigningKey};
use crate::{
    limits::REFRESH_TOKEN_USES,
    problem::{Chain, Problem},
};

/// How often the signing key's age is looked at.
const LOOK_AT_KEY_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

/// What a log-in or a refresh answers (RFC 6749, section 5.1).
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// To be sent as `Authorization: Bearer <token>`.
    pub access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    pub token_type: String,
    /// How long the access token is good, in seconds.
    #[schema(example = 900)]
    pub expires_in: u64,
    /// Good for one more pair of tokens.
    pub refresh_token: String,
    /// Whose they are.
    pub account: Uuid,
    /// The log-in they belong to.
    pub session: Uuid,
}

/// Why a refresh token gives no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// It is none of ours, expired, or its session has ended.
    #[error("the refresh token is unknown, expired or of a session that has ended")]
    Refused,
    /// It was used before: one of the two who used it is a thief, so its session is ended.
    #[error("the refresh token was used before, so its session was ended")]
    Reused,
    /// The database is away.
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl From<sqlx::Error> for RefreshError {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<RefreshError> for Problem {
    fn from(error: RefreshError) -> Self {
        let name = match error {
            RefreshError::Refused => "refresh-token-refused",
            RefreshError::Reused => "refresh-token-reused",
            RefreshError::Failed(error) => return error.into(),
        };
        Self::new(StatusCode::UNAUTHORIZED, name, format_args!("{error}: log in again."))
    }
}

/// Makes tokens and ends sessions. Clones share everything.
#[derive(Clone)]
pub struct Identities(Arc<State>);

struct State {
    pool: PgPool,
    config: IdentityConfig,
    key: ArcSwap<SigningKey>,
    verifier: Verifier,
    passwords: Passwords,
}

/// What became of a refresh token that was shown and is not refused.
struct Refreshed {
    session: Uuid,
    account: Uuid,
    operator: bool,
    /// It was used before, so its session was ended.
    reused: bool,
}

impl Identities {
    /// Makes tokens that everybody who shares `pool`'s database takes, and keeps its key young until `shutdown`. The first
    /// instance makes the first key.
    ///
    /// # Errors
    /// Where the database is away, or `config` has values that argon2 does not take.
    pub async fn start(
        pool: PgPool,
        config: &IdentityConfig,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let passwords = Passwords::new(&config.password)?;
        let key = SigningKey::ensure(&pool, config).await?;
        let verifier = Verifier::start(pool.clone(), config, shutdown.clone(), tasks).await?;
        let identities = Self(Arc::new(State {
            pool,
            config: config.clone(),
            key: ArcSwap::from_pointee(key),
            verifier,
            passwords,
        }));
        tasks.spawn(identities.clone().rotate(shutdown));
        Ok(identities)
    }

    /// Hashes and compares passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// Checks tokens: its own at once, and those of other instances.
    pub fn verifier(&self) -> Verifier {
        self.0.verifier.clone()
    }

    /// [`Identities::verifier`], as [`super::Authenticates`] wants it.
    pub fn authenticator(&self) -> Arc<dyn Authenticator> {
        Arc::new(self.verifier())
    }

    /// Begins a session of `account`, which has proved itself.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn issue(&self, account: Uuid) -> anyhow::Result<Tokens> {
        let session = Uuid::now_v7();
        let refresh = RefreshToken::generate();
        let operator = sqlx::query_scalar!(
            r#"with session as (
                 insert into sessions (session, account, created_at, expires_at)
                 values ($1, $2, now(), now() + make_interval(secs => $3))
             ), token as (
                 insert into refresh_tokens (token_hash, session, expires_at)
                 values ($4, $1, now() + make_interval(secs => $3))
             )
             select exists (select from operators where account = $2) as "operator!""#,
            session,
            account,
            self.0.config.refresh_ttl.as_secs_f64(),
            refresh.hash(),
        )
        .fetch_one(&self.0.pool)
        .await
        .context("cannot begin a session")?;
        self.tokens(Identity { account, session, operator }, refresh)
    }

    /// Gives new tokens for a refresh token. The old one may be used again for as long as the answer may have been lost;
    /// after that, using it ends its session.
    ///
    /// # Errors
    /// See [`RefreshError`].
    pub async fn refresh(&self, token: &str) -> Result<Tokens, RefreshError> {
        let shown = RefreshToken::parse(token).ok_or(RefreshError::Refused)?;
        let next = RefreshToken::generate();
        let Refreshed { session, account, operator, reused } =
            self.exchange(&shown, &next).await?.ok_or(RefreshError::Refused)?;
        if reused {
            self.0.verifier.ended([session]);
            tracing::warn!(%session, %account, "a refresh token was used twice");
            return Err(RefreshError::Reused);
        }
        Ok(self.tokens(Identity { account, session, operator }, next)?)
    }

    /// Ends a session: its tokens are refused here at once, and everywhere within a second. One that is over stays over.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn end(&self, session: Uuid) -> anyhow::Result<()> {
        sqlx::query!(
            "update sessions set ended_at = clock_timestamp() where session = $1 and ended_at is null",
            session
        )
        .execute(&self.0.pool)
        .await
        .context("cannot end a session")?;
        self.0.verifier.ended([session]);
        Ok(())
    }

    /// Learns now which sessions the database ended (a changed password ends those of its account), not at the next poll.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn learn_of_endings(&self) -> anyhow::Result<()> {
        self.0.verifier.learn_of_endings(chrono::Utc::now()).await?;
        Ok(())
    }

    /// Judges `shown`, and puts `next` beside it where it is good: in one round trip, so that whoever freezes here holds
    /// no lock. `None` where it is refused.
    async fn exchange(&self, shown: &RefreshToken, next: &RefreshToken) -> sqlx::Result<Option<Refreshed>> {
        sqlx::query_as!(
            Refreshed,
            r#"select session as "session!", account as "account!", operator as "operator!", reused as "reused!"
             from refresh_session($1, $2, make_interval(secs => $3), make_interval(secs => $4), $5)"#,
            shown.hash(),
            next.hash(),
            self.0.config.refresh_ttl.as_secs_f64(),
            self.0.config.refresh_reuse.as_secs_f64(),
            REFRESH_TOKEN_USES,
        )
        .fetch_optional(&self.0.pool)
        .await
    }

    fn tokens(&self, identity: Identity, refresh: RefreshToken) -> anyhow::Result<Tokens> {
        let ttl = self.0.config.access_ttl;
        Ok(Tokens {
            access_token: Claims::new(identity, &self.0.config, ttl).sign(&self.0.key.load())?,
            token_type: "Bearer".to_owned(),
            expires_in: ttl.as_secs(),
            refresh_token: refresh.0,
            account: identity.account,
            session: identity.session,
        })
    }

    async fn rotate(self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(LOOK_AT_KEY_EVERY) => {}
            }
            if !self.0.key.load().retired() {
                continue;
            }
            match SigningKey::ensure(&self.0.pool, &self.0.config).await {
                Ok(key) => self.0.key.store(Arc::new(key)),
                // The old key verifies for long yet.
                Err(error) => {
                    tracing::warn!(cause = %Chain(error.as_ref()), "cannot change the signing key; trying on");
                }
            }
        }
    }
}

/// 256 random bits, as base64url.
struct RefreshToken(String);

impl RefreshToken {
    fn generate() -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// What is stored. The token is random, so one round of SHA-256 is enough.
    fn hash(&self) -> Vec<u8> {
        Sha256::digest(&self.0).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_token_is_looked_up() {
        let token = RefreshToken::generate();
        assert_eq!(RefreshToken::parse(&token.0).map(|parsed| parsed.hash()), Some(token.hash()));
        for text in ["", "abc", "\u{0}", &"A".repeat(10_000), &token.0[1..]] {
            assert!(RefreshToken::parse(text).is_none());
        }
    }
}

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use axum::http::{HeaderValue, header};
use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use jsonwebtoken::jwk::JwkSet;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tokio::{
    sync::Mutex,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    Identity, IdentityConfig,
    access::{Claims, LEEWAY, Rules, TokenError, now},
    authenticate::Authenticator,
    keys::PublicKeys,
};
use crate::problem::Chain;

/// How often the database is asked for sessions that ended elsewhere: they are over everywhere within a second.
const POLL_EVERY: Duration = Duration::from_millis(500);
/// An ending may be committed this long after the time it carries: longer than a statement may take.
const COMMIT_DELAY: Duration = Duration::from_secs(20);
/// How often keys are read anew, to forget the old ones.
const RELOAD_KEYS_EVERY: Duration = Duration::from_secs(60);
/// How often the database is asked for keys that tokens name: forged ones must not become queries.
const LOOK_UP_KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Checks access tokens, without asking the database for each: it knows the public keys, remembers what it has checked,
/// and polls for sessions that ended. Clones share all of that.
#[derive(Clone)]
pub struct Verifier(Arc<State>);

struct State {
    pool: PgPool,
    rules: Rules,
    keys: ArcSwap<PublicKeys>,
    keys_looked_up: Mutex<Instant>,
    /// By the SHA-256 of the token.
    checked: Cache<[u8; 32], Arc<Claims>>,
    /// Sessions that ended while tokens of theirs may be around. Each was begun with a password hash or a registration,
    /// which bounds how many there can be.
    ended: ArcSwap<HashMap<Uuid, DateTime<Utc>>>,
    /// How long an ended session is remembered: as long as its last token lives.
    memory: Duration,
}

impl Verifier {
    /// Checks tokens made by whoever shares `pool`'s database, and goes on learning of new keys and ended sessions until
    /// `shutdown`.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub async fn start(
        pool: PgPool,
        config: &IdentityConfig,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let keys = PublicKeys::load(&pool).await?;
        let verifier = Self(Arc::new(State {
            rules: Rules::new(config),
            keys: ArcSwap::from_pointee(keys),
            keys_looked_up: Mutex::new(Instant::now()),
            checked: Cache::builder()
                .max_capacity(config.remembered_tokens)
                .time_to_live(config.access_ttl + LEEWAY)
                .build(),
            ended: ArcSwap::default(),
            memory: config.access_ttl + LEEWAY + COMMIT_DELAY,
            pool,
        }));
        let since = sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(&verifier.0.pool).await?;
        let since = verifier.learn_of_endings(since - verifier.0.memory).await?;
        tasks.spawn(verifier.clone().keep_up(since, shutdown));
        Ok(verifier)
    }

    /// `GET /.well-known/jwks.json`: the public keys, for whoever checks our tokens elsewhere (RFC 7517).
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> OpenApiRouter<S> {
        OpenApiRouter::new().routes(routes!(jwks)).with_state(self.clone())
    }

    /// Reads the keys anew.
    async fn reload_keys(&self) -> anyhow::Result<()> {
        let keys = PublicKeys::load(&self.0.pool).await?;
        self.0.keys.store(Arc::new(keys));
        Ok(())
    }

    /// A session ended in this process: known at once.
    pub(super) fn ended(&self, sessions: impl IntoIterator<Item = Uuid>) {
        let now = Utc::now();
        let ended: Vec<_> = sessions.into_iter().map(|session| (session, now)).collect();
        self.remember(&ended);
    }

    async fn check(&self, token: &str) -> Result<Identity, TokenError> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        let claims = if let Some(claims) = self.0.checked.get(&hash).await {
            claims
        } else {
            let claims = Arc::new(self.check_anew(token).await?);
            self.0.checked.insert(hash, Arc::clone(&claims)).await;
            claims
        };
        if claims.expired(now()) {
            return Err(TokenError::Expired);
        }
        let identity = claims.identity();
        if self.0.ended.load().contains_key(&identity.session) {
            return Err(TokenError::SessionEnded);
        }
        Ok(identity)
    }

    async fn check_anew(&self, token: &str) -> Result<Claims, TokenError> {
        match self.0.rules.check(token, &self.0.keys.load()) {
            Err(TokenError::UnknownKey) => {
                self.look_for_new_keys().await;
                self.0.rules.check(token, &self.0.keys.load())
            }
            outcome => outcome,
        }
    }

    /// Reads the keys anew, unless somebody did since this was called. All who ask meanwhile share one look.
    async fn look_for_new_keys(&self) {
        let asked = Instant::now();
        let mut looked = self.0.keys_looked_up.lock().await;
        if *looked >= asked {
            return;
        }
        sleep_until(*looked + LOOK_UP_KEYS_AT_MOST_EVERY).await;
        *looked = Instant::now();
        if let Err(error) = self.reload_keys().await {
            tracing::warn!(cause = %Chain(error.as_ref()), "cannot look for new signing keys");
        }
    }

    async fn keep_up(self, mut since: DateTime<Utc>, shutdown: CancellationToken) {
        let mut polls = tokio::time::interval(POLL_EVERY);
        polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reloads = tokio::time::interval(RELOAD_KEYS_EVERY);
        reloads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = polls.tick() => self.learn_of_endings(since).await.map(|newest| since = newest),
                _ = reloads.tick() => self.reload_keys().await,
            };
            match outcome {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(cause = %Chain(error.as_ref()), "cannot learn which sessions ended; trying on");
                }
                Err(_) => {}
            }
        }
    }

    /// Learns of the sessions that ended after `since` or shortly before, and answers when the last one did.
    pub(super) async fn learn_of_endings(&self, since: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
        let ended = sqlx::query!(
            r#"select session, ended_at as "at!" from sessions where ended_at > $1"#,
            since - COMMIT_DELAY
        )
        .fetch_all(&self.0.pool)
        .await
        .context("cannot read the ended sessions")?;
        let ended: Vec<_> = ended.into_iter().map(|ended| (ended.session, ended.at)).collect();
        let newest = ended.iter().map(|&(_, at)| at).max().unwrap_or(since).max(since);
        self.remember(&ended);
        Ok(newest)
    }

    fn remember(&self, ended: &[(Uuid, DateTime<Utc>)]) {
        let known = self.0.ended.load();
        let oldest = Utc::now() - self.0.memory;
        let new = ended.iter().any(|(session, _)| !known.contains_key(session));
        let old = known.values().any(|&at| at < oldest);
        if new || old {
            self.0.ended.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.extend(ended.iter().copied());
                known.retain(|_, at| *at >= oldest);
                known
            });
        }
    }
}

impl Authenticator for Verifier {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
        self.check(token).boxed()
    }
}

/// The public keys that verify access tokens, as a JSON Web Key Set (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "sessions",
    responses((status = 200, description = "The keys: one signs, older ones still verify.", body = serde_json::Value))
)]
async fn jwks(
    axum::extract::State(verifier): axum::extract::State<Verifier>,
) -> ([(header::HeaderName, HeaderValue); 1], axum::Json<JwkSet>) {
    let cacheable = (header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    ([cacheable], axum::Json(verifier.0.keys.load().published().clone()))
}

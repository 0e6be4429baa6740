//! The event store: many commands in one serialized append, each standing or falling alone.
//!
//! An [`Operation`] reads streams through a [`Work`], decides, and leaves in it what is to be appended. The store
//! appends that together with the versions of all that was read; where one of them has moved meanwhile, the
//! operation is attempted again on what stands there now, in its turn among all who write it. A refusal, too, is answered only after the versions that
//! it rests on were confirmed.

mod append;
mod appender;
mod cqrs;
mod left_out;
mod load;
mod operation;
mod ping;
mod snapshots;
mod turns;
mod work;

pub use append::{Append, Claim, NewEvent, PrivateData, Receipt, Replay, Verdict, append};
pub use appender::{Appender, AppenderConfig};
pub use cqrs::Context;
pub use load::{Loaded, Stored};
pub use operation::{AGORA_POSITION, Answer, IDEMPOTENCY_REPLAYED, Idempotency, Operation, Request, Stop};
pub use work::Work;

use axum::http::StatusCode;
use events::{AccountId, Stream};
use moka::sync::Cache;
use platform::{instances::Gate, problem::Problem};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use store_reader::{Unreadable, Wake};
use tokio_util::task::TaskTracker;

/// How long a client is asked to wait before it tries again, where the store could not take its command.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Claims remembered that are never given up: the categories of a large platform, at some 150 bytes each.
const LASTING_CLAIMS: u64 = 50_000;

/// Why the store could not do what it was asked, and nobody's rule was broken.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// More commands are waiting than the queue holds.
    #[error("the store's queue is full")]
    Busy,
    /// A reader runs that does not know an event version which this would write: the log says which.
    #[error("a reader does not know what this writes")]
    ReadersBehind,
    /// The database did not answer in time. The command may or may not be in; under its key it takes effect once.
    #[error("the event store does not answer")]
    Unavailable,
    /// Others changed what the command read, or were before it, for as long as it waited.
    #[error("others keep changing what the command reads")]
    Contended,
    /// An event of a stream cannot be read: the data, or a release older than it, is at fault. An alarm says what to do.
    #[error("event {} of {}, its event {}, cannot be read: {}", .0.event_id, .0.stream, .0.sequence, .0.reason)]
    Unreadable(Box<Unreadable>),
    /// What a decision wants written is larger than [`events::limits::EVENT_BYTES`].
    #[error("event {name} has {bytes} bytes, {max} at most", max = events::limits::EVENT_BYTES)]
    TooLarge {
        /// The event's name.
        name: &'static str,
        /// Its payload's size.
        bytes: usize,
    },
    /// The database refused a value of this command alone: a defect of ours.
    #[error("the database refused the command: {0}")]
    Rejected(String),
    /// The database, when it was read.
    #[error("reading the event store: {0}")]
    Database(#[from] sqlx::Error),
    /// The database, when a stream was read through `postgres-es`.
    #[error("reading a stream: {0}")]
    Repository(#[from] cqrs_es::persist::PersistenceError),
    /// An event does not serialize: a defect of ours.
    #[error("writing an event: {0}")]
    Json(#[from] serde_json::Error),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let unavailable = |name, detail: &str| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, name, detail).with_retry_after(RETRY_AFTER)
        };
        match error {
            StoreError::Busy => unavailable("overloaded", "Too many commands are waiting. Try again."),
            StoreError::ReadersBehind => unavailable(
                "readers-behind",
                "This command waits until all parts of Agora know what it writes. Try again.",
            ),
            StoreError::Contended => unavailable("contended", "Others keep changing the same thing. Try again."),
            StoreError::TooLarge { .. } => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "event-too-large", error),
            StoreError::Unavailable | StoreError::Database(_) | StoreError::Repository(_) => {
                tracing::warn!(%error, "the event store is out of reach");
                unavailable(
                    "store-unavailable",
                    "The event store does not answer. Send the command again under the same Idempotency-Key.",
                )
            }
            StoreError::Unreadable(_) => Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "unreadable-event",
                "What this command rests on cannot be read: an operator has to see to it. Nothing was written.",
            )
            .with_cause(&error),
            StoreError::Rejected(_) | StoreError::Json(_) => Problem::internal(&error),
        }
    }
}

/// The event store, shared by everything in a command-service. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
    appender: Appender,
    loader: load::Loader,
    turns: turns::Turns,
    lasting: Cache<(&'static str, String), String>,
}

impl Store {
    /// Starts the appender on connections of its own; `pool` serves the reads.
    ///
    /// The appender ends, with all it holds written, when the last clone of the store is gone.
    pub fn start(pool: PgPool, config: &AppenderConfig, tasks: &TaskTracker) -> Self {
        Self::waking(pool, config, Wake::default(), tasks)
    }

    /// The same, beside a relay that may be in this process.
    pub fn waking(pool: PgPool, config: &AppenderConfig, wake: Wake, tasks: &TaskTracker) -> Self {
        let appender = Appender::start(config, pool.connect_options().as_ref().clone(), wake, tasks);
        let lasting = Cache::new(LASTING_CLAIMS);
        Self { loader: load::Loader::new(pool.clone()), pool, appender, turns: turns::Turns::default(), lasting }
    }

    /// The same, which appends no event that is held back there.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        Self { appender: self.appender.behind(gate), ..self }
    }

    /// The connections that serve its reads.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The state of a stream, as it is remembered: it may have moved since.
    ///
    /// # Errors
    /// [`StoreError`] where the stream cannot be read or decoded.
    pub(crate) async fn recall<A: Stored>(&self, stream: &Stream) -> Result<Arc<Loaded<A>>, StoreError> {
        self.loader.load(stream).await
    }

    /// The state of a stream as it is now, past the cache: for who looks at every stream once.
    ///
    /// # Errors
    /// [`StoreError`] where the stream cannot be read or decoded.
    pub(crate) async fn look<A: Stored>(&self, stream: &Stream) -> Result<A, StoreError> {
        Ok(self.loader.read::<A>(stream).await?.state.clone())
    }

    /// Private data of an account: a password's hash, an e-mail address. A change that is being committed is waited for.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn private(&self, owner: AccountId, kind: &str) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar!(
            "select value from private_data where owner = $1 and kind = $2 for share",
            owner.0,
            kind
        )
        .fetch_optional(&self.pool)
        .await?)
    }

    /// As [`Self::claimed_by`], for kinds of values that are never given up: asked once.
    async fn lastingly_claimed_by(&self, kind: &'static str, value: &str) -> Result<Option<String>, StoreError> {
        let key = (kind, value.to_owned());
        if let Some(owner) = self.lasting.get(&key) {
            return Ok(Some(owner));
        }
        let owner = self.claimed_by(kind, value).await?;
        if let Some(owner) = &owner {
            self.lasting.insert(key, owner.clone());
        }
        Ok(owner)
    }

    /// Who holds a unique value; none where it is free.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn claimed_by(&self, kind: &str, value: &str) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar!("select owner from claims where kind = $1 and value = $2", kind, value)
            .fetch_optional(&self.pool)
            .await?)
    }
}

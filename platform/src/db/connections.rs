//! Connections for who asks a little, again and again.
//!
//! sqlx's own pool asks every connection that is given back whether it still answers, which takes Postgres and us as
//! long as a fifth of a page, and gives all of them in turn, with cold plans. Here only those come back that have answered
//! to the end, all others are closed; and the one that was used last is the first to be used again.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::TRY_AFTER_IDLE;

/// How long a connection is used at most, as in sqlx's pool: what Postgres remembers for it grows.
const LONGEST_LIFE: Duration = Duration::from_secs(30 * 60);
/// How long one may lie idle before it is closed, as there.
const LONGEST_IDLE: Duration = Duration::from_secs(10 * 60);

/// See the module.
#[derive(Debug)]
pub struct Connections {
    options: PgConnectOptions,
    patience: Duration,
    places: Semaphore,
    /// The one that was used last at the end.
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    born: Instant,
    since: Instant,
}

/// A connection in use. Closed when dropped: who gave up in the middle of an answer leaves the rest of it behind.
#[derive(Debug)]
pub struct Lent<'a> {
    connection: PgConnection,
    born: Instant,
    of: &'a Connections,
    _place: SemaphorePermit<'a>,
}

impl Connections {
    /// So many at most, made as those of this pool; who finds none free waits as long as there.
    pub fn like(pool: &PgPool, most: usize) -> Self {
        Self {
            options: (*pool.connect_options()).clone(),
            patience: pool.options().get_acquire_timeout(),
            places: Semaphore::new(most),
            idle: Mutex::default(),
        }
    }

    /// One that answers, as far as is known.
    ///
    /// # Errors
    /// Where none is free in time, or the database is away.
    pub async fn take(&self) -> sqlx::Result<Lent<'_>> {
        // Nearly always there is one at hand, and no time-out to be set.
        if let Ok(place) = self.places.try_acquire()
            && let Some(idle) = self.idle(|idle| idle.since.elapsed() <= TRY_AFTER_IDLE)
        {
            return Ok(self.lend(idle.connection, idle.born, place));
        }
        timeout(self.patience, self.wait()).await.map_err(|_| sqlx::Error::PoolTimedOut)?
    }

    async fn wait(&self) -> sqlx::Result<Lent<'_>> {
        let place = self.places.acquire().await.map_err(|_| sqlx::Error::PoolClosed)?;
        while let Some(Idle { mut connection, born, since }) = self.idle(|_| true) {
            if since.elapsed() <= TRY_AFTER_IDLE || connection.ping().await.is_ok() {
                return Ok(self.lend(connection, born, place));
            }
        }
        let connection = PgConnection::connect_with(&self.options).await?;
        Ok(self.lend(connection, Instant::now(), place))
    }

    /// The one that was used last, if it is such.
    fn idle(&self, such: impl FnOnce(&mut Idle) -> bool) -> Option<Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_if(such)
    }

    fn lend<'a>(&'a self, connection: PgConnection, born: Instant, place: SemaphorePermit<'a>) -> Lent<'a> {
        Lent { connection, born, of: self, _place: place }
    }
}

impl Lent<'_> {
    /// For the next: to be called only when all that was asked is answered.
    pub fn give_back(self) {
        let Self { connection, born, of, .. } = self;
        let now = Instant::now();
        let mut idle = of.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if now - born < LONGEST_LIFE {
            idle.push(Idle { connection, born, since: now });
        }
        idle.retain(|idle| now - idle.since < LONGEST_IDLE);
    }
}

impl Deref for Lent<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.connection
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.connection
    }
}

//! The lease of the one who leads: an advisory lock on a connection of its own. Postgres ends that connection when it has
//! heard nothing for two seconds, so a leader that froze has lost the lease before it can know.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

/// "relay" in ASCII. Advisory locks are per database: one relay for each event store.
const LOCK: i64 = 0x72_656c_6179;
/// After which Postgres ends a session that it hears nothing from, in milliseconds.
const IDLE_SESSION_TIMEOUT: &str = "2000";
/// How often the leader is heard, and how often who waits asks.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How old the last heartbeat may be when something is sent: half of what Postgres waits.
const FRESH: Duration = Duration::from_secs(1);

pub(super) struct Lease {
    connection: PgConnection,
    /// When the last heartbeat that was answered set out.
    heard: Instant,
}

impl Lease {
    /// Waits until nobody else leads; none where the process ends first.
    pub(super) async fn take(options: &PgConnectOptions, shutdown: &CancellationToken) -> sqlx::Result<Option<Self>> {
        let mut connection =
            options.clone().options([("idle_session_timeout", IDLE_SESSION_TIMEOUT)]).connect().await?;
        loop {
            let heard = Instant::now();
            let taken = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, LOCK);
            if taken.fetch_one(&mut connection).await? {
                return Ok(Some(Self { connection, heard }));
            }
            if shutdown.run_until_cancelled(sleep(HEARTBEAT)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// A heartbeat, where one is due.
    pub(super) async fn renew_if_due(&mut self) -> sqlx::Result<()> {
        if self.heard.elapsed() < HEARTBEAT { Ok(()) } else { self.renew().await }
    }

    /// Makes sure that the lease was held within the last second: what is sent now is sent by the leader.
    pub(super) async fn assure(&mut self) -> sqlx::Result<()> {
        if self.heard.elapsed() < FRESH { Ok(()) } else { self.renew().await }
    }

    /// Waits for something else, and keeps the lease meanwhile.
    pub(super) async fn during<T>(&mut self, other: impl Future<Output = T>) -> sqlx::Result<T> {
        let mut other = std::pin::pin!(other);
        let mut beat = interval(HEARTBEAT);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return Ok(done),
                _ = beat.tick() => self.renew_if_due().await?,
            }
        }
    }

    /// Lets another lead at once.
    pub(super) async fn give_back(self) {
        // Postgres gives it back by itself when the connection is gone.
        let _ = self.connection.close().await;
    }

    async fn renew(&mut self) -> sqlx::Result<()> {
        let heard = Instant::now();
        self.connection.ping().await?;
        self.heard = heard;
        Ok(())
    }
}

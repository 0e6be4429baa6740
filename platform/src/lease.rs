//! The lease of the one who leads: an advisory lock on a connection of its own. Postgres ends that connection when it has
//! heard nothing for two seconds, so a leader that froze has lost the lease before it can know.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

/// After which Postgres ends a session that it hears nothing from, in milliseconds.
const IDLE_SESSION_TIMEOUT: &str = "2000";
/// How often the leader is heard, and how often who waits asks.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How old the last heartbeat may be when something is done that only the leader may do: half of what Postgres waits.
const FRESH: Duration = Duration::from_secs(1);

/// Held until it is given back, or its connection ends.
#[derive(Debug)]
pub struct Lease {
    connection: PgConnection,
    /// When the last heartbeat that was answered set out.
    heard: Instant,
}

impl Lease {
    /// Waits until nobody else leads; none where the process ends first. Advisory locks are per database: `lock` names what
    /// is led there.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn take(
        lock: i64,
        options: &PgConnectOptions,
        shutdown: &CancellationToken,
    ) -> sqlx::Result<Option<Self>> {
        let mut connection =
            options.clone().options([("idle_session_timeout", IDLE_SESSION_TIMEOUT)]).connect().await?;
        loop {
            let heard = Instant::now();
            let taken = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, lock);
            if taken.fetch_one(&mut connection).await? {
                return Ok(Some(Self { connection, heard }));
            }
            if shutdown.run_until_cancelled(sleep(HEARTBEAT)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// Who holds it: the `application_name` of its connection. None where nobody does.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn holder(lock: i64, pool: &PgPool) -> sqlx::Result<Option<String>> {
        // A key of 64 bits is shown in two halves (`pg_locks`, objsubid 1).
        let holder = sqlx::query_scalar!(
            r#"select a.application_name as "name!" from pg_locks l join pg_stat_activity a using (pid)
            where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                and l.classid::bigint = $1::bigint >> 32 and l.objid::bigint = $1::bigint & 4294967295
                and l.database = (select oid from pg_database where datname = current_database())"#,
            lock,
        );
        holder.fetch_optional(pool).await
    }

    /// A heartbeat, where one is due.
    ///
    /// # Errors
    /// Where it is lost.
    pub async fn renew_if_due(&mut self) -> sqlx::Result<()> {
        if self.heard.elapsed() < HEARTBEAT { Ok(()) } else { self.renew().await }
    }

    /// Makes sure that the lease was held within the last second: what is sent now is sent by the leader.
    ///
    /// # Errors
    /// Where it is lost.
    pub async fn assure(&mut self) -> sqlx::Result<()> {
        if self.heard.elapsed() < FRESH { Ok(()) } else { self.renew().await }
    }

    /// Waits for something else, and keeps the lease meanwhile; lets go of the other where it is lost.
    ///
    /// # Errors
    /// Where it is lost.
    pub async fn during<T>(&mut self, other: impl Future<Output = T>) -> sqlx::Result<T> {
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
    pub async fn give_back(self) {
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

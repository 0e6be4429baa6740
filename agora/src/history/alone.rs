//! One process at a time for one place.

use std::time::Duration;

use anyhow::ensure;
use sqlx::PgConnection;
use store_reader::StoreReader;
use tokio::time::sleep;

/// How often it is asked for again before somebody else is said to have it: the server hears of the end of one that was
/// killed a moment later.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(100);

/// Held by a connection of the event store: whoever ends, however that came, gives it back.
#[derive(Debug)]
pub(super) struct Alone {
    _held: PgConnection,
}

impl Alone {
    /// Takes it, for something such as `export to here`.
    ///
    /// # Errors
    /// Where another process has it, or the database is away.
    pub(super) async fn at(store: &StoreReader, what: &str) -> anyhow::Result<Self> {
        let mut connection = store.pool().acquire().await?.detach();
        for again in (0..TRIES).rev() {
            let free = sqlx::query_scalar("select pg_try_advisory_lock(hashtextextended($1, 0))").bind(what);
            if free.fetch_one(&mut connection).await? {
                break;
            }
            ensure!(again > 0, "another {what} is running: one at a time");
            sleep(BETWEEN).await;
        }
        Ok(Self { _held: connection })
    }
}

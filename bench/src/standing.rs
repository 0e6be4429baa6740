//! Where the store and the projections stand.

use std::time::Duration;

use anyhow::ensure;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

/// How often the checkpoints are looked at: what a measurement is late at most.
const LOOK: Duration = Duration::from_millis(5);
/// How long nothing may move until it is said not to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many events the store has: positions have no gaps.
///
/// # Errors
/// Those of the database.
#[allow(clippy::cast_precision_loss, reason = "events of a bench")]
pub async fn events(store: &PgPool) -> anyhow::Result<f64> {
    Ok(sqlx::query_scalar::<_, i64>("select position from store.store_head").fetch_one(store).await? as f64)
}

/// Waits until all projections have passed all events that the store has now.
///
/// # Errors
/// Where they do not move for a minute, or those of the database.
pub async fn caught_up(database: &PgPool) -> anyhow::Result<()> {
    // By the index: to look for the greatest of each shard would read all events.
    let heads = "select coalesce(sum(head.position), 0)::bigint from generate_series(0, 63) s (shard) cross join lateral (
        select position from store.events where (shard, position) >= (s.shard, 0) and (shard, position) < (s.shard + 1, 0)
        order by shard desc, position desc limit 1
    ) head";
    let heads: i64 = sqlx::query_scalar(heads).fetch_one(database).await?;
    // No checkpoint is above the head of its shard: only where all have arrived is their sum that of the heads.
    let arrived = heads * i64::try_from(projector::names().len())?;
    let (mut stood_at, mut moved) = (-1, Instant::now());
    loop {
        let stand = "select coalesce(sum(position), 0)::bigint from read.checkpoint";
        let stand: i64 = sqlx::query_scalar(stand).fetch_one(database).await?;
        if stand >= arrived {
            return Ok(());
        }
        if stand > stood_at {
            (stood_at, moved) = (stand, Instant::now());
        }
        ensure!(moved.elapsed() < PATIENCE, "the projections stand still at {stand} of {arrived}");
        sleep(LOOK).await;
    }
}

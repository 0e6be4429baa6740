//! Counts in a view always equal the rows they count.

use std::time::{Duration, Instant};

use sqlx::PgPool;

use crate::forum::TestForum;

/// How long the projections may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until everything that was written is in the read tables, and compares each count in them with the rows.
pub async fn assert_counts_hold(forum: &TestForum) {
    caught_up(&forum.pool).await;
    for checked in projector::check::counts(&forum.pool, &forum.pool).await.expect("it is checked") {
        assert!(checked.broken.is_empty(), "{}: {:#?}", checked.promise, checked.broken);
    }
}

/// Until every projection has passed the store's head of every shard: a condition, not a time.
async fn caught_up(pool: &PgPool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind: bool = sqlx::query_scalar(
            "select exists (
                select from (select shard, max(position) as head from events group by shard) e
                where (select count(*) from checkpoint c where c.shard = e.shard and c.position >= e.head) < 7
             )",
        )
        .fetch_one(pool)
        .await
        .expect("asks");
        if !behind {
            return;
        }
        assert!(Instant::now() < deadline, "the projections are behind after {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
}

//! Old receipts: after their time, a used key is a new one.

use std::time::Duration;

use sqlx::PgPool;

/// Receipts deleted in one statement: appends wait for none of it.
const BATCH: i64 = 5_000;

/// Deletes receipts that are older than that, and answers how many.
///
/// # Errors
/// Where the database is away; what was deleted until then stays deleted.
pub(super) async fn expire(pool: &PgPool, older_than: Duration) -> sqlx::Result<u64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query!(
            "delete from receipts where ctid = any(array(
                select ctid from receipts where recorded_at < now() - make_interval(secs => $1) limit $2
            ))",
            older_than.as_secs_f64(),
            BATCH,
        );
        let rows = batch.execute(pool).await?.rows_affected();
        deleted += rows;
        if rows < BATCH.unsigned_abs() {
            return Ok(deleted);
        }
    }
}

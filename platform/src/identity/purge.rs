use sqlx::PgPool;

use crate::limits::PURGE_BATCH;

/// Deletes sessions, refresh tokens and keys that are over, and answers how many rows. An ended session is kept for a day:
/// instances that start meanwhile must learn that its access tokens are good no more.
///
/// It waits for no row that it would delete first: what somebody else holds is deleted the next time.
///
/// # Errors
/// Where the database is away; what was deleted until then stays deleted.
pub async fn purge_expired(pool: &PgPool) -> sqlx::Result<u64> {
    let mut deleted = 0;
    loop {
        let sessions = sqlx::query!(
            "with over as materialized (
                 select session from sessions where expires_at < now() or ended_at < now() - interval '1 day'
                 limit $1 for update skip locked)
             delete from sessions where session in (select session from over)",
            PURGE_BATCH
        );
        let tokens = sqlx::query!(
            "with over as materialized (
                 select token_hash from refresh_tokens where expires_at < now() limit $1 for update skip locked)
             delete from refresh_tokens where token_hash in (select token_hash from over)",
            PURGE_BATCH
        );
        let keys = sqlx::query!("delete from signing_keys where expires_at < now()");
        let mut rows = 0;
        for statement in [sessions, tokens, keys] {
            rows += statement.execute(pool).await?.rows_affected();
        }
        if rows == 0 {
            return Ok(deleted);
        }
        deleted += rows;
    }
}

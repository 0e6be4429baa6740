use sqlx::PgPool;

use crate::limits::PURGE_BATCH;

/// Deletes sessions, refresh tokens and keys that are over, and answers how many rows. An ended session is kept for a day:
/// instances that start meanwhile must learn that its access tokens are good no more.
///
/// # Errors
/// Where the database is away; what was deleted until then stays deleted.
pub async fn purge_expired(pool: &PgPool) -> sqlx::Result<u64> {
    let mut deleted = 0;
    loop {
        let sessions = sqlx::query!(
            "delete from sessions where session in (
                 select session from sessions where expires_at < now() or ended_at < now() - interval '1 day' limit $1)",
            PURGE_BATCH
        );
        let tokens = sqlx::query!(
            "delete from refresh_tokens where token_hash in (
                 select token_hash from refresh_tokens where expires_at < now() limit $1)",
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

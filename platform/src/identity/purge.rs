use sqlx::PgPool;

/// Rows deleted in one statement: each holds its locks for milliseconds only.
const BATCH: i64 = 1_000;

/// Deletes sessions, refresh tokens and keys that are over, and answers how many rows. An ended session is kept for a day:
/// instances that start meanwhile must learn that its access tokens are good no more.
///
/// # Errors
/// Where the database is away; what was deleted until then stays deleted.
pub async fn purge_expired(pool: &PgPool) -> sqlx::Result<u64> {
    const STATEMENTS: [&str; 3] = [
        "delete from sessions where session in (
             select session from sessions where expires_at < now() or ended_at < now() - interval '1 day' limit $1)",
        "delete from refresh_tokens where token_hash in (
             select token_hash from refresh_tokens where expires_at < now() limit $1)",
        "delete from signing_keys where kid in (select kid from signing_keys where expires_at < now() limit $1)",
    ];
    let mut deleted = 0;
    for statement in STATEMENTS {
        loop {
            let rows = sqlx::query(statement).bind(BATCH).execute(pool).await?.rows_affected();
            deleted += rows;
            if rows < BATCH.unsigned_abs() {
                break;
            }
        }
    }
    Ok(deleted)
}

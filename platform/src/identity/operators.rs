use sqlx::PgPool;
use uuid::Uuid;

/// Makes `account` an operator, from its next token on; answers whether it was none.
///
/// # Errors
/// Where the database is away.
pub async fn add_operator(pool: &PgPool, account: Uuid) -> sqlx::Result<bool> {
    let added = sqlx::query!("insert into operators (account) values ($1) on conflict do nothing", account);
    Ok(added.execute(pool).await?.rows_affected() > 0)
}

/// Makes `account` an operator no more, from its next token on; answers whether it was one.
///
/// # Errors
/// Where the database is away.
pub async fn remove_operator(pool: &PgPool, account: Uuid) -> sqlx::Result<bool> {
    let removed = sqlx::query!("delete from operators where account = $1", account);
    Ok(removed.execute(pool).await?.rows_affected() > 0)
}

/// The operators, in the order they were added.
///
/// # Errors
/// Where the database is away.
pub async fn operators(pool: &PgPool) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select account from operators order by added_at, account").fetch_all(pool).await
}

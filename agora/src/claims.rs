//! Who goes by a name. Names are claims in the event store, whole and folded to lower case.

use sqlx::PgPool;

/// What an account is called by.
pub(crate) const USERNAME: &str = "username";
/// What a community is called by.
pub(crate) const SLUG: &str = "slug";

/// The id of what is called so, ignoring case; or has that id, and such a name.
///
/// # Errors
/// Those of the database.
pub(crate) async fn owner(store: &PgPool, kind: &str, named: &str) -> sqlx::Result<Option<String>> {
    let claim = "select owner from claims where kind = $1 and (value = $2 or owner = $2) limit 1";
    sqlx::query_scalar(claim).bind(kind).bind(named.to_lowercase()).fetch_optional(store).await
}

//! What accounts are called, where an id alone would say little.

use std::collections::HashMap;

use events::AccountId;
use sqlx::PgPool;

/// The usernames of some accounts.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<AccountId, String>);

impl Names {
    /// Asks the store.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) async fn of(store: &PgPool, accounts: impl Iterator<Item = AccountId>) -> anyhow::Result<Self> {
        let owners: Vec<String> = accounts.map(|account| account.to_string()).collect();
        let claims = sqlx::query_as("select owner, value from claims where kind = 'username' and owner = any($1)");
        let rows: Vec<(String, String)> = claims.bind(owners).fetch_all(store).await?;
        rows.into_iter().map(|(owner, name)| Ok((owner.parse()?, name))).collect::<Result<_, _>>().map(Self)
    }

    /// `ada (0191…)`; the id alone where it has no name.
    pub(super) fn with_id(&self, account: AccountId) -> String {
        self.0.get(&account).map_or_else(|| account.to_string(), |name| format!("{name} ({account})"))
    }

    /// `ada`, else the id.
    pub(super) fn short(&self, account: AccountId) -> String {
        self.0.get(&account).cloned().unwrap_or_else(|| account.to_string())
    }
}

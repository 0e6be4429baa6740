//! Streams fold to something else once an operator leaves an event of them out, or repairs one: what is folded is forgotten
//! then.

use std::time::Duration;

use store_reader::EVERY_READER;
use tokio_util::sync::CancellationToken;

use super::Store;

/// How often it is looked for. So long, commands may be decided on what the stream said before.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Store {
    /// Looks for it until shutdown.
    pub(crate) async fn heed_left_out(self, shutdown: CancellationToken) {
        let mut known = None;
        loop {
            // None is ever taken back. Where the database does not answer, nothing is decided either.
            let decided = sqlx::query_scalar!(
                r#"select (select count(*) from skips where projection = $1) + (select count(*) from repairs) as "decided!""#,
                EVERY_READER,
            );
            if let Ok(now) = decided.fetch_one(&self.pool).await
                && known.replace(now).is_some_and(|before| before != now)
            {
                self.loader.forget_all();
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }
}

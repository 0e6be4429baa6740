//! Being told that something was appended, by another process.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgListener};
use store_reader::{APPENDED, Wake};
use tokio_util::sync::CancellationToken;

/// How long to wait before listening again; the relay polls meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// Listens until the process ends.
pub(super) async fn listen(store: &PgPool, wake: &Wake, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let listening = async {
            let mut listener = PgListener::connect_with(store).await?;
            listener.listen(APPENDED).await?;
            loop {
                listener.recv().await?;
                wake.tell();
            }
        };
        let ended: Option<sqlx::Result<()>> = shutdown.run_until_cancelled(listening).await;
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, "not listening for appends");
            shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
        }
    }
}

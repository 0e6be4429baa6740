//! Being told that something was appended.

use std::time::Duration;

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The channel on which appenders ping after they have committed.
const CHANNEL: &str = "agora_appended";
/// How long to wait before listening again; the relay polls meanwhile.
const AGAIN: Duration = Duration::from_secs(1);

/// Pings, coalesced.
#[derive(Default)]
pub(super) struct Wake(Notify);

impl Wake {
    /// Listens until the process ends.
    pub(super) async fn listen(&self, store: &PgPool, shutdown: &CancellationToken) {
        while !shutdown.is_cancelled() {
            let listening = async {
                let mut listener = PgListener::connect_with(store).await?;
                listener.listen(CHANNEL).await?;
                loop {
                    listener.recv().await?;
                    self.0.notify_one();
                }
            };
            let ended: Option<sqlx::Result<()>> = shutdown.run_until_cancelled(listening).await;
            if let Some(Err(error)) = ended {
                tracing::debug!(%error, "not listening for appends");
                shutdown.run_until_cancelled(tokio::time::sleep(AGAIN)).await;
            }
        }
    }

    /// Waits for the next ping, or for none where one came since the last wait.
    pub(super) async fn woken(&self) {
        self.0.notified().await;
    }
}

//! The operator's token that commands are sent with.

use futures::future::BoxFuture;
use platform::config::Secret;
use tokio::sync::Mutex;

/// Where it comes from.
pub enum Token {
    /// Given by a person; where it expires, the work stops, and may be gone on with under another one.
    Given(Secret),
    /// Made by ourselves, through this machine's own database, as often as needed.
    Minted {
        /// Makes one.
        mint: Mint,
        /// The one in use. Held while one is made, so that lanes that ask together get the same.
        current: Mutex<Option<Secret>>,
    },
}

/// Makes a token.
pub type Mint = Box<dyn Fn() -> BoxFuture<'static, anyhow::Result<Secret>> + Send + Sync>;

impl Token {
    /// Made by `mint` where one is needed.
    pub fn minted(mint: Mint) -> Self {
        Self::Minted { mint, current: Mutex::default() }
    }

    /// The one to send now.
    ///
    /// # Errors
    /// Where none can be made: the database is away.
    pub async fn current(&self) -> anyhow::Result<Secret> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::Minted { mint, current } => {
                let mut current = current.lock().await;
                if let Some(token) = &*current {
                    return Ok(token.clone());
                }
                let token = mint().await?;
                *current = Some(token.clone());
                Ok(token)
            }
        }
    }

    /// `refused` is accepted no more: whether another one may be had.
    pub(super) async fn renew(&self, refused: &Secret) -> bool {
        let Self::Minted { current, .. } = self else { return false };
        let mut current = current.lock().await;
        if current.as_ref() == Some(refused) {
            *current = None;
        }
        true
    }
}

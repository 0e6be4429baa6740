//! How commands that post in bulk find their server.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use platform::{config::Secret, identity};
use uuid::Uuid;

use crate::{
    client::{Client, token::Token},
    config::Config,
    derive,
    local::{self, Up},
};

/// How long a minted token is good; another one is made when it has expired.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);

/// Where to post.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct Target {
    /// The server's address, http://host:port; by default the `agora up` that runs here
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Where reads are answered, where that is another address: services apart have one each
    #[arg(long, value_name = "URL", requires = "server")]
    read_server: Option<String>,
    /// An operator's access token for it; by default, tokens are made through --database-url
    #[arg(long, value_name = "TOKEN", env = "AGORA_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Target {
    /// A client of the server that was named, or of the `agora up` that runs here; with the token that was given, or with
    /// tokens that are made through its database, anew whenever one expires.
    ///
    /// # Errors
    /// Where a server was named, but neither a token nor a database; or nothing runs here.
    pub async fn client(self, config: Config) -> anyhow::Result<Client> {
        let server = match &self.server {
            Some(server) => server.clone(),
            None => Up::find(&config.data_dir)?.address,
        };
        let token = match self.token {
            Some(token) => Token::Given(Secret::new(token)),
            None if self.server.is_some() && !config.has_database() => bail!(
                "--server takes an operator's token (--token TOKEN, or AGORA_TOKEN), or the database through which tokens \
                 are made (--database-url URL)"
            ),
            None => minted(config).await?,
        };
        Client::new(&server, self.read_server.as_deref(), token)
    }
}

/// Tokens made through the database. The first one at once, so that what is wrong shows at once.
async fn minted(config: Config) -> anyhow::Result<Token> {
    let token = Token::minted(Box::new(move || Box::pin(mint(config.clone()))));
    token.current().await?;
    Ok(token)
}

async fn mint(config: Config) -> anyhow::Result<Secret> {
    let config = local::with_database(config)?;
    let store = super::store(&config).await?;
    let token = identity::mint_operator(&store, &config.identity, local_operator(), TOKEN_LIFE).await;
    store.close().await;
    Ok(Secret::new(token?))
}

/// Always the same, so that idempotency keys are found again; no account has it.
fn local_operator() -> Uuid {
    derive::id(chrono::DateTime::UNIX_EPOCH, "agora/local-operator")
}

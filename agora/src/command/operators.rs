//! `agora operators`

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use events::AccountId;
use platform::identity;
use sqlx::{PgPool, Row as _};

use crate::{
    claims::{self, USERNAME},
    config::Config,
};

/// Say who runs the platform: whose tokens may act for others
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  agora operators add ada
  agora operators list")]
pub enum Operators {
    /// Make an account an operator, from its next token on
    Add(Who),
    /// Make an account an operator no more, from its next token on
    Remove(Who),
    /// List the operators
    List,
}

/// Whom.
#[derive(Debug, Args)]
pub struct Who {
    /// A username, or an account's id
    account: String,
}

impl Operators {
    /// Does it, in the database that is configured, or that of the `agora up` that runs here.
    ///
    /// # Errors
    /// Where there is no such account, or no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        super::with_store(config, async |_, store| match self {
            Self::Add(Who { account }) => add(&store, &account).await,
            Self::Remove(Who { account }) => remove(&store, &account).await,
            Self::List => list(&store).await,
        })
    }
}

async fn add(store: &PgPool, who: &str) -> anyhow::Result<()> {
    let account = find(store, who).await?.with_context(|| format!("there is no account `{who}`"))?;
    let said = if identity::add_operator(store, account.0).await? {
        format!("{who} is an operator from the next token on: log in again, or renew\n")
    } else {
        format!("{who} is an operator already\n")
    };
    Ok(super::print(&said)?)
}

async fn remove(store: &PgPool, who: &str) -> anyhow::Result<()> {
    // An operator whose account is not there can be removed by its id.
    let account = match find(store, who).await? {
        Some(account) => account,
        None => who.parse().ok().with_context(|| format!("there is no account `{who}`"))?,
    };
    if !identity::remove_operator(store, account.0).await? {
        bail!("{who} is no operator");
    }
    Ok(super::print(&format!(
        "{who} is no operator from the next token on; the tokens of now hold for up to 15 minutes\n"
    ))?)
}

async fn list(store: &PgPool) -> anyhow::Result<()> {
    let mut text = String::new();
    for account in identity::operators(store).await? {
        let name =
            sqlx::query("select value from claims where kind = 'username' and owner = $1").bind(account.to_string());
        let name = name.fetch_optional(store).await?.map(|row| row.get::<String, _>(0));
        writeln!(text, "{account}  {}", name.as_deref().unwrap_or("(no such account)"))?;
    }
    Ok(super::print(&text)?)
}

/// By username, ignoring case, or by id.
async fn find(store: &PgPool, who: &str) -> anyhow::Result<Option<AccountId>> {
    Ok(claims::owner(store, USERNAME, who).await?.map(|id| id.parse()).transpose()?)
}

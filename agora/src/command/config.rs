//! `agora config`

use clap::{Args, Subcommand};

use crate::config;

/// Look at the settings
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "clap takes the words of what is inside")]
pub enum Config {
    Check(Check),
}

/// Check all settings and print them as they are merged, secrets hidden
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora config check --config /etc/agora.toml
  AGORA__HTTP__LISTEN=0.0.0.0:80 agora config check")]
pub struct Check {}

impl Config {
    /// Prints them as TOML.
    ///
    /// # Errors
    /// Where nobody reads.
    pub fn run(self, config: &config::Config) -> anyhow::Result<()> {
        let Self::Check(Check {}) = self;
        for database in [&config.database, config.read_tables()].into_iter().filter(|it| !it.url.expose().is_empty()) {
            platform::db::options(database, "public", "agora")?;
        }
        platform::identity::Passwords::new(&config.identity.password)?;
        config.kafka.check()?;
        Ok(super::print(&platform::config::render(config)?)?)
    }
}

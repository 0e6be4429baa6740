//! `agora migrate`

use clap::Args;

use crate::{config::Config, local, stack};

/// Bring both schemas of the database up to date, and end
#[derive(Debug, Args)]
#[command(after_help = "\
Services refuse to start on a schema that they do not know; `agora up` migrates by itself.

Example:
  agora migrate --database-url postgres://agora@db/agora")]
pub struct Migrate {}

impl Migrate {
    /// Migrates.
    ///
    /// # Errors
    /// Where the database is away, newer than this release, or too old a Postgres.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        super::block_on_until_told(async move { stack::migrate(&config).await }, "the same command goes on")?;
        Ok(super::print("the database is up to date\n")?)
    }
}

//! `agora projections`

use anyhow::Context as _;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use events::Shard;
use sqlx::PgPool;

use super::{rebuild::Tables, status::ProjectionsStatus};
use crate::{config::Config, local};

/// See how far the read tables are, and deal with what stopped
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  agora projections status --watch
  agora projections retry thread_page 17
  agora projections skip thread_page 17 --reason 'defect 123'
  agora projections verify --all
  agora projections rebuild thread_list")]
pub enum Projections {
    /// Show how far each projection is behind the event store, and where one has stopped
    Status(ProjectionsStatus),
    /// Let a projection that stopped in a shard try again
    Retry(At),
    /// Let a projection pass by the event it stopped at: on record, and for rebuilds too
    Skip(Skip),
    /// Fold all events anew, aside, and report the first rows of the live tables that differ
    Verify(Tables),
    /// Make read tables anew beside the live ones and put them in their place; reads and writes go on meanwhile
    #[command(after_help = "\
Killed or interrupted, the same command goes on where it was. With --shard, only the rows that differ are replaced.")]
    Rebuild(Tables),
}

/// Where a projection stopped.
#[derive(Debug, Args)]
pub struct At {
    /// Its name, as `status` shows it
    #[arg(value_parser = PossibleValuesParser::new(projector::names()))]
    projection: String,
    /// The shard, 0 to 63
    #[arg(value_parser = shard)]
    shard: Shard,
}

/// What to pass by, and why.
#[derive(Debug, Args)]
pub struct Skip {
    #[command(flatten)]
    at: At,
    /// Why it is right to
    #[arg(long, value_name = "WHY")]
    reason: String,
}

pub(super) fn shard(text: &str) -> Result<Shard, String> {
    let number: i16 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    Shard::try_from(number).map_err(|error| error.to_string())
}

impl Projections {
    /// Does it, in the database that is configured, or that of the `agora up` that runs here.
    ///
    /// # Errors
    /// Where nothing stopped there, or there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        match self {
            Self::Status(status) => status.run(config),
            Self::Retry(at) => at.retry(config),
            Self::Skip(skip) => skip.run(config),
            Self::Verify(tables) => tables.verify(config),
            Self::Rebuild(tables) => tables.rebuild(config),
        }
    }
}

impl At {
    fn retry(self, config: Config) -> anyhow::Result<()> {
        let Self { projection, shard } = self;
        said(config, async |_, read| {
            let stood = projector::retry(&read, &projection, shard).await?;
            anyhow::ensure!(stood, has_not_stopped(&projection, shard));
            Ok(format!("{projection} tries shard {shard} again within two seconds\n"))
        })
    }
}

impl Skip {
    fn run(self, config: Config) -> anyhow::Result<()> {
        let Self { at: At { projection, shard }, reason } = self;
        said(config, async |_, read| {
            let event = projector::skip(&read, &projection, shard, &reason).await?;
            let event = event.with_context(|| has_not_stopped(&projection, shard))?;
            Ok(format!("{projection} passes event {event} by, and goes on within two seconds\n"))
        })
    }
}

/// Prints what is to be said of the read tables.
fn said(config: Config, what: impl AsyncFnOnce(Config, PgPool) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let config = local::with_database(config)?;
    let _telemetry = super::quiet_logs(&config)?;
    let said = super::block_on(async {
        let read = super::read_tables(&config).await?;
        what(config, read).await
    })?;
    Ok(super::print(&said)?)
}

fn has_not_stopped(projection: &str, shard: Shard) -> String {
    format!("{projection} has not stopped in shard {shard}: `agora projections status` lists what has")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_numbers_from_0_to_63() {
        assert!(shard("63").is_ok());
        for wrong in ["64", "-1", "x", ""] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}

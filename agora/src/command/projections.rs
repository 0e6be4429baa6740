//! `agora projections`

use std::fmt::Write as _;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use events::Shard;
use indicatif::HumanDuration;
use projector::{ShardStatus, Status};
use sqlx::PgPool;

use super::rebuild::Tables;
use crate::{config::Config, local, terminal::count};

/// See how far the read tables are, and deal with what stopped
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  agora projections status
  agora projections retry thread_page 17
  agora projections skip thread_page 17 --reason 'defect 123'
  agora projections verify --all
  agora projections rebuild thread_list")]
pub enum Projections {
    /// Show how far each projection is behind the event store, and where one has stopped
    Status(StatusArgs),
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

/// How to show it.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print every shard, as JSON
    #[arg(long)]
    json: bool,
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
impl StatusArgs {
    fn run(self, config: Config) -> anyhow::Result<()> {
        said(config, async |config, read| {
            let status = projector::status(&super::store(&config).await?, &read).await?;
            Ok(if self.json { serde_json::to_string_pretty(&status)? + "\n" } else { show(&status, Utc::now()) })
        })
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

/// One line a projection, then what stopped.
fn show(status: &Status, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    let relayed = status.relayed.map_or_else(|| "nothing yet".to_owned(), at);
    let _ = writeln!(text, "event store at {}, Kafka has up to {relayed}\n", at(status.head));
    let _ = writeln!(text, "{:16}{:>12}{:>18}{:>10}", "projection", "behind", "waiting for", "stopped");
    for (name, shards) in &status.projections {
        let behind: i64 = shards.iter().map(|shard| shard.lag).sum();
        let waiting = shards.iter().filter_map(|shard| shard.waiting_since).min();
        let waiting = waiting.map_or_else(|| "-".to_owned(), |since| ago(now, since));
        let stopped = shards.iter().filter(|shard| shard.parked.is_some()).count();
        let stopped = if stopped == 0 { "-".to_owned() } else { format!("{stopped} shards") };
        let _ = writeln!(text, "{name:16}{:>12}{waiting:>18}{stopped:>10}", at(behind));
    }
    if status.projections.is_empty() {
        text += "none has run yet\n";
    }
    for (name, shards) in &status.projections {
        for ShardStatus { shard, parked, .. } in shards {
            let Some(parked) = parked else { continue };
            let _ = write!(
                text,
                "\n{name} stopped in shard {shard} {} ago, at event {} (position {}):\n  {}\n  go on with: agora \
                 projections retry {name} {shard}\n",
                ago(now, parked.at),
                parked.event_id,
                parked.position,
                parked.reason
            );
        }
    }
    text
}

fn at(position: i64) -> String {
    count(u64::try_from(position).unwrap_or(0))
}

fn ago(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    HumanDuration((now - since).to_std().unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use events::{EventId, HistoryId};
    use projector::Parked;

    use super::*;

    #[test]
    fn a_stopped_shard_comes_with_what_resolves_it() {
        let now: DateTime<Utc> = "2025-01-01T00:01:00Z".parse().expect("a time");
        let at = "2025-01-01T00:00:00Z".parse().expect("a time");
        let history = HistoryId::new();
        let parked = Parked { event_id: EventId::new(), position: 9, reason: "no such thread".into(), at };
        let shard = |number: i16, parked: Option<Parked>| ShardStatus {
            shard: Shard::try_from(number).expect("a shard"),
            history,
            position: 8,
            head: 10,
            lag: 2,
            waiting_since: Some(at),
            parked,
        };
        let projections = [("thread_page".to_owned(), vec![shard(3, None), shard(17, Some(parked))])].into();
        let text = show(&Status { history, head: 12_345, relayed: Some(12_345), projections }, now);
        assert!(text.starts_with("event store at 12,345, Kafka has up to 12,345\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("thread_page")).expect("a line");
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["thread_page", "4", "60", "seconds", "1", "shards"]);
        assert!(text.contains("agora projections retry thread_page 17"), "{text}");
    }

    #[test]
    fn shards_are_numbers_from_0_to_63() {
        assert!(shard("63").is_ok());
        for wrong in ["64", "-1", "x", ""] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}

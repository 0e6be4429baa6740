//! `agora projections`

use std::fmt::Write as _;

use anyhow::Context as _;
use chrono::SecondsFormat;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use events::{EventId, Shard};
use sqlx::PgPool;
use store_reader::EVERY_READER;

use super::{
    rebuild::Tables,
    status::ProjectionsStatus,
    who::{Who, words},
};
use crate::{config::Config, local};

/// See how far the read tables are, and deal with what stopped
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  agora projections status --watch
  agora projections retry thread_page 17
  agora projections skip thread_page 17 --reason 'defect 123'
  agora projections skips
  agora projections verify --all
  agora projections rebuild thread_list")]
pub enum Projections {
    /// Show how far each projection is behind the event store, and where one has stopped
    Status(ProjectionsStatus),
    /// Let a projection that stopped in a shard try again
    Retry(At),
    /// Let a projection pass by the event it stopped at, or another: on record, and for rebuilds too
    Skip(Skip),
    /// List the events that projections pass by, or every reader: which, why, and who said so
    Skips(Skips),
    /// Fold all events anew, aside, and report the first rows of the live tables that differ
    Verify(Tables),
    /// Make read tables anew beside the live ones and put them in their place; reads and writes go on meanwhile
    #[command(after_help = "\
Killed or interrupted, the same command goes on where it was. With --shard, only the rows that differ are replaced.")]
    Rebuild(Tables),
}

/// Each that stopped.
const ALL: &str = "all";

/// Where a projection stopped.
#[derive(Debug, Args)]
pub struct At {
    /// Its name, as `status` shows it; `all` for each that stopped there
    #[arg(value_parser = PossibleValuesParser::new([projector::names(), vec![ALL]].concat()))]
    projection: String,
    /// The shard, 0 to 63
    #[arg(value_parser = shard)]
    shard: Shard,
}

/// What to pass by, and why.
#[derive(Debug, Args)]
pub struct Skip {
    /// The projection, as `status` shows it
    #[arg(value_parser = PossibleValuesParser::new(projector::names()))]
    projection: String,
    /// The shard in which it stopped, 0 to 63
    #[arg(value_parser = shard, required_unless_present = "event")]
    shard: Option<Shard>,
    /// An event at which it did not stop, but a rebuild of it does
    #[arg(long, value_name = "ID", conflicts_with = "shard")]
    event: Option<EventId>,
    /// Why it is right to
    #[arg(long, value_name = "WHY", value_parser = words)]
    reason: String,
    #[command(flatten)]
    who: Who,
}

/// How to list them.
#[derive(Debug, Args)]
pub struct Skips {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
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
            Self::Skips(skips) => skips.run(config),
            Self::Verify(tables) => tables.verify(config),
            Self::Rebuild(tables) => tables.rebuild(config),
        }
    }
}

impl At {
    fn retry(self, config: Config) -> anyhow::Result<()> {
        let Self { projection, shard } = self;
        said(config, async |_, read| {
            let names = if projection == ALL { projector::names() } else { vec![&*projection] };
            let mut text = String::new();
            for name in names {
                if projector::retry(&read, name, shard).await? {
                    let _ = writeln!(text, "{name} tries shard {shard} again within two seconds");
                }
            }
            anyhow::ensure!(!text.is_empty(), has_not_stopped(&projection, shard));
            Ok(text)
        })
    }
}

impl Skip {
    fn run(self, config: Config) -> anyhow::Result<()> {
        let Self { projection, shard, event, reason, who } = self;
        said(config, async |config, read| {
            let (store, by) = (super::store(&config).await?, who.name());
            if let Some(event) = event {
                let position = projector::skip_event(&store, &projection, event, &reason, &by).await?;
                let position = position.with_context(|| format!("there is no event {event}"))?;
                return Ok(format!("{projection} passes event {event}, at position {position}, by in every rebuild\n"));
            }
            let shard = shard.context("a shard or an event")?;
            let event = projector::skip((&store, &read), &projection, shard, &reason, &by).await?;
            let event = event.with_context(|| has_not_stopped(&projection, shard))?;
            Ok(format!("{projection} passes event {event} by, and goes on within two seconds\n"))
        })
    }
}

impl Skips {
    fn run(self, config: Config) -> anyhow::Result<()> {
        said(config, async |config, _| {
            let skips = projector::skips(&super::store(&config).await?).await?;
            Ok(if self.json { serde_json::to_string_pretty(&skips)? + "\n" } else { list(&skips) })
        })
    }
}

/// Two lines each: a reason may be long.
fn list(skips: &[projector::Skip]) -> String {
    if skips.is_empty() {
        return "no event is passed by\n".to_owned();
    }
    let mut text = String::new();
    for projector::Skip { projection, event_id, position, reason, by, at } in skips {
        let (by, at) = (by.as_deref().unwrap_or("somebody"), at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let who = match &**projection {
            EVERY_READER => "every reader leaves out".to_owned(),
            projection => format!("{projection} passes by"),
        };
        let _ = writeln!(text, "{who} event {event_id} (position {position}), said {by} at {at}:");
        let _ = writeln!(text, "  {reason}");
    }
    text + "\nwhat an event says: agora events show ID\n"
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
    let what = if projection == ALL { "nothing has" } else { &*format!("{projection} has not") };
    format!("{what} stopped in shard {shard}: `agora projections status` lists what has")
}

#[cfg(test)]
mod tests {
    use events::EventId;

    use super::*;

    #[test]
    fn what_is_passed_by_is_listed_with_who_said_so_and_why() {
        let skip = |by: Option<&str>| projector::Skip {
            projection: "thread_page".to_owned(),
            event_id: EventId(uuid::Uuid::nil()),
            position: 7,
            reason: "defect 123".to_owned(),
            by: by.map(str::to_owned),
            at: "2026-01-01T00:00:00.123Z".parse().expect("a time"),
        };
        let text = list(&[skip(Some("ada@web-1")), skip(None)]);
        let lines: Vec<_> = text.lines().collect();
        let event = "thread_page passes by event 00000000-0000-0000-0000-000000000000 (position 7), said";
        assert_eq!(lines[0], format!("{event} ada@web-1 at 2026-01-01T00:00:00Z:"));
        assert_eq!((lines[1], lines[2]), ("  defect 123", &*format!("{event} somebody at 2026-01-01T00:00:00Z:")));
        let for_all = list(&[projector::Skip { projection: EVERY_READER.to_owned(), ..skip(None) }]);
        assert!(for_all.starts_with("every reader leaves out event 00000000-"), "{for_all}");
        assert_eq!(list(&[]), "no event is passed by\n");
    }

    #[test]
    fn shards_are_numbers_from_0_to_63() {
        assert!(shard("63").is_ok());
        for wrong in ["64", "-1", "x", ""] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}

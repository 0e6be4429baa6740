//! `agora events`

mod export;
mod histories;
mod new_history;
mod repair;
mod replay;
mod show;
pub(crate) mod shown;
mod skip;
mod tail;

use clap::{Args, Subcommand};
use events::{Position, catalogue::catalogue};

use crate::{config::Config, local, terminal::count};

/// Look at the event history, take it elsewhere, repair or leave out what nobody can read, or begin a new one after a
/// restore
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "clap takes the words of what is inside")]
pub enum Events {
    Tail(tail::Tail),
    Show(show::Show),
    Replay(replay::Replay),
    Export(export::Export),
    Repair(repair::Repair),
    Repairs(repair::Repairs),
    Skip(skip::Skip),
    NewHistory(new_history::NewHistory),
    Histories(histories::Histories),
    Catalogue(Catalogue),
}

/// Print every event there is, with the JSON Schema of its payload, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  agora events catalogue | jq -r '.[].name'")]
pub struct Catalogue {}

impl Catalogue {
    /// Prints it.
    ///
    /// # Errors
    /// Where nobody reads.
    pub fn run(self) -> anyhow::Result<()> {
        Ok(super::print(&format!("{}\n", serde_json::to_string_pretty(&catalogue())?))?)
    }
}

/// Says on stderr what of a history is not in what was made of it.
pub(super) fn say_left_out(events: u64) {
    let is = if events == 1 { "is" } else { "are" };
    if events > 0 {
        eprintln!("{} that nobody can read {is} left out: `agora projections skips` lists all such", count(events));
    }
}

impl Events {
    /// Does it, in the database that is configured, or that of the `agora up` that runs here.
    ///
    /// # Errors
    /// Where there is no database, an event in it cannot be read, or services would be taken by surprise.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        if let Self::Catalogue(catalogue) = self {
            return catalogue.run();
        }
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        super::block_on(async move {
            match self {
                Self::Catalogue(catalogue) => catalogue.run(),
                Self::Tail(tail) => tail.run(config).await,
                Self::Show(show) => show.run(config).await,
                Self::Replay(replay) => replay.run(config).await,
                Self::Repair(repair) => repair.run(config).await,
                Self::Repairs(repairs) => repairs.run(config).await,
                Self::Skip(skip) => skip.run(config).await,
                Self::NewHistory(new) => new.run(config).await,
                Self::Histories(histories) => histories.run(config).await,
                Self::Export(export) => {
                    super::until_told(Box::pin(export.run(config)), "the same command goes on").await
                }
            }
        })
    }
}

/// A position as a person writes it. Arguments that take one need `allow_negative_numbers`, or `-1` counts as a flag.
fn position(text: &str) -> Result<Position, &'static str> {
    let position = text.parse().map_err(|_| "a position is a whole number, such as 4711")?;
    if position < 0 { Err("positions begin at 1, and behind 0 is everything") } else { Ok(position) }
}

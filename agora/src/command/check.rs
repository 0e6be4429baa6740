//! `agora check`

use std::fmt::Write as _;

use anyhow::bail;
use clap::Args;
use projector::{
    check::{self, Checked},
    rebuild::{Comparison, Difference, Purpose, Rebuild, What},
};
use serde::Serialize;

use super::rebuild::{MOST_SHOWN, Shown, shown};
use crate::{
    config::Config,
    local,
    terminal::{Progress, Unit},
};

/// Look the whole history through: is everything as it was promised, whatever happened before?
#[derive(Debug, Args)]
#[command(after_help = "\
It reads every event, compares every count with its rows, and every row of the read tables with what the events make of
it anew, in a schema of its own that takes as much room as they do until the end. The system goes on meanwhile, and nothing of
it is changed. It fails where a promise is broken, or could not be looked at.

Examples:
  agora check
  agora check --json | jq '.promises[] | select(.broken != [])'")]
pub struct Check {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

/// What is asked of every row.
const ROWS: &str = "every row of the read tables is as the events make it";

/// What was found.
#[derive(Serialize)]
struct Found {
    promises: Vec<Checked>,
    /// Rows of the read tables that were compared; none where they could not be made anew.
    rows: Option<u64>,
    /// Those of them that differ: the first ones.
    differences: Vec<Difference>,
}

impl Check {
    /// Checks.
    ///
    /// # Errors
    /// Where a promise is broken, or there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        let found = super::block_on_until_told(look(&config), "nothing was changed")?;
        let said = if self.json { serde_json::to_string_pretty(&found)? + "\n" } else { said(&found)? };
        super::print(&said)?;
        let count = |which: fn(&Checked) -> bool| found.promises.iter().filter(|checked| which(checked)).count();
        match (count(|checked| !checked.broken.is_empty()), count(|checked| checked.unknown.is_some())) {
            (0, 0) => Ok(()),
            (0, unknown) => bail!("nothing was found broken, but {unknown} of the promises could not be looked at"),
            (1, _) => bail!("a promise is broken: docs/operations.md says what to do"),
            (broken, _) => bail!("{broken} promises are broken: docs/operations.md says what to do"),
        }
    }
}

async fn look(config: &Config) -> anyhow::Result<Found> {
    // First of all: whoever builds already is to be waited for, not to be told at the end.
    let rebuild = Rebuild::begin(&config.database, config.read_tables(), What::everything(Purpose::Look)).await;
    let rebuild = rebuild.inspect_err(|error| eprintln!("rows are not compared: {error:#}"));
    let store = super::history(config).await?;
    let progress = Progress::start("reading", store.head().await?.unsigned_abs(), Unit::Things("events"));
    let mut promises = check::store(&store, &|read| progress.add(read)).await?;
    drop(progress);
    promises.extend(check::counts(store.pool(), &super::read_tables(config).await?).await?);
    let compared = match rebuild {
        Ok(rebuild) => {
            let compared = rebuild.compare(MOST_SHOWN, &Shown::default()).await;
            rebuild.discard().await?;
            compared
        }
        Err(error) => Err(error),
    };
    Ok(match compared {
        Ok(Comparison { rows, differences, more }) => {
            let row = |difference: &Difference| shown(difference).trim_end().to_owned();
            promises.push(Checked { broken: differences.iter().map(row).collect(), more, ..Checked::new(ROWS) });
            Found { promises, rows: Some(rows), differences }
        }
        Err(error) => {
            promises.push(Checked::unknown(ROWS, format!("{error:#}")));
            Found { promises, rows: None, differences: vec![] }
        }
    })
}

fn said(found: &Found) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for Checked { promise, broken, more, passed_by, unknown } in &found.promises {
        let mark = match unknown {
            Some(_) => "?     ",
            None if broken.is_empty() => "ok    ",
            None => "BROKEN",
        };
        writeln!(text, "{mark}  {promise}")?;
        if let Some(why) = unknown {
            writeln!(text, "          could not be looked at: {why}")?;
        }
        for place in broken {
            writeln!(text, "          {}", place.replace('\n', "\n          "))?;
        }
        if *more {
            writeln!(text, "          and more")?;
        }
        if *passed_by > 0 {
            let places = if *passed_by == 1 { "1 post differs" } else { &*format!("{passed_by} posts differ") };
            writeln!(
                text,
                "          {places} for events that a projection passes by: `agora projections skips` says which"
            )?;
        }
    }
    Ok(text)
}

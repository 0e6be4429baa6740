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
it is changed. It fails where a promise is broken.

Examples:
  agora check
  agora check --json | jq '.promises[] | select(.broken != [])'")]
pub struct Check {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

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
        match found.promises.iter().filter(|checked| !checked.broken.is_empty()).count() {
            0 => Ok(()),
            1 => bail!("a promise is broken"),
            broken => bail!("{broken} promises are broken"),
        }
    }
}

async fn look(config: &Config) -> anyhow::Result<Found> {
    // First of all: whoever builds already is to be waited for, not to be told at the end.
    let rebuild = Rebuild::begin(&config.database, config.read_tables(), What::everything(Purpose::Look)).await?;
    let store = super::history(config).await?;
    let progress = Progress::start("reading", store.head().await?.unsigned_abs(), Unit::Things("events"));
    let mut promises = check::store(&store, &|read| progress.add(read)).await?;
    drop(progress);
    promises.extend(check::counts(rebuild.live()).await?);
    let compared = rebuild.compare(MOST_SHOWN, &Shown::default()).await;
    rebuild.discard().await?;
    let mut rows =
        Checked { promise: "every row of the read tables is as the events make it", broken: vec![], more: false };
    Ok(match compared {
        Ok(Comparison { rows: compared, differences, more }) => {
            let row = |difference: &Difference| shown(difference).trim_end().to_owned();
            (rows.broken, rows.more) = (differences.iter().map(row).collect(), more);
            promises.push(rows);
            Found { promises, rows: Some(compared), differences }
        }
        // That is a finding as well.
        Err(error) => {
            rows.broken.push(format!("{error:#}"));
            promises.push(rows);
            Found { promises, rows: None, differences: vec![] }
        }
    })
}

fn said(found: &Found) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for Checked { promise, broken, more } in &found.promises {
        let mark = if broken.is_empty() { "ok    " } else { "BROKEN" };
        writeln!(text, "{mark}  {promise}")?;
        for place in broken {
            writeln!(text, "          {}", place.replace('\n', "\n          "))?;
        }
        if *more {
            writeln!(text, "          and more")?;
        }
    }
    Ok(text)
}

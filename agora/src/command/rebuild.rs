//! `agora projections rebuild` and `agora projections verify`

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use anyhow::bail;
use clap::{Args, builder::PossibleValuesParser};
use events::Shard;
use indicatif::HumanDuration;
use projector::rebuild::{self, Comparison, Difference, Phase, Purpose, Watch, What};
use serde_json::Value;

use super::projections::shard;
use crate::{
    config::Config,
    local,
    terminal::{Progress, Unit, count},
};

/// Rows that are shown of those that differ.
pub(super) const MOST_SHOWN: usize = 10;
/// Characters of a value on a line.
const VALUE_CHARS: usize = 60;

/// Which read tables, and how to say what came of it.
#[derive(Debug, Args)]
pub struct Tables {
    /// Their projections, as `status` shows them
    #[arg(required_unless_present = "all", conflicts_with = "all", value_parser = PossibleValuesParser::new(projector::names()))]
    projections: Vec<String>,
    /// Those of all projections
    #[arg(long)]
    all: bool,
    /// Only what is of this shard, 0 to 63
    #[arg(long, value_name = "N", value_parser = shard)]
    shard: Option<Shard>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

impl Tables {
    /// Folds all events anew beside the live tables, and compares.
    ///
    /// # Errors
    /// Where rows differ, an event cannot be folded, or there is no database.
    pub fn verify(self, config: Config) -> anyhow::Result<()> {
        let json = self.json;
        let found = self.run(config, Purpose::Look, "the live tables are as they were", async |rebuild| {
            let found = rebuild.compare(MOST_SHOWN, &Shown::default()).await;
            rebuild.discard().await?;
            Ok(Some(found?))
        })?;
        super::print(&said(found.as_ref(), json)?)?;
        let Some(compared) = found.filter(|found| !found.differences.is_empty()) else { return Ok(()) };
        let mut names: Vec<&str> = compared.differences.iter().map(|row| row.projection).collect();
        names.dedup();
        let names = if compared.more { "--all".to_owned() } else { names.join(" ") };
        bail!("the read tables are not what the events say: `agora projections rebuild {names}` makes them anew")
    }

    /// The same, and puts the new rows in the place of the live ones.
    ///
    /// # Errors
    /// Where an event cannot be folded, a reader does not let go of a table, or there is no database.
    pub fn rebuild(self, config: Config) -> anyhow::Result<()> {
        let (json, part) = (self.json, self.shard.is_some());
        let began = Instant::now();
        let found =
            self.run(config, Purpose::Replace, "the same command goes on where it was", async move |rebuild| {
                let shown = Shown::default();
                if part {
                    return rebuild.repair(&shown).await.map(Some);
                }
                let found = rebuild.compare(MOST_SHOWN, &shown).await;
                // What cannot be compared, because it stopped, is what a rebuild is for.
                let found = found.inspect_err(|error| eprintln!("not compared: {error:#}")).ok();
                rebuild.swap(&shown).await?;
                Ok(found)
            })?;
        super::print(&said(found.as_ref(), json)?)?;
        if !json {
            let done = if part { "they are put right" } else { "the new tables are live" };
            super::print(&format!("{done}, after {}\n", HumanDuration(began.elapsed())))?;
        }
        Ok(())
    }

    fn run(
        self,
        config: Config,
        purpose: Purpose,
        then: &str,
        work: impl AsyncFnOnce(rebuild::Rebuild) -> anyhow::Result<Option<Comparison>>,
    ) -> anyhow::Result<Option<Comparison>> {
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        let mut what = What { shard: self.shard, ..What::everything(purpose) };
        if !self.all {
            what.projections = self.projections;
        }
        super::block_on_until_told(
            async { work(rebuild::Rebuild::begin(&config.database, config.read_tables(), what).await?).await },
            then,
        )
    }
}

/// A bar for each phase.
#[derive(Default)]
pub(super) struct Shown(Mutex<Option<Progress>>);

impl Watch for Shown {
    fn begins(&self, phase: Phase, todo: u64, done: u64) {
        let (name, things) = match phase {
            Phase::Folding => ("folding", "events"),
            Phase::Indexing => ("indexing", "indexes"),
            Phase::Comparing => ("comparing", "tables"),
            Phase::Swapping => ("catching up", "events"),
        };
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = shown.is_none();
        *shown = None;
        if first && done > 0 {
            eprintln!("going on behind {} events that were folded before", count(done));
        }
        *shown = Some(Progress::start(name, todo, Unit::Things(things)));
    }

    fn done(&self, more: u64) {
        if let Some(progress) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            progress.add(more);
        }
    }
}

/// What came of a comparison; none where the rows could not be compared.
fn said(found: Option<&Comparison>, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(&found)? + "\n");
    }
    let Some(found) = found else {
        return Ok("the rows were not compared with those before\n".to_owned());
    };
    let rows: String = found.differences.iter().map(shown).collect();
    let differ = match (found.differences.len(), found.more) {
        (0, _) => "all are as the events make them".to_owned(),
        (many, true) => format!("these {many} and more differ"),
        (many, false) => format!("{many} differ"),
    };
    Ok(format!("{rows}{} rows compared: {differ}\n", count(found.rows)))
}

/// A row that differs, in words, and an empty line.
pub(crate) fn shown(difference: &Difference) -> String {
    let Difference { projection, table, key, columns, events } = difference;
    let key: Vec<String> = key.iter().map(|(column, value)| format!("{column} {}", short(value))).collect();
    let mut text = format!("{projection}: {table} {}\n", key.join(", "));
    if columns.values().all(|(live, _)| live.is_none()) {
        text += "  is missing\n";
    } else if columns.values().all(|(_, rebuilt)| rebuilt.is_none()) {
        text += "  should not be there\n";
    } else {
        for (column, (live, rebuilt)) in columns {
            let [live, rebuilt] = [live, rebuilt].map(|value| value.as_ref().map_or_else(|| "-".to_owned(), short));
            let _ = writeln!(text, "  {column} is {live}, should be {rebuilt}");
        }
    }
    for event in events {
        let _ = writeln!(text, "  touched at position {} by {} {}", event.position, event.name, event.event_id);
    }
    text + "\n"
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_CHARS {
        return text;
    }
    text.chars().take(VALUE_CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_were_not_compared_are_not_said_to_be_right() {
        let none = Comparison::default();
        assert_eq!(said(Some(&none), false).expect("words"), "0 rows compared: all are as the events make them\n");
        assert_eq!(said(None, false).expect("words"), "the rows were not compared with those before\n");
        assert_eq!(said(None, true).expect("JSON"), "null\n");
    }
}

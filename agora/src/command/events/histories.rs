//! `agora events histories`

use std::fmt::Write as _;

use chrono::SecondsFormat;
use clap::Args;
use projector::history::{self, Begun};

use crate::{command, config::Config, terminal::count};

/// List the histories that took the place of another: since when, why, and who said so
#[derive(Debug, Args)]
pub struct Histories {
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

impl Histories {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let histories = history::all(&command::store(&config).await?).await?;
        let text = if self.json { serde_json::to_string_pretty(&histories)? + "\n" } else { list(&histories) };
        Ok(command::print(&text)?)
    }
}

/// Two lines each: a reason may be long.
fn list(histories: &[Begun]) -> String {
    if histories.is_empty() {
        return "this store has the history that it began with\n".to_owned();
    }
    let mut text = String::new();
    for Begun { history, position, reason, by, at, .. } in histories {
        let (position, at) = (count(position.unsigned_abs()), at.to_rfc3339_opts(SecondsFormat::Secs, true));
        let _ = writeln!(text, "{history} began at {at} behind position {position}, said {by}:\n  {reason}");
    }
    text
}

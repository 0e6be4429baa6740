//! `agora events export`

use anyhow::Context as _;
use clap::Args;
use events::Position;

use super::position;
use crate::{
    command,
    config::Config,
    history::export::{Exported, SEGMENT_BYTES, Target, export},
    terminal::count,
};

/// Write the event history as Parquet files, and add to them what came since the last time
///
/// Files are `month=2025-01/type=post.written/….parquet`: the month in which an event was recorded (UTC), and its name.
/// All have the same columns; `payload` is JSON, in its newest version. `_manifest.json` says up to which position they
/// reach. The same range gives the same bytes. A run that was interrupted is ended by the next one; let one run at a time.
/// In front of an event that nobody can read it ends, and the next run begins there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events export --to history
  duckdb -c \"select month, type, count(*) from 'history/*/*/*.parquet' group by all order by all\"
  duckdb -c \"select payload->>'$.title' from 'history/*/type=thread.started/*.parquet' limit 5\"
  AWS_REGION=eu-central-1 agora events export --to s3://my-bucket/agora

S3 is reached as the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT … say.")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Export {
    /// A directory, or s3://bucket/prefix
    #[arg(long, value_name = "DIR_OR_URL")]
    to: String,
    /// End with this position [default: that of the last event there is now]
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    through: Option<Position>,
}

impl Export {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::history(&config).await?;
        let target = Target::parse(&self.to).context("--to")?;
        let Exported { events, files, left_out, through, ended_first, stopped } =
            export(&store, &target, self.through, SEGMENT_BYTES).await?;
        let to = &self.to;
        if let Some(end) = ended_first {
            eprintln!("a run that was interrupted may have written files up to position {end}: it was ended first");
        }
        let (events, files) = (count(events), count(files));
        super::say_left_out(left_out);
        command::print(&format!("{events} events in {files} new files: {to} reaches up to position {through}\n"))?;
        stopped.map_or(Ok(()), |unreadable| Err(unreadable.into()))
    }
}

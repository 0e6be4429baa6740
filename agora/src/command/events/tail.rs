//! `agora events tail`

use std::time::Duration;

use clap::Args;
use events::Position;
use store_reader::StoreReader;

use super::{
    position,
    shown::{as_json, as_line},
};
use crate::{command, config::Config, history::no_later};

/// Events read at once.
const BATCH: u32 = 1_000;
/// Events shown where it is not said from where.
const LAST: Position = 10;
/// How often a follower looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Print events in order, the last ones by default
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events tail --follow
  agora events tail --from 0 --json > history.jsonl")]
pub struct Tail {
    /// Begin behind this position; 0 for everything
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    from: Option<Position>,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line, whole
    #[arg(long)]
    json: bool,
}

impl Tail {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::store(&config).await?;
        let reader = StoreReader::new(store);
        let head = reader.head().await?;
        let mut position = self.from.unwrap_or(head - LAST);
        no_later("--from", position, head)?;
        loop {
            let read = reader.after(position, BATCH).await?;
            let mut text = String::new();
            for event in read.events {
                let event = match event {
                    Ok(event) => event,
                    Err(left_out) if reader.is_left_out(left_out.event_id).await? => {
                        position = left_out.position;
                        continue;
                    }
                    Err(unreadable) => {
                        command::print(&text)?;
                        return Err(unreadable.into());
                    }
                };
                position = event.position;
                text += &if self.json { as_json(&event)?.to_string() } else { as_line(&event) };
                text.push('\n');
            }
            command::print(&text)?;
            if read.more {
                continue;
            }
            if !self.follow {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

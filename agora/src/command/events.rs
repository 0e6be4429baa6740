//! `agora events`

use std::time::Duration;

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use events::{Envelope, Position, catalogue::catalogue};
use projector::StoreReader;
use serde_json::{Value, json};
use sqlx::Row as _;

use crate::{config::Config, local};

/// Events read at once.
const BATCH: u32 = 1_000;
/// Events shown where it is not said from where.
const LAST: Position = 10;
/// How often a follower looks for more.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Characters of a payload on a line.
const PAYLOAD_CHARS: usize = 100;

/// Look at the event history
#[derive(Debug, Subcommand)]
#[allow(missing_docs, reason = "clap takes the words of what is inside")]
pub enum Events {
    Tail(Tail),
    Catalogue(Catalogue),
}

/// Print events in order, the last ones by default
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events tail --follow
  agora events tail --from 0 --json > history.jsonl")]
pub struct Tail {
    /// Begin behind this position; 0 for everything
    #[arg(long, value_name = "POSITION")]
    from: Option<Position>,
    /// Go on with what comes
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line, whole
    #[arg(long)]
    json: bool,
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

impl Events {
    /// Prints them.
    ///
    /// # Errors
    /// Where there is no database, or an event in it that cannot be read.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        match self {
            Self::Catalogue(catalogue) => catalogue.run(),
            Self::Tail(tail) => {
                let config = local::with_database(config)?;
                let _telemetry = super::quiet_logs(&config)?;
                super::block_on(tail.run(config))
            }
        }
    }
}

impl Tail {
    async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = super::store(&config).await?;
        let mut position = match self.from {
            Some(position) => position,
            None => sqlx::query("select position from store_head").fetch_one(&store).await?.get::<i64, _>(0) - LAST,
        };
        let reader = StoreReader::new(store);
        loop {
            let read = reader.after(position, BATCH).await?;
            let mut text = String::new();
            for event in read.events {
                let event = event.map_err(|unreadable| anyhow::anyhow!("{unreadable}"))?;
                position = event.position;
                text += &if self.json { as_json(&event)?.to_string() } else { as_line(&event) };
                text.push('\n');
            }
            super::print(&text)?;
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

/// `       42 2025-01-01T00:00:00.000Z thread.locked  thread/018f…  {"reason":"…"}`
fn as_line(event: &Envelope) -> String {
    let at = event.occurred_at().to_rfc3339_opts(SecondsFormat::Millis, true);
    let payload = event.payload.get();
    let shown: String = payload.chars().take(PAYLOAD_CHARS).collect();
    let rest = if shown.len() < payload.len() { "…" } else { "" };
    format!("{:>9} {at} {:26} {} {shown}{rest}", event.position, event.name, event.stream)
}

/// Every field of the envelope, the payload as it is.
fn as_json(event: &Envelope) -> anyhow::Result<Value> {
    let metadata = serde_json::to_value(&event.metadata)?;
    Ok(json!({
        "position": event.position,
        "shard": event.shard,
        "event_id": event.event_id,
        "event_type": event.name,
        "event_version": event.version,
        "stream": event.stream.to_string(),
        "sequence": event.sequence,
        "community_id": event.community,
        "recorded_at": event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "metadata": metadata,
        "payload": serde_json::from_str::<Value>(event.payload.get())?,
    }))
}

#[cfg(test)]
mod tests {
    use events::{AccountId, EventId, Metadata, Shard, Stream, ThreadId};
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;

    fn event() -> Envelope {
        let payload = to_raw_value(&json!({"reason": "x".repeat(200)})).expect("JSON");
        let metadata = Metadata {
            actor: Some(AccountId::new()),
            correlation_id: Uuid::nil(),
            causation_id: None,
            traceparent: None,
            occurred_at: Some("2011-08-17T20:18:56.507Z".parse().expect("a time")),
        };
        Envelope {
            event_id: EventId::new(),
            stream: Stream::thread(ThreadId::new()),
            sequence: 2,
            position: 42,
            shard: Shard::try_from(3_u8).expect("a shard"),
            community: None,
            name: "thread.locked".into(),
            version: 1,
            recorded_at: "2025-01-01T00:00:00Z".parse().expect("a time"),
            metadata,
            payload,
        }
    }

    #[test]
    fn a_line_is_short() {
        let line = as_line(&event());
        assert!(line.starts_with("       42 2011-08-17T20:18:56.507Z thread.locked "), "{line}");
        assert!(line.ends_with('…') && line.chars().count() < 230, "{line}");
    }

    #[test]
    fn json_is_whole() {
        let event = event();
        let json = as_json(&event).expect("JSON");
        assert_eq!(json["event_type"], "thread.locked");
        assert_eq!(json["payload"]["reason"].as_str().map(str::len), Some(200));
        assert_eq!(json["metadata"]["occurred_at"], "2011-08-17T20:18:56.507Z");
        assert_eq!(json["shard"], 3);
    }
}

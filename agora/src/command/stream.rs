//! `agora stream`

mod named;
mod settings;

use std::fmt::Write as _;

use clap::Args;
use events::Delivered;
use store_reader::{Copy, CopyError, StoreReader};

use self::{named::Aggregate, settings::Settings};
use super::{
    events::shown::{as_json, fields, payload, time, unreadable},
    names::Names,
};
use crate::{config::Config, local};

/// Events that are printed at a time.
const BATCH: usize = 1_000;

/// Print one stream: each event of a thread, a post, an account …, and what it changed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora stream thread 0191e2b8-7c00-7000-8000-000000000001
  agora stream account ada
  agora stream community tea
  agora stream membership tea.ada
  agora stream reaction <post's id>.ada --json")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Stream {
    /// Whose events
    #[arg(value_name = "TYPE")]
    aggregate: Aggregate,
    /// Its id, an account's username or a community's slug; of what belongs to two things both, with a dot between them
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object a line, whole
    #[arg(long)]
    json: bool,
}

impl Stream {
    /// Prints it.
    ///
    /// # Errors
    /// Where there is no such stream, or an event in it cannot be read.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        super::block_on(async move {
            let store = super::history(&config).await?;
            let stream = self.aggregate.stream(store.pool(), &self.id).await?;
            let mut copy = store.copy_stream(&stream).await?;
            let (mut first, mut settings) = (true, Settings::default());
            loop {
                let (events, outcome) = batch(&store, &mut copy).await;
                if events.is_empty() {
                    outcome?;
                    anyhow::ensure!(!first, "there is no stream {stream}");
                    return Ok(());
                }
                let actors = events.iter().filter_map(|event| event.envelope.metadata.actor);
                let names = Names::of(store.pool(), actors).await?;
                let mut text = String::new();
                for event in &events {
                    text += &if self.json {
                        as_json(&event.envelope)?.to_string() + "\n"
                    } else {
                        shown(event, &names, &mut settings)
                    };
                }
                super::print(&text)?;
                first = false;
                outcome?;
            }
        })
    }
}

/// The next events, and what stopped them from being more than that.
async fn batch(store: &StoreReader, copy: &mut Copy) -> (Vec<Delivered>, anyhow::Result<()>) {
    let mut events = Vec::new();
    while events.len() < BATCH {
        match copy.next().await {
            Ok(Some(event)) => events.push(event),
            Ok(None) => break,
            Err(CopyError::Unreadable(met)) => match store.is_left_out(met.event_id).await {
                Ok(true) => {}
                Ok(false) => return (events, Err(met.into())),
                Err(error) => return (events, Err(error.into())),
            },
            Err(error) => return (events, Err(error.into())),
        }
    }
    (events, Ok(()))
}

/// A heading, a word where it cannot be read, and a line for each field.
fn shown(event: &Delivered, names: &Names, settings: &mut Settings) -> String {
    let it = &event.envelope;
    let by = it.metadata.actor.map_or_else(|| "nobody".to_owned(), |actor| names.short(actor));
    let mut head = format!("{:4}  {}  {} by {by}  ({})\n", it.sequence, time(it.occurred_at()), it.name, it.event_id);
    if let Some(why) = unreadable(it) {
        let _ = writeln!(head, "      ({why})");
    }
    let payload = payload(it.payload.get());
    head + &fields(&payload, &settings.change(&it.stream.aggregate, &payload), 6)
}

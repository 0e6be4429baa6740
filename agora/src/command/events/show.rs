//! `agora events show`

use std::fmt::Write as _;

use anyhow::Context as _;
use clap::Args;
use events::{Delivered, EventId, Position, upcast::Newest};
use serde_json::{Value, json};
use store_reader::{CopyError, StoreReader, Unreadable};

use super::{
    position,
    shown::{as_json, payload, time},
};
use crate::{
    command::{self, names::Names},
    config::Config,
};

/// Print one event: what it travels in, its payload, and its payload in the newest version where that is another
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events show 0191e2b8-7c00-7000-8000-000000000001
  agora events show 4711 --json | jq .payload")]
pub struct Show {
    /// The event's id, or its position
    #[arg(value_name = "ID_OR_POSITION", value_parser = Named::parse, allow_negative_numbers = true)]
    event: Named,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// How a person names an event.
#[derive(Clone, Copy, Debug)]
enum Named {
    Id(EventId),
    Position(Position),
}

impl Named {
    fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<Position>().is_ok() {
            return Ok(Self::Position(position(text)?));
        }
        let neither = |_| {
            "it is neither an event's id, such as 0191e2b8-7c00-7000-8000-000000000001, nor a position, \
                           such as 4711"
        };
        Ok(Self::Id(text.parse().map_err(neither)?))
    }

    async fn look_up(self, store: &StoreReader) -> anyhow::Result<EventId> {
        let position = match self {
            Self::Id(id) => return Ok(id),
            Self::Position(position) => position,
        };
        let found = store.find(&[position]).await?.remove(&position);
        let head = store.head().await?;
        found.with_context(|| format!("there is no event at position {position}: they are at 1 to {head}"))
    }
}

impl Show {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = command::history(&config).await?;
        let id = self.event.look_up(&store).await?;
        let mut found = store.copy_event(id).await?;
        let (event, end) = (found.next().await, found.next().await?);
        // Read to its end, or the connection would not be fit for the next statement.
        debug_assert!(end.is_none(), "an event's id is its own");
        drop(found);
        let event = match event {
            Err(CopyError::Unreadable(unreadable)) => return as_it_is(&store, unreadable).await,
            event => event?,
        };
        let event = event.with_context(|| format!("there is no event {id}"))?;
        // One that nobody can read is shown too, as far as it can be, and then said to be so.
        let newest = event.envelope.newest();
        let differs = newest.as_deref().unwrap_or(&[]);
        let differs = if is_as_stored(&event, differs) { &[] } else { differs };
        let text = if self.json {
            as_object(&event, differs)?
        } else {
            let names = Names::of(store.pool(), event.envelope.metadata.actor.into_iter()).await?;
            as_page(&event, differs, &names)?
        };
        command::print(&text)?;
        say_what_was_decided(&store, id).await?;
        newest.map(drop).map_err(|why| cannot_be_read(why.into()))
    }
}

/// A row that says something else than every row says.
async fn as_it_is(store: &StoreReader, unreadable: Unreadable) -> anyhow::Result<()> {
    let row = sqlx::query_scalar("select row_to_json(e)::text from events e where event_id = $1");
    let row: String = row.bind(unreadable.event_id.0).fetch_one(store.pool()).await?;
    // As every other event, where it is JSON for others than Postgres.
    let row = serde_json::from_str(&row).and_then(|row: Value| serde_json::to_string_pretty(&row)).unwrap_or(row);
    command::print(&(row + "\n"))?;
    say_what_was_decided(store, unreadable.event_id).await?;
    Err(cannot_be_read(anyhow::anyhow!(unreadable.reason)))
}

/// What operators have decided of it.
async fn say_what_was_decided(store: &StoreReader, event: EventId) -> anyhow::Result<()> {
    if projector::was_repaired(store.pool(), event).await? {
        eprintln!("this event was repaired: `agora events repairs` says why and by whom");
    }
    if store.is_left_out(event).await? {
        eprintln!("every reader leaves this event out: `agora projections skips` says why");
    }
    Ok(())
}

fn cannot_be_read(why: anyhow::Error) -> anyhow::Error {
    why.context("this event cannot be read")
}

fn is_as_stored(event: &Delivered, newest: &[Newest<'_>]) -> bool {
    matches!(newest, [one] if one.name == event.envelope.name && one.version == event.envelope.version)
}

fn as_object(event: &Delivered, newest: &[Newest<'_>]) -> anyhow::Result<String> {
    let mut object = as_json(&event.envelope)?;
    object["previous"] = event.previous.into();
    object["history"] = event.history.to_string().into();
    if !newest.is_empty() {
        let shown = newest.iter().map(|it| {
            let payload: Value = serde_json::from_str(it.payload.get())?;
            Ok(json!({"event_type": it.name, "event_version": it.version, "payload": payload}))
        });
        object["newest"] = shown.collect::<anyhow::Result<Value>>()?;
    }
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}

fn as_page(event: &Delivered, newest: &[Newest<'_>], names: &Names) -> anyhow::Result<String> {
    let Delivered { envelope: it, previous, history } = event;
    let metadata = &it.metadata;
    let mut text = format!("{} version {}\n\n", it.name, it.version);
    let mut line = |name: &str, value: &str| _ = writeln!(text, "  {name:13}{value}");
    line("event", &it.event_id.to_string());
    line("stream", &format!("{}, its event {}", it.stream, it.sequence));
    if let Some(community) = it.community {
        line("community", &community.to_string());
    }
    if let Some(actor) = metadata.actor {
        line("actor", &names.with_id(actor));
    }
    if let Some(at) = metadata.occurred_at {
        line("happened", &time(at));
    }
    line("recorded", &time(it.recorded_at));
    line("position", &format!("{} in history {history}", it.position));
    line("shard", &format!("{}, after position {previous}", it.shard));
    line("correlation", &metadata.correlation_id.to_string());
    if let Some(cause) = metadata.causation_id {
        line("caused by", &cause.to_string());
    }
    if let Some(trace) = &metadata.traceparent {
        line("trace", trace);
    }
    text += &pretty(it.payload.get())?;
    for newest in newest {
        let _ = write!(text, "\nread as {} version {}\n{}", newest.name, newest.version, pretty(newest.payload.get())?);
    }
    Ok(text)
}

fn pretty(stored: &str) -> anyhow::Result<String> {
    Ok(format!("\n{}\n", serde_json::to_string_pretty(&payload(stored))?))
}

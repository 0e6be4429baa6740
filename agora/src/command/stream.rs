//! `agora stream`

use anyhow::bail;
use clap::{Args, ValueEnum};
use events::Delivered;
use store_reader::{Copy, CopyError, StoreReader};
use uuid::Uuid;

use super::{
    events::shown::{as_json, fields, time},
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
  agora stream membership <community's id>.<account's id>
  agora stream reaction <post's id>.<account's id> --json")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Stream {
    /// Whose events
    #[arg(value_name = "TYPE")]
    aggregate: Aggregate,
    /// Its id; of what belongs to two things both of theirs, with a dot between them
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object a line, whole
    #[arg(long)]
    json: bool,
}

/// The types of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Aggregate {
    Account,
    #[value(name = "category_tree")]
    CategoryTree,
    Community,
    Membership,
    Post,
    Reaction,
    Thread,
}

impl Stream {
    /// Prints it.
    ///
    /// # Errors
    /// Where there is no such stream, or an event in it cannot be read.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let stream = self.aggregate.stream(&self.id)?;
        let config = local::with_database(config)?;
        let _telemetry = super::quiet_logs(&config)?;
        super::block_on(async move {
            let store = super::history(&config).await?;
            let mut copy = store.copy_stream(&stream).await?;
            let mut first = true;
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
                    text +=
                        &if self.json { as_json(&event.envelope)?.to_string() + "\n" } else { shown(event, &names) };
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

/// A heading, and a line for each field.
fn shown(event: &Delivered, names: &Names) -> String {
    let it = &event.envelope;
    let by = it.metadata.actor.map_or_else(|| "nobody".to_owned(), |actor| names.short(actor));
    let head = format!("{:4}  {}  {} by {by}  ({})\n", it.sequence, time(it.occurred_at()), it.name, it.event_id);
    head + &fields(it.payload.get(), 6)
}

impl Aggregate {
    /// The stream of that id.
    fn stream(self, id: &str) -> anyhow::Result<events::Stream> {
        let is_id = |text: &str| text.parse::<Uuid>().is_ok();
        let (wanted, right) = match self {
            Self::Membership => {
                ("<community's id>.<account's id>", id.split_once('.').is_some_and(|(a, b)| is_id(a) && is_id(b)))
            }
            // What a post was imported with has a stream beside those of its readers.
            Self::Reaction => (
                "<post's id>.<account's id>, or <post's id>.imported",
                id.split_once('.').is_some_and(|(a, b)| is_id(a) && (is_id(b) || b == "imported")),
            ),
            _ => ("an id such as 0191e2b8-7c00-7000-8000-000000000001", is_id(id)),
        };
        let name = self.to_possible_value().expect("none is hidden");
        if !right {
            bail!("`{id}` is no id of a {}: it is {wanted}", name.get_name());
        }
        // As ids are stored.
        Ok(events::Stream { aggregate: name.get_name().to_owned(), id: id.to_lowercase() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0191E2B8-7C00-7000-8000-000000000001";

    #[test]
    fn ids_are_checked() {
        let of = |aggregate: Aggregate, id: &str| {
            aggregate.stream(id).map(|stream| stream.to_string()).map_err(|error| error.to_string())
        };
        let lower = ID.to_lowercase();
        assert_eq!(of(Aggregate::Thread, ID), Ok(format!("thread/{lower}")));
        assert_eq!(of(Aggregate::CategoryTree, ID), Ok(format!("category_tree/{lower}")));
        assert_eq!(of(Aggregate::Reaction, &format!("{ID}.imported")), Ok(format!("reaction/{lower}.imported")));
        assert!(of(Aggregate::Membership, &format!("{ID}.{ID}")).is_ok());
        for (aggregate, wrong) in
            [(Aggregate::Thread, "tea"), (Aggregate::Membership, ID), (Aggregate::Reaction, &format!("{ID}.x"))]
        {
            assert!(of(aggregate, wrong).is_err_and(|said| said.contains("is no id of a ")), "{wrong}");
        }
    }
}

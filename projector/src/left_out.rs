//! Leaves an event that nobody can read out for every reader, with what rests on it: on record, and for good.

use std::{collections::HashSet, time::Duration};

use events::{CommunityId, DecodeError, Envelope, EventId, Position, Stream};
use platform::instances::{self, Instance};
use serde_json::Value;
use store_reader::{CopyError, EVERY_READER, StoreReader, Unreadable};

use crate::{check::place, skip};

/// What begins the reason of each event that is left out with another, whose id follows.
pub const RESTS_ON: &str = "rests on event ";
/// Events of a shard that are looked at together.
const BATCH: u32 = 2_000;
/// Within this, command-services have forgotten what they folded of an event that was left out: they look every 5 s.
const FORGOTTEN_WITHIN: Duration = Duration::from_secs(7);
/// Things that have a stream, and rows that other events change.
const BEGIN_ROWS: [&str; 4] = ["account", "community", "thread", "post"];

/// What is to be left out.
#[derive(Clone, Copy, Debug)]
pub struct LeaveOut<'a> {
    /// The event.
    pub event: EventId,
    /// Why it is right to.
    pub reason: &'a str,
    /// Who says so.
    pub by: &'a str,
    /// Also where a newer release wrote it.
    pub unknown: bool,
    /// Also with the events that rest on it.
    pub with_rest: bool,
}

/// What became of it.
#[derive(Debug)]
pub struct LeftOut {
    /// Where the event stands.
    pub position: Position,
    /// Why it cannot be read.
    pub why: String,
    /// Events that were left out with it.
    pub rest: usize,
    /// It was left out before, and what was said then stands.
    pub before: bool,
}

/// Why an event is not left out for every reader.
#[derive(Debug, thiserror::Error)]
pub enum NotLeftOut {
    /// It is not in the store.
    #[error("there is no event {0}")]
    NoSuchEvent(EventId),
    /// Nothing that was said is hidden in this way.
    #[error(
        "event {event_id} can be read: it is {what}, at position {position}. What it says is history, and stays; a later \
         event says otherwise (an edit, a lift of the ban, a restored post). Where a projection cannot fold it: `agora \
         projections skip`"
    )]
    Readable {
        /// The event.
        event_id: EventId,
        /// Its name and version.
        what: String,
        /// Its place in the store.
        position: Position,
    },
    /// Another release reads it.
    #[error(
        "event {event_id} is {what}, which this release does not know, but {by} does, and it runs: upgrade the others"
    )]
    ReadableElsewhere {
        /// The event.
        event_id: EventId,
        /// Its name and version.
        what: String,
        /// Who reads it.
        by: String,
    },
    /// Another release is likely to.
    #[error(
        "event {event_id} is {what}, which this release does not know: a newer one wrote it. Run that, and nothing is lost. \
         Where no release ever reads it, say so too: --unknown"
    )]
    Newer {
        /// The event.
        event_id: EventId,
        /// Its name and version.
        what: String,
    },
    /// Projections would stop at each of them.
    #[error(
        "event {event_id} begins {stream}, and {rest} later events rest on that, the first of them at position {first}: \
         projections would stop at each. What it said is better put back from a backup or an export. To leave those out as \
         well: --with-rest"
    )]
    OthersRest {
        /// The event.
        event_id: EventId,
        /// What it begins.
        stream: Stream,
        /// How many.
        rest: usize,
        /// Where the first of them stands.
        first: Position,
    },
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Leaves an event that this release cannot read out for every reader, on record. Projections that stand at it go on within
/// two seconds; whoever else meets it passes it by.
///
/// # Errors
/// [`NotLeftOut`].
pub async fn leave_out(store: &StoreReader, what: LeaveOut<'_>) -> Result<LeftOut, NotLeftOut> {
    let unreadable = whats_wrong(store, what).await?;
    let rest = rest(store, &unreadable).await?;
    if let Some((_, first)) = rest.first().filter(|_| !what.with_rest) {
        let Unreadable { event_id, stream, .. } = unreadable;
        return Err(NotLeftOut::OthersRest { event_id, stream, rest: rest.len(), first: *first });
    }
    let before = record(store, what, unreadable.position, &rest).await? == 0;
    let rest = if begins_rows(&unreadable) { and_what_came(store, what, &unreadable).await? } else { 0 };
    Ok(LeftOut { position: unreadable.position, why: unreadable.reason, rest, before })
}

/// Until commands have forgotten what they know, events may come that rest on it: these, too, then. Answers how many there
/// are in all.
async fn and_what_came(store: &StoreReader, what: LeaveOut<'_>, begins: &Unreadable) -> sqlx::Result<usize> {
    tokio::time::sleep(FORGOTTEN_WITHIN).await;
    let rest = rest(store, begins).await?;
    record(store, what, begins.position, &rest).await?;
    Ok(rest.len())
}

/// Whether it begins a thing that has rows.
fn begins_rows(event: &Unreadable) -> bool {
    event.sequence == 1 && BEGIN_ROWS.contains(&&*event.stream.aggregate)
}

/// Why nobody can read it: neither this release, nor another that runs.
async fn whats_wrong(store: &StoreReader, what: LeaveOut<'_>) -> Result<Unreadable, NotLeftOut> {
    let mut copy = store.copy_event(what.event).await?;
    let found = copy.next().await;
    // To its end, which gives the connection back.
    while let Ok(Some(_)) = copy.next().await {}
    let envelope = match found {
        Ok(None) => return Err(NotLeftOut::NoSuchEvent(what.event)),
        Ok(Some(delivered)) => delivered.envelope,
        Err(CopyError::Unreadable(unreadable)) => return Ok(unreadable),
        Err(CopyError::Database(error)) => return Err(error.into()),
    };
    let (event_id, position) = (envelope.event_id, envelope.position);
    let named = events::catalogue::words(&envelope.name, envelope.version);
    let Err(error) = envelope.decode() else {
        return Err(NotLeftOut::Readable { event_id, what: named, position });
    };
    if matches!(error, DecodeError::Unknown { .. }) {
        let knows = |other: &&Instance| other.reads.contains(&named);
        if let Some(other) = instances::running(store.pool()).await?.iter().find(knows) {
            return Err(NotLeftOut::ReadableElsewhere { event_id, what: named, by: other.words() });
        }
        if !what.unknown {
            return Err(NotLeftOut::Newer { event_id, what: named });
        }
    }
    Ok(Unreadable::of(&envelope, error))
}

/// The events that rest on one which begins a thing: those of its stream, those that name it, and what rests on these.
async fn rest(store: &StoreReader, begins: &Unreadable) -> sqlx::Result<Vec<(EventId, Position)>> {
    if !begins_rows(begins) {
        return Ok(Vec::new());
    }
    let mut gone = Gone::with(&begins.stream);
    let (mut rest, mut position) = (Vec::new(), begins.position);
    loop {
        let read = store.by_shard(&[(begins.shard, position + 1)], BATCH).await?;
        let Some(last) = read.events.last().map(place) else { return Ok(rest) };
        let those = read.events.into_iter().filter(|event| gone.takes(event));
        rest.extend(those.map(|event| match event {
            Ok(Envelope { event_id, position, .. }) | Err(Unreadable { event_id, position, .. }) => {
                (event_id, position)
            }
        }));
        position = last;
    }
}

/// Things whose beginning is left out.
struct Gone {
    ids: HashSet<String>,
    community: Option<CommunityId>,
}

impl Gone {
    fn with(stream: &Stream) -> Self {
        let community = stream.uuid().ok().filter(|_| stream.aggregate == "community").map(CommunityId);
        Self { ids: HashSet::from([stream.id.clone()]), community }
    }

    /// Whether an event rests on one of them; what it begins is gone, too, then.
    fn takes(&mut self, event: &Result<Envelope, Unreadable>) -> bool {
        let (stream, sequence) = match event {
            Ok(Envelope { stream, sequence, .. }) | Err(Unreadable { stream, sequence, .. }) => (stream, *sequence),
        };
        let of_it = stream.id.split('.').any(|id| self.ids.contains(id));
        let takes = of_it || event.as_ref().is_ok_and(|event| self.is_community(event) || self.is_named_by(event));
        if takes && sequence == 1 && BEGIN_ROWS.contains(&&*stream.aggregate) {
            self.ids.insert(stream.id.clone());
        }
        takes
    }

    fn is_community(&self, event: &Envelope) -> bool {
        self.community.is_some() && event.community == self.community
    }

    fn is_named_by(&self, event: &Envelope) -> bool {
        serde_json::from_str(event.payload.get()).is_ok_and(|payload: Value| self.names(&payload))
    }

    fn names(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.ids.contains(text),
            Value::Array(values) => values.iter().any(|value| self.names(value)),
            Value::Object(fields) => fields.values().any(|value| self.names(value)),
            _ => false,
        }
    }
}

/// Answers how many were not on record yet.
async fn record(
    store: &StoreReader,
    what: LeaveOut<'_>,
    position: Position,
    rest: &[(EventId, Position)],
) -> sqlx::Result<u64> {
    let rests = format!("{RESTS_ON}{}", what.event);
    let rest = rest.iter().map(|(event, position)| (*event, *position, &*rests));
    let events: Vec<_> = rest.chain([(what.event, position, what.reason)]).collect();
    skip::record(store.pool(), EVERY_READER, &events, what.by).await
}

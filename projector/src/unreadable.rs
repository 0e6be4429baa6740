//! An event that nobody can read, and why what is asked for is not done about it.

use events::{Delivered, EventId, Position, Stream, catalogue};
use platform::instances::{self, Instance};
use store_reader::{CopyError, StoreReader, Unreadable};

/// Things that have a stream, and rows that events of other streams change; and what begins each.
const BEGINNINGS: [(&str, &[&str]); 4] = [
    ("account", &["account.registered", "account.imported"]),
    ("community", &["community.created"]),
    ("thread", &["thread.started"]),
    ("post", &["post.written"]),
];

/// Why an event stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is not in the store.
    #[error("there is no event {0}")]
    NoSuchEvent(EventId),
    /// Nothing that was said is hidden or said otherwise in this way.
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
         Where no release ever reads it, say so: --unknown"
    )]
    Newer {
        /// The event.
        event_id: EventId,
        /// Its name and version.
        what: String,
    },
    /// Events of other streams rest on it.
    #[error(
        "event {event_id} begins {stream}, and what came after rests on that: it is not left out. Put back what it said, or \
         the next best that can be read: `agora events repair`. What is not to be seen is deleted then, as any other"
    )]
    Begins {
        /// The event.
        event_id: EventId,
        /// What it begins.
        stream: Stream,
    },
    /// It would be no better than before.
    #[error("event {event_id}, at position {position}, cannot be read with that either: {reason}")]
    StillUnreadable {
        /// The event.
        event_id: EventId,
        /// Its place in the store.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// It would break what holds.
    #[error("event {event_id}, at position {position}, is not repaired with that, which breaks what holds: {breaks}")]
    Breaks {
        /// The event.
        event_id: EventId,
        /// Its place in the store.
        position: Position,
        /// Which promises of `agora check`, and where.
        breaks: String,
    },
    /// That is for good.
    #[error("event {0} is left out for every reader, for good: `agora projections skips` says why")]
    LeftOut(EventId),
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// It could not be looked at.
    #[error(transparent)]
    Unknown(#[from] anyhow::Error),
}

/// Why nobody can read an event: neither this release, nor another that runs, nor, unless `unknown` says that none ever
/// does, a newer one.
pub(crate) async fn whats_wrong(store: &StoreReader, event: EventId, unknown: bool) -> Result<Unreadable, Refused> {
    let mut copy = store.copy_event(event).await?;
    let found = copy.next().await;
    // To its end, which gives the connection back.
    while let Ok(Some(_)) = copy.next().await {}
    let unreadable = match found {
        Ok(None) => return Err(Refused::NoSuchEvent(event)),
        Ok(Some(Delivered { envelope, .. })) => match envelope.decode() {
            Ok(_) => {
                let what = catalogue::words(&envelope.name, envelope.version);
                return Err(Refused::Readable { event_id: event, what, position: envelope.position });
            }
            Err(error) => Unreadable::of(&envelope, error),
        },
        Err(CopyError::Unreadable(unreadable)) => unreadable,
        Err(CopyError::Database(error)) => return Err(error.into()),
    };
    if let Some(what) = unknown_here(store, event).await? {
        let knows = |other: &&Instance| other.reads.contains(&what);
        if let Some(other) = instances::running(store.pool()).await?.iter().find(knows) {
            return Err(Refused::ReadableElsewhere { event_id: event, what, by: other.words() });
        }
        if !unknown {
            return Err(Refused::Newer { event_id: event, what });
        }
    }
    Ok(unreadable)
}

/// What it is, where this release does not know that, whatever else is wrong with it.
async fn unknown_here(store: &StoreReader, event: EventId) -> sqlx::Result<Option<String>> {
    let row = sqlx::query!("select event_type, event_version from events where event_id = $1", event.0);
    let row = row.fetch_one(store.pool()).await?;
    let what = row.event_version.parse().map(|version| catalogue::words(&row.event_type, version)).ok();
    Ok(what.filter(|what| !catalogue::readable().contains(what)))
}

/// Whether it begins a thing that has rows.
pub(crate) fn begins_rows(event: &Unreadable) -> bool {
    event.sequence == 1 && BEGINNINGS.iter().any(|(aggregate, _)| *aggregate == event.stream.aggregate)
}

/// Whether an event of that name has its place there: what begins a thing that has rows, and nothing else, is its first.
pub(crate) fn has_its_place(name: &str, stream: &Stream, sequence: i64) -> bool {
    let beginnings = BEGINNINGS.iter().find(|(aggregate, _)| *aggregate == stream.aggregate);
    beginnings.is_none_or(|(_, beginnings)| beginnings.contains(&name) == (sequence == 1))
}

//! Events on their way into the projections, decoded once for all of them.

use std::sync::Arc;

use events::{Delivered, Envelope, Event, EventId, HistoryId, Position, Shard};
use store_reader::{Heads, Read, Unreadable};

use crate::projection::Recorded;

/// One event as the projections meet it: with its place in the chain of its shard.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) event_id: EventId,
    pub(crate) shard: Shard,
    pub(crate) position: Position,
    /// The position before it in its shard; 0 for the first.
    pub(crate) previous: Position,
    pub(crate) history: HistoryId,
    /// What it says; or why that cannot be read, by any projection.
    pub(crate) content: Result<Content, String>,
}

/// What an event says, in its newest version.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) envelope: Envelope,
    /// Several where an old version said several things.
    pub(crate) events: Vec<Event>,
}

/// Events in order within each shard.
pub(crate) type Batch = Arc<Vec<Item>>;

impl Content {
    /// The events, each with the envelope.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = Recorded<'_>> {
        self.events.iter().map(|event| Recorded { envelope: &self.envelope, event })
    }
}

impl From<Delivered> for Item {
    fn from(Delivered { envelope, previous, history }: Delivered) -> Self {
        Self {
            event_id: envelope.event_id,
            shard: envelope.shard,
            position: envelope.position,
            previous,
            history,
            content: match envelope.decode() {
                Ok(events) => Ok(Content { envelope, events }),
                Err(error) => Err(error.to_string()),
            },
        }
    }
}

impl Item {
    /// The events of a read, linked behind `heads`.
    pub(crate) fn of_read(read: Read, heads: &mut Heads) -> Vec<Self> {
        let Some(history) = read.history else { return Vec::new() };
        let link = |stored: Result<Envelope, Unreadable>| match stored {
            Ok(envelope) => {
                let previous = heads.go_on(envelope.shard, envelope.position);
                Delivered { envelope, previous, history }.into()
            }
            Err(Unreadable { event_id, position, shard, reason, .. }) => {
                let previous = heads.go_on(shard, position);
                Self { event_id, shard, position, previous, history, content: Err(reason) }
            }
        };
        read.events.into_iter().map(link).collect()
    }
}

//! Whether a store is still the one that something was made of.
//!
//! A backup that was restored gives positions anew that were given before. Where nobody began a new history then, only an
//! event's id tells the one line from the other: so whatever goes on from a position keeps the id of the event there.

use anyhow::bail;
use events::{EventId, Position};
use serde::{Deserialize, Serialize};
use store_reader::StoreReader;

/// An event that a store had, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Its place in the store.
    pub position: Position,
    /// Its id.
    pub event: EventId,
}

impl Seen {
    /// The event at a position, whether a reader asked for it or not: positions have no gaps. None at 0.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn at(store: &StoreReader, position: Position) -> sqlx::Result<Option<Self>> {
        let found = store.find(&[position]).await?;
        Ok(found.get(&position).map(|event| Self { position, event: *event }))
    }
}

/// Refuses to go on with `made`, which reaches up to a position and in which these events were seen, where the store has not
/// come so far or does not have them in their places.
///
/// # Errors
/// Which says what was seen, and what resolves it; and those of the database.
pub async fn is_of(store: &StoreReader, made: &str, through: Position, events: &[Seen]) -> anyhow::Result<()> {
    let resolves = "If a backup was restored here, say so with `agora events new-history`, and take another place for what \
                    comes now; if not, name the database that it was made of";
    let head = store.head().await?;
    if through > head {
        bail!("{made} reaches up to position {through}, and the event store is at {head} only. {resolves}");
    }
    let positions: Vec<Position> = events.iter().map(|seen| seen.position).collect();
    let found = store.find(&positions).await?;
    for Seen { position, event } in events {
        match found.get(position) {
            Some(there) if there == event => {}
            Some(there) => bail!(
                "{made} was made where event {event} is at position {position}, and the event store has event {there} there. \
                 {resolves}"
            ),
            None => bail!(
                "{made} was made where event {event} is at position {position}, and the event store has none there (it is \
                 at {head}). {resolves}"
            ),
        }
    }
    Ok(())
}

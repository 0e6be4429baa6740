//! Events that nobody can read, and that operators have left out of everything: on record, in `store.skips`.
//!
//! It is asked only where an event could not be read: who reads what can be read pays nothing for it.

use std::collections::HashSet;

use events::EventId;
use uuid::Uuid;

use super::{StoreReader, Unreadable};

/// What stands in `skips` in place of a projection's name where every reader leaves the event out. No projection is called
/// so.
pub const EVERY_READER: &str = "*";

/// What resolves it that an event cannot be read, in words.
pub fn way_out(event: EventId) -> String {
    format!(
        "install a release that reads it; where there is none, `agora events repair {event} --with FILE --reason WHY` puts \
         back what it said, and `agora events skip {event} --reason WHY` leaves it out for every reader"
    )
}

impl StoreReader {
    /// Whether every reader leaves an event out.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn is_left_out(&self, event: EventId) -> sqlx::Result<bool> {
        Ok(!self.left_out(&[event.0]).await?.is_empty())
    }

    /// Of the events that a reader met and could not read, those that stop it: nobody has left them out. Asks nothing where
    /// it met none.
    ///
    /// For who has a stream of rows open, once that is at its end: to ask beside it takes a second connection, for which
    /// those may wait who hold the first.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn not_left_out(&self, mut met: Vec<Unreadable>) -> sqlx::Result<Vec<Unreadable>> {
        if !met.is_empty() {
            let ids: Vec<Uuid> = met.iter().map(|unreadable| unreadable.event_id.0).collect();
            let left_out = self.left_out(&ids).await?;
            met.retain(|unreadable| !left_out.contains(&unreadable.event_id.0));
        }
        Ok(met)
    }

    async fn left_out(&self, ids: &[Uuid]) -> sqlx::Result<HashSet<Uuid>> {
        let found = sqlx::query_scalar!(
            "select event_id from skips where projection = $1 and event_id = any($2)",
            EVERY_READER,
            ids,
        );
        Ok(found.fetch_all(&self.pool).await?.into_iter().collect())
    }
}

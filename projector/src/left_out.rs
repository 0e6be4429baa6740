//! Leaves an event that nobody can read out for every reader: on record, and for good.

use events::{EventId, Position};
use store_reader::{EVERY_READER, StoreReader, Unreadable};

use crate::{
    history, skip,
    unreadable::{Refused, begins_rows, whats_wrong},
};

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
}

/// What became of it.
#[derive(Debug)]
pub struct LeftOut {
    /// Where the event stands.
    pub position: Position,
    /// Why it cannot be read.
    pub why: String,
    /// It was left out before, and what was said then stands.
    pub before: bool,
}

/// Leaves an event that this release cannot read out for every reader, on record. Projections that stand at it go on within
/// two seconds; whoever else meets it passes it by.
///
/// # Errors
/// [`Refused`].
pub async fn leave_out(store: &StoreReader, what: LeaveOut<'_>) -> Result<LeftOut, Refused> {
    let LeaveOut { event, reason, by, unknown } = what;
    // Nor is it repaired meanwhile.
    let mut transaction = history::while_nobody_appends(store.pool()).await?;
    let unreadable = whats_wrong(store, event, unknown).await?;
    if begins_rows(&unreadable) {
        return Err(Refused::Begins { event_id: event, stream: unreadable.stream });
    }
    let Unreadable { position, reason: why, stream, .. } = unreadable;
    let new = skip::record(&mut *transaction, EVERY_READER, (event, position), (reason, by)).await?;
    sqlx::query!("select keep_ending_anew($1, event_type) from events where event_id = $2", stream.id, event.0)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(LeftOut { position, why, before: !new })
}

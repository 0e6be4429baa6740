//! Snapshots: what long streams fold to, in the store, so that who decides on one need not read all of it. Written beside what
//! is appended, never with it, by whoever folded; where that fails or nobody has the time, the stream is longer to read.
//!
//! One is a shortcut, and passed by where it can be told that it may be wrong: then the stream is read whole.
//! - It is of another schema, as another release wrote it, or does not decode. A newer schema takes the place of an older one,
//!   never the other way round, so two releases that run together do not undo each other's. A new event raises the schema too
//!   (a test sees to that): nobody is led past an event that it does not know.
//! - It names the event that it is of. Where the stream has not come so far, or another one stands there, it is of another line
//!   of history, or not of this database.
//! - An event of its stream was repaired, or is left out by every reader. A trigger notes that in the same transaction, and the
//!   statement that reads the snapshot looks at it: one that is written late, of what was folded before, is not read either.
//! - Something behind it cannot be read: the stream is read whole to say what, or around it, as any is.
//!
//! What cannot be told is what somebody wrote into the table by hand; and damage to an event that is in a snapshot shows where
//! all events are read (`agora check`), not to a command on that stream.

use std::any::Any;

use cqrs_es::persist::SerializedEvent;
use events::Stream;
use sqlx::PgPool;
use tokio::sync::mpsc;

use super::{Loaded, Stored, load::Folded};

/// What `postgres-es` reads from in place of its table of events.
pub(super) const STREAM: &str = "stream_from_snapshot($1, $2)";
/// What the function there calls a snapshot, in place of an event's name.
const SNAPSHOT: &str = "snapshot";
/// How many events a snapshot may be behind: they take some 3 ms to read and fold.
pub(super) const EVERY: i64 = 500;
/// Snapshots that wait to be written; one more is left for later. Their states are in the cache of states, mostly.
const QUEUE: usize = 64;

/// A [`Loaded`] of any aggregate.
pub(super) trait AnyLoaded: Any + Send + Sync {
    fn schema(&self) -> i32;
    fn state(&self) -> serde_json::Result<String>;
}

impl<A: Stored> AnyLoaded for Loaded<A> {
    fn schema(&self) -> i32 {
        A::SCHEMA
    }

    fn state(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.state)
    }
}

/// The way to the task that writes them. It ends when the last clone is gone; no shutdown waits for it.
#[derive(Clone)]
pub(super) struct Snapshots(mpsc::Sender<(Stream, Folded)>);

impl Snapshots {
    pub(super) fn start(pool: PgPool) -> Self {
        let (due, mut waiting) = mpsc::channel::<(Stream, Folded)>(QUEUE);
        tokio::spawn(async move {
            while let Some((stream, folded)) = waiting.recv().await {
                if let Err(error) = write(&pool, &stream, &folded).await {
                    tracing::debug!(%stream, %error, "a snapshot was not written");
                }
            }
        });
        Self(due)
    }

    /// Has what a stream folds to written, unless others wait already.
    pub(super) fn offer(&self, stream: Stream, folded: Folded) {
        // The next one of that stream will do.
        let _ = self.0.try_send((stream, folded));
    }
}

async fn write(pool: &PgPool, stream: &Stream, folded: &Folded) -> anyhow::Result<()> {
    let written = sqlx::query!(
        "insert into snapshots as s (aggregate_type, aggregate_id, sequence, event_id, schema, state)
        select aggregate_type, aggregate_id, sequence, event_id, $4, $5::text::json from events
        where aggregate_type = $1 and aggregate_id = $2 and sequence = $3
        on conflict (aggregate_type, aggregate_id) do update
        set sequence = excluded.sequence, event_id = excluded.event_id, schema = excluded.schema, state = excluded.state,
            taken_at = excluded.taken_at
        where (s.schema, s.sequence) <= (excluded.schema, excluded.sequence)",
        stream.aggregate,
        stream.id,
        folded.version,
        folded.loaded.schema(),
        folded.loaded.state()?,
    );
    written.execute(pool).await?;
    Ok(())
}

/// Parts a stream that was read from [`STREAM`] into what its snapshot says, and the events behind. None where there is a
/// snapshot that is to be passed by.
pub(super) fn resume<A: Stored>(rows: &[SerializedEvent]) -> Option<(Loaded<A>, &[SerializedEvent])> {
    match rows.split_first() {
        Some((first, events)) if first.event_type == SNAPSHOT => {
            let known = first.event_version == A::SCHEMA.to_string();
            let state = known.then(|| A::deserialize(&first.payload)).transpose().ok()??;
            Some((Loaded { state, version: i64::try_from(first.sequence).ok()? }, events))
        }
        _ => Some((Loaded { state: A::default(), version: 0 }, rows)),
    }
}

#[cfg(test)]
mod tests;

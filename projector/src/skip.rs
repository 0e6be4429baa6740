//! Events that operators let projections pass by, or leave out for every reader: on record, and true for every rebuild.

use chrono::{DateTime, Utc};
use events::{DecodeError, Envelope, EventId, Position, Shard};
use platform::instances::{self, Instance};
use serde::Serialize;
use sqlx::PgPool;
use store_reader::{CopyError, EVERY_READER, StoreReader};

use crate::checkpoint;

/// Skips that [`skips`] answers, at most: the newest. Each was decided by a person.
const MOST_SHOWN: i64 = 1_000;

/// An event that is passed by.
#[derive(Clone, Debug, Serialize)]
pub struct Skip {
    /// By which projection; [`EVERY_READER`] where it is left out by all that reads events.
    pub projection: String,
    /// The event.
    pub event_id: EventId,
    /// Where it stood in the store when it was skipped.
    pub position: Position,
    /// Why it is right to.
    pub reason: String,
    /// Who said so; none where an older release did not ask.
    pub by: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
}

/// Why an event is not left out for every reader.
#[derive(Debug, thiserror::Error)]
pub enum NotLeftOut {
    /// It is not in the store.
    #[error("there is no event {0}")]
    NoSuchEvent(EventId),
    /// Nothing that was said is hidden in this way.
    #[error(
        "event {event_id} can be read: it is {name} version {version}, at position {position}. What it says is history, and \
         stays; a later event says otherwise (an edit, a lift of the ban, a restored post). Where a projection cannot fold it: \
         `agora projections skip`"
    )]
    Readable {
        /// The event.
        event_id: EventId,
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
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
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Leaves an event that this release cannot read out for every reader, on record; answers where it is, and why it cannot be
/// read. Projections that stand at it go on within two seconds; whoever else meets it passes it by.
///
/// # Errors
/// [`NotLeftOut`].
pub async fn leave_out(
    store: &StoreReader,
    event: EventId,
    reason: &str,
    by: &str,
) -> Result<(Position, String), NotLeftOut> {
    let mut copy = store.copy_event(event).await?;
    let found = copy.next().await;
    // To its end, which gives the connection back.
    while let Ok(Some(_)) = copy.next().await {}
    let (position, why) = match found {
        Ok(None) => return Err(NotLeftOut::NoSuchEvent(event)),
        Ok(Some(delivered)) => (delivered.envelope.position, whats_wrong(store, delivered.envelope).await?),
        Err(CopyError::Unreadable(unreadable)) => (unreadable.position, unreadable.reason),
        Err(CopyError::Database(error)) => return Err(error.into()),
    };
    record(store.pool(), EVERY_READER, (event, position), reason, by).await?;
    Ok((position, why))
}

/// Why nobody can read it: neither this release, nor another that runs.
async fn whats_wrong(store: &StoreReader, envelope: Envelope) -> Result<String, NotLeftOut> {
    let decoded = envelope.decode().map(drop);
    let Envelope { event_id, name, version, position, .. } = envelope;
    let error = match decoded {
        Ok(()) => return Err(NotLeftOut::Readable { event_id, name, version, position }),
        Err(error) => error,
    };
    let what = format!("{name} version {version}");
    let knows = |other: &Instance| matches!(error, DecodeError::Unknown { .. }) && other.reads.contains(&what);
    match instances::running(store.pool()).await?.iter().find(|other| knows(other)) {
        Some(other) => Err(NotLeftOut::ReadableElsewhere { event_id, what, by: other.words() }),
        None => Ok(error.to_string()),
    }
}

/// Lets a projection that stopped in a shard pass by the event it stopped at, now and in every rebuild; answers which
/// event that is, or none where it had not stopped. The projector takes it up within two seconds.
///
/// # Errors
/// Those of the databases. Where the second of them fails, the skip is on record, and the same again lets it go on.
pub async fn skip(
    (store, read): (&PgPool, &PgPool),
    projection: &str,
    shard: Shard,
    reason: &str,
    by: &str,
) -> sqlx::Result<Option<EventId>> {
    let stopped = sqlx::query!(
        "select event_id, position from parked where projection = $1 and shard = $2",
        projection,
        i16::from(shard)
    );
    let Some(stopped) = stopped.fetch_optional(read).await? else { return Ok(None) };
    let event = EventId(stopped.event_id);
    record(store, projection, (event, stopped.position), reason, by).await?;
    checkpoint::go_on(read, projection, shard, event).await?;
    Ok(Some(event))
}

/// Lets a projection pass by an event, wherever it stands: for what stops a rebuild where the live projection, of another
/// release, did not. Answers where the event is, or none where there is no such event.
///
/// # Errors
/// Those of the database.
pub async fn skip_event(
    store: &PgPool,
    projection: &str,
    event: EventId,
    reason: &str,
    by: &str,
) -> sqlx::Result<Option<Position>> {
    let found = sqlx::query_scalar!("select position from events where event_id = $1", event.0);
    let Some(position) = found.fetch_optional(store).await? else { return Ok(None) };
    record(store, projection, (event, position), reason, by).await?;
    Ok(Some(position))
}

async fn record(
    store: &PgPool,
    projection: &str,
    (event, position): (EventId, Position),
    reason: &str,
    by: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into skips (projection, event_id, position, reason, skipped_by) values ($1, $2, $3, $4, $5)
        on conflict (projection, event_id) do update
        set reason = excluded.reason, skipped_by = excluded.skipped_by, skipped_at = clock_timestamp()",
        projection,
        event.0,
        position,
        reason,
        by,
    )
    .execute(store)
    .await?;
    Ok(())
}

/// What projections pass by, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn skips(store: &PgPool) -> sqlx::Result<Vec<Skip>> {
    let rows = sqlx::query!(
        "select projection, event_id, position, reason, skipped_by, skipped_at from skips
        order by skipped_at desc, projection limit $1",
        MOST_SHOWN,
    );
    let skips = rows.fetch_all(store).await?.into_iter().map(|row| Skip {
        projection: row.projection,
        event_id: EventId(row.event_id),
        position: row.position,
        reason: row.reason,
        by: row.skipped_by,
        at: row.skipped_at,
    });
    Ok(skips.collect())
}

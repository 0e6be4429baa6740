//! Events that operators let projections pass by: on record, and true for every rebuild.

use chrono::{DateTime, Utc};
use events::{EventId, Position, Shard};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use crate::checkpoint;

/// Skips that [`skips`] answers, at most: the newest. Each was decided by a person.
const MOST_SHOWN: i64 = 1_000;

/// An event that is passed by.
#[derive(Clone, Debug, Serialize)]
pub struct Skip {
    /// By which projection; [`store_reader::EVERY_READER`] where it is left out by all that reads events.
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

/// Lets a projection that stopped in a shard pass by the event it stopped at, now and in every rebuild; answers which
/// event that is, or none where it had not stopped. The projector takes it up within two seconds. What is on record
/// already stays as it was said first.
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
    record(store, projection, (event, stopped.position), (reason, by)).await?;
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
    record(store, projection, (event, position), (reason, by)).await?;
    Ok(Some(position))
}

/// Puts an event on record; answers whether it was not there yet: else, what was said first stays.
pub(crate) async fn record(
    store: impl PgExecutor<'_>,
    projection: &str,
    (event, position): (EventId, Position),
    (reason, by): (&str, &str),
) -> sqlx::Result<bool> {
    let recorded = sqlx::query!(
        "insert into skips (projection, event_id, position, reason, skipped_by) values ($1, $2, $3, $4, $5)
        on conflict do nothing",
        projection,
        event.0,
        position,
        reason,
        by,
    );
    Ok(recorded.execute(store).await?.rows_affected() > 0)
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

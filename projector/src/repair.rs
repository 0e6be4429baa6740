//! Puts what can be read in the place of what nobody can: on record, with what stood there.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use events::{EventId, Metadata, Position, Stream, catalogue};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use store_reader::StoreReader;

use crate::unreadable::{Refused, whats_wrong};

/// Repairs that [`repairs`] answers, at most: the newest. Each was decided by a person.
const MOST_SHOWN: i64 = 1_000;

/// What an event is to say; what is none stays as it is stored.
#[derive(Debug, Default)]
pub struct Said {
    /// Its name.
    pub name: Option<String>,
    /// The version that the payload is written in.
    pub version: Option<u32>,
    /// The payload.
    pub payload: Option<Box<RawValue>>,
    /// Who and what caused it.
    pub metadata: Option<Metadata>,
}

/// What an event said before it was repaired, as it was stored.
#[derive(Clone, Debug, Serialize)]
pub struct Repair {
    /// The event.
    pub event_id: EventId,
    /// Its place in the store.
    pub position: Position,
    /// Its name.
    pub event_type: String,
    /// Its version.
    pub event_version: String,
    /// Its payload: JSON as Postgres takes it, which nobody else may.
    pub payload: String,
    /// Its metadata, likewise.
    pub metadata: String,
    /// Why it was right to.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// What an event is after its repair.
#[derive(Debug)]
pub struct Repaired {
    /// Its place in the store.
    pub position: Position,
    /// Its name and version.
    pub what: String,
}

/// A row as it is stored.
struct Stored {
    stream: Stream,
    position: Position,
    name: String,
    version: String,
    payload: String,
    metadata: String,
}

/// Puts what can be read in the place of what nobody can, and keeps on record what stood there. When, where and whose
/// event it is stays. Projections that stand at it try again within two seconds.
///
/// # Errors
/// [`Refused`]: one that can be read, or cannot be read with that either.
pub async fn repair(
    store: &StoreReader,
    read: &PgPool,
    event: EventId,
    said: Said,
    (reason, by): (&str, &str),
) -> Result<Repaired, Refused> {
    whats_wrong(store, event, true).await?;
    let mut transaction = store.pool().begin().await?;
    let row = sqlx::query!(
        r#"select aggregate_type, aggregate_id, position, event_type, event_version, payload::text as "payload!",
            metadata::text as "metadata!"
        from events where event_id = $1 for update"#,
        event.0,
    );
    let row = row.fetch_optional(&mut *transaction).await?.ok_or(Refused::NoSuchEvent(event))?;
    let stored = Stored {
        stream: Stream { aggregate: row.aggregate_type, id: row.aggregate_id },
        position: row.position,
        name: row.event_type,
        version: row.event_version,
        payload: row.payload,
        metadata: row.metadata,
    };
    let position = stored.position;
    if let Ok(what) = stored.read() {
        // Somebody was quicker.
        return Err(Refused::Readable { event_id: event, what, position });
    }
    let better = stored.with(said)?;
    let what = better.read().map_err(|reason| Refused::StillUnreadable { event_id: event, position, reason })?;
    sqlx::query!(
        "insert into repairs (event_id, position, event_type, event_version, payload, metadata, reason, repaired_by)
        select event_id, position, event_type, event_version, payload, metadata, $2, $3 from events where event_id = $1",
        event.0,
        reason,
        by,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "update events set event_type = $2, event_version = $3, payload = $4::text::json, metadata = $5::text::json
        where event_id = $1",
        event.0,
        better.name,
        better.version,
        better.payload,
        better.metadata,
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    sqlx::query!("delete from parked where event_id = $1", event.0).execute(read).await?;
    Ok(Repaired { position, what })
}

/// What was repaired, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn repairs(store: &PgPool) -> sqlx::Result<Vec<Repair>> {
    let rows = sqlx::query!(
        r#"select event_id, position, event_type, event_version, payload::text as "payload!",
            metadata::text as "metadata!", reason, repaired_by, repaired_at
        from repairs order by repaired_at desc limit $1"#,
        MOST_SHOWN,
    );
    let repairs = rows.fetch_all(store).await?.into_iter().map(|row| Repair {
        event_id: EventId(row.event_id),
        position: row.position,
        event_type: row.event_type,
        event_version: row.event_version,
        payload: row.payload,
        metadata: row.metadata,
        reason: row.reason,
        by: row.repaired_by,
        at: row.repaired_at,
    });
    Ok(repairs.collect())
}

impl Stored {
    /// The same, but for what is said.
    fn with(self, said: Said) -> Result<Self, Refused> {
        let metadata = said.metadata.map(|metadata| serde_json::to_string(&metadata));
        let metadata = metadata.transpose().map_err(|error| sqlx::Error::Encode(error.into()))?;
        Ok(Self {
            name: said.name.unwrap_or(self.name),
            version: said.version.map_or(self.version, |version| version.to_string()),
            payload: said.payload.map_or(self.payload, |payload| payload.get().to_owned()),
            metadata: metadata.unwrap_or(self.metadata),
            ..self
        })
    }

    /// What it is, in words, or why it cannot be read by all who have to.
    fn read(&self) -> Result<String, String> {
        let Self { stream, name, version, payload, metadata, .. } = self;
        let version = u32::from_str(version).map_err(|_| format!("its version `{version}` is no number"))?;
        serde_json::from_str::<Metadata>(metadata).map_err(|error| format!("its metadata: {error}"))?;
        let payload: &RawValue = serde_json::from_str(payload).map_err(|error| format!("its payload: {error}"))?;
        let events = events::decode(name, version, payload).map_err(|error| error.to_string())?;
        match events.iter().find(|event| !stream.takes(event)) {
            Some(foreign) => Err(format!("{} is no event of {stream}", foreign.name())),
            None => Ok(catalogue::words(name, version)),
        }
    }
}

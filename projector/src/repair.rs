//! Puts what can be read in the place of what nobody can: on record, with what stood there.

use std::str::FromStr as _;

use anyhow::{anyhow, ensure};
use chrono::{DateTime, Utc};
use events::{CommunityId, Envelope, EventId, Metadata, Position, Shard, Stream, catalogue};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgPool;
use store_reader::StoreReader;

use crate::{
    check, history,
    unreadable::{Refused, has_its_place, whats_wrong},
};

/// Repairs that [`repairs`] answers, at most: the newest. Each was decided by a person.
const MOST_SHOWN: i64 = 1_000;

/// A repair that is asked for.
#[derive(Debug)]
pub struct RepairWith<'a> {
    /// The event.
    pub event: EventId,
    /// What it is to say.
    pub said: Said,
    /// Why it is right to.
    pub reason: &'a str,
    /// Who says so.
    pub by: &'a str,
    /// Also where a newer release wrote it.
    pub unknown: bool,
}

/// What an event is to say; what is none stays as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Its name.
    pub name: Option<String>,
    /// The version that the payload is written in.
    pub version: Option<u32>,
    /// The payload.
    pub payload: Option<Box<RawValue>>,
    /// Who and what caused it.
    pub metadata: Option<Metadata>,
    /// Whose event it is taken for; refused where it is another's.
    pub stream: Option<String>,
    /// Where it is taken to stand, likewise.
    pub position: Option<Position>,
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

/// Puts what can be read in the place of what nobody can, and keeps on record what stood there. When, where and whose
/// event it is stays. What was repaired may be so again. Projections that stand at it try again within two seconds.
///
/// # Errors
/// [`Refused`]: one that can be read and was never repaired, or is left out; and what cannot be read either, or breaks a
/// promise that holds.
pub async fn repair(store: &StoreReader, with: RepairWith<'_>) -> Result<Repaired, Refused> {
    let RepairWith { event, said, reason, by, unknown } = with;
    if store.is_left_out(event).await? {
        return Err(Refused::LeftOut(event));
    }
    match whats_wrong(store, event, unknown).await {
        Ok(_) => {}
        Err(Refused::Readable { .. }) if was_repaired(store.pool(), event).await? => {}
        Err(refused) => return Err(refused),
    }
    let stored = Stored::of(store.pool(), event).await?;
    stored.is_meant(&said)?;
    let better = stored.with(said)?;
    let envelope = better.read().map_err(|reason| Refused::StillUnreadable {
        event_id: event,
        position: stored.position,
        reason,
    })?;
    let (position, what) = (stored.position, catalogue::words(&envelope.name, envelope.version));
    let breaks = check::would_break(store, &envelope).await?;
    if !breaks.is_empty() {
        return Err(Refused::Breaks { event_id: event, position, breaks: breaks.join(", ") });
    }
    stored.replace(store, &better, (reason, by)).await?;
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

/// Whether an event was repaired.
///
/// # Errors
/// Those of the database.
pub async fn was_repaired(store: &PgPool, event: EventId) -> sqlx::Result<bool> {
    let was = sqlx::query_scalar!(r#"select exists (select from repairs where event_id = $1) as "was!""#, event.0);
    was.fetch_one(store).await
}

/// An event as it is stored, whatever it says.
#[derive(Clone)]
struct Stored {
    event: EventId,
    stream: Stream,
    sequence: i64,
    position: Position,
    shard: i16,
    community: Option<CommunityId>,
    recorded_at: DateTime<Utc>,
    name: String,
    version: String,
    payload: String,
    metadata: String,
}

impl Stored {
    async fn of(store: &PgPool, event: EventId) -> Result<Self, Refused> {
        let row = sqlx::query!(
            r#"select aggregate_type, aggregate_id, sequence, position, shard, community_id, recorded_at, event_type,
                event_version, payload::text as "payload!", metadata::text as "metadata!"
            from events where event_id = $1"#,
            event.0,
        );
        let row = row.fetch_optional(store).await?.ok_or(Refused::NoSuchEvent(event))?;
        Ok(Self {
            event,
            stream: Stream { aggregate: row.aggregate_type, id: row.aggregate_id },
            sequence: row.sequence,
            position: row.position,
            shard: row.shard,
            community: row.community_id.map(CommunityId),
            recorded_at: row.recorded_at,
            name: row.event_type,
            version: row.event_version,
            payload: row.payload,
            metadata: row.metadata,
        })
    }

    fn is_meant(&self, said: &Said) -> anyhow::Result<()> {
        let (stream, Self { event, position, .. }) = (self.stream.to_string(), self);
        let meant = said.stream.as_ref().unwrap_or(&stream);
        ensure!(*meant == stream, "event {event} is of {stream}, and what is to be put there is of {meant}");
        let meant = said.position.unwrap_or(*position);
        ensure!(meant == *position, "event {event} is at position {position}, and what is to be put there at {meant}");
        Ok(())
    }

    /// The same, but for what is said.
    fn with(&self, said: Said) -> anyhow::Result<Self> {
        let metadata = said.metadata.map(|metadata| serde_json::to_string(&metadata)).transpose()?;
        let stored = self.clone();
        Ok(Self {
            name: said.name.unwrap_or(stored.name),
            version: said.version.map_or(stored.version, |version| version.to_string()),
            payload: said.payload.map_or(stored.payload, |payload| payload.get().to_owned()),
            metadata: metadata.unwrap_or(stored.metadata),
            ..stored
        })
    }

    /// What everybody would read, or why it cannot be read by all who have to.
    fn read(&self) -> Result<Envelope, String> {
        let Self { event, stream, sequence, position, name, version, payload, metadata, .. } = self;
        let version = u32::from_str(version).map_err(|_| format!("its version `{version}` is no number"))?;
        let metadata = serde_json::from_str(metadata).map_err(|error| format!("its metadata: {error}"))?;
        let payload: Box<RawValue> = serde_json::from_str(payload).map_err(|error| format!("its payload: {error}"))?;
        let events = events::decode(name, version, &payload).map_err(|error| error.to_string())?;
        if let Some(foreign) = events.iter().find(|event| !stream.takes(event)) {
            return Err(format!("{} is no event of {stream}", foreign.name()));
        }
        if !has_its_place(name, stream, *sequence) {
            return Err(format!("{name} is not what event {sequence} of {stream} can be"));
        }
        Ok(Envelope {
            event_id: *event,
            stream: stream.clone(),
            sequence: *sequence,
            position: *position,
            shard: Shard::try_from(self.shard).map_err(|error| error.to_string())?,
            community: self.community,
            name: name.clone(),
            version,
            recorded_at: self.recorded_at,
            metadata,
            payload,
        })
    }

    /// Puts `better` in its place, where it still stands there.
    async fn replace(&self, store: &StoreReader, better: &Self, (reason, by): (&str, &str)) -> Result<(), Refused> {
        let mut transaction = history::while_nobody_appends(store.pool()).await?;
        if store.is_left_out(self.event).await? {
            return Err(Refused::LeftOut(self.event));
        }
        sqlx::query!(
            "insert into repairs (event_id, position, event_type, event_version, payload, metadata, reason, repaired_by)
            select event_id, position, event_type, event_version, payload, metadata, $2, $3
            from events where event_id = $1",
            self.event.0,
            reason,
            by,
        )
        .execute(&mut *transaction)
        .await?;
        let replaced = sqlx::query!(
            "update events set event_type = $2, event_version = $3, payload = $4::text::json, metadata = $5::text::json
            where event_id = $1 and event_type = $6 and event_version = $7 and payload::text = $8 and metadata::text = $9",
            self.event.0,
            better.name,
            better.version,
            better.payload,
            better.metadata,
            self.name,
            self.version,
            self.payload,
            self.metadata,
        );
        if replaced.execute(&mut *transaction).await?.rows_affected() == 0 {
            return Err(anyhow!("somebody else has repaired event {} meanwhile", self.event).into());
        }
        for name in [&self.name, &better.name] {
            sqlx::query!("select keep_ending_anew($1, $2)", self.stream.id, name).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

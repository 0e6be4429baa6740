//! Reads the event store in order, as the envelopes that everybody agrees on. The relay, the projections' gap filling
//! and tail check, the endpoints that show events, and whoever replays history read it through here.

mod alarms;
mod copy;
mod left_out;
mod piece;
mod streams;
mod wake;

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use chrono::{DateTime, Utc};
use events::{CommunityId, Envelope, EventId, HistoryId, Metadata, Position, Shard, Stream};
use futures::TryStreamExt;
use serde_json::value::RawValue;
use sqlx::{PgExecutor, PgPool, types::Json};
use uuid::Uuid;

pub use alarms::Alarms;
pub use copy::{Copy, CopyError, Filter};
pub use left_out::{EVERY_READER, way_out};
pub use piece::{LOOKED_AT, Most, Piece, Side};
pub use wake::{APPENDED, Leads, Wake};

/// Bytes of payload after which a read ends early: what one read may hold in memory.
pub const READ_BYTES: usize = 16 * 1024 * 1024;

/// The event store, to be read. Its connections should have `enable_seqscan = off`, see [`CONNECTION`].
#[derive(Clone, Debug)]
pub struct StoreReader {
    pool: PgPool,
}

/// Run-time parameters for connections that read the store: plans made while a table was empty stay, and would scan it
/// from its beginning on every read. And they are made once: for a `limit` that it does not know, Postgres assumes a tenth
/// of the store, and would plan every read anew for the one that it is given.
pub const CONNECTION: [(&str, &str); 2] = [("enable_seqscan", "off"), ("plan_cache_mode", "force_generic_plan")];

/// Some events, in order.
#[derive(Debug)]
pub struct Read {
    /// The events, by position; by shard and position from [`StoreReader::by_shard`].
    pub events: Vec<Result<Envelope, Unreadable>>,
    /// The history they belong to, in the same snapshot; none where there are no events.
    pub history: Option<HistoryId>,
    /// Whether there may be more behind the last.
    pub more: bool,
}

/// An event that this release cannot read. Readers stop there: none is skipped, unless an operator has left it out, on
/// record ([`StoreReader::is_left_out`]).
#[derive(Clone, Debug, thiserror::Error)]
#[error("the event {event_id} at position {position} cannot be read: {reason} ({})", way_out(*event_id))]
pub struct Unreadable {
    /// Which event.
    pub event_id: EventId,
    /// Whose event it is.
    pub stream: Stream,
    /// Its place in the stream.
    pub sequence: i64,
    /// Its place in the store.
    pub position: Position,
    /// Its shard.
    pub shard: Shard,
    /// What is wrong with it.
    pub reason: String,
}

impl Unreadable {
    /// An event whose row can be read, and what it says cannot.
    pub fn of(envelope: &Envelope, reason: impl fmt::Display) -> Self {
        Self {
            event_id: envelope.event_id,
            stream: envelope.stream.clone(),
            sequence: envelope.sequence,
            position: envelope.position,
            shard: envelope.shard,
            reason: reason.to_string(),
        }
    }
}

/// The newest position of each shard; 0 where it has no events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads([Position; Shard::COUNT as usize]);

impl Default for Heads {
    fn default() -> Self {
        Self([0; Shard::COUNT as usize])
    }
}

impl Heads {
    /// A shard's newest position.
    pub fn of(&self, shard: Shard) -> Position {
        self.0[shard.index()]
    }

    /// The newest position of all.
    pub fn furthest(&self) -> Position {
        self.0.into_iter().max().unwrap_or(0)
    }

    /// The shard goes on to `position`; answers where it stood: the `previous` of the event there.
    pub fn go_on(&mut self, shard: Shard, position: Position) -> Position {
        std::mem::replace(&mut self.0[shard.index()], position)
    }
}

/// A row, as it is selected by all reads.
#[derive(sqlx::FromRow)]
struct Row {
    event_id: Uuid,
    aggregate_type: String,
    aggregate_id: String,
    sequence: i64,
    event_type: String,
    event_version: String,
    payload: Json<Box<RawValue>>,
    metadata: String,
    position: i64,
    shard: i16,
    community_id: Option<Uuid>,
    recorded_at: DateTime<Utc>,
    history: Uuid,
}

/// What is of one shard is looked up by a row comparison, `(shard, position) >= …`, which only the index by shard can
/// answer. Of `shard = … order by position` the planner thinks that it comes soon by the index on positions alone too,
/// and reads all of a large store for a shard that has nothing.
impl StoreReader {
    /// Reads through these connections.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// The connections.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The events behind a position, of all shards, at most `limit` of them and [`READ_BYTES`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn after(&self, position: Position, limit: u32) -> sqlx::Result<Read> {
        after(&self.pool, position, limit).await
    }

    /// Of each of these shards, the events from a position on (its own included, so that a position which the store
    /// does not know shows), at most `limit` of each and [`READ_BYTES`] in all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn by_shard(&self, from: &[(Shard, Position)], limit: u32) -> sqlx::Result<Read> {
        let (shards, positions): (Vec<i16>, Vec<i64>) =
            from.iter().map(|(shard, position)| (i16::from(*shard), *position)).unzip();
        let rows = sqlx::query_as!(
            Row,
            r#"select e.event_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
                e.payload as "payload: _", e.metadata::text as "metadata!", e.position, e.shard, e.community_id,
                e.recorded_at, (select history from history_line) as "history!"
            from unnest($1::smallint[], $2::bigint[]) with ordinality f (shard, position, nth)
            cross join lateral (
                select * from events
                where (shard, position) >= (f.shard, f.position) and (shard, position) <= (f.shard, $4)
                order by shard, position limit $3
            ) e
            order by f.nth, e.position"#,
            &shards,
            &positions,
            i64::from(limit),
            Position::MAX,
        );
        collect(rows.fetch(&self.pool), usize::MAX).await
    }

    /// Which line of positions the store's are.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn history(&self) -> sqlx::Result<HistoryId> {
        sqlx::query_scalar!("select history from history_line").fetch_one(&self.pool).await.map(HistoryId)
    }

    /// The newest position of all.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn head(&self) -> sqlx::Result<Position> {
        sqlx::query_scalar!(r#"select position as "position!" from store_head"#).fetch_one(&self.pool).await
    }

    /// Which line of positions the store's are, and the newest of them.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn standing(&self) -> sqlx::Result<(HistoryId, Position)> {
        let head = sqlx::query!(r#"select history as "history!", position as "position!" from store_head"#);
        let head = head.fetch_one(&self.pool).await?;
        Ok((HistoryId(head.history), head.position))
    }

    /// The newest position of each shard that is not above `position`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn heads_at(&self, position: Position) -> sqlx::Result<Heads> {
        let found = sqlx::query!(
            r#"select s.shard::smallint as "shard!", e.position
            from generate_series(0, 63) s (shard)
            cross join lateral (
                select position from events
                where (shard, position) >= (s.shard, 0) and (shard, position) <= (s.shard, $1)
                order by shard desc, position desc limit 1
            ) e"#,
            position,
        );
        let mut heads = Heads::default();
        for row in found.fetch_all(&self.pool).await? {
            if let Ok(shard) = Shard::try_from(row.shard) {
                heads.go_on(shard, row.position);
            }
        }
        Ok(heads)
    }

    /// The newest position of each shard.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn heads(&self) -> sqlx::Result<Heads> {
        self.heads_at(Position::MAX).await
    }

    /// When the first event behind each of these positions of a shard was recorded, where there is one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn waiting(
        &self,
        behind: &HashSet<(Shard, Position)>,
    ) -> sqlx::Result<HashMap<(Shard, Position), DateTime<Utc>>> {
        if behind.is_empty() {
            return Ok(HashMap::new());
        }
        let (shards, positions): (Vec<i16>, Vec<Position>) =
            behind.iter().map(|(shard, position)| (i16::from(*shard), *position)).unzip();
        let found = sqlx::query!(
            r#"select w.shard as "shard!", w.position as "position!", first.recorded_at
            from unnest($1::smallint[], $2::bigint[]) w (shard, position)
            cross join lateral (
                select recorded_at from events
                where (shard, position) > (w.shard, w.position) and (shard, position) <= (w.shard, $3)
                order by shard, position limit 1
            ) first"#,
            &shards,
            &positions,
            Position::MAX,
        );
        let rows = found.fetch_all(&self.pool).await?;
        let shard = |number: i16| Shard::try_from(number).ok();
        Ok(rows.into_iter().filter_map(|row| Some(((shard(row.shard)?, row.position), row.recorded_at))).collect())
    }

    /// Which events stand at these positions.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn find(&self, positions: &[Position]) -> sqlx::Result<HashMap<Position, EventId>> {
        let found = sqlx::query!("select position, event_id from events where position = any($1)", positions);
        let rows = found.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| (row.position, EventId(row.event_id))).collect())
    }
}

/// As many rows as come within the bounds. What the server has sent besides is thrown away with the stream.
/// [`StoreReader::after`], through a connection of one's own.
///
/// # Errors
/// Those of the database.
pub async fn after(store: impl PgExecutor<'_>, position: Position, limit: u32) -> sqlx::Result<Read> {
    let rows = sqlx::query_as!(
        Row,
        r#"select event_id, aggregate_type, aggregate_id, sequence, event_type, event_version,
            payload as "payload: _", metadata::text as "metadata!", position, shard, community_id, recorded_at,
            (select history from history_line) as "history!"
        from events where position > $1 order by position limit $2"#,
        position,
        i64::from(limit),
    );
    collect(rows.fetch(store), limit as usize).await
}

async fn collect(rows: impl futures::Stream<Item = sqlx::Result<Row>>, limit: usize) -> sqlx::Result<Read> {
    let mut rows = std::pin::pin!(rows);
    let mut read = Read { events: Vec::new(), history: None, more: false };
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        bytes += row.payload.get().len() + row.metadata.len();
        read.history = Some(HistoryId(row.history));
        let shard = row.shard()?;
        read.events.push(row.into_envelope(shard));
        if bytes > READ_BYTES {
            read.more = true;
            return Ok(read);
        }
    }
    read.more = read.events.len() >= limit;
    Ok(read)
}

impl Row {
    fn shard(&self) -> sqlx::Result<Shard> {
        let shard = Shard::try_from(self.shard);
        shard.map_err(|error| sqlx::Error::ColumnDecode { index: "shard".to_owned(), source: error.into() })
    }

    fn into_envelope(self, shard: Shard) -> Result<Envelope, Unreadable> {
        let (event_id, sequence, position) = (EventId(self.event_id), self.sequence, self.position);
        let stream = Stream { aggregate: self.aggregate_type, id: self.aggregate_id };
        let version = &self.event_version;
        let version = version.parse().map_err(|_| format!("its version `{version}` is no number"));
        let metadata =
            serde_json::from_str::<Metadata>(&self.metadata).map_err(|error| format!("its metadata: {error}"));
        let (version, metadata) = match (version, metadata) {
            (Ok(version), Ok(metadata)) => (version, metadata),
            (Err(reason), _) | (_, Err(reason)) => {
                return Err(Unreadable { event_id, stream, sequence, position, shard, reason });
            }
        };
        Ok(Envelope {
            event_id,
            stream,
            sequence,
            position,
            shard,
            community: self.community_id.map(CommunityId),
            name: self.event_type,
            version,
            recorded_at: self.recorded_at,
            metadata,
            payload: self.payload.0,
        })
    }
}

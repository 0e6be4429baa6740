//! What operators ask and decide: how far the projections are, and what becomes of a shard that stopped.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use events::{EventId, HistoryId, Position, Shard};
use platform::lease::Lease;
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{checkpoint::UNMADE, rebuild};

/// How far everything is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The store's history.
    pub history: HistoryId,
    /// The store's newest position.
    pub head: Position,
    /// How far Kafka has everything; none before the relay first ran. It may be behind by what was sent within the last
    /// half second.
    pub relayed: Option<Position>,
    /// By name.
    pub projections: BTreeMap<String, Vec<ShardStatus>>,
    /// Those that are being rebuilt beside, or verified.
    pub rebuilding: BTreeSet<String>,
}

/// What a projection does in a shard; what needs attention most is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It shows everything, or as good as.
    Live,
    /// Something has been waiting for longer than a tail check would leave it, or its rows are made from a long history.
    CatchingUp,
    /// An older release has made its rows: new ones are being made beside them.
    Outdated,
    /// It stopped at an event.
    Parked,
    /// A newer release has made its rows: only projectors of that release go on with them.
    Newer,
    /// Its checkpoint is ahead of the store, which is not the one it was: it gets a new history within seconds.
    Ahead,
}

/// How long an event may wait before a projection counts as behind.
pub(crate) const LIVE_WITHIN: TimeDelta = TimeDelta::seconds(3);

/// How far a projection is in one shard.
#[derive(Clone, Debug, Serialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: Shard,
    /// The history that its rows show: another than the store's while the read tables start over.
    pub history: HistoryId,
    /// Its rows show everything up to here.
    pub position: Position,
    /// The newest event of the shard.
    pub head: Position,
    /// How many events of the shard its rows do not show yet.
    pub lag: i64,
    /// Since when the first of them waits.
    pub waiting_since: Option<DateTime<Utc>>,
    /// The version of the projection that has made its rows; -1 while nobody has.
    pub version: i32,
    /// What it does.
    pub state: State,
    /// Where it has stopped, where it has.
    pub parked: Option<Parked>,
}

/// Where a projection has stopped.
#[derive(Clone, Debug, Serialize)]
pub struct Parked {
    /// The event it could not fold.
    pub event_id: EventId,
    /// That event's place in the store.
    pub position: Position,
    /// Why.
    pub reason: String,
    /// Since when.
    pub at: DateTime<Utc>,
}

/// Looks up how far everything is. `store` and `read` have the two schemas on their `search_path`.
///
/// # Errors
/// Those of the databases.
pub async fn status(store: &PgPool, read: &PgPool) -> sqlx::Result<Status> {
    // The read tables first: what they show is in the store, so that no lag is below zero.
    let shards = sqlx::query!(
        r#"select c.projection, c.shard, c.history, c.position, c.version, p.event_id as "event_id?",
            p.position as "stopped_at?", p.reason as "reason?", p.parked_at as "parked_at?"
        from checkpoint c left join parked p using (projection, shard) order by 1, 2"#
    )
    .fetch_all(read)
    .await?;
    let head = sqlx::query!(
        r#"select history as "history!", position as "position!",
            (select max(position) from relay r where r.history = h.history) as relayed
        from store_head h"#
    )
    .fetch_one(store)
    .await?;
    // Most projections stand at the same place: what is behind that is counted once.
    let place = |shard: i16, of: Uuid, position| (shard, if of == head.history { position } else { 0 });
    let places: BTreeSet<(i16, Position)> =
        shards.iter().map(|row| place(row.shard, row.history, row.position)).collect();
    let (numbers, positions): (Vec<i16>, Vec<Position>) = places.iter().copied().unzip();
    let behind = sqlx::query!(
        r#"select coalesce(newest.position, 0) as "head!", coalesce(l.lag, 0) as "lag!", first.recorded_at as "since?"
        from unnest($1::smallint[], $2::bigint[]) with ordinality c (shard, position, nth)
        left join lateral (
            select position from events
            where (shard, position) >= (c.shard, 0) and (shard, position) <= (c.shard, $3)
            order by shard desc, position desc limit 1
        ) newest on true
        left join lateral (
            select recorded_at from events
            where (shard, position) > (c.shard, c.position) and (shard, position) <= (c.shard, $3)
            order by shard, position limit 1
        ) first on true
        left join lateral (
            select count(*) as lag from events
            where shard = c.shard and position > c.position and first.recorded_at is not null
        ) l on true
        order by c.nth"#,
        &numbers,
        &positions,
        Position::MAX,
    )
    .fetch_all(store)
    .await?;
    let behind: BTreeMap<_, _> = places.into_iter().zip(behind).collect();
    let now = Utc::now();
    let ours = crate::projections();
    let versions: BTreeMap<_, _> = ours.iter().map(|projection| (projection.name(), projection.version())).collect();
    let mut projections: BTreeMap<String, Vec<ShardStatus>> = BTreeMap::new();
    for row in shards {
        let behind = behind.get(&place(row.shard, row.history, row.position));
        let (Ok(shard), Some(behind)) = (Shard::try_from(row.shard), behind) else { continue };
        let parked = row.event_id.zip(row.stopped_at).zip(row.reason).zip(row.parked_at);
        let ours = versions.get(&*row.projection).copied().unwrap_or(row.version);
        projections.entry(row.projection).or_default().push(ShardStatus {
            shard,
            history: HistoryId(row.history),
            position: row.position,
            version: row.version,
            head: behind.head,
            lag: behind.lag,
            waiting_since: behind.since,
            state: match behind.since {
                _ if row.history == head.history && row.position > behind.head => State::Ahead,
                _ if parked.is_some() => State::Parked,
                _ if row.version == UNMADE => State::CatchingUp,
                _ if row.version < ours => State::Outdated,
                _ if row.version > ours => State::Newer,
                Some(since) if now - since > LIVE_WITHIN => State::CatchingUp,
                _ => State::Live,
            },
            parked: parked.map(|(((event_id, position), reason), at)| Parked {
                event_id: EventId(event_id),
                position,
                reason,
                at,
            }),
        });
    }
    Ok(Status {
        history: HistoryId(head.history),
        head: head.position,
        relayed: head.relayed,
        projections,
        rebuilding: rebuilding(read).await?,
    })
}

/// The projections that somebody makes anew at the moment: one that was killed is not at it.
pub(crate) async fn rebuilding(read: &PgPool) -> sqlx::Result<BTreeSet<String>> {
    // Asked every few seconds: this costs less than to look through all locks.
    if !sqlx::query_scalar!(r#"select to_regclass('rebuild.checkpoint') is not null as "there!""#)
        .fetch_one(read)
        .await?
    {
        return Ok(BTreeSet::new());
    }
    if Lease::holder(rebuild::LOCK, read).await?.is_none() {
        return Ok(BTreeSet::new());
    }
    // They may be gone by now.
    let names = sqlx::query_scalar("select distinct projection from rebuild.checkpoint").fetch_all(read).await;
    Ok(names.unwrap_or_default().into_iter().collect())
}

/// Lets a projection that stopped in a shard try again; answers whether it had stopped. The projector takes it up within
/// two seconds.
///
/// # Errors
/// Those of the database.
pub async fn retry(read: &PgPool, projection: &str, shard: Shard) -> sqlx::Result<bool> {
    let parked = sqlx::query!("delete from parked where projection = $1 and shard = $2", projection, i16::from(shard));
    Ok(parked.execute(read).await?.rows_affected() > 0)
}

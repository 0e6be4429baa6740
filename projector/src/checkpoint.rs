//! How far each projection has come in each shard, as the database has it: checkpoints, parked shards, skipped events.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use events::{EventId, HistoryId, Position, Shard};
use platform::sabotage::{Promise, breaks};
use sqlx::{PgConnection, PgExecutor, PgPool, Row as _, postgres::PgRow};
use store_reader::EVERY_READER;
use uuid::Uuid;

use crate::{apply::AnyProjection, batch::Item, lanes::Move, table::Guard};

/// Where a projection stands in a shard.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) projection: String,
    pub(crate) shard: Shard,
    pub(crate) history: HistoryId,
    pub(crate) position: Position,
    /// The event there; none before the first.
    pub(crate) event_id: Option<EventId>,
    /// How often a rebuild has put other rows in the place of its rows: who folded into the ones before does not write.
    pub(crate) built: i32,
    /// [`Projection::VERSION`](crate::projection::Projection::VERSION) of what made its rows.
    pub(crate) version: i32,
    /// The event that it stopped at, where it has, and when.
    pub(crate) parked: Option<(EventId, DateTime<Utc>)>,
}

/// The event at which a projection stopped, and why.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Park {
    pub(crate) event_id: EventId,
    pub(crate) position: Position,
    pub(crate) reason: String,
    /// Whether nobody can read it: then no projection is to blame.
    pub(crate) unreadable: bool,
}

impl Park {
    pub(crate) fn at(item: &Item, reason: String) -> Self {
        Self { event_id: item.event_id, position: item.position, reason, unreadable: item.content.is_err() }
    }
}

/// Every checkpoint there is.
pub(crate) async fn all(read: impl PgExecutor<'_>) -> sqlx::Result<Vec<Checkpoint>> {
    let rows = sqlx::query!(
        r#"select projection, shard, history, c.position, c.event_id, c.built, c.version,
            p.event_id as "parked?", p.parked_at as "parked_at?"
        from checkpoint c left join parked p using (projection, shard)"#
    );
    let rows = rows.fetch_all(read).await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Checkpoint {
                projection: row.projection,
                shard: Shard::try_from(row.shard).ok()?,
                history: HistoryId(row.history),
                position: row.position,
                event_id: row.event_id.map(EventId),
                built: row.built,
                version: row.version,
                parked: row.parked.map(EventId).zip(row.parked_at),
            })
        })
        .collect())
}

/// The version of a checkpoint whose rows nobody has made yet: they are to be made beside the live tables, as those of an
/// older release.
pub(crate) const UNMADE: i32 = -1;
/// Events that are sooner folded beside the live tables and put in their place than into them.
const MANY: Position = 10_000;

/// The names of projections, and beside them the versions with which their checkpoints begin, before so many events.
pub(crate) fn beginnings(projections: &[Box<dyn AnyProjection>], head: Position) -> (Vec<String>, Vec<i32>) {
    let (names, versions) = versions(projections);
    let versions = if head < MANY { versions } else { vec![UNMADE; names.len()] };
    (names, versions)
}

/// The names of projections, and beside them their versions.
pub(crate) fn versions(projections: &[Box<dyn AnyProjection>]) -> (Vec<String>, Vec<i32>) {
    projections.iter().map(|projection| (projection.name().to_owned(), projection.version())).unzip()
}

/// Adds the checkpoints that are missing, at the beginning of a history.
pub(crate) async fn ensure(
    read: impl PgExecutor<'_>,
    (names, versions): (Vec<String>, Vec<i32>),
    history: HistoryId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into checkpoint (projection, version, shard, history)
        select name, version, shard, $3
        from unnest($1::text[], $2::integer[]) p (name, version) cross join generate_series(0, 63) s (shard)
        on conflict do nothing",
        &names,
        &versions,
        history.0,
    )
    .execute(read)
    .await?;
    Ok(())
}

/// Says of rows that nobody has made yet that they are of these versions, and may be folded into; answers of how many shards.
pub(crate) async fn made_by(read: impl PgExecutor<'_>, names: &[String], versions: &[i32]) -> sqlx::Result<u64> {
    let made = sqlx::query!(
        "update checkpoint c set version = p.version
        from unnest($1::text[], $2::integer[]) p (name, version)
        where c.projection = p.name and c.version = $3 and c.position = 0",
        names,
        versions,
        UNMADE,
    );
    Ok(made.execute(read).await?.rows_affected())
}

/// Moves checkpoints on, each from where it is believed to stand, all or none: selects the shards of those that do not
/// stand there. The rows stay locked until the transaction ends, so that nobody else writes the rows of the shards
/// meanwhile. `patient`: waits for who has them locked; else that is an error.
pub(crate) fn advance(history: HistoryId, moves: &[(&'static str, &Move)], batch: &[Item], patient: bool) -> Guard {
    let (mut projections, mut shards, mut from, mut built) = (vec![], vec![], vec![], vec![]);
    let (mut to, mut events) = (vec![], vec![]);
    for (projection, its) in moves {
        let (position, event) = its.to(batch);
        projections.push((*projection).to_owned());
        shards.push(i16::from(its.shard));
        from.push(Some(its.from).filter(|_| !breaks(Promise::NoCompareAndSet)));
        built.push(its.built);
        to.push(position);
        events.push(event.map(|id| id.0));
    }
    let wait = if patient { "" } else { "nowait" };
    Guard {
        with: format!(
            "moves as materialized (
                select *
                from unnest($1::text[], $2::smallint[], $3::bigint[], $4::integer[], $5::bigint[], $6::uuid[])
                    m (projection, shard, old, built, position, event_id)
            ), stood as (
                select m.projection, m.shard, m.position, m.event_id
                from moves m join checkpoint c on c.projection = m.projection and c.shard = m.shard
                where c.position = coalesce(m.old, c.position) and c.built = m.built and c.history = $7
                for update of c {wait}
            ), all_stood as (
                select true from (select count(*) as many from stood) s where many = cardinality($1)
            ), advanced as (
                update checkpoint c set position = s.position, event_id = coalesce(s.event_id, c.event_id)
                from stood s cross join all_stood
                where c.projection = s.projection and c.shard = s.shard
            )"
        ),
        joined: " cross join all_stood",
        select: "select shard from (select projection, shard from moves except select projection, shard from stood) s",
        parameters: 7,
        bind: Box::new(move |statement| {
            let statement = statement.bind(projections).bind(shards).bind(from).bind(built).bind(to).bind(events);
            statement.bind(history.0)
        }),
    }
}

/// The shards that [`advance`] selects.
pub(crate) fn stale(said: &[PgRow]) -> sqlx::Result<HashSet<Shard>> {
    let shards = said.iter().map(|row| row.try_get::<i16, _>(0));
    shards.filter_map(|shard| shard.map(|shard| Shard::try_from(shard).ok()).transpose()).collect()
}

/// Notes that a projection stopped in a shard.
pub(crate) async fn park(read: &mut PgConnection, projection: &str, shard: Shard, park: &Park) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into parked (projection, shard, position, event_id, reason) values ($1, $2, $3, $4, $5)
        on conflict (projection, shard) do update
        set position = excluded.position, event_id = excluded.event_id, reason = excluded.reason,
            parked_at = clock_timestamp()",
        projection,
        i16::from(shard),
        park.position,
        park.event_id.0,
        // Postgres keeps no NUL in a text.
        park.reason.replace('\0', "\u{fffd}"),
    )
    .execute(read)
    .await?;
    Ok(())
}

/// Lets a projection go on that stopped at an event, where it still stands there.
pub(crate) async fn go_on(
    read: impl PgExecutor<'_>,
    projection: &str,
    shard: Shard,
    event: EventId,
) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from parked where projection = $1 and shard = $2 and event_id = $3",
        projection,
        i16::from(shard),
        event.0,
    )
    .execute(read)
    .await?;
    Ok(())
}

/// Of these events, those that were repaired, and when that was last.
pub(crate) async fn repaired(store: &PgPool, events: &[EventId]) -> sqlx::Result<HashMap<EventId, DateTime<Utc>>> {
    let ids: Vec<Uuid> = events.iter().map(|event| event.0).collect();
    let found = sqlx::query!(
        r#"select event_id, max(repaired_at) as "at!" from repairs where event_id = any($1) group by event_id"#,
        &ids,
    );
    Ok(found.fetch_all(store).await?.into_iter().map(|row| (EventId(row.event_id), row.at)).collect())
}

/// The events that operators let each of these projections pass by: its own, and those that every reader leaves out.
pub(crate) async fn skipped(
    store: &PgPool,
    projections: &[Box<dyn AnyProjection>],
) -> sqlx::Result<HashMap<String, HashSet<EventId>>> {
    let mut skipped: HashMap<String, HashSet<EventId>> = HashMap::new();
    for row in sqlx::query!("select projection, event_id from skips").fetch_all(store).await? {
        skipped.entry(row.projection).or_default().insert(EventId(row.event_id));
    }
    let by_all = skipped.remove(EVERY_READER).unwrap_or_default();
    for projection in projections {
        skipped.entry(projection.name().to_owned()).or_default().extend(&by_all);
    }
    Ok(skipped)
}

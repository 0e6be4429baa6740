//! Recognises a store that was restored or replaced, and starts over on it.
//!
//! Beside each checkpoint stands the event that was there, and so does one in each message. A store that does not have
//! it is not the one it was: it gets a new history, and what was made of the old one is made again. Where nobody remembers
//! what it does not have, an operator [begins](begin) one. Each is on record ([`all`]).

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use events::{EventId, HistoryId, Position};
use platform::origin;
use serde::Serialize;
use sqlx::{PgPool, Postgres, Transaction};
use store_reader::StoreReader;

use crate::{
    apply::AnyProjection,
    checkpoint::{self, Checkpoint},
    metrics::Metrics,
};

/// The lock of every append (`migrations/event-store/0013_append.sql`).
const APPEND_LOCK: i64 = 418_463_542_881;
/// The lock of who starts the read tables over: "readinit" in ASCII.
const START_OVER_LOCK: i64 = 0x7265_6164_696e_6974;

/// Histories that [`all`] answers, at most: the newest. Each is a restored backup.
const MOST_SHOWN: i64 = 1_000;

/// A line of positions that took the place of another.
#[derive(Clone, Debug, Serialize)]
pub struct Begun {
    /// Its name.
    pub history: HistoryId,
    /// The one before it.
    pub replaced: HistoryId,
    /// Up to here, both have the same events.
    pub position: Position,
    /// Why it began.
    pub reason: String,
    /// Who said so, or which process found it out.
    pub by: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// An event that somebody has seen at a position.
pub(crate) type Seen = (Position, EventId);

/// What checkpoints of the store's own history have seen.
pub(crate) fn seen_by(checkpoints: &[Checkpoint], history: HistoryId) -> Vec<Seen> {
    let ours = checkpoints.iter().filter(|checkpoint| checkpoint.history == history);
    ours.filter_map(|checkpoint| Some((checkpoint.position, checkpoint.event_id?))).collect()
}

/// Looks everything up that was seen, and gives the store a new history where it does not have it. Answers the history
/// that holds from now on.
pub(crate) async fn verify(
    store: &StoreReader,
    history: HistoryId,
    mut seen: Vec<Seen>,
    metrics: &Metrics,
) -> sqlx::Result<HistoryId> {
    seen.sort_unstable();
    seen.dedup();
    let positions: Vec<Position> = seen.iter().map(|(position, _)| *position).collect();
    let found: HashMap<Position, EventId> = store.find(&positions).await?;
    let Some((position, event)) = seen.into_iter().find(|(position, event)| found.get(position) != Some(event)) else {
        return Ok(history);
    };
    let reason =
        format!("it does not have event {event} at position {position}, which was projected or relayed before");
    let by = format!("the projector at {}", origin::host());
    let new = renew(store.pool(), Some(history), &reason, &by).await?;
    metrics.alarm("restored");
    tracing::error!(
        %new,
        "the event store is not the one it was: it does not have event {event} at position {position}, which was \
         projected or relayed before. A backup was restored, or another database put in its place. It goes on as a new \
         history, and the read tables are made anew from it; nothing needs to be done (`agora projections status` shows \
         how far they are)"
    );
    Ok(new)
}

/// Gives the store a new history, whatever anybody remembers: of a restored backup.
///
/// # Errors
/// Those of the database.
pub async fn begin(store: &PgPool, reason: &str, by: &str) -> sqlx::Result<Begun> {
    let history = renew(store, None, reason, by).await?;
    let begun = all(store).await?.into_iter().find(|begun| begun.history == history);
    begun.ok_or(sqlx::Error::RowNotFound)
}

/// The histories that took the place of another, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn all(store: &PgPool) -> sqlx::Result<Vec<Begun>> {
    let rows = sqlx::query!(
        "select history, replaced, position, reason, begun_by, begun_at from histories order by begun_at desc limit $1",
        MOST_SHOWN,
    );
    let all = rows.fetch_all(store).await?.into_iter().map(|row| Begun {
        history: HistoryId(row.history),
        replaced: HistoryId(row.replaced),
        position: row.position,
        reason: row.reason,
        by: row.begun_by,
        at: row.begun_at,
    });
    Ok(all.collect())
}

/// The services that have sessions in the store's database, by the names of these; nobody who froze is forgotten.
///
/// # Errors
/// Those of the database.
pub async fn serving(store: &PgPool) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select distinct regexp_replace(application_name, '^agora-jobs .*', 'agora-jobs') as "name!"
        from pg_stat_activity
        where datname = current_database() and (application_name in
            ('agora command-service', 'agora query-service', 'agora-projector', 'agora-relay', 'agora-rebuild')
            or application_name like 'agora-jobs %')
        order by 1"#
    )
    .fetch_all(store)
    .await
}

/// Gives the store a new history, unless it is another than `old` by now: somebody else did. No append is on its way
/// meanwhile: what it answers names the history that holds.
async fn renew(store: &PgPool, old: Option<HistoryId>, reason: &str, by: &str) -> sqlx::Result<HistoryId> {
    let mut transaction = while_nobody_appends(store).await?;
    sqlx::query!(
        "with renewed as (
            update history_line h set history = gen_random_uuid()
            from (select history from history_line) o
            where o.history = coalesce($1, o.history)
            returning h.history, o.history as replaced
        )
        insert into histories (history, replaced, position, reason, begun_by)
        select r.history, r.replaced, h.position, $2, $3 from renewed r, store_head h",
        old.map(|old| old.0),
        reason,
        by,
    )
    .execute(&mut *transaction)
    .await?;
    let new = sqlx::query_scalar!("select history from history_line").fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(HistoryId(new))
}

/// A transaction that keeps appends waiting until it ends.
pub(crate) async fn while_nobody_appends(store: &PgPool) -> sqlx::Result<Transaction<'static, Postgres>> {
    let mut transaction = store.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", APPEND_LOCK).execute(&mut *transaction).await?;
    Ok(transaction)
}

/// Empties the read tables where they show another history than the store has, and puts their checkpoints at the
/// beginning of that; answers it. Skipped events stay skipped: they are named by their ids.
pub(crate) async fn start_over(
    store: &StoreReader,
    read: &PgPool,
    projections: &[Box<dyn AnyProjection>],
) -> sqlx::Result<HistoryId> {
    let (names, versions) = checkpoint::beginnings(projections, store.heads().await?.furthest());
    let mut transaction = read.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", START_OVER_LOCK).execute(&mut *transaction).await?;
    // Under the lock: who waited for it may have read one that another has replaced since.
    let history = store.history().await?;
    // First of all, as every writer of a shard does: who waits for whom is always the same.
    let others = sqlx::query!(
        "update checkpoint c
        set history = $1, position = 0, event_id = null, version = p.version
        from unnest($2::text[], $3::integer[]) p (name, version)
        where c.projection = p.name and c.history <> $1",
        history.0,
        &names,
        &versions,
    );
    if others.execute(&mut *transaction).await?.rows_affected() > 0 {
        sqlx::query!("delete from parked").execute(&mut *transaction).await?;
        let tables: Vec<&str> = projections.iter().flat_map(|it| it.tables()).map(|kept| kept.name).collect();
        let truncate = format!("truncate {}", tables.join(", "));
        sqlx::query(&truncate).execute(&mut *transaction).await?;
        tracing::warn!(%history, "the read tables start over");
    }
    transaction.commit().await?;
    Ok(history)
}

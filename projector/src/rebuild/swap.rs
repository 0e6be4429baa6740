//! Putting what was built in the place of what is live.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, Utc};
use events::Shard;
use sqlx::PgConnection;
use tokio::time::Instant;

use super::{Comparison, Phase, Rebuild, SHADOW, Silent, Targets, Watch, compare, shadow::execute};
use crate::READ;

/// How long the transaction waits for the checkpoints.
const LOCK_WAIT: &str = "set local lock_timeout = '100ms'";
/// How long it waits for the tables, all of them together: readers queue behind it meanwhile.
const TABLES_WAIT: &str = "set local statement_timeout = '100ms'";
/// Between two tries: time for those who queued.
const TRY_AGAIN: Duration = Duration::from_millis(200);
/// Tries before it gives up: a reader that holds a table for longer than this is one that somebody should end.
const TRIES: usize = 150;
/// Events that may be left to fold while the live projection waits.
const FEW: i64 = 500;
/// Rounds of catching up, each of what came during the one before.
const CATCH_UPS: usize = 20;
/// How long that may take.
const LIVE_WAITS: Duration = Duration::from_secs(2);
/// How long it waits for older snapshots to pass: the live projection waits meanwhile.
const SNAPSHOTS_WAIT: Duration = Duration::from_millis(100);
/// How often it looks for them.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Rows of a shard that are put right one by one, at most.
const MOST_ROWS: usize = 10_000;
/// Rounds of comparing and putting right: a row that was wrong may have led the live projection to another wrong one.
const ROUNDS: usize = 3;

/// A transaction that reads as of one moment: its process, and when it began.
type Snapshot = (i32, DateTime<Utc>);

/// Why the swap waits, and tries again.
#[derive(Debug, thiserror::Error)]
#[error("a transaction of process {0} of Postgres reads as of a moment before")]
struct OldSnapshot(i32);

impl Rebuild {
    /// Folds up to the head, and puts the tables that were built in the place of the live ones, with their checkpoints.
    ///
    /// # Errors
    /// Where an event cannot be folded, a reader does not let go of a table, or a database is away. What is live is then
    /// as it was, and the next try goes on.
    pub async fn swap(self, watch: &dyn Watch) -> anyhow::Result<()> {
        ensure!(self.what.shard.is_none(), "a part is repaired, not swapped");
        // Before there are indexes, and before the planner is told about tables that have no rows yet.
        self.fold_to(&self.heads(&self.live_positions().await?).await?, Some(Phase::Folding), watch).await?;
        self.make_indexes(watch).await?;
        self.catch_up(watch).await?;
        let mut tries = 0;
        while let Err(error) = self.try_swap().await {
            tries += 1;
            let waits = error.is::<OldSnapshot>() || error.downcast_ref::<sqlx::Error>().is_some_and(is_lock_timeout);
            if !waits || tries == TRIES {
                return Err(error.context("cannot take the place of the live tables, which are as they were"));
            }
            tokio::time::sleep(TRY_AGAIN).await;
            self.catch_up(&Silent).await?;
        }
        self.discard().await
    }

    /// Puts right the rows of one shard that differ from what was built, and answers what those were.
    ///
    /// # Errors
    /// Where more rows differ than can be put right one by one, or they come back wrong.
    pub async fn repair(self, watch: &dyn Watch) -> anyhow::Result<Comparison> {
        let shard = self.what.shard.context("only a shard is repaired row by row")?;
        let mut first = None;
        for _ in 0..ROUNDS {
            self.fold_to(&self.live_positions().await?, Some(Phase::Folding), watch).await?;
            let found = self.compare_rows(MOST_ROWS, watch).await?;
            ensure!(!found.more, "more than {MOST_ROWS} rows differ in shard {shard}: rebuild the projections whole");
            let right = found.differences.is_empty();
            let first = first.get_or_insert_with(|| found.clone());
            if right {
                let first = first.clone();
                self.discard().await?;
                return Ok(first);
            }
            let mut tries = 0;
            while let Err(error) = self.put_right(shard, &found).await {
                tries += 1;
                if tries == TRIES || !error.downcast_ref::<sqlx::Error>().is_some_and(is_lock_timeout) {
                    return Err(error);
                }
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
        bail!("rows of shard {shard} that were put right differ again: that is a defect of the live projection")
    }

    /// Folds up to the head until little is left.
    async fn catch_up(&self, watch: &dyn Watch) -> anyhow::Result<()> {
        for _ in 0..CATCH_UPS {
            let heads = self.heads(&self.live_positions().await?).await?;
            let stand = self.positions(&self.shadow).await?;
            let furthest = |lanes: &Targets| lanes.values().max().copied().unwrap_or(0);
            let few = furthest(&heads) - furthest(&stand) < FEW;
            self.fold_to(&heads, Some(Phase::Swapping), watch).await?;
            if few {
                return Ok(());
            }
        }
        bail!("events come faster than they are folded: try again when less is written")
    }

    /// The store's heads, and no less than where the live lanes stand.
    async fn heads(&self, live: &Targets) -> anyhow::Result<Targets> {
        let heads = self.store.heads().await?;
        Ok(live.iter().map(|(lane, position)| (*lane, heads.of(lane.1).max(*position))).collect())
    }

    async fn try_swap(&self) -> anyhow::Result<()> {
        let mut transaction = self.live.begin().await?;
        sqlx::query(LOCK_WAIT).execute(&mut *transaction).await?;
        self.hold_live(&mut transaction).await?;
        ensure!(self.holds_lock().await, "the connection that kept other rebuilds away is gone: start again");
        // Rows are never shown that are older than those that were: the live projection waits meanwhile.
        let heads = self.heads(&self.live_positions().await?).await?;
        tokio::time::timeout(LIVE_WAITS, self.fold_to(&heads, None, &Silent))
            .await
            .context("the live projection would have to wait too long")??;
        self.older_snapshots_pass().await?;
        let tables: Vec<String> = self.tables().iter().map(|table| format!("{READ}.{table}")).collect();
        execute(&mut transaction, TABLES_WAIT).await?;
        execute(&mut transaction, &format!("lock table {} in access exclusive mode", tables.join(", "))).await?;
        execute(&mut transaction, "set local statement_timeout = 0").await?;
        // No migration came in between: it would be undone.
        let found: String = sqlx::query_scalar("select what from rebuild.build").fetch_one(&mut *transaction).await?;
        ensure!(
            found == self.description().await?,
            "the tables were migrated or their history replaced meanwhile: start again"
        );
        // Who goes on with what is there after a kill would miss the tables.
        execute(&mut transaction, &format!("drop table {SHADOW}.build")).await?;
        for table in self.tables() {
            grant_alike(table, &mut transaction).await?;
            let swap = format!("drop table {READ}.{table}; alter table {SHADOW}.{table} set schema {READ}");
            execute(&mut transaction, &swap).await?;
        }
        let names: Vec<&str> = self.names();
        sqlx::query(
            "update read.checkpoint c
            set position = s.position, event_id = s.event_id, history = s.history, version = s.version,
                built = c.built + 1
            from rebuild.checkpoint s
            where c.projection = any($1) and (s.projection, s.shard) = (c.projection, c.shard)",
        )
        .bind(&names)
        .execute(&mut *transaction)
        .await?;
        sqlx::query("delete from read.parked where projection = any($1)")
            .bind(&names)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Waits for readers whose snapshot may be older than what was folded last: who names a table for the first time after
    /// the swap would find the new one without its last rows. A statement by itself has named all its tables when it runs;
    /// and whoever waits for a lock is the live projection, which waits for this.
    async fn older_snapshots_pass(&self) -> anyhow::Result<()> {
        let held = "select pid, xact_start from pg_stat_activity
            where datname = current_database() and backend_type = 'client backend' and application_name <> $1
                and backend_xmin is not null and wait_event_type is distinct from 'Lock'
                and (state <> 'active' or xact_start <> query_start)";
        let ours: String =
            sqlx::query_scalar("select current_setting('application_name')").fetch_one(&self.live).await?;
        let held = async || sqlx::query_as::<_, Snapshot>(held).bind(&ours).fetch_all(&self.live).await;
        let (mut older, deadline) = (held().await?, Instant::now() + SNAPSHOTS_WAIT);
        while !older.is_empty() {
            ensure!(Instant::now() < deadline, OldSnapshot(older[0].0));
            tokio::time::sleep(LOOK_AGAIN).await;
            let now = held().await?;
            older.retain(|snapshot| now.contains(snapshot));
        }
        Ok(())
    }

    /// Locks the checkpoints of the lanes, as who writes their rows does first of all.
    async fn hold_live(&self, on: &mut PgConnection) -> sqlx::Result<()> {
        let shards: Vec<i16> = self.shards().into_iter().map(i16::from).collect();
        sqlx::query(
            "select 1 from read.checkpoint where projection = any($1) and shard = any($2)
            order by projection, shard for update",
        )
        .bind(self.names())
        .bind(shards)
        .execute(on)
        .await?;
        Ok(())
    }

    /// Replaces rows by those that were built, both sides at the same positions.
    async fn put_right(&self, shard: Shard, found: &Comparison) -> anyhow::Result<()> {
        let mut transaction = self.live.begin().await?;
        sqlx::query(LOCK_WAIT).execute(&mut *transaction).await?;
        self.hold_live(&mut transaction).await?;
        ensure!(self.holds_lock().await, "the connection that kept other rebuilds away is gone: start again");
        self.fold_to(&self.live_positions().await?, None, &Silent).await?;
        for table in self.tables() {
            let keys: Vec<_> = found.differences.iter().filter(|it| it.table == table).map(|it| &it.key).collect();
            if keys.is_empty() {
                continue;
            }
            let key = compare::key(table, &mut transaction).await?.join(", ");
            let keys = serde_json::to_value(&keys)?;
            let named = format!("({key}) in (select {key} from jsonb_populate_recordset(null::{READ}.{table}, $1))");
            let delete = format!("delete from {READ}.{table} where {named}");
            sqlx::query(&delete).bind(&keys).execute(&mut *transaction).await?;
            let insert = format!("insert into {READ}.{table} select * from {SHADOW}.{table} where {named}");
            sqlx::query(&insert).bind(&keys).execute(&mut *transaction).await?;
        }
        sqlx::query("update read.checkpoint set built = built + 1 where projection = any($1) and shard = $2")
            .bind(self.names())
            .bind(i16::from(shard))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Whoever was granted something on the live table is granted it on the new one.
async fn grant_alike(table: &str, on: &mut PgConnection) -> sqlx::Result<()> {
    let grants: Vec<String> = sqlx::query_scalar(
        "select format('grant %s on rebuild.%I to %s', g.privilege_type, c.relname,
            case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end)
        from pg_class c cross join aclexplode(c.relacl) g
        where c.oid = $1::text::regclass and g.grantee <> c.relowner",
    )
    .bind(format!("{READ}.{table}"))
    .fetch_all(&mut *on)
    .await?;
    for grant in grants {
        execute(on, &grant).await?;
    }
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    // lock_not_available; deadlock_detected; query_canceled, by TABLES_WAIT.
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["55P03", "40P01", "57014"].contains(&&*code))
}

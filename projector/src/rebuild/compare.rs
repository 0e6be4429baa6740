//! Comparing what was built with the live rows: by hashes, bucket by bucket, and row by row where those differ.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use anyhow::{bail, ensure};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::{Connection as _, PgConnection, types::Json};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Phase, Rebuild, SHADOW, Touched, Watch};
use crate::{READ, apply::AnyProjection, checkpoint::UNMADE, projection::Kept};

/// Parts that a table's keys are spread over: where one differs, so many rows less are looked at.
const BUCKETS: i64 = 1024;
/// How long the live tables may be behind what a killed rebuild has built, where they do not stand still for good.
const LIVE_COMES: Duration = Duration::from_secs(10);

/// What a comparison found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// Live rows that were compared.
    pub rows: u64,
    /// The first rows that differ.
    pub differences: Vec<Difference>,
    /// There are more than these.
    pub more: bool,
}

/// A row that a rebuild makes otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Its projection.
    pub projection: &'static str,
    /// Its table.
    pub table: &'static str,
    /// Its primary key.
    pub key: Map<String, Value>,
    /// The columns that differ, each as it is live and as rebuilt; all of them where one side has no such row.
    pub columns: BTreeMap<String, (Option<Value>, Option<Value>)>,
    /// The last events that touched it, as far as its columns name them; the newest first.
    pub events: Vec<Touched>,
}

/// A table on both sides.
struct Sides<'a> {
    table: &'static str,
    key: Vec<String>,
    /// What limits it to a shard, by its owners.
    owned: &'a str,
    owners: &'a [Uuid],
}

/// Whole tables are read here, in whatever order: not by key, as the connection is set to ([`platform::db::BY_KEY`]).
const WHOLE_TABLES: &str = "select set_config(name, 'on', true) from unnest('{enable_seqscan,enable_bitmapscan,enable_hashjoin}'::text[]) s (name)";

/// How many rows, and a hash of all of them, by bucket.
type Buckets = HashMap<i32, (i64, Option<i64>)>;

impl Rebuild {
    /// Compares in one snapshot of the live tables, with what was built folded to exactly where they stand in it;
    /// tells of `most` rows that differ.
    ///
    /// # Errors
    /// Where the live tables stay behind what was built, or a database is away.
    pub(super) async fn compare_rows(&self, most: usize, watch: &dyn Watch) -> anyhow::Result<Comparison> {
        self.comparable().await?;
        let mut live = self.live.acquire().await?;
        let mut live = self.snapshot(&mut live).await?;
        let targets = self.positions(&mut *live).await?;
        self.fold_to(&targets, None, watch).await?;
        let mut shadow = self.shadow.begin().await?;
        sqlx::query(WHOLE_TABLES).execute(&mut *shadow).await?;
        let owners = self.owners().await?;
        watch.begins(Phase::Comparing, self.tables().len() as u64, 0);
        let mut comparison = Comparison { rows: 0, differences: Vec::new(), more: false };
        for projection in &self.projections {
            for Kept { name, owned } in projection.tables() {
                let owned = if self.what.shard.is_some() { owned } else { "$1::uuid[] is not null" };
                let sides = Sides { table: name, key: key(name, &mut live).await?, owned, owners: &owners };
                self.compare_table(projection.as_ref(), &sides, (&mut live, &mut shadow), most, &mut comparison)
                    .await?;
                watch.done(1);
            }
        }
        live.rollback().await?;
        Ok(comparison)
    }

    /// Whether the live rows are made by this release's projections.
    pub(super) async fn comparable(&self) -> anyhow::Result<()> {
        if let Some((name, ours, theirs)) = self.other_versions().await?.first() {
            ensure!(*theirs != UNMADE, "nobody has made the rows of {name} yet: the projector is about to");
            bail!("{name} is at version {theirs} here and of version {ours} in this release: rows that are to differ");
        }
        Ok(())
    }

    /// A snapshot of the live tables in which no lane is behind what was built.
    async fn snapshot<'c>(&self, live: &'c mut PgConnection) -> anyhow::Result<sqlx::Transaction<'c, sqlx::Postgres>> {
        let built = self.positions(&self.shadow).await?;
        let deadline = Instant::now() + LIVE_COMES;
        loop {
            let live = self.lanes(&self.live).await?;
            if built.iter().all(|(lane, position)| live.get(lane).is_some_and(|it| it.position >= *position)) {
                break;
            }
            if let Some((lane, _)) = built
                .iter()
                .find(|(lane, at)| live.get(lane).is_some_and(|it| it.parked.is_some() && it.position < **at))
            {
                bail!(
                    "{} has stopped in shard {} behind what was built before: it cannot be compared",
                    self.names()[lane.0],
                    lane.1
                );
            }
            if Instant::now() > deadline {
                bail!("the live tables stay behind what is built: is a projector running? `agora projections status`");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(live.begin_with("begin isolation level repeatable read, read only").await?)
    }

    /// The communities and accounts whose events are of the shard; none where all shards are compared.
    async fn owners(&self) -> sqlx::Result<Vec<Uuid>> {
        let Some(shard) = self.what.shard else { return Ok(Vec::new()) };
        sqlx::query_scalar!(
            r#"select distinct coalesce(community_id, aggregate_id::uuid) as "owner!" from events
            where shard = $1 and (community_id is not null or aggregate_type = 'account')"#,
            i16::from(shard)
        )
        .fetch_all(self.store.pool())
        .await
    }

    async fn compare_table(
        &self,
        projection: &dyn AnyProjection,
        sides: &Sides<'_>,
        (live, shadow): (&mut PgConnection, &mut PgConnection),
        most: usize,
        comparison: &mut Comparison,
    ) -> anyhow::Result<()> {
        let (here, there) = futures::try_join!(sides.buckets(READ, live), sides.buckets(SHADOW, shadow))?;
        comparison.rows += here.values().map(|(rows, _)| rows.unsigned_abs()).sum::<u64>();
        let mut differing: Vec<i32> = here.keys().chain(there.keys()).copied().collect();
        differing.sort_unstable();
        differing.dedup();
        differing.retain(|bucket| here.get(bucket) != there.get(bucket));
        for bucket in differing {
            let mut live = sides.rows(READ, bucket, live).await?;
            let mut built = sides.rows(SHADOW, bucket, shadow).await?;
            live.retain(|key, row| {
                let same = built.get(key) == Some(row);
                if same {
                    built.remove(key);
                }
                !same
            });
            let keys: std::collections::BTreeSet<String> = live.keys().chain(built.keys()).cloned().collect();
            for key in keys {
                if comparison.differences.len() == most {
                    comparison.more = true;
                    return Ok(());
                }
                let (live, built) = (live.remove(&key), built.remove(&key));
                let difference = self.difference(projection, sides, live, built).await?;
                comparison.differences.push(difference);
            }
        }
        Ok(())
    }

    async fn difference(
        &self,
        projection: &dyn AnyProjection,
        sides: &Sides<'_>,
        live: Option<Map<String, Value>>,
        built: Option<Map<String, Value>>,
    ) -> sqlx::Result<Difference> {
        let row = live.as_ref().or(built.as_ref()).cloned().unwrap_or_default();
        let of =
            |side: &Option<Map<String, Value>>, column: &str| side.as_ref().and_then(|row| row.get(column)).cloned();
        let columns = row.keys().map(|column| (column.clone(), (of(&live, column), of(&built, column))));
        let columns = columns.filter(|(_, (live, built))| live != built).collect();
        let key: Map<String, Value> =
            sides.key.iter().map(|column| (column.clone(), row.get(column).cloned().unwrap_or_default())).collect();
        let rows: Vec<_> = [live, built].into_iter().flatten().collect();
        let events = self.touched(projection, &key, &rows).await?;
        Ok(Difference { projection: projection.name(), table: sides.table, key, columns, events })
    }
}

impl Sides<'_> {
    fn bucket(&self) -> String {
        let key: Vec<String> = self.key.iter().map(|column| format!("t.{column}")).collect();
        format!("(hash_record_extended(row({}), 0) & {})::int", key.join(", "), BUCKETS - 1)
    }

    async fn buckets(&self, schema: &str, on: &mut PgConnection) -> sqlx::Result<Buckets> {
        let sql = format!(
            "select {}, count(*), bit_xor(hash_record_extended(t, 0)) from {schema}.{} t where {} group by 1",
            self.bucket(),
            self.table,
            self.owned
        );
        let rows: Vec<(i32, i64, Option<i64>)> = sqlx::query_as(&sql).bind(self.owners).fetch_all(on).await?;
        Ok(rows.into_iter().map(|(bucket, rows, hash)| (bucket, (rows, hash))).collect())
    }

    /// The rows of a bucket, by their keys as text.
    async fn rows(
        &self,
        schema: &str,
        bucket: i32,
        on: &mut PgConnection,
    ) -> sqlx::Result<BTreeMap<String, Map<String, Value>>> {
        let sql = format!(
            "select to_jsonb(t) from {schema}.{} t where {} and {} = $2",
            self.table,
            self.owned,
            self.bucket()
        );
        let rows: Vec<Json<Map<String, Value>>> =
            sqlx::query_scalar(&sql).bind(self.owners).bind(bucket).fetch_all(on).await?;
        let keyed = rows.into_iter().map(|row| {
            let key: Vec<String> = self.key.iter().map(|column| row[column].to_string()).collect();
            (key.join(" "), row.0)
        });
        Ok(keyed.collect())
    }
}

/// The columns of a live table's primary key.
pub(super) async fn key(table: &str, on: &mut PgConnection) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "select a.attname::text
        from pg_index i
        cross join unnest(i.indkey::smallint[]) with ordinality k (number, nth)
        join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
        where i.indrelid = $1::text::regclass and i.indisprimary order by k.nth",
    )
    .bind(format!("{READ}.{table}"))
    .fetch_all(on)
    .await
}

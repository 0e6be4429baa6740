//! A store that a test writes directly, and projectors over it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use agora_tests::postgres::fresh_database;
use chrono::{DateTime, Utc};
use events::Shard;
use platform::{
    db::DatabaseConfig,
    kafka::{Broker, KafkaConfig},
};
use projector::{
    State,
    rebuild::{Purpose, Rebuild, What},
};
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool, postgres::PgConnectOptions};
use store_reader::Wake;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use recorded::Recorded;

mod life;
mod recorded;

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// A database of a test's own.
#[derive(Clone)]
pub(crate) struct Lab {
    url: String,
    /// Both schemas.
    pub(crate) pool: PgPool,
}

/// A projector at work.
pub(crate) struct Running {
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(PATIENCE, self.tasks.wait()).await.expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let url = fresh_database().await;
        let options: PgConnectOptions = url.parse().expect("a URL");
        let pool = PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects");
        Self { url, pool }
    }

    /// Another database, with all of that projected at once.
    pub(crate) async fn with(history: &[Recorded]) -> Self {
        let lab = Self::new().await;
        lab.append(history).await;
        let running = lab.start().await;
        lab.all_shown().await;
        running.stop().await;
        lab
    }

    /// A projector on an in-process broker of its own.
    pub(crate) async fn start(&self) -> Running {
        self.start_with(&Broker::start(&KafkaConfig::default()).expect("a broker")).await
    }

    pub(crate) async fn start_on(&self, kafka: &KafkaConfig) -> Running {
        self.start_with(&Broker::start(kafka).expect("a broker")).await
    }

    pub(crate) async fn start_with(&self, broker: &Broker) -> Running {
        let database = DatabaseConfig { url: self.url.as_str().into(), ..DatabaseConfig::default() };
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (event_store, read_tables, broker) = (database.clone(), database, broker.clone());
        let parts = projector::Parts { event_store, read_tables, broker, wake: Wake::default() };
        projector::start(parts, shutdown.clone(), &tasks).await.expect("it starts");
        Running { shutdown, tasks }
    }

    /// Begins a rebuild of these projections; of one shard only, where that is named.
    pub(crate) async fn rebuild(&self, projections: &[&str], shard: Option<Shard>) -> anyhow::Result<Rebuild> {
        let database = DatabaseConfig { url: self.url.as_str().into(), ..DatabaseConfig::default() };
        let projections = projections.iter().map(|name| (*name).to_owned()).collect();
        let what = What { projections, shard, purpose: Purpose::Replace };
        Rebuild::begin(&database, &database, what).await
    }

    /// Appends events, all in one commit, and pings.
    pub(crate) async fn append(&self, events: &[Recorded]) {
        let mut transaction = self.pool.begin().await.expect("begins");
        insert(&mut transaction, events).await;
        transaction.commit().await.expect("commits");
        self.execute("notify agora_appended").await;
    }

    /// The store as a backup had it, when its last position was that.
    pub(crate) async fn restore(&self, position: i64) {
        self.execute("alter table events disable trigger events_append_only").await;
        self.execute(&format!("delete from events where position > {position}")).await;
        self.execute("alter table events enable trigger events_append_only").await;
        self.execute(&format!("update relay set position = least(position, {position})")).await;
    }

    /// Waits until every checkpoint stands at the head of its shard.
    pub(crate) async fn all_shown(&self) {
        self.until(
            "everything is shown",
            "select count(*) filter (where c.position = coalesce(h.position, 0) and c.history = s.history) = 7 * 64
            from checkpoint c cross join store_head s
            left join (select shard, max(position) as position from events group by shard) h using (shard)",
        )
        .await;
    }

    /// What every projection does in every shard.
    pub(crate) async fn states(&self) -> Vec<State> {
        let status = projector::status(&self.pool, &self.pool).await.expect("a status");
        status.projections.into_values().flatten().map(|shard| shard.state).collect()
    }

    /// Waits until a query answers true.
    pub(crate) async fn until(&self, what: &str, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.value(query).await != json!(true) {
            if Instant::now() >= deadline {
                let parked = self.value("select coalesce(json_agg(p), '[]') from parked p").await;
                panic!("not within {PATIENCE:?}: {what}; parked: {parked}");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The one value that a query answers; null where it answers none.
    pub(crate) async fn value(&self, query: &str) -> Value {
        let query = format!("select to_json(v) from ({query}) q (v)");
        let found: Option<Option<Value>> =
            sqlx::query_scalar(&query).fetch_optional(&self.pool).await.expect("an answer");
        found.flatten().unwrap_or_default()
    }

    /// Answers how many rows it touched.
    pub(crate) async fn execute(&self, statement: &str) -> u64 {
        let done = sqlx::query(statement).execute(&self.pool).await;
        done.unwrap_or_else(|error| panic!("{statement}: {error}")).rows_affected()
    }

    /// Every row of every read table, in text.
    pub(crate) async fn rows(&self) -> BTreeMap<String, Vec<String>> {
        let mut rows = BTreeMap::new();
        for table in self.tables().await {
            let query = format!("select row_to_json(t)::text from read.{table} t order by 1");
            let all = sqlx::query_scalar(&query).fetch_all(&self.pool).await.expect("the rows");
            rows.insert(table, all);
        }
        rows
    }

    /// The read tables as they are before the first event, checkpoints and rows together.
    pub(crate) async fn forget_rows(&self) {
        let mut transaction = self.pool.begin().await.expect("begins");
        let truncate = format!("truncate {}", self.tables().await.join(", "));
        for statement in ["update checkpoint set position = 0, event_id = null", &truncate] {
            sqlx::query(statement)
                .execute(&mut *transaction)
                .await
                .unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        transaction.commit().await.expect("commits");
    }

    async fn tables(&self) -> Vec<String> {
        let tables = sqlx::query_scalar(
            "select tablename::text from pg_tables where schemaname = 'read'
            and tablename not in ('checkpoint', 'parked', 'skipped', '_sqlx_migrations')",
        );
        tables.fetch_all(&self.pool).await.expect("the tables")
    }
}

/// Appends events to what a transaction has written already.
pub(crate) async fn insert(transaction: &mut PgConnection, events: &[Recorded]) {
    for event in events {
        sqlx::query(
            "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                position, shard, event_id, community_id, recorded_at)
            select $1, $2, (select count(*) + 1 from events where aggregate_type = $1 and aggregate_id = $2), $3, $4,
                $5::json, $6::json, h.position + 1, $7, $8, $9, $10
            from store_head h",
        )
        .bind(&event.stream.aggregate)
        .bind(&event.stream.id)
        .bind(&event.name)
        .bind(event.version.to_string())
        .bind(&event.payload)
        .bind(serde_json::to_string(&event.metadata).expect("JSON"))
        .bind(i16::from(event.shard))
        .bind(event.event_id.0)
        .bind(event.community.map(|id| id.0))
        .bind(DateTime::<Utc>::UNIX_EPOCH)
        .execute(&mut *transaction)
        .await
        .expect("it is appended");
    }
}

//! The databases of a running Agora, looked at directly.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, PgConnection};

/// How long the projections may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// A session that sees both schemas, once every projection has passed the store's head of every shard.
pub(crate) async fn caught_up(url: &str) -> PgConnection {
    let mut database = connect(url).await;
    let behind = "select exists (
        select from (select shard, max(position) as head from events group by shard) e
        where (select count(*) from checkpoint c where c.shard = e.shard and c.position >= e.head) < 7
    )";
    let deadline = Instant::now() + PATIENCE;
    while sqlx::query_scalar::<_, bool>(behind).fetch_one(&mut database).await.expect("it answers") {
        assert!(Instant::now() < deadline, "the projections are behind after {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
    database
}

/// A session that sees both schemas.
pub(crate) async fn connect(url: &str) -> PgConnection {
    let mut database = PgConnection::connect(url).await.expect("the database answers");
    database.execute("set search_path to store, read").await.expect("both schemas");
    database
}

/// How many events there are.
pub(crate) async fn events(url: &str) -> i64 {
    let mut database = connect(url).await;
    sqlx::query_scalar("select count(*) from events").fetch_one(&mut database).await.expect("it answers")
}

/// Every row of every read table, and every event, as JSON: all but where in the store's order it stands, and what is
/// given anew each time (an event's own id, the time of recording, the trace).
pub(crate) async fn all_rows(url: &str) -> BTreeMap<String, Vec<String>> {
    let mut database = caught_up(url).await;
    let tables = "select table_name::text from information_schema.tables
        where table_schema = 'read' and table_name not in ('checkpoint', 'parked', 'skipped', '_sqlx_migrations')";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut database).await.expect("tables");
    assert!(tables.len() >= 15, "{tables:?}");
    let read = |table: &String| {
        let row = "to_jsonb(it) - 'position' - 'written_position'";
        (table.clone(), format!("select ({row})::text from read.\"{table}\" it"))
    };
    let mut queries: Vec<_> = tables.iter().map(read).collect();
    let event = "jsonb_build_array(aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
        metadata->'occurred_at', metadata->'actor', community_id, shard)";
    queries.push(("events".into(), format!("select ({event})::text from events")));
    let mut rows = BTreeMap::new();
    for (table, query) in queries {
        let mut found: Vec<String> = sqlx::query_scalar(&query).fetch_all(&mut database).await.expect("rows");
        found.sort();
        rows.insert(table, found);
    }
    rows
}

/// That both say the same, row by row.
pub(crate) fn assert_same_rows(one: &BTreeMap<String, Vec<String>>, other: &BTreeMap<String, Vec<String>>) {
    assert!(one.keys().eq(other.keys()));
    for (table, rows) in one {
        let others = &other[table];
        let differ = rows.iter().zip(others).find(|(row, other)| row != other);
        assert!(differ.is_none(), "{table}: {differ:#?}");
        assert_eq!(rows.len(), others.len(), "{table}");
    }
}

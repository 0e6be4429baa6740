//! Many events at once, put into the store by hand: what is to be measured begins when they can be seen, and what it
//! took to append them is not in it.

use anyhow::ensure;
use events::ThreadId;
use sqlx::{Executor as _, PgPool};
use tokio::time::Instant;

use crate::{lab::Lab, standing};

/// Appends the rows that a query selects, in the columns of `store.events`, as one commit, and tells the relay; answers
/// when they could be seen, and how many there were.
///
/// # Errors
/// Those of the database, and positions that do not follow those that are there.
pub async fn append(lab: &Lab, pool: &PgPool, rows: &str) -> anyhow::Result<(Instant, f64)> {
    let before = standing::events(pool).await?;
    let mut transaction = pool.begin().await?;
    let appended = transaction.execute(&*format!("insert into store.events {rows}")).await?.rows_affected();
    transaction.execute("select pg_notify('agora_appended', '')").await?;
    lab.checkpoint().await?;
    let began = Instant::now();
    transaction.commit().await?;
    let events = standing::events(pool).await? - before;
    #[allow(clippy::cast_precision_loss, reason = "events of a bench")]
    let missing = (appended as f64 - events).abs();
    ensure!(missing < 0.5, "{appended} events were appended, and the head moved by {events}");
    Ok((began, events))
}

/// SQL for an id as clients make them (UUIDv7): rows that are written together lie together in an index.
const ID: &str = "(lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || \
                  substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15))::uuid";

/// A query for events like those that another one selects, behind the head: in streams of their own.
fn like(events: &str) -> String {
    format!(
        "select aggregate_type, {ID}::text, 1, event_type, event_version, payload, metadata, \
             (select position from store.store_head) + row_number() over (), shard, {ID}, community_id, now() \
         from ({events}) e"
    )
}

/// How many replies are written again and again.
const FEW: u64 = 150;

/// A query for so many replies: some from all over the forum, again and again. As many people write them in a small forum as
/// in a large one, in about as many threads: how far they are spread decides how many rows change.
pub fn replies(many: u64) -> String {
    let written = format!(
        "select * from ( \
             select distinct on (metadata->>'actor') * from store.events \
             where event_type = 'post.written' and payload->>'parent' is not null \
             order by metadata->>'actor', md5(aggregate_id) \
         ) reply order by md5(aggregate_id) limit {FEW}"
    );
    let times = many.div_ceil(FEW);
    like(&format!("select written.* from ({written}) written cross join generate_series(1, {times}) limit {many}"))
}

/// A query for so many replies in one thread: its first, again and again.
pub fn replies_in(thread: ThreadId, many: u64) -> String {
    let written = format!(
        "select * from store.events where event_type = 'post.written' and payload->>'parent' is not null \
             and payload->>'thread' = '{thread}' order by position limit 1"
    );
    like(&format!("select written.* from ({written}) written cross join generate_series(1, {many})"))
}

/// A query for so many events behind the last of a thread's stream: that one, again and again.
pub fn more_of(thread: ThreadId, many: u64) -> String {
    format!(
        "select aggregate_type, aggregate_id, sequence + nth, event_type, event_version, payload, metadata, \
             (select position from store.store_head) + nth, shard, {ID}, community_id, now() \
         from (
             select * from store.events where aggregate_type = 'thread' and aggregate_id = '{thread}'
             order by sequence desc limit 1
         ) last cross join generate_series(1, {many}) nth"
    )
}

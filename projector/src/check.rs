//! Looks the whole history through, on a running system, and changes nothing: what must be so whatever happened before.
//!
//! What the database can tell by itself is asked in SQL, [`STORE`] and [`counts::COUNTS`]; the rest is found by reading every
//! event once, in order ([`rules`]). Memory grows with what is kept of it: some ten bytes for each account, post,
//! reaction and community.

mod counts;
mod rules;

use events::{Envelope, Position};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use store_reader::{StoreReader, Unreadable};

use rules::Rules;

/// Things that are broken and told of one promise: the first ones.
const MOST_TOLD: usize = 10;
/// Events read at once.
const BATCH: u32 = 2_000;

/// What became of one promise.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The promise.
    pub promise: &'static str,
    /// Where it is broken, in words: the first places.
    pub broken: Vec<String>,
    /// Whether there are more than these.
    pub more: bool,
}

impl Checked {
    fn new(promise: &'static str) -> Self {
        Self { promise, broken: Vec::new(), more: false }
    }

    fn breaks(&mut self, place: impl FnOnce() -> String) {
        if self.broken.len() < MOST_TOLD {
            self.broken.push(place());
        } else {
            self.more = true;
        }
    }
}

/// What the store says of itself: each query finds the places where it is not so, as `place`.
const STORE: [(&str, &str); 4] = [
    (
        "positions go from 1 to the head without a gap",
        "select 'there are ' || count(*) || ' events up to position ' || max(position) || ', the head is ' ||
            (select position from store_head) as place
        from events where position <= (select position from store_head)
        having count(*) is distinct from (select position from store_head)",
    ),
    (
        "time never falls from one position to the next",
        "select 'position ' || position || ' was recorded at ' || recorded_at || ', the one before it at ' || before as place
        from (select position, recorded_at, lag(recorded_at) over (order by position) as before from events) e
        where recorded_at < before",
    ),
    (
        "no stream has a hole or a double",
        "select aggregate_type || '/' || aggregate_id || ' has ' || count(*) || ' events, the last one is its ' ||
            max(sequence) || 'th' as place
        from events group by aggregate_type, aggregate_id having count(*) <> max(sequence)",
    ),
    (
        "a stream is of one shard and one community",
        "select aggregate_type || '/' || aggregate_id || ' has events of several' as place
        from events group by aggregate_type, aggregate_id
        having min(shard) <> max(shard) or count(distinct community_id) > 1",
    ),
];

/// Checks the event store; `read` is told of every so many events that were read.
///
/// # Errors
/// Those of the database.
pub async fn store(store: &StoreReader, read: &(dyn Fn(u64) + Sync)) -> sqlx::Result<Vec<Checked>> {
    let mut connection = store.pool().acquire().await?;
    // Whole tables are read, in whatever order.
    sqlx::query("set enable_seqscan = on").execute(&mut *connection).await?;
    let mut all = Vec::new();
    for (promise, query) in STORE {
        all.push(ask(promise, query, &mut connection).await?);
    }
    sqlx::query("reset enable_seqscan").execute(&mut *connection).await?;
    drop(connection);
    all.extend(history(store, read).await?);
    Ok(all)
}

/// Checks each count in the read tables against the rows that it counts.
///
/// # Errors
/// Those of the database.
pub async fn counts(read: &PgPool) -> sqlx::Result<Vec<Checked>> {
    let mut connection = read.begin_with("begin isolation level repeatable read, read only").await?;
    let mut all = Vec::new();
    for (promise, wrong) in counts::COUNTS {
        all.push(ask(promise, &counts::query(wrong), &mut connection).await?);
    }
    connection.rollback().await?;
    Ok(all)
}

async fn ask(promise: &'static str, query: &str, on: &mut PgConnection) -> sqlx::Result<Checked> {
    let query = format!("select q.place from ({query}) q limit {}", MOST_TOLD + 1);
    let mut checked = Checked::new(promise);
    for place in sqlx::query_scalar::<_, String>(&query).fetch_all(on).await? {
        checked.breaks(|| place);
    }
    Ok(checked)
}

/// Reads every event, and then what came meanwhile, until nothing more did.
async fn history(store: &StoreReader, read: &(dyn Fn(u64) + Sync)) -> sqlx::Result<Vec<Checked>> {
    let mut rules = Rules::default();
    let mut position: Position = 0;
    loop {
        let batch = store.after(position, BATCH).await?;
        let many = batch.events.len() as u64;
        for event in batch.events {
            position = event.as_ref().map_or_else(|unreadable| unreadable.position, |event| event.position);
            rules.look(event);
        }
        read(many);
        if batch.more {
            continue;
        }
        // The claims are those of these events where nothing was appended before they were read.
        let claims = sqlx::query_as("select kind, value, owner from claims").fetch_all(store.pool()).await?;
        if store.head().await? == position || many == 0 {
            return Ok(rules.end(claims));
        }
    }
}

/// An event as it was read, or why it cannot be.
type Found = Result<Envelope, Unreadable>;

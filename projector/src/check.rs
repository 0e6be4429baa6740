//! Looks the whole history through, on a running system, and changes nothing: what must be so whatever happened before.
//!
//! What the database can tell by itself is asked in SQL, [`STORE`] and [`counts::COUNTS`]; the rest is found by reading every
//! event once, in order ([`rules`]). Memory grows with what is kept of it: some ten bytes for each account, post,
//! reaction and community.

mod counts;
mod rules;

use std::time::Duration;

use anyhow::bail;
use events::{Envelope, Event, Position, Shard};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use store_reader::{StoreReader, Unreadable};

use counts::{Compared, PassedBy};
use rules::{Claim, Rules};

/// Things that are broken and told of one promise: the first ones.
const MOST_TOLD: usize = 10;
/// Events read at once, and claims looked up.
const BATCH: u32 = 2_000;
/// How often a moment is looked for in which projections that are written one after the other stand at the same place:
/// for five seconds.
const TRIES: u32 = 250;
const TRY_AGAIN: Duration = Duration::from_millis(20);
/// How often the end of a shard is looked for, where events keep coming.
const MOST_ROUNDS: u32 = 20;

/// What became of one promise.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// The promise.
    pub promise: &'static str,
    /// Where it is broken, in words: the first places.
    pub broken: Vec<String>,
    /// Whether there are more than these.
    pub more: bool,
    /// Places where it is not broken, but different for an event that a projection passes by, on record.
    pub passed_by: i64,
    /// Why it could not be looked at, where it could not.
    pub unknown: Option<String>,
}

impl Checked {
    /// Nothing was found yet.
    pub fn new(promise: &'static str) -> Self {
        Self { promise, broken: Vec::new(), more: false, passed_by: 0, unknown: None }
    }

    /// It could not be looked at.
    pub fn unknown(promise: &'static str, why: String) -> Self {
        Self { unknown: Some(why), ..Self::new(promise) }
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

/// What the store says of itself that can be told of one shard alone: all but the first.
fn of_one_shard() -> impl Iterator<Item = (&'static str, &'static str)> {
    STORE.into_iter().skip(1)
}

/// Checks the events of one shard, and the claims of the names in it: what [`store`] does, but for what takes the events of
/// all.
///
/// # Errors
/// Those of the database; and where so much is written that its end is never reached.
pub async fn shard(store: &StoreReader, shard: Shard) -> anyhow::Result<Vec<Checked>> {
    let mut connection = store.pool().acquire().await?;
    let mut all = Vec::new();
    for (promise, query) in of_one_shard() {
        all.push(ask(promise, &within(shard, query), &mut connection).await?);
    }
    drop(connection);
    all.extend(history_of(store, shard, None).await?);
    Ok(all)
}

/// The same query of the events of one shard: by a row comparison, which only the index by shard answers.
fn within(shard: Shard, query: &str) -> String {
    format!(
        "with events as (
            select * from events where (shard, position) >= ({shard}, 0) and (shard, position) <= ({shard}, {})
        ) {query}",
        Position::MAX
    )
}

/// Checks each count in the read tables against the rows that it counts. What a projection passes by, as an operator let it,
/// is in no table of its, and breaks no promise.
///
/// # Errors
/// Those of the databases.
pub async fn counts(store: &PgPool, read: &PgPool) -> sqlx::Result<Vec<Checked>> {
    let passed_by = counts::passed_by(store).await?;
    let (mut snapshot, apart) = level(read).await?;
    let mut all = Vec::new();
    for compared in counts::COUNTS {
        all.push(compare(compared, &passed_by, &mut snapshot).await?);
    }
    for compared in counts::OF_BOTH {
        all.push(match &apart {
            None => compare(compared, &passed_by, &mut snapshot).await?,
            Some(apart) => Checked::unknown(compared.0, apart.clone()),
        });
    }
    snapshot.rollback().await?;
    Ok(all)
}

async fn compare(
    (promise, of, wrong): Compared,
    passed_by: &[PassedBy],
    on: &mut PgConnection,
) -> sqlx::Result<Checked> {
    let posts: Vec<&str> = passed_by.iter().filter(|it| of.contains(&&*it.projection)).map(|it| &*it.post).collect();
    let query = counts::query(wrong, MOST_TOLD + 1);
    let found = sqlx::query_as::<_, (Vec<String>, i64)>(&query).bind(posts);
    let (broken, passed_by) = found.fetch_one(on).await?;
    let mut checked = Checked { passed_by, ..Checked::new(promise) };
    for place in broken {
        checked.breaks(|| place);
    }
    Ok(checked)
}

/// A snapshot in which no projection of [`counts::OF_BOTH`] is ahead of another; or any, where they do not come to that,
/// and why.
async fn level(read: &PgPool) -> sqlx::Result<(sqlx::Transaction<'static, sqlx::Postgres>, Option<String>)> {
    for tried in 1.. {
        let mut snapshot = read.begin_with("begin isolation level repeatable read, read only").await?;
        let apart = sqlx::query_scalar(counts::APART).fetch_optional(&mut *snapshot).await?;
        if apart.is_none() || tried == TRIES {
            return Ok((snapshot, apart));
        }
        snapshot.rollback().await?;
        tokio::time::sleep(TRY_AGAIN).await;
    }
    unreachable!("the last try answers")
}

async fn ask(promise: &'static str, query: &str, on: &mut PgConnection) -> sqlx::Result<Checked> {
    let query = format!("select q.place from ({query}) q limit {}", MOST_TOLD + 1);
    let mut checked = Checked::new(promise);
    for place in sqlx::query_scalar::<_, String>(&query).fetch_all(on).await? {
        checked.breaks(|| place);
    }
    Ok(checked)
}

/// Reads every event up to the head, and beside them the claims as they were at that head.
async fn history(store: &StoreReader, read: &(dyn Fn(u64) + Sync)) -> sqlx::Result<Vec<Checked>> {
    let mut snapshot = store.pool().begin_with("begin isolation level repeatable read, read only").await?;
    let head: Position = sqlx::query_scalar("select position from store_head").fetch_one(&mut *snapshot).await?;
    let claims = sqlx::query_as("select kind, value, owner from claims").fetch_all(&mut *snapshot).await?;
    snapshot.rollback().await?;
    let (mut rules, mut position) = (Rules::default(), 0);
    while position < head {
        let mut events = store.after(position, BATCH).await?.events;
        events.retain(|event| place(event) <= head);
        // Positions may have a gap at the end, which is told of elsewhere.
        let Some(last) = events.last().map(place) else { break };
        look(store, events, &mut rules).await?;
        read((last - position).unsigned_abs());
        position = last;
    }
    Ok(rules.end(claims))
}

/// The promises that an event would break in its shard if it said this, and that are whole now, each with where.
///
/// # Errors
/// As [`shard`].
pub(crate) async fn would_break(store: &StoreReader, instead: &Envelope) -> anyhow::Result<Vec<String>> {
    let now = history_of(store, instead.shard, None).await?;
    let then = history_of(store, instead.shard, Some(instead)).await?;
    let worse = then.into_iter().zip(now).filter(|(then, now)| now.broken.is_empty() && !then.broken.is_empty());
    let mut all: Vec<String> =
        worse.map(|(then, _)| format!("{} ({})", then.promise, then.broken.join("; "))).collect();
    all.extend(taken_by_another(store, instead).await?);
    Ok(all)
}

/// Whose username that is already, by the claims, where it is somebody else's: also in other shards, and where not all of
/// its stream can be read. Nobody gives a username up.
async fn taken_by_another(store: &StoreReader, instead: &Envelope) -> anyhow::Result<Vec<String>> {
    let mut rules = Rules::default();
    rules.look(&decode(instead.clone())?);
    let mut names = rules.names();
    names.retain(|(kind, _)| kind == "username");
    let claims = claims_of(store, names).await?.into_iter().filter(|(.., owner)| *owner != instead.stream.id);
    Ok(claims.map(|(kind, name, owner)| format!("the {kind} {name} is {owner}'s")).collect())
}

/// Reads every event of a shard, one of them as it would be, and then what came meanwhile, until nothing more did.
async fn history_of(store: &StoreReader, shard: Shard, instead: Option<&Envelope>) -> anyhow::Result<Vec<Checked>> {
    let (mut rules, mut position) = (Rules::default(), 0);
    for _ in 0..MOST_ROUNDS {
        while let Some(last) = look_on(store, (shard, position), instead, &mut rules).await? {
            position = last;
        }
        // The claims are those of these events where nothing was appended before they were read.
        let claims = claims_of(store, rules.names()).await?;
        if store.heads().await?.of(shard) == position {
            return Ok(rules.end(claims));
        }
    }
    bail!("events come faster than they are read")
}

/// Looks at the next events of a shard behind a position; answers the last of them, none where there are none.
async fn look_on(
    store: &StoreReader,
    (shard, position): (Shard, Position),
    instead: Option<&Envelope>,
    rules: &mut Rules,
) -> sqlx::Result<Option<Position>> {
    let mut events = store.by_shard(&[(shard, position)], BATCH).await?.events;
    // The first one is what was looked at last.
    events.retain(|event| place(event) > position);
    for event in &mut events {
        if let Some(instead) = instead.filter(|instead| instead.position == place(event)) {
            *event = Ok(instead.clone());
        }
    }
    let last = events.last().map(place);
    look(store, events, rules).await?;
    Ok(last)
}

/// Looks at some events. What nobody can read is told, unless it is on record that it is left out.
async fn look(store: &StoreReader, events: Vec<Found>, rules: &mut Rules) -> sqlx::Result<()> {
    let mut unreadable = Vec::new();
    for event in events {
        match event.and_then(decode) {
            Ok(event) => rules.look(&event),
            Err(event) => {
                rules.gap(&event);
                unreadable.push(event);
            }
        }
    }
    for event in store.not_left_out(unreadable).await? {
        rules.unreadable(&event);
    }
    Ok(())
}

fn decode(envelope: Envelope) -> Result<Readable, Unreadable> {
    let events = envelope.decode().map_err(|error| Unreadable::of(&envelope, error))?;
    Ok((envelope, events))
}

/// Its place in the store.
pub(crate) fn place(event: &Found) -> Position {
    event.as_ref().map_or_else(|unreadable| unreadable.position, |event| event.position)
}

/// By whom these names are claimed.
async fn claims_of(store: &StoreReader, names: Vec<(String, String)>) -> sqlx::Result<Vec<Claim>> {
    let mut claims = Vec::new();
    for some in names.chunks(BATCH as usize) {
        let (kinds, values): (Vec<String>, Vec<String>) = some.iter().cloned().unzip();
        let found = sqlx::query_as(
            "select kind, value, owner from claims
            join unnest($1::text[], $2::text[]) n (kind, value) using (kind, value)",
        );
        claims.extend(found.bind(kinds).bind(values).fetch_all(store.pool()).await?);
    }
    Ok(claims)
}

/// An event as it was read, or why it cannot be.
type Found = Result<Envelope, Unreadable>;
/// An event, and what it says in the newest version.
type Readable = (Envelope, Vec<Event>);

//! A stream from its snapshot on is the stream folded whole; where that is in doubt, it is folded whole.

use std::{fmt::Debug, fs, time::Duration};

use agora_tests::{forum::TestForum, store};
use command_service::{
    account::Account,
    category::CategoryTree,
    community::Community,
    membership::Membership,
    post::Post,
    reaction::Reaction,
    store::{AppenderConfig, Store, Stored, Verdict},
    thread::Thread,
};
use cqrs_es::{AggregateContext as _, EventStore};
use events::{AccountId, CommunityId, Event, EventId, Stream, ThreadId};
use projector::{LeaveOut, RepairWith, Said};
use serde_json::{json, value::RawValue};
use sqlx::PgPool;
use store_reader::StoreReader;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// More than a snapshot is behind.
const LONG: i64 = 520;

/// A store that has seen nothing yet.
fn cold(pool: &PgPool) -> Store {
    Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new())
}

fn new_stream<A: Stored>() -> Stream {
    Stream { aggregate: A::TYPE.to_owned(), id: AccountId::new().to_string() }
}

/// The samples of an aggregate's events, of every version.
fn samples<A: Stored>() -> Vec<A::Event> {
    let sample = |entry: events::catalogue::Entry| {
        let path = format!("../events/samples/{}.{}.json", entry.name, entry.version);
        let payload: Box<RawValue> = serde_json::from_slice(&fs::read(path).expect("a sample")).expect("JSON");
        events::decode(entry.name, entry.version, &payload).expect("a sample")
    };
    let samples = events::catalogue::catalogue().into_iter().flat_map(sample);
    samples.filter_map(|event| A::Event::try_from(event).ok()).collect()
}

/// Appends these, one after the other.
async fn append(store: &Store, stream: &Stream, version: i64, events: impl Iterator<Item: Into<Event>>) {
    let events: Vec<Event> = events.map(Into::into).collect();
    let append = store::write(CommunityId(Uuid::nil()), stream, version, &events);
    assert!(matches!(store.append(append).await, Ok(Verdict::Appended { .. })));
}

/// So many of an aggregate's events.
fn events<A: Stored>(many: i64) -> impl Iterator<Item = A::Event> {
    samples::<A>().into_iter().cycle().take(usize::try_from(many).expect("a count"))
}

/// A long stream, and its snapshot, taken by somebody who read all of it.
async fn long<A: Stored>(pool: &PgPool) -> Stream {
    let stream = new_stream::<A>();
    append(&cold(pool), &stream, 0, events::<A>(LONG)).await;
    load::<A>(&cold(pool), &stream).await;
    until(pool, &format!("exists (select from snapshots where aggregate_id = '{}')", stream.id)).await;
    stream
}

async fn load<A: Stored>(store: &Store, stream: &Stream) -> A {
    let mut context = EventStore::<A>::load_aggregate(store, &stream.id).await.expect("loads");
    context.aggregate().clone()
}

/// All of its events, one after the other.
async fn whole<A: Stored>(store: &Store, stream: &Stream) -> A {
    let mut state = A::default();
    let events = EventStore::<A>::load_events(store, &stream.id).await.expect("loads");
    for event in events {
        state.apply(event.payload);
    }
    state
}

async fn until(pool: &PgPool, what: &str) {
    let until = async {
        while !sqlx::query_scalar::<_, bool>(&format!("select {what}")).fetch_one(pool).await.expect("an answer") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// How many events are in a stream's snapshot.
async fn taken(pool: &PgPool, stream: &Stream) -> i64 {
    let taken = sqlx::query_scalar("select sequence from snapshots where aggregate_id = $1").bind(&stream.id);
    taken.fetch_one(pool).await.expect("a snapshot")
}

/// Whether the one who reads it next believes its snapshot, which says what no event says.
async fn believes(pool: &PgPool, account: &Stream) -> bool {
    load::<Account>(&cold(pool), account).await.username.as_deref() == Some("forged")
}

const FORGE: &str = r#"update snapshots set state = '{"username": "forged", "profile": {"display_name": ""}}'"#;

async fn the_same_from_its_snapshot<A: Stored + PartialEq + Debug>(pool: &PgPool) {
    let stream = long::<A>(pool).await;
    assert_eq!(taken(pool, &stream).await, LONG);
    // At each length, as each leaves off at another event.
    for (version, next) in (LONG..).zip(samples::<A>()) {
        let store = cold(pool);
        assert_eq!(load::<A>(&store, &stream).await, whole::<A>(&store, &stream).await, "{stream} at {version}");
        append(&store, &stream, version, std::iter::once(next)).await;
    }
    assert_eq!(taken(pool, &stream).await, LONG, "it is near enough");
}

#[tokio::test]
async fn every_aggregate_is_the_same_from_its_snapshot_on() {
    let pool = store::pool(10).await;
    the_same_from_its_snapshot::<Account>(&pool).await;
    the_same_from_its_snapshot::<CategoryTree>(&pool).await;
    the_same_from_its_snapshot::<Community>(&pool).await;
    the_same_from_its_snapshot::<Membership>(&pool).await;
    the_same_from_its_snapshot::<Post>(&pool).await;
    the_same_from_its_snapshot::<Reaction>(&pool).await;
    the_same_from_its_snapshot::<Thread>(&pool).await;
}

#[tokio::test]
async fn a_snapshot_is_believed_only_where_it_can_be_true() {
    let pool = store::pool(10).await;
    let account = long::<Account>(&pool).await;
    let true_one = whole::<Account>(&cold(&pool), &account).await;
    // Nobody else writes one.
    let (alone, back) = ("alter table snapshots disable trigger nobody", "alter table snapshots enable trigger nobody");
    execute(
        &pool,
        "create table kept as table snapshots;
        create function nobody() returns trigger language plpgsql as 'begin return null; end';
        create trigger nobody before insert or update on snapshots for each row execute function nobody()",
    )
    .await;
    for (doubt, believed) in [
        ("select", true),
        ("update snapshots set schema = schema + 1", false),
        ("update snapshots set schema = schema - 1", false),
        (r#"update snapshots set state = '{"username": 7}'"#, false),
        // JSON to Postgres, and to nobody else.
        (r#"update snapshots set state = '{"username": "\ud800"}'"#, false),
        ("update snapshots set sequence = 10000", false),
        ("update snapshots set sequence = sequence - 1", false),
        ("update snapshots set event_id = gen_random_uuid()", false),
        ("update snapshots set aggregate_type = 'thread'", false),
        ("truncate snapshots", false),
        // What one projection passes by changes no decision.
        (
            "insert into skips (projection, event_id, position, reason)
            select 'posts', event_id, position, 'a test' from events limit 1",
            true,
        ),
    ] {
        let again = "truncate snapshots; insert into snapshots table kept";
        execute(&pool, &format!("{alone}; {again}; {FORGE}; {doubt}; {back}")).await;
        assert_eq!(believes(&pool, &account).await, believed, "{doubt}");
        let loaded = load::<Account>(&cold(&pool), &account).await;
        assert_eq!(loaded == true_one, !believed, "{doubt}");
    }
}

/// A thread that is locked by one event in the middle of it, and the event.
async fn locked_once(pool: &PgPool) -> (Stream, EventId) {
    let stream = Stream::thread(ThreadId::new());
    let store = cold(pool);
    let named = |name: &str| samples::<Thread>().into_iter().find(|event| Event::from(event.clone()).name() == name);
    let [started, locked, retitled] =
        ["thread.started", "thread.locked", "thread.retitled"].map(|name| named(name).expect("a sample"));
    let events = [started, locked].into_iter().chain(std::iter::repeat_n(retitled, 600));
    append(&store, &stream, 0, events).await;
    assert!(load::<Thread>(&store, &stream).await.is_locked());
    until(pool, "exists (select from snapshots)").await;
    let id = sqlx::query_scalar("select event_id from events where aggregate_id = $1 and sequence = 2");
    (stream.clone(), EventId(id.bind(&stream.id).fetch_one(pool).await.expect("one")))
}

/// Damages an event, as only who disables the trigger can.
async fn damage(pool: &PgPool, event: EventId) {
    let trigger = "trigger events_repaired_on_record";
    execute(
        pool,
        &format!(
            "alter table events disable {trigger}; update events set payload = '7' where event_id = '{event}';
            alter table events enable {trigger}"
        ),
    )
    .await;
}

#[tokio::test]
async fn what_is_left_out_or_repaired_since_is_not_read_from_a_snapshot() {
    let pool = store::pool(10).await;
    let reader = StoreReader::new(pool.clone());
    let (thread, event) = locked_once(&pool).await;
    damage(&pool, event).await;
    let what = LeaveOut { event, reason: "a test", by: "ada@here", unknown: false };
    projector::leave_out(&reader, what).await.expect("left out");
    assert!(!load::<Thread>(&cold(&pool), &thread).await.is_locked());

    let pool = store::pool(10).await;
    let reader = StoreReader::new(pool.clone());
    let (thread, event) = locked_once(&pool).await;
    damage(&pool, event).await;
    let payload = serde_json::value::to_raw_value(&json!({})).expect("JSON");
    let said = Said { name: Some("thread.unlocked".to_owned()), payload: Some(payload), ..Said::default() };
    let with = RepairWith { event, said, reason: "a test", by: "ada@here", unknown: false };
    projector::repair(&reader, with).await.expect("repaired");
    assert!(!load::<Thread>(&cold(&pool), &thread).await.is_locked());
    let off = sqlx::query("delete from mended_streams").execute(&pool).await.expect_err("it is for good");
    assert!(off.to_string().contains("append-only"), "{off}");
}

#[tokio::test]
async fn what_was_left_out_or_repaired_before_there_were_snapshots_is_known() {
    let pool = store::pool(10).await;
    let account = long::<Account>(&pool).await;
    execute(&pool, FORGE).await;
    let migration = fs::read_to_string("../migrations/event-store/0014_snapshots.sql").expect("it is there");
    execute(
        &pool,
        "create table kept as table snapshots;
        drop table snapshots, mended_streams; drop function stream_from_snapshot, note_mended_stream cascade;
        insert into skips (projection, event_id, position, reason) select '*', event_id, position, 'a test'
        from events limit 1",
    )
    .await;
    execute(&pool, &migration).await;
    execute(&pool, "insert into snapshots table kept").await;
    assert!(!believes(&pool, &account).await);
}

#[tokio::test]
async fn a_stream_that_grows_in_memory_is_kept_as_well_and_a_newer_snapshot_is_never_undone() {
    let forum = TestForum::start().await;
    let pool = &forum.pool;
    let ada = forum.person("ada").await;
    let account = Stream::account(ada.id().parse().expect("an id"));
    for nth in 0..499 {
        ada.patch("/v2/accounts/me", &json!({"location": format!("Room {nth}")})).await.expect(200);
    }
    until(pool, "exists (select from snapshots where sequence = 500)").await;
    let loaded = load::<Account>(&cold(pool), &account).await;
    assert_eq!(loaded.profile.location.as_deref(), Some("Room 498"));

    // What a newer release wrote stays, though who reads has no use for it.
    execute(pool, "update snapshots set schema = schema + 1, sequence = 7").await;
    let (other, store) = (long::<Account>(pool).await, cold(pool));
    load::<Account>(&store, &account).await;
    execute(pool, &format!("delete from snapshots where aggregate_id = '{}'", other.id)).await;
    load::<Account>(&store, &other).await;
    until(pool, &format!("exists (select from snapshots where aggregate_id = '{}')", other.id)).await;
    assert_eq!(taken(pool, &account).await, 7);
    // What an older one wrote does not.
    execute(pool, "update snapshots set schema = 0 where sequence = 7").await;
    load::<Account>(&cold(pool), &account).await;
    until(pool, "exists (select from snapshots where sequence = 500)").await;
    forum.stop().await;
}

#[tokio::test]
async fn of_many_who_write_at_once_none_writes_an_older_one_over_a_newer() {
    let pool = store::pool(10).await;
    execute(
        &pool,
        "create table changes (before bigint, after bigint);
        create function note() returns trigger language plpgsql as $$
        begin
            insert into changes values (old.sequence, new.sequence);
            return new;
        end $$;
        create trigger note after update on snapshots for each row execute function note()",
    )
    .await;
    let stream = new_stream::<Account>();
    let store = cold(&pool);
    let mut readers = Vec::new();
    for version in (0..4_000).step_by(250) {
        append(&store, &stream, version, events::<Account>(250)).await;
        for _ in 0..4 {
            let (store, stream) = (cold(&pool), stream.clone());
            readers.push(tokio::spawn(async move { load::<Account>(&store, &stream).await }));
        }
    }
    futures::future::try_join_all(readers).await.expect("all have read");
    until(&pool, "exists (select from snapshots where sequence > 3500)").await;
    let undone = sqlx::query_scalar("select count(*) from changes where after < before").fetch_one(&pool).await;
    assert_eq!(undone.ok(), Some(0_i64));
    let store = cold(&pool);
    assert_eq!(load::<Account>(&store, &stream).await, whole::<Account>(&store, &stream).await);
}

#[tokio::test]
async fn who_is_killed_while_it_writes_leaves_a_whole_one_or_none() {
    let pool = store::pool(10).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let stream = new_stream::<Account>();
        append(&cold(&pool), &stream, 0, events::<Account>(LONG)).await;
        streams.push(stream);
    }
    let (options, doomed) = (pool.connect_options().as_ref().clone(), streams.clone());
    let killed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let store = cold(&PgPool::connect_with(options).await.expect("connects"));
            for stream in &doomed {
                load::<Account>(&store, stream).await;
            }
        });
        runtime.shutdown_background();
    });
    killed.join().expect("gone");
    for stream in &streams {
        let store = cold(&pool);
        assert_eq!(load::<Account>(&store, stream).await, whole::<Account>(&store, stream).await);
    }
}

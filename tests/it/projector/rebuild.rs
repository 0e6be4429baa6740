//! Rebuilds: beside the live tables, under writes, killed, of one shard, and what they say of rows that differ.

use std::{
    collections::BTreeSet,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use events::{CommunityId, EventId, Shard, Stream};
use projector::{
    LeaveOut,
    rebuild::{Phase, Rebuild, Watch},
};
use serde_json::json;
use store_reader::StoreReader;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    impossible,
    lab::{Lab, Recorded},
};

/// Counts what is folded, and tells when so much is.
#[derive(Default)]
pub(super) struct Counted {
    /// What was folded before, when it began.
    before: OnceLock<u64>,
    folded: AtomicU64,
    enough: u64,
    reached: Notify,
}

impl Watch for Counted {
    fn begins(&self, phase: Phase, _: u64, done: u64) {
        if phase == Phase::Folding {
            self.before.get_or_init(|| done);
        }
    }

    fn done(&self, more: u64) {
        if self.folded.fetch_add(more, Ordering::SeqCst) + more >= self.enough {
            self.reached.notify_one();
        }
    }
}

async fn all(lab: &Lab) -> Rebuild {
    lab.rebuild(&projector::names(), None).await.expect("it begins")
}

/// Tables, indexes, options and grants.
async fn shape(lab: &Lab) -> serde_json::Value {
    lab.value(
        "select json_build_array(
            (select json_agg(indexdef order by indexdef) from pg_indexes where schemaname = 'read'),
            (select json_agg(json_build_array(relname, reloptions, relacl::text) order by relname) from pg_class
             where relnamespace = 'read'::regnamespace and relkind = 'r'),
            (select json_agg(json_build_array(table_name, column_name, data_type, column_default, is_nullable)
                order by table_name, ordinal_position)
             from information_schema.columns where table_schema = 'read'),
            (select json_agg(nspname order by nspname) from pg_namespace where nspname !~ '^pg_'))",
    )
    .await
}

#[tokio::test]
async fn rows_that_differ_are_named_and_a_rebuild_makes_them_right() {
    let history = Recorded::history(19, 300);
    let lab = Lab::with(&history).await;
    lab.execute("grant select on read.thread to public").await;
    let (rows, before) = (lab.rows().await, shape(&lab).await);
    let same = all(&lab).await.compare(10, &Counted::default()).await.expect("compared");
    assert_eq!(same.rows, rows.values().map(|rows| rows.len() as u64).sum::<u64>());
    assert!(same.differences.is_empty() && !same.more);

    lab.execute(
        "update thread set replies = replies + 1 where thread_id = (select min(thread_id::text)::uuid from thread)",
    )
    .await;
    lab.execute("delete from post_revision where post_id = (select min(post_id::text)::uuid from post)").await;
    lab.execute("insert into member_count values (gen_random_uuid(), 3)").await;
    lab.execute(
        "update member_count set members = members + 1 where community_id = (
            select community_id from community join member_count using (community_id) order by 1 limit 1)",
    )
    .await;
    let wrong = lab.rows().await;
    let found = all(&lab).await.compare(10, &Counted::default()).await.expect("compared");
    let mut said: Vec<_> = found
        .differences
        .iter()
        .map(|it| (it.table, it.columns.keys().map(String::as_str).collect::<Vec<_>>(), !it.events.is_empty()))
        .filter(|(table, ..)| *table != "post_revision")
        .collect();
    said.sort_unstable();
    let counts = [("member_count", vec!["community_id", "members"], false), ("member_count", vec!["members"], true)];
    assert_eq!(said, [&counts[..], &[("thread", vec!["replies"], true)]].concat());
    let touched = |table: &str| {
        let events = found.differences.iter().filter(|it| it.table == table).flat_map(|it| &it.events);
        events.map(|event| event.name.split_once('.').expect("two words").0).collect::<BTreeSet<_>>()
    };
    assert!(touched("member_count").is_subset(&BTreeSet::from(["membership", "community"])));
    assert!(touched("thread").contains("post"), "who replied");
    let (live, built) = &found.differences.iter().find(|it| it.table == "thread").expect("that one").columns["replies"];
    assert_eq!(
        live.as_ref().and_then(serde_json::Value::as_i64).map(|it| it - 1),
        built.as_ref().and_then(serde_json::Value::as_i64)
    );
    let lost = found.differences.iter().find(|it| it.table == "post_revision").expect("that one");
    assert!(lost.columns.values().all(|(live, built)| live.is_none() && built.is_some()), "it is missing");
    let one = all(&lab).await.compare(1, &Counted::default()).await.expect("compared");
    assert!(one.differences.len() == 1 && one.more);
    assert_eq!(lab.rows().await, wrong, "comparing changes nothing");

    all(&lab).await.swap(&Counted::default()).await.expect("swapped");
    assert_eq!(lab.rows().await, rows);
    assert_eq!(shape(&lab).await, before, "nothing else changed, and nothing is left");
    let running = lab.start().await;
    let more = Recorded::history(23, 100);
    lab.append(&more).await;
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&[history, more].concat()).await.rows().await);
}

#[tokio::test]
async fn under_writes_and_reads_nothing_is_lost_shown_less_or_written_onto_what_was_wrong() {
    let history = Recorded::history(29, 900);
    let lab = Lab::new().await;
    let running = lab.start().await;
    lab.append(&history[..100]).await;
    lab.all_shown().await;
    let over = CancellationToken::new();
    let writing = async {
        for event in &history[100..] {
            lab.append(std::slice::from_ref(event)).await;
            tokio::task::yield_now().await;
        }
        over.cancel();
    };
    let reading = async {
        let (mut posts, mut reads) = (0, 0);
        while !over.is_cancelled() {
            let now = lab.value("select count(*) from post").await.as_i64().expect("a number");
            assert!(now >= posts, "{now} posts after {posts}");
            (posts, reads) = (now, reads + 1);
        }
        reads
    };
    let rebuilding = async {
        let mut rebuilds = 0;
        while !over.is_cancelled() || rebuilds < 2 {
            // Whatever the live projection has in memory now is of wrong rows.
            lab.execute("update thread set replies = replies + 100").await;
            lab.execute("update category_count set posts = posts + 100").await;
            all(&lab).await.swap(&Counted::default()).await.expect("swapped");
            rebuilds += 1;
        }
        rebuilds
    };
    let ((), reads, rebuilds) = tokio::join!(writing, reading, rebuilding);
    assert!(reads > 10, "{reads} reads, {rebuilds} rebuilds");
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

#[tokio::test]
async fn one_that_was_killed_goes_on_where_it_was_and_nobody_else_builds_meanwhile() {
    let history = Recorded::history(31, 600);
    let lab = Lab::with(&history).await;
    let rows = lab.rows().await;
    let watch = Counted { enough: 200, ..Counted::default() };
    let first = all(&lab).await;
    let refused = lab.rebuild(&["account"], None).await.err().expect("one at a time");
    let builder = format!("running, process {}@", std::process::id());
    assert!(refused.to_string().contains(&builder), "{refused}");
    tokio::select! {
        _ = first.compare(10, &watch) => panic!("it was to be killed before its end"),
        () = watch.reached.notified() => {}
    }
    drop(first);
    lab.until(
        "the lock is gone with who held it",
        "select not exists (select 1 from pg_stat_activity
            where datname = current_database() and application_name = 'agora-rebuild')",
    )
    .await;
    let watch = Counted::default();
    all(&lab).await.compare(10, &watch).await.expect("compared");
    assert!(watch.before.get() > Some(&0), "it goes on");
    all(&lab).await.swap(&watch).await.expect("swapped");
    assert_eq!(lab.rows().await, rows);
    // Of other tables nothing is taken over.
    let watch = Counted::default();
    let other = lab.rebuild(&["account"], None).await.expect("it begins");
    other.compare(10, &watch).await.expect("compared");
    assert_eq!(watch.before.get(), Some(&0));
}

#[tokio::test]
async fn of_one_shard_only_the_rows_that_differ_are_put_right() {
    let (lab, history) = (Lab::new().await, Recorded::history(37, 300));
    lab.append(&history).await;
    let running = lab.start().await;
    lab.all_shown().await;
    let rows = lab.rows().await;
    let community: CommunityId = history.iter().find_map(|event| event.community).expect("one");
    let shard = Shard::of_community(community);
    lab.execute("update thread set replies = replies + 1").await;
    lab.execute("delete from member").await;
    // What belongs to a lost row is missed with it.
    lab.execute("delete from thread_numbers").await;
    lab.execute("delete from post").await;
    let rebuild = lab.rebuild(&["thread_list", "membership", "thread_page"], Some(shard)).await.expect("it begins");
    let found = rebuild.compare(1_000, &Counted::default()).await.expect("compared");
    for table in ["member", "post", "thread_numbers"] {
        assert!(found.differences.iter().any(|it| it.table == table), "{table} of {found:?}");
    }
    let found = rebuild.repair(&Counted::default()).await.expect("repaired");
    assert!(!found.differences.is_empty(), "{found:?}");
    let of_shard =
        format!("select array(select distinct community_id from store.events where shard = {})", shard.number());
    let wrong = format!("select count(*) from member where community_id = any(({of_shard})::uuid[])");
    assert_ne!(lab.value(&wrong).await, json!(0), "members are back");
    all(&lab).await.swap(&Counted::default()).await.expect("swapped");
    assert_eq!(lab.rows().await, rows);
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_cannot_be_folded_stops_it_and_one_that_was_skipped_does_not() {
    let lab = Lab::new().await;
    let community = CommunityId::new();
    let shard = Shard::of_community(community);
    lab.append(&[Recorded::created(community, "tea"), impossible(community), Recorded::renamed(community, "cha")])
        .await;
    let running = lab.start().await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    let stopped = all(&lab).await.swap(&Counted::default()).await.expect_err("it cannot be folded").to_string();
    assert!(stopped.contains("position 2") && stopped.contains("agora projections skip"), "{stopped}");
    for projection in ["thread_list", "thread_page"] {
        projector::skip((&lab.pool, &lab.pool), projection, shard, "a test", "ada")
            .await
            .expect("skipped")
            .expect("it had stopped");
    }
    all(&lab).await.swap(&Counted::default()).await.expect("swapped");
    lab.all_shown().await;
    running.stop().await;
}

fn left_out(event: EventId) -> LeaveOut<'static> {
    LeaveOut { event, reason: "a test", by: "ada", unknown: true }
}

#[tokio::test]
async fn an_event_that_nobody_can_read_stops_it_until_it_is_left_out_and_then_it_is_as_the_live_tables_are() {
    let (lab, community) = (Lab::new().await, CommunityId::new());
    let unknown = |leaf| Recorded::raw(community, Stream::community(community), "tea.made", &json!({"leaf": leaf}));
    let (stopping, passed) = (unknown("assam"), unknown("sencha"));
    lab.append(&[Recorded::created(community, "tea"), stopping, Recorded::renamed(community, "cha")]).await;
    let running = lab.start().await;
    lab.until("all stop", "select count(*) = 7 from parked").await;
    let stopped = all(&lab).await.swap(&Counted::default()).await.expect_err("it cannot be folded").to_string();
    let id: EventId =
        serde_json::from_value(lab.value("select event_id from events where position = 2").await).expect("an id");
    assert!(stopped.contains(&format!("`agora events skip {id} --reason WHY`")), "{stopped}");
    let store = StoreReader::new(lab.pool.clone());
    projector::leave_out(&store, left_out(id)).await.expect("left out");
    lab.all_shown().await;
    assert_eq!(lab.value("select slug from community").await, json!("cha"));
    // One that is left out before anybody came to it stops nobody for long.
    running.stop().await;
    lab.append(&[passed, Recorded::renamed(community, "herbal")]).await;
    let id: EventId =
        serde_json::from_value(lab.value("select event_id from events where position = 4").await).expect("an id");
    projector::leave_out(&store, left_out(id)).await.expect("left out");
    let running = lab.start().await;
    lab.all_shown().await;
    let same = all(&lab).await.compare(10, &Counted::default()).await.expect("compared");
    assert!(same.rows > 0 && same.differences.is_empty());
    all(&lab).await.swap(&Counted::default()).await.expect("swapped");
    running.stop().await;
}

#[tokio::test]
async fn a_reader_that_holds_a_table_delays_the_swap_and_nobody_else() {
    let lab = Lab::with(&Recorded::history(41, 100)).await;
    let mut reader = lab.pool.begin().await.expect("begins");
    sqlx::query("select count(*) from read.post").execute(&mut *reader).await.expect("reads");
    let rebuild = all(&lab).await;
    let silent = Counted::default();
    let swapping = rebuild.swap(&silent);
    let others = async {
        for _ in 0..20 {
            let read = tokio::time::timeout(Duration::from_secs(1), lab.value("select count(*) from post"));
            read.await.expect("nobody waits long behind the swap");
        }
        reader.rollback().await.expect("ends");
    };
    let (swapped, ()) = tokio::join!(swapping, others);
    swapped.expect("swapped");
    assert_eq!(lab.value("select min(built) from checkpoint").await, json!(1));
}

#[tokio::test]
async fn a_reader_of_an_older_moment_never_meets_a_new_table_without_its_rows() {
    let lab = Lab::with(&Recorded::history(43, 100)).await;
    let posts = lab.value("select count(*) from post").await;
    assert!(posts.as_i64() > Some(0));
    let mut reader = lab.pool.begin_with("begin isolation level repeatable read").await.expect("begins");
    sqlx::query("select count(*) from read.checkpoint").execute(&mut *reader).await.expect("reads");
    let rebuild = all(&lab).await;
    let silent = Counted::default();
    let mut swapping = Box::pin(rebuild.swap(&silent));
    let early = tokio::time::timeout(Duration::from_secs(2), &mut swapping).await;
    assert!(early.is_err(), "it waits for that moment to pass: {early:?}");
    let read: i64 =
        sqlx::query_scalar("select count(*) from read.post").fetch_one(&mut *reader).await.expect("a number");
    assert_eq!(json!(read), posts);
    reader.rollback().await.expect("ends");
    swapping.await.expect("swapped");
    assert_eq!(lab.value("select count(*) from post").await, posts);
}

//! The projector alone, over a store that the tests write: what it promises when Kafka forgets, repeats or is shared, when
//! an event cannot be folded, and when the store is not the one it was.

use std::time::{Duration, Instant};

use events::{CommunityId, EventId, Shard, Stream};
use platform::kafka::{Broker, KafkaConfig};
use projector::{State, retry, skip};
use rdkafka::{
    Message as _,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::{Value, json};

use lab::{Lab, Recorded};

mod check;
mod lab;
mod rebuild;
mod relay;
mod version;

/// Two communities of different shards.
fn two_communities() -> (CommunityId, CommunityId) {
    let one = CommunityId::new();
    let mut others = std::iter::repeat_with(CommunityId::new);
    let other = others.find(|id| Shard::of_community(*id) != Shard::of_community(one)).expect("another shard");
    (one, other)
}

/// A reaction to a post that was never written.
fn impossible(community: CommunityId) -> Recorded {
    let (post, account) = (events::PostId::new(), events::AccountId::new());
    let cleared = json!({"thread": events::ThreadId::new(), "post": post, "account": account, "kind": "like"});
    Recorded::raw(community, Stream::reaction(post, account), "reaction.cleared", &cleared)
}

#[tokio::test]
async fn one_event_at_a_time_or_all_at_once_the_rows_are_the_same() {
    let history = Recorded::history(7, 400);
    let (one_by_one, at_once) = (Lab::new().await, Lab::new().await);
    let live = one_by_one.start().await;
    for (n, event) in history.iter().enumerate() {
        one_by_one.append(std::slice::from_ref(event)).await;
        if n % 20 == 0 {
            one_by_one.all_shown().await;
        }
    }
    one_by_one.all_shown().await;
    at_once.append(&history).await;
    let filled = at_once.start().await;
    at_once.all_shown().await;
    let (live_rows, filled_rows) = (one_by_one.rows().await, at_once.rows().await);
    assert!(live_rows.values().all(|rows| !rows.is_empty()), "the history touches every table");
    for (table, rows) in live_rows {
        assert_eq!(rows, filled_rows[&table], "{table}");
    }
    live.stop().await;
    filled.stop().await;
}

#[tokio::test]
async fn what_kafka_lost_comes_from_the_store() {
    let lab = Lab::new().await;
    let history = Recorded::history(11, 120);
    let running = lab.start().await;
    lab.append(&history[..40]).await;
    lab.all_shown().await;
    running.stop().await;
    // Relayed to a broker whose memory is gone: nobody sends these again.
    lab.append(&history[40..80]).await;
    lab.execute("update relay set position = (select position from store_head)").await;
    let running = lab.start().await;
    lab.all_shown().await;
    lab.append(&history[80..]).await;
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

#[tokio::test]
async fn what_kafka_brings_again_changes_nothing() {
    let lab = Lab::with(&Recorded::history(13, 100)).await;
    let before = lab.rows().await;
    lab.execute("update relay set position = 0").await;
    let running = lab.start().await;
    lab.until("the relay has sent everything again", "select position = (select position from store_head) from relay")
        .await;
    // What comes behind the repetitions shows that they were met.
    let later: Vec<_> = (0..6).map(|n| Recorded::created(CommunityId::new(), &format!("later-{n}"))).collect();
    lab.append(&later).await;
    lab.all_shown().await;
    running.stop().await;
    let mut after = lab.rows().await;
    for (table, rows) in &mut after {
        rows.retain(|row| before[table].contains(row));
    }
    assert_eq!(after, before);
}

#[tokio::test]
async fn whatever_happens_its_row_and_its_message_are_the_same_event() {
    for seed in [3, 17, 29] {
        let lab = Lab::new().await;
        lab.append(&Recorded::history(seed, 120)).await;
        let broker = Broker::start(&KafkaConfig::default()).expect("a broker");
        let running = lab.start_with(&broker).await;
        crate::pipeline::messages_are_the_rows(&lab.pool, &broker).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_folded_stops_one_projection_in_one_shard() {
    let lab = Lab::new().await;
    let (bad, good) = two_communities();
    let shard = Shard::of_community(bad);
    let running = lab.start().await;
    lab.append(&[Recorded::created(bad, "bad"), Recorded::created(good, "good"), impossible(bad)]).await;
    let behind = Recorded::renamed(bad, "still-bad");
    lab.append(&[behind, Recorded::renamed(good, "better")]).await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    lab.until("the rest goes on", "select count(*) = 2 from community where slug in ('still-bad', 'better')").await;

    let status = projector::status(&lab.pool, &lab.pool).await.expect("the status");
    let parked: Vec<_> = status
        .projections
        .iter()
        .flat_map(|(name, shards)| {
            shards.iter().filter_map(move |it| {
                Some((name.as_str(), it.shard, it.position, it.lag, it.parked.as_ref()?.position))
            })
        })
        .collect();
    assert_eq!(parked, [("thread_list", shard, 1, 2, 3), ("thread_page", shard, 1, 2, 3)]);

    assert!(retry(&lab.pool, "thread_page", shard).await.expect("retries"));
    lab.until("it stops again", "select count(*) = 2 from parked").await;
    for projection in ["thread_list", "thread_page"] {
        let skipped: Option<EventId> =
            skip((&lab.pool, &lab.pool), projection, shard, "a test", "ada@here").await.expect("skips");
        assert!(skipped.is_some());
        assert_eq!(
            skip((&lab.pool, &lab.pool), projection, shard, "again", "bob").await.expect("nothing to skip"),
            None
        );
    }
    lab.all_shown().await;
    running.stop().await;
    let on_record = projector::skips(&lab.pool).await.expect("the record");
    let on_record: Vec<_> =
        on_record.iter().map(|it| (&*it.projection, it.position, &*it.reason, it.by.as_deref())).collect();
    let said = |projection| (projection, 3, "a test", Some("ada@here"));
    assert_eq!(on_record, [said("thread_page"), said("thread_list")], "the newest first");

    // On record, and true for what is made anew.
    lab.forget_rows().await;
    let running = lab.start().await;
    lab.all_shown().await;
    running.stop().await;
}

#[tokio::test]
async fn an_event_that_nobody_knows_stops_its_shard_and_is_never_passed_by() {
    let lab = Lab::new().await;
    let (bad, good) = two_communities();
    let running = lab.start().await;
    let unknown = Recorded::raw(bad, Stream::community(bad), "tea.made", &json!({"leaf": "assam"}));
    lab.append(&[Recorded::created(bad, "bad"), unknown, Recorded::created(good, "good")]).await;
    lab.append(&[Recorded::renamed(bad, "worse")]).await;
    lab.until("all projections stop there", "select count(*) = 7 from parked where position = 2").await;
    lab.until("the other shard goes on", "select count(*) = 1 from community where slug = 'good'").await;
    assert_eq!(lab.value("select slug from community where slug <> 'good'").await, json!("bad"));
    let reason = lab.value("select min(reason) from parked").await;
    assert_eq!(reason, json!("unknown event tea.made version 1: written by a newer release?"));
    running.stop().await;
}

#[tokio::test]
async fn what_postgres_refuses_is_found_among_many() {
    let lab = Lab::new().await;
    let community = CommunityId::new();
    let mut history = vec![Recorded::created(community, "nul")];
    let (thread, started) = Recorded::started(community);
    history.extend(started);
    for n in 0..60 {
        // JSON can say NUL, a text in Postgres cannot: the command-service refuses it.
        history.push(Recorded::reply(community, thread, if n == 41 { "a \u{0} byte" } else { "a reply" }));
    }
    lab.append(&history).await;
    let running = lab.start().await;
    lab.until("it stops at that one", "select position = 45 from parked where projection = 'thread_page'").await;
    assert_eq!(lab.value("select count(*) from post").await, json!(1 + 41), "everything before it is there");
    lab.until(
        "nobody else stops",
        "select min(position) = 63 from checkpoint c where projection <> 'thread_page'
        and shard = (select shard from parked)",
    )
    .await;
    running.stop().await;
}

#[tokio::test]
async fn a_restored_store_is_a_new_history_and_the_rows_are_made_anew() {
    let lab = Lab::new().await;
    let history = Recorded::history(17, 100);
    let running = lab.start().await;
    lab.append(&history).await;
    lab.all_shown().await;
    running.stop().await;
    let before = lab.value("select history from store_head").await;

    // A backup from before the last 30 events comes back, and life goes on differently.
    lab.restore(70).await;
    assert!(lab.states().await.contains(&State::Ahead));
    let other = Recorded::created(CommunityId::new(), "another-life");
    lab.append(std::slice::from_ref(&other)).await;
    let running = lab.start().await;
    lab.until(
        "it is recognised",
        &format!("select history::text <> '{}' from store_head", before.as_str().expect("an id")),
    )
    .await;
    lab.all_shown().await;
    running.stop().await;
    let lived: Vec<Recorded> = history[..70].iter().cloned().chain([other]).collect();
    assert_eq!(lab.rows().await, Lab::with(&lived).await.rows().await);
    assert_eq!(lab.value("select count(distinct history) from checkpoint").await, json!(1));
}

#[tokio::test]
async fn a_store_restored_below_a_running_projector_is_recognised_within_seconds() {
    let lab = Lab::new().await;
    let history = Recorded::history(19, 60);
    let running = lab.start().await;
    lab.append(&history).await;
    lab.all_shown().await;
    lab.restore(40).await;
    let seen = Instant::now();
    lab.until("it is recognised", "select count(*) = 1 from histories").await;
    assert!(seen.elapsed() < Duration::from_secs(20), "it waited for the check of each minute");
    lab.all_shown().await;
    assert!(lab.states().await.iter().all(|state| *state == State::Live));
    running.stop().await;
}

#[tokio::test]
async fn what_stopped_a_shard_is_forgotten_with_its_history() {
    let lab = Lab::new().await;
    let community = CommunityId::new();
    let running = lab.start().await;
    lab.append(&[Recorded::created(community, "bad"), impossible(community)]).await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    running.stop().await;
    lab.restore(1).await;
    lab.append(&[Recorded::renamed(community, "good")]).await;
    let running = lab.start().await;
    lab.until("the shard goes on", "select count(*) = 0 from parked").await;
    lab.all_shown().await;
    running.stop().await;
}

#[tokio::test]
async fn rows_that_came_back_a_little_older_are_brought_up_again() {
    let lab = Lab::new().await;
    let history = Recorded::history(37, 120);
    let running = lab.start().await;
    lab.append(&history[..80]).await;
    lab.all_shown().await;
    // Under a projector that believes all of it applied: the next event shows that it is not.
    lab.forget_rows().await;
    lab.append(&history[80..]).await;
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

#[tokio::test]
async fn while_a_table_of_one_projection_is_locked_the_others_go_on() {
    let lab = Lab::new().await;
    let running = lab.start().await;
    let community = CommunityId::new();
    lab.append(&[Recorded::created(community, "slow")]).await;
    lab.all_shown().await;
    let mut held = lab.pool.begin().await.expect("begins");
    sqlx::query("lock table post in access exclusive mode").execute(&mut *held).await.expect("locks");
    let shard = Shard::of_community(community).number();
    let at = |projections: &str, position: i64| {
        format!(
            "select bool_and(position = {position}) from checkpoint
            where shard = {shard} and projection in ({projections})"
        )
    };
    lab.append(&Recorded::started(community).1).await;
    lab.until("the others go on", &at("'community', 'membership', 'thread_list'", 3)).await;
    lab.append(&[Recorded::renamed(community, "slower")]).await;
    lab.until("and go on", &at("'community', 'membership', 'thread_list'", 4)).await;
    assert_eq!(lab.value(&at("'thread_page'", 1)).await, json!(true));
    held.rollback().await.expect("rolls back");
    lab.all_shown().await;
    running.stop().await;
}

#[tokio::test]
async fn connections_that_are_cut_all_the_time_lose_nothing() {
    let lab = Lab::new().await;
    let history = Recorded::history(19, 300);
    let running = lab.start().await;
    for some in history.chunks(20) {
        lab.append(some).await;
        let cut = "select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name like 'agora-%'";
        while lab.execute(cut).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

#[tokio::test]
async fn notices_tell_what_changed_in_an_unbroken_chain() {
    let lab = Lab::new().await;
    let broker = Broker::start(&KafkaConfig::default()).expect("a broker");
    let running = lab.start_with(&broker).await;
    let community = CommunityId::new();
    let (thread, started) = Recorded::started(community);
    lab.append(&[Recorded::created(community, "told")]).await;
    lab.all_shown().await;
    lab.append(&started).await;
    lab.all_shown().await;
    let notices = tokio::task::spawn_blocking({
        let broker = broker.clone();
        move || read_notices(&broker, 3)
    });
    let notices: Vec<Value> = notices.await.expect("notices");
    let shard = Shard::of_community(community).number();
    let of = |projection: &str| -> Vec<&Value> {
        notices.iter().filter(|it| it["projection"] == projection && it["shard"] == shard).collect()
    };
    for projection in
        ["account", "category_tree", "community", "membership", "moderation_log", "thread_list", "thread_page"]
    {
        let chain = of(projection);
        assert_eq!(
            (&chain[0]["before"], &chain.last().expect("a notice")["after"]),
            (&json!(0), &json!(3)),
            "{projection}"
        );
        assert!(chain.windows(2).all(|two| two[0]["after"] == two[1]["before"]), "{chain:?}");
    }
    let keys: Vec<&Value> = of("thread_list").into_iter().flat_map(|it| it["keys"].as_array().expect("keys")).collect();
    assert!(keys.contains(&&json!(format!("thread:{thread}"))), "{keys:?}");
    assert!(keys.contains(&&json!(format!("community:{community}"))), "{keys:?}");
    assert_eq!(of("account").iter().flat_map(|it| it["keys"].as_array().expect("keys")).count(), 0);
    running.stop().await;
}

/// All notices, until each of the seven projections has told of `last`.
fn read_notices(broker: &Broker, last: i64) -> Vec<Value> {
    let consumer: BaseConsumer =
        broker.consumer().set("group.id", "a-test").set("auto.offset.reset", "earliest").create().expect("a consumer");
    let mut all = rdkafka::TopicPartitionList::new();
    for partition in 0..broker.config().partitions {
        let topic = &broker.config().changes_topic;
        all.add_partition_offset(topic, partition, rdkafka::Offset::Beginning).expect("a partition");
    }
    consumer.assign(&all).expect("assigned");
    let mut notices: Vec<Value> = Vec::new();
    while notices.iter().filter(|notice| notice["after"] == last).count() < 7 {
        let message = consumer.poll(Duration::from_secs(20)).expect("a notice in time").expect("no error");
        let of_batch = serde_json::from_slice::<Vec<Value>>(message.payload().expect("a notice"));
        notices.extend(of_batch.expect("JSON"));
    }
    notices
}

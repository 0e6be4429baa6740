//! The relay on a real Kafka: who leads, what a leader that froze may still do, what Kafka refuses, and what it remembers.

use std::{sync::mpsc, thread, time::Duration};

use agora_tests::kafka;
use events::CommunityId;
use platform::kafka::{Broker, KafkaConfig};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
};
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};

use super::lab::{self, Lab, Recorded};

/// Who holds the relay's lease.
const LEADER: &str = "select pid from pg_locks where locktype = 'advisory' and granted and objid = 1701601657
    and database = (select oid from pg_database where datname = current_database())";
const ALL_RELAYED: &str = "select r.position = h.position from relay r, store_head h";

/// Topics of a test's own.
async fn topics() -> KafkaConfig {
    kafka::topics_on(kafka::shared().await.brokers())
}

async fn leader(lab: &Lab) -> Value {
    lab.until("one leads", &format!("select exists ({LEADER})")).await;
    lab.value(LEADER).await
}

#[tokio::test]
async fn one_relay_leads_and_another_takes_over() {
    let (lab, kafka) = (Lab::new().await, topics().await);
    let (one, two) = (lab.start_on(&kafka).await, lab.start_on(&kafka).await);
    let history = Recorded::history(23, 90);
    lab.append(&history[..30]).await;
    lab.all_shown().await;
    leader(&lab).await;
    one.stop().await;
    lab.append(&history[30..60]).await;
    lab.all_shown().await;
    leader(&lab).await;
    let three = lab.start_on(&kafka).await;
    two.stop().await;
    lab.append(&history[60..]).await;
    lab.all_shown().await;
    three.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

/// A projector on a thread of its own, which can be frozen as SIGSTOP freezes a process.
struct Alone {
    freeze: Sender<mpsc::Receiver<()>>,
    thread: thread::JoinHandle<()>,
}

impl Alone {
    fn start(lab: &Lab, kafka: &KafkaConfig) -> Self {
        let (freeze, mut frozen) = channel::<mpsc::Receiver<()>>(1);
        let (lab, kafka) = (lab.clone(), kafka.clone());
        let work = async move {
            let running = lab.start_on(&kafka).await;
            while let Some(thaw) = frozen.recv().await {
                thaw.recv().expect("it is frozen");
                thaw.recv().expect_err("it is thawed");
            }
            running.stop().await;
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { freeze, thread: thread::spawn(move || runtime.block_on(work)) }
    }

    /// Nothing of it moves until what this answers is dropped.
    async fn freeze(&self) -> mpsc::SyncSender<()> {
        let (thaw, frozen) = mpsc::sync_channel(0);
        self.freeze.send(frozen).await.expect("it runs");
        let taken = move || thaw.send(()).map(|()| thaw).expect("it is frozen");
        tokio::task::spawn_blocking(taken).await.expect("it is frozen")
    }

    async fn stop(self) {
        drop(self.freeze);
        tokio::task::spawn_blocking(|| self.thread.join().expect("it ends")).await.expect("it ends");
    }
}

#[tokio::test]
async fn a_leader_that_froze_while_it_read_sends_nothing_when_another_leads() {
    let (lab, kafka) = (Lab::new().await, topics().await);
    let history = Recorded::history(31, 60);
    let stale = Alone::start(&lab, &kafka);
    lab.append(&history[..30]).await;
    lab.until("all of it is relayed", ALL_RELAYED).await;
    let first = leader(&lab).await;
    let other = lab.start_on(&kafka).await;

    // It waits for its next events, and freezes before it has them.
    let mut transaction = lab.pool.begin().await.expect("begins");
    sqlx::query("lock table events in access exclusive mode").execute(&mut *transaction).await.expect("locks");
    lab.until(
        "it waits for the next events",
        "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
            and query like '%from events where position > $1 order by position%')",
    )
    .await;
    let thaw = stale.freeze().await;
    lab.until("another leads", &format!("select exists ({LEADER} and pid <> {first})")).await;
    lab::insert(&mut transaction, &history[30..]).await;
    transaction.commit().await.expect("commits");
    lab.until("the other relays them", ALL_RELAYED).await;
    drop(thaw);
    stale.stop().await;

    assert_eq!(relayed(&kafka).await, (1..=60).collect::<Vec<_>>(), "each of them once");
    lab.all_shown().await;
    other.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&history).await.rows().await);
}

#[tokio::test]
async fn what_kafka_refuses_holds_the_relay_and_goes_out_when_it_is_let_in() {
    let (lab, kafka) = (Lab::new().await, topics().await);
    let broker = Broker::start(&kafka).expect("a broker");
    let running = lab.start_with(&broker).await;
    let (home, other) = super::two_communities();
    let (thread, started) = Recorded::started(home);
    lab.append(&[Recorded::created(home, "home"), Recorded::created(other, "other")]).await;
    lab.append(&started).await;
    lab.until("all of it is relayed", ALL_RELAYED).await;

    largest_message(&broker, "4096").await;
    lab.append(&[Recorded::reply(home, thread, &"long ".repeat(2_000))]).await;
    lab.append(&[Recorded::reply(home, thread, "short"), Recorded::renamed(other, "renamed")]).await;
    // The readers do without Kafka meanwhile.
    lab.all_shown().await;
    assert_eq!(lab.value("select position from relay").await, json!(4), "nothing is passed by");

    largest_message(&broker, "1048588").await;
    lab.until("it goes out", ALL_RELAYED).await;
    crate::pipeline::messages_are_the_rows(&lab.pool, &broker).await;
    running.stop().await;
}

async fn largest_message(broker: &Broker, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = broker.client().create().expect("a client");
    let topic = ResourceSpecifier::Topic(&broker.config().events_topic);
    let limit = AlterConfig::new(topic).set("max.message.bytes", bytes);
    for outcome in admin.alter_configs([&limit], &AdminOptions::new()).await.expect("Kafka answers") {
        outcome.expect("altered");
    }
}

#[tokio::test]
async fn a_store_and_its_read_tables_restored_together_are_recognised_by_what_kafka_remembers() {
    let (lab, kafka) = (Lab::new().await, topics().await);
    let history = Recorded::history(37, 100);
    let running = lab.start_on(&kafka).await;
    lab.append(&history).await;
    lab.all_shown().await;
    lab.until("all of it is relayed", ALL_RELAYED).await;
    running.stop().await;
    let before = lab.value("select history from store_head").await;

    lab.restore(70).await;
    lab.forget_rows().await;
    let another_life: Vec<_> = (0..40).map(|n| Recorded::created(CommunityId::new(), &format!("life-{n}"))).collect();
    lab.append(&another_life).await;
    let running = lab.start_on(&kafka).await;
    lab.until("it is recognised", &format!("select history <> '{}' from store_head", before.as_str().expect("an id")))
        .await;
    lab.all_shown().await;
    running.stop().await;
    let lived: Vec<Recorded> = history[..70].iter().cloned().chain(another_life).collect();
    assert_eq!(lab.rows().await, Lab::with(&lived).await.rows().await);
}

/// The positions of all messages of the topic, sorted.
async fn relayed(kafka: &KafkaConfig) -> Vec<i64> {
    let broker = Broker::start(kafka).expect("a broker");
    let read = move || {
        let consumer: BaseConsumer = broker.consumer().set("group.id", "a-test").create().expect("a consumer");
        let (mut all, mut many) = (TopicPartitionList::new(), 0);
        for partition in 0..broker.config().partitions {
            let topic = &broker.config().events_topic;
            let (first, next) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).expect("asked");
            many += next - first;
            all.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
        }
        consumer.assign(&all).expect("assigned");
        let mut positions: Vec<i64> = (0..many)
            .map(|_| {
                let message = consumer.poll(Duration::from_secs(20)).expect("one in time").expect("no error");
                let headers = message.headers().expect("headers");
                let position = headers.iter().find(|header| header.key == "ce_position").and_then(|it| it.value);
                std::str::from_utf8(position.expect("a position")).expect("text").parse().expect("a number")
            })
            .collect();
        positions.sort_unstable();
        positions
    };
    tokio::task::spawn_blocking(read).await.expect("read")
}

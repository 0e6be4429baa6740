//! `agora events replay --kafka-topic`: a topic of somebody's own gets what was asked for, each event once, whatever ended
//! who sent it. And what is made of a store goes on with that store only.

use std::{collections::BTreeMap, time::Duration};

use agora::history::{
    Blocks, Lines, Part,
    export::{SEGMENT_BYTES, Target, export},
    file::LinesFile,
    seen::Seen,
    topic::{Arrived, Messages, Topic},
};
use agora_tests::{kafka, postgres::fresh_database};
use events::{HistoryId, Position};
use platform::kafka::{Broker, KafkaConfig};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::Headers as _,
    producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer},
};
use serde_json::Value;
use sqlx::{PgPool, postgres::PgConnectOptions};
use store_reader::{Filter, StoreReader};
use uuid::Uuid;

const TIMEOUT: Duration = Duration::from_secs(20);
/// More than twice what a producer lets wait (5,000): of the first 8,000, some have arrived and some have not.
const EVENTS: Position = 12_000;
const PARTITIONS: i32 = 4;

/// A store with events in all shards in turn, and all of it.
async fn store() -> (StoreReader, Part) {
    let options: PgConnectOptions = fresh_database().await.parse().expect("a URL");
    let pool = PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects");
    write(&pool, 1).await;
    let store = StoreReader::new(pool);
    let history = store.history().await.expect("a history");
    (store, Part { after: 0, through: EVENTS, filter: Filter::default(), history })
}

/// Events from a position on, up to [`EVENTS`].
async fn write(pool: &PgPool, from: Position) {
    let events = format!(
        r#"insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
            position, shard, event_id, community_id, recorded_at)
        select 'thread', 'x', n, case n % 3 when 0 then 'thread.locked' else 'thread.unlocked' end, '1', '{{}}',
            '{{"correlation_id": "00000000-0000-0000-0000-000000000000"}}', n, n % 64, gen_random_uuid(), null, now()
        from generate_series({from}, {EVENTS}) n"#
    );
    sqlx::raw_sql(&events).execute(pool).await.expect("events");
}

/// The store as a backup had it, when its last position was that. Nobody says so.
async fn put_back(store: &StoreReader, position: Position) {
    let back = format!(
        "alter table events disable trigger events_append_only;
        delete from events where position > {position};
        alter table events enable trigger events_append_only"
    );
    sqlx::raw_sql(&back).execute(store.pool()).await.expect("put back");
}

/// A Kafka, and a topic of one's own there.
async fn own_topic() -> (KafkaConfig, String) {
    let config = KafkaConfig { partitions: PARTITIONS, ..kafka::topics_on(kafka::shared().await.brokers()) };
    (config, format!("own-{}", Uuid::now_v7().simple()))
}

/// Sends what is missing up to a position. Kafka has not answered for all of it yet.
async fn send(config: &KafkaConfig, name: &str, store: &StoreReader, part: &Part, through: Position) -> Topic {
    let mut topic = Topic::open(config, name, part, store).await.expect("what is there answers the same");
    let missing = Part { after: topic.arrived().through, through, ..part.clone() };
    let mut blocks = Blocks::<Messages>::of(store.clone(), missing);
    while let Some(block) = blocks.next().await.expect("events") {
        topic.send(block.gathered).await.expect("Kafka takes them");
    }
    topic
}

async fn refused(config: &KafkaConfig, name: &str, store: &StoreReader, part: &Part) -> String {
    Topic::open(config, name, part, store).await.err().expect("refused").to_string()
}

fn partitions_of(config: &KafkaConfig, topic: &str) -> usize {
    let broker = Broker::start(config).expect("a handle");
    let consumer: BaseConsumer = broker.consumer().set("group.id", "test-replay").create().expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT).expect("Kafka answers");
    metadata.topics()[0].partitions().len()
}

/// The positions in each partition, in the order of their offsets.
fn positions(config: &KafkaConfig, topic: &str) -> BTreeMap<i32, Vec<Position>> {
    let broker = Broker::start(config).expect("a handle");
    let consumer: BaseConsumer = broker.consumer().set("group.id", "test-replay").create().expect("a consumer");
    let mut wanted = 0;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions_of(config, topic)).expect("few") {
        wanted += consumer.fetch_watermarks(topic, partition, TIMEOUT).expect("Kafka answers").1;
        partitions.add_partition_offset(topic, partition, Offset::Beginning).expect("a partition");
    }
    consumer.assign(&partitions).expect("assigns");
    let mut found = BTreeMap::<i32, Vec<Position>>::new();
    for _ in 0..wanted {
        let message = consumer.poll(TIMEOUT).expect("a message in time").expect("a message");
        let headers = message.headers().expect("headers").iter();
        let position = headers.filter(|header| header.key == "ce_position").find_map(|header| header.value);
        let position = std::str::from_utf8(position.expect("a position")).expect("text").parse().expect("a number");
        found.entry(message.partition()).or_default().push(position);
    }
    found
}

#[tokio::test]
async fn a_topic_goes_on_whatever_ended_who_wrote_it() {
    let ((store, part), (config, name)) = (store().await, own_topic().await);
    let topic = send(&config, &name, &store, &part, 8_000).await;
    assert_eq!(topic.goes_on_from(), None, "nothing was there");
    let said = refused(&config, &name, &store, &part).await;
    assert_eq!(said, format!("another replay to the topic {name} is running: one at a time"));
    drop(topic);
    let mut topic = send(&config, &name, &store, &part, 9_000).await;
    let last = topic.goes_on_from().expect("some of it was there");
    assert!(topic.settle().await, "Kafka answers");
    let arrived = topic.arrived();
    assert!(arrived.events < 9_000, "{arrived:?} though {last} was there");
    assert_eq!(arrived.through, 9_000);
    drop(topic);
    drop(send(&config, &name, &store, &part, EVENTS - 7).await);
    let mut topic = send(&config, &name, &store, &part, EVENTS).await;
    topic.finish().await.expect("it arrives");
    drop(topic);

    let asked = |partition| (1..=EVENTS).filter(move |position| position % 64 % i64::from(PARTITIONS) == partition);
    let expected = (0..PARTITIONS).map(|partition| (partition, asked(i64::from(partition)).collect())).collect();
    assert!(positions(&config, &name) == expected, "each once, in order");
    let mut topic = send(&config, &name, &store, &part, EVENTS).await;
    assert_eq!((topic.goes_on_from(), topic.arrived()), (Some(EVENTS), Arrived { events: 0, through: EVENTS - 3 }));
}

#[tokio::test]
async fn what_answers_another_question_is_not_added_to() {
    let ((store, part), (config, name)) = (store().await, own_topic().await);
    send(&config, &name, &store, &part, 100).await.finish().await.expect("it arrives");
    let locked = Filter { types: vec!["thread.locked".into()], community: None };
    for other in [
        Part { filter: locked.clone(), ..part.clone() },
        Part { after: 99, ..part.clone() },
        Part { after: 99, filter: locked.clone(), ..part.clone() },
    ] {
        let said = refused(&config, &name, &store, &other).await;
        let why = format!("{name} has events up to position 100 that answer another question: ask the same again");
        assert!(said.starts_with(&why) && said.ends_with("--from 100"), "{said}");
    }
    let restored = Part { history: HistoryId::new(), ..part.clone() };
    assert!(refused(&config, &name, &store, &restored).await.contains("holds another history"));

    // Behind all of it nothing can be there twice; and it goes on as any other.
    let behind = Part { after: 100, filter: locked, ..part.clone() };
    let topic = send(&config, &name, &store, &behind, 200).await;
    assert_eq!(topic.goes_on_from(), None);
    drop(topic);
    send(&config, &name, &store, &behind, 300).await.finish().await.expect("it arrives");
    let mut sent: Vec<Position> = positions(&config, &name).into_values().flatten().collect();
    sent.sort_unstable();
    let locked = (101..=300).filter(|position| position % 3 == 0);
    assert_eq!(sent, (1..=100).chain(locked).collect::<Vec<Position>>());

    // Shards are elsewhere then: what a partition has says nothing of what is in them.
    let broker = Broker::start(&config).expect("a handle");
    let admin: AdminClient<DefaultClientContext> = broker.client().create().expect("a client");
    let more = NewPartitions::new(&name, 6);
    for done in admin.create_partitions([&more], &AdminOptions::new()).await.expect("Kafka answers") {
        done.expect("it grows");
    }
    while partitions_of(&config, &name) < 6 {
        tokio::task::yield_now().await;
    }
    assert!(refused(&config, &name, &store, &behind).await.contains("that answer another question"));
}

#[tokio::test]
async fn what_is_none_of_ours_is_left_alone() {
    let ((store, part), (config, name)) = (store().await, own_topic().await);
    send(&config, &name, &store, &part, 100).await.finish().await.expect("it arrives");
    let broker = Broker::start(&config).expect("a handle");
    let producer: ThreadedProducer<DefaultProducerContext> = broker.client().create().expect("a producer");
    let letter = BaseRecord::<str, str>::to(&name).partition(1).payload("Dear Ada");
    producer.send(letter).map_err(|(error, _)| error).expect("room");
    producer.flush(TIMEOUT).expect("it arrives");
    let said = refused(&config, &name, &store, &part).await;
    let why =
        format!("{name} has something else than Agora's events in partition 1 (header ce_specversion is missing)");
    assert!(said.starts_with(&why), "{said}");
}

/// A topic keeps the partitions that it has: those of somebody else's could not be taken away again.
#[tokio::test]
async fn a_topic_that_is_there_is_not_grown() {
    let ((store, part), (config, name)) = (store().await, own_topic().await);
    let config = KafkaConfig { partitions: 3, ..config };
    Broker::start(&config).expect("a handle").create_topic(&name).await.expect("made");
    let config = KafkaConfig { partitions: 16, ..config };
    send(&config, &name, &store, &part, 500).await.finish().await.expect("it arrives");
    send(&config, &name, &store, &part, 900).await.finish().await.expect("it arrives");
    let asked = |partition| (1..=900).filter(move |position| position % 64 % 3 == i64::from(partition));
    let expected = (0..3).map(|partition| (partition, asked(partition).collect())).collect();
    assert!(positions(&config, &name) == expected, "each once, in order, in the three that there are");

    let letters = format!("{name}-letters");
    Broker::start(&KafkaConfig { partitions: 1, ..config.clone() })
        .expect("a handle")
        .create_topic(&letters)
        .await
        .expect("made");
    let producer: ThreadedProducer<DefaultProducerContext> =
        Broker::start(&config).expect("a handle").client().create().expect("a producer");
    let letter = BaseRecord::<str, str>::to(&letters).payload("Dear Ada");
    producer.send(letter).map_err(|(error, _)| error).expect("room");
    producer.flush(TIMEOUT).expect("it arrives");
    assert!(refused(&config, &letters, &store, &part).await.contains("something else than Agora's events"));
    assert_eq!(partitions_of(&config, &letters), 1, "it is as it was");
}

/// Nobody said that a backup was restored: the topic goes no further, neither while it is ahead of the store nor later.
#[tokio::test]
async fn a_topic_of_a_lost_line_of_events_is_not_gone_on_with() {
    let ((store, part), (config, name)) = (store().await, own_topic().await);
    send(&config, &name, &store, &part, 100).await.finish().await.expect("it arrives");
    put_back(&store, 60).await;
    let earlier = Part { through: 60, ..part.clone() };
    let said = refused(&config, &name, &store, &earlier).await;
    assert!(
        said.starts_with(&format!("{name} reaches up to position 100, and the event store is at 60 only. ")),
        "{said}"
    );
    assert!(said.contains("`agora events new-history`"), "{said}");
    write(store.pool(), 61).await;
    for part in [part.clone(), Part { after: 100, ..part }] {
        let said = refused(&config, &name, &store, &part).await;
        assert!(said.starts_with(&format!("{name} was made where event ")), "{said}");
        assert!(
            said.contains("and the event store has event ") && said.contains("`agora events new-history`"),
            "{said}"
        );
    }
    let mut there: Vec<Position> = positions(&config, &name).into_values().flatten().collect();
    there.sort_unstable();
    assert_eq!(there, (1..=100).collect::<Vec<Position>>(), "nothing was added");
}

/// As with a topic, so with a file and an export: whether the position that they reach has an event of theirs or not.
#[tokio::test]
async fn what_was_made_of_a_lost_line_of_events_is_not_gone_on_with() {
    let (store, part) = store().await;
    let dir = tempfile::tempdir().expect("a directory");
    let (path, other) = (dir.path().join("history.ndjson"), dir.path().join("locked.ndjson"));
    let parquet = Target::parse(dir.path().join("parquet").to_str().expect("plain")).expect("a directory");
    // None of these is at position 100.
    let locked = Part { filter: Filter { types: vec!["thread.locked".into()], community: None }, ..part.clone() };
    for (path, part) in [(&path, &part), (&other, &locked)] {
        let mut file = LinesFile::open(path, part.question(), &store).await.expect("it is made");
        let mut blocks = Blocks::<Lines>::of(store.clone(), Part { through: 100, ..part.clone() });
        while let Some(block) = blocks.next().await.expect("events") {
            file.add(&block.gathered.0, block.through).expect("written");
        }
        file.save(Seen::at(&store, 100).await.expect("an event")).expect("saved");
    }
    export(&store, &parquet, Some(100), SEGMENT_BYTES).await.expect("exported");

    let refused = async || {
        let mut said = Vec::new();
        for (path, part) in [(&path, &part), (&other, &locked)] {
            said.push(LinesFile::open(path, part.question(), &store).await.err().expect("refused").to_string());
        }
        said.push(export(&store, &parquet, None, SEGMENT_BYTES).await.expect_err("refused").to_string());
        said
    };
    put_back(&store, 99).await;
    for said in refused().await {
        assert!(said.contains("reaches up to position 100, and the event store is at 99 only. "), "{said}");
        assert!(said.contains("`agora events new-history`") && said.contains("another place"), "{said}");
    }
    write(store.pool(), 100).await;
    for said in refused().await {
        let why =
            said.contains(" was made where event ") && said.contains(" is at position 100, and the event store has");
        assert!(why && said.contains("`agora events new-history`"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("a file").lines().count(), 100, "nothing was added");

    // What noted no event is gone on with.
    let beside = dir.path().join("locked.ndjson.progress");
    let mut progress: Value = serde_json::from_slice(&std::fs::read(&beside).expect("a file")).expect("JSON");
    progress.as_object_mut().expect("an object").remove("event").expect("it was noted");
    std::fs::write(&beside, progress.to_string()).expect("written");
    let file = LinesFile::open(&other, locked.question(), &store).await.expect("its lines are of this line");
    assert_eq!(file.position(), 100);
}

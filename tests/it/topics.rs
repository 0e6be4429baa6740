//! The topics that Agora makes on a real Kafka, and what others do to them.

use std::time::{Duration, Instant};

use agora_tests::{forum::TestForum, kafka};
use platform::kafka::{Broker, KafkaConfig};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A broker's handle on topics of its own.
async fn broker(partitions: i32) -> Broker {
    let config = KafkaConfig { partitions, ..kafka::topics_on(kafka::shared().await.brokers()) };
    Broker::start(&config).expect("a handle")
}

fn partitions(broker: &Broker, topic: &str) -> usize {
    let client: BaseConsumer = broker.client().create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), TIMEOUT).expect("Kafka answers");
    metadata.topics()[0].partitions().len()
}

async fn raise(broker: &Broker, topic: &str, to: usize) {
    let admin: AdminClient<DefaultClientContext> = broker.client().create().expect("a client");
    let outcomes = admin.create_partitions([&NewPartitions::new(topic, to)], &AdminOptions::new()).await;
    for outcome in outcomes.expect("Kafka answers") {
        outcome.expect("raised");
    }
    let deadline = Instant::now() + TIMEOUT;
    while partitions(broker, topic) < to {
        assert!(Instant::now() < deadline, "Kafka does not show it");
    }
}

#[tokio::test]
async fn topics_are_made_as_configured_and_one_that_exists_keeps_its_own_partitions() {
    let broker = broker(5).await;
    let topics = [&broker.config().events_topic, &broker.config().changes_topic];
    broker.ensure_topics().await.expect("made");
    assert_eq!(topics.map(|topic| partitions(&broker, topic)), [5, 5]);
    broker.ensure_topics().await.expect("there already");
    raise(&broker, topics[0], 8).await;
    broker.ensure_topics().await.expect("others may raise it");
    assert_eq!(topics.map(|topic| partitions(&broker, topic)), [8, 5]);
}

#[tokio::test]
async fn a_topic_that_came_back_smaller_gets_its_partitions_again() {
    let small = broker(1).await;
    small.ensure_topics().await.expect("made, as a broker makes it that makes topics by itself");
    let broker = Broker::start(&KafkaConfig { partitions: 6, ..small.config().clone() }).expect("a handle");
    let (one, other) = tokio::join!(broker.ensure_topics(), broker.ensure_topics());
    one.and(other).expect("raised by one of them");
    let deadline = Instant::now() + TIMEOUT;
    while partitions(&broker, &broker.config().events_topic) < 6 {
        assert!(Instant::now() < deadline, "Kafka does not show it");
    }
}

#[tokio::test]
async fn two_that_make_the_same_topics_at_once_both_find_them() {
    let broker = broker(3).await;
    let (one, other) = tokio::join!(broker.ensure_topics(), broker.ensure_topics());
    one.and(other).expect("made by one of them");
    assert_eq!(partitions(&broker, &broker.config().events_topic), 3);
}

#[tokio::test]
async fn a_topic_that_kafka_refuses_is_said_with_its_reason() {
    let mut config = broker(3).await.config().clone();
    config.replication = 7;
    let refusal = Broker::start(&config).expect("a handle").ensure_topics().await.expect_err("one broker only");
    let said = format!("{refusal:#}");
    assert!(said.contains(&format!("refuses to create topic {}", config.events_topic)), "{said}");
}

/// While it runs, nothing is missed; after a restart, the new partitions carry events too, and nothing is lost either.
#[tokio::test]
async fn partitions_raised_under_a_running_forum_are_taken_up() {
    let forum = TestForum::start_on_kafka(kafka::shared().await.brokers()).await;
    let (config, broker) = (forum.config.clone(), forum.broker.clone());
    let topic = &broker.config().events_topic;
    let ada = forum.person("ada").await;
    raise(&broker, topic, 7).await;
    for nth in 0..10 {
        forum.community(&ada, &format!("before-{nth}")).await;
    }
    assert_eq!(ada.get("/v2/communities?limit=100").await.expect(200)["items"].as_array().map(Vec::len), Some(10));
    forum.stop().await;

    let again = TestForum::start_with(|fresh| *fresh = config).await;
    let bob = again.person("bob").await;
    for nth in 0..20 {
        again.community(&bob, &format!("after-{nth}")).await;
    }
    assert_eq!(bob.get("/v2/communities?limit=100").await.expect(200)["items"].as_array().map(Vec::len), Some(30));
    let client: BaseConsumer = broker.client().create().expect("a client");
    let carried = |partition| client.fetch_watermarks(topic, partition, TIMEOUT).expect("Kafka answers").1;
    assert!((4..7).map(carried).sum::<i64>() > 0, "the new partitions carry events");
    again.stop().await;
}

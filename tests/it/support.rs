//! The servers that the other tests stand on.

use std::time::Duration;

use agora_tests::{kafka, kafka::Kafka, postgres};
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{Consumer as _, StreamConsumer},
    producer::{FutureProducer, FutureRecord},
};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

#[tokio::test]
async fn a_fresh_database_has_both_schemas_and_is_nobody_elses() -> anyhow::Result<()> {
    let (one, other) = (postgres::fresh_database().await, postgres::fresh_database().await);
    assert_ne!(one, other);
    let mut one = PgConnection::connect(&one).await?;
    sqlx::query("create table store.only_here ()").execute(&mut one).await?;
    let mut other = PgConnection::connect(&other).await?;
    let there: (bool, bool, bool) = sqlx::query_as(
        "select to_regclass('store.events') is not null, to_regclass('read.checkpoint') is not null,
            to_regclass('store.only_here') is not null",
    )
    .fetch_one(&mut other)
    .await?;
    assert_eq!(there, (true, true, false));
    Ok(())
}

#[tokio::test]
async fn a_real_kafka_keeps_a_message_over_its_own_death() -> anyhow::Result<()> {
    let mut kafka = Kafka::start().await;
    create_topic(kafka.brokers(), "kept").await?;
    send(kafka.brokers(), "kept", "before").await?;
    kafka.kill9();
    kafka.restart().await;
    assert_eq!(receive(kafka.brokers(), "kept").await?, "before");
    Ok(())
}

#[tokio::test]
async fn the_shared_kafka_answers() -> anyhow::Result<()> {
    let kafka = kafka::shared().await;
    create_topic(kafka.brokers(), "shared").await?;
    send(kafka.brokers(), "shared", "hello").await?;
    assert_eq!(receive(kafka.brokers(), "shared").await?, "hello");
    Ok(())
}

fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}

async fn create_topic(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = client(brokers).create()?;
    let topic = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
    let results = admin.create_topics([&topic], &AdminOptions::new()).await?;
    for result in results {
        result.map_err(|(topic, error)| anyhow::anyhow!("{topic}: {error}"))?;
    }
    Ok(())
}

async fn send(brokers: &str, topic: &str, text: &str) -> anyhow::Result<()> {
    let producer: FutureProducer = client(brokers).set("acks", "all").create()?;
    let record = FutureRecord::<(), _>::to(topic).payload(text);
    producer.send(record, Duration::from_secs(10)).await.map_err(|(error, _)| error)?;
    Ok(())
}

/// Through a group of the new protocol: the broker's group settings are right if this is quick.
async fn receive(brokers: &str, topic: &str) -> anyhow::Result<String> {
    let consumer: StreamConsumer = client(brokers)
        .set("group.id", format!("readers of {topic}"))
        .set("group.protocol", "consumer")
        .set("auto.offset.reset", "earliest")
        .create()?;
    consumer.subscribe(&[topic])?;
    let message = timeout(Duration::from_secs(15), consumer.recv()).await??;
    Ok(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned())
}

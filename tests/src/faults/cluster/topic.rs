//! The topic of the events: what it keeps, and what can happen to that.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rdkafka::{
    ClientConfig, Message as _,
    admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer as _},
    message::{Header, Headers, OwnedHeaders, OwnedMessage},
    producer::{FutureProducer, FutureRecord},
};
use uuid::Uuid;

use super::{Cluster, START};

/// What Kafka may take for what is asked of it.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

impl Cluster {
    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.brokers()).set("log_level", "0");
        config
    }

    /// Lets all messages so far expire, and waits until they have.
    pub(super) async fn expire_messages(&self) -> anyhow::Result<()> {
        let topic = &self.topics.events_topic;
        let client: BaseConsumer = self.client().create()?;
        let ends = |partition| client.fetch_watermarks(topic, partition, KAFKA_TIMEOUT);
        let partitions = 0..i32::try_from(self.partitions(topic)?)?;
        let before: Vec<_> = partitions.map(|it| Ok((it, ends(it)?.1))).collect::<anyhow::Result<_>>()?;
        self.retention("1").await?;
        let deadline = Instant::now() + KAFKA_TIMEOUT;
        for (partition, end) in before {
            while ends(partition)?.0 < end {
                ensure!(Instant::now() < deadline, "{topic}/{partition} still has messages");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    pub(super) async fn retention(&self, milliseconds: &str) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = ResourceSpecifier::Topic(&self.topics.events_topic);
        let settings = AlterConfig::new(topic).set("retention.ms", milliseconds);
        // Kafka may be busy; or not know the topic just now: then there is nothing to delete either.
        for _ in 0..3 {
            if admin.alter_configs([&settings], &AdminOptions::new()).await.is_ok() {
                break;
            }
        }
        Ok(())
    }

    pub(super) async fn add_partition(&self) -> anyhow::Result<()> {
        let admin: AdminClient<DefaultClientContext> = self.client().create()?;
        let topic = &self.topics.events_topic;
        let now = self.partitions(topic)?;
        // Only so many shards there are.
        if (1..12).contains(&now) {
            let more = NewPartitions::new(topic, now + 1);
            let _ = admin.create_partitions([&more], &AdminOptions::new()).await?;
        }
        Ok(())
    }

    fn partitions(&self, topic: &str) -> anyhow::Result<usize> {
        let client: BaseConsumer = self.client().create()?;
        let metadata = client.fetch_metadata(Some(topic), KAFKA_TIMEOUT)?;
        Ok(metadata.topics().first().map_or(0, |topic| topic.partitions().len()))
    }

    /// Every message that a topic keeps, with the partition it is in.
    pub(crate) fn messages(&self, topic: &str) -> anyhow::Result<Vec<OwnedMessage>> {
        let consumer: BaseConsumer =
            self.client().set("group.id", "faults").set("enable.auto.commit", "false").create()?;
        let mut found = vec![];
        for partition in 0..i32::try_from(self.partitions(topic)?)? {
            let (low, high) = consumer.fetch_watermarks(topic, partition, KAFKA_TIMEOUT)?;
            let mut list = rdkafka::TopicPartitionList::new();
            list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(low))?;
            consumer.assign(&list)?;
            let deadline = Instant::now() + START;
            let mut next = low;
            // The last offset may be a transaction's marker, not a message; there are none here.
            while next < high {
                ensure!(Instant::now() < deadline, "{topic}/{partition} ends at {next}, not at {high}");
                if let Some(message) = consumer.poll(Duration::from_millis(200)) {
                    let message = message?;
                    next = message.offset() + 1;
                    found.push(message.detach());
                }
            }
        }
        Ok(found)
    }

    /// What was sent last, and something from long ago: again, as it was.
    pub(super) async fn send_again(&self) -> anyhow::Result<()> {
        let topic = &self.topics.events_topic;
        let messages = self.messages(topic)?;
        let producer: FutureProducer = self.client().create()?;
        let old = messages.iter().take(50);
        let new = messages.iter().rev().take(50);
        for message in old.chain(new) {
            let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(message.partition());
            record.key = message.key();
            record.payload = message.payload();
            record.headers = message.headers().cloned();
            let _ = producer.send(record, KAFKA_TIMEOUT).await;
        }
        let mut ends: BTreeMap<&str, &OwnedMessage> = BTreeMap::new();
        for message in &messages {
            let end = ends.entry(header(message, "ce_shard")).or_insert(message);
            *end = [*end, message].into_iter().max_by_key(|message| position(message)).unwrap_or(message);
        }
        // In a busy shard others come first.
        if let Some(last) = ends.into_values().min_by_key(|message| position(message)) {
            self.send_lost_future(&producer, last).await;
        }
        Ok(())
    }

    /// A message as it would still be there after the store was restored to an earlier point: at the next position of its
    /// shard, and of another history.
    async fn send_lost_future(&self, producer: &FutureProducer, like: &OwnedMessage) {
        let mut headers = OwnedHeaders::new();
        let position = position(like);
        for found in like.headers().into_iter().flat_map(Headers::iter) {
            let value = String::from_utf8_lossy(found.value.unwrap_or_default()).into_owned();
            let value = match found.key {
                "ce_history" | "ce_id" => Uuid::now_v7().to_string(),
                "ce_previous" => position.to_string(),
                "ce_position" => (position + 1).to_string(),
                _ => value,
            };
            headers = headers.insert(Header { key: found.key, value: Some(&value) });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topics.events_topic).partition(like.partition());
        record.key = like.key();
        record.payload = like.payload();
        record.headers = Some(headers);
        let _ = producer.send(record, KAFKA_TIMEOUT).await;
    }
}

fn position(message: &OwnedMessage) -> i64 {
    header(message, "ce_position").parse().unwrap_or_default()
}

/// A header of a message of ours; empty where there is none.
pub(crate) fn header<'a>(message: &'a OwnedMessage, name: &str) -> &'a str {
    let mut headers = message.headers().into_iter().flat_map(Headers::iter);
    let found = headers.find(|header| header.key == name).and_then(|header| header.value);
    found.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default()
}

//! What a topic holds already.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use events::Delivered;
use platform::kafka::{Broker, Quiet};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers as _},
};

use crate::{consumer, outbox::MARK};

/// How long Kafka may take for one answer, and for all of them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is asked for a partition that has no leader yet.
const LEADER_POLL: Duration = Duration::from_millis(20);

/// The last message of a partition.
#[derive(Debug)]
pub enum Last {
    /// An event, and the mark that its sender put on it ([`MARK`]).
    Event(Box<Delivered>, Option<String>),
    /// No event of ours, and why.
    Foreign(String),
    /// It is gone: too old for the topic, or deleted.
    Dropped,
}

/// The last message of each partition that has ever had one.
///
/// # Errors
/// Where there is no such topic, or Kafka does not answer in [`TIMEOUT`].
pub async fn last_messages(broker: &Broker, topic: &str) -> anyhow::Result<BTreeMap<i32, Last>> {
    let mut config = broker.consumer();
    // Offsets are neither asked of the group nor told to it; librdkafka wants a name to assign partitions.
    config.set("group.id", format!("{}-last-messages", broker.config().group));
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::new("the look at a topic"))?;
    let topic = topic.to_owned();
    tokio::task::spawn_blocking(move || read_last(&consumer, &topic)).await?
}

fn read_last(consumer: &BaseConsumer<Quiet>, topic: &str) -> anyhow::Result<BTreeMap<i32, Last>> {
    let deadline = Instant::now() + TIMEOUT;
    let mut assignment = TopicPartitionList::new();
    let mut last = BTreeMap::new();
    for partition in 0..consumer::partitions(consumer, topic)? {
        let (first, next) = watermarks(consumer, topic, partition, deadline)?;
        if next > first {
            assignment.add_partition_offset(topic, partition, Offset::Offset(next - 1))?;
        } else if next > 0 {
            last.insert(partition, Last::Dropped);
        }
    }
    let wanted = last.len() + assignment.count();
    consumer.assign(&assignment)?;
    while last.len() < wanted {
        let patience = deadline.saturating_duration_since(Instant::now());
        anyhow::ensure!(!patience.is_zero(), "Kafka does not give the last messages of topic {topic}");
        let Some(message) = consumer.poll(patience) else { continue };
        let message = message?;
        // More may have been produced meanwhile; the first of each partition is the one that was last.
        last.entry(message.partition()).or_insert_with(|| Last::of(&message));
    }
    Ok(last)
}

/// Where a partition begins and ends. Of a topic that was just made its broker may not know yet that it leads it.
fn watermarks(
    consumer: &BaseConsumer<Quiet>,
    topic: &str,
    partition: i32,
    deadline: Instant,
) -> anyhow::Result<(i64, i64)> {
    loop {
        match consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Err(error) if is_passing(&error) && Instant::now() < deadline => thread::sleep(LEADER_POLL),
            answer => return answer.with_context(|| format!("cannot look at partition {partition} of topic {topic}")),
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition};
    let passing = [LeaderNotAvailable, NotLeaderForPartition, UnknownTopicOrPartition];
    error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}

impl Last {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let mut headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        let mark = headers.find(|header| header.key == MARK).and_then(|header| header.value);
        let mark = mark.map(|mark| String::from_utf8_lossy(mark).into_owned());
        match consumer::delivered(message) {
            Ok(event) => Self::Event(Box::new(event), mark),
            Err(error) => Self::Foreign(error.to_string()),
        }
    }
}

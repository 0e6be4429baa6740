//! What the topic holds already.

use std::time::{Duration, Instant};

use events::HistoryId;
use platform::kafka::{Broker, Quiet};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::{consumer, history::Seen};

/// How long Kafka may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The last message of each partition: its history, and which event it saw where. What is not ours is left out.
pub(super) async fn last_messages(broker: &Broker) -> anyhow::Result<Vec<(HistoryId, Seen)>> {
    broker.ensure_topics().await?;
    let mut config = broker.consumer();
    // Offsets are neither asked of the group nor told to it; librdkafka wants a name to assign partitions.
    config.set("group.id", format!("{}-last-messages", broker.config().group));
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet::new("the relay's look at the topic"))?;
    let topic = broker.config().events_topic.clone();
    tokio::task::spawn_blocking(move || read_last(&consumer, &topic)).await?
}

fn read_last(consumer: &BaseConsumer<Quiet>, topic: &str) -> anyhow::Result<Vec<(HistoryId, Seen)>> {
    let mut assignment = TopicPartitionList::new();
    for partition in 0..consumer::partitions(consumer, topic)? {
        let (first, next) = consumer.fetch_watermarks(topic, partition, TIMEOUT)?;
        if next > first {
            assignment.add_partition_offset(topic, partition, Offset::Offset(next - 1))?;
        }
    }
    let mut wanted = assignment.count();
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + TIMEOUT;
    let mut last = Vec::new();
    while wanted > 0 {
        let patience = deadline.saturating_duration_since(Instant::now());
        anyhow::ensure!(!patience.is_zero(), "Kafka does not give the last messages of topic {topic}");
        let Some(message) = consumer.poll(patience) else { continue };
        let message = message?;
        // More may have been produced meanwhile; the first of each partition is the one that was last.
        if assignment
            .find_partition(topic, message.partition())
            .is_some_and(|it| it.offset() == Offset::Offset(message.offset()))
        {
            wanted -= 1;
            last.extend(consumer::decode(&message).ok().map(|item| (item.history, (item.position, item.event_id))));
        }
    }
    Ok(last)
}

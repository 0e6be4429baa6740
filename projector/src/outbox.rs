//! What is on its way to Kafka, and what Kafka has acknowledged.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use events::{Delivered, Position, kafka};
use platform::kafka::{Broker, Quiet};
use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, ProducerContext},
};
use tokio::sync::Notify;

use crate::producer::Producer;

/// Events that wait for their acknowledgement at most.
const MOST_WAITING: usize = 5_000;
/// The same for librdkafka: with room for the last batch that is let in.
const QUEUE_MESSAGES: &str = "10000";
/// What librdkafka may hold of them, in KiB.
const QUEUE_KIB: &str = "65536";
/// How long Kafka may take to tell the topic's partitions.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// The header with what its sender says of a message besides ([`Outbox::marked`]).
pub const MARK: &str = "agora_question";

/// An idempotent producer: what it sends arrives in order and once, or not at all.
pub struct Outbox {
    producer: Arc<Producer<Deliveries>>,
    ledger: Arc<Ledger>,
    topic: String,
    partitions: i32,
    mark: Option<String>,
}

/// What was sent, in order, and which of it has arrived.
#[derive(Default)]
struct Ledger {
    sent: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    /// How many were sent before the first that waits.
    first: usize,
    /// Positions sent, and whether each was acknowledged; the first was not.
    sent: VecDeque<(Position, bool)>,
    /// Everything up to here was acknowledged.
    through: Option<Position>,
    /// How many were acknowledged since that was last asked.
    new: u64,
    failure: Option<String>,
}

impl Outbox {
    /// One that sends to `topic`. Kafka is not asked yet.
    ///
    /// # Errors
    /// A property that librdkafka does not know.
    pub fn new(broker: &Broker, topic: &str) -> anyhow::Result<Self> {
        let ledger = Arc::new(Ledger::default());
        let mut config = broker.client();
        config.set("enable.idempotence", "true").set("acks", "all").set("linger.ms", "0");
        // Kafka may be away for as long as it likes: what it did not take is not lost, and never out of order.
        config.set("message.timeout.ms", "0");
        config.set("queue.buffering.max.messages", QUEUE_MESSAGES).set("queue.buffering.max.kbytes", QUEUE_KIB);
        let context = Deliveries { ledger: Arc::clone(&ledger), log: Quiet::new("the producer of events") };
        let producer = Arc::new(Producer::new(&config, context)?);
        Ok(Self { producer, ledger, topic: topic.to_owned(), partitions: 1, mark: None })
    }

    /// Puts a mark on each message that it sends from now on.
    #[must_use]
    pub fn marked(self, mark: String) -> Self {
        Self { mark: Some(mark), ..self }
    }

    /// How many partitions the topic has, once it is [connected](Self::connect).
    pub fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Reaches Kafka, and learns how many partitions the topic has.
    ///
    /// # Errors
    /// Where Kafka is away, or has no such topic.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        let (producer, topic) = (Arc::clone(&self.producer), self.topic.clone());
        let metadata = move || producer.client().fetch_metadata(Some(&topic), METADATA_TIMEOUT);
        let metadata = tokio::task::spawn_blocking(metadata).await??;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        anyhow::ensure!(partitions > 0, "Kafka has no topic {}", self.topic);
        self.partitions = i32::try_from(partitions)?;
        Ok(())
    }

    /// A new producer in the place of one that failed; nothing of the old one arrives any more.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn replaced(self, broker: &Broker) -> anyhow::Result<Self> {
        let (topic, mark) = (self.topic.clone(), self.mark.clone());
        // Waits for the old one's thread.
        tokio::task::spawn_blocking(move || drop(self)).await?;
        let mut new = Self { mark, ..Self::new(broker, &topic)? };
        new.connect().await?;
        Ok(new)
    }

    /// Whether another batch may be sent.
    pub fn has_room(&self) -> bool {
        self.ledger.lock().sent.len() < MOST_WAITING
    }

    /// Sends an event; false where librdkafka has no room, or the producer has failed.
    pub fn send(&self, delivered: &Delivered) -> bool {
        let message = kafka::encode(delivered);
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len() + 1);
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        if let Some(mark) = &self.mark {
            headers = headers.insert(Header { key: MARK, value: Some(mark) });
        }
        // Noted first: its acknowledgement may come at once.
        let number = self.ledger.add(delivered.envelope.position);
        let record = BaseRecord::with_opaque_to(&self.topic, number)
            .partition(delivered.envelope.shard.partition(self.partitions))
            .key(&message.key)
            .payload(&message.value)
            .headers(headers);
        let Err(error) = self.producer.send(record) else { return true };
        self.ledger.take_back();
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            self.ledger.fail(&error);
        }
        false
    }

    /// What has arrived without a gap, where anything has; and how many events since that was last asked.
    pub fn acknowledged_through(&self) -> (Option<Position>, u64) {
        let mut waiting = self.ledger.lock();
        (waiting.through, std::mem::take(&mut waiting.new))
    }

    /// Why this producer is of no more use.
    pub fn failure(&self) -> Option<String> {
        self.ledger.lock().failure.clone()
    }

    /// Waits until something arrives or fails.
    pub async fn acknowledgement(&self) {
        self.ledger.news.notified().await;
    }

    /// Whether everything that was sent has arrived.
    pub fn is_empty(&self) -> bool {
        self.ledger.lock().sent.is_empty()
    }

    /// Waits until everything has arrived.
    pub async fn all_acknowledged(&self) {
        while !self.is_empty() {
            self.acknowledgement().await;
        }
    }
}

impl Ledger {
    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, position: Position) -> usize {
        let mut waiting = self.lock();
        waiting.sent.push_back((position, false));
        waiting.first + waiting.sent.len() - 1
    }

    /// The last one was not sent after all.
    fn take_back(&self) {
        self.lock().sent.pop_back();
    }

    fn arrived(&self, number: usize) {
        let mut waiting = self.lock();
        let index = number - waiting.first;
        if let Some(sent) = waiting.sent.get_mut(index) {
            sent.1 = true;
        }
        while let Some((position, true)) = waiting.sent.front().copied() {
            waiting.sent.pop_front();
            waiting.first += 1;
            waiting.new += 1;
            waiting.through = Some(position);
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn fail(&self, error: &KafkaError) {
        self.lock().failure.get_or_insert_with(|| error.to_string());
        self.news.notify_one();
    }
}

/// Writes into the ledger what librdkafka reports.
struct Deliveries {
    ledger: Arc<Ledger>,
    log: Quiet,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, number: usize) {
        match delivered {
            Ok(_) => {
                self.log.answered();
                self.ledger.arrived(number);
            }
            Err((error, _)) => self.ledger.fail(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_arrived_without_a_gap_counts() {
        let ledger = Ledger::default();
        let numbers: Vec<usize> = [3, 7, 8].into_iter().map(|position| ledger.add(position)).collect();
        let arrived = |number| {
            ledger.arrived(number);
            let waiting = ledger.lock();
            (waiting.through, waiting.new, waiting.sent.len())
        };
        assert_eq!(arrived(numbers[1]), (None, 0, 3));
        assert_eq!(arrived(numbers[0]), (Some(7), 2, 1));
        assert_eq!(arrived(numbers[2]), (Some(8), 3, 0));
    }

    #[test]
    fn what_was_not_sent_is_not_waited_for() {
        let ledger = Ledger::default();
        let first = ledger.add(1);
        ledger.add(2);
        ledger.take_back();
        ledger.arrived(first);
        assert!(ledger.lock().sent.is_empty());
        assert_eq!(ledger.add(2), 1);
    }
}

//! Events from Kafka: one consumer and one decode for all projections.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use events::{
    Delivered,
    kafka::{self, CodecError},
};
use futures::{FutureExt as _, StreamExt as _};
use platform::{
    kafka::{Broker, Quiet},
    patience::Patience,
};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{Consumer as _, StreamConsumer},
    message::{BorrowedMessage, Headers as _},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{batch::Item, metrics::Metrics};

/// Events that wait for the projections, after which no more are fetched.
const MOST_EVENTS: usize = 2_000;
/// The same in bytes of payload.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// What librdkafka may fetch ahead, in KiB.
const FETCH_AHEAD_KIB: &str = "16384";
/// How long librdkafka rests once it has fetched enough ahead, in milliseconds: not its default of a second.
const FETCH_REST: &str = "10";
/// How long Kafka may take to tell a topic's partitions.
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Where events come from.
pub(crate) struct Source {
    consumer: ArcSwap<StreamConsumer<Quiet>>,
    topic: String,
    replace: Notify,
    /// When it last brought something.
    received_at: Mutex<Instant>,
    /// What the projections have not taken yet: it grows while they work.
    waiting: Mutex<Fetched>,
    came: Notify,
    taken: Notify,
    /// Kept as long as it is read from.
    broker: Broker,
}

/// Some events, and how far their partitions have been read.
#[derive(Default)]
pub(crate) struct Fetched {
    pub(crate) items: Vec<Item>,
    pub(crate) offsets: HashMap<i32, i64>,
    bytes: usize,
}

impl Fetched {
    fn is_full(&self) -> bool {
        self.items.len() >= MOST_EVENTS || self.bytes >= MOST_BYTES
    }
}

impl Source {
    /// A consumer that has not begun to read.
    pub(crate) fn new(broker: &Broker) -> anyhow::Result<Arc<Self>> {
        let consumer = ArcSwap::from_pointee(Self::consumer(broker)?);
        let topic = broker.config().events_topic.clone();
        Ok(Arc::new(Self {
            consumer,
            topic,
            replace: Notify::new(),
            received_at: Mutex::new(Instant::now()),
            waiting: Mutex::default(),
            came: Notify::new(),
            taken: Notify::new(),
            broker: broker.clone(),
        }))
    }

    fn consumer(broker: &Broker) -> anyhow::Result<StreamConsumer<Quiet>> {
        let mut config = broker.consumer();
        config.set("group.id", &broker.config().group).set("auto.offset.reset", "earliest");
        config.set("queued.max.messages.kbytes", FETCH_AHEAD_KIB).set("fetch.queue.backoff.ms", FETCH_REST);
        if !broker.in_process() {
            // Offsets are a hint where to go on, no more: what counts are the checkpoints in the database.
            config.set("group.protocol", "consumer");
            config.set("enable.auto.commit", "true").set("enable.auto.offset.store", "false");
        }
        Ok(config.create_with_context(Quiet::new("the projector's consumer"))?)
    }

    /// Has another consumer go on. One that brings nothing any more, though there is something, may do so for good: after
    /// its topic was made anew, say.
    pub(crate) fn replace(&self) {
        tracing::warn!("Kafka brings the projector's consumer nothing, though there is something: another one goes on");
        self.replace.notify_one();
    }

    /// When it last brought something; at first, when it began.
    pub(crate) fn received_at(&self) -> Instant {
        *self.received_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Fetched> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once something was fetched that nobody has taken; by one at a time.
    pub(crate) async fn something(&self) {
        while self.waiting().offsets.is_empty() {
            self.came.notified().await;
        }
    }

    /// All that was fetched and that nobody has taken, if anything.
    pub(crate) fn take(&self) -> Fetched {
        let taken = mem::take(&mut *self.waiting());
        self.taken.notify_one();
        taken
    }

    /// Fetches events until the process ends. What is not ours is passed by, with an alarm: were an event lost with
    /// it, the one behind it in its shard would show the gap.
    pub(crate) async fn run(self: Arc<Self>, metrics: Metrics, shutdown: CancellationToken) {
        let mut patience = Patience::new("the projector's consumer");
        loop {
            let consumer = self.consumer.load_full();
            tokio::select! {
                () = self.read(&consumer, &metrics, &mut patience, &shutdown) => return,
                () = self.replace.notified() => {}
            }
            match Self::consumer(&self.broker) {
                Ok(another) => self.consumer.store(Arc::new(another)),
                Err(error) => patience.failed(error, &shutdown).await,
            }
            // It leaves its group, which may take as long as Kafka takes to answer.
            tokio::task::spawn_blocking(move || drop(consumer));
        }
    }

    /// Until the process ends.
    async fn read(
        &self,
        consumer: &Arc<StreamConsumer<Quiet>>,
        metrics: &Metrics,
        patience: &mut Patience,
        shutdown: &CancellationToken,
    ) {
        while let Err(error) = self.begin(consumer).await {
            patience.failed(error, shutdown).await;
            if shutdown.is_cancelled() {
                return;
            }
        }
        patience.worked();
        let mut messages = consumer.stream();
        loop {
            while self.waiting().is_full() {
                let Some(()) = shutdown.run_until_cancelled(self.taken.notified()).await else { return };
            }
            let Some(Some(first)) = shutdown.run_until_cancelled(messages.next()).await else { return };
            let (mut fetched, mut next) = (Fetched::default(), Some(first));
            while let Some(message) = next {
                match message {
                    Ok(message) => {
                        fetched.bytes += message.payload_len();
                        fetched.offsets.insert(message.partition(), message.offset() + 1);
                        match decode(&message) {
                            Ok(item) if item.content.is_ok() => fetched.items.push(item),
                            // Its copy counts for nothing: the gap is filled by what the store says, which may be repaired.
                            Ok(_) => {}
                            Err(reason) => self.alarm(&message, &reason, metrics),
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "Kafka's answer to the projector's consumer");
                        break;
                    }
                }
                next = if fetched.is_full() { None } else { messages.next().now_or_never().flatten() };
            }
            if fetched.offsets.is_empty() {
                patience.failed("Kafka reports an error", shutdown).await;
            } else {
                consumer.client().context().answered();
                *self.received_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                patience.worked();
                self.add(fetched);
            }
        }
    }

    fn add(&self, more: Fetched) {
        let mut waiting = self.waiting();
        waiting.items.extend(more.items);
        waiting.offsets.extend(more.offsets);
        waiting.bytes += more.bytes;
        drop(waiting);
        self.came.notify_one();
    }

    /// These were dealt with: another consumer need not begin before them.
    pub(crate) fn done(&self, fetched: HashMap<i32, i64>) {
        if self.broker.in_process() {
            return;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in fetched {
            // Only a hint; and a partition that went to another consumer meanwhile is his to answer for.
            let _ = offsets.add_partition_offset(&self.topic, partition, Offset::Offset(offset));
        }
        let _ = self.consumer.load().store_offsets(&offsets);
    }

    /// Joins the group; or, on the in-process broker, which serves nobody else, takes all partitions from the beginning:
    /// its memory is no older than this process.
    async fn begin(&self, consumer: &Arc<StreamConsumer<Quiet>>) -> anyhow::Result<()> {
        self.broker.ensure_topics().await?;
        if !self.broker.in_process() {
            return consumer.subscribe(&[&self.topic]).context("cannot subscribe");
        }
        let (asked, topic) = (Arc::clone(consumer), self.topic.clone());
        let partitions = move || partitions(&*asked, &topic);
        let mut assignment = TopicPartitionList::new();
        for partition in 0..tokio::task::spawn_blocking(partitions).await?? {
            assignment.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
        }
        Ok(consumer.assign(&assignment)?)
    }

    fn alarm(&self, message: &BorrowedMessage<'_>, reason: &str, metrics: &Metrics) {
        metrics.alarm("foreign-message");
        tracing::error!(
            "topic {} holds a message that is no event of ours, at offset {} of partition {}: {reason}. It is passed by, \
             and nothing of ours is missing for it; find out who writes to the topic (`agora events tail` shows what \
             belongs there)",
            self.topic,
            message.offset(),
            message.partition(),
        );
    }
}

/// How many partitions a topic has. Blocks for up to [`METADATA_TIMEOUT`].
pub(crate) fn partitions<C: rdkafka::consumer::ConsumerContext>(
    consumer: &impl rdkafka::consumer::Consumer<C>,
    topic: &str,
) -> anyhow::Result<i32> {
    let metadata = consumer.client().fetch_metadata(Some(topic), METADATA_TIMEOUT)?;
    let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    anyhow::ensure!(found > 0, "Kafka has no topic {topic}");
    Ok(i32::try_from(found)?)
}

/// A message as an event.
pub(crate) fn decode(message: &BorrowedMessage<'_>) -> Result<Item, String> {
    delivered(message).map(Item::from).map_err(|error| error.to_string())
}

/// The same, whatever it says.
pub(crate) fn delivered(message: &BorrowedMessage<'_>) -> Result<Delivered, CodecError> {
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    let headers = headers.map(|header| (header.key, header.value.unwrap_or_default()));
    kafka::decode(headers, message.payload().unwrap_or_default())
}

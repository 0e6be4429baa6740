//! The topic of events, as another consumer than Agora's sees it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use platform::kafka::KafkaConfig;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    message::{BorrowedMessage, Headers as _},
};
use tokio::time::Instant;

/// How long Kafka may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a topic may take until all is there.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long between two looks at how much is there: each asks Kafka once a partition, and takes from what is measured.
const LOOK: Duration = Duration::from_millis(10);
/// How long one look at its messages waits.
const POLL: Duration = Duration::from_millis(20);

/// See the module.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    partitions: i32,
}

impl Topic {
    /// The topic of that Kafka; it need not be there yet.
    ///
    /// # Errors
    /// Where librdkafka refuses.
    pub fn of(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", kafka.brokers.as_deref().context("a broker's address")?);
        client.set("group.id", format!("bench-{}", kafka.events_topic)).set("enable.auto.commit", "false");
        Ok(Self { consumer: client.create()?, name: kafka.events_topic.clone(), partitions: kafka.partitions })
    }

    /// Messages a second, from when the first few are there until `all` are. Blocks.
    ///
    /// # Errors
    /// Where they do not come.
    pub fn fills(&self, all: f64) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut first = None;
        loop {
            let there = self.messages();
            let now = Instant::now();
            match first {
                None if there > 0. && there < all => first = Some((now, there)),
                None if there >= all => bail!("all {all} messages came at once: too few to say how fast"),
                Some((since, were)) if there >= all => return Ok((there - were) / (now - since).as_secs_f64()),
                _ => {}
            }
            thread::sleep(LOOK);
            ensure!(began.elapsed() < PATIENCE, "{there} of {all} messages came");
        }
    }

    /// How many messages it has; 0 before there is a topic.
    #[allow(clippy::cast_precision_loss, reason = "messages of a bench")]
    fn messages(&self) -> f64 {
        let ends = (0..self.partitions).map(|partition| self.consumer.fetch_watermarks(&self.name, partition, TIMEOUT));
        ends.filter_map(|ends| Some(ends.ok()?.1 as f64)).sum()
    }

    /// Listens to what comes from now on.
    ///
    /// # Errors
    /// Where Kafka does not answer.
    pub fn listen(self) -> anyhow::Result<Listening> {
        let mut from = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let (_, end) = self.consumer.fetch_watermarks(&self.name, partition, TIMEOUT)?;
            from.add_partition_offset(&self.name, partition, Offset::Offset(end))?;
        }
        self.consumer.assign(&from)?;
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut came = HashMap::new();
            loop {
                match self.consumer.poll(POLL) {
                    Some(message) => {
                        let now = Instant::now();
                        came.insert(position(&message?)?, now);
                    }
                    // Only once it is silent: what was written last is still on its way.
                    None if told.load(Ordering::Relaxed) => return Ok(came),
                    None => {}
                }
            }
        });
        Ok(Listening { over, thread })
    }
}

/// A thread that notes when each position came.
pub struct Listening {
    over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<HashMap<i64, Instant>>>,
}

impl Listening {
    /// When each position came.
    ///
    /// # Errors
    /// Where a message was no event.
    pub fn heard(self) -> anyhow::Result<HashMap<i64, Instant>> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?
    }
}

fn position(message: &BorrowedMessage<'_>) -> anyhow::Result<i64> {
    let headers = message.headers().context("no headers")?;
    let position = headers.iter().find(|header| header.key == "ce_position").and_then(|header| header.value);
    Ok(std::str::from_utf8(position.context("no position")?)?.parse()?)
}

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

use anyhow::{Context as _, ensure};
use chrono::{DateTime, TimeDelta, Utc};
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

    /// Messages a second, from the last look that finds none until `all` are there. Blocks.
    ///
    /// # Errors
    /// Where they do not come.
    pub fn fills(&self, all: f64) -> anyhow::Result<f64> {
        let began = Instant::now();
        let mut empty = began;
        loop {
            let looked = Instant::now();
            let there = self.messages();
            if there >= all {
                return Ok(all / empty.elapsed().as_secs_f64());
            }
            if there == 0. {
                empty = looked;
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
                        let now = Utc::now();
                        let message = message?;
                        let written: DateTime<Utc> = attribute(&message, "ce_time")?.parse()?;
                        came.insert(attribute(&message, "ce_position")?.parse()?, now - written);
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

/// A thread that notes how long after its event's time each message came.
pub struct Listening {
    over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<HashMap<i64, TimeDelta>>>,
}

impl Listening {
    /// By position, from the event's time, which its transaction takes before it commits, until the message was here.
    ///
    /// # Errors
    /// Where a message was no event.
    pub fn heard(self) -> anyhow::Result<HashMap<i64, TimeDelta>> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the consumer panicked"))?
    }
}

fn attribute<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> anyhow::Result<&'a str> {
    let headers = message.headers().context("no headers")?;
    let value = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    Ok(std::str::from_utf8(value.with_context(|| format!("no {name}"))?)?)
}

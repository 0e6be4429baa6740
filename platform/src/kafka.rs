//! Kafka, or the in-process broker that stands in for it on one machine: librdkafka's own, which speaks the real
//! protocol over loopback and keeps everything in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
pub use aside::Aside;
use bytes::Bytes;
pub use quiet::Quiet;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    error::RDKafkaErrorCode,
    metadata::MetadataTopic,
    mocking::MockCluster,
};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::config::{self, Secret};

mod aside;
mod quiet;

/// Partitions of a topic in the in-process broker: it keeps up to 5 MiB of each in memory, and one process gains nothing
/// by more.
const IN_PROCESS_PARTITIONS: i32 = 2;
/// Changes that wait at most for who listens in this process: who is further behind misses the oldest.
const TOLD_CHANGES: usize = 256;
/// How long a broker may take to answer what is asked at start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How often Kafka is asked whether a topic that it just made can be used.
const USABLE_POLL: Duration = Duration::from_millis(20);

/// Which Kafka, and what is kept there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port,host:port`; without it, a broker in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brokers: Option<String>,
    /// The topic that carries every event.
    pub events_topic: String,
    /// The topic that tells which read rows changed.
    pub changes_topic: String,
    /// Partitions of a topic that we create in an outside Kafka; one that exists keeps its own.
    #[serde(deserialize_with = "config::positive")]
    pub partitions: i32,
    /// Copies of a topic that we create; -1 for the broker's own default.
    pub replication: i32,
    /// The consumer group that shares the partitions of the events.
    pub group: String,
    /// More librdkafka properties for every client, such as `security.protocol`; their values may be secrets.
    pub properties: BTreeMap<String, Secret>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: None,
            events_topic: "agora.events".to_owned(),
            changes_topic: "agora.changes".to_owned(),
            partitions: 16,
            replication: -1,
            group: "agora-projector".to_owned(),
            properties: BTreeMap::new(),
        }
    }
}

impl KafkaConfig {
    /// What no single setting tells.
    ///
    /// # Errors
    /// One topic for two things.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.events_topic != self.changes_topic,
            "`kafka.events_topic` and `kafka.changes_topic` are both {:?}: they have to be two",
            self.events_topic
        );
        Ok(())
    }
}

/// A way to Kafka. Clones share it; the in-process broker lives as long as one of them.
#[derive(Clone, Debug)]
pub struct Broker {
    config: Arc<KafkaConfig>,
    servers: String,
    in_process: Option<Arc<InProcess>>,
    changes: broadcast::Sender<Bytes>,
}

/// Keeps the in-process broker: it ends with the last handle on this.
#[derive(Debug)]
struct InProcess {
    _alive: mpsc::SyncSender<()>,
}

impl Broker {
    /// Starts the in-process broker, with its topics, where no other is configured.
    ///
    /// # Errors
    /// Where librdkafka cannot listen on loopback, or as [`KafkaConfig::check`]. An outside Kafka is not asked yet.
    pub fn start(config: &KafkaConfig) -> anyhow::Result<Self> {
        config.check()?;
        let changes = broadcast::Sender::new(TOLD_CHANGES);
        if let Some(servers) = config.brokers.clone() {
            return Ok(Self { config: Arc::new(config.clone()), servers, in_process: None, changes });
        }
        let config = Arc::new(KafkaConfig { partitions: IN_PROCESS_PARTITIONS, ..config.clone() });
        let (servers, in_process) = start_in_process(&config).context("cannot start the in-process Kafka broker")?;
        Ok(Self { config, servers, in_process: Some(Arc::new(in_process)), changes })
    }

    /// What every client starts from: the servers, and connections that notice when the other end is gone.
    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.servers);
        client.set("client.id", "agora");
        client.set("socket.keepalive.enable", "true");
        client.set("socket.nagle.disable", "true");
        // Back at once when a broker is: not after the default's 10 s at most.
        client.set("reconnect.backoff.max.ms", "1000");
        for (name, value) in &self.config.properties {
            client.set(name, value.expose());
        }
        client
    }

    /// What every consumer starts from: [`Broker::client`], and how long a fetch may wait, in milliseconds. The
    /// in-process broker does not wake a waiting fetch when something is produced, a real one does: there, each
    /// millisecond less is a millisecond sooner at best, and costs an idle process more of a core.
    pub fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("fetch.wait.max.ms", if self.in_process() { "15" } else { "500" });
        client.set("enable.auto.commit", "false");
        client
    }

    /// Whether it is the broker in this process: it serves this process only, and its partitions are to be assigned
    /// by hand.
    pub fn in_process(&self) -> bool {
        self.in_process.is_some()
    }

    /// Tells a message of the changes topic to those of this process who listen, before it has been through Kafka.
    pub fn tell_change(&self, message: Bytes) {
        // Nobody listens: the others have it from Kafka.
        let _ = self.changes.send(message);
    }

    /// What is [told](Self::tell_change) from now on. With the in-process broker that is everything; with another, what
    /// this process publishes, and the topic has it once more.
    pub fn told_changes(&self) -> broadcast::Receiver<Bytes> {
        self.changes.subscribe()
    }

    /// What it was started with; in process, with the partitions that it really has.
    pub fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// Creates the topics that are missing, and waits until they can be used.
    ///
    /// # Errors
    /// Where Kafka is away, or refuses.
    pub async fn ensure_topics(&self) -> anyhow::Result<()> {
        let names = [&self.config.events_topic, &self.config.changes_topic];
        if self.in_process() { Ok(()) } else { self.ensure(names.map(Clone::clone).to_vec()).await }
    }

    /// Creates a topic of somebody's own where it is missing, and waits until it can be used. One that is there stays as it
    /// is: partitions, once added, cannot be taken away.
    ///
    /// # Errors
    /// As [`Self::ensure_topics`].
    pub async fn create_topic(&self, name: &str) -> anyhow::Result<()> {
        let name = name.to_owned();
        let admin = self.admin()?;
        // Asked first, as who may write to a topic need not have the right to create one; and of all topics, as to ask
        // Kafka for one creates it, where it is set to.
        let look = move || (admin.inner().fetch_metadata(None, STARTUP_TIMEOUT), admin);
        let (found, admin) = tokio::task::spawn_blocking(look).await?;
        let found = found.with_context(|| format!("cannot reach Kafka at {}", self.servers))?;
        if found.topics().iter().any(|topic| topic.name() == name) {
            return Ok(());
        }
        self.create(&admin, std::slice::from_ref(&name)).await?;
        tokio::task::spawn_blocking(move || wait_until_usable(&admin, &name).map(drop)).await?
    }

    fn admin(&self) -> anyhow::Result<Aside<AdminClient<Quiet>>> {
        Ok(Aside::new(self.client().create_with_context(Quiet::new("who makes the topics"))?))
    }

    async fn create(&self, admin: &AdminClient<Quiet>, names: &[String]) -> anyhow::Result<()> {
        let KafkaConfig { partitions, replication, .. } = *self.config;
        let new = |name| NewTopic::new(name, partitions, TopicReplication::Fixed(replication));
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| new(name)).collect();
        let outcomes = admin
            .create_topics(&topics, &patience())
            .await
            .with_context(|| format!("cannot reach Kafka at {}", self.servers))?;
        for outcome in outcomes {
            match outcome {
                Ok(topic) => tracing::info!(topic, partitions, "created the topic"),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    anyhow::bail!("Kafka at {} refuses to create topic {topic}: {code}", self.servers)
                }
            }
        }
        Ok(())
    }

    async fn ensure(&self, names: Vec<String>) -> anyhow::Result<()> {
        let admin = self.admin()?;
        self.create(&admin, &names).await?;
        let wanted = usize::try_from(self.config.partitions)?;
        let (admin, short) = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let mut short = Vec::new();
            for topic in names {
                let partitions = wait_until_usable(&admin, &topic)?;
                if partitions < wanted {
                    short.push((topic, partitions));
                }
            }
            Ok((admin, short))
        })
        .await??;
        for (topic, partitions) in short {
            // A broker makes it, as small as it likes, for the first who writes to it after it was lost.
            tracing::warn!(
                topic,
                partitions,
                wanted,
                "the topic has fewer partitions than configured: adding the others"
            );
            let more = NewPartitions::new(&topic, wanted);
            for outcome in admin.create_partitions([&more], &patience()).await? {
                match outcome {
                    // Another process was faster.
                    Ok(_) | Err((_, RDKafkaErrorCode::InvalidPartitions)) => {}
                    Err((topic, code)) => anyhow::bail!("Kafka adds no partitions to {topic}: {code}"),
                }
            }
        }
        Ok(())
    }
}

fn patience() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(STARTUP_TIMEOUT)).request_timeout(Some(STARTUP_TIMEOUT))
}

/// Kafka answers that a topic is made before its brokers know it. Answers how many partitions it has.
fn wait_until_usable(admin: &AdminClient<Quiet>, topic: &str) -> anyhow::Result<usize> {
    let deadline = Instant::now() + STARTUP_TIMEOUT;
    loop {
        let metadata = admin.inner().fetch_metadata(Some(topic), STARTUP_TIMEOUT)?;
        let partitions = metadata.topics().first().map_or(&[][..], MetadataTopic::partitions);
        if !partitions.is_empty() && partitions.iter().all(|partition| partition.leader() >= 0) {
            return Ok(partitions.len());
        }
        anyhow::ensure!(Instant::now() < deadline, "Kafka made topic {topic}, and does not show it");
        thread::sleep(USABLE_POLL);
    }
}

/// The mock cluster is bound to its thread, so it gets one of its own, which sleeps until the last handle is gone.
fn start_in_process(config: &KafkaConfig) -> anyhow::Result<(String, InProcess)> {
    let topics = [config.events_topic.clone(), config.changes_topic.clone()];
    let partitions = config.partitions;
    let start = move || -> anyhow::Result<_> {
        let cluster = MockCluster::new(1)?;
        for topic in &topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(cluster)
    };
    let (started, outcome) = mpsc::sync_channel(1);
    let (alive, gone) = mpsc::sync_channel::<()>(0);
    thread::Builder::new().name("kafka-broker".to_owned()).spawn(move || match start() {
        Ok(cluster) => {
            let _ = started.send(Ok(cluster.bootstrap_servers()));
            // Nothing is ever sent: this ends when the last sender is dropped.
            let _ = gone.recv();
        }
        Err(error) => {
            let _ = started.send(Err(error));
        }
    })?;
    let servers = outcome.recv().context("its thread ended")??;
    Ok((servers, InProcess { _alive: alive }))
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Message,
        consumer::{BaseConsumer, Consumer},
        producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
        topic_partition_list::{Offset, TopicPartitionList},
    };

    use super::*;

    #[test]
    fn the_in_process_broker_carries_messages() {
        let broker = Broker::start(&KafkaConfig::default()).expect("loopback is there");
        assert!(broker.in_process());

        let producer: ThreadedProducer<DefaultProducerContext> = broker.client().create().expect("a producer");
        let record = BaseRecord::to("agora.events").partition(1).key("k").payload("hello");
        producer.send(record).map_err(|(error, _)| error).expect("room in the queue");
        producer.flush(Duration::from_secs(10)).expect("it is delivered");

        let consumer: BaseConsumer = broker.consumer().set("group.id", "g").create().expect("a consumer");
        let metadata = consumer.fetch_metadata(Some("agora.events"), Duration::from_secs(10)).expect("metadata");
        assert_eq!(metadata.topics()[0].partitions().len(), 2);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("agora.events", 1, Offset::Beginning).expect("a good offset");
        consumer.assign(&assignment).expect("by hand");
        let message = consumer.poll(Duration::from_secs(10)).expect("a message in time").expect("no error");
        assert_eq!(message.payload(), Some(&b"hello"[..]));
    }

    #[test]
    fn an_outside_kafka_is_reached_by_its_servers_and_properties() {
        let config = KafkaConfig {
            brokers: Some("kafka:9092".to_owned()),
            properties: BTreeMap::from([("security.protocol".to_owned(), "SSL".into())]),
            ..KafkaConfig::default()
        };
        let broker = Broker::start(&config).expect("nothing is asked yet");
        assert!(!broker.in_process());
        assert_eq!(broker.client().get("bootstrap.servers"), Some("kafka:9092"));
        assert_eq!(broker.client().get("security.protocol"), Some("SSL"));
    }
}

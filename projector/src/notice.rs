//! Change notices: after each commit, which things changed, for whoever keeps copies of them. They are hints and may be
//! lost: the positions in them show a reader what he missed.

use events::{HistoryId, Position, Shard};
use platform::kafka::{Broker, Quiet};
use rdkafka::{
    ClientContext,
    message::DeliveryResult,
    producer::{BaseRecord, ProducerContext},
};
use serde::Serialize;

use crate::{producer::Producer, projection::Changed};

/// A notice that names more things than this is not sent: the break in the chain says "everything of this shard".
const MOST_KEYS: usize = 500;
/// The notices of one message name no more than this, at some 45 bytes: a fifth of what Kafka takes.
const MOST_KEYS_TOGETHER: usize = 5_000;
/// Where they all are, in order: everybody reads every notice, so there is nothing to spread.
const PARTITION: i32 = 0;
/// Messages waiting to be sent at most; more are dropped.
const MOST_WAITING: &str = "10000";
/// How long a notice is worth sending, in milliseconds: readers look at the checkpoints themselves meanwhile.
const WORTH_SENDING: &str = "5000";

/// Tells what changed.
pub(crate) struct Notices {
    producer: Producer<Hints>,
    topic: String,
    broker: Broker,
}

/// One projection's progress in one shard, as it stands in the topic, in JSON: in a list of those of a batch.
#[derive(Serialize)]
pub(crate) struct Notice {
    pub(crate) history: HistoryId,
    pub(crate) shard: Shard,
    pub(crate) projection: &'static str,
    /// The checkpoint before.
    pub(crate) before: Position,
    /// The checkpoint now.
    pub(crate) after: Position,
    /// What changed: `thread:<id>`, `post:<id>`, `community:<id>`, `account:<id>`.
    keys: Vec<String>,
}

impl Notice {
    /// That a projection moved on in a shard; none where it would name too much.
    pub(crate) fn new(
        history: HistoryId,
        shard: Shard,
        projection: &'static str,
        (before, after): (Position, Position),
        changed: &Changed,
    ) -> Option<Self> {
        let keys = || changed.0.iter().map(ToString::to_string).collect();
        (changed.0.len() <= MOST_KEYS).then(|| Self { history, shard, projection, before, after, keys: keys() })
    }
}

impl Notices {
    pub(crate) fn new(broker: &Broker) -> anyhow::Result<Self> {
        let mut config = broker.client();
        config.set("acks", "1").set("linger.ms", "0").set("queue.buffering.max.messages", MOST_WAITING);
        config.set("message.timeout.ms", WORTH_SENDING);
        let producer = Producer::new(&config, Hints(Quiet::new("the sender of change notices")))?;
        Ok(Self { producer, topic: broker.config().changes_topic.clone(), broker: broker.clone() })
    }

    /// Tells of a batch, in as few messages as it takes. Never waits, never fails.
    pub(crate) fn publish(&self, mut notices: &[Notice]) {
        while !notices.is_empty() {
            let (some, others) = notices.split_at(together(notices));
            notices = others;
            let Ok(message) = serde_json::to_vec(some) else { return };
            // A full queue: Kafka is away, and readers look for themselves.
            let _ = self.producer.send(BaseRecord::<(), _, _>::to(&self.topic).partition(PARTITION).payload(&message));
            self.broker.tell_change(message.into());
        }
    }
}

/// How many of them, from the first on, go into one message.
fn together(notices: &[Notice]) -> usize {
    let mut keys = 0;
    let fits = notices.iter().take_while(|notice| {
        keys += notice.keys.len();
        keys <= MOST_KEYS_TOGETHER
    });
    fits.count().max(1)
}

/// Nobody waits for a notice.
struct Hints(Quiet);

impl ClientContext for Hints {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Hints {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        if delivered.is_ok() {
            self.0.answered();
        }
    }
}

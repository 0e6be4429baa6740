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
/// Notices waiting to be sent at most; more are dropped.
const MOST_WAITING: &str = "10000";
/// How long a notice is worth sending, in milliseconds: readers look at the checkpoints themselves meanwhile.
const WORTH_SENDING: &str = "5000";

/// Tells what changed.
pub(crate) struct Notices {
    producer: Producer<Hints>,
    topic: String,
    /// Kept as long as it is sent to.
    _broker: Broker,
}

/// One projection's progress in one shard, as it stands in the topic, in JSON.
#[derive(Serialize)]
struct Notice<'a> {
    history: HistoryId,
    shard: Shard,
    projection: &'a str,
    /// The checkpoint before and after.
    before: Position,
    after: Position,
    /// What changed: `thread:<id>`, `post:<id>`, `community:<id>`, `account:<id>`.
    keys: Vec<String>,
}

impl Notices {
    pub(crate) fn new(broker: &Broker) -> anyhow::Result<Self> {
        let mut config = broker.client();
        config.set("acks", "1").set("linger.ms", "0").set("queue.buffering.max.messages", MOST_WAITING);
        config.set("message.timeout.ms", WORTH_SENDING);
        let producer = Producer::new(&config, Hints(Quiet::new("the sender of change notices")))?;
        Ok(Self { producer, topic: broker.config().changes_topic.clone(), _broker: broker.clone() })
    }

    /// Never waits, never fails.
    pub(crate) fn publish(
        &self,
        history: HistoryId,
        shard: Shard,
        projection: &str,
        (before, after): (Position, Position),
        changed: &Changed,
    ) {
        if changed.0.len() > MOST_KEYS {
            return;
        }
        let keys = changed.0.iter().map(ToString::to_string).collect();
        let notice = Notice { history, shard, projection, before, after, keys };
        let (Ok(notice), key) = (serde_json::to_vec(&notice), shard.to_string()) else { return };
        // A full queue: Kafka is away, and readers look for themselves.
        let _ = self.producer.send(BaseRecord::to(&self.topic).key(&key).payload(&notice));
    }
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

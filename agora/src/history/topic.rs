//! A topic of Kafka that is somebody's own: the same messages as the relay's, by the same producer, with one header more
//! ([`projector::outbox::MARK`]) that names the question they answer. By that it can be continued, whatever ended its writer.

mod there;

use std::time::Duration;

use anyhow::bail;
use events::{Delivered, Position};
use platform::kafka::{Broker, KafkaConfig};
use projector::Outbox;
use store_reader::{StoreReader, Unreadable};
use tokio::time::timeout;

use super::{Gather, Part, Question, alone::Alone, seen::is_of};
use there::There;

/// How long Kafka may take, once nothing more is sent, to say what has arrived.
const LAST_ANSWERS: Duration = Duration::from_secs(5);
/// How the names of topics begin that Kafka has for itself, such as `__consumer_offsets`.
const INTERNAL: &str = "__";

/// Events as they are stored, each seen to be readable.
#[derive(Debug, Default)]
pub struct Messages {
    pub(super) events: Vec<Delivered>,
    bytes: usize,
}

/// Where messages go.
pub struct Topic {
    outbox: Outbox,
    there: There,
    arrived: Arrived,
    _alone: Alone,
}

/// What has arrived, without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How many events.
    pub events: u64,
    /// Everything up to here.
    pub through: Position,
}

impl Gather for Messages {
    fn add(&mut self, event: Delivered) -> Result<(), Unreadable> {
        event.envelope.newest().map_err(|error| Unreadable::of(&event.envelope, error))?;
        self.bytes += size_of::<Delivered>() + event.envelope.payload.get().len();
        self.events.push(event);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Topic {
    /// Makes the topic where it is missing, reaches it, and finds out what it has of the part. One that is there keeps the
    /// partitions that it has.
    ///
    /// # Errors
    /// Where there is no Kafka, the topic is one of Agora's or of Kafka's, or it has what answers another question or is of
    /// another store; and where another process sends to it.
    pub async fn open(config: &KafkaConfig, name: &str, part: &Part, store: &StoreReader) -> anyhow::Result<Self> {
        if config.brokers.is_none() {
            bail!("no Kafka is configured: give --kafka-brokers (the broker inside `agora up` is its own)");
        }
        // Another deployment's may have the names of the defaults.
        let defaults = KafkaConfig::default();
        let ours = [&config.events_topic, &config.changes_topic, &defaults.events_topic, &defaults.changes_topic];
        if ours.iter().any(|topic| *topic == name) {
            bail!("the topic {name} is Agora's own: name another one");
        }
        if name.starts_with(INTERNAL) {
            bail!("the topic {name} is Kafka's own, as all that begin with {INTERNAL}: name another one");
        }
        let alone = Alone::at(store, &format!("replay to the topic {name}")).await?;
        let broker = Broker::start(config)?;
        broker.create_topic(name).await?;
        let mut outbox = Outbox::new(&broker, name)?;
        outbox.connect().await?;
        let (question, partitions) = (part.question(), outbox.partitions());
        let there = There::look(&broker, name, &question, partitions).await?;
        is_of(store, name, there.last().unwrap_or(0), there.events()).await?;
        let arrived = Arrived { events: 0, through: there.through(question.community) };
        Ok(Self { outbox: outbox.marked(there::mark(&question, partitions)?), there, arrived, _alone: alone })
    }

    /// The last event of the part that it had. Others before it may be missing, behind what has [`arrived`](Self::arrived).
    pub fn goes_on_from(&self) -> Option<Position> {
        self.there.last()
    }

    /// Sends the events that it did not have, as fast as Kafka takes them.
    ///
    /// # Errors
    /// Where Kafka refused one for good. It waits for a Kafka that is away.
    pub async fn send(&mut self, Messages { events, .. }: Messages) -> anyhow::Result<()> {
        for event in events.iter().filter(|event| !self.there.has(event)) {
            while !self.outbox.has_room() || !self.outbox.send(event) {
                self.refused()?;
                self.outbox.acknowledgement().await;
            }
        }
        self.refused()
    }

    /// Waits until all of it has arrived.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        while !self.outbox.is_empty() {
            self.refused()?;
            self.outbox.acknowledgement().await;
        }
        self.refused()
    }

    /// Waits a while for what was sent, to say how far it reaches. False where some of it has not been answered for, and
    /// may arrive yet.
    pub async fn settle(&mut self) -> bool {
        timeout(LAST_ANSWERS, self.finish()).await.is_ok_and(|sent| sent.is_ok())
    }

    /// What has arrived.
    pub fn arrived(&mut self) -> Arrived {
        let (through, events) = self.outbox.acknowledged_through();
        self.arrived.events += events;
        self.arrived.through = through.unwrap_or(self.arrived.through);
        self.arrived
    }

    fn refused(&self) -> anyhow::Result<()> {
        self.outbox.failure().map_or(Ok(()), |error| bail!("Kafka did not take an event: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use events::HistoryId;
    use store_reader::Filter;

    use super::*;

    #[tokio::test]
    async fn topics_that_are_somebodys_are_refused() {
        // Refused before it is asked.
        let store = StoreReader::new(sqlx::PgPool::connect_lazy("postgres://localhost:1/none").expect("a URL"));
        let config = KafkaConfig {
            brokers: Some("127.0.0.1:1".into()),
            events_topic: "forum.events".into(),
            ..KafkaConfig::default()
        };
        let part = Part { after: 0, through: 0, filter: Filter::default(), history: HistoryId::new() };
        for name in ["forum.events", "agora.events", "agora.changes"] {
            let refused = Topic::open(&config, name, &part, &store).await.err().expect("refused");
            assert_eq!(refused.to_string(), format!("the topic {name} is Agora's own: name another one"));
        }
        let refused = Topic::open(&config, "__consumer_offsets", &part, &store).await.err().expect("refused");
        assert!(refused.to_string().contains("__consumer_offsets is Kafka's own"), "{refused}");
        let refused = Topic::open(&KafkaConfig::default(), "replayed", &part, &store).await.err().expect("refused");
        assert!(refused.to_string().starts_with("no Kafka is configured"));
    }
}

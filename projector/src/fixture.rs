//! Histories for the tests of folds.

use chrono::{DateTime, TimeDelta, Utc};
use events::{AccountId, CommunityId, Envelope, Event, EventId, HistoryId, Metadata, Position, Shard, Stream, kafka};
use uuid::Uuid;

use crate::{
    batch::Item,
    projection::{Changed, Fault, Key, Projection, Recorded},
};

/// Events of one community, one second apart, from position 1.
pub(crate) struct History {
    pub(crate) community: CommunityId,
    pub(crate) recorded: Vec<(Envelope, Event)>,
}

/// When the event at a position happened.
pub(crate) fn at(position: Position) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a time") + TimeDelta::seconds(position)
}

impl History {
    pub(crate) fn new() -> Self {
        Self { community: CommunityId::new(), recorded: Vec::new() }
    }

    /// Adds an event, as a job would cause it.
    pub(crate) fn then(&mut self, stream: &Stream, event: impl Into<Event>) -> &mut Self {
        self.by(None, stream, event)
    }

    /// Adds an event that `actor` caused.
    pub(crate) fn by(&mut self, actor: Option<AccountId>, stream: &Stream, event: impl Into<Event>) -> &mut Self {
        let event = event.into();
        let before = self.recorded.iter().filter(|(envelope, _)| envelope.stream == *stream).count();
        let position = i64::try_from(self.recorded.len()).expect("few events") + 1;
        let envelope = Envelope {
            event_id: EventId::new(),
            stream: stream.clone(),
            sequence: i64::try_from(before).expect("few events") + 1,
            position,
            shard: Shard::of_community(self.community),
            community: Some(self.community),
            name: event.name().to_owned(),
            version: event.version(),
            recorded_at: at(position),
            metadata: Metadata {
                actor,
                correlation_id: Uuid::now_v7(),
                causation_id: None,
                traceparent: None,
                occurred_at: None,
            },
            payload: event.payload().expect("JSON"),
        };
        self.recorded.push((envelope, event));
        self
    }

    /// Folds all of it onto `rows`.
    pub(crate) fn fold<P: Projection>(&self, rows: &mut P::Rows) -> Result<Vec<Key>, Fault> {
        let mut changed = Changed::default();
        for (envelope, event) in &self.recorded {
            if P::concerns(event) {
                P::fold(rows, &Recorded { envelope, event }, &mut changed)?;
            }
        }
        Ok(changed.0.into_iter().collect())
    }
}

/// An event without a meaning, at a place in the chain.
pub(crate) fn item(history: HistoryId, shard: Shard, previous: Position, position: Position) -> Item {
    let mut made = History::new();
    let account = AccountId::new();
    made.then(&Stream::account(account), events::AccountEvent::PasswordChanged(events::account::PasswordChanged {}));
    let (mut envelope, _) = made.recorded.remove(0);
    (envelope.shard, envelope.position) = (shard, position);
    let delivered = events::Delivered { envelope, previous, history };
    // Through the codec, as every message comes.
    let message = kafka::encode(&delivered);
    let headers = message.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
    kafka::decode(headers, message.value.as_bytes()).expect("it decodes").into()
}

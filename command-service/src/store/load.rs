//! Streams, folded: from the cache, or through `postgres-es`.

use std::{any::Any, collections::HashMap, sync::Arc};

use cqrs_es::{
    Aggregate, EventEnvelope,
    persist::{PersistedEventRepository, SerializedEvent},
};
use events::{DecodeError, Event, Stream};
use moka::{ops::compute::Op, sync::Cache};
use postgres_es::PostgresEventRepository;
use serde_json::value::to_raw_value;
use sqlx::PgPool;

use super::StoreError;

/// States kept folded, at most; each is far below a kilobyte but for category trees.
const CACHED_STATES: u64 = 50_000;

/// An aggregate that the store keeps: its events are some of ours.
pub trait Stored: Aggregate<Event: Into<Event> + TryFrom<Event, Error = Event>> + Clone + 'static {}

impl<A> Stored for A where A: Aggregate<Event: Into<Event> + TryFrom<Event, Error = Event>> + Clone + 'static {}

/// An aggregate as its stream says it is.
#[derive(Clone, Debug)]
pub struct Loaded<A> {
    /// The state.
    pub state: A,
    /// How many events it is folded from; 0 where there is no such stream.
    pub version: i64,
}

/// A [`Loaded`] of any aggregate, for the cache.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) version: i64,
    loaded: Arc<dyn Any + Send + Sync>,
}

impl Snapshot {
    pub(super) fn of<A: Stored>(loaded: &Arc<Loaded<A>>) -> Self {
        Self { version: loaded.version, loaded: loaded.clone() }
    }

    /// None where it is of another aggregate.
    pub(super) fn state<A: Stored>(&self) -> Option<Arc<Loaded<A>>> {
        self.loaded.clone().downcast().ok()
    }
}

/// Reads streams, remembering what they fold to. A state may be stale: every decision names the versions it rests on.
#[derive(Clone)]
pub(super) struct Loader {
    repository: Arc<PostgresEventRepository>,
    states: Cache<Stream, Snapshot>,
}

impl Loader {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { repository: Arc::new(PostgresEventRepository::new(pool)), states: Cache::new(CACHED_STATES) }
    }

    pub(super) async fn load<A: Stored>(&self, stream: &Stream) -> Result<Arc<Loaded<A>>, StoreError> {
        if let Some(state) = self.states.get(stream).and_then(|snapshot| snapshot.state()) {
            return Ok(state);
        }
        let loaded = Arc::new(self.read::<A>(stream).await?);
        // What is not there yet is likely to come: its absence is not worth a place.
        if loaded.version > 0 {
            self.remember(stream.clone(), Snapshot::of(&loaded));
        }
        Ok(loaded)
    }

    /// From the database, whatever is remembered; and remembers nothing.
    pub(super) async fn read<A: Stored>(&self, stream: &Stream) -> Result<Loaded<A>, StoreError> {
        let mut loaded = Loaded { state: A::default(), version: 0 };
        for event in self.repository.get_events::<A>(&stream.id).await? {
            loaded.version = i64::try_from(event.sequence).unwrap_or(i64::MAX);
            for event in decode(stream, event)? {
                loaded.state.apply(event);
            }
        }
        Ok(loaded)
    }

    pub(super) async fn envelopes<A: Stored>(&self, stream: &Stream) -> Result<Vec<EventEnvelope<A>>, StoreError> {
        let mut envelopes = Vec::new();
        for event in self.repository.get_events::<A>(&stream.id).await? {
            let (aggregate_id, sequence) = (stream.id.clone(), event.sequence);
            let metadata: HashMap<String, String> = serde_json::from_value(event.metadata.clone())?;
            for payload in decode(stream, event)? {
                let (aggregate_id, metadata) = (aggregate_id.clone(), metadata.clone());
                envelopes.push(EventEnvelope { aggregate_id, sequence, payload, metadata });
            }
        }
        Ok(envelopes)
    }

    /// Keeps a state, unless a later one is there: who wrote last need not be here last.
    pub(super) fn remember(&self, stream: Stream, snapshot: Snapshot) {
        self.states.entry(stream).and_compute_with(|known| match known {
            Some(known) if known.value().version > snapshot.version => Op::Nop,
            _ => Op::Put(snapshot),
        });
    }

    /// Forgets a state of which it came out that it is past; what came in its place meanwhile stays.
    pub(super) fn forget(&self, stream: &Stream, version: i64) {
        if self.states.get(stream).is_some_and(|known| known.version == version) {
            self.states.invalidate(stream);
        }
    }
}

/// Decodes what `postgres-es` read: its own upcasters are one to one and cannot fail, ours may do both.
pub(super) fn decode<E: TryFrom<Event, Error = Event>>(
    stream: &Stream,
    event: SerializedEvent,
) -> Result<Vec<E>, StoreError> {
    let undecodable = |source| StoreError::Undecodable { stream: stream.clone(), source: Box::new(source) };
    let SerializedEvent { event_type, event_version, payload, .. } = event;
    let unknown = |version| undecodable(DecodeError::Unknown { name: event_type.clone(), version });
    let version = event_version.parse().map_err(|_| unknown(0))?;
    let events = events::decode(&event_type, version, &to_raw_value(&payload)?).map_err(undecodable)?;
    events.into_iter().map(|event| E::try_from(event).map_err(|_| unknown(version))).collect()
}

//! Streams, folded: from the cache, or through `postgres-es`, long ones from a [snapshot](super::snapshots) on. Where an
//! event cannot be read, the stream is read again in a way that says which, and passes those by that every reader leaves out.

use std::{any::Any, collections::HashMap, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use cqrs_es::{
    Aggregate, EventEnvelope,
    persist::{PersistedEventRepository, SerializedEvent},
};
use events::{Envelope, Event, Metadata, Position, Stream};
use futures::{FutureExt as _, TryStreamExt as _};
use moka::{ops::compute::Op, sync::Cache};
use postgres_es::PostgresEventRepository;
use serde::Deserialize as _;
use serde_json::value::to_raw_value;
use sqlx::PgPool;
use store_reader::{Alarms, StoreReader, Unreadable};

use super::{
    StoreError,
    snapshots::{self, AnyLoaded, Snapshots},
};

/// States kept folded, at most; each is far below a kilobyte but for category trees.
const CACHED_STATES: u64 = 50_000;
/// Streams remembered in which something cannot be read: beyond it, one is read in vain before it is read around that.
const DAMAGED: u64 = 1_000;

/// An aggregate that the store keeps: its events are some of ours.
pub trait Stored: Aggregate<Event: Into<Event> + TryFrom<Event, Error = Event>> + Clone + 'static {
    /// Which shape its state has, and how events are folded into it; raised when either changes, as no snapshot from before
    /// is what the stream folds to then.
    const SCHEMA: i32;
}

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
pub(super) struct Folded {
    pub(super) version: i64,
    pub(super) loaded: Arc<dyn AnyLoaded>,
}

impl Folded {
    pub(super) fn of<A: Stored>(loaded: &Arc<Loaded<A>>) -> Self {
        Self { version: loaded.version, loaded: loaded.clone() }
    }

    /// None where it is of another aggregate.
    pub(super) fn state<A: Stored>(&self) -> Option<Arc<Loaded<A>>> {
        let loaded: Arc<dyn Any + Send + Sync> = self.loaded.clone();
        loaded.downcast().ok()
    }
}

/// Reads streams, remembering what they fold to. A state may be stale: every decision names the versions it rests on.
#[derive(Clone)]
pub(super) struct Loader {
    repository: Arc<PostgresEventRepository>,
    /// The same, but that streams begin with their snapshots.
    from_snapshots: Arc<PostgresEventRepository>,
    snapshots: Snapshots,
    /// For streams in which something cannot be read.
    reader: StoreReader,
    damaged: Cache<Stream, ()>,
    alarms: Alarms,
    states: Cache<Stream, Folded>,
}

/// One event of a stream.
struct Said<E> {
    /// Its place in the stream.
    sequence: i64,
    /// What it says, several things where it is of an old version; none where every reader leaves it out.
    said: Option<(Metadata, Vec<E>)>,
}

impl Loader {
    pub(super) fn new(pool: PgPool) -> Self {
        let repository = PostgresEventRepository::new(pool.clone());
        let from_snapshots = PostgresEventRepository::new(pool.clone()).with_tables(snapshots::STREAM, "");
        Self {
            repository: Arc::new(repository),
            from_snapshots: Arc::new(from_snapshots),
            snapshots: Snapshots::start(pool.clone()),
            reader: StoreReader::new(pool),
            damaged: Cache::new(DAMAGED),
            alarms: Alarms::new(),
            states: Cache::new(CACHED_STATES),
        }
    }

    pub(super) async fn load<A: Stored>(&self, stream: &Stream) -> Result<Arc<Loaded<A>>, StoreError> {
        if let Some(state) = self.states.get(stream).and_then(|folded| folded.state()) {
            return Ok(state);
        }
        let loaded = self.read::<A>(stream).await?;
        // What is not there yet is likely to come: its absence is not worth a place.
        if loaded.version > 0 {
            self.remember(stream.clone(), Folded::of(&loaded));
        }
        Ok(loaded)
    }

    /// Whether a state of the stream is at hand.
    pub(super) fn remembers(&self, stream: &Stream) -> bool {
        self.states.contains_key(stream)
    }

    /// From the database, whatever is remembered; and remembers nothing.
    pub(super) async fn read<A: Stored>(&self, stream: &Stream) -> Result<Arc<Loaded<A>>, StoreError> {
        let (mut loaded, events) = match self.resume(stream).await? {
            Some(resumed) => resumed,
            None => (Loaded { state: A::default(), version: 0 }, self.said::<A>(stream).await?),
        };
        let since = loaded.version;
        for Said { sequence, said } in events {
            loaded.version = sequence;
            let events = said.into_iter().flat_map(|(_, events)| events);
            events.for_each(|event| loaded.state.apply(event));
        }
        let loaded = Arc::new(loaded);
        if loaded.version - since >= snapshots::EVERY {
            self.snapshots.offer(stream.clone(), Folded::of(&loaded));
        }
        Ok(loaded)
    }

    /// What its snapshot says, and the events behind; all of them where it has none. None where the snapshot is to be passed
    /// by, or something cannot be read.
    async fn resume<A: Stored>(&self, stream: &Stream) -> Result<Option<(Loaded<A>, Vec<Said<A::Event>>)>, StoreError> {
        if self.damaged.contains_key(stream) {
            return Ok(None);
        }
        let Some(rows) = rows::<A>(&self.from_snapshots, stream).await? else { return Ok(None) };
        let resumed = snapshots::resume(&rows);
        Ok(resumed.and_then(|(loaded, events)| Some((loaded, events.iter().map(decode).collect::<Option<_>>()?))))
    }

    pub(super) async fn envelopes<A: Stored>(&self, stream: &Stream) -> Result<Vec<EventEnvelope<A>>, StoreError> {
        let mut envelopes = Vec::new();
        for Said { sequence, said } in self.said::<A>(stream).await? {
            let Some((metadata, events)) = said else { continue };
            let sequence = usize::try_from(sequence).unwrap_or(usize::MAX);
            // All of it is text.
            let metadata: HashMap<String, String> = serde_json::from_value(serde_json::to_value(metadata)?)?;
            for payload in events {
                let (aggregate_id, metadata) = (stream.id.clone(), metadata.clone());
                envelopes.push(EventEnvelope { aggregate_id, sequence, payload, metadata });
            }
        }
        Ok(envelopes)
    }

    /// What the events of a stream say, in order.
    async fn said<A: Stored>(&self, stream: &Stream) -> Result<Vec<Said<A::Event>>, StoreError> {
        if self.damaged.contains_key(stream) {
            return self.said_around::<A>(stream).await;
        }
        let rows = rows::<A>(&self.repository, stream).await?;
        if let Some(said) = rows.and_then(|rows| rows.iter().map(decode).collect()) {
            return Ok(said);
        }
        self.damaged.insert(stream.clone(), ());
        self.said_around::<A>(stream).await
    }

    /// The same where one of them cannot be read: event by event, around those that every reader leaves out.
    async fn said_around<A: Stored>(&self, stream: &Stream) -> Result<Vec<Said<A::Event>>, StoreError> {
        let (mut all, mut met) = (Vec::new(), Vec::new());
        {
            let id = [stream.id.clone()];
            let mut rows = pin!(self.reader.streams(&stream.aggregate, &id, Position::MAX));
            while let Some(row) = rows.try_next().await? {
                all.push(row.and_then(read).unwrap_or_else(|unreadable| {
                    let sequence = unreadable.sequence;
                    met.push(unreadable);
                    Said { sequence, said: None }
                }));
            }
        }
        match self.reader.not_left_out(met).await?.into_iter().next() {
            None => Ok(all),
            Some(stop) => {
                let (stream, sequence) = (&stop.stream, stop.sequence);
                let stops = format_args!(
                    "commands that rest on {stream} are not taken (500 unreadable-event), as of event {sequence} of it"
                );
                self.alarms.raise(&stop, stops);
                Err(StoreError::Unreadable(Box::new(stop)))
            }
        }
    }

    /// Keeps a state that was at another version before, unless a later one is there: who wrote last need not be here last.
    pub(super) fn grown(&self, stream: Stream, before: i64, folded: Folded) {
        if folded.version / snapshots::EVERY > before / snapshots::EVERY {
            self.snapshots.offer(stream.clone(), folded.clone());
        }
        self.remember(stream, folded);
    }

    /// Keeps a state, unless a later one is there.
    fn remember(&self, stream: Stream, folded: Folded) {
        self.states.entry(stream).and_compute_with(|known| match known {
            Some(known) if known.value().version > folded.version => Op::Nop,
            _ => Op::Put(folded),
        });
    }

    /// Forgets every state.
    pub(super) fn forget_all(&self) {
        self.states.invalidate_all();
    }

    /// Forgets a state of which it came out that it is past; what came in its place meanwhile stays.
    pub(super) fn forget(&self, stream: &Stream, version: i64) {
        if self.states.get(stream).is_some_and(|known| known.version == version) {
            self.states.invalidate(stream);
        }
    }
}

/// What `postgres-es` reads of a stream. None where it panics: at JSON that `serde_json` does not take, and Postgres does.
async fn rows<A: Stored>(
    repository: &PostgresEventRepository,
    stream: &Stream,
) -> Result<Option<Vec<SerializedEvent>>, StoreError> {
    Ok(AssertUnwindSafe(repository.get_events::<A>(&stream.id)).catch_unwind().await.ok().transpose()?)
}

/// Decodes what `postgres-es` read: its own upcasters are one to one and cannot fail, ours may do both. None where it cannot
/// be read; what every reader needs is looked at, so that none can read what another cannot.
fn decode<E: TryFrom<Event, Error = Event>>(event: &SerializedEvent) -> Option<Said<E>> {
    let metadata = Metadata::deserialize(&event.metadata).ok()?;
    let payload = to_raw_value(&event.payload).ok()?;
    let events = events::decode(&event.event_type, event.event_version.parse().ok()?, &payload).ok()?;
    let events = events.into_iter().map(E::try_from).collect::<Result<_, _>>().ok()?;
    Some(Said { sequence: i64::try_from(event.sequence).unwrap_or(i64::MAX), said: Some((metadata, events)) })
}

/// The same of an event as all others read it; or why it cannot be.
fn read<E: TryFrom<Event, Error = Event>>(envelope: Envelope) -> Result<Said<E>, Unreadable> {
    let events = envelope.decode().map_err(|error| Unreadable::of(&envelope, error))?;
    let foreign = |event: Event| Unreadable::of(&envelope, format_args!("{} in a stream of others", event.name()));
    let events = events.into_iter().map(|event| E::try_from(event).map_err(foreign)).collect::<Result<_, _>>()?;
    Ok(Said { sequence: envelope.sequence, said: Some((envelope.metadata, events)) })
}

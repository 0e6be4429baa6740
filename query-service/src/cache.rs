//! Finished answers, shared by all who see the same.

mod stamps;

pub(crate) use stamps::{Stamps, Tag, Tick};

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{CommunityId, HistoryId, Position, PostId, Shard};
use moka::future::Cache as Moka;
use opentelemetry::{KeyValue, metrics::Histogram};
use platform::config::duration;
use serde::{Deserialize, Serialize};

use crate::{
    answer::ETag,
    failure::Failure,
    view::{AnyView, Sight},
};

/// What an entry weighs besides its contents: key, headers, bookkeeping.
const OVERHEAD_BYTES: usize = 512;

/// How much is remembered of what was answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Memory for finished answers, in bytes.
    pub capacity_bytes: u64,
    /// How long an answer is kept at most, whatever no notice said.
    #[serde(with = "duration")]
    pub time_to_live: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { capacity_bytes: 32 * 1024 * 1024, time_to_live: Duration::from_secs(10) }
    }
}

/// Which answer for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) sight: Sight,
    pub(crate) view: AnyView,
}

/// A finished answer.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The clock before its rows were read.
    pub(crate) born: Tick,
    pub(crate) etag: ETag,
    pub(crate) body: Bytes,
    pub(crate) links: Option<HeaderValue>,
    pub(crate) reflects: Reflected,
    /// The shards it is of.
    pub(crate) shards: Vec<Shard>,
    /// What it shows.
    pub(crate) tags: Box<[Tag]>,
    pub(crate) communities: Arc<[CommunityId]>,
    pub(crate) posts: Arc<[PostId]>,
    /// When it changes by itself.
    pub(crate) until: Option<DateTime<Utc>>,
}

/// What rows reflect: in each of some shards, everything up to a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reflected {
    pub(crate) history: HistoryId,
    pub(crate) positions: Vec<(Shard, Position)>,
}

impl Reflected {
    /// 0 where nothing is known of the shard.
    pub(crate) fn in_shard(&self, shard: Shard) -> Position {
        self.positions.iter().find(|(of, _)| *of == shard).map_or(0, |(_, position)| *position)
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + self.body.len()
            + size_of_val(&*self.tags)
            + size_of_val(&*self.communities)
            + size_of_val(&*self.posts)
            + size_of_val(&*self.reflects.positions)
    }
}

/// Reads of a view. Counted here: a counter of OpenTelemetry's would look its labels up each time.
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// See the module. What of it is still good is for the reader to say.
pub(crate) struct Cache {
    entries: Moka<Key, Result<Arc<Entry>, Failure>>,
    counts: Arc<[Counts; AnyView::NAMES.len()]>,
    loads: Histogram<f64>,
}

impl Cache {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let meter = opentelemetry::global::meter("agora");
        let weigh = |_: &Key, entry: &Result<Arc<Entry>, Failure>| {
            let bytes = entry.as_ref().map_or(OVERHEAD_BYTES, |entry| entry.bytes());
            u32::try_from(bytes).unwrap_or(u32::MAX)
        };
        let counts = Arc::new([const { Counts { hits: AtomicU64::new(0), misses: AtomicU64::new(0) } }; _]);
        let counted = Arc::clone(&counts);
        meter
            .u64_observable_counter("agora.query.reads")
            .with_description("Reads, by view and by whether the cache had a good answer")
            .with_callback(move |observer| {
                for (view, Counts { hits, misses }) in AnyView::NAMES.into_iter().zip(&*counted) {
                    for (count, cache) in [(hits, "hit"), (misses, "miss")] {
                        let labels = [KeyValue::new("view", view), KeyValue::new("cache", cache)];
                        observer.observe(count.load(Ordering::Relaxed), &labels);
                    }
                }
            })
            .build();
        Self {
            counts,
            entries: Moka::builder()
                .max_capacity(config.capacity_bytes)
                .weigher(weigh)
                .time_to_live(config.time_to_live)
                .build(),
            loads: meter
                .f64_histogram("agora.query.load")
                .with_description("Time to read rows and make an answer of them, by view")
                .with_unit("s")
                .with_boundaries(platform::telemetry::SECONDS.to_vec())
                .build(),
        }
    }

    /// The answer that is kept, if any.
    pub(crate) async fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(key).await?.ok()
    }

    /// The answer that is kept, if it is `good`, else the one that `load` makes. One load of a key goes on at a time:
    /// who asks meanwhile gets its outcome, good for it or not.
    ///
    /// # Errors
    /// Those of the load, for all who waited for it.
    pub(crate) async fn load(
        &self,
        key: Key,
        good: impl Fn(&Entry) -> bool + Send + Sync,
        load: impl Future<Output = Result<Entry, Failure>>,
    ) -> Result<Arc<Entry>, Failure> {
        let replace = |entry: &Result<Arc<Entry>, Failure>| !entry.as_ref().is_ok_and(|entry| good(entry));
        // A failure is kept too, for those who waited for it; it is never good, and so replaced by the next who asks.
        let timed = async {
            let (view, started) = (key.view.name(), Instant::now());
            let loaded = load.await.map(Arc::new);
            self.loads.record(started.elapsed().as_secs_f64(), &[KeyValue::new("view", view)]);
            loaded
        };
        self.entries.entry(key.clone()).or_insert_with_if(timed, replace).await.into_value()
    }

    /// Counts a read.
    pub(crate) fn count(&self, view: &AnyView, hit: bool) {
        let Counts { hits, misses } = &self.counts[view.index()];
        (if hit { hits } else { misses }).fetch_add(1, Ordering::Relaxed);
    }
}

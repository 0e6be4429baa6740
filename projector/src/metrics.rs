//! What is counted of all this.

use std::sync::Arc;

use chrono::TimeDelta;
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge},
};

mod lanes;

pub(crate) use lanes::Lanes;

/// What an alarm may be of.
const ALARMS: [&str; 5] = ["foreign-message", "outdated", "parked", "restored", "unreadable"];

/// The instruments; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Events that a projection passed.
    projected: Counter<u64>,
    /// How far a projection's slowest shard is behind the store.
    lag: Gauge<i64>,
    /// For how long the first event behind it has been waiting.
    waiting: Gauge<f64>,
    /// Events that the relay has brought to Kafka, and its position.
    pub(crate) relayed: Counter<u64>,
    pub(crate) relay_position: Gauge<i64>,
    /// Events taken from the store because Kafka did not bring them.
    pub(crate) filled: Counter<u64>,
    alarms: Counter<u64>,
    parked: Gauge<u64>,
    rebuilding: Gauge<u64>,
    /// Shard by shard.
    pub(crate) lanes: Arc<Lanes>,
}

impl Metrics {
    /// Of these projections, on the process's meter.
    pub(crate) fn new(projections: Vec<&'static str>) -> Self {
        let meter = global::meter("agora");
        let alarms = meter
            .u64_counter("agora.alarms")
            .with_description("Error lines that name the command which resolves them.")
            .build();
        for kind in ALARMS {
            // Whoever watches for a rise sees the first one too.
            alarms.add(0, &[KeyValue::new("kind", kind)]);
        }
        Self {
            projected: meter
                .u64_counter("agora.projection.events")
                .with_description("Events that a projection has passed.")
                .build(),
            lag: meter
                .i64_gauge("agora.projection.lag")
                .with_description("Positions between a projection's slowest shard and the newest event of that shard.")
                .build(),
            waiting: meter
                .f64_gauge("agora.projection.waiting")
                .with_description("Since when the first event that a projection has not passed has been in the store.")
                .with_unit("s")
                .build(),
            relayed: meter
                .u64_counter("agora.relay.events")
                .with_description("Events that Kafka has acknowledged.")
                .build(),
            relay_position: meter
                .i64_gauge("agora.relay.position")
                .with_description("The last position of which Kafka has everything; of the leader only.")
                .build(),
            filled: meter
                .u64_counter("agora.projection.filled")
                .with_description("Events read from the event store because Kafka had not brought them.")
                .build(),
            alarms,
            parked: meter
                .u64_gauge("agora.projection.parked")
                .with_description("Shards in which a projection has stopped.")
                .build(),
            rebuilding: meter
                .u64_gauge("agora.projection.rebuilding")
                .with_description("1 while a projection is rebuilt beside its live rows, or verified; else 0.")
                .build(),
            lanes: Lanes::shown_on(&meter, projections),
        }
    }

    pub(crate) fn projected(&self, projection: &'static str, events: usize) {
        self.projected.add(events as u64, &[KeyValue::new("projection", projection)]);
    }

    pub(crate) fn lag(&self, projection: &'static str, positions: i64) {
        self.lag.record(positions, &[KeyValue::new("projection", projection)]);
    }

    pub(crate) fn waiting(&self, projection: &'static str, since: TimeDelta) {
        let seconds = since.to_std().unwrap_or_default().as_secs_f64();
        self.waiting.record(seconds, &[KeyValue::new("projection", projection)]);
    }

    pub(crate) fn parked(&self, projection: &'static str, shards: usize) {
        self.parked.record(shards as u64, &[KeyValue::new("projection", projection)]);
    }

    pub(crate) fn rebuilding(&self, projection: &'static str, is_rebuilt: bool) {
        self.rebuilding.record(u64::from(is_rebuilt), &[KeyValue::new("projection", projection)]);
    }

    /// One of [`ALARMS`].
    pub(crate) fn alarm(&self, kind: &'static str) {
        self.alarms.add(1, &[KeyValue::new("kind", kind)]);
    }
}

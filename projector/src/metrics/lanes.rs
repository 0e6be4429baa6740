//! Where each projection stands in each shard, for who scrapes: noted as it changes, and read only when it is asked for.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use chrono::{DateTime, Utc};
use events::{Position, Shard};
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

use crate::status::{LIVE_WITHIN, State};

/// No time: nothing waits.
const NEVER: i64 = 0;
/// In place of a time: it has stopped.
const PARKED: i64 = -1;

/// The lanes of all projections. As fresh as the last batch; what others did, and the heads, as the last tail check.
#[derive(Debug)]
pub(crate) struct Lanes {
    names: Vec<&'static str>,
    lanes: Vec<[Lane; Shard::COUNT as usize]>,
}

/// One projection in one shard. Numbers that are read singly: a scrape that comes between two of them shows the shard as
/// it was a moment before.
#[derive(Debug, Default)]
struct Lane {
    position: AtomicI64,
    head: AtomicI64,
    /// Since when the first event that it does not show waits, in milliseconds since 1970; [`NEVER`], or [`PARKED`].
    waits_since: AtomicI64,
}

impl Lanes {
    /// Lanes of these projections, shown on this meter for as long as they are used.
    pub(super) fn shown_on(meter: &Meter, names: Vec<&'static str>) -> Arc<Self> {
        let lanes = names.iter().map(|_| std::array::from_fn(|_| Lane::default())).collect();
        let lanes = Arc::new(Self { names, lanes });
        let shown = |name, what, value: fn(&Lane) -> i64| {
            // An instrument cannot be taken off its meter again: the lanes that it shows can.
            let lanes = Arc::downgrade(&lanes);
            let observe = move |observer: &dyn AsyncInstrument<i64>| {
                if let Some(lanes) = lanes.upgrade() {
                    lanes.observe(observer, value);
                }
            };
            meter.i64_observable_gauge(name).with_description(what).with_callback(observe).build();
        };
        shown("agora.projection.shard.position", "Up to where a projection shows a shard.", |lane| {
            lane.position.load(Relaxed)
        });
        shown(
            "agora.projection.shard.lag",
            "Positions between a projection's place in a shard and the newest event of that shard.",
            Lane::lag,
        );
        shown(
            "agora.projection.shard.state",
            "What a projection does in a shard: 0 live, 1 catching up, 3 stopped at an event.",
            |lane| lane.state(Utc::now()) as i64,
        );
        lanes
    }

    fn observe(&self, observer: &dyn AsyncInstrument<i64>, value: fn(&Lane) -> i64) {
        for (name, lanes) in self.names.iter().zip(&self.lanes) {
            for (shard, lane) in Shard::all().zip(lanes) {
                let labels = [KeyValue::new("projection", *name), KeyValue::new("shard", i64::from(shard.number()))];
                observer.observe(value(lane), &labels);
            }
        }
    }

    /// A tail check found it there, behind that head where something waits.
    pub(crate) fn checked(
        &self,
        projection: usize,
        shard: Shard,
        (position, head): (Position, Position),
        waits_since: Option<DateTime<Utc>>,
    ) {
        let lane = &self.lanes[projection][shard.index()];
        lane.position.store(position, Relaxed);
        lane.head.store(head, Relaxed);
        lane.waits_since.store(waits_since.map_or(NEVER, |since| since.timestamp_millis()), Relaxed);
    }

    /// It shows everything up to there.
    pub(crate) fn moved(&self, projection: usize, shard: Shard, position: Position) {
        self.lanes[projection][shard.index()].position.store(position, Relaxed);
    }

    /// It stopped at an event.
    pub(crate) fn parked(&self, projection: usize, shard: Shard) {
        self.lanes[projection][shard.index()].waits_since.store(PARKED, Relaxed);
    }
}

impl Lane {
    fn lag(&self) -> i64 {
        (self.head.load(Relaxed) - self.position.load(Relaxed)).max(0)
    }

    fn state(&self, now: DateTime<Utc>) -> State {
        match self.waits_since.load(Relaxed) {
            PARKED => State::Parked,
            since
                if since != NEVER
                    && self.lag() > 0
                    && now.timestamp_millis() - since > LIVE_WITHIN.num_milliseconds() =>
            {
                State::CatchingUp
            }
            _ => State::Live,
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_lane_is_live_until_something_waits_for_long_and_stopped_until_a_check_finds_it_going() {
        let lanes = Lanes { names: vec!["tea"], lanes: vec![std::array::from_fn(|_| Lane::default())] };
        let (shard, now) = (Shard::try_from(3_u8).expect("a shard"), Utc::now());
        let seen = || {
            let lane = &lanes.lanes[0][3];
            (lane.position.load(Relaxed), lane.lag(), lane.state(now))
        };
        assert_eq!(seen(), (0, 0, State::Live));
        lanes.checked(0, shard, (7, 9), Some(now));
        assert_eq!(seen(), (7, 2, State::Live), "it has only just come");
        lanes.checked(0, shard, (7, 9), Some(now - TimeDelta::seconds(10)));
        assert_eq!(seen(), (7, 2, State::CatchingUp));
        lanes.moved(0, shard, 12);
        assert_eq!(seen(), (12, 0, State::Live), "further than the last check knew");
        lanes.parked(0, shard);
        assert_eq!(seen(), (12, 0, State::Parked));
        lanes.checked(0, shard, (13, 13), None);
        assert_eq!(seen(), (13, 0, State::Live));
    }
}

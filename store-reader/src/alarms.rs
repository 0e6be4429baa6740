//! Events that a request met and nobody can read: an alarm for each.

use std::{fmt, time::Duration};

use events::EventId;
use moka::sync::Cache;
use opentelemetry::{KeyValue, global, metrics::Counter};

use super::Unreadable;

/// How long an event that was told of is not told of again, however many requests meet it.
const QUIET_FOR: Duration = Duration::from_secs(60);
/// Events remembered for that: beyond it, one may be told of more often.
const REMEMBERED: u64 = 1_000;
/// What is counted of them, as of those that the relay meets.
const KIND: &str = "unreadable";

/// Raises them, each as one line of the log at ERROR that names the command which resolves it, counted as `agora.alarms`.
/// Clones share what they remember.
#[derive(Clone, Debug)]
pub struct Alarms {
    told: Cache<EventId, ()>,
    counter: Counter<u64>,
}

impl Alarms {
    /// None raised so far.
    #[expect(clippy::new_without_default, reason = "it registers a counter")]
    pub fn new() -> Self {
        let counter = global::meter("agora")
            .u64_counter("agora.alarms")
            .with_description("Error lines that name the command which resolves them.")
            .build();
        // Whoever watches for a rise sees the first one too.
        counter.add(0, &[KeyValue::new("kind", KIND)]);
        Self { told: Cache::builder().max_capacity(REMEMBERED).time_to_live(QUIET_FOR).build(), counter }
    }

    /// Says what stops there, which event it is, and what resolves it, unless that was said within the last minute.
    pub fn raise(&self, event: &Unreadable, stops: impl fmt::Display) {
        if !self.is_news(event.event_id) {
            return;
        }
        self.counter.add(1, &[KeyValue::new("kind", KIND)]);
        let Unreadable { event_id, stream, sequence, position, .. } = event;
        tracing::error!(%event_id, %stream, sequence, position, "{stops}: {event}");
    }

    fn is_news(&self, event: EventId) -> bool {
        self.told.entry(event).or_insert(()).is_fresh()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_requests_meet_it_an_event_is_told_of_once() {
        let (alarms, event) = (Alarms::new(), EventId::new());
        assert!(alarms.is_news(event));
        assert!(!alarms.clone().is_news(event));
        assert!(alarms.is_news(EventId::new()), "another one is");
    }
}

//! What is said where a projection stops: one line at ERROR, which names the command that resolves it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use events::{EventId, Shard};

use crate::{checkpoint::Park, metrics::Metrics};

/// How long an event that nobody can read is not told of again: all projections stop at it, mostly in one batch, and one
/// command lets all of them go on.
const QUIET_FOR: Duration = Duration::from_secs(60);

/// The alarms of a pipeline. Of an event that nobody can read there is one, whichever projections stop at it.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// The last such event of each shard, and when it was told.
    told: HashMap<Shard, (EventId, Instant)>,
}

impl Alarms {
    /// Says that a projection stopped in a shard.
    pub(super) fn raise(&mut self, projection: &str, shard: Shard, park: &Park, metrics: &Metrics) {
        if park.unreadable && !self.is_news(shard, park.event_id, Instant::now()) {
            return;
        }
        metrics.alarm(if park.unreadable { "unreadable" } else { "parked" });
        let Park { event_id, position, .. } = park;
        tracing::error!(shard = shard.number(), %event_id, position, "{}", words(projection, shard, park));
    }

    fn is_news(&mut self, shard: Shard, event: EventId, now: Instant) -> bool {
        let told = self.told.get(&shard).is_some_and(|(last, at)| *last == event && now < *at + QUIET_FOR);
        if !told {
            self.told.insert(shard, (event, now));
        }
        !told
    }
}

fn words(projection: &str, shard: Shard, park: &Park) -> String {
    let Park { event_id, position, reason, unreadable } = park;
    let (what, whom, leave_out) = if *unreadable {
        (
            format!(
                "no projection can read event {event_id}, position {position}, and all stop there in shard {shard}"
            ),
            "all",
            format!(
                "`agora events repair {event_id} --with FILE --reason WHY` puts back what it said, and `agora events skip \
                 {event_id} --reason WHY` leaves the event out for every reader, for good"
            ),
        )
    } else {
        (
            format!("projection {projection} has stopped in shard {shard} at event {event_id}, position {position}"),
            projection,
            format!("`agora projections skip {projection} {shard} --reason WHY` leaves the event out for good"),
        )
    };
    format!(
        "{what} ({reason}). Everything else goes on. `agora projections retry {whom} {shard}` tries again, as with a release \
         that reads it; {leave_out}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park(unreadable: bool) -> Park {
        Park { event_id: EventId::new(), position: 7, reason: "why".to_owned(), unreadable }
    }

    #[test]
    fn of_an_event_that_nobody_can_read_there_is_one_alarm_and_another_after_a_while() {
        let shard = |number: i16| Shard::try_from(number).expect("a shard");
        let (mut alarms, event, now) = (Alarms::default(), EventId::new(), Instant::now());
        assert!(alarms.is_news(shard(1), event, now));
        assert!(!alarms.is_news(shard(1), event, now), "the next projection stops at the same");
        assert!(alarms.is_news(shard(2), EventId::new(), now) && !alarms.is_news(shard(1), event, now));
        assert!(alarms.is_news(shard(1), event, now + QUIET_FOR), "it still stands there");
        assert!(alarms.is_news(shard(1), EventId::new(), now + QUIET_FOR), "at the next one");
    }

    #[test]
    fn an_alarm_names_what_resolves_it() {
        let shard = Shard::try_from(3_i16).expect("a shard");
        let said = words("account", shard, &park(false));
        assert!(said.contains("retry account 3`") && said.contains("`agora projections skip account 3 "), "{said}");
        let said = words("account", shard, &park(true));
        assert!(said.contains("retry all 3`") && said.contains("`agora events skip "), "{said}");
        assert!(!said.contains("account"), "it is no projection's: {said}");
    }
}

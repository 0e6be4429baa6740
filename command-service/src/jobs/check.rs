//! The daily check: a part of everything each day, another one tomorrow, and all of it within [`DAYS`]. How it is looked is
//! others' business: read tables are none of this crate's.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::Shard;
use futures::future::BoxFuture;
use opentelemetry::{KeyValue, metrics::Counter};

use super::Outcome;

/// Within so many days every shard is checked.
pub const DAYS: i64 = 7;
/// Alarms of one run, at most: who has more looks for the rest.
const ALARMS: usize = 20;
const SECONDS_A_DAY: i64 = 86_400;

/// Looks whether all of a shard is as it was promised, and changes nothing.
pub trait Check: Send + Sync {
    /// What is broken there, in words: the first places.
    fn shard(&self, shard: Shard) -> BoxFuture<'_, anyhow::Result<Vec<String>>>;
}

/// The shards whose day this is: nine or ten of all, by their numbers.
pub fn checked_on(now: DateTime<Utc>) -> impl Iterator<Item = Shard> {
    let today = now.timestamp().div_euclid(SECONDS_A_DAY).rem_euclid(DAYS);
    Shard::all().filter(move |shard| i64::from(shard.number()) % DAYS == today)
}

/// Looks at today's shards, one after the other: it may take its time. Answers how many places are broken; each is an
/// alarm.
pub(super) async fn check(check: Option<&Arc<dyn Check>>, now: DateTime<Utc>, alarms: &Counter<u64>) -> Outcome {
    let Some(check) = check else {
        return Outcome { done: 0, failure: Some("this process has nothing to check with".to_owned()) };
    };
    let mut outcome = Outcome::default();
    let mut told = 0;
    for shard in checked_on(now) {
        match check.shard(shard).await {
            Ok(broken) => {
                alarms.add(broken.len() as u64, &[KeyValue::new("kind", "check")]);
                outcome.done += broken.len() as u64;
                for place in broken.iter().take(ALARMS - told) {
                    told += 1;
                    tracing::error!(
                        shard = shard.number(),
                        "the daily check found in shard {shard} what should not be: {place}. `agora check` looks \
                         everything through, and `agora projections rebuild --all` makes the read tables anew"
                    );
                }
            }
            // What cannot be looked at now keeps no other from being looked at.
            Err(error) => {
                outcome.failure.get_or_insert_with(|| format!("shard {shard}: {error:#}"));
            }
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn within_its_days_each_shard_is_looked_at_once() {
        let monday: DateTime<Utc> = "2026-01-05T03:00:00Z".parse().expect("a time");
        let mut looked: Vec<u8> =
            (0..DAYS).flat_map(|day| checked_on(monday + TimeDelta::days(day))).map(Shard::number).collect();
        assert!(checked_on(monday).count() <= 10);
        looked.sort_unstable();
        assert!(looked.into_iter().eq(0..Shard::COUNT));
    }
}

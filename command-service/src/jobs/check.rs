//! The daily check: a part of everything each day, another one tomorrow, and all of it within [`DAYS`]. How it is looked is
//! others' business: read tables are none of this crate's.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::Shard;
use futures::future::BoxFuture;
use opentelemetry::{KeyValue, metrics::Counter};
use sqlx::PgPool;

use super::{Job, Outcome, record};

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

/// The shards whose day came since those of `since` were looked at, today's in any case: nine or ten for each day.
fn due(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> impl Iterator<Item = Shard> {
    let day = |time: DateTime<Utc>| time.timestamp().div_euclid(SECONDS_A_DAY);
    let today = day(now);
    let first = since.map_or(today, |since| (day(since) + 1).clamp(today - DAYS + 1, today));
    Shard::all()
        .filter(move |shard| (first..=today).any(|day| day.rem_euclid(DAYS) == i64::from(shard.number()) % DAYS))
}

/// The shards that the daily check looks at when it runs at `now`: those whose day came since it last did all, so that a day
/// on which nothing ran is made up for; all of them after [`DAYS`].
///
/// # Errors
/// Those of the database.
pub async fn shards_to_check(store: &PgPool, now: DateTime<Utc>) -> sqlx::Result<Vec<Shard>> {
    Ok(due(record::done_through(store, Job::Check).await?, now).collect())
}

/// Looks at the shards that are due, one after the other: it may take its time. Answers how many places are broken; each is
/// an alarm.
pub(super) async fn check(
    check: Option<&Arc<dyn Check>>,
    store: &PgPool,
    now: DateTime<Utc>,
    alarms: &Counter<u64>,
) -> Outcome {
    let failed = |failure| Outcome { done: 0, failure: Some(failure) };
    let Some(check) = check else { return failed("this process has nothing to check with".to_owned()) };
    let shards = match shards_to_check(store, now).await {
        Ok(shards) => shards,
        Err(error) => return failed(error.to_string()),
    };
    let mut outcome = Outcome::default();
    let mut told = 0;
    for shard in shards {
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
            (0..DAYS).flat_map(|day| due(None, monday + TimeDelta::days(day))).map(Shard::number).collect();
        assert!(due(None, monday).count() <= 10);
        looked.sort_unstable();
        assert!(looked.into_iter().eq(0..Shard::COUNT));
    }

    #[test]
    fn a_day_that_was_left_out_is_made_up_for_and_a_week_is_all() {
        let monday: DateTime<Utc> = "2026-01-05T03:00:00Z".parse().expect("a time");
        let due_after = |days: i64| due(Some(monday - TimeDelta::days(days)), monday).collect::<Vec<_>>();
        assert_eq!(due_after(1), due(None, monday).collect::<Vec<_>>());
        assert_eq!(due_after(0), due_after(1), "run again, it looks at the same");
        let mut yesterday = due(None, monday - TimeDelta::days(1));
        assert!(due_after(2).len() > 17 && yesterday.all(|shard| due_after(2).contains(&shard)));
        for days in [7, 8, 400] {
            assert_eq!(due_after(days), Shard::all().collect::<Vec<_>>(), "{days}");
        }
    }
}

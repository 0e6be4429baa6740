//! What votes are worth.

use chrono::{DateTime, Utc};

/// What one reaction adds to a score: up and like count for, down against, other kinds not at all.
pub fn weight(kind: &str) -> i32 {
    match kind {
        "up" | "like" => 1,
        "down" => -1,
        _ => 0,
    }
}

/// Imported votes, as many as a count can hold.
pub fn votes(number: u32) -> i32 {
    // Half of the range: the difference of two such numbers is a number too.
    i32::try_from(number).map_or(MOST_VOTES, |number| number.min(MOST_VOTES))
}

const MOST_VOTES: i32 = i32::MAX / 2;

/// Reddit's "hot": a tenfold score is worth 45,000 seconds. It changes on a vote only, never with time.
pub fn hot(score: i32, created_at: DateTime<Utc>) -> f64 {
    let order = f64::from(score.unsigned_abs().max(1)).log10();
    #[allow(clippy::cast_precision_loss, reason = "exact to a microsecond until the year 2255")]
    let seconds = created_at.timestamp_micros() as f64 / 1_000_000.0;
    f64::from(score.signum()) * order + seconds / 45_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_times_the_score_is_worth_twelve_and_a_half_hours() {
        let then = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let later = then + chrono::Duration::seconds(45_000);
        assert!((hot(10, then) - hot(1, later)).abs() < 1e-9);
        assert!((hot(1000, then) - hot(100, later)).abs() < 1e-9);
    }

    #[test]
    fn a_score_below_zero_sinks_and_none_does_nothing() {
        let then = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        assert!(hot(-10, then) < hot(0, then));
        assert!((hot(0, then) - hot(1, then)).abs() < 1e-9);
        assert!(hot(i32::MIN, then).is_finite());
    }
}

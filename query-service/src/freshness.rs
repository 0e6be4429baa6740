//! Read your writes: a read that names positions is answered by rows that reflect them, or not at all.

use std::{iter, sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, StatusCode, request::Parts},
};
use events::PositionToken;
use opentelemetry::{KeyValue, metrics::Histogram};
use platform::problem::{FieldError, Problem};
use tokio::time::{Instant, timeout_at};

use crate::{
    batch::Batch,
    changes::Changes,
    checkpoint::{Checkpoint, OfShard},
    projection::Projection,
};

/// Positions asked for, and reflected.
pub(crate) const AGORA_POSITION: HeaderName = HeaderName::from_static("agora-position");
/// RFC 7240.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long a read waits for a position, unless it says otherwise.
const WAIT: Duration = Duration::from_secs(2);
/// How long it waits at most, whatever it says: below the handler's time limit (30 s), so that the answer is ours.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// How long a wait lets pass before it looks at the checkpoints itself; twice as long each time, as what is not there
/// soon takes long: a notice that is late or lost costs a reader milliseconds.
const FIRST_LOOK: Duration = Duration::from_millis(2);
/// The longest it lets pass.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// When to try again after a wait in vain: projections are seldom further behind.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What a request says about how fresh its answer must be: `Agora-Position` (one token or several), and how long it
/// would wait: `Prefer: wait=<seconds>` (RFC 7240, section 4.3).
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    tokens: Vec<PositionToken>,
    until: Instant,
    /// The wait that it asked for and gets.
    applied: Option<Duration>,
}

impl Wanted {
    /// At most one for each history and shard.
    pub(crate) fn tokens(&self) -> &[PositionToken] {
        &self.tokens
    }

    /// For `Preference-Applied`, in seconds.
    pub(crate) fn applied(&self) -> Option<u64> {
        self.applied.map(|wait| wait.as_secs())
    }

    /// Whether an answer that reflects these positions is fresh enough.
    pub(crate) fn within(&self, reflected: &[PositionToken]) -> bool {
        let reached = |token: &PositionToken| {
            let of_its_shard = |other: &&PositionToken| (other.history, other.shard) == (token.history, token.shard);
            reflected.iter().find(of_its_shard).is_some_and(|other| other.position >= token.position)
        };
        self.tokens.iter().all(reached)
    }

    /// A position that nobody named, and how long to wait for it.
    pub(crate) fn of(token: PositionToken, wait: Duration) -> Self {
        Self { tokens: vec![token], until: Instant::now() + wait, applied: None }
    }

    /// The same patience, for another position.
    pub(crate) fn instead(&self, token: PositionToken) -> Self {
        Self { tokens: vec![token], until: self.until, applied: None }
    }

    fn parse(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut tokens: Vec<PositionToken> = Vec::new();
        for value in headers.get_all(AGORA_POSITION) {
            let listed = PositionToken::parse_list(&String::from_utf8_lossy(value.as_bytes())).map_err(|error| {
                let at = FieldError::new(AGORA_POSITION.as_str(), "malformed_position", &error);
                Problem::new(StatusCode::BAD_REQUEST, "malformed-position", error).with_errors(vec![at])
            })?;
            for token in listed {
                match tokens.iter_mut().find(|other| (other.history, other.shard) == (token.history, token.shard)) {
                    Some(other) => other.position = other.position.max(token.position),
                    None => tokens.push(token),
                }
            }
        }
        let applied = preferred_wait(headers).map(|wait| wait.min(LONGEST_WAIT));
        Ok(Self { tokens, until: Instant::now() + applied.unwrap_or(WAIT), applied })
    }
}

impl<S: Sync> FromRequestParts<S> for Wanted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::parse(&parts.headers)
    }
}

/// The first `wait` among the preferences counts; one that is not understood is ignored (RFC 7240, section 2).
fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let wait = preferences.flat_map(|value| value.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse())
    })?;
    wait.ok().map(Duration::from_secs)
}

/// Waits for positions.
#[derive(Clone)]
pub(crate) struct Freshness {
    changes: Arc<Changes>,
    checkpoints: Batch<OfShard>,
    waits: Histogram<f64>,
}

impl Freshness {
    pub(crate) fn new(changes: Arc<Changes>, checkpoints: Batch<OfShard>) -> Self {
        let waits = opentelemetry::global::meter("agora")
            .f64_histogram("agora.query.wait")
            .with_description("Time that reads waited for a position, by outcome")
            .with_unit("s")
            .with_boundaries(platform::telemetry::SECONDS.to_vec())
            .build();
        Self { changes, checkpoints, waits }
    }

    /// Returns once all these projections have passed the positions wanted.
    ///
    /// # Errors
    /// 503 where they have not in time; 410 where a position is of another history than the read tables.
    pub(crate) async fn reach(&self, wanted: &Wanted, projections: &[Projection]) -> Result<(), Problem> {
        for token in &wanted.tokens {
            let seen = self.changes.seen(projections, token.shard);
            if token.position > seen || token.history != self.changes.history() {
                self.wait_for(token, wanted.until, projections).await?;
            }
        }
        Ok(())
    }

    /// A notice only wakes, and so does time; what counts are the checkpoints. One statement looks for all who wait.
    async fn wait_for(&self, token: &PositionToken, until: Instant, projections: &[Projection]) -> Result<(), Problem> {
        let started = Instant::now();
        let record = |outcome| self.waits.record(started.elapsed().as_secs_f64(), &[KeyValue::new("outcome", outcome)]);
        let mut pauses = pauses();
        loop {
            let woken = self.changes.next_notice(token.shard);
            let checkpoints = self.checkpoints.ask(token.shard).await?;
            if self.changes.history().0.is_nil() {
                // Whoever keeps the changes up to date has not had its first look yet: this is it.
                self.changes.see(&checkpoints);
            }
            match Progress::of(token, &checkpoints, projections) {
                Progress::Reached => {
                    record("reached");
                    return Ok(());
                }
                Progress::Lost => {
                    record("lost");
                    return Err(history_lost("Agora-Position"));
                }
                Progress::Behind if Instant::now() >= until => {
                    record("timed_out");
                    return Err(not_yet("What Agora-Position names"));
                }
                Progress::Behind => {
                    let look = Instant::now() + pauses.next().unwrap_or(LOOK_EVERY);
                    // Whichever comes first.
                    let _ = timeout_at(look.min(until), woken).await;
                }
            }
        }
    }
}

/// What passes between looks.
fn pauses() -> impl Iterator<Item = Duration> {
    iter::successors(Some(FIRST_LOOK), |pause| Some((*pause * 2).min(LOOK_EVERY)))
}

/// How the checkpoints of a token's shard stand to it.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Reached,
    Behind,
    /// The read tables show another history.
    Lost,
}

impl Progress {
    fn of(token: &PositionToken, checkpoints: &[Checkpoint], projections: &[Projection]) -> Self {
        let joined = || checkpoints.iter().filter(|checkpoint| projections.contains(&checkpoint.projection));
        let of_its_history = || joined().filter(|checkpoint| checkpoint.history == token.history);
        if joined().next().is_some() && of_its_history().next().is_none() {
            return Self::Lost;
        }
        let passed = of_its_history().filter(|checkpoint| checkpoint.position >= token.position).count();
        if passed >= projections.len() { Self::Reached } else { Self::Behind }
    }
}

/// For what cannot be shown before the read tables have come there.
pub(crate) fn not_yet(what: &str) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "position-not-reached",
        format_args!("{what} cannot be read yet. Try again, or wait longer (`Prefer: wait=<seconds>`)."),
    )
    .with_retry_after(RETRY_AFTER)
}

/// For what a request names a position by.
pub(crate) fn history_lost(by: &str) -> Problem {
    let words = "is of a history that was lost: the event store was restored or replaced. Read without it, and do again \
                 what is missing.";
    Problem::new(StatusCode::GONE, "history-lost", format_args!("What {by} names {words}"))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use events::{HistoryId, Shard};

    use super::*;

    const VIEW: [Projection; 2] = [Projection::ThreadList, Projection::ThreadPage];

    fn wanted(lines: &[(HeaderName, &str)]) -> Result<Wanted, Problem> {
        let lines = lines.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("ASCII")));
        Wanted::parse(&lines.collect())
    }

    fn token(position: i64) -> PositionToken {
        PositionToken { history: HistoryId::new(), shard: Shard::try_from(7_i16).expect("a shard"), position }
    }

    fn checkpoints(history: HistoryId, positions: [i64; 2]) -> Vec<Checkpoint> {
        let row =
            |(projection, position)| Checkpoint { projection, shard: token(0).shard, history, position, built: 0 };
        VIEW.into_iter().zip(positions).map(row).collect()
    }

    #[test]
    fn the_highest_position_of_each_shard_counts() {
        let [low, other] = [token(5), token(6)];
        let high = PositionToken { position: 9, ..low };
        let wanted = wanted(&[(AGORA_POSITION, &format!("{low}, {other}")), (AGORA_POSITION, &high.to_string())]);
        assert_eq!(wanted.expect("good tokens").tokens(), [high, other]);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let problem = wanted(&[(AGORA_POSITION, "yesterday")]).expect_err("no token");
        assert_eq!((problem.status(), problem.name()), (StatusCode::BAD_REQUEST, "malformed-position"));
        assert_eq!(problem.errors()[0].pointer, "agora-position");
    }

    #[test]
    fn the_first_wait_is_applied_up_to_the_longest_and_nonsense_ignored() {
        let cases = [
            ("wait=10", Some(10)),
            ("respond-async, WAIT = \"3\"; x=y, wait=9", Some(3)),
            ("wait=0", Some(0)),
            ("wait=86400", Some(25)),
            ("wait=soon", None),
            ("return=minimal", None),
        ];
        for (prefer, applied) in cases {
            assert_eq!(wanted(&[(PREFER, prefer)]).expect("no refusal").applied(), applied, "{prefer}");
        }
    }

    #[test]
    fn a_wait_looks_soon_and_then_ever_later() {
        let pauses: Vec<_> = pauses().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 50, 50]);
    }

    #[test]
    fn a_position_is_reached_when_every_projection_has_passed_it() {
        let token = token(10);
        let progress = |positions| Progress::of(&token, &checkpoints(token.history, positions), &VIEW);
        assert_eq!(progress([10, 11]), Progress::Reached);
        assert_eq!(progress([9, 11]), Progress::Behind);
        assert_eq!(Progress::of(&token, &checkpoints(token.history, [10, 11])[..1], &VIEW), Progress::Behind);
        assert_eq!(Progress::of(&token, &checkpoints(token.history, [9, 10])[1..], &VIEW[1..]), Progress::Reached);
    }

    #[test]
    fn a_position_of_another_history_is_lost_and_a_fresh_database_only_behind() {
        let token = token(10);
        assert_eq!(Progress::of(&token, &checkpoints(HistoryId::new(), [99, 99]), &VIEW), Progress::Lost);
        assert_eq!(Progress::of(&token, &[], &VIEW), Progress::Behind);
    }
}

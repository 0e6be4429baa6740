//! What must happen at a time: what ends by itself, what expires, what is looked after.
//!
//! One process leads ([`leader`]) and works off what is due by its [`Schedule`]; what came of it is on record
//! ([`record`]). Work may be begun twice (a crash before the note, a person who asks for it meanwhile), and does nothing
//! the second time: a command names the event that it ends, and a row is deleted once. Another job takes a variant of
//! [`Job`], a key of [`Config`] and a line in [`Jobs::work`].

mod check;
mod ending;
mod leader;
mod orphans;
mod receipts;
mod record;
mod schedule;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use futures::FutureExt as _;
use opentelemetry::{KeyValue, global, metrics::Counter};
use platform::config::duration;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnectOptions;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use check::{Check, DAYS as CHECKED_WITHIN_DAYS, shards_to_check};
pub use leader::application_name;
pub use record::{Leader, Listed, Run, Status, history, status};
pub use schedule::{Expression, NoExpression, NoZone, Schedule, Zone};

use crate::store::Store;
use ending::Kind;

/// A job: its name is its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// Lifts bans whose end has come.
    EndBans,
    /// Lifts silences whose end has come.
    EndSilences,
    /// Unpins threads whose pin's end has come.
    EndPins,
    /// Deletes old receipts.
    ExpireReceipts,
    /// Deletes sessions, refresh tokens and signing keys that are over.
    PurgeSessions,
    /// Reports unique values that are kept for nobody.
    ReportOrphanedClaims,
    /// Checks a part of everything, another one each day.
    Check,
}

/// When each job is due. An expression has six fields, seconds first; [`Schedule`] says what a change of clocks does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The time zone that all expressions are meant in, by its IANA name.
    pub time_zone: Zone,
    /// When bans end whose time has come.
    pub end_bans: Expression,
    /// When silences end whose time has come.
    pub end_silences: Expression,
    /// When pins end whose time has come.
    pub end_pins: Expression,
    /// When old receipts are deleted.
    pub expire_receipts: Expression,
    /// How long an `Idempotency-Key` is remembered.
    #[serde(with = "duration")]
    pub receipts_kept: Duration,
    /// When sessions, refresh tokens and signing keys that are over are deleted.
    pub purge_sessions: Expression,
    /// When unique values that are kept for nobody are reported.
    pub report_orphaned_claims: Expression,
    /// When a part of the history and of the read tables is checked: another one each day.
    pub check: Expression,
}

impl Default for Config {
    fn default() -> Self {
        let cron = |expression: &str| expression.parse().expect("an expression of ours");
        // Well within a minute after its end, something is seen to have ended; looking is one step in an index.
        let soon = "*/10 * * * * *";
        Self {
            time_zone: "UTC".parse().expect("a time zone"),
            end_bans: cron(soon),
            end_silences: cron(soon),
            end_pins: cron(soon),
            expire_receipts: cron("0 7 * * * *"),
            receipts_kept: Duration::from_secs(7 * 24 * 60 * 60),
            purge_sessions: cron("0 37 * * * *"),
            report_orphaned_claims: cron("0 17 3 * * *"),
            check: cron("0 47 3 * * *"),
        }
    }
}

/// What came of a job's work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How much it did: bans ended, rows deleted, claims reported.
    pub done: u64,
    /// Why it did not do all that was due.
    pub failure: Option<String>,
}

/// The jobs of a process, with what they work on. Clones share it.
#[derive(Clone)]
pub struct Jobs {
    store: Store,
    check: Option<Arc<dyn Check>>,
    config: Config,
    metrics: Metrics,
}

impl Job {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::EndBans,
        Self::EndSilences,
        Self::EndPins,
        Self::ExpireReceipts,
        Self::PurgeSessions,
        Self::ReportOrphanedClaims,
        Self::Check,
    ];

    /// Its key in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndBans => "end_bans",
            Self::EndSilences => "end_silences",
            Self::EndPins => "end_pins",
            Self::ExpireReceipts => "expire_receipts",
            Self::PurgeSessions => "purge_sessions",
            Self::ReportOrphanedClaims => "report_orphaned_claims",
            Self::Check => "check",
        }
    }

    /// The job of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|job| job.name() == name)
    }

    /// What it does.
    pub const fn about(self) -> &'static str {
        match self {
            Self::EndBans => "end bans whose time has come",
            Self::EndSilences => "end silences whose time has come",
            Self::EndPins => "unpin threads whose pin's time has come",
            Self::ExpireReceipts => "delete idempotency keys older than jobs.receipts_kept",
            Self::PurgeSessions => "delete sessions, refresh tokens and signing keys that are over",
            Self::ReportOrphanedClaims => "report names, addresses and slugs kept for who does not have them",
            Self::Check => "check a seventh of all shards, another one each day, as `agora check` does all",
        }
    }

    /// What is said of a run that did nothing.
    pub const fn no_deed(self) -> &'static str {
        match self {
            Self::Check => "nothing is broken",
            _ => "nothing to do",
        }
    }

    /// Whether there may be work for it from before it was first set up. Where there is none, it waits for its time.
    const fn begins_at_once(self) -> bool {
        !matches!(self, Self::Check)
    }

    /// What a run did, in words: `3 bans ended`.
    pub fn deed(self, done: u64) -> String {
        let (one, many) = match self {
            Self::EndBans => ("ban ended", "bans ended"),
            Self::EndSilences => ("silence ended", "silences ended"),
            Self::EndPins => ("pin ended", "pins ended"),
            Self::ExpireReceipts | Self::PurgeSessions => ("row deleted", "rows deleted"),
            Self::ReportOrphanedClaims => ("claim reported", "claims reported"),
            Self::Check => ("broken place found", "broken places found"),
        };
        format!("{done} {}", if done == 1 { one } else { many })
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Config {
    /// When a job is due.
    pub fn schedule(&self, job: Job) -> Schedule {
        Schedule::new(self.expression(job).clone(), self.time_zone)
    }

    fn expression(&self, job: Job) -> &Expression {
        match job {
            Job::EndBans => &self.end_bans,
            Job::EndSilences => &self.end_silences,
            Job::EndPins => &self.end_pins,
            Job::ExpireReceipts => &self.expire_receipts,
            Job::PurgeSessions => &self.purge_sessions,
            Job::ReportOrphanedClaims => &self.report_orphaned_claims,
            Job::Check => &self.check,
        }
    }
}

impl<E: fmt::Display> From<Result<u64, E>> for Outcome {
    fn from(result: Result<u64, E>) -> Self {
        match result {
            Ok(done) => Self { done, failure: None },
            Err(error) => Self { done: 0, failure: Some(format!("{error:#}")) },
        }
    }
}

impl Jobs {
    /// On this store.
    pub fn new(store: Store, config: Config) -> Self {
        Self { store, check: None, config, metrics: Metrics::new() }
    }

    /// The same, which checks by this.
    #[must_use]
    pub fn checking_by(self, check: Arc<dyn Check>) -> Self {
        Self { check: Some(check), ..self }
    }

    /// Works off what is due whenever nobody else does, as a task that ends with `shutdown`. `lease` is how the leader's own
    /// connection is made.
    pub fn start(self, lease: PgConnectOptions, shutdown: CancellationToken, tasks: &TaskTracker) {
        tasks.spawn(leader::run(self, lease, shutdown));
    }

    /// Runs a job now, whoever leads: as its own due time. Answers what came of it, once that is on record.
    ///
    /// # Errors
    /// Where the database is away.
    pub async fn run_by_hand(&self, job: Job) -> sqlx::Result<Run> {
        let now = record::now(self.store.pool()).await?;
        self.run(job, now, true).await
    }

    /// Does a job's work, and notes what came of it: for that due time, which is done then.
    async fn run(&self, job: Job, due: DateTime<Utc>, by_hand: bool) -> sqlx::Result<Run> {
        let started_at = record::now(self.store.pool()).await?;
        // A panic is a defect of ours, and one job's: the others go on.
        let outcome = AssertUnwindSafe(self.work(job, started_at)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Outcome {
            done: 0,
            failure: Some("it panicked, which is a defect: the log says where; please report it".to_owned()),
        });
        let finished_at = record::now(self.store.pool()).await?;
        let Outcome { done, failure } = outcome;
        let run = Run { job: job.name().to_owned(), due, by_hand, started_at, finished_at, done, failure };
        record::note(self.store.pool(), &run).await?;
        self.metrics.ran(job, &run);
        Ok(run)
    }

    /// What a job does at `now`, without a note: the same again finds nothing to do.
    pub async fn work(&self, job: Job, now: DateTime<Utc>) -> Outcome {
        match job {
            Job::EndBans => ending::end_all(&self.store, Kind::Ban, now).await,
            Job::EndSilences => ending::end_all(&self.store, Kind::Silence, now).await,
            Job::EndPins => ending::end_all(&self.store, Kind::Pin, now).await,
            Job::ExpireReceipts => receipts::expire(self.store.pool(), self.config.receipts_kept).await.into(),
            Job::PurgeSessions => platform::identity::purge_expired(self.store.pool()).await.into(),
            Job::ReportOrphanedClaims => orphans::report(&self.store, &self.metrics.alarms).await,
            Job::Check => check::check(self.check.as_ref(), self.store.pool(), now, &self.metrics.alarms).await,
        }
    }
}

/// What is counted of it.
#[derive(Clone)]
struct Metrics {
    runs: Counter<u64>,
    done: Counter<u64>,
    alarms: Counter<u64>,
}

impl Metrics {
    fn new() -> Self {
        let meter = global::meter("agora");
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        let alarms = counter("agora.alarms", "Error lines that name the command which resolves them.");
        for kind in ["check", "orphaned_claim"] {
            // Whoever watches for a rise sees the first one too.
            alarms.add(0, &[KeyValue::new("kind", kind)]);
        }
        Self {
            runs: counter("agora.job.runs", "Runs of a job, by what came of them."),
            done: counter("agora.job.done", "What a job did: bans ended, rows deleted, claims reported."),
            alarms,
        }
    }

    fn ran(&self, job: Job, run: &Run) {
        let job = KeyValue::new("job", job.name());
        let outcome = if run.failure.is_some() { "failed" } else { "done" };
        self.runs.add(1, &[job.clone(), KeyValue::new("outcome", outcome)]);
        self.done.add(run.done, &[job]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_called_as_its_key_in_the_configuration() {
        let config = serde_json::to_value(Config::default()).expect("JSON");
        for job in Job::ALL {
            assert_eq!(config[job.name()], Config::default().expression(job).to_string(), "{job}");
            assert_eq!(serde_json::to_value(job).expect("JSON"), job.name());
            assert_eq!(Job::named(job.name()), Some(job));
        }
        assert_eq!(Job::named("tea"), None);
    }

    #[test]
    fn a_setting_that_is_none_says_what_one_looks_like() {
        let read = |json: &str| serde_json::from_str::<Config>(json).expect_err("refused").to_string();
        let said = read(r#"{"end_bans": "hourly"}"#);
        assert!(said.contains("\"hourly\" is no cron expression of six fields, seconds first"), "{said}");
        let said = read(r#"{"time_zone": "Berlin"}"#);
        assert!(said.contains("\"Berlin\" is no IANA time zone, such as \"Europe/Berlin\""), "{said}");
    }
}

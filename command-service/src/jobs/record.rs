//! What was worked off and what came of it, in the event store's database. Its clock is everybody's.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::{Config, Job, Schedule, leader};

/// Runs of a job that are kept: of one that fails every ten seconds, those of a quarter of an hour.
const RUNS_KEPT: i64 = 100;
/// A failure's words that are kept, in characters.
const FAILURE_CHARS: i32 = 1_000;
/// Runs that [`history`] answers, at most: all that are kept of ten jobs.
const RUNS_SHOWN: i64 = 10 * RUNS_KEPT;

/// One run of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// Its name; one of an older release, perhaps.
    pub job: String,
    /// The due time whose work it did; by hand, when it was asked for.
    pub due: DateTime<Utc>,
    /// Whether a person asked for it.
    pub by_hand: bool,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
    /// How much it did.
    pub done: u64,
    /// Why it did not do all that was due.
    pub failure: Option<String>,
}

/// The jobs, and who runs them.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// None where no command-service runs.
    pub leader: Option<Leader>,
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// All of them.
    pub jobs: Vec<Listed>,
}

/// The process that works off what is due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// Its number.
    pub process: u32,
    /// The machine's name, or the container's.
    pub host: String,
}

/// A job as it is set up and stands.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub job: Job,
    /// Its cron expression: the leader's, where there has been one.
    pub schedule: String,
    /// The time zone that it is meant in.
    pub time_zone: String,
    /// Its next due time; past, while its work is late. None where it has none any more.
    pub next_due: Option<DateTime<Utc>>,
    /// The last due time that was worked off.
    pub done_through: Option<DateTime<Utc>>,
    /// Its last run.
    pub last_run: Option<Run>,
}

/// Where a job stands, at a moment of the database's clock.
pub(super) struct Standing {
    pub(super) job: String,
    /// The last due time that was worked off.
    pub(super) done_through: Option<DateTime<Utc>>,
    pub(super) now: DateTime<Utc>,
}

struct Row {
    job: String,
    due: DateTime<Utc>,
    by_hand: bool,
    started_at: DateTime<Utc>,
    finished_at: DateTime<Utc>,
    done: i64,
    failure: Option<String>,
}

impl From<Row> for Run {
    fn from(row: Row) -> Self {
        let Row { job, due, by_hand, started_at, finished_at, done, failure } = row;
        Self { job, due, by_hand, started_at, finished_at, done: done.unsigned_abs(), failure }
    }
}

/// The database's clock.
pub(super) async fn now(pool: &PgPool) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(pool).await
}

/// Writes down how the leader runs the jobs, for who lists them elsewhere.
pub(super) async fn announce(pool: &PgPool, config: &Config) -> sqlx::Result<()> {
    for job in Job::ALL {
        sqlx::query!(
            "insert into jobs (job, schedule, time_zone, done_through)
            values ($1, $2, $3, case when not $4 then clock_timestamp() end)
            on conflict (job) do update set schedule = excluded.schedule, time_zone = excluded.time_zone",
            job.name(),
            config.expression(job).to_string(),
            config.time_zone.to_string(),
            job.begins_at_once(),
        )
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// Where each job stands that was announced: in one statement, as it is asked each second.
pub(super) async fn standings(pool: &PgPool) -> sqlx::Result<Vec<Standing>> {
    let jobs = sqlx::query_as!(Standing, r#"select job, done_through, clock_timestamp() as "now!" from jobs"#);
    jobs.fetch_all(pool).await
}

/// The last due time of a job that was worked off.
pub(super) async fn done_through(pool: &PgPool, job: Job) -> sqlx::Result<Option<DateTime<Utc>>> {
    let found = sqlx::query_scalar!("select done_through from jobs where job = $1", job.name());
    Ok(found.fetch_optional(pool).await?.flatten())
}

/// Takes all due times until then as worked off, and none after it.
pub(super) async fn set_back(pool: &PgPool, job: Job, to: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!("update jobs set done_through = $2 where job = $1", job.name(), to).execute(pool).await?;
    Ok(())
}

/// Notes a run. Where it did all, its due time is worked off, unless a person asked for it; of those that found nothing to
/// do, and of those long ago, none is kept.
pub(super) async fn note(pool: &PgPool, run: &Run) -> sqlx::Result<()> {
    let mut transaction = pool.begin().await?;
    let idle = run.done == 0 && run.failure.is_none() && !run.by_hand;
    sqlx::query!(
        "delete from job_runs where job = $1 and (
            ($2 and done = 0 and failure is null and not by_hand)
            or run <= (select run from job_runs where job = $1 order by run desc offset $3::bigint - 1 limit 1)
        )",
        run.job,
        idle,
        RUNS_KEPT,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!(
        "insert into job_runs (job, due, by_hand, started_at, finished_at, done, failure)
        values ($1, $2, $3, $4, $5, $6, left($7, $8)) on conflict do nothing",
        run.job,
        run.due,
        run.by_hand,
        run.started_at,
        run.finished_at,
        i64::try_from(run.done).unwrap_or(i64::MAX),
        run.failure,
        FAILURE_CHARS,
    )
    .execute(&mut *transaction)
    .await?;
    if run.failure.is_none() && !run.by_hand {
        sqlx::query!(
            "update jobs set done_through = $2 where job = $1 and (done_through < $2 or done_through is null)",
            run.job,
            run.due,
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await
}

/// The last runs, newest first: of one job, or of all.
///
/// # Errors
/// Where the database is away.
pub async fn history(pool: &PgPool, job: Option<Job>) -> sqlx::Result<Vec<Run>> {
    let rows = sqlx::query_as!(
        Row,
        "select job, due, by_hand, started_at, finished_at, done, failure from job_runs
        where $1::text is null or job = $1 order by run desc limit $2",
        job.map(Job::name),
        RUNS_SHOWN,
    );
    Ok(rows.fetch_all(pool).await?.into_iter().map(Run::from).collect())
}

/// The jobs, as the last leader was set up; as `config` says, where there has been none.
///
/// # Errors
/// Where the database is away.
pub async fn status(pool: &PgPool, config: &Config) -> sqlx::Result<Status> {
    let now = now(pool).await?;
    let leader = leader::current(pool).await?;
    let announced = sqlx::query!("select job, schedule, time_zone, done_through from jobs").fetch_all(pool).await?;
    let last = sqlx::query_as!(
        Row,
        "select distinct on (job) job, due, by_hand, started_at, finished_at, done, failure from job_runs
        order by job, run desc"
    );
    let mut last: HashMap<String, Run> =
        last.fetch_all(pool).await?.into_iter().map(|row| (row.job.clone(), row.into())).collect();
    let mut announced: HashMap<_, _> = announced.into_iter().map(|row| (row.job.clone(), row)).collect();
    let jobs = Job::ALL.into_iter().map(|job| {
        let (schedule, time_zone, done_through) = match announced.remove(job.name()) {
            Some(row) => (row.schedule, row.time_zone, row.done_through),
            None => (config.expression(job).to_string(), config.time_zone.to_string(), None),
        };
        let next_due = next_due(&schedule, &time_zone, done_through, now);
        Listed { job, schedule, time_zone, next_due, done_through, last_run: last.remove(job.name()) }
    });
    Ok(Status { leader, now, jobs: jobs.collect() })
}

/// The first due time that is not worked off. None where another release's expression is none here.
fn next_due(schedule: &str, time_zone: &str, done: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let schedule = Schedule::new(schedule.parse().ok()?, time_zone.parse().ok()?);
    match done {
        Some(done) => schedule.next(done),
        None => schedule.last(now).or_else(|| schedule.next(now)),
    }
}

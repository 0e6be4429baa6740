//! Who works off what is due: one process at a time, under a lease. One that freezes loses it within two seconds, and
//! another goes on from what is on record.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use platform::{lease::Lease, origin, patience::Patience};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_cron_scheduler::{Job as Tick, JobScheduler};
use tokio_util::sync::CancellationToken;

use super::{
    Job, Jobs, Leader,
    record::{self, Standing},
    schedule::Due,
};

/// The lease's key, "jobs" in ASCII. Advisory locks are per database: one leader for each event store.
const LOCK: i64 = 0x6a6f_6273;
/// What begins the name of the leader's connection, which ends with its process and host.
const NAME: &str = "agora-jobs ";
/// When it is looked whether something is due: each second.
const EACH_SECOND: &str = "* * * * * *";
/// How long a tick is waited for: should the scheduler fail, what is due is done all the same.
const LONGEST_TICK: Duration = Duration::from_secs(5);
/// How long after it failed a job is tried again for the same due time.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What the leader's connection is called: from it, others learn who leads.
pub fn application_name() -> String {
    // Postgres cuts a name after 63 bytes: the host's end, at worst.
    format!("{NAME}{}@{}", std::process::id(), origin::host())
}

/// Who leads now.
pub(super) async fn current(pool: &PgPool) -> sqlx::Result<Option<Leader>> {
    let name = Lease::holder(LOCK, pool).await?;
    Ok(name.and_then(|name| {
        let (process, host) = name.strip_prefix(NAME)?.split_once('@')?;
        Some(Leader { process: process.parse().ok()?, host: host.to_owned() })
    }))
}

/// Leads whenever nobody else does, until the process ends.
pub(super) async fn run(jobs: Jobs, lease: PgConnectOptions, shutdown: CancellationToken) {
    let ticks = Ticks::start().await;
    let mut patience = Patience::new("the schedule of jobs");
    while !shutdown.is_cancelled() {
        if let Err(error) = lead(&jobs, &lease, &ticks, &mut patience, &shutdown).await {
            patience.failed(error, &shutdown).await;
        }
    }
    ticks.stop().await;
}

/// One time of leading: until the lease is lost, or the process ends.
async fn lead(
    jobs: &Jobs,
    lease: &PgConnectOptions,
    ticks: &Ticks,
    patience: &mut Patience,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let Some(mut lease) = Lease::take(LOCK, lease, shutdown).await? else { return Ok(()) };
    lease.during(work_off(jobs, ticks, patience, shutdown)).await??;
    lease.give_back().await;
    Ok(())
}

/// Works off what is due, each job beside the others and never beside itself. The work is in tasks of its own, so that
/// nothing here waits for a connection that it holds; they end with this.
async fn work_off(
    jobs: &Jobs,
    ticks: &Ticks,
    patience: &mut Patience,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    record::announce(jobs.store.pool(), &jobs.config).await?;
    tracing::info!("this process runs the jobs");
    let mut running = JoinSet::new();
    let mut busy = HashMap::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            Some(ended) = running.join_next() => {
                let (job, due, failed): (Job, DateTime<Utc>, sqlx::Result<bool>) = ended?;
                if failed? {
                    busy.insert(job, Busy::Failed { due, until: Instant::now() + RETRY_AFTER });
                } else {
                    busy.remove(&job);
                }
            }
            () = ticks.next() => {
                for (job, due) in due(jobs, &busy).await? {
                    busy.insert(job, Busy::Runs);
                    let jobs = jobs.clone();
                    running.spawn(async move { (job, due, run_job(&jobs, job, due).await) });
                }
                patience.worked();
            }
        }
    }
}

/// Why a job is not begun.
enum Busy {
    Runs,
    /// For that due time, it is not tried again before.
    Failed {
        due: DateTime<Utc>,
        until: Instant,
    },
}

/// The jobs that are to begin, with their due times.
async fn due(jobs: &Jobs, busy: &HashMap<Job, Busy>) -> sqlx::Result<Vec<(Job, DateTime<Utc>)>> {
    let mut begin = Vec::new();
    for Standing { job, done_through: done, now } in record::standings(jobs.store.pool()).await? {
        // One of another release has no work here.
        let Some(job) = Job::named(&job) else { continue };
        match (jobs.config.schedule(job).due(done, now), busy.get(&job)) {
            (_, Some(Busy::Runs)) | (Due::NotYet, _) => {}
            (Due::Now(due), Some(Busy::Failed { due: failed, until })) if due == *failed && Instant::now() < *until => {
            }
            (Due::Now(due), _) => begin.push((job, due)),
            (Due::SetBack(to), _) => {
                tracing::warn!(%job, done_through = ?done, "the database's clock was set back: the job goes on from now");
                record::set_back(jobs.store.pool(), job, to).await?;
            }
        }
    }
    Ok(begin)
}

/// Does the work of a due time, and answers whether it failed.
async fn run_job(jobs: &Jobs, job: Job, due: DateTime<Utc>) -> sqlx::Result<bool> {
    let run = jobs.run(job, due, false).await?;
    match &run.failure {
        Some(failure) => {
            tracing::warn!(%job, %due, done = run.done, "not all done, and tried again within a minute: {failure}");
        }
        None if run.done > 0 => tracing::info!(%job, %due, "{}", job.deed(run.done)),
        None => tracing::debug!(%job, %due, "nothing to do"),
    }
    Ok(run.failure.is_some())
}

/// A tick each second, from `tokio-cron-scheduler`. Only that is asked of it: its time zones stand still (its #107), and what
/// it keeps does not go on after a restart (#73), so what is due is reckoned and kept here.
struct Ticks {
    came: Arc<Notify>,
    scheduler: Option<JobScheduler>,
}

impl Ticks {
    async fn start() -> Self {
        let came = Arc::new(Notify::new());
        let scheduler = Self::schedule(came.clone()).await;
        let scheduler = scheduler.inspect_err(|error| {
            tracing::warn!(%error, "no scheduler ticks: it is looked every {LONGEST_TICK:?} whether something is due");
        });
        Self { came, scheduler: scheduler.ok() }
    }

    async fn schedule(came: Arc<Notify>) -> Result<JobScheduler, tokio_cron_scheduler::JobSchedulerError> {
        let scheduler = JobScheduler::new().await?;
        scheduler.add(Tick::new(EACH_SECOND, move |_, _| came.notify_one())?).await?;
        scheduler.start().await?;
        Ok(scheduler)
    }

    async fn next(&self) {
        // One that does not come is missed by nobody.
        let _ = timeout(LONGEST_TICK, self.came.notified()).await;
    }

    async fn stop(mut self) {
        if let Some(scheduler) = &mut self.scheduler {
            // It has no state to lose.
            let _ = scheduler.shutdown().await;
        }
    }
}

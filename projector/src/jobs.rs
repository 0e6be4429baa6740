//! What is done at a time: here, only tidying up, which may be done twice or late.

use std::time::Duration;

use anyhow::Context as _;
use platform::config::duration;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sqlx::PgPool;
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;

/// Receipts deleted in one statement: appends wait for none of it.
const BATCH: i64 = 5_000;

/// When what is over is deleted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When old receipts are deleted: a cron expression with seconds first, in UTC.
    #[serde(deserialize_with = "cron")]
    pub expire_receipts: String,
    /// How long an `Idempotency-Key` is remembered.
    #[serde(with = "duration")]
    pub receipts_kept: Duration,
    /// When sessions, refresh tokens and signing keys that are over are deleted: a cron expression with seconds first, in UTC.
    #[serde(deserialize_with = "cron")]
    pub purge_sessions: String,
}

/// What is no schedule is refused where it is set, and not once everything else has started.
fn cron<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match Job::new(text.as_str(), |_, _| ()) {
        Ok(_) => Ok(text),
        Err(_) => Err(D::Error::custom(format_args!("{text:?} is no cron expression of six fields, seconds first"))),
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            expire_receipts: "0 7 * * * *".to_owned(),
            receipts_kept: Duration::from_secs(7 * 24 * 60 * 60),
            purge_sessions: "0 37 * * * *".to_owned(),
        }
    }
}

/// The schedule of this process, not yet running.
///
/// # Errors
/// A cron expression that is none, named by its key.
pub(crate) async fn schedule(config: &Config, store: PgPool) -> anyhow::Result<JobScheduler> {
    let (receipts, kept) = (store.clone(), config.receipts_kept);
    let expire = Job::new_async(config.expire_receipts.as_str(), move |_, _| {
        let receipts = receipts.clone();
        Box::pin(async move { report("expire receipts", expire_receipts(&receipts, kept).await) })
    });
    let purge = Job::new_async(config.purge_sessions.as_str(), move |_, _| {
        let store = store.clone();
        Box::pin(async move { report("purge sessions", platform::identity::purge_expired(&store).await) })
    });
    let wrong = |key: &str, cron: &str| format!("`jobs.{key}` is {cron:?}, which is no cron expression of six fields");
    let jobs = [
        expire.with_context(|| wrong("expire_receipts", &config.expire_receipts))?,
        purge.with_context(|| wrong("purge_sessions", &config.purge_sessions))?,
    ];
    let scheduler = JobScheduler::new().await?;
    for job in jobs {
        scheduler.add(job).await?;
    }
    Ok(scheduler)
}

/// Runs the schedule until the process ends.
pub(crate) async fn run(mut scheduler: JobScheduler, shutdown: CancellationToken) {
    if let Err(error) = scheduler.start().await {
        tracing::error!(%error, "nothing is done at its time: restart the projector");
        return;
    }
    shutdown.cancelled().await;
    // It has no state to lose.
    let _ = scheduler.shutdown().await;
}

/// Deletes receipts that are older than that, and answers how many.
async fn expire_receipts(store: &PgPool, older_than: Duration) -> sqlx::Result<u64> {
    let mut deleted = 0;
    loop {
        let batch = sqlx::query!(
            "delete from receipts where ctid = any(array(
                select ctid from receipts where recorded_at < now() - make_interval(secs => $1) limit $2
            ))",
            older_than.as_secs_f64(),
            BATCH,
        );
        let rows = batch.execute(store).await?.rows_affected();
        deleted += rows;
        if rows < BATCH.unsigned_abs() {
            return Ok(deleted);
        }
    }
}

fn report(job: &str, outcome: sqlx::Result<u64>) {
    match outcome {
        Ok(0) => tracing::debug!(job, "nothing to do"),
        Ok(deleted) => tracing::info!(job, deleted, "done"),
        Err(error) => tracing::warn!(job, %error, "not done, and tried again at its next time"),
    }
}

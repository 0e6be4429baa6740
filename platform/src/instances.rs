//! The processes that read messages and those that write them, and which versions each knows: a version is written only
//! while every reader that runs knows it.
//!
//! Each process says every [`BEAT`] that it is there, in the table `instances` of the database that they share. A writer
//! holds back the versions that a reader does not know, and writes all others; a reader that comes later and does not know
//! what is written does not start, so that it does not stop the writers. Who has not been heard for [`SILENT`] counts as gone: killed, frozen or
//! cut off. Should it come back, writers wait for it again from their next beat on, and what they wrote meanwhile it meets
//! as any reader meets what it does not know.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::bail;
use arc_swap::ArcSwap;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::origin;

/// How often a process says that it is there.
const BEAT: Duration = Duration::from_secs(5);
/// How often one looks that waits for others.
const BEAT_WAITING: Duration = Duration::from_secs(1);
/// How long one may be silent before it counts as gone, in seconds: a beat may be late, and one be lost.
const SILENT: f64 = 15.0;
/// How long the row of one that is gone is kept, in seconds: a day, for who looks what there was.
const KEPT: f64 = 86_400.0;
/// How long one that ends waits for the database to take its row away.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Held while it is decided who may begin to read or write: "readers" in ASCII.
const LOCK: i64 = 0x72_6561_6465_7273;

/// What a process is and knows.
#[derive(Clone, Debug)]
pub struct Knows {
    /// What it is: `projector`.
    pub service: &'static str,
    /// Its release.
    pub release: &'static str,
    /// The versions that it can read, each as `post.written version 1`.
    pub reads: Vec<String>,
    /// Those that it writes.
    pub writes: Vec<String>,
}

/// A process that was heard of lately.
#[derive(Clone, Debug, Serialize)]
pub struct Instance {
    /// Its own name.
    pub instance: Uuid,
    /// What it is.
    pub service: String,
    /// The machine, or the container.
    pub host: String,
    /// Its number there.
    pub process: i32,
    /// Its release.
    pub release: String,
    /// The versions that it can read.
    #[serde(skip)]
    pub reads: Vec<String>,
    /// Those that it writes now.
    #[serde(skip)]
    pub writes: Vec<String>,
    /// Since when it runs.
    pub started_at: DateTime<Utc>,
    /// When it was last heard of.
    pub seen_at: DateTime<Utc>,
}

/// What this process may not write yet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<ArcSwap<BTreeSet<String>>>);

impl Gate {
    /// Whether it may write everything.
    pub fn is_open(&self) -> bool {
        self.0.load().is_empty()
    }

    /// Whether it may not write that version.
    pub fn holds_back(&self, version: &str) -> bool {
        self.0.load().contains(version)
    }
}

impl Instance {
    /// Of these versions, those that it cannot read.
    pub fn lacks<'a>(&self, versions: &'a [String]) -> Vec<&'a str> {
        versions.iter().filter(|version| !self.reads.contains(version)).map(String::as_str).collect()
    }

    /// What a person finds it by: `projector 0.1.0 (process 12 on web-1)`.
    pub fn words(&self) -> String {
        format!("{} {} (process {} on {})", self.service, self.release, self.process, self.host)
    }
}

/// Who runs now. For a moment after a start of the database, everybody who ever did counts: they cannot have been heard
/// while it was down.
///
/// # Errors
/// Those of the database.
pub async fn running(on: impl sqlx::PgExecutor<'_>) -> sqlx::Result<Vec<Instance>> {
    sqlx::query_as!(
        Instance,
        "select instance, service, host, process, release, reads, writes, started_at, seen_at from instances
        where greatest(seen_at, pg_postmaster_start_time()) > clock_timestamp() - make_interval(secs => $1)
        order by service, host, process",
        SILENT,
    )
    .fetch_all(on)
    .await
}

/// Says that this process is there, from now until `shutdown`, and answers what it may write.
///
/// # Errors
/// Where somebody writes what it cannot read, or the database is away.
pub async fn join(
    pool: PgPool,
    knows: Knows,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<Gate> {
    let gate = Gate::default();
    let me = Me { instance: Uuid::now_v7(), knows, host: origin::host(), gate: gate.clone() };
    let mut transaction = pool.begin().await?;
    let others = me.look(&mut transaction).await?;
    for writer in &others {
        if let Some(version) = writer.writes.iter().find(|version| !me.knows.reads.contains(version)) {
            bail!(
                "{version} is unknown to this release, and {} writes it: run its release, or stop it first \
                 (docs/operations.md, Upgrading)",
                writer.words()
            );
        }
    }
    let held = me.note(&others, &mut transaction).await?;
    sqlx::query!("delete from instances where seen_at < clock_timestamp() - make_interval(secs => $1)", KEPT)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    me.settle(held, &others);
    tasks.spawn(me.stay(pool, shutdown));
    Ok(gate)
}

/// This process.
struct Me {
    instance: Uuid,
    knows: Knows,
    host: String,
    gate: Gate,
}

impl Me {
    async fn stay(self, pool: PgPool, shutdown: CancellationToken) {
        let mut heard = true;
        loop {
            let soon = !heard || !self.gate.is_open();
            let wait = tokio::time::sleep(if soon { BEAT_WAITING } else { BEAT });
            if shutdown.run_until_cancelled(wait).await.is_none() {
                break;
            }
            // Where the database does not answer, nothing is known, and nothing can be written either.
            heard = self.beat(&pool).await.inspect_err(|error| tracing::debug!(%error, "not heard")).is_ok();
        }
        let leave = sqlx::query!("delete from instances where instance = $1", self.instance).execute(&pool);
        // At worst it goes stale.
        let _ = timeout(LEAVE_WITHIN, leave).await;
    }

    /// A reader's row is nobody else's business; a writer looks whether all still know what it writes.
    async fn beat(&self, pool: &PgPool) -> sqlx::Result<()> {
        if self.knows.writes.is_empty() {
            return self.write(&[], &mut *pool.acquire().await?).await;
        }
        let mut transaction = pool.begin().await?;
        let others = self.look(&mut transaction).await?;
        let held = self.note(&others, &mut transaction).await?;
        transaction.commit().await?;
        self.settle(held, &others);
        Ok(())
    }

    /// The others, and nobody begins meanwhile.
    async fn look(&self, on: &mut PgConnection) -> sqlx::Result<Vec<Instance>> {
        // A statement of its own: the next one has to see what was committed while this one waited.
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *on).await?;
        let mut others = running(&mut *on).await?;
        others.retain(|other| other.instance != self.instance);
        Ok(others)
    }

    /// Writes down that it is there, and what it writes; answers what it holds back.
    async fn note(&self, others: &[Instance], on: &mut PgConnection) -> sqlx::Result<BTreeSet<String>> {
        let all = &self.knows.writes;
        let held: BTreeSet<String> = others.iter().flat_map(|other| other.lacks(all)).map(str::to_owned).collect();
        let writes: Vec<String> = all.iter().filter(|version| !held.contains(*version)).cloned().collect();
        self.write(&writes, on).await?;
        Ok(held)
    }

    /// Once that is on record.
    fn settle(&self, held: BTreeSet<String>, others: &[Instance]) {
        if **self.gate.0.load() == held {
            return;
        }
        if let Some(reader) = others.iter().find(|other| !other.lacks(&self.knows.writes).is_empty()) {
            tracing::warn!(
                "{} does not know {}: commands that write it are refused until it is replaced or stopped (`agora upgrade \
                 check` lists all)",
                reader.words(),
                reader.lacks(&self.knows.writes).join(", "),
            );
        } else {
            tracing::info!("all who read events know what this release writes");
        }
        self.gate.0.store(Arc::new(held));
    }

    async fn write(&self, writes: &[String], on: &mut PgConnection) -> sqlx::Result<()> {
        let Knows { service, release, reads, .. } = &self.knows;
        sqlx::query!(
            "insert into instances (instance, service, host, process, release, reads, writes, writing)
            values ($1, $2, $3, $4, $5, $6, $7, $8)
            on conflict (instance) do update
            set writes = excluded.writes, writing = excluded.writing, seen_at = excluded.seen_at",
            self.instance,
            service,
            self.host,
            i32::try_from(std::process::id()).unwrap_or_default(),
            release,
            reads,
            writes,
            !writes.is_empty(),
        )
        .execute(on)
        .await?;
        Ok(())
    }
}

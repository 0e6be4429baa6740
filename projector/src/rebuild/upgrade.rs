//! Makes anew, by itself, what an older release has made, and what nobody has made yet of a long history.

use std::{collections::HashSet, sync::Arc, time::Instant};

use platform::{db::DatabaseConfig, patience::Patience};
use sqlx::PgPool;
use tokio::{runtime::Handle, sync::Notify, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{Elsewhere, Phase, Purpose, Rebuild, Watch, What, fold::CannotFold};
use crate::{checkpoint, metrics::Metrics, projections};

/// Tries in a row, some two seconds apart, that may fail for another reason than an event.
const MOST_FAILURES: usize = 30;

/// Waits until read tables are of an older version of their projection than this release has, or of none yet, and puts new
/// ones in their place. Projectors of the older release keep the old ones until then.
#[derive(Clone)]
pub(crate) struct Upgrade {
    pub(crate) event_store: DatabaseConfig,
    pub(crate) read_tables: DatabaseConfig,
    pub(crate) read: PgPool,
    pub(crate) metrics: Metrics,
    /// Wakes it.
    pub(crate) outdated: Arc<Notify>,
}

impl Upgrade {
    /// Runs until the process ends. What it was at then goes on with the next process of this release.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut patience = Patience::new("making read tables beside the live ones");
        let (mut alarmed, mut failures) = (HashSet::new(), 0);
        while shutdown.run_until_cancelled(self.outdated.notified()).await.is_some() {
            // On a thread of its own: it takes minutes of computing.
            let (its, told, runtime) = (self.clone(), shutdown.clone(), Handle::current());
            let made = spawn_blocking(move || runtime.block_on(told.run_until_cancelled(its.make_anew()))).await;
            match made.map_err(Into::into).and_then(|made| made.unwrap_or(Ok(()))) {
                Ok(()) => {
                    failures = 0;
                    patience.worked();
                }
                // Whoever looks at the checkpoints wakes it again.
                Err(error) => {
                    failures += usize::from(!error.is::<Elsewhere>());
                    let stopped = error.is::<CannotFold>() || failures >= MOST_FAILURES;
                    if stopped && alarmed.insert(error.to_string()) {
                        self.metrics.alarm("outdated");
                        tracing::error!("read tables are not made beside the live ones: {error}");
                    }
                    patience.failed(error, &shutdown).await;
                    if stopped {
                        self.fold_unmade().await.unwrap_or_else(|error| tracing::warn!("{error:#}: trying again"));
                    }
                }
            }
        }
    }

    async fn make_anew(&self) -> anyhow::Result<()> {
        let projections = self.older().await?;
        if projections.is_empty() {
            return Ok(());
        }
        let names = projections.join(", ");
        let what = What { projections, shard: None, purpose: Purpose::Replace };
        let rebuild = Rebuild::begin(&self.event_store, &self.read_tables, what).await?;
        tracing::info!(
            "making the read tables of {names} beside the live ones: an older release has made these, or nobody yet"
        );
        let began = Instant::now();
        rebuild.swap(&Logged).await?;
        tracing::info!(seconds = began.elapsed().as_secs(), "the new read tables of {names} are live");
        Ok(())
    }

    /// Has the live projection fold into tables that nobody has made yet: it stops in one shard, and goes on with others.
    /// What was built of them is of no use any more.
    async fn fold_unmade(&self) -> anyhow::Result<()> {
        let (projections, versions) = checkpoint::versions(&projections());
        if checkpoint::made_by(&self.read, &projections, &versions).await? > 0 {
            let what = What { projections, shard: None, purpose: Purpose::Replace };
            Rebuild::begin(&self.event_store, &self.read_tables, what).await?.discard().await?;
        }
        Ok(())
    }

    /// Those that are older than this release's.
    async fn older(&self) -> sqlx::Result<Vec<String>> {
        let live = checkpoint::all(&self.read).await?;
        let older = |name: &str, version| live.iter().any(|it| it.projection == name && it.version < version);
        let mut ours = projections();
        ours.retain(|projection| older(projection.name(), projection.version()));
        Ok(ours.iter().map(|projection| projection.name().to_owned()).collect())
    }
}

/// A line for each phase: `agora projections status` shows more.
struct Logged;

impl Watch for Logged {
    fn begins(&self, phase: Phase, todo: u64, done: u64) {
        tracing::info!(todo, done, "{phase:?}");
    }

    fn done(&self, _: u64) {}
}

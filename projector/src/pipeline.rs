//! The loop that every event passes: from Kafka, or from the store where Kafka has not brought it, into all projections.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use events::{EventId, HistoryId, Shard};
use futures::future::join_all;
use platform::{db::Connections, patience::Patience, problem::Chain};
use sqlx::PgPool;
use store_reader::StoreReader;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{AnyProjection, Failure, Outcome, Target, commit, committed},
    batch::{Batch, Item},
    consumer::{Fetched, Source},
    lanes::{Lanes, Move, Standing},
    metrics::Metrics,
    notice::{Notice, Notices},
    trace,
};

use alarm::Alarms;
use check::Check;

mod alarm;
mod check;
mod fill;

/// A message of another history makes the check come early, though not more often than this.
const SOONEST_CHECK: Duration = Duration::from_millis(500);
/// How long projections go on one by one after they waited together for a lock in vain.
const APART: Duration = Duration::from_secs(60);

/// All projections of this process.
pub(crate) struct Pipeline {
    pub(crate) store: StoreReader,
    pub(crate) read: PgPool,
    /// The same database, for what batches write.
    pub(crate) rows: Connections,
    pub(crate) projections: Vec<Box<dyn AnyProjection>>,
    pub(crate) source: Arc<Source>,
    pub(crate) notices: Notices,
    pub(crate) metrics: Metrics,
    /// Told where an older release has made the rows of some.
    pub(crate) outdated: Arc<Notify>,
}

/// [`Pipeline`], at work.
struct Running<'a> {
    its: &'a Pipeline,
    lanes: Lanes,
    skipped: HashMap<String, HashSet<EventId>>,
    alarms: Alarms,
    last: Option<Check>,
    check_at: Instant,
    verified_at: Option<Instant>,
    /// Until when each projection goes for itself: a table of one that somebody has locked is not to hold up the others in
    /// every batch.
    apart_until: Option<Instant>,
    /// Since when tail checks find what Kafka should have brought.
    alone_since: Option<Instant>,
}

/// What a batch does for a projection, by its number.
type Plan = (usize, Vec<Move>);
/// What became of the plans.
type Applied = Vec<(usize, anyhow::Result<Vec<(Shard, Outcome)>>)>;

/// What a step that did not fail says of what failed before.
enum Proof {
    /// It is mended: events were applied, or there are none that wait.
    Works,
    /// Nothing.
    None,
}

impl Pipeline {
    /// Runs until the process ends; waits where a database is away.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut running = Running {
            lanes: Lanes::new(self.projections.len(), HistoryId(uuid::Uuid::nil())),
            its: &self,
            skipped: HashMap::new(),
            alarms: Alarms::default(),
            last: None,
            check_at: Instant::now(),
            verified_at: None,
            apart_until: None,
            alone_since: None,
        };
        let mut patience = Patience::new("the projector");
        while !shutdown.is_cancelled() {
            match running.step(&shutdown).await {
                Ok(Proof::Works) => patience.worked(),
                Ok(Proof::None) => {}
                Err(error) => {
                    patience.failed(error, &shutdown).await;
                    // Whatever was away may have come back as something else.
                    (running.check_at, running.verified_at) = (Instant::now(), None);
                }
            }
        }
    }

    fn names(&self) -> Vec<&'static str> {
        self.projections.iter().map(|projection| projection.name()).collect()
    }

    /// The number of a projection in [`Lanes`], by its name.
    fn indices(&self) -> HashMap<&'static str, usize> {
        self.names().into_iter().zip(0..).collect()
    }
}

impl Running<'_> {
    /// One check, or one batch.
    async fn step(&mut self, shutdown: &CancellationToken) -> anyhow::Result<Proof> {
        if self.check_at <= Instant::now() {
            self.check().await?;
            return Ok(if self.lanes.behind().next().is_some() { Proof::None } else { Proof::Works });
        }
        let source = &self.its.source;
        let mut items = Vec::new();
        let behind = self.lanes.behind().next().is_some();
        if behind {
            items = self.fill().await?;
        } else {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Proof::None),
                () = sleep_until(self.check_at) => return Ok(Proof::None),
                () = source.something() => {}
            }
        }
        // What is behind holds up nobody who is not.
        let Fetched { items: more, offsets, .. } = source.take();
        items.extend(more);
        if items.iter().any(|item| item.history != self.lanes.history) {
            // Theirs or ours is over: the store says which. What is dropped here, the gap rule brings back.
            let soonest = self.last.as_ref().map_or_else(Instant::now, |last| last.at + SOONEST_CHECK);
            self.check_at = self.check_at.min(soonest);
        }
        let proof = if items.is_empty() { Proof::None } else { Proof::Works };
        self.apply(items).await?;
        source.done(offsets);
        Ok(proof)
    }

    /// Applies to each projection what its lanes can take: to all of them at once, or each for itself, so that what is
    /// wrong with one holds up no other.
    async fn apply(&mut self, items: Vec<Item>) -> anyhow::Result<()> {
        let Pipeline { projections, .. } = self.its;
        let batch: Batch = Arc::new(items);
        let nothing = HashSet::new();
        let mut plans: Vec<Plan> = Vec::new();
        for (index, projection) in projections.iter().enumerate() {
            let skipped = self.skipped.get(projection.name()).unwrap_or(&nothing);
            let moves = self.lanes.plan(index, &batch, |event| projection.concerns(event), skipped);
            if !moves.is_empty() {
                plans.push((index, moves));
            }
        }
        if plans.is_empty() {
            return Ok(());
        }
        let _spans = trace::spans(&batch, &plans);
        let shards: Vec<(usize, Vec<Shard>)> =
            plans.iter().map(|(index, moves)| (*index, moves.iter().map(|its| its.shard).collect())).collect();
        let outcomes = match self.together(&batch, plans).await {
            Ok(outcomes) => outcomes,
            Err(plans) => self.apart(&batch, plans).await,
        };
        let (mut notices, mut trouble) = (Vec::new(), None);
        for (index, outcome) in outcomes {
            match outcome {
                Ok(outcomes) => {
                    let settled =
                        outcomes.into_iter().filter_map(|(shard, outcome)| self.settle(index, shard, outcome));
                    notices.extend(settled);
                }
                Err(error) => {
                    // What became of the commit is not known.
                    let its = shards.iter().filter(|(of, _)| *of == index).flat_map(|(_, shards)| shards);
                    its.for_each(|shard| self.lanes.forget(index, *shard));
                    trouble = Some(error);
                }
            }
        }
        self.its.notices.publish(&notices);
        trouble.map_or(Ok(()), Err)
    }

    /// All in one transaction; gives the plans back where that did not work, for whatever reason.
    async fn together(&mut self, batch: &Batch, plans: Vec<Plan>) -> Result<Applied, Vec<Plan>> {
        let Pipeline { projections, rows, .. } = self.its;
        if self.apart_until.is_some_and(|until| Instant::now() < until) {
            return Err(plans);
        }
        let all: Vec<_> = plans.iter().map(|(index, moves)| (&*projections[*index], &moves[..])).collect();
        match commit(rows, self.lanes.history, batch, &all, false).await {
            Ok(changed) => {
                let outcomes = plans.into_iter().zip(changed);
                Ok(outcomes
                    .map(|((index, moves), changed)| (index, Ok(committed(moves, changed, batch).collect())))
                    .collect())
            }
            Err(failure) => {
                if let Failure::Trouble(error) = &failure
                    && failure.is_patience_at_an_end()
                {
                    tracing::warn!(cause = %Chain(error.as_ref()), "the projections go on one by one for a minute");
                    self.apart_until = Some(Instant::now() + APART);
                }
                Err(plans)
            }
        }
    }

    /// Each projection in a transaction of its own, side by side.
    async fn apart(&self, batch: &Batch, plans: Vec<Plan>) -> Applied {
        let Pipeline { projections, rows, .. } = self.its;
        let history = self.lanes.history;
        let applied = plans.into_iter().map(|(index, moves)| async move {
            let target = Target { projection: &*projections[index], rows, history };
            (index, target.apply(batch, moves).await)
        });
        join_all(applied).await
    }

    /// Takes in what became of a move; answers what is to be told of it.
    fn settle(&mut self, projection: usize, shard: Shard, outcome: Outcome) -> Option<Notice> {
        let name = self.its.projections[projection].name();
        match outcome {
            Outcome::Moved { from, to, events, changed } => {
                self.lanes.set(projection, shard, Standing::At(to));
                self.its.metrics.lanes.moved(projection, shard, to);
                self.its.metrics.projected(name, events);
                return Notice::new(self.lanes.history, shard, name, (from, to), &changed);
            }
            Outcome::Stale => self.lanes.forget(projection, shard),
            Outcome::Parked(park) => {
                self.lanes.set(projection, shard, Standing::Parked);
                self.its.metrics.lanes.parked(projection, shard);
                self.alarms.raise(name, shard, &park, &self.its.metrics);
            }
        }
        None
    }
}

//! The loop that every event passes: from Kafka, or from the store where Kafka has not brought it, into all projections.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use events::{EventId, HistoryId, Shard};
use futures::future::{join, join_all};
use platform::patience::Patience;
use sqlx::PgPool;
use store_reader::StoreReader;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    apply::{AnyProjection, Outcome, Target, committed},
    batch::{Batch, Item},
    checkpoint,
    consumer::{Fetched, Source},
    lanes::{Lanes, Move, Standing},
    metrics::Metrics,
    notice::Notices,
    trace,
};

use alarm::Alarms;
use check::Check;

mod alarm;
mod check;
mod fill;

/// A message of another history makes the check come early, though not more often than this.
const SOONEST_CHECK: Duration = Duration::from_millis(500);
/// Events taken from Kafka for one batch at most; as many may come from the store.
const MOST_EVENTS: usize = 2_000;

/// All projections of this process.
pub(crate) struct Pipeline {
    pub(crate) store: StoreReader,
    pub(crate) read: PgPool,
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
    /// Since when tail checks find what Kafka should have brought.
    alone_since: Option<Instant>,
}

/// What a step that did not fail says of what failed before.
enum Proof {
    /// It is mended: events were applied, or there are none that wait.
    Works,
    /// Nothing.
    None,
}

impl Pipeline {
    /// Runs until the process ends; waits where a database is away.
    pub(crate) async fn run(self, mut messages: mpsc::Receiver<Fetched>, shutdown: CancellationToken) {
        let mut running = Running {
            lanes: Lanes::new(self.projections.len(), HistoryId(uuid::Uuid::nil())),
            its: &self,
            skipped: HashMap::new(),
            alarms: Alarms::default(),
            last: None,
            check_at: Instant::now(),
            verified_at: None,
            alone_since: None,
        };
        let mut patience = Patience::new("the projector");
        while !shutdown.is_cancelled() {
            match running.step(&mut messages, &shutdown).await {
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
    async fn step(
        &mut self,
        messages: &mut mpsc::Receiver<Fetched>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Proof> {
        if self.check_at <= Instant::now() {
            self.check().await?;
            return Ok(if self.lanes.behind().next().is_some() { Proof::None } else { Proof::Works });
        }
        let mut offsets = HashMap::new();
        let mut items = Vec::new();
        let behind = self.lanes.behind().next().is_some();
        if behind {
            items = self.fill().await?;
        } else {
            let fetched = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(Proof::None),
                () = tokio::time::sleep_until(self.check_at) => return Ok(Proof::None),
                fetched = messages.recv() => fetched,
            };
            gather(fetched, &mut items, &mut offsets);
        }
        // What is behind holds up nobody who is not.
        let most = if behind { items.len() + MOST_EVENTS } else { MOST_EVENTS };
        while items.len() < most {
            let Ok(fetched) = messages.try_recv() else { break };
            gather(Some(fetched), &mut items, &mut offsets);
        }
        if items.iter().any(|item| item.history != self.lanes.history) {
            // Theirs or ours is over: the store says which. What is dropped here, the gap rule brings back.
            let soonest = self.last.as_ref().map_or_else(Instant::now, |last| last.at + SOONEST_CHECK);
            self.check_at = self.check_at.min(soonest);
        }
        let proof = if items.is_empty() { Proof::None } else { Proof::Works };
        self.apply(items).await?;
        self.its.source.done(offsets);
        Ok(proof)
    }

    /// Applies to each projection what its lanes can take; projections side by side.
    async fn apply(&mut self, items: Vec<Item>) -> anyhow::Result<()> {
        let Pipeline { projections, read, .. } = self.its;
        let batch: Batch = Arc::new(items);
        let nothing = HashSet::new();
        let mut plans: Vec<(usize, Vec<Move>)> = Vec::new();
        for (index, projection) in projections.iter().enumerate() {
            let skipped = self.skipped.get(projection.name()).unwrap_or(&nothing);
            let moves = self.lanes.plan(index, &batch, |event| projection.concerns(event), skipped);
            if !moves.is_empty() {
                plans.push((index, moves));
            }
        }
        let _spans = trace::spans(&batch, &plans);
        let shards: Vec<(usize, Vec<Shard>)> =
            plans.iter().map(|(index, moves)| (*index, moves.iter().map(|its| its.shard).collect())).collect();
        // Projections that the batch does not concern move on together, in one statement.
        let idle = |(_, moves): &(usize, Vec<Move>)| moves.iter().all(|its| its.folds.is_empty() && its.park.is_none());
        let (idle, busy): (Vec<_>, Vec<_>) = plans.into_iter().partition(idle);
        let history = self.lanes.history;
        let busy = busy.into_iter().map(|(index, moves)| {
            let batch = &batch;
            async move {
                let target = Target { projection: &*projections[index], read, history };
                (index, target.apply(batch, moves).await)
            }
        });
        let (mut outcomes, passed) = join(join_all(busy), self.pass_by(&batch, idle)).await;
        outcomes.extend(passed);
        let mut trouble = None;
        for (index, outcome) in outcomes {
            match outcome {
                Ok(outcomes) => outcomes.into_iter().for_each(|(shard, outcome)| self.settle(index, shard, outcome)),
                Err(error) => {
                    // What became of the commit is not known.
                    let its = shards.iter().filter(|(of, _)| *of == index).flat_map(|(_, shards)| shards);
                    its.for_each(|shard| self.lanes.forget(index, *shard));
                    trouble = Some(error);
                }
            }
        }
        trouble.map_or(Ok(()), Err)
    }

    /// Moves the lanes of projections that have nothing to write.
    async fn pass_by(
        &self,
        batch: &Batch,
        idle: Vec<(usize, Vec<Move>)>,
    ) -> Vec<(usize, anyhow::Result<Vec<(Shard, Outcome)>>)> {
        if idle.is_empty() {
            return Vec::new();
        }
        let Pipeline { projections, read, .. } = self.its;
        let named = idle.iter().flat_map(|(index, moves)| moves.iter().map(|its| (projections[*index].name(), its)));
        let named: Vec<_> = named.collect();
        let advanced = match checkpoint::advance(read, self.lanes.history, &named, batch).await {
            Ok(advanced) => advanced,
            Err(error) => {
                let error = |index| (index, Err(anyhow::anyhow!("the checkpoints do not move: {error}")));
                return idle.into_iter().map(|(index, _)| error(index)).collect();
            }
        };
        let outcomes = idle.into_iter().map(|(index, moves)| {
            let name = projections[index].name();
            let (moves, stale): (Vec<Move>, Vec<Move>) =
                moves.into_iter().partition(|its| advanced.contains(&(name.to_owned(), its.shard)));
            let stale = stale.into_iter().map(|its| (its.shard, Outcome::Stale));
            (index, Ok(committed(moves, HashMap::new(), batch).chain(stale).collect()))
        });
        outcomes.collect()
    }

    fn settle(&mut self, projection: usize, shard: Shard, outcome: Outcome) {
        let name = self.its.projections[projection].name();
        match outcome {
            Outcome::Moved { from, to, events, changed } => {
                self.lanes.set(projection, shard, Standing::At(to));
                self.its.metrics.lanes.moved(projection, shard, to);
                self.its.metrics.projected(name, events);
                self.its.notices.publish(self.lanes.history, shard, name, (from, to), &changed);
            }
            Outcome::Stale => self.lanes.forget(projection, shard),
            Outcome::Parked(park) => {
                self.lanes.set(projection, shard, Standing::Parked);
                self.its.metrics.lanes.parked(projection, shard);
                self.alarms.raise(name, shard, &park, &self.its.metrics);
            }
        }
    }
}

/// Adds what was fetched.
fn gather(fetched: Option<Fetched>, items: &mut Vec<Item>, offsets: &mut HashMap<i32, i64>) {
    let Some((more, read_to)) = fetched.map(Fetched::into_parts) else { return };
    items.extend(more);
    offsets.extend(read_to);
}

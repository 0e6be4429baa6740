//! The loop that every event passes: from Kafka, or from the store where Kafka has not brought it, into all projections.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use events::{EventId, HistoryId, Position, Shard};
use futures::future::{join, join_all};
use sqlx::PgPool;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    apply::{AnyProjection, Outcome, Target, committed},
    batch::{Batch, Item},
    checkpoint::{self, Checkpoint, Park},
    consumer::{Fetched, Source},
    history,
    lanes::{Lanes, Move, Standing},
    metrics::Metrics,
    notice::Notices,
    patience::Patience,
    store_reader::{Heads, StoreReader},
};

/// How often the checkpoints are compared with the store's heads: a lost tail shows no gap.
const TAIL_CHECK: Duration = Duration::from_secs(2);
/// How often what the checkpoints have seen is looked up in the store.
const HISTORY_CHECK: Duration = Duration::from_secs(60);
/// A message of another history makes the check come early, though not more often than this.
const SOONEST_CHECK: Duration = Duration::from_millis(500);
/// Events applied at once, at most: with [`crate::store_reader::READ_BYTES`], what a batch holds in memory.
const MOST_EVENTS: usize = 2_000;
/// Events read at once from the store for one shard, at least.
const LEAST_OF_SHARD: u32 = 32;
/// Spans made for the traces that a batch continues, at most.
const MOST_SPANS: usize = 64;

/// All projections of this process.
pub(crate) struct Pipeline {
    pub(crate) store: StoreReader,
    pub(crate) read: PgPool,
    pub(crate) projections: Vec<Box<dyn AnyProjection>>,
    pub(crate) source: Arc<Source>,
    pub(crate) notices: Notices,
    pub(crate) metrics: Metrics,
}

/// [`Pipeline`], at work.
struct Running<'a> {
    its: &'a Pipeline,
    lanes: Lanes,
    skipped: HashMap<String, HashSet<EventId>>,
    last: Option<Check>,
    check_at: Instant,
    verified_at: Option<Instant>,
}

/// What a tail check saw.
struct Check {
    at: Instant,
    heads: Heads,
    /// The lanes that stood behind those heads, and where.
    behind: HashMap<(usize, Shard), Position>,
}

impl Pipeline {
    /// Runs until the process ends; waits where a database is away.
    pub(crate) async fn run(self, mut messages: mpsc::Receiver<Fetched>, shutdown: CancellationToken) {
        let mut running = Running {
            lanes: Lanes::new(self.projections.len(), HistoryId(uuid::Uuid::nil())),
            its: &self,
            skipped: HashMap::new(),
            last: None,
            check_at: Instant::now(),
            verified_at: None,
        };
        let mut patience = Patience::new("the projector");
        while !shutdown.is_cancelled() {
            match running.step(&mut messages, &shutdown).await {
                Ok(()) => patience.worked(),
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
}

impl Running<'_> {
    /// One check, or one batch.
    async fn step(
        &mut self,
        messages: &mut mpsc::Receiver<Fetched>,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        if self.check_at <= Instant::now() {
            return self.check().await;
        }
        let mut offsets = HashMap::new();
        let mut items = Vec::new();
        if self.lanes.behind().next().is_some() {
            items = self.fill().await?;
        } else {
            let fetched = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(self.check_at) => return Ok(()),
                fetched = messages.recv() => fetched,
            };
            gather(fetched, &mut items, &mut offsets);
        }
        while items.len() < MOST_EVENTS {
            let Ok(fetched) = messages.try_recv() else { break };
            gather(Some(fetched), &mut items, &mut offsets);
        }
        if items.iter().any(|item| item.history != self.lanes.history) {
            // Theirs or ours is over: the store says which. What is dropped here, the gap rule brings back.
            let soonest = self.last.as_ref().map_or_else(Instant::now, |last| last.at + SOONEST_CHECK);
            self.check_at = self.check_at.min(soonest);
        }
        self.apply(items).await?;
        self.its.source.done(offsets);
        Ok(())
    }

    /// Compares the checkpoints with the store's heads, and now and then with its history.
    async fn check(&mut self) -> anyhow::Result<()> {
        let Pipeline { store, read, metrics, projections, .. } = self.its;
        let now = Instant::now();
        let mut history = store.history().await?;
        let mut checkpoints = checkpoint::all(read).await?;
        if self.verified_at.is_none_or(|at| now >= at + HISTORY_CHECK) {
            history = history::verify(store, history, history::seen_by(&checkpoints, history)).await?;
            self.verified_at = Some(now);
        }
        let complete = checkpoints.len() >= projections.len() * usize::from(Shard::COUNT);
        if !complete || checkpoints.iter().any(|checkpoint| checkpoint.history != history) {
            let tables: Vec<&str> = projections.iter().flat_map(|it| it.tables()).copied().collect();
            checkpoint::ensure(read, &self.its.names(), history).await?;
            history::start_over(read, &tables, history).await?;
            checkpoints = checkpoint::all(read).await?;
            self.last = None;
        }
        self.skipped = checkpoint::skipped(read).await?;
        let heads = store.heads().await?;
        self.lanes.history = history;
        let behind = self.take_over(&checkpoints, &heads);
        for (index, projection) in projections.iter().enumerate() {
            let lag = |((of, shard), at): (&(usize, Shard), &Position)| (*of == index).then(|| heads.of(*shard) - at);
            metrics.lag(projection.name(), behind.iter().filter_map(lag).max().unwrap_or(0));
            let parked = Shard::all().filter(|shard| self.lanes.standing(index, *shard) == Standing::Parked);
            metrics.parked(projection.name(), parked.count());
        }
        self.last = Some(Check { at: now, heads, behind });
        self.check_at = now + TAIL_CHECK;
        Ok(())
    }

    /// Takes the database's word for every lane, and aims those at the head that are to be filled: all that are behind
    /// at the first check, and later those that have stood still behind the head of the check before.
    fn take_over(&mut self, checkpoints: &[Checkpoint], heads: &Heads) -> HashMap<(usize, Shard), Position> {
        let mut behind = HashMap::new();
        let indices: HashMap<&str, usize> = self.its.names().into_iter().zip(0..).collect();
        for checkpoint in checkpoints {
            let Checkpoint { shard, position, .. } = *checkpoint;
            let Some(&projection) = indices.get(checkpoint.projection.as_str()) else { continue };
            let was_parked = self.lanes.standing(projection, shard) == Standing::Parked;
            self.lanes.set(projection, shard, checkpoint.into());
            if checkpoint.parked || position >= heads.of(shard) {
                continue;
            }
            behind.insert((projection, shard), position);
            let stood_still = self.last.as_ref().is_none_or(|last| {
                last.heads.of(shard) > position && last.behind.get(&(projection, shard)) == Some(&position)
            });
            if stood_still || was_parked {
                self.lanes.aim(projection, shard, heads.of(shard));
            }
        }
        behind
    }

    /// The next events of the lanes that are behind, from the store.
    async fn fill(&mut self) -> anyhow::Result<Vec<Item>> {
        let Pipeline { store, read, metrics, .. } = self.its;
        let names = self.its.names();
        let behind: HashSet<(&str, Shard)> = self.lanes.behind().map(|(index, shard)| (names[index], shard)).collect();
        let checkpoints = checkpoint::all(read).await?;
        let ours = checkpoints.iter().filter(|it| behind.contains(&(it.projection.as_str(), it.shard)));
        let ours: Vec<&Checkpoint> = ours.collect();
        if ours.iter().any(|checkpoint| checkpoint.history != self.lanes.history) {
            self.check_at = Instant::now();
            return Ok(Vec::new());
        }
        let indices: HashMap<&str, usize> = names.iter().copied().zip(0..).collect();
        for checkpoint in &ours {
            self.lanes.set(indices[checkpoint.projection.as_str()], checkpoint.shard, (*checkpoint).into());
        }
        // A shard is read from where its last lane stands; the others drop what they have.
        let still: HashSet<(&str, Shard)> = self.lanes.behind().map(|(index, shard)| (names[index], shard)).collect();
        let mut from: BTreeMap<Shard, (Position, Option<EventId>)> = BTreeMap::new();
        for its in ours.iter().filter(|it| still.contains(&(it.projection.as_str(), it.shard))) {
            let least = from.entry(its.shard).or_insert((its.position, its.event_id));
            *least = (*least).min((its.position, its.event_id));
        }
        if from.is_empty() {
            return Ok(Vec::new());
        }
        let starts: Vec<(Shard, Position)> = from.iter().map(|(shard, (position, _))| (*shard, *position)).collect();
        let limit = u32::try_from(MOST_EVENTS / starts.len()).unwrap_or(u32::MAX).max(LEAST_OF_SHARD);
        let slice = store.by_shard(&starts, limit).await?;
        let cut = slice.more;
        let mut heads = Heads::default();
        for (shard, position) in &starts {
            heads.go_on(*shard, *position);
        }
        let mut items = Item::of_read(slice, &mut heads);
        let mut found: HashMap<Shard, u32> = HashMap::new();
        for item in &items {
            *found.entry(item.shard).or_default() += 1;
        }
        if !cut {
            let exhausted = starts.iter().filter(|(shard, _)| found.get(shard).is_none_or(|number| *number < limit));
            for (shard, _) in exhausted {
                (0..names.len()).for_each(|projection| self.lanes.arrived(projection, *shard));
            }
        }
        // The first event of each shard is the checkpoint's own.
        let own = |item: &Item| item.previous == item.position;
        let confirmed: HashSet<(Position, EventId)> =
            items.iter().filter(|item| own(item)).map(|item| (item.position, item.event_id)).collect();
        let known = |(position, event): &(Position, Option<EventId>)| {
            *position == 0 || event.is_some_and(|event| confirmed.contains(&(*position, event)))
        };
        if !cut && !from.values().all(known) {
            anyhow::bail!("the event store does not have what a checkpoint has seen");
        }
        items.retain(|item| !own(item));
        metrics.filled.add(items.len() as u64, &[]);
        Ok(items)
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
        let _spans = spans(&batch, &plans);
        let shards: Vec<(usize, Vec<Shard>)> =
            plans.iter().map(|(index, moves)| (*index, moves.iter().map(|its| its.shard).collect())).collect();
        for (index, moves) in &plans {
            let passed = moves.iter().map(|its| its.passes.len()).sum();
            self.its.metrics.projected(projections[*index].name(), passed);
        }
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
            Outcome::Moved { from, to, changed } => {
                self.lanes.set(projection, shard, Standing::At(to));
                self.its.notices.publish(self.lanes.history, shard, name, (from, to), &changed);
            }
            Outcome::Stale => self.lanes.forget(projection, shard),
            Outcome::Parked(park) => {
                self.lanes.set(projection, shard, Standing::Parked);
                self.its.metrics.alarm("parked");
                alarm(name, shard, &park);
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

fn alarm(projection: &str, shard: Shard, park: &Park) {
    let Park { event_id, position, reason } = park;
    tracing::error!(
        projection,
        shard = shard.number(),
        %event_id,
        position,
        "projection {projection} has stopped in shard {shard} at event {event_id}, position {position}: {reason}. \
         Everything else goes on. `agora projections retry {projection} {shard}` tries again, \
         `agora projections skip {projection} {shard} --reason TEXT` leaves the event out for good"
    );
}

/// Spans that continue the traces in which events of the batch began, as far as these are sampled. They end with it.
fn spans(batch: &Batch, plans: &[(usize, Vec<Move>)]) -> Vec<Span> {
    let passed =
        |index: usize| plans.iter().flat_map(|(_, moves)| moves).any(|its| its.passes.binary_search(&index).is_ok());
    let sampled = batch.iter().enumerate().filter_map(|(index, item)| {
        let envelope = &item.content.as_ref().ok()?.envelope;
        let traceparent = envelope.metadata.traceparent.as_deref().filter(|it| is_sampled(it))?;
        let span = || {
            tracing::info_span!(
                "project",
                event = envelope.name,
                event_id = %envelope.event_id,
                position = envelope.position,
            )
        };
        let span = passed(index).then(span)?;
        platform::telemetry::continue_trace(&span, traceparent);
        Some(span)
    });
    sampled.take(MOST_SPANS).collect()
}

/// The last bit of the flags (W3C Trace Context, 3.2.2.5).
fn is_sampled(traceparent: &str) -> bool {
    let flags = traceparent.get(53..55).and_then(|flags| u8::from_str_radix(flags, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 1)
}

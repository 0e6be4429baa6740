//! Folding what the store has, some shards side by side, with the projections side by side.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use anyhow::bail;
use events::{EventId, HistoryId, Position, Shard};
use futures::future::{join_all, try_join_all};
use tokio::sync::mpsc;

use super::{
    Phase, Rebuild, Targets, Watch,
    deal::{Span, deal},
    groups_at_once,
};
use store_reader::way_out;

use crate::{
    apply::{Outcome, Target},
    batch::Batch,
    checkpoint::{self, Park},
    lanes::{Lanes, Move, Standing},
};

/// An event that a rebuild stops at, and what resolves it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CannotFold(String);

/// What all shards share.
struct Folding<'a> {
    history: HistoryId,
    skipped: HashMap<String, HashSet<EventId>>,
    targets: &'a Targets,
    watch: &'a dyn Watch,
}

impl Rebuild {
    /// Folds each lane up to its target; counts what there is to do where it is the beginning of a phase.
    ///
    /// # Errors
    /// Names the event that cannot be folded.
    pub(super) async fn fold_to(
        &self,
        targets: &Targets,
        phase: Option<Phase>,
        watch: &dyn Watch,
    ) -> anyhow::Result<()> {
        let stand = self.positions(&self.shadow).await?;
        let todo = self.todo(&stand, targets).await?;
        if let Some(phase) = phase {
            // Positions have no gaps: of all shards, as many events are before the last one as its position says.
            let furthest = stand.values().max().copied().unwrap_or(0).unsigned_abs();
            let done = if self.what.shard.is_none() { furthest } else { 0 };
            watch.begins(phase, todo.iter().map(|(_, events)| events).sum(), done);
        }
        let folding = Folding {
            history: self.store.history().await?,
            skipped: checkpoint::skipped(self.store.pool(), &self.projections).await?,
            targets,
            watch,
        };
        let groups = groups(todo).into_iter().map(|spans| self.fold_group(spans, &stand, &folding));
        try_join_all(groups).await.map(drop)
    }

    /// What there is to do, and how many events that is.
    async fn todo(&self, stand: &Targets, targets: &Targets) -> anyhow::Result<Vec<(Span, u64)>> {
        let spans: Vec<Span> = self.shards().into_iter().filter_map(|shard| span(stand, targets, shard)).collect();
        if spans.is_empty() {
            return Ok(Vec::new());
        }
        let shards: Vec<i16> = spans.iter().map(|(shard, ..)| i16::from(*shard)).collect();
        let (from, to): (Vec<Position>, Vec<Position>) = spans.iter().map(|(_, from, to)| (*from, *to)).unzip();
        let todo = sqlx::query_scalar(
            "select count(position)
            from unnest($1::smallint[], $2::bigint[], $3::bigint[]) with ordinality s (shard, least, most, nth)
            left join events e on (e.shard, e.position) > (s.shard, s.least) and (e.shard, e.position) <= (s.shard, s.most)
            group by nth order by nth",
        );
        let todo: Vec<i64> = todo.bind(shards).bind(from).bind(to).fetch_all(self.store.pool()).await?;
        Ok(spans.into_iter().zip(todo.into_iter().map(i64::unsigned_abs)).collect())
    }

    /// Folds the events of some shards. The next ones are read and decoded while the last ones are folded.
    async fn fold_group(&self, spans: Vec<Span>, stand: &Targets, folding: &Folding<'_>) -> anyhow::Result<()> {
        let mut lanes = Lanes::new(self.projections.len(), folding.history);
        for ((projection, shard), position) in stand {
            lanes.set(*projection, *shard, Standing::At(*position));
        }
        let (to, mut dealt) = mpsc::channel(1);
        let dealing = tokio::spawn(deal(self.store.clone(), spans, to));
        while let Some(items) = dealt.recv().await {
            let folded = items.len() as u64;
            self.apply(Arc::new(items), &mut lanes, folding).await?;
            folding.watch.done(folded);
        }
        dealing.await?
    }

    /// Applies to each projection what its target allows; projections side by side.
    async fn apply(&self, batch: Batch, lanes: &mut Lanes, folding: &Folding<'_>) -> anyhow::Result<()> {
        let nothing = HashSet::new();
        let mut plans = Vec::new();
        for (index, projection) in self.projections.iter().enumerate() {
            let skipped = folding.skipped.get(projection.name()).unwrap_or(&nothing);
            let target = |shard| folding.targets.get(&(index, shard)).copied().unwrap_or(0);
            let moves = lanes.plan(index, &batch, |event| projection.concerns(event), skipped);
            let up_to = |its: Move| {
                let target = target(its.shard);
                its.up_to(target, &batch)
            };
            plans.push((index, moves.into_iter().filter_map(up_to).collect()));
        }
        let applied = plans.into_iter().map(|(index, moves)| {
            let batch = &batch;
            async move {
                let projection = &*self.projections[index];
                let target = Target { projection, rows: &self.rows, history: folding.history };
                (index, target.apply(batch, moves).await)
            }
        });
        for (index, outcomes) in join_all(applied).await {
            for (shard, outcome) in outcomes? {
                match outcome {
                    Outcome::Moved { to, .. } => lanes.set(index, shard, Standing::At(to)),
                    Outcome::Parked(park) => return Err(self.stopped(index, shard, &park).into()),
                    Outcome::Stale => bail!("somebody else moved the checkpoints that are built: start again"),
                }
            }
        }
        Ok(())
    }

    fn stopped(&self, projection: usize, shard: Shard, park: &Park) -> CannotFold {
        let Park { event_id, position, reason, unreadable } = park;
        let name = self.projections[projection].name();
        let leave_out = if *unreadable {
            way_out(*event_id)
        } else {
            format!(
                "`agora projections skip {name} --event {event_id} --reason WHY` leaves it out for good, of the live \
                 tables too"
            )
        };
        CannotFold(format!(
            "{name} cannot fold event {event_id} at position {position} of shard {shard}: {reason}. The live tables are \
             as they were. To go on: {leave_out}"
        ))
    }
}

/// What is folded one shard after the other: about as many events in each group.
fn groups(mut todo: Vec<(Span, u64)>) -> Vec<Vec<Span>> {
    todo.sort_unstable_by_key(|(_, events)| Reverse(*events));
    let mut groups = vec![(0, Vec::new()); groups_at_once().min(todo.len())];
    for (span, events) in todo {
        let least = groups.iter_mut().min_by_key(|(events, _)| *events).expect("as many as there are spans");
        least.0 += events;
        least.1.push(span);
    }
    groups.into_iter().map(|(_, spans)| spans).collect()
}

/// From the last of a shard's lanes that have not arrived up to the furthest target; none where all have.
fn span(stand: &Targets, targets: &Targets, shard: Shard) -> Option<Span> {
    let lanes = targets.iter().filter(|((_, of), _)| *of == shard);
    let lanes = lanes.map(|(lane, target)| (stand.get(lane).copied().unwrap_or(0), *target));
    let behind = lanes.filter(|(at, target)| at < target);
    behind.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1))).map(|(from, to)| (shard, from, to))
}

//! Folding from the store, shard by shard, with the projections side by side.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use anyhow::bail;
use events::{EventId, HistoryId, Position, Shard};
use futures::{FutureExt as _, StreamExt, TryStreamExt, future::join_all, stream};

use super::{Phase, Rebuild, SHARDS_AT_ONCE, Targets, Watch};
use store_reader::{Heads, way_out};

use crate::{
    apply::{Outcome, Target},
    batch::{Batch, Item},
    checkpoint::{self, Park},
    lanes::{Lanes, Standing},
};

/// Events folded at once: a shard's rows are loaded and written so much less often than live, and [`SHARDS_AT_ONCE`]
/// such batches are what is held in memory.
const BATCH: u32 = 4_000;

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
        if let Some(phase) = phase {
            let (done, todo) = self.count(&stand, targets).await?;
            watch.begins(phase, todo, done);
        }
        let folding = Folding {
            history: self.store.history().await?,
            skipped: checkpoint::skipped(self.store.pool(), &self.projections).await?,
            targets,
            watch,
        };
        let shards = stream::iter(self.shards()).map(|shard| self.fold_shard(shard, &stand, &folding).boxed());
        shards.buffer_unordered(SHARDS_AT_ONCE).try_collect::<()>().await
    }

    /// How many events are before all lanes of their shards, more or less, and how many behind them.
    async fn count(&self, stand: &Targets, targets: &Targets) -> anyhow::Result<(u64, u64)> {
        let shards: Vec<i16> = self.shards().into_iter().map(i16::from).collect();
        let least = |shard| of_shard(stand, shard).min().unwrap_or(0);
        let most = |shard| of_shard(targets, shard).max().unwrap_or(0);
        let from: Vec<Position> = self.shards().into_iter().map(least).collect();
        let to: Vec<Position> = self.shards().into_iter().map(most).collect();
        let todo = sqlx::query_scalar!(
            r#"select count(*) as "todo!"
            from unnest($1::smallint[], $2::bigint[], $3::bigint[]) s (shard, least, most)
            join events e on (e.shard, e.position) > (s.shard, s.least) and (e.shard, e.position) <= (s.shard, s.most)"#,
            &shards,
            &from,
            &to,
        );
        let todo = todo.fetch_one(self.store.pool()).await?.unsigned_abs();
        // Positions have no gaps: of all shards, as many events are before the last one as its position says.
        let furthest = stand.values().max().copied().unwrap_or(0).unsigned_abs();
        Ok((if self.what.shard.is_none() { furthest } else { 0 }, todo))
    }

    async fn fold_shard(&self, shard: Shard, stand: &Targets, folding: &Folding<'_>) -> anyhow::Result<()> {
        let mut lanes = Lanes::new(self.projections.len(), folding.history);
        for index in 0..self.projections.len() {
            lanes.set(index, shard, Standing::At(stand.get(&(index, shard)).copied().unwrap_or(0)));
        }
        let furthest = of_shard(folding.targets, shard).max().unwrap_or(0);
        loop {
            let Some(from) = self.last_of(&lanes, shard, folding.targets) else { return Ok(()) };
            let mut heads = Heads::default();
            heads.go_on(shard, from);
            let read = self.store.by_shard(&[(shard, from)], BATCH).await?;
            let mut items = Item::of_read(read, &mut heads);
            // The first one is what the checkpoint has seen.
            items.retain(|item| item.position > from && item.position <= furthest);
            if items.is_empty() {
                bail!("the event store has nothing behind position {from} of shard {shard}, where it had more before");
            }
            let folded = items.len() as u64;
            self.apply(shard, Arc::new(items), &mut lanes, folding).await?;
            folding.watch.done(folded);
        }
    }

    /// Where the last of the shard's lanes stands that has not arrived.
    fn last_of(&self, lanes: &Lanes, shard: Shard, targets: &Targets) -> Option<Position> {
        let stand = (0..self.projections.len()).filter_map(|index| match lanes.standing(index, shard) {
            Standing::At(at) => targets.get(&(index, shard)).is_some_and(|target| at < *target).then_some(at),
            Standing::Unknown | Standing::Parked | Standing::Foreign => None,
        });
        stand.min()
    }

    /// Applies to each projection what its target allows; projections side by side.
    async fn apply(&self, shard: Shard, batch: Batch, lanes: &mut Lanes, folding: &Folding<'_>) -> anyhow::Result<()> {
        let nothing = HashSet::new();
        let mut plans = Vec::new();
        for (index, projection) in self.projections.iter().enumerate() {
            let target = folding.targets.get(&(index, shard)).copied().unwrap_or(0);
            let reach = batch.partition_point(|item| item.position <= target);
            let skipped = folding.skipped.get(projection.name()).unwrap_or(&nothing);
            let moves = lanes.plan(index, &batch[..reach], |event| projection.concerns(event), skipped);
            plans.push((index, moves));
        }
        let applied = plans.into_iter().map(|(index, moves)| {
            let batch = &batch;
            async move {
                let target =
                    Target { projection: &*self.projections[index], read: &self.shadow, history: folding.history };
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

/// The positions of a shard's lanes.
fn of_shard(lanes: &Targets, shard: Shard) -> impl Iterator<Item = Position> {
    lanes.iter().filter(move |((_, of), _)| *of == shard).map(|(_, position)| *position)
}

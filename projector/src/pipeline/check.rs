//! The tail check and the history check: what no message would tell.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use events::{EventId, Position, Shard};
use platform::sabotage::{Promise, breaks};
use tokio::time::Instant;

use super::{Pipeline, Running};
use store_reader::Heads;

use crate::{
    checkpoint::{self, Checkpoint},
    history,
    lanes::Standing,
    status,
};

/// How often the checkpoints are compared with the store's heads: a lost tail shows no gap.
const TAIL_CHECK: Duration = Duration::from_secs(2);
/// The same where some were behind: what is only on its way is past them by then.
const TAIL_CHECK_BEHIND: Duration = Duration::from_millis(500);
/// The same as long as Kafka does not bring what there is: what is written shows by this alone.
const TAIL_CHECK_ALONE: Duration = Duration::from_millis(200);
/// How long Kafka may bring nothing of what there is before another consumer goes on.
const REPLACE_AFTER: Duration = Duration::from_secs(6);
/// How often what the checkpoints have seen is looked up in the store; at once where one is ahead of it.
const HISTORY_CHECK: Duration = Duration::from_secs(60);

/// The number of each projection, by its name.
type Indices = HashMap<&'static str, usize>;

/// What a tail check saw.
pub(super) struct Check {
    pub(super) at: Instant,
    heads: Heads,
    /// The lanes that stood behind those heads, and where.
    behind: HashMap<(usize, Shard), Position>,
}

impl Running<'_> {
    /// Compares the checkpoints with the store's heads, and now and then with its history.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        let Pipeline { store, read, metrics, projections, .. } = self.its;
        let now = Instant::now();
        let mut history = store.history().await?;
        let mut checkpoints = checkpoint::all(read).await?;
        let heads = store.heads().await?;
        let is_ahead =
            |checkpoint: &Checkpoint| checkpoint.history == history && checkpoint.position > heads.of(checkpoint.shard);
        if self.verified_at.is_none_or(|at| now >= at + HISTORY_CHECK) || checkpoints.iter().any(is_ahead) {
            history = history::verify(store, history, history::seen_by(&checkpoints, history), metrics).await?;
            self.verified_at = Some(now);
        }
        let complete = checkpoints.len() >= projections.len() * usize::from(Shard::COUNT);
        if !complete || checkpoints.iter().any(|checkpoint| checkpoint.history != history) {
            checkpoint::ensure(read, checkpoint::beginnings(projections, heads.furthest()), history).await?;
            history = history::start_over(store, read, projections).await?;
            checkpoints = checkpoint::all(read).await?;
            self.last = None;
        }
        self.skipped = checkpoint::skipped(store.pool(), projections).await?;
        self.go_on_behind_decided(&mut checkpoints).await?;
        self.lanes.history = history;
        let (indices, rebuilding) = (self.its.indices(), status::rebuilding(read).await?);
        let behind = self.take_over(&checkpoints, &heads, &indices);
        let late = checkpoints.iter().filter(|checkpoint| checkpoint.position < heads.of(checkpoint.shard));
        // Those that have stopped too.
        let late: HashMap<(usize, Shard), Position> =
            late.filter_map(|late| Some(((*indices.get(&*late.projection)?, late.shard), late.position))).collect();
        let waiting = store.waiting(&late.iter().map(|((_, shard), at)| (*shard, *at)).collect()).await?;
        for (index, projection) in projections.iter().enumerate() {
            let since = late
                .iter()
                .filter(|((of, _), _)| *of == index)
                .filter_map(|((_, shard), at)| waiting.get(&(*shard, *at)));
            let since = since.min().map_or(TimeDelta::zero(), |since| Utc::now() - since);
            metrics.waiting(projection.name(), since);
            let lag = |((of, shard), at): (&(usize, Shard), &Position)| (*of == index).then(|| heads.of(*shard) - at);
            metrics.lag(projection.name(), late.iter().filter_map(lag).max().unwrap_or(0));
            let parked = Shard::all().filter(|shard| self.lanes.standing(index, *shard) == Standing::Parked);
            metrics.parked(projection.name(), parked.count());
            metrics.rebuilding(projection.name(), rebuilding.contains(projection.name()));
        }
        self.show(&checkpoints, &heads, &waiting, &indices);
        // From here on, not from when it began: between two checks there is room for a batch, however slow the database is.
        self.check_at = Instant::now()
            + match self.alone_since {
                Some(_) => TAIL_CHECK_ALONE,
                None if !behind.is_empty() => TAIL_CHECK_BEHIND,
                None => TAIL_CHECK,
            };
        self.last = Some(Check { at: now, heads, behind });
        Ok(())
    }

    /// Whoever stands at an event that is to be passed by, or was repaired since, goes on: who said so may have been killed
    /// before the read tables knew.
    async fn go_on_behind_decided(&self, checkpoints: &mut [Checkpoint]) -> anyhow::Result<()> {
        let stopped: Vec<EventId> = checkpoints.iter().filter_map(|it| it.parked.map(|(event, _)| event)).collect();
        if stopped.is_empty() {
            return Ok(());
        }
        let repaired = checkpoint::repaired(self.its.store.pool(), &stopped).await?;
        for checkpoint in checkpoints {
            let Checkpoint { projection, shard, parked, .. } = checkpoint;
            let skipped = self.skipped.get(projection.as_str());
            let decided = parked.filter(|(event, at)| {
                skipped.is_some_and(|skipped| skipped.contains(event))
                    || repaired.get(event).is_some_and(|then| then > at)
            });
            if let Some((event, _)) = decided {
                checkpoint::go_on(&self.its.read, projection, *shard, event).await?;
                *parked = None;
            }
        }
        Ok(())
    }

    /// Rows that another version has made are not ours to write: older ones are made anew beside them, newer ones are
    /// what another release is for.
    fn leave_others(&mut self, checkpoints: &[Checkpoint], turned: bool) {
        let theirs = self.its.projections.iter().filter_map(|projection| {
            let its = checkpoints.iter().filter(|checkpoint| checkpoint.projection == projection.name());
            Some((projection.name(), projection.version(), its.map(|checkpoint| checkpoint.version).min()?))
        });
        let (older, newer): (Vec<_>, Vec<_>) =
            theirs.filter(|(_, ours, theirs)| ours != theirs).partition(|(_, ours, theirs)| theirs < ours);
        if !older.is_empty() {
            self.its.outdated.notify_one();
        }
        for (name, ours, theirs) in newer.iter().filter(|_| turned) {
            tracing::warn!(
                "projection {name} is at version {theirs} here and of version {ours} in this release: projectors of the \
                 newer release go on with it, this one does not"
            );
        }
    }

    /// Notes where every lane stands, for who scrapes.
    fn show(
        &self,
        checkpoints: &[Checkpoint],
        heads: &Heads,
        waiting: &HashMap<(Shard, Position), DateTime<Utc>>,
        indices: &Indices,
    ) {
        for Checkpoint { projection, shard, position, parked, .. } in checkpoints {
            let Some(&projection) = indices.get(projection.as_str()) else { continue };
            let since = waiting.get(&(*shard, *position)).copied();
            self.its.metrics.lanes.checked(projection, *shard, (*position, heads.of(*shard)), since);
            if parked.is_some() {
                self.its.metrics.lanes.parked(projection, *shard);
            }
        }
    }

    /// Takes the database's word for every lane, and aims those at the head that are to be filled: all that are behind
    /// at the first check, and later those that have stood still behind the head of the check before.
    fn take_over(
        &mut self,
        checkpoints: &[Checkpoint],
        heads: &Heads,
        indices: &Indices,
    ) -> HashMap<(usize, Shard), Position> {
        let (mut behind, mut missed, mut turned) = (HashMap::new(), false, false);
        for checkpoint in checkpoints {
            let Checkpoint { shard, position, .. } = *checkpoint;
            let Some(&projection) = indices.get(checkpoint.projection.as_str()) else { continue };
            let before = self.lanes.standing(projection, shard);
            let was_parked = before == Standing::Parked;
            self.lanes.take_over(projection, checkpoint, self.its.projections[projection].version());
            let is_foreign = self.lanes.standing(projection, shard) == Standing::Foreign;
            turned |= is_foreign && before != Standing::Foreign;
            if checkpoint.parked.is_some() && self.last.is_none() {
                let name = &checkpoint.projection;
                tracing::warn!("projection {name} still stands in shard {shard}: `agora projections status` says why");
            }
            if checkpoint.parked.is_some() || position >= heads.of(shard) {
                continue;
            }
            behind.insert((projection, shard), position);
            let stood_still = self.last.as_ref().is_none_or(|last| {
                last.heads.of(shard) > position && last.behind.get(&(projection, shard)) == Some(&position)
            });
            if is_foreign {
                continue;
            }
            if (stood_still && !(breaks(Promise::NoTailCheck) && self.last.is_some())) || was_parked {
                self.lanes.aim(projection, shard, heads.of(shard));
            }
            missed |= stood_still && self.last.is_some();
        }
        self.leave_others(checkpoints, turned);
        let now = Instant::now();
        self.alone_since = missed.then(|| self.alone_since.unwrap_or(now));
        let deaf = |since| now > since + REPLACE_AFTER && self.its.source.received_at() < since;
        if self.alone_since.is_some_and(deaf) {
            self.alone_since = Some(now);
            self.its.source.replace();
        }
        behind
    }
}

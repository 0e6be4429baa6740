//! Filling from the event store: what Kafka did not bring, or not yet, or never will.

use std::collections::{BTreeMap, HashMap, HashSet};

use events::{EventId, Position, Shard};
use store_reader::Heads;
use tokio::time::Instant;

use super::Running;
use crate::{batch::Item, checkpoint};

/// Events read at once, at most: with [`store_reader::READ_BYTES`], what is held in memory.
const MOST_EVENTS: usize = 2_000;
/// Events read at once for one shard, at least.
const LEAST_OF_SHARD: u32 = 32;

/// The event that a checkpoint has seen; none at position 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Seen {
    position: Position,
    event: Option<EventId>,
}

impl From<&Item> for Seen {
    fn from(item: &Item) -> Self {
        Self { position: item.position, event: Some(item.event_id) }
    }
}

impl Running<'_> {
    /// The next events of the lanes that are behind, from the store.
    pub(super) async fn fill(&mut self) -> anyhow::Result<Vec<Item>> {
        let starts = self.starts().await?;
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let from: Vec<(Shard, Position)> = starts.iter().map(|(shard, seen)| (*shard, seen.position)).collect();
        let limit = u32::try_from(MOST_EVENTS / from.len()).unwrap_or(u32::MAX).max(LEAST_OF_SHARD);
        let slice = self.its.store.by_shard(&from, limit).await?;
        let complete = !slice.more;
        let mut heads = Heads::default();
        for (shard, position) in from {
            heads.go_on(shard, position);
        }
        let mut items = Item::of_read(slice, &mut heads);
        verify(&starts, &items, complete)?;
        if complete {
            self.note_ends(&starts, &items, limit);
        }
        items.retain(|item| !is_start(item));
        self.its.metrics.filled.add(items.len() as u64, &[]);
        Ok(items)
    }

    /// From where each shard is to be read: where the last of its lanes stands, as the database has it. The others drop
    /// what they have.
    async fn starts(&mut self) -> anyhow::Result<BTreeMap<Shard, Seen>> {
        let indices = self.its.indices();
        let behind: HashSet<(usize, Shard)> = self.lanes.behind().collect();
        let mut checkpoints = HashMap::new();
        for checkpoint in checkpoint::all(&self.its.read).await? {
            let index = indices.get(checkpoint.projection.as_str());
            let Some(lane) = index.map(|index| (*index, checkpoint.shard)).filter(|lane| behind.contains(lane)) else {
                continue;
            };
            if checkpoint.history != self.lanes.history {
                self.check_at = Instant::now();
                return Ok(BTreeMap::new());
            }
            self.lanes.take_over(lane.0, &checkpoint, self.its.projections[lane.0].version());
            checkpoints.insert(lane, Seen { position: checkpoint.position, event: checkpoint.event_id });
        }
        let mut starts: BTreeMap<Shard, Seen> = BTreeMap::new();
        for lane in self.lanes.behind() {
            let Some(seen) = checkpoints.get(&lane) else { continue };
            let least = starts.entry(lane.1).or_insert(*seen);
            *least = (*least).min(*seen);
        }
        Ok(starts)
    }

    /// Where the store has nothing more, nobody is behind.
    fn note_ends(&mut self, starts: &BTreeMap<Shard, Seen>, items: &[Item], limit: u32) {
        let mut found: HashMap<Shard, u32> = HashMap::new();
        for item in items {
            *found.entry(item.shard).or_default() += 1;
        }
        for shard in starts.keys().filter(|shard| found.get(shard).is_none_or(|number| *number < limit)) {
            for projection in 0..self.its.projections.len() {
                self.lanes.arrived(projection, *shard);
            }
        }
    }
}

/// What the checkpoints have seen must be what the store has there; as far as it was read, where that is not all.
fn verify(starts: &BTreeMap<Shard, Seen>, items: &[Item], complete: bool) -> anyhow::Result<()> {
    let read: HashSet<Shard> = items.iter().map(|item| item.shard).collect();
    let found: HashSet<Seen> = items.iter().filter(|item| is_start(item)).map(Seen::from).collect();
    let known = |(shard, seen): &(&Shard, &Seen)| seen.position > 0 && (complete || read.contains(shard));
    for (shard, seen) in starts.iter().filter(known) {
        let position = seen.position;
        anyhow::ensure!(
            found.contains(seen),
            "the event store has another event at position {position} of shard {shard}"
        );
    }
    Ok(())
}

/// Whether it is the event that the reading of its shard began with: its checkpoint's own.
fn is_start(item: &Item) -> bool {
    item.previous == item.position
}

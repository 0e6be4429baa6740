//! When what an answer shows last changed: a fixed number of stamps, into which every thing that can change is hashed.
//!
//! A change notes the next tick of a clock in the stamp of each thing it touched. An answer notes the clock before its
//! rows are read, and is good as long as none of its stamps is later. So an answer whose rows were read before a
//! change is never taken for current, however long reading took; and two things that share a stamp cost a load, never
//! a stale answer.

use std::sync::atomic::{AtomicU64, Ordering};

use events::Shard;
use uuid::Uuid;

use crate::projection::{Grid, Projection};

/// Stamps of single things; a power of two. At 8 bytes each, half a mebibyte.
const THINGS: usize = 1 << 16;

/// A tick of the clock that all stamps share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

/// Something that an answer shows, as one projection keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tag {
    /// One thing: an account, a community, a thread, a post. Notices name it, kind and id; the id is enough.
    Thing(Projection, Uuid),
    /// All that a projection keeps of one shard.
    Shard(Projection, Shard),
    /// Whatever a projection loses sight of, in any shard: for answers that show things of many shards.
    Lost(Projection),
    /// Whatever a projection changes, in any shard.
    Any(Projection),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stamps {
    clock: AtomicU64,
    things: Box<[AtomicU64]>,
    shards: Grid<AtomicU64>,
    lost: [AtomicU64; Projection::ALL.len()],
    any: [AtomicU64; Projection::ALL.len()],
}

impl Stamps {
    pub(crate) fn new() -> Self {
        Self {
            clock: AtomicU64::new(0),
            things: (0..THINGS).map(|_| AtomicU64::new(0)).collect(),
            shards: Grid::new(AtomicU64::default),
            lost: Default::default(),
            any: Default::default(),
        }
    }

    /// The clock as it stands: to be asked before an answer's rows are read.
    pub(crate) fn now(&self) -> Tick {
        Tick(self.clock.load(Ordering::SeqCst))
    }

    /// Something changed: to be called after the change can be read.
    pub(crate) fn touch(&self, tags: impl IntoIterator<Item = Tag>) {
        let tick = self.clock.fetch_add(1, Ordering::SeqCst) + 1;
        for tag in tags {
            self.stamp(tag).fetch_max(tick, Ordering::SeqCst);
        }
    }

    /// Whether none of these changed since.
    pub(crate) fn unchanged_since(&self, tick: Tick, tags: &[Tag]) -> bool {
        tags.iter().all(|tag| self.stamp(*tag).load(Ordering::SeqCst) <= tick.0)
    }

    fn stamp(&self, tag: Tag) -> &AtomicU64 {
        match tag {
            Tag::Thing(projection, id) => &self.things[slot(projection, id)],
            Tag::Shard(projection, shard) => self.shards.at(projection, shard),
            Tag::Lost(projection) => &self.lost[projection.index()],
            Tag::Any(projection) => &self.any[projection.index()],
        }
    }
}

/// Fibonacci hashing of the id's bits: the upper ones of the product are well mixed.
fn slot(projection: Projection, id: Uuid) -> usize {
    let (high, low) = id.as_u64_pair();
    let mixed = (high ^ low.rotate_left(32) ^ projection.index() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    usize::try_from(mixed >> (u64::BITS - THINGS.ilog2())).expect("below the number of stamps")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(id: u128) -> Tag {
        Tag::Thing(Projection::ThreadPage, Uuid::from_u128(id))
    }

    #[test]
    fn an_answer_is_good_until_something_it_shows_changes() {
        let stamps = Stamps::new();
        let born = stamps.now();
        let tags = [thread(1), thread(2)];
        stamps.touch([thread(3)]);
        assert!(stamps.unchanged_since(born, &tags));
        stamps.touch([thread(2)]);
        assert!(!stamps.unchanged_since(born, &tags));
        assert!(stamps.unchanged_since(stamps.now(), &tags));
    }

    #[test]
    fn a_change_during_the_load_makes_the_answer_old() {
        let stamps = Stamps::new();
        let before_reading = stamps.now();
        stamps.touch([thread(1)]);
        assert!(!stamps.unchanged_since(before_reading, &[thread(1)]));
    }

    #[test]
    fn a_projection_says_nothing_of_anothers() {
        let stamps = Stamps::new();
        let born = stamps.now();
        stamps.touch([Tag::Thing(Projection::ThreadList, Uuid::from_u128(1)), Tag::Lost(Projection::ThreadList)]);
        assert!(stamps.unchanged_since(born, &[thread(1), Tag::Lost(Projection::ThreadPage)]));
    }

    #[test]
    fn ids_of_one_moment_spread_over_the_stamps() {
        let now = uuid::Timestamp::now(uuid::NoContext);
        let slots: std::collections::HashSet<_> =
            (0..1000).map(|_| slot(Projection::ThreadPage, Uuid::new_v7(now))).collect();
        assert!(slots.len() > 950, "{} slots", slots.len());
    }
}

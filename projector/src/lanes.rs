//! Where every projection stands in every shard, and what a batch can do for it: the rules of the chain.
//!
//! A lane is one projection in one shard. An event is taken only where its `previous` is the lane's position: so what is
//! applied is in order, nothing missing, nothing twice. The checkpoint in the database is the truth; what is kept here
//! is how far this process believes it to be, and every write compares.

use std::collections::HashSet;

use events::{Event, EventId, HistoryId, Position, Shard};
use platform::sabotage::{Promise, breaks};

use crate::{
    batch::Item,
    checkpoint::{Checkpoint, Park},
};

/// The lanes of all projections.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The history that every position here is of.
    pub(crate) history: HistoryId,
    /// By projection and shard.
    lanes: Vec<[Lane; Shard::COUNT as usize]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lane {
    standing: Standing,
    /// [`Checkpoint::built`].
    built: i32,
    /// The furthest event that is known to be in the store.
    target: Position,
}

/// Where a lane stands, as far as this process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Standing {
    /// The database knows.
    #[default]
    Unknown,
    /// Everything up to there is applied.
    At(Position),
    /// It stopped at an event that it could not fold.
    Parked,
    /// Another version of the projection has made its rows: they are not ours to write.
    Foreign,
}

/// How one lane gets on by a batch.
#[derive(Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) shard: Shard,
    pub(crate) from: Position,
    /// [`Checkpoint::built`].
    pub(crate) built: i32,
    /// The events it passes, as indices into the batch.
    pub(crate) passes: Vec<usize>,
    /// Those of them that the projection folds.
    pub(crate) folds: Vec<usize>,
    /// The event behind them at which it stops.
    pub(crate) park: Option<Park>,
}

impl Move {
    /// No move yet.
    pub(crate) fn begin(shard: Shard, from: Position, built: i32) -> Self {
        Self { shard, from, built, passes: Vec::new(), folds: Vec::new(), park: None }
    }

    /// Where the lane stands afterwards, and by which event; none where it stays.
    pub(crate) fn to(&self, batch: &[Item]) -> (Position, Option<EventId>) {
        let last = self.passes.last().map(|index| &batch[*index]);
        last.map_or((self.from, None), |item| (item.position, Some(item.event_id)))
    }

    /// The move up to an event, and the rest from that event on.
    pub(crate) fn split(mut self, index: usize, batch: &[Item]) -> (Self, Self) {
        let cut = |indices: &mut Vec<usize>| indices.split_off(indices.partition_point(|it| *it < index));
        let (passes, folds, park) = (cut(&mut self.passes), cut(&mut self.folds), self.park.take());
        let rest = Self { shard: self.shard, from: self.to(batch).0, built: self.built, passes, folds, park };
        (self, rest)
    }

    /// The move up to a position; none where that is nothing.
    pub(crate) fn up_to(mut self, position: Position, batch: &[Item]) -> Option<Self> {
        let reach = |indices: &mut Vec<usize>| indices.retain(|index| batch[*index].position <= position);
        reach(&mut self.passes);
        reach(&mut self.folds);
        self.park.take_if(|park| park.position > position);
        (!self.passes.is_empty() || self.park.is_some()).then_some(self)
    }

    /// The move up to an event, stopping there.
    pub(crate) fn parked_at(self, index: usize, batch: &[Item], reason: String) -> Self {
        let (mut before, _) = self.split(index, batch);
        before.park = Some(Park::at(&batch[index], reason));
        before
    }
}

impl Lanes {
    /// Lanes of which nothing is known.
    pub(crate) fn new(projections: usize, history: HistoryId) -> Self {
        Self { history, lanes: vec![[Lane::default(); Shard::COUNT as usize]; projections] }
    }

    /// Takes over what the database says of a lane of a projection that is of this version here.
    pub(crate) fn take_over(&mut self, projection: usize, checkpoint: &Checkpoint, version: i32) {
        let lane = self.lane(projection, checkpoint.shard);
        lane.built = checkpoint.built;
        lane.standing = match checkpoint {
            other if other.version != version => Standing::Foreign,
            stopped if stopped.parked.is_some() => Standing::Parked,
            _ => Standing::At(checkpoint.position),
        };
    }

    /// A lane stands there now.
    pub(crate) fn set(&mut self, projection: usize, shard: Shard, standing: Standing) {
        self.lane(projection, shard).standing = standing;
    }

    /// Nothing is known of a lane any more.
    pub(crate) fn forget(&mut self, projection: usize, shard: Shard) {
        self.set(projection, shard, Standing::Unknown);
    }

    /// An event is in the store that a lane has to reach.
    pub(crate) fn aim(&mut self, projection: usize, shard: Shard, target: Position) {
        let lane = self.lane(projection, shard);
        lane.target = lane.target.max(target);
    }

    /// The store has nothing more for a lane.
    pub(crate) fn arrived(&mut self, projection: usize, shard: Shard) {
        self.lane(projection, shard).target = 0;
    }

    /// Where a lane stands.
    pub(crate) fn standing(&self, projection: usize, shard: Shard) -> Standing {
        self.lanes[projection][shard.index()].standing
    }

    /// The lanes that have to be filled from the store.
    pub(crate) fn behind(&self) -> impl Iterator<Item = (usize, Shard)> {
        let lanes = self.lanes.iter().enumerate();
        lanes.flat_map(|(projection, lanes)| {
            let shards = Shard::all().zip(lanes).filter(|(_, lane)| match lane.standing {
                Standing::Unknown => true,
                Standing::At(position) => position < lane.target,
                Standing::Parked | Standing::Foreign => false,
            });
            shards.map(move |(shard, _)| (projection, shard))
        })
    }

    /// What a batch does for one projection. Each lane is aimed at the last event that it shows: a gap, a failure or
    /// another owner leave the lane behind it.
    pub(crate) fn plan(
        &mut self,
        projection: usize,
        batch: &[Item],
        concerns: impl Fn(&Event) -> bool,
        skipped: &HashSet<EventId>,
    ) -> Vec<Move> {
        let mut moves: Vec<Move> = Vec::new();
        let mut slots = [None; Shard::COUNT as usize];
        let history = self.history;
        for (index, item) in
            batch.iter().enumerate().filter(|(_, item)| item.history == history || breaks(Promise::AnyHistory))
        {
            let lane = self.lane(projection, item.shard);
            let slot: &mut Option<usize> = &mut slots[item.shard.index()];
            let at = match (lane.standing, *slot) {
                (Standing::Parked | Standing::Foreign, _) => continue,
                (Standing::Unknown, _) => 0,
                (Standing::At(_), Some(slot)) => moves[slot].to(batch).0,
                (Standing::At(at), None) => at,
            };
            if item.position <= at {
                continue;
            }
            // Should it not be applied, for whatever reason, it is filled.
            lane.target = lane.target.max(item.position);
            let stopped = slot.is_some_and(|slot| moves[slot].park.is_some());
            let gap = item.previous > at && !breaks(Promise::NoGapFilling);
            if lane.standing == Standing::Unknown || stopped || gap {
                continue;
            }
            let built = lane.built;
            let slot = *slot.get_or_insert_with(|| {
                moves.push(Move::begin(item.shard, at, built));
                moves.len() - 1
            });
            let its = &mut moves[slot];
            let skipped = skipped.contains(&item.event_id);
            match &item.content {
                _ if item.previous < at => {
                    its.park = Some(Park::at(
                        item,
                        format!(
                            "it claims to follow position {}, but position {at} was applied: it is of another history",
                            item.previous
                        ),
                    ));
                }
                Err(reason) if !skipped => its.park = Some(Park::at(item, reason.clone())),
                Ok(content) if !skipped && content.events.iter().any(&concerns) => {
                    its.passes.push(index);
                    its.folds.push(index);
                }
                _ => its.passes.push(index),
            }
        }
        moves
    }

    fn lane(&mut self, projection: usize, shard: Shard) -> &mut Lane {
        &mut self.lanes[projection][shard.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::item;

    const SHARD: i16 = 5;

    struct Given {
        lanes: Lanes,
        history: HistoryId,
        shard: Shard,
    }

    /// One projection whose lane stands there.
    fn given(standing: Standing) -> Given {
        let (history, shard) = (HistoryId::new(), Shard::try_from(SHARD).expect("a shard"));
        let mut lanes = Lanes::new(1, history);
        for other in Shard::all() {
            lanes.set(0, other, Standing::At(0));
        }
        lanes.set(0, shard, standing);
        Given { lanes, history, shard }
    }

    impl Given {
        fn chain(&self, links: &[(Position, Position)]) -> Vec<Item> {
            links.iter().map(|(previous, position)| item(self.history, self.shard, *previous, *position)).collect()
        }

        fn plan(&mut self, batch: &[Item]) -> Vec<Move> {
            self.lanes.plan(0, batch, |_| true, &HashSet::new())
        }

        fn is_behind(&self) -> bool {
            self.lanes.behind().any(|lane| lane == (0, self.shard))
        }
    }

    #[test]
    fn what_links_is_taken_and_what_is_known_is_dropped() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(3, 7), (7, 9), (7, 9), (9, 20)]);
        let moves = given.plan(&batch);
        assert_eq!(moves.len(), 1);
        assert_eq!((moves[0].from, moves[0].to(&batch).0), (7, 20));
        assert_eq!(moves[0].folds, [1, 3]);
    }

    #[test]
    fn a_lane_is_behind_until_what_was_planned_is_committed() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(7, 9)]);
        given.plan(&batch);
        assert!(given.is_behind());
        given.lanes.forget(0, given.shard);
        assert!(given.is_behind());
        given.lanes.set(0, given.shard, Standing::At(9));
        assert!(!given.is_behind());
    }

    #[test]
    fn a_gap_takes_nothing_behind_it_and_aims_the_lane_there() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(7, 9), (12, 13), (13, 14)]);
        let moves = given.plan(&batch);
        assert_eq!((moves[0].passes.as_slice(), moves[0].to(&batch).0), ([0].as_slice(), 9));
        given.lanes.set(0, given.shard, Standing::At(9));
        assert!(given.is_behind());
        given.lanes.set(0, given.shard, Standing::At(14));
        assert!(!given.is_behind());
    }

    #[test]
    fn a_gap_that_the_batch_itself_closes_is_none() {
        let mut given = given(Standing::At(7));
        // From the store first, then what Kafka brought.
        let batch = given.chain(&[(7, 9), (9, 12), (12, 13)]);
        let moves = given.plan(&batch);
        assert_eq!(moves[0].to(&batch).0, 13);
    }

    #[test]
    fn another_line_of_positions_parks() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(5, 9), (9, 10)]);
        let moves = given.plan(&batch);
        let park = moves[0].park.as_ref().expect("it stops");
        assert_eq!((park.position, moves[0].to(&batch)), (9, (7, None)));
        assert!(moves[0].passes.is_empty());
    }

    #[test]
    fn messages_of_another_history_are_dropped() {
        let mut given = given(Standing::At(7));
        let batch = [item(HistoryId::new(), given.shard, 7, 9)];
        assert!(given.plan(&batch).is_empty() && !given.is_behind());
    }

    #[test]
    fn a_lane_of_which_nothing_is_known_takes_nothing() {
        let mut given = given(Standing::Unknown);
        let batch = given.chain(&[(0, 1)]);
        assert!(given.plan(&batch).is_empty() && given.is_behind());
    }

    #[test]
    fn a_parked_lane_stays_and_is_not_behind() {
        let mut given = given(Standing::Parked);
        let batch = given.chain(&[(0, 1)]);
        assert!(given.plan(&batch).is_empty() && !given.is_behind());
    }

    #[test]
    fn what_cannot_be_read_parks_unless_it_is_skipped() {
        let mut given = given(Standing::At(7));
        let mut batch = given.chain(&[(7, 9), (9, 10), (10, 12)]);
        batch[1].content = Err("unknown event tea.made version 1".to_owned());
        let moves = given.plan(&batch);
        assert_eq!(moves[0].to(&batch).0, 9);
        assert_eq!(moves[0].park.as_ref().map(|park| park.position), Some(10));

        let skipped = HashSet::from([batch[1].event_id]);
        let moves = given.lanes.plan(0, &batch, |_| true, &skipped);
        assert_eq!((moves[0].to(&batch).0, &moves[0].folds[..], &moves[0].park), (12, &[0, 2][..], &None));
    }

    #[test]
    fn a_move_is_cut_before_the_event_at_fault() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(7, 9), (9, 10), (10, 12)]);
        let its = given.plan(&batch).remove(0);
        let cut = its.parked_at(1, &batch, "why".to_owned());
        assert_eq!(cut.to(&batch), (9, Some(batch[0].event_id)));
        assert_eq!((cut.folds.as_slice(), cut.park), ([0].as_slice(), Some(Park::at(&batch[1], "why".to_owned()))));
    }

    #[test]
    fn the_rest_of_a_move_goes_on_where_the_first_part_ends() {
        let mut given = given(Standing::At(7));
        let batch = given.chain(&[(7, 9), (9, 10), (10, 12)]);
        let (before, rest) = given.plan(&batch).remove(0).split(1, &batch);
        assert_eq!((before.from, before.to(&batch).0), (7, 9));
        assert_eq!((rest.from, rest.to(&batch).0), (9, 12));
    }
}

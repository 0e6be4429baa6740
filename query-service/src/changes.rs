//! What is known of how the read tables change: the projector's notices, and the checkpoints themselves.
//!
//! A notice is a hint and may be lost, so notices form a chain for each projection and shard: each names the
//! checkpoint before and after. As long as the chain holds, every change up to its end has been noted in the
//! [stamps](Stamps). Where it breaks, or the checkpoint table runs ahead of it, everything of that shard counts as
//! changed.

mod follow;
mod notice;

pub(crate) use follow::follow;
pub(crate) use notice::Notice;

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use events::{HistoryId, Position, Shard};
use platform::sabotage::{Promise, breaks};
use tokio::sync::{
    Notify,
    futures::{Notified, OwnedNotified},
};
use uuid::Uuid;

use crate::{
    cache::{Stamps, Tag},
    checkpoint::Checkpoint,
    projection::{Grid, Projection},
};

/// See the module. One task writes it; everybody reads it.
#[derive(Debug)]
pub(crate) struct Changes {
    /// When what changed.
    pub(crate) stamps: Stamps,
    /// The history that the read tables show; nil until a checkpoint was seen.
    history: ArcSwap<HistoryId>,
    /// Up to where every change is in the stamps.
    noted: Grid<AtomicI64>,
    /// Checkpoints that were seen in the database: lower bounds of where they are now, unless its crash rolled them back.
    seen: Grid<AtomicI64>,
    /// [`Checkpoint::built`], as seen last.
    built: Grid<AtomicI32>,
    wake: Vec<Arc<Notify>>,
    wake_any: Notify,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            stamps: Stamps::new(),
            history: ArcSwap::from_pointee(HistoryId(Uuid::nil())),
            noted: Grid::new(AtomicI64::default),
            seen: Grid::new(AtomicI64::default),
            built: Grid::new(AtomicI32::default),
            wake: Shard::all().map(|_| Arc::default()).collect(),
            wake_any: Notify::new(),
        }
    }

    /// The history that the read tables show; nil until a checkpoint was seen.
    pub(crate) fn history(&self) -> HistoryId {
        **self.history.load()
    }

    /// Up to where every change of these projections in the shard is in the stamps. To be asked *before* the stamps.
    pub(crate) fn noted(&self, projections: &[Projection], shard: Shard) -> Position {
        least(&self.noted, projections, shard)
    }

    /// What these projections have passed in the shard at least.
    pub(crate) fn seen(&self, projections: &[Projection], shard: Shard) -> Position {
        least(&self.seen, projections, shard)
    }

    /// Ends when the next notice of the shard comes in, counted from this call on.
    pub(crate) fn next_notice(&self, shard: Shard) -> OwnedNotified {
        Arc::clone(&self.wake[shard.index()]).notified_owned()
    }

    /// Ends when the next notice of any shard comes in, counted from this call on.
    pub(crate) fn next_notice_anywhere(&self) -> Notified<'_> {
        self.wake_any.notified()
    }

    fn wake(&self, shard: Shard) {
        self.wake[shard.index()].notify_waiters();
        self.wake_any.notify_waiters();
    }

    /// Takes a notice in.
    pub(crate) fn note(&self, notice: &Notice) {
        let Some(projection) = Projection::named(&notice.projection) else { return };
        let Notice { history, shard, before, after, .. } = *notice;
        let noted = self.noted.at(projection, shard);
        let ours = history == self.history();
        let end = noted.load(Ordering::SeqCst);
        if ours && after <= end {
            // Told at once, by a projector of this process; and now by Kafka.
            return;
        }
        if !ours || before > end {
            // Notices are missing, or it is another line of positions, which the checkpoints will tell.
            self.lose(projection, shard);
        } else {
            let things = notice.things().map(|id| Tag::Thing(projection, id));
            let any = (!notice.keys.is_empty()).then_some(Tag::Any(projection));
            self.stamps.touch(things.chain(any));
        }
        if ours {
            noted.fetch_max(after, Ordering::SeqCst);
        }
        self.wake(shard);
    }

    /// Takes in the checkpoint table as it was read just now. Returns the checkpoints that notices lag behind.
    pub(crate) fn see(&self, checkpoints: &[Checkpoint]) -> Vec<Checkpoint> {
        // While tables are rebuilt one by one there are two histories: the old one stands until its last is gone.
        let current = self.history();
        if let Some(first) = checkpoints.first()
            && checkpoints.iter().all(|checkpoint| checkpoint.history != current)
        {
            self.begin(first.history);
        }
        let current = self.history();
        let lag = |checkpoint: &&Checkpoint| {
            let Checkpoint { projection, shard, history, position, built } = **checkpoint;
            if history != current {
                return false;
            }
            let known = self.built.at(projection, shard);
            if known.load(Ordering::SeqCst) != built {
                // Other rows stand at the same position. First that, and then that it is known.
                self.lose(projection, shard);
                known.store(built, Ordering::SeqCst);
            }
            if self.seen.at(projection, shard).fetch_max(position, Ordering::SeqCst) > position {
                self.fall_back(projection, shard, position);
            }
            position > self.noted.at(projection, shard).load(Ordering::SeqCst)
        };
        checkpoints.iter().filter(lag).copied().collect()
    }

    /// Where a projection is known to have been in a shard. A checkpoint that is read from now on is not below it, unless
    /// the read tables went back.
    pub(crate) fn known(&self, projection: Projection, shard: Shard) -> Position {
        let [noted, seen] = [&self.noted, &self.seen].map(|marks| marks.at(projection, shard).load(Ordering::SeqCst));
        // A notice comes after its commit.
        noted.max(seen)
    }

    /// Whether the stamps have every change up to this checkpoint, which was read after it was [known](Self::known) to be
    /// there at least. To be asked *before* the stamps.
    pub(crate) fn told_up_to(&self, checkpoint: &Checkpoint, known: Position) -> bool {
        let Checkpoint { projection, shard, history, position, built } = *checkpoint;
        if history != self.history() {
            return false;
        }
        if position < known {
            self.fall_back(projection, shard, position);
            return false;
        }
        position <= self.noted.at(projection, shard).load(Ordering::SeqCst)
            && built == self.built.at(projection, shard).load(Ordering::SeqCst)
    }

    /// The notices up to this checkpoint did not come, though they had the time: counts everything in its shard as
    /// changed, and the chain goes on from there.
    pub(crate) fn give_up_on(&self, checkpoint: &Checkpoint) {
        let Checkpoint { projection, shard, history, position, .. } = *checkpoint;
        let noted = self.noted.at(projection, shard);
        if history == self.history() && noted.load(Ordering::SeqCst) < position {
            self.lose(projection, shard);
            noted.fetch_max(position, Ordering::SeqCst);
            self.wake(shard);
        }
    }

    /// The read tables were found here, though they had been further: a crash of their database rolled rows and
    /// checkpoints back together. What is known of the shard ends here, and goes on as the projector does.
    pub(crate) fn fall_back(&self, projection: Projection, shard: Shard, position: Position) {
        // The marks first: whoever sees them as they were also sees the stamps of what was loaded meanwhile.
        self.seen.at(projection, shard).fetch_min(position, Ordering::SeqCst);
        self.noted.at(projection, shard).fetch_min(position, Ordering::SeqCst);
        self.lose(projection, shard);
    }

    /// Another history begins: nothing that was known of the one before holds.
    fn begin(&self, history: HistoryId) {
        if !self.history().0.is_nil() {
            tracing::info!(%history, "the read tables show another history");
        }
        for (projection, shard) in everywhere() {
            self.noted.at(projection, shard).store(0, Ordering::SeqCst);
            self.seen.at(projection, shard).store(0, Ordering::SeqCst);
            self.lose(projection, shard);
        }
        // Last: the old history's marks are gone before the new one is looked up by them.
        self.history.store(Arc::new(history));
        Shard::all().for_each(|shard| self.wake(shard));
    }

    fn lose(&self, projection: Projection, shard: Shard) {
        if breaks(Promise::NoticeLost) {
            return;
        }
        self.stamps.touch([Tag::Shard(projection, shard), Tag::Lost(projection), Tag::Any(projection)]);
    }
}

fn everywhere() -> impl Iterator<Item = (Projection, Shard)> {
    Projection::ALL.into_iter().flat_map(|projection| Shard::all().map(move |shard| (projection, shard)))
}

fn least(marks: &Grid<AtomicI64>, projections: &[Projection], shard: Shard) -> Position {
    projections.iter().map(|projection| marks.at(*projection, shard).load(Ordering::SeqCst)).min().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: [Projection; 2] = [Projection::ThreadList, Projection::ThreadPage];

    struct Read {
        changes: Changes,
        history: HistoryId,
    }

    fn shard(number: i16) -> Shard {
        Shard::try_from(number).expect("a shard")
    }

    impl Read {
        /// Both projections stand at 10 in shards 1 and 2.
        fn up_to_10() -> Self {
            let read = Self { changes: Changes::new(), history: HistoryId::new() };
            let checkpoints: Vec<_> =
                VIEW.into_iter().flat_map(|of| [1, 2].map(|number| read.checkpoint(of, number, 10))).collect();
            for behind in read.changes.see(&checkpoints) {
                read.changes.give_up_on(&behind);
            }
            read
        }

        fn checkpoint(&self, projection: Projection, number: i16, position: Position) -> Checkpoint {
            Checkpoint { projection, shard: shard(number), history: self.history, position, built: 0 }
        }

        fn note(&self, projection: Projection, before: Position, after: Position, thing: Uuid) {
            self.changes.note(&Notice {
                history: self.history,
                shard: shard(1),
                projection: projection.name().to_owned(),
                before,
                after,
                keys: vec![format!("thread:{thing}")],
            });
        }
    }

    #[test]
    fn a_chain_of_notices_touches_what_it_names_and_nothing_else() {
        let read = Read::up_to_10();
        let [changed, other] = [Uuid::now_v7(), Uuid::now_v7()];
        let [thing, shard_1] = [Tag::Thing(VIEW[0], changed), Tag::Shard(VIEW[0], shard(1))];
        let born = read.changes.stamps.now();
        read.note(VIEW[0], 10, 12, changed);
        let any = Tag::Any(VIEW[0]);
        assert!(!read.changes.stamps.unchanged_since(born, &[thing]));
        assert!(!read.changes.stamps.unchanged_since(born, &[any]), "lists across communities may show it");
        assert!(read.changes.stamps.unchanged_since(born, &[Tag::Thing(VIEW[0], other), shard_1]));
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 12);
        assert_eq!(read.changes.noted(&VIEW, shard(1)), 10, "the other projection has not moved");
    }

    #[test]
    fn a_missing_notice_touches_the_whole_shard_and_no_other() {
        let read = Read::up_to_10();
        let born = read.changes.stamps.now();
        read.note(VIEW[0], 12, 13, Uuid::now_v7());
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
        assert!(
            read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(2)), Tag::Shard(VIEW[1], shard(1))])
        );
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 13);
    }

    #[test]
    fn a_notice_that_comes_twice_or_late_changes_nothing() {
        let read = Read::up_to_10();
        let changed = Uuid::now_v7();
        read.note(VIEW[0], 10, 12, changed);
        let born = read.changes.stamps.now();
        read.note(VIEW[0], 10, 12, changed);
        read.note(VIEW[0], 8, 11, changed);
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 12);
        let tags = [Tag::Thing(VIEW[0], changed), Tag::Any(VIEW[0]), Tag::Shard(VIEW[0], shard(1))];
        assert!(read.changes.stamps.unchanged_since(born, &tags), "what was loaded since is not loaded again");
    }

    #[test]
    fn a_checkpoint_ahead_of_the_notices_touches_its_shard_once_they_had_their_time() {
        let read = Read::up_to_10();
        let ahead = read.checkpoint(VIEW[0], 1, 20);
        let born = read.changes.stamps.now();
        assert_eq!(read.changes.see(&[ahead]), [ahead]);
        assert!(read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
        read.changes.give_up_on(&ahead);
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 20);
        assert_eq!(read.changes.see(&[ahead]), []);
    }

    #[test]
    fn a_notice_that_came_in_time_is_not_given_up_on() {
        let read = Read::up_to_10();
        let ahead = read.checkpoint(VIEW[0], 1, 12);
        assert_eq!(read.changes.see(&[ahead]).len(), 1);
        let born = read.changes.stamps.now();
        read.note(VIEW[0], 10, 12, Uuid::now_v7());
        read.changes.give_up_on(&ahead);
        assert!(read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
    }

    #[test]
    fn another_history_touches_everything_and_forgets_the_marks() {
        let mut read = Read::up_to_10();
        let born = read.changes.stamps.now();
        let mixed = [
            read.checkpoint(VIEW[0], 1, 10),
            Checkpoint { history: HistoryId::new(), ..read.checkpoint(VIEW[1], 1, 3) },
        ];
        read.changes.see(&mixed);
        assert_eq!(read.changes.history(), read.history, "the old one stands while one table shows it");
        read.history = HistoryId::new();
        let behind = read.changes.see(&[read.checkpoint(VIEW[0], 1, 3)]);
        for checkpoint in &behind {
            read.changes.give_up_on(checkpoint);
        }
        assert_eq!(read.changes.history(), read.history);
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 3);
        assert_eq!(read.changes.seen(&VIEW[..1], shard(2)), 0);
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[1], shard(2))]));
    }

    #[test]
    fn a_checkpoint_that_went_back_takes_the_marks_along() {
        let read = Read::up_to_10();
        let born = read.changes.stamps.now();
        read.changes.see(&[read.checkpoint(VIEW[0], 1, 8)]);
        assert_eq!((read.changes.seen(&VIEW[..1], shard(1)), read.changes.noted(&VIEW[..1], shard(1))), (8, 8));
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
        assert_eq!(read.changes.seen(&VIEW[1..], shard(1)), 10, "the other projection stands where it stood");
        read.note(VIEW[0], 8, 9, Uuid::now_v7());
        assert_eq!(read.changes.noted(&VIEW[..1], shard(1)), 9);
    }

    #[test]
    fn rows_that_a_rebuild_replaced_count_as_changed_where_nothing_moved() {
        let read = Read::up_to_10();
        let born = read.changes.stamps.now();
        let rebuilt = Checkpoint { built: 1, ..read.checkpoint(VIEW[0], 1, 10) };
        assert_eq!(read.changes.see(&[rebuilt]), []);
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]));
        let later = read.changes.stamps.now();
        read.changes.see(&[rebuilt]);
        assert!(read.changes.stamps.unchanged_since(later, &[Tag::Shard(VIEW[0], shard(1))]));
    }

    #[test]
    fn a_checkpoint_is_told_up_to_where_the_notices_have_come_of_the_same_rows() {
        let read = Read::up_to_10();
        let told = |checkpoint| {
            let known = read.changes.known(VIEW[0], shard(1));
            read.changes.told_up_to(&checkpoint, known)
        };
        assert!(told(read.checkpoint(VIEW[0], 1, 10)));
        assert!(!told(read.checkpoint(VIEW[0], 1, 11)), "its notice is still on its way");
        assert!(!told(Checkpoint { built: 1, ..read.checkpoint(VIEW[0], 1, 10) }), "rows were replaced");
        assert!(!told(Checkpoint { history: HistoryId::new(), ..read.checkpoint(VIEW[0], 1, 10) }));
        read.note(VIEW[0], 10, 12, Uuid::now_v7());
        assert!(told(read.checkpoint(VIEW[0], 1, 12)));
        // Never seen in the table, but told of: and then it went back.
        let born = read.changes.stamps.now();
        assert!(!told(read.checkpoint(VIEW[0], 1, 11)));
        assert!(!read.changes.stamps.unchanged_since(born, &[Tag::Shard(VIEW[0], shard(1))]), "nothing of it counts");
        assert!(told(read.checkpoint(VIEW[0], 1, 11)), "and from there it goes on");
    }

    #[tokio::test]
    async fn a_notice_wakes_who_waits_for_its_shard() {
        let read = Read::up_to_10();
        let woken = read.changes.next_notice(shard(1));
        read.note(VIEW[0], 10, 11, Uuid::now_v7());
        woken.await;
    }
}

//! Taking turns on streams that several want to write at once.
//!
//! Where nobody is in the way, a command is decided on what is cached and appended at once. One that found a stream
//! moved under it takes a turn: it locks all that it read and wrote, alone where it wrote, and decides again. Whoever
//! is about to write a stream for which others wait does the same. So within one process each comes to its end, in the
//! order in which they came; a lock promises nothing to other processes, and what is appended is checked all the same.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use events::Stream;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What an attempt did with each stream.
pub(super) type Concerns = BTreeMap<Stream, Use>;

/// What an attempt does with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Reads,
    Writes,
}

/// The locks of the streams for which somebody waits, or that somebody holds: as many as commands under way concern,
/// and none else. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<Mutex<HashMap<Stream, Arc<RwLock<()>>>>>);

/// The streams are one's own until this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    held: Concerns,
    guards: Vec<Guard>,
}

/// Held, not read.
enum Guard {
    Shared(#[allow(dead_code, reason = "held")] OwnedRwLockReadGuard<()>),
    Alone(#[allow(dead_code, reason = "held")] OwnedRwLockWriteGuard<()>),
}

impl Turns {
    /// Waits for the streams: in their order, so that no two wait for each other, and behind whoever came before.
    pub(super) async fn take(&self, concerns: Concerns) -> Turn<'_> {
        let mut turn = Turn { turns: self, held: Concerns::new(), guards: Vec::new() };
        for (stream, purpose) in concerns {
            let lock = Arc::clone(self.locks().entry(stream.clone()).or_default());
            turn.held.insert(stream, purpose);
            turn.guards.push(match purpose {
                Use::Reads => Guard::Shared(lock.read_owned().await),
                Use::Writes => Guard::Alone(lock.write_owned().await),
            });
        }
        turn
    }

    /// Whether others wait for, or have their turn on, a stream that one is about to write.
    pub(super) fn are_others_on<'s>(
        &self,
        mut written: impl Iterator<Item = &'s Stream>,
        own: Option<&Turn<'_>>,
    ) -> bool {
        let locks = self.locks();
        let is_own = |stream| own.is_some_and(|turn| turn.held.get(stream) == Some(&Use::Writes));
        !locks.is_empty() && written.any(|stream| locks.contains_key(stream) && !is_own(stream))
    }

    fn locks(&self) -> MutexGuard<'_, HashMap<Stream, Arc<RwLock<()>>>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether it is enough for an attempt that does this.
    pub(super) fn covers(&self, concerns: &Concerns) -> bool {
        concerns
            .iter()
            .all(|(stream, purpose)| self.held.get(stream).is_some_and(|held| held == purpose || *held == Use::Writes))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.guards.clear();
        let mut locks = self.turns.locks();
        for stream in self.held.keys() {
            // Clones are made under the same lock: the last one is nobody's but the map's.
            if locks.get(stream).is_some_and(|lock| Arc::strong_count(lock) == 1) {
                locks.remove(stream);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use events::ThreadId;
    use futures::{FutureExt as _, poll};

    use super::*;

    fn concerns(streams: &[(&Stream, Use)]) -> Concerns {
        streams.iter().map(|(stream, purpose)| ((*stream).clone(), *purpose)).collect()
    }

    #[tokio::test]
    async fn readers_share_a_stream_and_a_writer_has_it_alone_in_the_order_they_came() {
        let (turns, stream) = (Turns::default(), Stream::thread(ThreadId::new()));
        let (reads, writes) = (concerns(&[(&stream, Use::Reads)]), concerns(&[(&stream, Use::Writes)]));
        assert!(!turns.are_others_on([&stream].into_iter(), None));
        let (one, other) = (turns.take(reads.clone()).await, turns.take(reads.clone()).await);
        let mut writer = Box::pin(turns.take(writes.clone()));
        let mut late = Box::pin(turns.take(reads.clone()));
        assert!(poll!(&mut writer).is_pending() && poll!(&mut late).is_pending());
        assert!(turns.are_others_on([&stream].into_iter(), Some(&one)));
        drop((one, other));
        let writer = writer.now_or_never().expect("its turn");
        assert!(!turns.are_others_on([&stream].into_iter(), Some(&writer)));
        assert!(writer.covers(&reads) && writer.covers(&writes));
        assert!(poll!(&mut late).is_pending());
        drop(writer);
        assert!(late.now_or_never().is_some());
        assert!(turns.locks().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_left_of_whoever_gave_up() {
        let (turns, streams) = (Turns::default(), [(); 2].map(|()| Stream::thread(ThreadId::new())));
        let both = concerns(&[(&streams[0], Use::Writes), (&streams[1], Use::Reads)]);
        let first = turns.take(both.clone()).await;
        let mut second = Box::pin(turns.take(both.clone()));
        let mut third = Box::pin(turns.take(both.clone()));
        assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
        drop(second);
        drop(first);
        assert!(turns.are_others_on(streams.iter(), None), "the third has its turn now");
        assert!(third.now_or_never().is_some());
        assert!(turns.locks().is_empty());
    }
}

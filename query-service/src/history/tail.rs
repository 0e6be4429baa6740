//! The end of the store as it grows, read once for all streams of the process.

use std::{convert::Infallible, mem, sync::Arc, time::Duration};

use events::{Delivered, HistoryId, Position};
use platform::problem::Chain;
use store_reader::{Heads, Read, StoreReader, Unreadable};
use tokio::{
    sync::{Notify, broadcast},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;

/// Batches that are kept for streams that are behind. One that is further behind reads from the store itself.
const BATCHES: usize = 64;
/// Bytes of payload in a batch, where they are not one event's alone: with [`BATCHES`], 4 MiB, and 20 of the longest
/// events.
const BATCH_BYTES: usize = 64 * 1024;
/// Events read at once.
const READ: u32 = 500;
/// How long to wait after a read that found something: what is written at the same time is read together.
const GATHER: Duration = Duration::from_millis(10);
/// How often it is looked where no notice wakes: they may be lost, or Kafka away.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long to wait where the store does not answer.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What follows a position, and all of it up to another.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) line: HistoryId,
    pub(super) after: Position,
    pub(super) through: Position,
    pub(super) events: Vec<Result<Delivered, Unreadable>>,
}

/// Where streams hear what is new.
pub(super) struct Tail {
    batches: broadcast::Sender<Arc<Batch>>,
    listening: Notify,
}

impl Tail {
    pub(super) fn new() -> Self {
        Self { batches: broadcast::Sender::new(BATCHES), listening: Notify::new() }
    }

    /// What is new from about now on. The first batch says where that begins.
    pub(super) fn listen(&self) -> broadcast::Receiver<Arc<Batch>> {
        let batches = self.batches.subscribe();
        self.listening.notify_one();
        batches
    }

    fn is_heard(&self) -> bool {
        self.batches.receiver_count() > 0
    }

    fn send(&self, batch: Batch) {
        // Nobody listens any more.
        let _ = self.batches.send(Arc::new(batch));
    }
}

/// Reads the end of the store until shutdown, while anybody listens.
pub(super) async fn follow(tail: Arc<Tail>, store: StoreReader, changes: Arc<Changes>, shutdown: CancellationToken) {
    let following = async {
        let mut away = false;
        loop {
            if !tail.is_heard() {
                tail.listening.notified().await;
            }
            match tail.follow_store(&store, &changes, &mut away).await {
                Ok(()) => {}
                Err(error) => {
                    if !mem::replace(&mut away, true) {
                        tracing::warn!(cause = %Chain(&error), "cannot read the event store for streams; trying again");
                    }
                    sleep(TRY_AGAIN_AFTER).await;
                }
            }
        }
    };
    let _: Option<Infallible> = shutdown.run_until_cancelled(following).await;
}

impl Tail {
    /// From the store's end on, until nobody listens or the store is another.
    async fn follow_store(&self, store: &StoreReader, changes: &Changes, away: &mut bool) -> sqlx::Result<()> {
        let (line, mut position) = store.standing().await?;
        let mut heads = store.heads_at(position).await?;
        *away = false;
        self.send(Batch { line, after: position, through: position, events: Vec::new() });
        while self.is_heard() {
            let woken = changes.next_notice_anywhere();
            let (now, head) = store.standing().await?;
            if now != line {
                // Whoever hears of another line is told so by the first batch of it.
                return Ok(());
            }
            if head > position {
                let read = store.after(position, READ).await?;
                position = self.hand_on(read, (line, position), &mut heads);
                sleep(GATHER).await;
            } else {
                // Whichever comes first.
                let _ = timeout(LOOK_EVERY, woken).await;
            }
        }
        Ok(())
    }

    /// In batches; answers how far they reach.
    fn hand_on(&self, read: Read, (line, after): (HistoryId, Position), heads: &mut Heads) -> Position {
        let batch = |after| Batch { line, after, through: after, events: Vec::new() };
        let (mut next, mut bytes) = (batch(after), 0);
        for event in read.events {
            let (shard, position) = match &event {
                Ok(envelope) => (envelope.shard, envelope.position),
                Err(unreadable) => (unreadable.shard, unreadable.position),
            };
            let previous = heads.go_on(shard, position);
            bytes += event.as_ref().map_or(0, |envelope| envelope.payload.get().len());
            next.through = position;
            next.events.push(event.map(|envelope| Delivered { envelope, previous, history: line }));
            if bytes >= BATCH_BYTES {
                self.send(mem::replace(&mut next, batch(position)));
                bytes = 0;
            }
        }
        let through = next.through;
        if !next.events.is_empty() {
            self.send(next);
        }
        through
    }
}

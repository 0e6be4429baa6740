//! Events from the store, dealt to those who fold them.

use anyhow::bail;
use events::{Position, Shard};
use store_reader::{CopyError, StoreReader, Unreadable};
use tokio::sync::mpsc;

use crate::batch::Item;

/// Events dealt at once: rows are loaded and written so much less often than live. Of each group of shards, three such
/// hands are in memory.
const MOST_EVENTS: usize = 4_000;
/// Bytes of payload after which no more are added.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Events that are read by one statement: a longer one would keep vacuum from all that is updated meanwhile.
const READ_AT_ONCE: usize = 50_000;

/// A shard, the position behind which its events are read, and that up to which they are.
pub(super) type Span = (Shard, Position, Position);

/// Deals the events of these shards, one shard after the other, as long as somebody takes them.
pub(super) async fn deal(store: StoreReader, spans: Vec<Span>, to: mpsc::Sender<Vec<Item>>) -> anyhow::Result<()> {
    let history = store.history().await?;
    let (mut hand, mut bytes) = (Vec::new(), 0);
    for (shard, mut at, through) in spans {
        while at < through {
            let (before, mut copy) = (at, store.copy_shard(shard, at, through, READ_AT_ONCE).await?);
            loop {
                let item: Item = match copy.next().await {
                    Ok(Some(delivered)) => delivered.into(),
                    Ok(None) => break,
                    Err(CopyError::Unreadable(Unreadable { event_id, position, reason, .. })) => {
                        Item { event_id, shard, position, previous: at, history, content: Err(reason) }
                    }
                    Err(CopyError::Database(error)) => return Err(error.into()),
                };
                at = item.position;
                bytes += item.content.as_ref().map_or(0, |content| content.envelope.payload.get().len());
                hand.push(item);
                if hand.len() >= MOST_EVENTS || bytes >= MOST_BYTES {
                    bytes = 0;
                    if to.send(std::mem::take(&mut hand)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            if at == before {
                bail!("the event store has nothing behind position {at} of shard {shard}, where it had more before");
            }
        }
    }
    // Where nobody takes them any more, they know why.
    let _ = to.send(hand).await;
    Ok(())
}

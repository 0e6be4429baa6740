//! What the projector publishes after each commit.

use events::{HistoryId, Position, Shard};
use serde::Deserialize;
use uuid::Uuid;

/// One projection moved on in one shard. Fields that a newer projector may add are passed by.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Notice {
    pub(crate) history: HistoryId,
    pub(crate) shard: Shard,
    /// The projection's name: a newer release may have others.
    pub(crate) projection: String,
    /// Its checkpoint before.
    pub(crate) before: Position,
    /// Its checkpoint now.
    pub(crate) after: Position,
    /// What changed: `<kind>:<id>`.
    pub(crate) keys: Vec<String>,
}

/// What a message holds: the notices of a batch; of an older projector, a single one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    OfBatch(Vec<Notice>),
    Single(Notice),
}

impl Notice {
    /// The notices of a message.
    pub(crate) fn read(message: &[u8]) -> serde_json::Result<Vec<Self>> {
        Ok(match serde_json::from_slice(message)? {
            Message::OfBatch(notices) => notices,
            Message::Single(notice) => vec![notice],
        })
    }

    /// The ids of what changed. A key of a kind that is not named by an id tells us nothing that we cache by.
    pub(crate) fn things(&self) -> impl Iterator<Item = Uuid> {
        self.keys.iter().filter_map(|key| key.split_once(':')?.1.parse().ok())
    }
}

//! What an export says of itself: `_manifest.json`, which readers of Parquet pass over for its first letter.

use anyhow::{Context as _, bail};
use events::{EventId, HistoryId, Position};
use serde::{Deserialize, Serialize};
use store_reader::StoreReader;

use super::Target;
use crate::history::seen::{Seen, is_of};

const PATH: &str = "_manifest.json";
/// The layout of files and columns. Another one is another directory.
const FORMAT: u32 = 1;

/// How far an export is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// The line of positions.
    history: HistoryId,
    /// All events up to here are in files.
    through: Position,
    /// The event that the store had there. It was not noted always, and is not at 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<EventId>,
    /// Where the segment ends whose files are being written: of a run that was interrupted, some may be there. Before the
    /// events below were noted it was where the run would have ended.
    target: Position,
    /// The event that the store had there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_event: Option<EventId>,
}

impl Manifest {
    /// That of the target; a new one where the target is empty.
    ///
    /// # Errors
    /// Where the target is no export of this store.
    pub(super) async fn of(target: &Target, store: &StoreReader) -> anyhow::Result<Self> {
        let history = store.history().await?;
        let Some(text) = target.get(PATH).await? else {
            if !target.is_empty().await? {
                bail!("{target} is not empty, and holds no export: take another place");
            }
            return Ok(Self { format: FORMAT, history, through: 0, event: None, target: 0, target_event: None });
        };
        let manifest: Self =
            serde_json::from_slice(&text).with_context(|| format!("{PATH} in {target} is none of this release"))?;
        if manifest.format != FORMAT {
            bail!("{target} has format {}, this release writes {FORMAT}: take another place", manifest.format);
        }
        if manifest.history != history {
            bail!("{target} holds another history: the event store was restored or replaced since. Take another place");
        }
        let seen = [(manifest.through, manifest.event), (manifest.target, manifest.target_event)];
        let seen = seen.into_iter().filter_map(|(position, event)| event.map(|event| Seen { position, event }));
        let reaches = manifest.through.max(manifest.target);
        is_of(store, &target.to_string(), reaches, &seen.collect::<Vec<_>>()).await?;
        Ok(manifest)
    }

    /// All events up to here are in files.
    pub(super) fn through(&self) -> Position {
        self.through
    }

    /// Where a run ends that was interrupted, and may have written files beyond what it said is there.
    pub(super) fn unfinished(&self) -> Option<Position> {
        Some(self.target).filter(|target| *target > self.through)
    }

    /// Whether that is where its segment ends; else the run may have had several.
    pub(super) fn unfinished_is_a_segment(&self) -> bool {
        self.target_event.is_some()
    }

    /// Notes where the segment ends whose files are written next. One that ends there already is written again.
    pub(super) fn begin(&mut self, end: Position, last: Option<Seen>) {
        (self.target, self.target_event) = (end, last.map(|seen| seen.event));
    }

    /// Its files are there.
    pub(super) fn end(&mut self) {
        (self.through, self.event) = (self.target, self.target_event);
    }

    pub(super) async fn save(&self, target: &Target) -> anyhow::Result<()> {
        target.put(PATH, (serde_json::to_string(self)? + "\n").into_bytes()).await
    }
}

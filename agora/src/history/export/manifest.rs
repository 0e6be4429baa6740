//! What an export says of itself: `_manifest.json`, which readers of Parquet pass over for its first letter.

use anyhow::{Context as _, bail};
use events::{HistoryId, Position};
use serde::{Deserialize, Serialize};

use super::Target;

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
    pub(super) through: Position,
    /// Where the last run ends, or would have.
    pub(super) target: Position,
}

impl Manifest {
    /// That of the target; a new one where the target is empty.
    pub(super) async fn of(target: &Target, history: HistoryId) -> anyhow::Result<Self> {
        let Some(text) = target.get(PATH).await? else {
            if !target.is_empty().await? {
                bail!("{target} is not empty, and holds no export: take another place");
            }
            return Ok(Self { format: FORMAT, history, through: 0, target: 0 });
        };
        let manifest: Self =
            serde_json::from_slice(&text).with_context(|| format!("{PATH} in {target} is none of this release"))?;
        if manifest.format != FORMAT {
            bail!("{target} has format {}, this release writes {FORMAT}: take another place", manifest.format);
        }
        if manifest.history != history {
            bail!("{target} holds another history ({}): take another place", manifest.history);
        }
        Ok(manifest)
    }

    pub(super) async fn save(&self, target: &Target) -> anyhow::Result<()> {
        target.put(PATH, (serde_json::to_string(self)? + "\n").into_bytes()).await
    }
}

//! The history as Parquet: a file for each month and type of event, in a directory or in S3, added to from run to run.
//!
//! A run writes segment by segment. A segment ends where its events fill memory, or the run ends: only the events, and
//! where the segment and the run begin and end, say what is in a file and what it is called. Once all files of a
//! segment are there, the manifest says so. A run that was interrupted is ended first, over the same range, so that what
//! it may have written already is written again, byte for byte.

mod manifest;
mod table;
mod target;

use std::collections::BTreeMap;

use events::{DecodeError, Delivered, Envelope, Position};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::Connection as _;
use store_reader::{Filter, StoreReader};

use super::{Blocks, Part, topic::Messages};
use crate::terminal::{Progress, Unit, count};
use manifest::Manifest;
use table::Table;
pub use target::Target;

/// Bytes of a segment's events: what is held in memory at least, with as much again while it is written. Larger
/// segments would make fewer and larger files.
pub const SEGMENT_BYTES: usize = 128 * 1024 * 1024;

/// Files of a segment that are written at a time: while one waits for the disk or S3, others are encoded.
const FILES_AT_ONCE: usize = 4;

/// What a run has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Events written, those of an interrupted run among them.
    pub events: u64,
    /// Files written.
    pub files: u64,
    /// Events that nobody can read and every reader leaves out, met on the way.
    pub left_out: u64,
    /// The target has all events up to here.
    pub through: Position,
}

/// A file in the making: the month it was recorded in, and its name.
type Key = (String, String);

/// Brings the target up to a position; up to the last event of now where none is said. A segment ends once it has
/// `segment_bytes`, which is [`SEGMENT_BYTES`] but in tests.
///
/// # Errors
/// Where another run is at this target, it is no export of this history, cannot be written, or an event cannot be read.
pub async fn export(
    store: &StoreReader,
    target: &Target,
    to: Option<Position>,
    segment_bytes: usize,
) -> anyhow::Result<Exported> {
    // For as long as its connection lasts.
    let mut lock = store.pool().acquire().await?.detach();
    let free = "select pg_try_advisory_lock(hashtextextended('export to ' || $1, 0))";
    let free: bool = sqlx::query_scalar(free).bind(target.place()).fetch_one(&mut lock).await?;
    anyhow::ensure!(free, "another export to {target} is running: one at a time");
    let (history, head) = (store.history().await?, store.head().await?);
    let mut manifest = Manifest::of(target, history).await?;
    let to = to.unwrap_or(head);
    anyhow::ensure!(to <= head, "--through: there is no position {to} yet: the event store is at {head}");
    let mut exported = Exported { through: manifest.through, ..Exported::default() };
    for end in [manifest.target, to] {
        if end <= manifest.through {
            continue;
        }
        manifest.target = end;
        manifest.save(target).await?;
        let part = Part { after: manifest.through, through: end, filter: Filter::default(), history };
        let mut run = Run { target, manifest, segment: Segment::default(), exported, segment_bytes };
        run.through(store, part).await?;
        (manifest, exported) = (run.manifest, run.exported);
    }
    lock.close().await?;
    Ok(exported)
}

struct Run<'a> {
    target: &'a Target,
    manifest: Manifest,
    segment: Segment,
    exported: Exported,
    segment_bytes: usize,
}

/// Events that are not written yet.
#[derive(Default)]
struct Segment {
    files: BTreeMap<Key, Table>,
    bytes: usize,
    events: u64,
}

impl Run<'_> {
    async fn through(&mut self, store: &StoreReader, part: Part) -> anyhow::Result<()> {
        let progress = Progress::start("exporting", part.positions(), Unit::Things("positions"));
        let (mut at, end) = (part.after, part.through);
        let mut blocks = Blocks::<Messages>::of(store.clone(), part);
        while let Some(block) = blocks.next().await? {
            self.exported.left_out += block.left_out;
            for Delivered { envelope, .. } in block.gathered.events {
                self.segment.add(&envelope)?;
                if self.segment.bytes >= self.segment_bytes && envelope.position < end {
                    self.write(envelope.position).await?;
                }
            }
            progress.note(format!("{} files, at position {}", count(self.exported.files), block.through));
            progress.add(u64::try_from(block.through - at).unwrap_or(0));
            at = block.through;
        }
        self.write(end).await
    }

    /// Writes the segment, which reaches up to a position, and then says that it is there.
    async fn write(&mut self, through: Position) -> anyhow::Result<()> {
        let Segment { files, events, .. } = std::mem::take(&mut self.segment);
        self.exported.files += files.len() as u64;
        let (target, first) = (self.target, self.manifest.through + 1);
        let write = |((month, name), table): (Key, Table)| async move {
            // Positions of a length, so that names sort as positions do.
            let path = format!("month={month}/type={name}/{first:012}-{through:012}.parquet");
            let bytes = tokio::task::spawn_blocking(move || table.finish()).await??;
            target.put(&path, bytes).await
        };
        stream::iter(files).map(Ok).try_for_each_concurrent(FILES_AT_ONCE, write).await?;
        self.manifest.through = through;
        self.manifest.save(self.target).await?;
        self.exported.events += events;
        self.exported.through = through;
        Ok(())
    }
}

impl Segment {
    fn add(&mut self, event: &Envelope) -> Result<(), DecodeError> {
        let month = event.recorded_at.format("%Y-%m").to_string();
        for newest in event.newest()? {
            let file = self.files.entry((month.clone(), newest.name.to_owned())).or_default();
            self.bytes += file.add(event, &newest);
        }
        self.events += 1;
        Ok(())
    }
}

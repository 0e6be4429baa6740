//! The history as Parquet: a file for each month and type of event, in a directory or in S3, added to from run to run.
//!
//! A run writes segment by segment. A segment ends where it has enough events, in front of an event that nobody can
//! read, or with the run: only its events, and where it begins and ends, say what is in a file and what it is called. The
//! manifest says where a segment ends before any file of it is written, and that it is there once all are. One that was
//! interrupted is written first, over the same range: the files of it that are there already are written again, byte for byte.

mod manifest;
mod table;
mod target;

use std::collections::BTreeMap;

use anyhow::Context as _;
use chrono::Datelike as _;
use events::{Delivered, Envelope, Position};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use store_reader::{Filter, StoreReader, Unreadable};

use super::{Blocks, Part, alone::Alone, seen::Seen, topic::Messages};
use crate::terminal::{Progress, Unit, count};
use manifest::Manifest;
use table::Table;
pub use target::Target;

/// Bytes of a segment's events, which are held in memory: a part of them as they are, the others encoded. Larger segments
/// would make fewer and larger files.
pub const SEGMENT_BYTES: usize = 128 * 1024 * 1024;

/// Of a segment's bytes, the part that fills a row group: those of a file are encoded while the next are gathered.
const GROUPS: usize = 16;

/// Files of a segment that are written at a time: while one waits for the disk or S3, others are encoded.
const FILES_AT_ONCE: usize = 4;

/// What a run has done.
#[derive(Debug, Default)]
pub struct Exported {
    /// Events written, those of an interrupted run among them.
    pub events: u64,
    /// Files written.
    pub files: u64,
    /// Events that nobody can read and every reader leaves out, met on the way.
    pub left_out: u64,
    /// The target has all events up to here.
    pub through: Position,
    /// Up to here reached a run that was interrupted, which was ended first.
    pub ended_first: Option<Position>,
    /// The event that it stopped in front of.
    pub stopped: Option<Unreadable>,
}

/// A file in the making: the year and month that its events were recorded in, and their name.
type Key = (i32, u32, String);

/// Brings the target up to a position; up to the last event of now where none is said. A segment ends once it has
/// `segment_bytes`, which is [`SEGMENT_BYTES`] but in tests.
///
/// # Errors
/// Where another run is at this target, it is no export of this store, cannot be written, or an event cannot be read in
/// the middle of what an interrupted run may have written.
pub async fn export(
    store: &StoreReader,
    target: &Target,
    to: Option<Position>,
    segment_bytes: usize,
) -> anyhow::Result<Exported> {
    let _alone = Alone::at(store, &format!("export to {}", target.place())).await?;
    let manifest = Manifest::of(target, store).await?;
    let head = store.head().await?;
    let to = to.unwrap_or(head);
    anyhow::ensure!(to <= head, "--through: there is no position {to} yet: the event store is at {head}");
    let exported = Exported { through: manifest.through(), ..Exported::default() };
    let group_bytes = segment_bytes / GROUPS;
    let mut run = Run { store, target, manifest, segment: Segment::default(), exported, segment_bytes, group_bytes };
    if let Some(end) = run.manifest.unfinished() {
        run.end_interrupted(end).await?;
    }
    if to > run.manifest.through() {
        run.exported.stopped = run.through(to).await?;
    }
    if let Some(stop) = &run.exported.stopped
        && stop.position - 1 > run.manifest.through()
    {
        run.write(stop.position - 1).await?;
    }
    Ok(run.exported)
}

struct Run<'a> {
    store: &'a StoreReader,
    target: &'a Target,
    manifest: Manifest,
    segment: Segment,
    exported: Exported,
    segment_bytes: usize,
    group_bytes: usize,
}

/// Events that are not written yet.
#[derive(Default)]
struct Segment {
    files: BTreeMap<Key, Table>,
    bytes: usize,
    events: u64,
}

impl Run<'_> {
    /// Writes again what an interrupted run may have written, whatever this one is asked for.
    async fn end_interrupted(&mut self, end: Position) -> anyhow::Result<()> {
        let segment_bytes = self.segment_bytes;
        if self.manifest.unfinished_is_a_segment() {
            // However much another release takes a segment to be.
            self.segment_bytes = usize::MAX;
        }
        if let Some(stop) = self.through(end).await? {
            let why =
                format!("a run that was interrupted may have written files up to position {end}: it is ended first");
            return Err(stop).context(why);
        }
        self.segment_bytes = segment_bytes;
        self.exported.ended_first = Some(end);
        Ok(())
    }

    /// Writes all up to a position; or all segments in front of an event that nobody can read, which is returned, but the
    /// last one.
    async fn through(&mut self, end: Position) -> anyhow::Result<Option<Unreadable>> {
        let (mut at, history) = (self.manifest.through(), self.store.history().await?);
        let part = Part { after: at, through: end, filter: Filter::default(), history };
        let progress = Progress::start("exporting", part.positions(), Unit::Things("positions"));
        let mut blocks = Blocks::<Messages>::of(self.store.clone(), part);
        loop {
            let block = match blocks.next().await {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => return error.downcast().map(Some),
            };
            self.exported.left_out += block.left_out;
            for Delivered { envelope, .. } in block.gathered.events {
                self.segment.add(&envelope, self.group_bytes).await?;
                if self.segment.bytes >= self.segment_bytes && envelope.position < end {
                    self.write(envelope.position).await?;
                }
            }
            progress.note(format!("{} files, at position {}", count(self.exported.files), block.through));
            progress.add(u64::try_from(block.through - at).unwrap_or(0));
            at = block.through;
        }
        self.write(end).await?;
        Ok(None)
    }

    /// Writes the segment, which reaches up to a position: says that it will, and then that it is there.
    async fn write(&mut self, through: Position) -> anyhow::Result<()> {
        let first = self.manifest.through() + 1;
        self.manifest.begin(through, Seen::at(self.store, through).await?);
        self.manifest.save(self.target).await?;
        let Segment { files, events, .. } = std::mem::take(&mut self.segment);
        self.exported.files += files.len() as u64;
        let target = self.target;
        let write = |((year, month, name), table): (Key, Table)| async move {
            // Positions of a length, so that names sort as positions do.
            let path = format!("month={year:04}-{month:02}/type={name}/{first:012}-{through:012}.parquet");
            target.put(&path, table.finish().await?).await
        };
        stream::iter(files).map(Ok).try_for_each_concurrent(FILES_AT_ONCE, write).await?;
        self.manifest.end();
        self.manifest.save(self.target).await?;
        self.exported.events += events;
        self.exported.through = through;
        Ok(())
    }
}

impl Segment {
    async fn add(&mut self, event: &Envelope, group_bytes: usize) -> anyhow::Result<()> {
        let (year, month) = (event.recorded_at.year(), event.recorded_at.month());
        for newest in event.newest()? {
            let file = self.files.entry((year, month, newest.name.to_owned())).or_default();
            self.bytes += file.add(event, &newest);
            if file.waiting() >= group_bytes {
                file.encode().await?;
            }
        }
        self.events += 1;
        Ok(())
    }
}

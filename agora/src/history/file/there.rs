//! What a file of lines has, whatever ended who wrote it: its own lines say so.
//!
//! What its progress says is on disk. Behind that are lines of which nobody knows, when their writer was killed, the disk was
//! full, or the machine went down: they count as far as they are whole, and follow one another.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
};

use anyhow::{anyhow, ensure};
use events::{EventId, HistoryId, Position};
use serde::Deserialize;

use super::Progress;
use crate::history::seen::Seen;

/// Bytes of a line at most: a payload has 256 KiB, and what is escaped in it twice as many.
const LINE_BYTES: u64 = 1024 * 1024;
/// How each line begins.
const BEGINS: &[u8] = br#"{"specversion":"1.0","id":""#;
/// Characters of an event's id. What an old event says besides is a line of its own, with `.2` behind it.
const ID_CHARS: usize = 36;

/// What it has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct There {
    /// So many bytes are lines of it.
    pub(super) bytes: u64,
    /// They reach up to here.
    pub(super) position: Position,
    /// Events that the store has to have, where it is the one that they are of.
    pub(super) events: Vec<Seen>,
}

#[derive(Deserialize)]
struct Line<'a> {
    id: &'a str,
    position: &'a str,
    history: HistoryId,
}

impl There {
    /// Looks at what is known, and on from there.
    ///
    /// # Errors
    /// Where it has something else than such lines.
    pub(super) fn look(file: &mut File, known: &Progress) -> anyhow::Result<Self> {
        let history = known.question.history;
        let event = known.event.map(|event| Seen { position: known.position, event });
        let mut there = Self { bytes: known.bytes, position: known.position, events: event.into_iter().collect() };
        if known.bytes > 0 {
            let last = last_line(file, known.bytes)?;
            let last = event_of(&last, history).filter(|last| last.position <= known.position);
            let last =
                last.ok_or_else(|| anyhow!("before byte {} it has something that no replay has written", known.bytes))?;
            there.events.push(last);
        }
        file.seek(SeekFrom::Start(known.bytes))?;
        // Of the last event another line may be missing: it is written again.
        if let Some((begins, last)) = last_event(file, known)? {
            (there.bytes, there.position) = (begins, last.position - 1);
            there.events.push(last);
        }
        Ok(there)
    }
}

/// The last event behind what is known, and where its first line begins.
fn last_event(file: &File, known: &Progress) -> anyhow::Result<Option<(u64, Seen)>> {
    let (mut reader, mut line, mut at) = (BufReader::new(file), Vec::new(), known.bytes);
    let mut last: Option<(u64, Seen)> = None;
    loop {
        line.clear();
        let bytes = reader.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line)?;
        let before = last.map_or(known.position + 1, |(_, before)| before.position);
        match event_of(&line, known.question.history).filter(|event| event.position >= before) {
            Some(event) if last.is_none_or(|(_, last)| last.position < event.position) => last = Some((at, event)),
            Some(_) => {}
            None => {
                ensure!(may_be_ours(&line), "behind byte {at} it has something that no replay has written");
                return Ok(last);
            }
        }
        at += bytes as u64;
    }
}

/// The line that ends with a byte.
fn last_line(file: &mut File, end: u64) -> anyhow::Result<Vec<u8>> {
    let begin = end.saturating_sub(LINE_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.take(end - begin).read_to_end(&mut bytes)?;
    let before = bytes.strip_suffix(b"\n").and_then(|lines| lines.iter().rposition(|byte| *byte == b'\n'));
    Ok(bytes.split_off(before.map_or(0, |at| at + 1)))
}

/// Which event a whole line tells.
fn event_of(line: &[u8], history: HistoryId) -> Option<Seen> {
    let line: Line<'_> = serde_json::from_slice(line.strip_suffix(b"\n")?).ok()?;
    let event: EventId = line.id.get(..ID_CHARS)?.parse().ok()?;
    let position = line.position.parse().ok()?;
    (line.history == history).then_some(Seen { position, event })
}

/// Whether it may be what is left of a line of ours: its beginning, or the zeros that a file system has for what did not
/// reach the disk.
fn may_be_ours(line: &[u8]) -> bool {
    let begins = BEGINS.len().min(line.len());
    line[..begins] == BEGINS[..begins] || line[0] == 0
}

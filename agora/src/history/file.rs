//! A file of lines that can be continued, whatever ended its writer.
//!
//! Beside it, `<file>.progress` says which question its lines answer, how many of its bytes are on disk, and how far
//! they reach. What the file has behind those bytes was being written when the writer ended: whole lines of it count
//! ([`there`]), and the rest (half a line, perhaps) is cut off, and written again.

mod there;

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use events::{EventId, Position};
use serde::{Deserialize, Serialize};
use store_reader::StoreReader;

use super::{
    Question,
    seen::{Seen, is_of},
};
use there::There;

/// How often what was written is brought to disk: so much is looked through again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// After so many bytes the disk is told to begin with them, while more are made: little is left to wait for when they are
/// saved, and no more than twice as many are in memory only.
const SYNC_EVERY: u64 = 32 * 1024 * 1024;

/// What is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    question: Question,
    bytes: u64,
    position: Position,
    /// The event that the store had at that position. It was not noted always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event: Option<EventId>,
}

/// A file of lines, open for more of them, by one writer.
pub struct LinesFile {
    path: PathBuf,
    file: File,
    progress: Progress,
    /// Bytes that it had behind those that are known.
    cut_off: u64,
    saved_at: Instant,
    /// Bytes of which the disk was not told.
    unsynced: u64,
    syncing: Option<JoinHandle<io::Result<()>>>,
    /// The disk did not take something.
    lost: bool,
}

impl LinesFile {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// Where another writer has it, it is a device or no such file, its lines answer another question, or it is of another
    /// store.
    pub async fn open(path: &Path, question: Question, store: &StoreReader) -> anyhow::Result<Self> {
        let (mut this, events) = Self::look(path, question)?;
        is_of(store, &path.display().to_string(), this.position(), &events).await?;
        this.begin(Seen::at(store, this.position()).await?)?;
        Ok(this)
    }

    /// What is there, and events that its store has to have. It changes nothing.
    fn look(path: &Path, question: Question) -> anyhow::Result<(Self, Vec<Seen>)> {
        let shown = path.display();
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = opened.with_context(|| format!("cannot write {shown}"))?;
        if !file.metadata()?.is_file() {
            bail!("{shown} is a device or a pipe, which cannot be continued: say `> {shown}`");
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{shown} is being written by another process"),
            Err(TryLockError::Error(error)) => return Err(error).context(format!("cannot lock {shown}")),
        }
        let length = file.metadata()?.len();
        let known = begun(path, length, question)?;
        let there = There::look(&mut file, &known);
        let There { bytes, position, events } =
            there.with_context(|| format!("{shown} cannot be gone on with, take another name"))?;
        let progress = Progress { bytes, position, ..known };
        let (path, cut_off, saved_at) = (path.to_owned(), length - bytes, Instant::now());
        Ok((Self { path, file, progress, cut_off, saved_at, unsynced: 0, syncing: None, lost: false }, events))
    }

    /// Cuts off what is not known, and goes on there.
    fn begin(&mut self, last: Option<Seen>) -> anyhow::Result<()> {
        self.file.set_len(self.progress.bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        self.save(last)
    }

    /// How far its lines reach.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// How many bytes behind them were not known to be all that there is of an event when it was opened, and are gone.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Adds whole lines, which reach up to a position. True where it is time to [save](Self::save) them.
    ///
    /// # Errors
    /// A full disk, for one.
    pub fn add(&mut self, lines: &[u8], through: Position) -> anyhow::Result<bool> {
        let mut add = || -> io::Result<()> {
            self.file.write_all(lines)?;
            self.unsynced += lines.len() as u64;
            if self.unsynced >= SYNC_EVERY { self.begin_sync() } else { Ok(()) }
        };
        add().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.progress.bytes += lines.len() as u64;
        self.progress.position = through;
        Ok(self.saved_at.elapsed() >= SAVE_EVERY)
    }

    /// One at a time: a disk that is slower than its writer is waited for here.
    fn begin_sync(&mut self) -> io::Result<()> {
        self.synced()?;
        let file = self.file.try_clone()?;
        self.syncing = Some(thread::spawn(move || file.sync_data()));
        self.unsynced = 0;
        Ok(())
    }

    /// Waits for what was begun. The system tells of an error once: from then on nothing more counts as being on disk.
    fn synced(&mut self) -> io::Result<()> {
        let told = self.syncing.take().map_or(Ok(()), |syncing| syncing.join().expect("it does not panic"));
        self.lost |= told.is_err();
        told?;
        if self.lost { Err(io::Error::other("what was written before did not reach the disk")) } else { Ok(()) }
    }

    /// Brings to disk what was added, and then says so, with the event that the store has at its [position](Self::position).
    ///
    /// # Errors
    /// Those of the disk.
    pub fn save(&mut self, last: Option<Seen>) -> anyhow::Result<()> {
        self.progress.event = last.map(|seen| seen.event);
        let mut save = || -> io::Result<()> {
            self.begin_sync()?;
            self.synced()?;
            let new = with_extension(&self.path, ".progress.new");
            let mut file = File::create(&new)?;
            serde_json::to_writer(&mut file, &self.progress)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&new, with_extension(&self.path, ".progress"))
        };
        save().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.saved_at = Instant::now();
        Ok(())
    }
}

/// How far the file is, of which `there` bytes are there.
fn begun(path: &Path, there: u64, question: Question) -> anyhow::Result<Progress> {
    let shown = path.display();
    let beside = with_extension(path, ".progress");
    if there == 0 {
        return Ok(Progress { position: question.from, bytes: 0, event: None, question });
    }
    let text = match fs::read(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("{shown} is there, and no replay wrote it ({} is missing): take another name", beside.display())
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", beside.display())),
    };
    let progress: Progress =
        serde_json::from_slice(&text).with_context(|| format!("{} is broken", beside.display()))?;
    if progress.question.history != question.history {
        bail!("{shown} holds another history: the event store was restored or replaced since. Take another name");
    }
    if progress.question != question {
        bail!(
            "{shown} answers another question ({}): ask the same again, or take another name",
            serde_json::to_string(&progress.question)?
        );
    }
    if there < progress.bytes {
        bail!("{shown} is shorter than it was ({there} bytes of {}): take another name", progress.bytes);
    }
    Ok(progress)
}

fn with_extension(path: &Path, extension: &str) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use events::HistoryId;

    use super::*;

    fn question() -> Question {
        Question { history: HistoryId::new(), from: 3, types: vec![], community: None }
    }

    fn open(path: &Path, question: &Question) -> anyhow::Result<LinesFile> {
        let (mut file, _) = LinesFile::look(path, question.clone())?;
        file.begin(None)?;
        Ok(file)
    }

    fn refused(path: &Path, question: Question) -> String {
        format!("{:#}", LinesFile::look(path, question).err().expect("refused"))
    }

    /// The lines of an event: one with a name, and another for what an old event says besides.
    fn lines(question: &Question, position: Position, events: u32) -> String {
        let id = EventId::new();
        let line = |nth: u32| {
            let id = if nth == 1 { id.to_string() } else { format!("{id}.{nth}") };
            let history = question.history;
            format!(
                r#"{{"specversion":"1.0","id":"{id}","position":"{position}","history":"{history}","data":{{}}}}{}"#,
                "\n"
            )
        };
        (1..=events).map(line).collect::<Vec<_>>().concat()
    }

    #[test]
    fn what_is_whole_counts_and_the_rest_is_written_again() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        let question = question();
        let [four, five, seven, eight] = [4, 5, 7, 8].map(|position| lines(&question, position, 2));
        let mut file = open(&path, &question)?;
        assert_eq!((file.position(), file.cut_off()), (3, 0));
        file.add(four.as_bytes(), 4)?;
        file.save(None)?;
        // Not yet said to be there when its writer was killed.
        for (behind, kept, position) in [
            ("", "", 4),
            (&five[..five.len() - 1], "", 4),
            (&five, "", 4),
            (&format!("{five}{}", &seven[..9]), "", 4),
            (&format!("{five}{seven}\0\0\0"), &five, 6),
            (&format!("{five}{seven}{eight}{{\"spec"), &format!("{five}{seven}"), 7),
        ] {
            file.file.write_all(behind.as_bytes())?;
            drop(file);
            file = open(&path, &question)?;
            assert_eq!((fs::read_to_string(&path)?, file.position()), (format!("{four}{kept}"), position), "{behind}");
            assert_eq!(file.cut_off(), (behind.len() - kept.len()) as u64);
            // As it was before.
            file.progress = Progress { bytes: four.len() as u64, position: 4, ..file.progress.clone() };
            file.begin(None)?;
        }
        drop(file);
        fs::write(&path, format!("{four}{five}Dear Ada,\n"))?;
        let said = refused(&path, question.clone());
        let at = four.len() + five.len();
        assert!(said.contains(&format!("behind byte {at} it has something that no replay has written")), "{said}");
        Ok(())
    }

    #[test]
    fn more_than_the_disk_is_told_of_at_a_time_is_there_whole() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        let question = question();
        let mut file = open(&path, &question)?;
        let mut length = 0;
        for position in 4..=9 {
            let event = lines(&question, position, 1);
            let more = event.repeat(usize::try_from(SYNC_EVERY)? / 2 / event.len());
            file.add(more.as_bytes(), position)?;
            length += more.len() as u64;
        }
        assert!(file.syncing.is_some(), "the disk was told to begin");
        file.save(None)?;
        drop(file);
        let mut file = open(&path, &question)?;
        assert_eq!((file.position(), fs::metadata(&path)?.len()), (9, length));

        // What the disk did not take is not said to be there, however often it is asked.
        file.syncing = Some(thread::spawn(|| Err(io::Error::other("the disk is broken"))));
        file.add(lines(&question, 10, 1).as_bytes(), 10)?;
        assert!(format!("{:#}", file.save(None).expect_err("refused")).contains("the disk is broken"));
        assert!(file.save(None).is_err());
        drop(file);
        assert_eq!(open(&path, &question)?.position(), 9);
        Ok(())
    }

    #[test]
    fn what_is_not_ours_is_left_alone() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        fs::write(&path, "a letter")?;
        assert!(refused(&path, question()).contains("no replay wrote it"));
        assert_eq!(fs::read_to_string(&path)?, "a letter");
        fs::remove_file(&path)?;

        let asked = question();
        let mut file = open(&path, &asked)?;
        assert!(refused(&path, asked.clone()).contains("is being written by another process"));
        // Overwritten before anything of it was said to be there, and then.
        fs::write(&path, "x".repeat(1_000))?;
        let overwritten = |asked| {
            assert!(refused(&path, asked).contains("history.ndjson cannot be gone on with, take another name: "));
            assert_eq!(fs::read_to_string(&path).expect("it is there"), "x".repeat(1_000));
        };
        drop(file);
        overwritten(asked.clone());
        fs::write(&path, "")?;
        file = open(&path, &asked)?;
        let four = lines(&asked, 4, 1);
        file.add(four.as_bytes(), 4)?;
        file.save(None)?;
        drop(file);
        fs::write(&path, "x".repeat(1_000))?;
        overwritten(asked.clone());
        fs::write(&path, &four)?;
        let other = Question { types: vec!["post.written".into()], ..asked.clone() };
        assert!(refused(&path, other).contains("answers another question"));
        File::options().write(true).open(&path)?.set_len(2)?;
        assert!(refused(&path, asked).contains(&format!("is shorter than it was (2 bytes of {})", four.len())));
        Ok(())
    }
}

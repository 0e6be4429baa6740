//! A file of lines that can be continued, whatever ended its writer.
//!
//! Beside it, `<file>.progress` says which question its lines answer, how many of its bytes are on disk, and how far
//! they reach. What the file has behind those bytes (half a line, perhaps) was being written when the writer ended: it
//! is cut off, and written again.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use events::Position;
use serde::{Deserialize, Serialize};

use super::Question;

/// How often what was written is brought to disk: so much work is done again after a crash.
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
    /// Where another writer has it, it is a device or no such file, or its lines answer another question.
    pub fn open(path: &Path, question: Question) -> anyhow::Result<Self> {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.with_context(|| format!("cannot write {}", path.display()))?;
        if !file.metadata()?.is_file() {
            bail!("{0} is a device or a pipe, which cannot be continued: say `> {0}`", path.display());
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{} is being written by another process", path.display()),
            Err(TryLockError::Error(error)) => return Err(error).context(format!("cannot lock {}", path.display())),
        }
        let there = file.metadata()?.len();
        let progress = begun(path, there, question)?;
        let cut_off = there - progress.bytes;
        file.set_len(progress.bytes)?;
        let saved_at = Instant::now();
        let mut this =
            Self { path: path.to_owned(), file, progress, cut_off, saved_at, unsynced: 0, syncing: None, lost: false };
        this.file.seek(SeekFrom::End(0))?;
        this.save()?;
        Ok(this)
    }

    /// How far its lines reach.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// How many bytes behind them were not known to be whole when it was opened, and are gone.
    pub fn cut_off(&self) -> u64 {
        self.cut_off
    }

    /// Adds whole lines, which reach up to a position.
    ///
    /// # Errors
    /// A full disk, for one.
    pub fn add(&mut self, lines: &[u8], through: Position) -> anyhow::Result<()> {
        let mut add = || -> io::Result<()> {
            self.file.write_all(lines)?;
            self.unsynced += lines.len() as u64;
            if self.unsynced >= SYNC_EVERY { self.begin_sync() } else { Ok(()) }
        };
        add().with_context(|| format!("cannot write {}", self.path.display()))?;
        self.progress.bytes += lines.len() as u64;
        self.progress.position = through;
        if self.saved_at.elapsed() >= SAVE_EVERY {
            self.save()?;
        }
        Ok(())
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

    /// Brings to disk what was added, and then says so.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn save(&mut self) -> anyhow::Result<()> {
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
        return Ok(Progress { position: question.from, bytes: 0, question });
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

    #[test]
    fn half_a_line_is_written_again() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        let question = question();
        let mut file = LinesFile::open(&path, question.clone())?;
        assert_eq!((file.position(), file.cut_off()), (3, 0));
        file.add(b"four\nfive\n", 5)?;
        file.save()?;
        // Not yet said to be there when its writer was killed.
        file.file.write_all(b"six\nsev")?;
        drop(file);

        let mut file = LinesFile::open(&path, question.clone())?;
        assert_eq!((file.position(), fs::read_to_string(&path)?.as_str()), (5, "four\nfive\n"));
        assert_eq!(file.cut_off(), "six\nsev".len() as u64);
        file.add(b"six\nseven\n", 7)?;
        file.save()?;
        drop(file);
        assert_eq!(LinesFile::open(&path, question)?.position(), 7);
        assert_eq!(fs::read_to_string(&path)?, "four\nfive\nsix\nseven\n");
        Ok(())
    }

    #[test]
    fn more_than_the_disk_is_told_of_at_a_time_is_there_whole() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        let question = question();
        let mut file = LinesFile::open(&path, question.clone())?;
        let lines = b"a line\n".repeat(usize::try_from(SYNC_EVERY)? / 10);
        for position in 4..=9 {
            file.add(&lines, position)?;
        }
        assert!(file.syncing.is_some(), "the disk was told to begin");
        file.save()?;
        drop(file);
        let file = LinesFile::open(&path, question.clone())?;
        assert_eq!((file.position(), fs::metadata(&path)?.len()), (9, 6 * lines.len() as u64));

        // What the disk did not take is not said to be there, however often it is asked.
        let mut file = file;
        file.syncing = Some(thread::spawn(|| Err(io::Error::other("the disk is broken"))));
        file.add(b"lost\n", 10)?;
        assert!(format!("{:#}", file.save().expect_err("refused")).contains("the disk is broken"));
        assert!(file.save().is_err());
        drop(file);
        assert_eq!(LinesFile::open(&path, question)?.position(), 9);
        Ok(())
    }

    #[test]
    fn what_is_not_ours_is_left_alone() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("history.ndjson");
        let refused = |question| LinesFile::open(&path, question).err().expect("refused").to_string();
        fs::write(&path, "a letter")?;
        assert!(refused(question()).contains("no replay wrote it"));
        assert_eq!(fs::read_to_string(&path)?, "a letter");
        fs::remove_file(&path)?;

        let asked = question();
        let mut file = LinesFile::open(&path, asked.clone())?;
        assert!(refused(asked.clone()).contains("is being written by another process"));
        file.add(b"four\n", 4)?;
        file.save()?;
        drop(file);
        let other = Question { types: vec!["post.written".into()], ..asked.clone() };
        assert!(refused(other).contains("answers another question"));
        File::options().write(true).open(&path)?.set_len(2)?;
        assert!(refused(asked).contains("is shorter than it was (2 bytes of 5)"));
        Ok(())
    }
}

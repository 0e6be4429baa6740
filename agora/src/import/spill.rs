//! Bringing together what belongs together without keeping it in memory: records are written to one of several files
//! by a hash of their key, and read back one file at a time. A file that is too large is split again by more of the
//! hash, so memory is bounded by [`BUCKET_BYTES`] or the largest single key, whatever the whole is.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

/// Files written at once: each has a buffer and a file handle.
const FAN_OUT: u64 = 64;

/// The largest file that is read into memory.
pub const BUCKET_BYTES: u64 = 16 * 1024 * 1024;

/// Splits of splits: 64 bits of hash hold no more.
const DEEPEST: u32 = 10;

/// Records on their way to disk.
pub struct Spill {
    dir: PathBuf,
    level: u32,
    files: Vec<Option<(PathBuf, BufWriter<File>)>>,
}

/// Records on disk, to be taken bucket by bucket: all records of a key are in one bucket, in the order of writing.
pub struct Buckets {
    /// With the level of the hash they were split by; the next one last.
    waiting: Vec<(PathBuf, u32)>,
    bucket_bytes: u64,
}

impl Spill {
    /// Into the empty directory `dir`, which is made.
    pub fn create(dir: &Path) -> io::Result<Self> {
        Self::at_level(dir, 0)
    }

    fn at_level(dir: &Path, level: u32) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), level, files: (0..FAN_OUT).map(|_| None).collect() })
    }

    /// Writes one record.
    pub fn write(&mut self, key: &str, record: &impl Serialize) -> io::Result<()> {
        let hash = hash(key);
        let file = self.file(hash)?;
        write!(file, "{hash:016x} ")?;
        serde_json::to_writer(&mut *file, record)?;
        file.write_all(b"\n")
    }

    /// All is written.
    pub fn finish(self) -> io::Result<Buckets> {
        let mut waiting = Vec::new();
        for (path, mut file) in self.files.into_iter().flatten() {
            file.flush()?;
            waiting.push((path, self.level));
        }
        waiting.reverse();
        Ok(Buckets { waiting, bucket_bytes: BUCKET_BYTES })
    }

    fn file(&mut self, hash: u64) -> io::Result<&mut BufWriter<File>> {
        let nth = (hash >> (6 * self.level)) % FAN_OUT;
        let slot = &mut self.files[usize::try_from(nth).expect("below 64")];
        if slot.is_none() {
            let path = self.dir.join(format!("{nth:02}"));
            let file = BufWriter::new(File::create(&path)?);
            *slot = Some((path, file));
        }
        Ok(&mut slot.as_mut().expect("just made").1)
    }
}

impl Buckets {
    /// The next bucket's records; its file is gone then. `None` where all were taken.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<T>>> {
        while let Some((path, level)) = self.waiting.pop() {
            if fs::metadata(&path)?.len() > self.bucket_bytes && level < DEEPEST {
                self.split(&path, level + 1)?;
                continue;
            }
            let mut records = Vec::new();
            for line in BufReader::new(File::open(&path)?).split(b'\n') {
                records.push(serde_json::from_slice(&line?[17..])?);
            }
            fs::remove_file(&path)?;
            return Ok(Some(records));
        }
        Ok(None)
    }

    fn split(&mut self, path: &Path, level: u32) -> io::Result<()> {
        let mut spill = Spill::at_level(&path.with_extension("split"), level)?;
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            let hash = std::str::from_utf8(&line[..16]).ok().and_then(|hash| u64::from_str_radix(hash, 16).ok());
            let file = spill.file(hash.ok_or_else(|| io::Error::other("a working file was changed"))?)?;
            file.write_all(&line)?;
            file.write_all(b"\n")?;
        }
        fs::remove_file(path)?;
        self.waiting.extend(spill.finish()?.waiting);
        Ok(())
    }
}

fn hash(key: &str) -> u64 {
    let digest = Sha256::digest(key.as_bytes());
    u64::from_be_bytes(digest[..8].try_into().expect("8 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Whatever the bucket's size, nothing is lost, keys stay together, and in order.
    #[test]
    fn everything_comes_back_by_key_and_in_order() -> io::Result<()> {
        for bucket_bytes in [BUCKET_BYTES, 500, 1] {
            let dir = tempfile::tempdir()?;
            let mut spill = Spill::create(&dir.path().join("spill"))?;
            for nth in 0..2_000 {
                let key = format!("{}", nth % 300);
                spill.write(&key, &(key.clone(), nth))?;
            }
            let mut buckets = spill.finish()?;
            buckets.bucket_bytes = bucket_bytes;
            let mut all: BTreeMap<String, Vec<i32>> = BTreeMap::new();
            while let Some(records) = buckets.take::<(String, i32)>()? {
                let keys: BTreeSet<_> = records.iter().map(|(key, _)| key.clone()).collect();
                assert!(keys.iter().all(|key| !all.contains_key(key)), "a key in two buckets");
                for (key, nth) in records {
                    all.entry(key).or_default().push(nth);
                }
            }
            assert_eq!(all.len(), 300);
            for (key, found) in all {
                let first = key.parse::<i32>().expect("a number");
                assert_eq!(found, (first..2_000).step_by(300).collect::<Vec<_>>());
            }
        }
        Ok(())
    }
}

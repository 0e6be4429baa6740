//! A map from ids to numbers, in a sparse file: its size in memory does not grow with the dump.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// The bytes of one number.
const WIDTH: usize = 8;

/// Numbers by id. The file has as many blocks as the ids reach into, and the system's page cache keeps the used ones.
pub struct Index {
    file: File,
}

impl Index {
    /// A new one, without entries.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file })
    }

    /// The number of an id.
    pub fn get(&self, id: i64) -> io::Result<Option<u64>> {
        let mut bytes = [0; WIDTH];
        match self.file.read_exact_at(&mut bytes, offset(id)) {
            Ok(()) => Ok(u64::from_le_bytes(bytes).checked_sub(1)),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives an id its number (below 2^64 - 1), where it has none yet. Says whether it had none.
    pub fn insert(&self, id: i64, number: u64) -> io::Result<bool> {
        if self.get(id)?.is_some() {
            return Ok(false);
        }
        self.file.write_all_at(&(number + 1).to_le_bytes(), offset(id))?;
        Ok(true)
    }
}

/// Ids of both signs side by side: 0, -1, 1, -2, 2, ….
fn offset(id: i64) -> u64 {
    (id.unsigned_abs() * 2 - u64::from(id < 0)) * WIDTH as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_put_in_first() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let index = Index::create(&dir.path().join("index"))?;
        let ids = [0, -1, 1, -2, 2, i64::from(i32::MAX), -i64::from(i32::MAX)];
        for (number, id) in (0..).zip(ids) {
            assert_eq!(index.get(id)?, None);
            assert!(index.insert(id, number)?);
            assert!(!index.insert(id, 99)?);
        }
        for (number, id) in (0..).zip(ids) {
            assert_eq!(index.get(id)?, Some(number));
        }
        assert_eq!(index.get(3)?, None);
        Ok(())
    }
}

//! One owner for a directory: a lock that the kernel lets go of when its holder dies, however it dies.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, bail};

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the lock, or fails naming the process that has it.
    pub(super) fn acquire(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).ok();
                let holder = if holder.is_empty() { "another process" } else { &holder };
                bail!("{} is in use by {holder}: stop that one first, or use another directory", dir.display());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let write_holder = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "another agora (process {})", std::process::id())
        };
        // Who holds it is for the message only: a full disk must be reported by what needs the space.
        write_holder(&mut file).ok();
        Ok(Self { file })
    }
}

impl Drop for DirectoryLock {
    /// Said, not left to closing: a child between its fork and its exec has the file open for a moment too.
    fn drop(&mut self) {
        self.file.unlock().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_by_name_until_the_first_is_gone() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let first = DirectoryLock::acquire(dir.path())?;
        let refusal = DirectoryLock::acquire(dir.path()).expect_err("held").to_string();
        assert!(refusal.contains(&format!("process {}", std::process::id())), "{refusal}");
        drop(first);
        DirectoryLock::acquire(dir.path())?;
        Ok(())
    }
}

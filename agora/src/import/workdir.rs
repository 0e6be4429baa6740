//! A directory for the working files of one import, gone when it ends.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// Held by one import at a time; a later one clears what a killed one left.
pub(super) struct WorkDir {
    path: PathBuf,
    _lock: File,
}

impl WorkDir {
    /// Takes `base/import/<name>`.
    ///
    /// # Errors
    /// Where another import has it, or it cannot be made.
    pub(super) fn claim(base: &Path, name: &str) -> anyhow::Result<Self> {
        let path = base.join("import").join(name);
        let cannot = || format!("cannot keep working files in {}", path.display());
        fs::create_dir_all(&path).with_context(cannot)?;
        let lock = File::create(path.with_extension("lock")).with_context(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("another import into {name} is running here: let it end first"),
            Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
        }
        fs::remove_dir_all(&path).and_then(|()| fs::create_dir(&path)).with_context(cannot)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where the files go.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    /// What cannot be removed now is removed by the next import. Directories above go where they are empty.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(self.path.with_extension("lock"));
        for above in self.path.ancestors().skip(1).take(2) {
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_stays() -> anyhow::Result<()> {
        let base = tempfile::tempdir()?;
        let base = base.path().join(".agora");
        let first = WorkDir::claim(&base, "french-meta")?;
        fs::write(first.path().join("left"), "over")?;
        let refusal = WorkDir::claim(&base, "french-meta").map(|_| ()).expect_err("taken");
        assert!(refusal.to_string().contains("another import"), "{refusal:#}");
        let second = WorkDir::claim(&base, "other")?;
        drop(first);
        assert!(WorkDir::claim(&base, "french-meta")?.path().read_dir()?.next().is_none());
        drop(second);
        assert!(!base.exists());
        Ok(())
    }
}

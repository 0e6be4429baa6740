//! How commands on this machine find an `agora up` that runs here: a file in its directory, for its owner only.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::config::Config;

const FILE: &str = "up.json";

/// A running `agora up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Up {
    /// Its public address, `http://host:port`.
    pub address: String,
    /// Its database.
    pub database_url: String,
    /// Its process.
    pub pid: u32,
}

/// The file that says so, for as long as it holds.
pub struct Published {
    path: PathBuf,
}

impl Up {
    /// Tells local commands; they are told no more when what this answers is dropped.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn publish(&self, dir: &Path) -> anyhow::Result<Published> {
        let path = dir.join(FILE);
        let write = || -> io::Result<()> {
            fs::create_dir_all(dir)?;
            // Whole or not at all, and never readable for others: it may hold a password.
            let new = path.with_extension("json.new");
            let _ = fs::remove_file(&new);
            let file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new)?;
            serde_json::to_writer_pretty(file, self)?;
            fs::rename(&new, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Published { path })
    }

    /// The one that runs in `dir`.
    ///
    /// # Errors
    /// Where none does, with what to do.
    pub fn find(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("no `agora up` runs in {}: start one, or say where to go (see --help)", dir.display());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let up: Self = serde_json::from_slice(&text).with_context(|| format!("{} is broken", path.display()))?;
        if !Path::new("/proc").join(up.pid.to_string()).exists() {
            bail!("the `agora up` in {} (process {}) is gone: start it again", dir.display(), up.pid);
        }
        Ok(up)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // A file that stays is found out by its process.
        let _ = fs::remove_file(&self.path);
    }
}

/// The configuration with a database in it: as configured, else that of the `agora up` that runs here.
///
/// # Errors
/// Where there is neither.
pub fn with_database(config: Config) -> anyhow::Result<Config> {
    if config.has_database() {
        return Ok(config);
    }
    let up = Up::find(&config.data_dir)?;
    Ok(config.with_database(&up.database_url))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn up(pid: u32) -> Up {
        Up { address: "http://127.0.0.1:8080".into(), database_url: "postgres://agora:secret@x".into(), pid }
    }

    #[test]
    fn it_is_found_while_it_runs_and_read_by_its_owner_only() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let dir = dir.path().join(".agora");
        assert!(Up::find(&dir).expect_err("none").to_string().starts_with("no `agora up` runs in"));
        let up = up(std::process::id());
        let published = up.publish(&dir)?;
        assert_eq!(Up::find(&dir)?, up);
        assert_eq!(fs::metadata(dir.join(FILE))?.permissions().mode() & 0o777, 0o600);
        let found = with_database(Config { data_dir: dir.clone(), ..Config::default() })?;
        assert_eq!(found.database.url.expose(), up.database_url);
        drop(published);
        assert!(Up::find(&dir).is_err());
        Ok(())
    }

    #[test]
    fn one_that_was_killed_is_said_to_be_gone() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        // No process has this number: it is above the kernel's limit.
        let _published = up(u32::MAX).publish(dir.path())?;
        let error = Up::find(dir.path()).expect_err("gone").to_string();
        assert!(error.contains("is gone: start it again"), "{error}");
        Ok(())
    }
}

//! Finding the system's Postgres, wherever it was put.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{anyhow, bail};

/// The oldest major version that Agora runs on.
pub(super) const OLDEST: u32 = 15;

/// Where Debian keeps one directory for each installed major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one installed version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// The newest one installed; for data that is there, the version that wrote it.
    pub(super) fn find(written_by: Option<u32>) -> anyhow::Result<Self> {
        choose(candidates().into_iter().filter_map(Self::at).collect(), written_by)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What stands in `dir`, if that is a server with its tools.
    fn at(dir: PathBuf) -> Option<Self> {
        let whole = ["initdb", "pg_ctl", "pg_isready", "postgres"].iter().all(|name| dir.join(name).is_file());
        if !whole {
            return None;
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output().ok()?;
        let major = major_version(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { dir, major })
    }
}

fn candidates() -> Vec<PathBuf> {
    let debian = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let configured = Command::new("pg_config")
        .arg("--bindir")
        .output()
        .ok()
        .map(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).to_owned());
    debian.chain(configured).chain(env::split_paths(&path)).collect()
}

fn choose(found: Vec<Binaries>, written_by: Option<u32>) -> anyhow::Result<Binaries> {
    // The first of several that are equally new: Debian's own before whatever is on the PATH.
    let newest = found.iter().rev().max_by_key(|binaries| binaries.major).cloned();
    let Some(newest) = newest else {
        bail!(
            "no PostgreSQL server is installed (looked in {DEBIAN}, on the PATH and where pg_config points): \
             `apt-get install postgresql` gives one, or name a running one with --database-url"
        );
    };
    let Some(version) = written_by else {
        return new_enough(newest);
    };
    let same = found.into_iter().find(|binaries| binaries.major == version);
    let same = same.ok_or_else(|| {
        anyhow!(
            "the database here was written by PostgreSQL {version}, which is not installed (the newest here is \
             {}): `apt-get install postgresql-{version}`, or bring the data over with pg_upgrade",
            newest.major
        )
    })?;
    new_enough(same)
}

fn new_enough(binaries: Binaries) -> anyhow::Result<Binaries> {
    if binaries.major < OLDEST {
        bail!(
            "PostgreSQL {} in {} is too old, Agora needs {OLDEST} or newer: install one, or name a running one with \
             --database-url",
            binaries.major,
            binaries.dir.display()
        );
    }
    Ok(binaries)
}

/// From `postgres (PostgreSQL) 15.18 (Debian …)`, also `16beta1` and `18devel`.
fn major_version(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binaries(dir: &str, major: u32) -> Binaries {
        Binaries { dir: dir.into(), major }
    }

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18devel\n"), Some(18));
        assert_eq!(major_version("busybox"), None);
    }

    #[test]
    fn the_newest_is_taken_and_the_first_of_equals() -> anyhow::Result<()> {
        let found = vec![binaries("/a", 15), binaries("/b", 17), binaries("/c", 17)];
        assert_eq!(choose(found, None)?, binaries("/b", 17));
        Ok(())
    }

    #[test]
    fn data_keeps_its_version() -> anyhow::Result<()> {
        let found = vec![binaries("/a", 15), binaries("/b", 17)];
        assert_eq!(choose(found.clone(), Some(15))?, binaries("/a", 15));
        let refusal = choose(found, Some(16)).expect_err("not installed").to_string();
        assert!(refusal.contains("postgresql-16"), "{refusal}");
        Ok(())
    }

    #[test]
    fn none_and_too_old_say_what_to_do() {
        let none = choose(vec![], None).expect_err("nothing there").to_string();
        assert!(none.contains("apt-get install postgresql"), "{none}");
        let old = choose(vec![binaries("/a", 13)], None).expect_err("too old").to_string();
        assert!(old.contains("PostgreSQL 13 in /a is too old"), "{old}");
    }
}

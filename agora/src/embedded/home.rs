//! Where a server's files and its socket live.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::{create_all, failure, read_optional, user::ServerUser};

/// Where data goes that the server's user could not reach beside the clone.
const FALLBACK: &str = "/var/lib/agora";

/// Always the same: the socket's directory is private, so ports cannot clash.
pub(super) const PORT: u16 = 5432;

/// How the names of clusters begin that are not whole.
const UNFINISHED: &str = "data.new.";

/// The kernel's limit for the path of a Unix socket, without its closing NUL.
const SOCKET_PATH_BYTES: usize = 107;

/// A directory of the server's user, mode 0700: `data`, the log, and the socket where its path is short enough.
#[derive(Debug)]
pub(super) struct Home {
    dir: PathBuf,
    socket_dir: PathBuf,
}

impl Home {
    /// Below `dir`; where `user` cannot reach that (a clone in a home of mode 0700), below `/var/lib/agora`, under a
    /// name made from `dir`. Data that once went there is found there, whatever can be reached now.
    pub(super) fn choose(dir: &Path, user: &ServerUser) -> anyhow::Result<Self> {
        let near = dir.join("postgres");
        let far = Path::new(FALLBACK).join(name_of(dir));
        let home = if far.join("data").is_dir() {
            far
        } else {
            create(user, &near)?;
            if user.reaches(&near)? {
                near
            } else {
                fs::remove_dir(&near).with_context(|| format!("cannot remove {}", near.display()))?;
                create_all(Path::new(FALLBACK), 0o711).with_context(|| format!("cannot create {FALLBACK}"))?;
                create(user, &far)?;
                if !user.reaches(&far)? {
                    fs::remove_dir(&far).with_context(|| format!("cannot remove {}", far.display()))?;
                    bail!(
                        "the user {}, who runs the database, can get neither into {} nor into {FALLBACK}: open one of \
                         them (`chmod o+x` it and what is above it)",
                        user.name,
                        dir.display()
                    );
                }
                far
            }
        };
        let home = home.canonicalize().with_context(|| format!("cannot enter {}", home.display()))?;
        let socket_dir = socket_directory(&home, dir);
        if socket_dir != home {
            create(user, &socket_dir)?;
        }
        Ok(Self { dir: home, socket_dir })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster itself.
    pub(super) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where this process makes a cluster, before it takes the name that says it is whole. No other uses the same: the
    /// set-up of one that was killed may still be writing.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.dir.join(format!("{UNFINISHED}{}", std::process::id()))
    }

    /// Takes away what was left unfinished. What cannot go yet goes the next time.
    pub(super) fn remove_unfinished(&self) {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes())) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }

    /// What the server prints, from its last start on.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(super) fn socket_directory(&self) -> &Path {
        &self.socket_dir
    }

    /// After the server has stopped: takes away the directory that only its socket was in.
    pub(super) fn leave(&self) {
        if self.socket_dir != self.dir {
            fs::remove_dir(&self.socket_dir).ok();
        }
    }

    /// The connection URL of a role in a database, both plain names.
    pub(super) fn url(&self, role: &str, database: &str) -> String {
        let host = percent_encode(self.socket_dir.as_os_str().as_bytes());
        format!("postgres://{role}@{host}:{PORT}/{database}?sslmode=disable")
    }

    /// The major version that wrote the data, where there is any.
    pub(super) fn data_version(&self) -> anyhow::Result<Option<u32>> {
        let path = self.data().join("PG_VERSION");
        if !self.data().exists() {
            return Ok(None);
        }
        let text = read_optional(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let Some(version) = text.and_then(|text| text.trim().parse().ok()) else {
            bail!("{} is not the data of a Postgres server: move it away", self.data().display());
        };
        Ok(Some(version))
    }

    /// What to tell the person who asked for `dir`.
    pub(super) fn notice(&self, dir: &Path) -> Option<String> {
        (!self.dir.starts_with(dir)).then(|| {
            format!(
                "the database is in {}: the system user that runs it cannot get into {}",
                self.dir.display(),
                dir.display()
            )
        })
    }
}

fn create(user: &ServerUser, dir: &Path) -> anyhow::Result<()> {
    user.create_private(dir)
        .map_err(|error| failure::storage(&error, dir).unwrap_or_else(|| error.into()))
        .with_context(|| format!("cannot use {} for the database", dir.display()))
}

/// `home`, unless the socket's path would be longer than the kernel takes, or hold what a settings file or a URL would
/// have to escape. `/tmp` is safe: the name is used only if it is a directory of the server's user with mode 0700.
fn socket_directory(home: &Path, dir: &Path) -> PathBuf {
    let bytes = home.as_os_str().as_bytes();
    let plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/-_.+ ".contains(byte));
    if plain && bytes.len() + format!("/.s.PGSQL.{PORT}").len() <= SOCKET_PATH_BYTES {
        home.to_owned()
    } else {
        Path::new("/tmp").join(format!("agora-{}", name_of(dir)))
    }
}

/// A short name for a directory, the same each time.
fn name_of(dir: &Path) -> String {
    let digest = Sha256::digest(dir.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |name, byte| format!("{name}{byte:02x}"))
}

fn percent_encode(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_or_strange_path_keeps_its_socket_elsewhere() {
        let short = Path::new("/home/ada/my forum/.agora");
        assert_eq!(socket_directory(short, short), short);
        let limit = PathBuf::from(format!("/{}", "x".repeat(SOCKET_PATH_BYTES - 15)));
        assert_eq!(socket_directory(&limit, &limit), limit);
        for path in [format!("/{}", "x".repeat(SOCKET_PATH_BYTES - 14)), "/it's".into(), "/foyer/é".into()] {
            let chosen = socket_directory(Path::new(&path), Path::new(&path));
            assert!(chosen.starts_with("/tmp") && chosen.as_os_str().len() < 40, "{}", chosen.display());
        }
    }

    #[test]
    fn the_url_survives_what_a_path_may_hold() {
        let home = Home { dir: "/a b/c".into(), socket_dir: "/a b/c".into() };
        assert_eq!(home.url("agora", "forum"), "postgres://agora@%2Fa%20b%2Fc:5432/forum?sslmode=disable");
    }
}

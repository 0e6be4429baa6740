//! Whose server it is: Postgres refuses to run as root, so root lends it to the `postgres` user.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

const ROOT: u32 = 0;

/// The system user that runs the server and owns its files.
#[derive(Debug)]
pub(super) struct ServerUser {
    /// The user's name, as `peer` authentication sees it.
    pub(super) name: String,
    uid: u32,
    gid: u32,
    /// Who runs Agora; another than `name` only where that is root.
    pub(super) caller: String,
    switch: bool,
}

impl ServerUser {
    /// Ourselves; as root, the owner of the data that is there, or else `postgres`.
    pub(super) fn choose(dir: &Path) -> anyhow::Result<Self> {
        let caller_uid = effective_uid()?;
        let caller = Account::look_up(&caller_uid.to_string())?
            .with_context(|| format!("user id {caller_uid} has no name on this machine, and Postgres needs one"))?;
        let owner = match fs::metadata(dir.join("postgres")) {
            Ok(metadata) => Some(metadata.uid()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot look at {}", dir.display()));
            }
        };
        if caller_uid != ROOT {
            if let Some(owner) = owner.filter(|owner| *owner != caller_uid) {
                bail!(
                    "the database in {} belongs to another user (id {owner}): start as the user that made it (or as \
                     root), or use another directory",
                    dir.display()
                );
            }
            return Ok(Self {
                name: caller.name.clone(),
                uid: caller.uid,
                gid: caller.gid,
                caller: caller.name,
                switch: false,
            });
        }
        let account = match owner.filter(|owner| *owner != ROOT) {
            Some(owner) => Account::look_up(&owner.to_string())?,
            None => Account::look_up("postgres")?,
        };
        let account = account.context(
            "as root, Agora runs its Postgres as the user `postgres`, which this machine lacks: \
             `apt-get install postgresql` makes it, or start as an ordinary user",
        )?;
        Ok(Self { name: account.name, uid: account.uid, gid: account.gid, caller: caller.name, switch: true })
    }

    /// A command run as this user, in a clean environment: no `PG…` variable and no locale of the caller's counts.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null()).process_group(0);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if self.switch {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Creates `dir` for this user alone. Refuses one that is somebody else's.
    pub(super) fn create_private(&self, dir: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => self.give(dir),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.check_private(dir),
            Err(error) => Err(error),
        }
    }

    fn check_private(&self, dir: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(dir)?;
        let private = found.is_dir() && found.mode() & 0o777 == 0o700;
        if private && found.uid() == self.uid {
            return Ok(());
        }
        // Killed between the two steps of creating it: still root's, still empty.
        if private && self.switch && found.uid() == ROOT {
            return self.give(dir);
        }
        let reason = format!("{} is not a directory that only {} may enter", dir.display(), self.name);
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }

    /// Hands what we made to this user.
    fn give(&self, path: &Path) -> io::Result<()> {
        if self.switch { chown(path, Some(self.uid), Some(self.gid)) } else { Ok(()) }
    }

    /// Whether this user can get at `dir`, through all that is above it.
    pub(super) fn reaches(&self, dir: &Path) -> io::Result<bool> {
        Ok(self.command(Path::new("test")).arg("-w").arg(dir).status()?.success())
    }
}

/// The user we act as.
pub(super) fn effective_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self")?.uid())
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// By name or numeric id, wherever the machine keeps its users.
    fn look_up(key: &str) -> anyhow::Result<Option<Self>> {
        let output = Command::new("getent").args(["passwd", key]).output().context("cannot run getent")?;
        // name:password:uid:gid:…
        let line = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else {
            return Ok(None);
        };
        let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
            return Ok(None);
        };
        Ok(Some(Self { name: name.to_owned(), uid, gid }))
    }
}

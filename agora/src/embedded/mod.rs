//! A Postgres server of Agora's own, run from the system's binaries.
//!
//! Promises, each held by a test:
//! - the server never runs as root, and no other user of the machine can connect: it listens on a Unix socket in a
//!   directory of mode 0700 and asks the kernel who is there (`peer`), so there is no password to leak;
//! - a directory that was set up half-way is set up anew, one that holds data is never touched by set-up;
//! - one process at a time owns the directory; a server that outlived its owner (`kill -9`) is adopted;
//! - a server that ends while its owner runs is started again;
//! - the server leaves the terminal's process group, so Ctrl-C reaches Agora first and Agora stops it last.

mod binaries;
mod failure;
mod home;
mod lock;
mod server;
mod user;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;

use self::{binaries::Binaries, home::Home, lock::DirectoryLock, server::Server, user::ServerUser};

/// The database, and the role that owns it. The role may create databases, and is no superuser.
const NAME: &str = "agora";

/// How often it is looked whether the server still runs: two small files of `/proc` and the data directory.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A running server. Stopped when dropped; [`EmbeddedPostgres::stop`] says whether that worked.
///
/// Everything here blocks (seconds at most, but for crash recovery): call it through `spawn_blocking` from async code.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    server: Arc<Server>,
    url: String,
    notice: Option<String>,
    adopted: bool,
    stopped: bool,
    _lock: DirectoryLock,
}

impl EmbeddedPostgres {
    /// Starts the server that keeps its data below `dir` (Agora's `.agora`), and first creates what is missing.
    ///
    /// Fails, with one line that says what to do, when another Agora holds the directory, when there is no Postgres of
    /// version 15 or newer, when the data was written by a version that is not installed, or when the disk is full.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(dir, &[])
    }

    /// As [`EmbeddedPostgres::start`], with further server settings (`postgresql.conf` names and values).
    pub fn start_with(dir: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (dir, lock) = claim(dir)?;
        let user = ServerUser::choose(&dir)?;
        let home = Home::choose(&dir, &user)?;
        let binaries = Binaries::find(home.data_version()?)?;
        let server = Arc::new(Server { binaries, user, home });
        let adopted = server.ensure_running(settings)?;
        Ok(Self {
            url: server.home.url(NAME, NAME),
            notice: server.home.notice(&dir),
            adopted,
            stopped: false,
            server,
            _lock: lock,
        })
    }

    /// Where the database `agora` answers, as its owner.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As [`EmbeddedPostgres::url`], for another database of the same server.
    pub fn url_of(&self, database: &str) -> String {
        self.server.home.url(NAME, database)
    }

    /// Where the server keeps its files.
    pub fn data_directory(&self) -> PathBuf {
        self.server.home.data()
    }

    /// What the person should be told: set where the data is not below the directory that was asked for.
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// Whether the server was already running, left over by an Agora that was killed.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Looks now and then whether the server still runs, and starts it again where it ended by itself; where it cannot (a
    /// full disk), tries until it can. It ends when it is dropped.
    pub fn keep_running(&self) -> impl Future<Output = ()> + use<> {
        let server = Arc::clone(&self.server);
        async move {
            let mut said = String::new();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let server = Arc::clone(&server);
                let revived = tokio::task::spawn_blocking(move || server.revive()).await;
                match revived.unwrap_or_else(|panic| Err(panic.into())) {
                    Ok(false) => {}
                    Ok(true) => {
                        said.clear();
                        tracing::error!("the embedded Postgres had ended by itself, and was started again");
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        if error != said {
                            tracing::error!("the embedded Postgres ended by itself, and does not start yet: {error}");
                            said = error;
                        }
                    }
                }
            }
        }
    }

    /// Ends all sessions and stops the server, its data flushed.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stopped = true;
        self.server.stop()
    }
}

impl Drop for EmbeddedPostgres {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if let Err(error) = self.server.stop() {
            tracing::warn!("the embedded Postgres was not stopped, the next start adopts it: {error:#}");
        }
    }
}

/// Makes the directory this process's own, and first creates it where it is missing. Also for an `up` whose database is
/// elsewhere: other commands find one `up` in a directory.
pub(crate) fn claim(dir: &Path) -> anyhow::Result<(PathBuf, DirectoryLock)> {
    let dir = create_directory(dir)?;
    let lock = DirectoryLock::acquire(&dir)?;
    Ok((dir, lock))
}

/// Creates `dir` so that nobody else can list it. As root it stays passable: the server, another user, lives below it.
fn create_directory(dir: &Path) -> anyhow::Result<PathBuf> {
    let mode = if user::effective_uid()? == 0 { 0o711 } else { 0o700 };
    create_all(dir, mode)
        .and_then(|()| dir.canonicalize())
        .map_err(|error| failure::storage(&error, dir).unwrap_or_else(|| error.into()))
        .with_context(|| format!("cannot create the directory {}", dir.display()))
}

/// Creates `dir` and what is missing above it, with this mode whatever the umask. What is there keeps its own.
fn create_all(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(above) = dir.parent().filter(|above| !above.as_os_str().is_empty()) {
        create_all(above, mode)?;
    }
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(mode)),
        // Another Agora made it meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a file that may not be there.
fn read_optional(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

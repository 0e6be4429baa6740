//! The binary in a directory of its own, and an `agora up` that runs there.

use std::{
    fmt::Display,
    fs::Permissions,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::reaper::Reaper;

/// How long a start, a line or an end may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(120);

/// What may be said and not yet read: more than any test's server says.
const LINES: usize = 10_000;

/// In a directory of its own, without settings of the person who runs the tests. What still runs there ends with it.
pub(crate) struct Agora {
    dir: PathBuf,
    _reaper: Reaper,
}

impl Agora {
    pub(crate) fn new() -> Self {
        // The embedded Postgres, which is another user's where we are root, passes through.
        let passable = Permissions::from_mode(0o711);
        let dir = tempfile::Builder::new().prefix("agora-cli-").permissions(passable).tempdir().expect("a directory");
        let dir = dir.keep();
        Self { _reaper: Reaper::of(&dir), dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agora"));
        let settings = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGORA"));
        for (name, _) in settings {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(self.path());
        command
    }

    /// `agora up` on free ports, logging only what is wrong.
    pub(crate) fn up(&self) -> Command {
        let mut command = self.command(&["up", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.env("AGORA__TELEMETRY__LOG", "warn");
        command
    }

    /// The same, with a Postgres that runs already.
    pub(crate) fn up_on(&self, database_url: &str) -> Command {
        let mut command = self.up();
        command.args(["--database-url", database_url]);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    /// What it prints where it succeeds.
    pub(crate) fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The one line that it says where it fails.
    pub(crate) fn refuses(&self, arguments: &[&str]) -> String {
        refuses(self.command(arguments))
    }

    /// What `agora up` tells other commands here, while it runs.
    pub(crate) fn published(&self) -> Value {
        let text = std::fs::read(self.path().join(".agora/up.json")).expect("an `up` runs here");
        serde_json::from_slice(&text).expect("JSON")
    }
}

/// The one line that a command says which fails.
pub(crate) fn refuses(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    said
}

/// An `agora up` that is ready. Killed where the test does not end it.
pub(crate) struct Up {
    process: Child,
    lines: Receiver<String>,
    /// What it said.
    pub(crate) said: Vec<String>,
    /// Where it listens, `http://127.0.0.1:port`.
    pub(crate) url: String,
    /// Where its operators look.
    pub(crate) metrics: String,
}

impl Up {
    /// Starts it, and reads what it says until it is ready.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let stderr = BufReader::new(process.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::sync_channel(LINES);
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        let mut up = Self { process, lines, said: vec![], url: String::new(), metrics: String::new() };
        up.wait_for("Ctrl-C stops");
        let api = up.named("API").expect("it says where the API is");
        api.strip_suffix("/v2").expect("the API's path").clone_into(&mut up.url);
        up.metrics = up.named("metrics").expect("it says where the metrics are");
        up
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Reads until a line holds `words`.
    pub(crate) fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("it does not say `{words}`:\n{}", self.said.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("it ended early:\n{}", self.said.join("\n")),
            }
            if self.said.last().is_some_and(|line| line.contains(words)) {
                return;
            }
        }
    }

    /// What its greeting says of `name`.
    pub(crate) fn named(&self, name: &str) -> Option<String> {
        let value = |line: &String| Some(line.trim().strip_prefix(name)?.strip_prefix(' ')?.trim().to_owned());
        self.said.iter().find_map(value)
    }

    /// Sends it a signal, such as `INT`.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.pid(), name);
    }

    /// Ends it by a signal, and waits until it has ended: how it did, and all that it said.
    pub(crate) fn end_by(mut self, signal: &str) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        let status = self.process.wait().expect("ours");
        self.said.extend(self.lines.iter());
        (status, std::mem::take(&mut self.said))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

/// Sends a signal, such as `INT`, to a process, or to several with blanks between them.
pub(crate) fn signal(processes: &impl Display, name: &str) {
    // The shell's own `kill`: a minimal system has no program of that name.
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {processes}")]).status().expect("sh");
    assert!(sent.success());
}

/// A dump in the tree.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new("../tests/fixtures/stackexchange").join(name).canonicalize().expect("it is in the tree")
}

//! Setting up, starting, adopting and stopping one server.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    NAME,
    binaries::Binaries,
    failure,
    home::{Home, PORT},
    read_optional,
    user::ServerUser,
};

/// How long a start may take: recovery after a crash replays at most `max_wal_size` of log.
const START_SECONDS: u64 = 180;

/// How long a fast shutdown may take: one checkpoint.
const STOP_SECONDS: u64 = 60;

/// How long the sessions of a killed server may hold up the next one.
const ORPHAN_SECONDS: u64 = 10;

/// How Postgres says that they do, or that its own process is not yet buried.
const ORPHANS: [&str; 2] = ["pre-existing shared memory block", ".lock\" already exists"];

const POLL: Duration = Duration::from_millis(100);

/// What every server runs with; the rest is Postgres's own default.
const SETTINGS: [(&str, &str); 10] = [
    ("listen_addresses", ""),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    ("synchronous_commit", "on"),
    ("max_connections", "100"),
    ("shared_buffers", "128MB"),
    // Statements carry people's words and addresses, and their errors reach the caller anyway: only what concerns the
    // server as a whole goes to its log, which so stays small.
    ("log_min_messages", "log"),
    ("log_min_error_statement", "panic"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
];

/// A server that may or may not be running.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) binaries: Binaries,
    pub(super) user: ServerUser,
    pub(super) home: Home,
}

impl Server {
    /// Creates the cluster if there is none, and starts the server if none runs. Says whether one was adopted.
    pub(super) fn ensure_running(&self, settings: &[(&str, &str)]) -> anyhow::Result<bool> {
        if !self.home.data().exists() {
            self.create()?;
        }
        self.configure(settings)?;
        if self.adopt()? {
            return Ok(true);
        }
        let log = self.home.log();
        if log.exists() {
            fs::rename(&log, log.with_extension("log.before")).context("cannot set the old log aside")?;
        }
        self.launch()?;
        Ok(false)
    }

    /// Starts it again where it has ended by itself (killed, out of memory); says whether it had.
    pub(super) fn revive(&self) -> anyhow::Result<bool> {
        let gone = self.postmaster()?.is_none();
        if gone {
            self.launch()?;
        }
        Ok(gone)
    }

    /// A fast shutdown: sessions are ended, the data is flushed.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        if self.postmaster()?.is_some() {
            self.shut_down("fast")?;
        }
        self.home.leave();
        Ok(())
    }

    /// Set up under another name and renamed when whole: a half-made cluster is never mistaken for one.
    fn create(&self) -> anyhow::Result<()> {
        let unfinished = self.home.unfinished();
        self.home.remove_unfinished();
        self.create_at(&unfinished).inspect_err(|_| self.home.remove_unfinished())?;
        fs::rename(&unfinished, self.home.data()).context("cannot name the new database directory")?;
        File::open(self.home.dir())?.sync_all()?;
        Ok(())
    }

    fn create_at(&self, dir: &Path) -> anyhow::Result<()> {
        let mut initdb = self.command("initdb");
        // The order is the same with both; to compare by `C` is to compare bytes, by `C.UTF-8` to ask the C library.
        initdb.args(["--username=postgres", "--auth=peer", "--encoding=UTF8", "--locale=C.UTF-8", "--lc-collate=C"]);
        initdb.args(["--data-checksums", "--pgdata"]).arg(dir);
        self.run("initdb", &mut initdb)?;

        let file = dir.join("postgresql.conf");
        let conf = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        self.write(&file, &format!("{conf}\ninclude 'agora.conf'\ninclude_if_exists 'local.conf'\n"))?;
        self.write(&dir.join("agora.conf"), "")?;

        // Single-user mode: the role and the database are there before anyone can connect.
        let mut single = self.command("postgres");
        single.args(["--single", "-D"]).arg(dir).arg("postgres");
        // One statement a line.
        let statements = format!("create role {NAME} login createdb;\ncreate database {NAME} owner {NAME};\n");
        let output = feed(&mut single, &statements)?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() || said.contains("ERROR:") {
            return Err(failure::explain("postgres --single", &said, self.home.dir()));
        }
        Ok(())
    }

    /// Written anew at each start, so that an upgrade of Agora brings its settings along. `local.conf` is the operator's.
    fn configure(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut conf = String::from("# Written by Agora at each start. Settings of yours go into local.conf.\n");
        let socket_directory = self.home.socket_directory().display().to_string();
        let port = PORT.to_string();
        let ours = [("port", port.as_str()), ("unix_socket_directories", socket_directory.as_str())];
        for (name, value) in SETTINGS.iter().chain(&ours).chain(settings) {
            writeln!(conf, "{name} = '{}'", value.replace('\'', "''"))?;
        }
        // The kernel vouches for who is at the other end of a Unix socket.
        let hba = "# Written by Agora at each start.\nlocal all all peer map=agora\n";
        let mut ident = String::from("# Written by Agora at each start.\n");
        for system_user in [&self.user.name, &self.user.caller] {
            for role in [NAME, "postgres"] {
                writeln!(ident, "agora \"{system_user}\" {role}")?;
            }
        }
        for (name, text) in [("agora.conf", conf.as_str()), ("pg_hba.conf", hba), ("pg_ident.conf", &ident)] {
            self.write(&self.home.data().join(name), text)?;
        }
        Ok(())
    }

    /// Whole or not at all, also on a full disk. Done by the server's user: as root we follow no link that it may have
    /// laid in a directory of its own.
    fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let mut shell = self.user.command(Path::new("/bin/sh"));
        shell.args(["-c", r#"cat >"$0.new" && sync "$0.new" && mv "$0.new" "$0""#]).arg(path);
        let output = feed(&mut shell, text)?;
        if !output.status.success() {
            let name = format!("writing {}", path.display());
            return Err(failure::explain(&name, &String::from_utf8_lossy(&output.stderr), self.home.dir()));
        }
        Ok(())
    }

    /// Takes over a server that outlived its Agora. One that does not answer is ended, and recovers when started anew.
    fn adopt(&self) -> anyhow::Result<bool> {
        let deadline = Instant::now() + Duration::from_secs(START_SECONDS);
        while let Some(postmaster) = self.postmaster()? {
            if self.answers()? {
                let mut reload = self.command("pg_ctl");
                reload.args(["reload", "--silent", "-D"]).arg(self.home.data());
                self.run("pg_ctl reload", &mut reload)?;
                return Ok(true);
            }
            if !postmaster.ready && Instant::now() < deadline {
                thread::sleep(POLL);
                continue;
            }
            self.shut_down("immediate").with_context(|| {
                format!("the Postgres left over here (process {}) does not answer: kill it", postmaster.pid)
            })?;
        }
        Ok(false)
    }

    /// The server that runs on our data, if one does. A lock file that names another program's process (the number was
    /// given out again after a crash of the machine) is removed: Postgres would refuse to start because of it.
    fn postmaster(&self) -> anyhow::Result<Option<Postmaster>> {
        let data = self.home.data();
        let file = data.join("postmaster.pid");
        let Some(text) = read_optional(&file)? else {
            return Ok(None);
        };
        let mut lines = text.lines();
        let Some(pid) = lines.next().and_then(|line| line.trim().parse::<u32>().ok()) else {
            return Ok(None);
        };
        // A server's working directory is its data. One that cannot be read is not of our user, or of a dead process.
        match fs::read_link(format!("/proc/{pid}/cwd")) {
            Ok(cwd) if cwd == data => {
                let ready = lines.nth(6).is_some_and(|status| status.trim() == "ready");
                Ok(Some(Postmaster { pid, ready }))
            }
            _ => {
                fs::remove_file(&file).with_context(|| format!("cannot remove the stale {}", file.display()))?;
                Ok(None)
            }
        }
    }

    fn answers(&self) -> anyhow::Result<bool> {
        let mut command = self.command("pg_isready");
        command.args(["--quiet", "--timeout=3", "--port"]).arg(PORT.to_string());
        command.arg("--host").arg(self.home.socket_directory());
        Ok(command.status().context("cannot run pg_isready")?.success())
    }

    /// After a `kill -9` of the server alone its sessions take a moment to notice, and hold the shared memory until then.
    fn launch(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(ORPHAN_SECONDS);
        loop {
            match self.try_launch() {
                Err(error) if Instant::now() < deadline && ORPHANS.iter().any(|it| error.to_string().contains(it)) => {
                    thread::sleep(POLL);
                }
                result => return result,
            }
        }
    }

    fn try_launch(&self) -> anyhow::Result<()> {
        let log = self.home.log();
        let before = fs::metadata(&log).map_or(0, |log| log.len());
        let mut command = self.command("pg_ctl");
        command.args(["start", "--silent", "--wait", "--timeout"]).arg(START_SECONDS.to_string());
        command.arg("--log").arg(&log).arg("-D").arg(self.home.data());
        // The server inherits this: a pipe would stay open for as long as it runs.
        let mut said_by_pg_ctl = tempfile::tempfile().context("cannot make a temporary file")?;
        command.stdout(Stdio::null()).stderr(said_by_pg_ctl.try_clone()?);
        if command.status().context("cannot run pg_ctl")?.success() {
            return Ok(());
        }
        let mut said = said_since(&log, before).unwrap_or_default();
        // Where the server did not get as far as its log.
        said_by_pg_ctl.rewind()?;
        said_by_pg_ctl.read_to_end(&mut said)?;
        Err(failure::explain(&format!("see {}", log.display()), &String::from_utf8_lossy(&said), self.home.dir()))
    }

    fn shut_down(&self, mode: &str) -> anyhow::Result<()> {
        let mut command = self.command("pg_ctl");
        command.args(["stop", "--silent", "--wait", "--mode", mode, "--timeout"]).arg(STOP_SECONDS.to_string());
        self.run("pg_ctl stop", command.arg("-D").arg(self.home.data()))
    }

    fn command(&self, program: &str) -> Command {
        self.user.command(&self.binaries.program(program))
    }

    fn run(&self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let output = command.output().with_context(|| format!("cannot run {name}"))?;
        if !output.status.success() {
            return Err(failure::explain(name, &String::from_utf8_lossy(&output.stderr), self.home.dir()));
        }
        Ok(())
    }
}

struct Postmaster {
    pid: u32,
    /// Neither starting, recovering nor stopping.
    ready: bool,
}

/// What was written to a log behind its first bytes.
fn said_since(log: &Path, before: u64) -> io::Result<Vec<u8>> {
    let (mut log, mut said) = (File::open(log)?, Vec::new());
    log.seek(io::SeekFrom::Start(before))?;
    log.read_to_end(&mut said)?;
    Ok(said)
}

/// Runs a command with `input` as its standard input. One that ends without reading it all shows in its exit status.
fn feed(command: &mut Command, input: &str) -> anyhow::Result<Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let program = command.get_program().display().to_string();
    let mut child = command.spawn().with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).ok();
    }
    Ok(child.wait_with_output()?)
}

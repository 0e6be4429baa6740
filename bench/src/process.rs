//! Agora's processes under measurement, and what they take of the machine (proc(5)).

use std::{
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agora_tests::{kafka::free_port, reaper::Reaper};
use anyhow::{Context as _, bail, ensure};
use platform::kafka::KafkaConfig;

use crate::load::Connection;

/// How long one may take until it is ready.
const START: Duration = Duration::from_secs(60);
/// Of the times in /proc: 100 a second on every Linux (`USER_HZ`).
const TICKS: f64 = 100.;
/// Bytes of a page in /proc.
const PAGE: f64 = 4096.;

/// Where a process finds what it needs.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its database.
    pub database: String,
    /// Its Kafka; none for the broker inside the process, which only `up` has.
    pub kafka: Option<KafkaConfig>,
    /// The only core that it may use, of all.
    pub core: Option<usize>,
}

/// A process of Agora. Killed when dropped.
pub struct Agora {
    /// Where it listens.
    pub address: SocketAddr,
    admin: SocketAddr,
    child: Child,
    log: std::path::PathBuf,
    /// Whether it has a Kafka outside of it.
    pub with_kafka: bool,
    _reaper: Reaper,
}

impl Agora {
    /// Starts `agora ROLE` with these settings (dotted keys) besides, and waits until it is ready. Its log is in `dir`.
    ///
    /// # Errors
    /// Where it ends, or is not ready within a minute: with the end of its log.
    pub async fn start(
        binary: &Path,
        dir: &Path,
        role: &str,
        place: &Place,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let (port, admin) = (free_port(), free_port());
        let [address, admin] = [port, admin].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let log = dir.join(format!("{role}-{port}.log"));
        let command = place.core.map_or_else(|| Command::new(binary), |core| on_core(core, binary));
        let mut command = without_settings(command);
        let data = dir.join(format!("{role}-{port}"));
        command.arg(role).args(["--database-url", &place.database, "--dir"]).arg(&data);
        command.args(["--listen", &address.to_string(), "--admin-listen", &admin.to_string()]);
        if let Some(kafka) = &place.kafka {
            command.args(["--kafka-brokers", kafka.brokers.as_deref().context("a broker's address")?]);
            command.env("AGORA__KAFKA__EVENTS_TOPIC", &kafka.events_topic);
            command.env("AGORA__KAFKA__CHANGES_TOPIC", &kafka.changes_topic);
            command.env("AGORA__KAFKA__GROUP", &kafka.group);
            command.env("AGORA__KAFKA__PARTITIONS", kafka.partitions.to_string());
        }
        command.env("AGORA__TELEMETRY__LOG", "warn,rdkafka=error,librdkafka=off");
        for (key, value) in settings {
            command.env(format!("AGORA__{}", key.to_uppercase().replace('.', "__")), value);
        }
        let said = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        let child = command.spawn().with_context(|| format!("{} does not start", binary.display()))?;
        let reaper = Reaper::new(&only(child.id(), address));
        let mut started = Self { address, admin, child, log, with_kafka: place.kafka.is_some(), _reaper: reaper };
        started.until_ready().await?;
        Ok(started)
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        loop {
            // There, as the projector answers nobody else.
            if let Ok(mut connection) = Connection::open(self.admin).await
                && let Ok(answer) = connection.exchange(b"GET /health/ready HTTP/1.1\r\nhost: bench\r\n\r\n").await
                && answer.status == 200
            {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("agora is not ready (ended: {ended:?}):\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it counted so far, of its `/metrics`: the sum of all lines of that name with all these labels (`view="x"`);
    /// 0 where there is none yet.
    ///
    /// # Errors
    /// Where it has ended.
    pub async fn counted(&self, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
        let mut connection = Connection::open(self.admin).await?;
        let answer = connection.exchange(b"GET /metrics HTTP/1.1\r\nhost: bench\r\n\r\n").await?;
        let lines = std::str::from_utf8(answer.body)?.lines();
        let values = lines.filter_map(|line| {
            let (labelled, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let of_name = labelled.is_empty() || labelled.starts_with('{');
            let ours = of_name && labels.iter().all(|label| labelled.contains(label));
            ours.then(|| value.parse::<f64>())
        });
        Ok(values.sum::<Result<f64, _>>()?)
    }

    /// CPU seconds that it took so far.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        cpu_of(self.child.id())
    }

    /// Bytes that it has in memory: resident, less the pages of files (its program), which it shares.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn memory(&self) -> anyhow::Result<f64> {
        memory_of(self.child.id())
    }

    /// Bytes that it has in memory, with those pages.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn resident(&self) -> anyhow::Result<f64> {
        Ok(resident_and_shared(self.child.id())?[0])
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    ///
    /// # Errors
    /// Those of wait(2).
    pub fn stop(mut self) -> anyhow::Result<()> {
        Command::new("sh").args(["-c", &format!("kill {}", self.child.id())]).status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Agora {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A program that does not see what the user has set for an Agora of their own.
pub fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGORA")) {
        command.env_remove(name);
    }
    command
}

/// A program that has one core only.
fn on_core(core: usize, program: &Path) -> Command {
    let mut pinned = Command::new("taskset");
    pinned.args(["--cpu-list", &core.to_string()]).arg(program);
    pinned
}

/// A baseline's process, which listens somewhere. Killed when dropped.
pub struct Baseline {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    _reaper: Reaper,
}

impl Baseline {
    /// Starts it, on one core where one is named, with arguments that name the address to listen on; waits until it does.
    ///
    /// # Errors
    /// Where it does not within a minute.
    pub async fn start(
        program: &Path,
        core: Option<usize>,
        arguments: impl FnOnce(SocketAddr) -> Vec<OsString>,
    ) -> anyhow::Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = core.map_or_else(|| Command::new(program), |core| on_core(core, program));
        command.args(arguments(address)).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{} does not start", program.display()))?;
        let reaper = Reaper::new(&only(child.id(), address));
        let mut started = Self { address, child, _reaper: reaper };
        let deadline = Instant::now() + START;
        while Connection::open(address).await.is_err() {
            let ended = started.child.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < deadline, "{} does not listen: {ended:?}", program.display());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(started)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What ends that very process, which was told to listen there: it may have ended, and another have got its number.
fn only(pid: u32, address: SocketAddr) -> String {
    format!("grep -q '{address}' /proc/{pid}/cmdline && kill -9 {pid}")
}

/// The core of what is measured, where it and the generator have one each.
pub const SERVER: usize = 0;
/// That of the generator.
pub const GENERATOR: usize = 1;

/// A process on one core, with all its threads and what it starts from then on, as long as this lives: what else is measured
/// has the other cores for itself.
pub struct Pinned {
    pid: u32,
    before: String,
}

impl Pinned {
    /// Moves this process there.
    ///
    /// # Errors
    /// Where there is no such core.
    pub fn to(core: usize) -> anyhow::Result<Self> {
        Self::of(std::process::id(), core)
    }

    /// Moves another.
    ///
    /// # Errors
    /// Where there is no such core, or no such process.
    pub fn of(pid: u32, core: usize) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let before = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).context("no cores")?;
        let pinned = Self { pid, before: before.trim().to_owned() };
        ensure!(pin(pid, &core.to_string())?, "there is no core {core}");
        Ok(pinned)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        pin(self.pid, &self.before).ok();
    }
}

fn pin(pid: u32, cores: &str) -> std::io::Result<bool> {
    let mut command = Command::new("taskset");
    command.args(["--all-tasks", "--cpu-list", "--pid", cores, &pid.to_string()]);
    Ok(command.stdout(Stdio::null()).status()?.success())
}

/// Runs a program to its end; answers how long that took.
///
/// # Errors
/// Where it fails: with what it said.
pub async fn timed(mut command: Command) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let (command, output) = tokio::task::spawn_blocking(move || {
        let output = command.output();
        (command, output)
    })
    .await?;
    let took = began.elapsed();
    let output = output.with_context(|| format!("{command:?} does not run"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(took)
}

/// Runs a program to its end; answers the most bytes that it had in memory, its own pages included (`VmHWM`).
///
/// # Errors
/// Where it fails.
pub async fn most_memory_of(mut command: Command) -> anyhow::Result<f64> {
    tokio::task::spawn_blocking(move || {
        let (mut child, mut most) = (command.spawn()?, 0.);
        let status = format!("/proc/{}/status", child.id());
        loop {
            let ended = child.try_wait()?;
            // Of one that has ended it says nothing any more: what it had last is less old than this waits.
            let said = fs::read_to_string(&status).unwrap_or_default();
            let peak =
                said.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
            most = peak.map_or(most, |kib: f64| 1024. * kib);
            if let Some(ended) = ended {
                ensure!(ended.success() && most > 0., "{command:?} ended with {ended}");
                return Ok(most);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    })
    .await?
}

/// Bytes that a process has in memory: resident, less the pages of files (its program), which it shares.
///
/// # Errors
/// Where there is no such process.
pub fn memory_of(pid: u32) -> anyhow::Result<f64> {
    let [resident, shared] = resident_and_shared(pid)?;
    Ok(resident - shared)
}

fn resident_and_shared(pid: u32) -> anyhow::Result<[f64; 2]> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let mut fields = statm.split(' ').skip(1).map(str::parse::<f64>);
    let (Some(Ok(resident)), Some(Ok(shared))) = (fields.next(), fields.next()) else { bail!("statm says {statm}") };
    Ok([resident * PAGE, shared * PAGE])
}

/// CPU seconds that a process took so far.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_of(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    Ok(fields(&stat)[11..13].iter().sum::<f64>() / TICKS)
}

/// CPU seconds that a process and all its children took so far, those that have ended included.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_of_family(pid: u32) -> anyhow::Result<f64> {
    let mut ticks = 0.;
    for process in fs::read_dir("/proc")? {
        // Others come and go meanwhile.
        let Ok(stat) = fs::read_to_string(process?.path().join("stat")) else { continue };
        let fields = fields(&stat);
        if stat.starts_with(&format!("{pid} ")) {
            ticks += fields[11..15].iter().sum::<f64>();
        } else if fields.get(1) == Some(&f64::from(pid)) {
            ticks += fields[11..13].iter().sum::<f64>();
        }
    }
    Ok(ticks / TICKS)
}

/// What stands behind the name in proc(5)'s `stat`: the state (as no number), the parent, …; 11 and 12 are user and
/// system time, 13 and 14 those of ended children.
fn fields(stat: &str) -> Vec<f64> {
    let behind = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    behind.split(' ').map(|field| field.trim().parse().unwrap_or(f64::NAN)).collect()
}

/// CPU seconds of the calling thread.
///
/// # Errors
/// Where the kernel does not say.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds of a few minutes")]
pub fn thread_cpu() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

//! One of Agora's processes: started again where it ends, as whatever runs it for real would.

use std::{
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use super::link::Link;
use crate::kafka::free_port;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Takes commands.
    Command,
    /// Relays and projects.
    Projector,
    /// Answers reads.
    Query,
}

impl Role {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Command => "command-service",
            Self::Projector => "projector",
            Self::Query => "query-service",
        }
    }
}

/// A process, with links of its own to the database and to Kafka.
pub(crate) struct Service {
    /// What it is.
    pub(crate) role: Role,
    /// `command-service-1`.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its way to Postgres.
    pub(crate) postgres: Link,
    /// Its way to Kafka.
    pub(crate) kafka: Link,
    agora: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    process: Option<Child>,
}

impl Service {
    /// One that does not run yet.
    pub(crate) async fn new(role: Role, number: usize, agora: PathBuf, dir: &std::path::Path) -> anyhow::Result<Self> {
        let name = format!("{}-{number}", role.name());
        let log = dir.join(format!("{name}.log"));
        let (postgres, kafka) = (Link::listen().await?, Link::listen().await?);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let arguments = vec![role.name().to_owned()];
        Ok(Self { role, name, address, postgres, kafka, agora, arguments, environment: vec![], log, process: None })
    }

    /// A setting, as an environment variable has it.
    pub(crate) fn set(&mut self, name: &str, value: &dyn std::fmt::Display) {
        self.environment.push((name.to_owned(), value.to_string()));
    }

    /// Starts it.
    ///
    /// # Errors
    /// Where the binary does not run at all.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.agora);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGORA")) {
            command.env_remove(name);
        }
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().with_context(|| format!("{} does not start", self.agora.display()))?;
        // For the reaper, should the campaign be killed.
        std::fs::write(self.log.with_extension("pid"), process.id().to_string())?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it at once, as a power cut would.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
            self.forget();
        }
    }

    /// Its number may be given out again.
    fn forget(&self) {
        std::fs::remove_file(self.log.with_extension("pid")).ok();
    }

    /// Asks it to end, and waits until it has; kills it where it takes longer than 30 s.
    ///
    /// # Errors
    /// Where it had to be killed.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.signal("TERM");
        for _ in 0..300 {
            if !matches!(self.process.as_mut().map(Child::try_wait), Some(Ok(None))) {
                self.process = None;
                self.forget();
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.kill9();
        anyhow::bail!("{} did not end within 30 s of SIGTERM", self.name)
    }

    /// Stops its clock, as a machine that hangs; [`Service::thaw`] lets it go on.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    /// Starts it again where it has ended; says whether it had.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub(crate) fn revive(&mut self) -> anyhow::Result<bool> {
        let ended = match &mut self.process {
            None => true,
            Some(process) => process.try_wait()?.is_some(),
        };
        if ended {
            self.start()?;
        }
        Ok(ended)
    }

    fn signal(&self, name: &str) {
        if let Some(process) = &self.process {
            // The shell's own `kill`: a minimal system has no program of that name.
            let _ = Command::new("sh").args(["-c", &format!("kill -{name} {}", process.id())]).status();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill9();
    }
}

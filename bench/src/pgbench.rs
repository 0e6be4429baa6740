//! `pgbench` (pgbench(1)), the baseline of what Postgres itself can do.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};

/// Clients that it takes seconds to connect.
const MANY: usize = 1_000;
/// Seconds that it lasts with them at least.
const LONG: u64 = 5;

/// A pgbench of one script in one database.
#[derive(Clone, Debug)]
pub struct Pgbench<'a> {
    database: &'a str,
    dir: &'a Path,
    /// Run-time parameters of its connections, as `PGOPTIONS` has them.
    parameters: String,
}

/// What it measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Transactions a second, connecting not counted.
    pub rate: f64,
    /// Mean time of one, in ms.
    pub ms: f64,
}

impl<'a> Pgbench<'a> {
    pub(crate) fn new(database: &'a str, dir: &'a Path) -> Self {
        Self { database, dir, parameters: String::new() }
    }

    /// The same, with these run-time parameters.
    #[must_use]
    pub fn with(self, parameters: impl IntoIterator<Item = (&'static str, &'static str)>) -> Self {
        let parameters: Vec<String> = parameters.into_iter().map(|(name, value)| format!("-c{name}={value}")).collect();
        Self { parameters: parameters.join(" "), ..self }
    }

    /// Runs a script over and over: prepared statements, so many clients. Blocks a thread of the pool that is made for it.
    ///
    /// # Errors
    /// Where pgbench is not there, or a transaction fails.
    pub async fn run(&self, script: &str, clients: usize, lasts: Duration) -> anyhow::Result<Measured> {
        let file = self.dir.join("pgbench.sql");
        fs::write(&file, script)?;
        let mut command = Command::new("pgbench");
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=2"]).arg("--file").arg(&file);
        let seconds = lasts.as_secs().max(if clients < MANY { 1 } else { LONG });
        command.args([format!("--client={clients}"), format!("--time={seconds}")]);
        // A script may count with it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        command.arg(format!("--define=n={since}")).arg(self.database).env("PGOPTIONS", &self.parameters);
        let output = tokio::task::spawn_blocking(move || command.output()).await?.context("pgbench does not run")?;
        let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench: {said}{wrong}");
        let number = |before: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(before));
            let number = line.and_then(|rest| rest.split(' ').next()?.parse().ok());
            number.with_context(|| format!("pgbench does not say `{before}`: {said}"))
        };
        Ok(Measured { rate: number("tps = ")?, ms: number("latency average = ")? })
    }
}

//! `psql` (psql(1)), the baseline of what `COPY` can do.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::process::timed;

/// Runs these commands one after the other in one session; answers how long that took, connecting counted.
///
/// # Errors
/// Where psql is not there, or a command fails.
pub async fn psql(database: &str, commands: &[String]) -> anyhow::Result<Duration> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]).stdin(Stdio::null());
    for each in commands {
        command.args(["--command", each]);
    }
    timed({
        command.arg(database);
        command
    })
    .await
}

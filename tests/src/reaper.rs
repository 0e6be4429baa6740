//! Cleaning up behind a test process, however it ends.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs a shell script when it is dropped, or when this process ends: by return, panic, exit or `kill -9`.
///
/// The script waits for the end of a pipe that only this process holds open; the kernel closes it.
pub struct Reaper {
    pipe: Option<ChildStdin>,
    shell: Child,
}

impl Reaper {
    /// Starts the shell that waits.
    pub fn new(script: &str) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", &format!("cat >/dev/null; {script}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C ends the tests, not what cleans up behind them.
            .process_group(0)
            .spawn()
            .expect("a shell");
        Self { pipe: shell.stdin.take(), shell }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.pipe.take());
        self.shell.wait().ok();
    }
}

/// `text` as one word of a shell script.
pub fn quoted(text: &std::path::Path) -> String {
    format!("'{}'", text.display().to_string().replace('\'', r"'\''"))
}

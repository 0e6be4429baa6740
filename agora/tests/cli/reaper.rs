//! Cleaning up behind a test, however it ends.

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

/// Ends what still runs below a directory, and takes the directory away: when it is dropped, or when this process ends,
/// by return, panic, exit or `kill -9`.
pub(crate) struct Reaper {
    pipe: Option<ChildStdin>,
    shell: Child,
}

/// It waits for the end of a pipe that only the test's process holds open; the kernel closes it. Of an embedded Postgres
/// it ends the first process, which ends the others and gives back what memory they share.
const SCRIPT: &str = r#"
cat >/dev/null
below() {
    ls -l /proc/[0-9]*/cwd 2>/dev/null | sed -n "s|.* /proc/\([0-9]*\)/cwd -> $0\$|\1|p; s|.* /proc/\([0-9]*\)/cwd -> $0/.*|\1|p"
}
left() { for pid in $(below); do tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q "$1" && echo "$pid"; done; }
for pid in $(left '/agora '); do kill -KILL "$pid"; done
for pid in $(left '/bin/postgres -D'); do
    kill -QUIT "$pid"
    while kill -0 "$pid"; do sleep 0.02; done
done
rm -rf "$0"
"#;

impl Reaper {
    /// Of a directory whose name has nothing that a shell or a pattern would read in its own way.
    pub(crate) fn of(dir: &Path) -> Self {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(dir)
            .current_dir("/")
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

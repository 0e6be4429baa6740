//! What is wrong with the machine at a start: a full disk, no Postgres, one that is too old, a home that is closed.
//!
//! Each test has a view of the file system of its own (a mount namespace), in which it may mount what it likes: the rest
//! of the machine sees nothing of it, and it is gone with the last process in it. Linux lets anyone have one, but some
//! machines are set up otherwise: there these tests say that they were skipped.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::json;

use crate::{
    agora::{Agora, Up, refuses},
    client::Client,
};

/// A shell in the view, through which it is changed.
struct Machine {
    shell: Child,
    /// Who we are outside; 0 is root.
    user: u32,
}

impl Machine {
    /// Nothing, with a word about it, where this machine lets us have none.
    fn new() -> Option<Self> {
        let user = std::fs::metadata("/proc/self").expect("we are here").uid();
        // Who is not root is, in there, for as long as it takes to mount something.
        let as_root: &[&str] = if user == 0 { &[] } else { &["--user", "--map-root-user"] };
        let mut unshare = Command::new("unshare");
        unshare.args(as_root).args(["--mount", "--propagation", "private", "sh"]);
        unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut machine = Self { shell: unshare.spawn().ok()?, user };
        if machine.try_run("true").is_none() {
            println!("skipped: this machine lets us have no file system of our own (unshare --mount)");
            return None;
        }
        Some(machine)
    }

    /// Changes the view.
    fn run(&mut self, script: &str) {
        assert!(self.try_run(script).is_some(), "{script}");
    }

    fn try_run(&mut self, script: &str) -> Option<()> {
        let shell = &mut self.shell;
        writeln!(shell.stdin.as_mut()?, "( {script} ) && echo done || echo failed").ok()?;
        let mut line = String::new();
        let stdout = shell.stdout.take()?;
        let mut lines = BufReader::with_capacity(1, stdout);
        lines.read_line(&mut line).ok()?;
        shell.stdout = Some(lines.into_inner());
        (line == "done\n").then_some(())
    }

    /// The same command, run in there by the user that we are.
    fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &self.shell.id().to_string(), "--mount"]);
        if self.user != 0 {
            let user = self.user.to_string();
            inside.args(["--user", "--preserve-credentials", "unshare", "--user"]);
            inside.args(["--map-user", &user, "--map-group", &user]);
        }
        inside.arg("env");
        // nsenter goes to the root directory.
        inside.arg("--chdir").arg(command.get_current_dir().expect("a directory"));
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// A path as it is in there.
    fn path(&self, path: &Path) -> PathBuf {
        Path::new("/proc")
            .join(self.shell.id().to_string())
            .join("root")
            .join(path.strip_prefix("/").expect("absolute"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shell.kill().ok();
        self.shell.wait().ok();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_at_a_start_and_leaves_nothing_half_made() {
    let (agora, Some(mut machine)) = (Agora::new(), Machine::new()) else { return };
    let dir = agora.path().join(".agora");
    let disk = dir.display();
    machine.run(&format!("mkdir {disk} && mount -t tmpfs -o size=200m,mode=711 tmpfs {disk}"));
    machine.run(&format!("head -c 190M /dev/zero >{disk}/filler"));
    let said = refuses(machine.inside(&agora.up()));
    let full = format!("the disk that holds {disk}/postgres is full: free some space");
    assert!(said.contains(&full), "{said}");
    let left = std::fs::read_dir(machine.path(&dir.join("postgres"))).expect("its directory").count();
    assert_eq!(left, 0, "nothing half-made");

    machine.run(&format!("rm {disk}/filler"));
    let first = Up::start(machine.inside(&agora.up()));
    let ada = Client::of(&first).register("ada").await;
    ada.post("/v2/communities", &json!({"slug": "tea", "name": "Tea", "description": ""})).await;
    assert_eq!(ada.get("/v2/communities/tea").await["name"], "Tea");
    assert!(first.end_by("INT").0.success());

    machine.run(&format!("! cat /dev/zero >{disk}/filler 2>/dev/null"));
    let said = refuses(machine.inside(&agora.up()));
    assert!(said.contains(&full), "{said}");
    machine.run(&format!("rm {disk}/filler"));
    let second = Up::start(machine.inside(&agora.up()));
    assert_eq!(Client::of(&second).get("/v2/communities/tea").await["name"], "Tea");
    assert!(second.end_by("INT").0.success());
}

#[test]
fn no_postgres_and_one_that_is_too_old_say_what_to_do() {
    let (agora, Some(mut machine)) = (Agora::new(), Machine::new()) else { return };
    let debian = "/usr/lib/postgresql";
    if !Path::new(debian).is_dir() {
        println!("skipped: Postgres is not where Debian has it");
        return;
    }
    // Only Debian's place, and what it takes to be asked.
    let mut up = agora.up();
    up.env("PATH", "/usr/bin:/bin");
    machine.run(&format!("mount -t tmpfs tmpfs {debian}"));
    let said = refuses(machine.inside(&up));
    assert!(said.contains("no PostgreSQL server is installed (looked in /usr/lib/postgresql"), "{said}");
    assert!(said.contains("`apt-get install postgresql` gives one"), "{said}");

    let old = format!("{debian}/13/bin");
    machine.run(&format!(
        "mkdir -p {old} && cd {old} && printf '#!/bin/sh\\necho \"postgres (PostgreSQL) 13.22\"\\n' >postgres && \
         chmod 755 postgres && cp postgres initdb && cp postgres pg_ctl && cp postgres pg_isready"
    ));
    let said = refuses(machine.inside(&up));
    assert!(said.contains(&format!("PostgreSQL 13 in {old} is too old, Agora needs 15 or newer")), "{said}");
    let data = agora.path().join(".agora/postgres/data");
    assert!(!data.exists(), "no database was made");
}

#[test]
fn where_the_database_cannot_be_beside_the_clone_it_is_elsewhere_and_that_is_said() {
    let (agora, Some(mut machine)) = (Agora::new(), Machine::new()) else { return };
    if machine.user != 0 {
        println!("skipped: only root runs Postgres as another user, who may not get everywhere");
        return;
    }
    machine.run(&format!("mount -t tmpfs -o mode=755 tmpfs /var/lib && chmod 700 {}", agora.path().display()));
    let up = Up::start(machine.inside(&agora.up()));
    let data = up.named("data").expect("it says where the data is");
    assert!(data.starts_with("/var/lib/agora/"), "{data}");
    let said = up.said.join("\n");
    assert!(said.contains("the system user that runs it cannot get into"), "{said}");
    assert!(up.end_by("INT").0.success());
    let again = Up::start(machine.inside(&agora.up()));
    assert_eq!(again.named("data"), Some(data));
    assert!(again.end_by("INT").0.success());
}

#[test]
fn a_strict_umask_keeps_nobody_out_who_runs_the_database() {
    let (agora, Some(mut machine)) = (Agora::new(), Machine::new()) else { return };
    if machine.user != 0 {
        println!("skipped: only root runs Postgres as another user, who may not get everywhere");
        return;
    }
    let strict = |command: Command| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 077 && exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
        shell.current_dir(agora.path());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    };
    machine.run("mount -t tmpfs -o mode=755 tmpfs /var/lib");
    let up = Up::start(strict(machine.inside(&agora.up())));
    assert!(machine.path(&agora.path().join(".agora/postgres/data")).is_dir(), "{:?}", up.said);
    assert!(up.end_by("INT").0.success());
    machine.run(&format!("chmod 700 {dir} && rm -r {dir}/.agora", dir = agora.path().display()));
    let up = Up::start(strict(machine.inside(&agora.up())));
    assert!(up.named("data").is_some_and(|data| data.starts_with("/var/lib/agora/")), "{:?}", up.said);
    assert!(up.end_by("INT").0.success());

    // Where it can get nowhere, that is said.
    machine.run("rm -r /var/lib/agora && chmod 700 /var/lib");
    let said = refuses(strict(machine.inside(&agora.up())));
    assert!(said.contains("can get neither into"), "{said}");
}

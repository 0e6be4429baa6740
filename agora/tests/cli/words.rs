//! Help, messages and exit codes of commands for which nothing has to run.

use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::Stdio,
};

use crate::{
    agora::{Agora, fixture, signal},
    postgres,
};

#[test]
fn help_names_every_command_and_shows_examples() {
    let agora = Agora::new();
    let help = agora.prints(&["--help"]);
    let commands = [
        "up",
        "command-service",
        "projector",
        "query-service",
        "migrate",
        "import",
        "demo",
        "events",
        "stream",
        "projections",
        "check",
        "upgrade",
        "jobs",
        "operators",
        "config",
        "openapi",
        "completions",
    ];
    for command in commands {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in:\n{help}");
        assert!(agora.prints(&[command, "--help"]).contains("Usage: agora"), "{command}");
    }
    assert!(help.contains("Examples:"));
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

#[test]
fn settings_are_merged_printed_and_checked() {
    let agora = Agora::new();
    std::fs::write(agora.path().join("agora.toml"), "[http]\nlisten = \"127.0.0.1:1\"\n").expect("written");
    let check = ["config", "check", "--config", "agora.toml", "--database-url", "postgres://ada:hunter2@db/forum"];
    let printed = agora.prints(&check);
    assert!(
        printed.contains("listen = \"127.0.0.1:1\"") && printed.contains("url = \"postgres://ada:***@db/forum\""),
        "{printed}"
    );
    assert!(!printed.contains("hunter2"));

    let mut with_variable = agora.command(&check);
    let output = with_variable.env("AGORA__HTTP__LISTEN", "127.0.0.1:2").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("listen = \"127.0.0.1:2\""));

    std::fs::write(agora.path().join("agora.toml"), "[http]\nlisten = \"127.0.0.1:1\"\nlisen = 1\n").expect("written");
    let said = agora.refuses(&check);
    assert!(said.contains("lisen") && said.contains("agora.toml"), "{said}");
    let said = agora.refuses(&["config", "check", "--config", "nowhere.toml"]);
    assert!(said.contains("cannot read the configuration file nowhere.toml"), "{said}");
}

#[test]
fn what_is_generated_is_whole() {
    let agora = Agora::new();
    let api: serde_json::Value = serde_json::from_str(&agora.prints(&["openapi"])).expect("JSON");
    assert!(api["paths"]["/v2/threads/{id}/posts"].is_object());
    let catalogue: serde_json::Value = serde_json::from_str(&agora.prints(&["events", "catalogue"])).expect("JSON");
    let names: Vec<_> = catalogue.as_array().expect("a list").iter().map(|entry| entry["name"].as_str()).collect();
    assert!(names.contains(&Some("post.written")), "{names:?}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(agora.prints(&["completions", shell]).contains("stackexchange"), "{shell}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let agora = Agora::new();
    let mut child = agora.command(&["openapi"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn without_an_up_here_local_commands_say_what_to_do() {
    let agora = Agora::new();
    let dump = fixture("tiny");
    let local = [
        &["operators", "list"][..],
        &["events", "tail"],
        &["events", "replay"],
        &["events", "export", "--to", "history"],
        &["events", "show", "0191e2b8-7c00-7000-8000-000000000001"],
        &["events", "skip", "0191e2b8-7c00-7000-8000-000000000001", "--reason", "damaged"],
        &["stream", "thread", "0191e2b8-7c00-7000-8000-000000000001"],
        &["projections", "status"],
        &["projections", "verify", "--all"],
        &["check"],
        &["upgrade", "check"],
        &["migrate"],
        &["demo"],
        &["import", "stackexchange", dump.to_str().expect("a plain path")],
    ];
    for command in local {
        let said = agora.refuses(command);
        assert!(said.contains("no `agora up` runs in .agora"), "{command:?}: {said}");
    }
    assert!(!agora.path().join(".agora").exists(), "nothing is left behind");
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_started() {
    let agora = Agora::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = agora.refuses(&["up", "--listen", &address]);
    assert!(said.contains(&address) && said.contains("the port is in use"), "{said}");
    assert!(!agora.path().join(".agora").exists(), "no database was made");
}

#[test]
fn what_is_no_server_or_token_is_said() {
    let agora = Agora::new();
    let said = agora.refuses(&["demo", "--server", "http://127.0.0.1:1", "--token", "x"]);
    assert!(said.contains("http://127.0.0.1:1 does not answer: "), "{said}");
    let said = agora.refuses(&["demo", "--server", "http://127.0.0.1:1"]);
    assert!(said.contains("--server takes an operator's token"), "{said}");
    let said = agora.refuses(&["demo", "--server", "127.0.0.1", "--token", "x"]);
    assert!(said.contains("is not the address of a server"), "{said}");
    let said = agora.refuses(&[
        "up",
        "--database-url",
        "mysql://x",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
    ]);
    assert!(said.contains("postgres://"), "{said}");
}

#[test]
fn a_service_that_waits_for_its_database_ends_when_told_to() {
    let agora = Agora::new();
    for service in ["command-service", "query-service", "projector"] {
        // Nothing listens on port 1. It would be waited for, and then be an error.
        let mut command = agora.command(&[service, "--database-url", "postgres://ada@127.0.0.1:1/forum"]);
        let mut process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("waiting for the database")), "{service}");
        signal(&process.id(), "TERM");
        assert_eq!(lines.last(), None, "{service}");
        assert_eq!(process.wait().expect("ours").code(), Some(0), "{service}");
    }
}

#[tokio::test]
async fn a_cause_is_said_once() {
    let database = postgres::fresh_database().await.replace("/test_", "/no_test_");
    let said = Agora::new().refuses(&["migrate", "--database-url", &database]);
    assert!(said.contains("cannot reach Postgres "), "{said}");
    assert_eq!(said.matches("does not exist").count(), 1, "{said}");
}

#[test]
fn what_is_no_dump_is_said() {
    let agora = Agora::new();
    let server = ["--server", "http://127.0.0.1:1", "--token", "x"];
    let said = agora.refuses(&[&["import", "stackexchange", "nowhere"][..], &server].concat());
    assert!(said.contains("cannot open nowhere"), "{said}");
    let said = agora.refuses(&[&["import", "stackexchange", "."][..], &server].concat());
    assert!(said.contains("is not a Stack Exchange dump: it has no Users.xml"), "{said}");
}

/// JSON is for programs, and what a command says is for who runs it.
#[tokio::test]
async fn commands_that_end_by_themselves_log_in_words() {
    let (agora, database) = (Agora::new(), postgres::fresh_database().await);
    let said = |format: Option<&str>| {
        let mut tail = agora.command(&["events", "tail", "--database-url", &database]);
        tail.env("AGORA__TELEMETRY__LOG", "sqlx=debug");
        if let Some(format) = format {
            tail.env("AGORA__TELEMETRY__LOG_FORMAT", format);
        }
        String::from_utf8(tail.output().expect("it runs").stderr).expect("text")
    };
    let words = said(None);
    assert!(words.contains("select position as") && !words.contains('{'), "{words}");
    assert!(!words.contains("DEBUG"), "what is said, and nothing else: {words}");
    assert!(said(Some("json")).starts_with('{'), "unless it is asked for");
}

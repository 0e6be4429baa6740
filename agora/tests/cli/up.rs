//! `agora up`: how it starts, what it answers, how it ends, and what is there at the next start.

use std::{
    fs::Permissions,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Executor as _, postgres::PgConnectOptions};

use crate::{
    agora::{Agora, Up, refuses, signal},
    client::Client,
    postgres,
};

/// Ada's community, with what it takes to see that it is there.
async fn write_something(up: &Up) -> Client {
    let ada = Client::of(up).register("ada").await;
    ada.post("/v2/communities", &json!({"slug": "tea", "name": "Tea", "description": ""})).await;
    assert_eq!(ada.get("/v2/communities/tea").await["name"], "Tea");
    ada
}

async fn it_is_still_there(up: &Up) {
    let mut ada = Client::of(up);
    assert_eq!(ada.get("/v2/communities/tea").await["name"], "Tea");
    ada.log_in("ada").await;
    assert_eq!(ada.get("/v2/accounts/ada").await["username"], "ada");
}

fn postmaster(agora: &Agora) -> Option<String> {
    let file = std::fs::read_to_string(agora.path().join(".agora/postgres/data/postmaster.pid")).ok()?;
    file.lines().next().map(str::to_owned)
}

#[tokio::test]
async fn ctrl_c_and_sigterm_end_it_in_order_and_everything_is_there_at_the_next_start() {
    let agora = Agora::new();
    let first = Up::start(agora.up());
    write_something(&first).await;
    ends_in_order(first, "INT");
    nothing_runs_any_more(&agora);
    let second = Up::start(agora.up());
    it_is_still_there(&second).await;
    ends_in_order(second, "TERM");
    nothing_runs_any_more(&agora);
    it_is_still_there(&Up::start(agora.up())).await;
}

#[tokio::test]
async fn a_postgres_that_dies_is_started_again() {
    let agora = Agora::new();
    let mut up = Up::start(agora.up());
    let ada = write_something(&up).await;
    let killed = postmaster(&agora).expect("Postgres runs");
    signal(&killed, "KILL");
    up.wait_for("was started again");
    assert_ne!(postmaster(&agora), Some(killed), "another server");
    let patience = Instant::now() + Duration::from_secs(30);
    // Connections that broke are found out one by one; and read tables that lost their last rows are filled again.
    while ada.ask("/v2/communities/tea").await.0 != 200 && Instant::now() < patience {}
    it_is_still_there(&up).await;
    let (status, _) = up.end_by("HUP");
    assert_eq!(status.code(), Some(0), "a terminal that closes ends it in order too");
    nothing_runs_any_more(&agora);
}

/// Rows that readers were shown are on disk: nobody is told for a moment that what he saw is not there, or is shown what
/// was hidden from him.
#[tokio::test]
async fn what_was_shown_before_postgres_died_is_shown_ever_after() {
    let agora = Agora::new();
    let mut up = Up::start(agora.up());
    let ada = write_something(&up).await;
    let url = agora.published()["database_url"].as_str().expect("an address").to_owned();
    // What is not flushed at a commit is flushed by a process that now sleeps longer than this takes.
    let options: PgConnectOptions = url.parse().expect("a URL");
    let mut superuser = options.username("postgres").connect().await.expect("connects");
    superuser.execute("alter system set wal_writer_delay = '10s'").await.expect("set");
    superuser.execute("select pg_reload_conf()").await.expect("reloaded");
    for n in 0..8 {
        ada.post("/v2/communities", &json!({"slug": format!("tea-{n}"), "name": "Tea", "description": ""})).await;
        let path = format!("/v2/communities/tea-{n}");
        ada.get(&path).await;
        // Long enough that the reading side has looked how far the rows are, and believes it.
        tokio::time::sleep(Duration::from_millis(250)).await;
        kill_postgres(&agora);
        let (mut answered, mut tries) = (0, 0);
        while answered < 50 {
            let (status, body) = ada.ask(&path).await;
            assert!([200, 503].contains(&status), "the read after {n} crashes, try {tries}: {status} {body}");
            (answered, tries) = (answered + usize::from(status == 200), tries + 1);
            assert!(tries < 100_000, "Postgres does not come back");
        }
        up.wait_for("was started again");
    }
}

fn kill_postgres(agora: &Agora) {
    let postmaster = postmaster(agora).expect("Postgres runs");
    // Stopped, it neither starts nor buries any of its own: all that are listed can be killed.
    signal(&postmaster, "STOP");
    let backends = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("its own");
    signal(&backends, "KILL");
    signal(&postmaster, "KILL");
}

#[tokio::test]
async fn a_postgres_that_does_not_start_again_is_tried_until_it_does() {
    let agora = Agora::new();
    let mut up = Up::start(agora.up());
    write_something(&up).await;
    let settings = agora.path().join(".agora/postgres/data/local.conf");
    std::fs::write(&settings, "tea_time = five\n").expect("written");
    std::fs::set_permissions(&settings, Permissions::from_mode(0o644)).expect("readable");
    kill_postgres(&agora);
    up.wait_for("does not start yet");
    let said = up.said.last().expect("a line");
    assert!(said.contains("tea_time") || said.contains("configuration file"), "{said}");
    std::fs::remove_file(&settings).expect("removed");
    up.wait_for("was started again");
    it_is_still_there(&up).await;
}

fn ends_in_order(up: Up, signal: &str) {
    let (status, said) = up.end_by(signal);
    assert_eq!(status.code(), Some(0));
    assert!(said.iter().any(|line| line == "stopping"), "{said:#?}");
    let wrong: Vec<_> = said.iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn nothing_runs_any_more(agora: &Agora) {
    assert_eq!(postmaster(agora), None, "Postgres has stopped");
    assert!(!agora.path().join(".agora/up.json").exists(), "other commands are told no more");
}

#[tokio::test]
async fn from_an_empty_directory_it_comes_up_and_says_where_to_go() {
    let agora = Agora::new();
    let up = Up::start(agora.up());
    let guest = Client::of(&up);
    assert_eq!(guest.get("/v2/communities").await["items"], json!([]));
    let pointers = guest.get("/").await;
    for named in ["openapi", "communities", "health"] {
        guest.get(pointers[named].as_str().expect("a path")).await;
    }
    let docs = up.named("docs").expect("it says where the documentation is");
    assert!(guest.ask(&docs).await.1.contains("swagger-ui"));
    let data = up.named("data").expect("it says where the data is");
    assert!(Path::new(&data).starts_with(agora.path().canonicalize().expect("there")), "{data}");
    for command in ["agora demo", "agora import stackexchange DIR", &format!("curl {}/v2/communities", up.url)] {
        assert!(up.said.iter().any(|line| line.contains(command)), "{command} is not in:\n{}", up.said.join("\n"));
    }
    assert_eq!(agora.published()["address"], up.url);
    assert_eq!(agora.published()["pid"], up.pid());
    // Local commands find it.
    assert!(agora.prints(&["projections", "status"]).contains("thread_list"));
    assert!(agora.prints(&["operators", "list"]).is_empty());
    assert!(!up.said.iter().any(|line| line.contains("found there")), "{}", up.said.join("\n"));
    write_something(&up).await;
    up.end_by("TERM");
    // A database of before is no surprise; without the directory that it named, there is none.
    let up = Up::start(agora.up());
    assert!(up.said.iter().any(|line| line.contains("(found there: ")), "{}", up.said.join("\n"));
    up.end_by("TERM");
    std::fs::remove_dir_all(data).expect("removed");
    let up = Up::start(agora.up());
    assert_eq!(Client::of(&up).get("/v2/communities").await["items"], json!([]));
    assert!(!up.said.iter().any(|line| line.contains("found there")), "{}", up.said.join("\n"));
}

#[tokio::test]
async fn health_and_metrics_are_on_the_admin_port() {
    let agora = Agora::new();
    let up = Up::start(agora.up_on(&postgres::fresh_database().await));
    write_something(&up).await;
    let guest = Client::of(&up);
    let admin = up.metrics.strip_suffix("/metrics").expect("the path");
    assert_ne!(admin, up.url);
    for server in [admin, &up.url] {
        assert_eq!(guest.ask(&format!("{server}/health/live")).await, (200, "alive\n".to_owned()));
        let ready = guest.get(&format!("{server}/health/ready")).await;
        let parts = ready["parts"].as_array().expect("parts").iter().map(|part| part["name"].as_str());
        let parts: Vec<_> = parts.map(Option::unwrap_or_default).collect();
        assert_eq!((&ready["ready"], parts), (&Value::Bool(true), vec!["event store", "read tables"]));
    }
    assert_eq!(guest.ask("/metrics").await.0, 404, "not for everyone");
    let mut missing = METRICS.to_vec();
    let patience = Instant::now() + Duration::from_secs(30);
    // What runs behind the answers counts a moment after them.
    while !missing.is_empty() && Instant::now() < patience {
        let (status, metrics) = guest.ask(&up.metrics).await;
        assert_eq!(status, 200);
        missing.retain(|name| !metrics.lines().any(|line| line.starts_with(name) && !line.ends_with(" 0")));
    }
    assert!(missing.is_empty(), "{missing:?}");
}

/// What an operator watches, each with a value after the first writes and reads.
const METRICS: [&str; 9] = [
    "process_resident_memory_bytes",
    "http_server_request_duration_seconds_count{",
    "agora_append_flush_seconds_count",
    "agora_events_appended_total",
    "agora_projection_events_total{",
    "agora_relay_events_total",
    "agora_relay_position",
    "agora_query_reads_total{",
    "agora_query_load_seconds_count",
];

#[tokio::test]
async fn one_that_was_killed_leaves_a_server_that_the_next_adopts_and_nobody_else_may_have() {
    let agora = Agora::new();
    let first = Up::start(agora.up());
    write_something(&first).await;
    let server = postmaster(&agora).expect("Postgres runs");
    first.end_by("KILL");
    let said = agora.refuses(&["projections", "status"]);
    assert!(said.contains("is gone: start it again"), "{said}");

    let second = Up::start(agora.up());
    assert_eq!(postmaster(&agora), Some(server), "the same server");
    it_is_still_there(&second).await;

    let said = refuses(agora.up());
    let holder = format!(".agora is in use by another agora (process {}): stop that one first", second.pid());
    assert!(said.contains(&holder), "{said}");
    it_is_still_there(&second).await;
    ends_in_order(second, "INT");
}

#[tokio::test]
async fn a_second_one_in_a_directory_is_refused_wherever_its_database_is() {
    let (agora, database) = (Agora::new(), postgres::fresh_database().await);
    let first = Up::start(agora.up_on(&database));
    let said = refuses(agora.up_on(&database));
    assert!(said.contains(&format!(".agora is in use by another agora (process {})", first.pid())), "{said}");
    assert_eq!(agora.published()["pid"], first.pid(), "other commands find the first");
    ends_in_order(first, "TERM");
}

#[test]
fn one_that_is_told_to_stop_while_it_starts_leaves_nothing_behind() {
    let agora = Agora::new();
    let mut starting = agora.up().stderr(Stdio::piped()).spawn().expect("it runs");
    // From here on it makes a database, which takes a second.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !agora.path().join(".agora/postgres").exists() {
        assert!(Instant::now() < deadline, "it makes no database");
        std::thread::yield_now();
    }
    signal(&starting.id(), "INT");
    let status = starting.wait().expect("ours");
    let mut said = String::new();
    starting.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    nothing_runs_any_more(&agora);
    Up::start(agora.up());
}

#[test]
fn a_setting_that_is_none_is_refused_by_its_name_and_nothing_is_made() {
    let agora = Agora::new();
    let wrong = [
        ("AGORA__HTTP__LISEN", "127.0.0.1:0", "unknown key `lisen`"),
        ("AGORA__LISTEN", "127.0.0.1:0", "unknown key `listen`"),
        ("AGORA__HTTP__HEADER_TIMEOUT", "soon", "`http.header_timeout`"),
        ("AGORA__APPENDER__QUEUE", "-1", "`appender.queue`"),
        ("AGORA__JOBS__EXPIRE_RECEIPTS", "hourly", "is no cron expression of six fields"),
        ("AGORA__JOBS__TIME_ZONE", "Berlin", "is no IANA time zone"),
    ];
    for (name, value, reason) in wrong {
        let mut up = agora.up();
        up.env(name, value);
        let said = refuses(up);
        assert!(said.contains(name) && said.contains(reason), "{name}: {said}");
    }
    assert!(!agora.path().join(".agora").exists(), "nothing was made");
}

#[tokio::test]
async fn a_slow_head_is_answered_408_and_holds_nobody_up() {
    let agora = Agora::new();
    let mut command = agora.up_on(&postgres::fresh_database().await);
    command.env("AGORA__HTTP__HEADER_TIMEOUT", "300ms");
    let up = Up::start(command);
    let address = up.url.strip_prefix("http://").expect("http");
    for begun in ["", "GE", "GET /v2/communities HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut slow = TcpStream::connect(address).expect("a connection");
        slow.write_all(begun.as_bytes()).expect("sent");
        Client::of(&up).get("/v2/communities").await;
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("it is closed");
        if begun.is_empty() {
            assert_eq!(answer, "", "who says nothing is told nothing");
        } else {
            assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{begun:?}: {answer}");
            assert!(answer.contains("\"type\":\"/problems/request-timeout\""), "{answer}");
        }
    }
}

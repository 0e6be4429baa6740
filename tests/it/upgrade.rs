//! An upgrade: an event version is written only once everybody who reads events knows it. With processes that are made up,
//! and with two builds side by side, one of which knows a version more.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use agora::config::Config;
use agora_tests::{forum::TestForum, kafka, postgres::fresh_database};
use platform::instances::{self, Gate, Knows};
use projector::Parts;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgConnectOptions};
use store_reader::Wake;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long what should happen soon may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

const ONE: &str = "tea.made version 1";
const TWO: &str = "tea.made version 2";
const OTHER: &str = "tea.drunk version 1";

async fn store(url: &str) -> PgPool {
    let options: PgConnectOptions = url.parse().expect("a URL");
    PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects")
}

/// A process that is made up.
struct Process {
    gate: Gate,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Process {
    async fn start(pool: &PgPool, service: &'static str, reads: &[&str], writes: &[&str]) -> anyhow::Result<Self> {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let all = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect();
        let knows = Knows { service, release: "7.0.0", reads: all(reads), writes: all(writes) };
        let gate = instances::join(pool.clone(), knows, shutdown.clone(), &tasks).await?;
        Ok(Self { gate, shutdown, tasks })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn may_write(&self) {
        let open = async {
            while !self.gate.is_open() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, open).await.expect("it may write");
    }
}

#[tokio::test]
async fn a_writer_holds_back_what_a_reader_does_not_know_until_that_is_gone() {
    let pool = store(&fresh_database().await).await;
    let old = Process::start(&pool, "reader", &[ONE, OTHER], &[]).await.expect("it starts");
    let writer = Process::start(&pool, "writer", &[ONE, TWO, OTHER], &[TWO, OTHER]).await.expect("it starts");
    assert!(writer.gate.holds_back(TWO) && !writer.gate.holds_back(OTHER));
    let running = instances::running(&pool).await.expect("a list");
    assert_eq!(running.iter().flat_map(|it| &it.writes).collect::<Vec<_>>(), [OTHER], "what it writes is on record");
    // Another old one, as a supervisor starts it again: nobody writes yet what it does not know.
    let again = Process::start(&pool, "reader", &[ONE, OTHER], &[]).await.expect("it starts");
    old.stop().await;
    assert!(!writer.gate.is_open());
    again.stop().await;
    writer.may_write().await;
    writer.stop().await;
    assert_eq!(instances::running(&pool).await.expect("a list").len(), 0, "who ends in order leaves nothing");
}

#[tokio::test]
async fn who_was_killed_counts_as_gone_and_is_waited_for_when_it_comes_back() {
    let pool = store(&fresh_database().await).await;
    let old = Process::start(&pool, "reader", &[ONE], &[]).await.expect("it starts");
    // Its beats stop; silence is not waited for, but made.
    old.shutdown.cancel();
    old.tasks.close();
    old.tasks.wait().await;
    let silent = |seconds: u32| {
        sqlx::query(
            "insert into instances (instance, service, host, process, release, reads, writes, writing, seen_at)
            values ('00000000-0000-0000-0000-000000000001', 'reader', 'web-1', 7, '6.0.0', array['tea.made version 1'],
                '{}', false, clock_timestamp() - make_interval(secs => $1))
            on conflict (instance) do update set seen_at = excluded.seen_at",
        )
        .bind(f64::from(seconds))
        .execute(&pool)
    };
    silent(5).await.expect("written");
    let writer = Process::start(&pool, "writer", &[ONE, TWO], &[TWO]).await.expect("it waits");
    assert!(!writer.gate.is_open());
    // The server of the tests may itself have only just come up: for as long, nobody counts as gone.
    silent(3600).await.expect("written");
    writer.may_write().await;
    silent(0).await.expect("written");
    let closed = async {
        while writer.gate.is_open() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("it waits again");
    writer.stop().await;
}

#[tokio::test]
async fn a_reader_that_does_not_know_what_is_written_does_not_start_and_stops_nobody() {
    let pool = store(&fresh_database().await).await;
    let writer = Process::start(&pool, "writer", &[ONE, TWO], &[TWO]).await.expect("it starts");
    writer.may_write().await;
    let refused = Process::start(&pool, "reader", &[ONE], &[]).await.err().expect("it is refused").to_string();
    assert!(refused.starts_with("tea.made version 2 is unknown to this release, and writer 7.0.0 (pr"), "{refused}");
    let known = Process::start(&pool, "reader", &[ONE, TWO], &[]).await.expect("it starts");
    assert!(writer.gate.is_open());
    known.stop().await;
    writer.stop().await;
}

/// The build that knows a version more.
fn next() -> PathBuf {
    std::env::var_os("AGORA_TEST_NEXT").map(PathBuf::from).expect(
        "AGORA_TEST_NEXT names a build with --features agora/next-version: ./dev test makes it, and sets the variable",
    )
}

/// A process of that build. Killed where the test does not end it.
struct Next(Child);

impl Next {
    /// On what others are set up for.
    fn command(config: &Config, arguments: &[&str]) -> Command {
        let mut command = Command::new(next());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AGORA")) {
            command.env_remove(name);
        }
        let Config { database, kafka, .. } = config;
        command.args(arguments).args(["--database-url", database.url.expose(), "--admin-listen", "127.0.0.1:0"]);
        command.args(["--kafka-brokers", kafka.brokers.as_deref().expect("a Kafka")]);
        command.env("AGORA__KAFKA__EVENTS_TOPIC", &kafka.events_topic);
        command.env("AGORA__KAFKA__CHANGES_TOPIC", &kafka.changes_topic).env("AGORA__KAFKA__GROUP", &kafka.group);
        command.env("AGORA__TELEMETRY__LOG", "error").stdin(Stdio::null());
        command
    }

    fn start(config: &Config, arguments: &[&str]) -> Self {
        let mut command = Self::command(config, arguments);
        Self(command.stdout(Stdio::null()).spawn().expect("the build of AGORA_TEST_NEXT runs"))
    }

    /// What `agora upgrade check` of it says, and whether commands may be taken by it.
    fn upgrade_check(config: &Config) -> (bool, Value) {
        let output = Self::command(config, &["upgrade", "check", "--json"]).output().expect("it runs");
        let found = serde_json::from_slice(&output.stdout);
        (output.status.success(), found.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))))
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Asks until the status is that.
async fn until(url: &str, status: StatusCode) -> Value {
    let deadline = Instant::now() + PATIENCE;
    let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
    loop {
        let answer = client.get(url).send().await;
        if let Ok(answer) = answer
            && answer.status() == status
        {
            return answer.json().await.expect("JSON");
        }
        assert!(Instant::now() < deadline, "{url} does not answer {status}");
    }
}

#[tokio::test]
async fn two_builds_side_by_side_write_a_version_only_once_all_know_it() {
    let forum = TestForum::start_on_kafka(kafka::shared().await.brokers()).await;
    let (config, pool, broker) = (forum.config.clone(), forum.pool.clone(), forum.broker.clone());
    let ada = forum.person("ada").await;
    forum.community(&ada, "tea").await;
    let (ready, found) = Next::upgrade_check(&config);
    assert!(!ready && found["ready"] == false, "{found}");
    let [unknown] = &found["unknown"].as_array().expect("versions")[..] else { panic!("one version: {found}") };
    assert_eq!(unknown["version"], "community.archived version 2");
    let to = unknown["to"].as_array().expect("who").iter();
    let to: Vec<_> = to.filter_map(|it| it.as_str()?.split(' ').next()).collect();
    assert_eq!(to, ["command-service", "projector", "query-service"]);

    // The new command-service takes commands beside the old one, but for the one that writes it.
    let address = format!("127.0.0.1:{}", kafka::free_port());
    let _commands = Next::start(&config, &["command-service", "--listen", &address]);
    let ready = format!("http://{address}/health/ready");
    until(&ready, StatusCode::OK).await;
    let archive = reqwest::Client::new().put(format!("http://{address}/v2/communities/tea/archive"));
    let archive = archive.bearer_auth(ada.token());
    let archived = async || {
        let answer = archive.try_clone().expect("no body").send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let (status, problem) = archived().await;
    assert_eq!((status, &problem["type"]), (503, &json!("/problems/readers-behind")), "{problem}");
    let renamed = reqwest::Client::new().patch(format!("http://{address}/v2/communities/tea"));
    let renamed = renamed.bearer_auth(ada.token()).json(&json!({"name": "Teas"})).send().await.expect("an answer");
    assert_eq!(renamed.status(), StatusCode::OK);
    ada.patch("/v2/communities/tea", &json!({"name": "More teas"})).await.expect(200);

    // Once the old one is gone, it takes that too.
    forum.stop().await;
    let taken = async {
        while archived().await.0 != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("it is written");
    assert!(Next::upgrade_check(&config).0);
    let version = "select event_version from events where event_type = 'community.archived'";
    let written: String = sqlx::query_scalar(version).fetch_one(&pool).await.expect("the event");
    assert_eq!(written, "2");
    assert!(Next::upgrade_check(&config).0, "that one knows it");

    // An old projector would stop at it: it does not start.
    let (event_store, read_tables) = (config.database.clone(), config.database.clone());
    let parts = Parts { event_store, read_tables, broker, wake: Wake::default() };
    let old = projector::start(parts, CancellationToken::new(), &TaskTracker::new()).await;
    let refused = old.expect_err("it is refused").to_string();
    assert!(
        refused.starts_with("community.archived version 2 is unknown to this release, and command-se"),
        "{refused}"
    );
    let _projector = Next::start(&config, &["projector"]);
    let shown = async {
        let archived = "select exists (select from community where slug = 'tea' and status = 'archived')";
        while !sqlx::query_scalar::<_, bool>(archived).fetch_one(&pool).await.expect("an answer") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the new projector shows it");
}

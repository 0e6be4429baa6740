//! A real Apache Kafka: one KRaft node in a process of its own.
//!
//! Set up as the brokers of `compose.yaml` are, so that a projector that dies is noticed after 3 s and not after 45.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use platform::kafka::KafkaConfig;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::{
    postgres::temporary_directory,
    reaper::{Reaper, quoted},
};

/// How long a broker may take until it answers: 3 s here, more on a machine under load.
const START: Duration = Duration::from_secs(60);

/// The version that `./dev test` fetches.
const VERSION: &str = "4.1.1";

/// Any 16 bytes in base64: each node is a cluster of its own.
const CLUSTER_ID: &str = "QWdvcmEtdGVzdHMtMDAwMQ";

/// A broker. Ended, with its data, when dropped or when the process ends.
pub struct Kafka {
    brokers: String,
    node: Option<Node>,
}

struct Node {
    jars: PathBuf,
    dir: PathBuf,
    java: Option<Child>,
    _reaper: Reaper,
}

/// One broker for all tests of a process that need no more than topics of their own.
pub async fn shared() -> &'static Kafka {
    static SHARED: OnceCell<Kafka> = OnceCell::const_new();
    SHARED.get_or_init(Kafka::start).await
}

impl Kafka {
    /// Starts a new broker; with `AGORA_TEST_KAFKA=host:port`, uses the one that runs there.
    ///
    /// Panics with what to do where there is neither a running broker nor the jars of one.
    pub async fn start() -> Self {
        if let Ok(brokers) = std::env::var("AGORA_TEST_KAFKA") {
            return Self { brokers, node: None };
        }
        tokio::task::spawn_blocking(Self::start_node).await.expect("Kafka starts")
    }

    /// Starts one that clients also reach through proxies on these ports of 127.0.0.1; the second answer says, in their
    /// order, which ports the proxies lead to. A client stays on the way that it came.
    pub async fn start_behind(proxies: Vec<u16>) -> (Self, Vec<u16>) {
        let ports: Vec<u16> = proxies.iter().map(|_| free_port()).collect();
        let ways: Vec<(u16, u16)> = ports.iter().copied().zip(proxies).collect();
        let kafka = tokio::task::spawn_blocking(move || Self::start_node_behind(&ways)).await.expect("Kafka starts");
        (kafka, ports)
    }

    /// Takes all its data away, topics included, once it was killed; [`Kafka::restart`] starts an empty one.
    pub fn wipe(&mut self) {
        let node = self.node();
        assert!(node.java.is_none(), "Kafka still runs");
        fs::remove_dir_all(node.dir.join("data")).expect("its data");
        format_storage(&node.jars, &node.dir);
    }

    /// Where clients bootstrap.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Its process; none where it was not started here, or is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.node.as_ref()?.java.as_ref().map(Child::id)
    }

    /// Ends the broker as a power cut would.
    pub fn kill9(&mut self) {
        let mut java = self.node().java.take().expect("Kafka runs");
        java.kill().expect("Kafka can be killed");
        java.wait().expect("Kafka is ours");
    }

    /// Ends the broker in order.
    pub fn stop(&mut self) {
        let mut java = self.node().java.take().expect("Kafka runs");
        // The shell's own `kill`: a minimal system has no program of that name.
        Command::new("sh").args(["-c", &format!("kill {}", java.id())]).status().expect("sh");
        java.wait().expect("Kafka is ours");
    }

    /// Starts it again after [`Kafka::kill9`] or [`Kafka::stop`]: same address, same data.
    pub async fn restart(&mut self) {
        let brokers = self.brokers.clone();
        let node = self.node();
        assert!(node.java.is_none(), "Kafka still runs");
        let (jars, dir) = (node.jars.clone(), node.dir.clone());
        let run = move || launch(&jars, &dir, &brokers);
        let java = tokio::task::spawn_blocking(run).await.expect("Kafka starts again");
        self.node().java = Some(java);
    }

    fn start_node() -> Self {
        Self::start_node_behind(&[])
    }

    fn start_node_behind(ways: &[(u16, u16)]) -> Self {
        let jars = find_jars();
        let dir = temporary_directory("kafka");
        let (broker, controller) = (free_port(), free_port());
        fs::write(dir.join("server.properties"), properties(&dir, broker, controller, ways)).expect("the settings");
        let reaper = Reaper::new(&format!("kill -9 $(cat {dir}/pid); rm -rf {dir}", dir = quoted(&dir)));
        format_storage(&jars, &dir);
        let brokers = format!("127.0.0.1:{broker}");
        let java = launch(&jars, &dir, &brokers);
        Self { brokers, node: Some(Node { jars, dir, java: Some(java), _reaper: reaper }) }
    }

    fn node(&mut self) -> &mut Node {
        self.node.as_mut().expect("AGORA_TEST_KAFKA names a broker that is not ours to stop: unset it for this test")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut java) = self.java.take() {
            java.kill().ok();
            java.wait().ok();
        }
        // Its number may be given out again: the reaper must not see it.
        fs::remove_file(self.dir.join("pid")).ok();
    }
}

fn format_storage(jars: &Path, dir: &Path) {
    let mut format = java(jars, dir, "format.log");
    format.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"]);
    let formatted = format.arg(dir.join("server.properties")).status().expect("java runs");
    assert!(formatted.success(), "Kafka's storage was not made:\n{}", tail(&dir.join("format.log")));
}

/// Starts the broker and waits until it answers.
fn launch(jars: &Path, dir: &Path, brokers: &str) -> Child {
    let mut command = java(jars, dir, "kafka.log");
    let mut java = command.arg("kafka.Kafka").arg(dir.join("server.properties")).spawn().expect("java runs");
    fs::write(dir.join("pid"), java.id().to_string()).expect("the process id is noted");
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("log_level", "0").create().expect("a client");
    let deadline = Instant::now() + START;
    while client.fetch_metadata(None, Duration::from_millis(250)).is_err() {
        let ended = java.try_wait().expect("Kafka is ours");
        assert!(
            ended.is_none() && Instant::now() < deadline,
            "Kafka does not answer at {brokers} (ended: {ended:?}):\n{}",
            tail(&dir.join("kafka.log"))
        );
    }
    java
}

fn java(jars: &Path, dir: &Path, log: &str) -> Command {
    let program = std::env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"));
    let log = fs::File::options().create(true).append(true).open(dir.join(log)).expect("a log");
    let mut command = Command::new(program);
    command
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp"])
        .arg(jars.join("*"))
        .stdin(Stdio::null());
    command.stderr(log.try_clone().expect("a log")).stdout(log);
    command
}

/// The jars that `./dev test` fetched.
fn find_jars() -> PathBuf {
    let jars = std::env::var_os("AGORA_KAFKA_JARS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
        Some(cache.join(format!("agora/kafka-{VERSION}")))
    });
    jars.filter(|dir| dir.join(format!("kafka_2.13-{VERSION}.jar")).is_file()).unwrap_or_else(|| {
        panic!(
            "Apache Kafka {VERSION} is not here: `./dev test` fetches it once; or name its jars with AGORA_KAFKA_JARS, \
             or a running broker with AGORA_TEST_KAFKA=host:port"
        )
    })
}

/// `ways`: more ports to listen on, each with the port that clients of it are to come by.
fn properties(dir: &Path, broker: u16, controller: u16, ways: &[(u16, u16)]) -> String {
    let each = |text: &dyn Fn(usize, u16, u16) -> String| -> String {
        ways.iter().enumerate().map(|(n, (port, proxy))| text(n, *port, *proxy)).collect()
    };
    let listeners = each(&|n, port, _| format!(",WAY{n}://127.0.0.1:{port}"));
    let advertised = each(&|n, _, proxy| format!(",WAY{n}://127.0.0.1:{proxy}"));
    let protocols = each(&|n, _, _| format!(",WAY{n}:PLAINTEXT"));
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}{listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{protocols}
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
log.retention.check.interval.ms=500
log.initial.task.delay.ms=500
group.consumer.min.session.timeout.ms=3000
group.consumer.session.timeout.ms=3000
group.consumer.min.heartbeat.interval.ms=1000
group.consumer.heartbeat.interval.ms=1000
",
        logs = dir.join("data").display()
    )
}

/// A port of 127.0.0.1 that stays free while who listens there is away: below those that the system gives to connections
/// (ip(7), `ip_local_port_range`). None is given twice by a process, whether or not somebody listens there yet.
pub fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(rand::random_range(0..PORTS)));
    const PORTS: u16 = 10_000;
    let next = || 20_000 + NEXT.fetch_add(1, Relaxed) % PORTS;
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next).take(100).find(free).expect("a free port from 20000 to 30000")
}

/// The end of a log, for a panic message.
fn tail(log: &Path) -> String {
    let mut text = Vec::new();
    fs::File::open(log).and_then(|mut file| file.read_to_end(&mut text)).ok();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Topics and a group of one's own on a Kafka.
pub fn topics_on(brokers: &str) -> KafkaConfig {
    let own = Uuid::now_v7().simple();
    KafkaConfig {
        brokers: Some(brokers.to_owned()),
        events_topic: format!("events-{own}"),
        changes_topic: format!("changes-{own}"),
        group: format!("projector-{own}"),
        partitions: 4,
        ..KafkaConfig::default()
    }
}

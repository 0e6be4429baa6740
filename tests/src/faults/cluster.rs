//! All of Agora in processes of its own, on servers of its own, and what can happen to them.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use agora::embedded::EmbeddedPostgres;
use anyhow::{Context as _, ensure};
use platform::kafka::KafkaConfig;
use projector::State;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::task::AbortHandle;

use super::{
    clients::Probe,
    link::{Flow, Upstream},
    report::Report,
    sabotage,
    schedule::{COMMAND_SERVICES, Fault, PROJECTORS, QUERY_SERVICES, Step},
    service::{Role, Service},
};
use crate::{
    kafka::{Kafka, topics_on},
    reaper::{Reaper, quoted},
};

mod topic;

pub(crate) use topic::header;

/// How long the servers and services may take to come up on a machine under load.
const START: Duration = Duration::from_secs(60);
/// How long all may take to serve again once a fault is over.
const RECOVERY: Duration = Duration::from_secs(60);
/// The disk of Postgres, where it has one of its own: more than a round writes.
const DISK: &str = "700m";

/// A server's settings: real durability, and a log that stays small on its small disk.
const POSTGRES: [(&str, &str); 4] =
    [("max_connections", "300"), ("max_wal_size", "128MB"), ("min_wal_size", "32MB"), ("shared_buffers", "64MB")];

/// The processes, and the servers that they stand on.
pub(crate) struct Cluster {
    /// All services, in the order of [`super::schedule`].
    pub(crate) services: Vec<Service>,
    /// The databases, by no proxy.
    pub(crate) pool: PgPool,
    /// Its topics and its group.
    pub(crate) topics: KafkaConfig,
    postgres: Arc<EmbeddedPostgres>,
    kafka: Kafka,
    dir: PathBuf,
    agora: PathBuf,
    probe: Option<Probe>,
    rebuild: Option<Child>,
    /// What breaks a promise on purpose is not to be made right by a rebuild.
    sabotaged: bool,
    has_disk: bool,
    revival: AbortHandle,
    _reaper: Reaper,
}

impl Cluster {
    /// Starts everything; answers when all services do.
    pub(crate) async fn start(agora: &Path, dir: PathBuf, sabotage: Option<&str>) -> anyhow::Result<Self> {
        // What an earlier run with this seed left says nothing of this one.
        fs::remove_dir_all(&dir).ok();
        fs::create_dir_all(&dir)?;
        let dir = dir.canonicalize()?;
        let disk = crate::postgres::temporary_directory("faults");
        let has_disk = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={DISK},mode=711"), "tmpfs"])
            .arg(&disk)
            .output()
            .is_ok_and(|mounted| mounted.status.success());
        let reaper = Reaper::new(&format!(
            "for file in {dir}/*.pid; do kill -9 $(cat $file); done; pid=$(head -n 1 {disk}/postgres/data/postmaster.pid) && kill -QUIT $pid; \
             while kill -0 $pid; do sleep 0.1; done; umount -l {disk}; rm -rf {disk}",
            disk = quoted(&disk),
            dir = quoted(&dir),
        ));
        let started = disk.clone();
        let start = move || EmbeddedPostgres::start_with(&started, &POSTGRES);
        let postgres = Arc::new(tokio::task::spawn_blocking(start).await??);
        let revival = tokio::spawn(postgres.keep_running()).abort_handle();
        let options: PgConnectOptions = postgres.url().parse()?;
        let socket = options.get_socket().context("a socket")?.join(format!(".s.PGSQL.{}", options.get_port()));
        let pool =
            PgPoolOptions::new().max_connections(3).connect_lazy_with(options.options([("search_path", "store,read")]));

        let mut services = vec![];
        let roles = [(Role::Command, COMMAND_SERVICES), (Role::Projector, PROJECTORS), (Role::Query, QUERY_SERVICES)];
        for (role, number) in roles.into_iter().flat_map(|(role, many)| (1..=many).map(move |n| (role, n))) {
            services.push(Service::new(role, number, agora.to_owned(), &dir).await?);
        }
        let (kafka, ways) =
            Kafka::start_behind(services.iter().map(|service| service.kafka.address.port()).collect()).await;
        let topics = topics_on(kafka.brokers());
        for (service, way) in services.iter_mut().zip(ways) {
            service.kafka.lead_to(Upstream::Tcp(SocketAddr::from(([127, 0, 0, 1], way))));
            service.postgres.lead_to(Upstream::Unix(socket.clone()));
            let url = format!("postgres://agora@{}/agora?sslmode=disable", service.postgres.address);
            let brokers = service.kafka.address.to_string();
            set_up(service, &url, &brokers, &topics, &dir);
            if let Some(name) = sabotage {
                service.set("AGORA_SABOTAGE", &name);
            }
        }
        migrate(Command::new(agora).args(["--database-url", postgres.url()]))?;
        if let Some(name) = sabotage {
            sabotage::of_the_store(&pool, name).await?;
        }
        let mut cluster = Self {
            services,
            pool,
            topics,
            postgres,
            kafka,
            dir,
            agora: agora.to_owned(),
            probe: None,
            rebuild: None,
            sabotaged: sabotage.is_some(),
            has_disk,
            revival,
            _reaper: reaper,
        };
        for service in &mut cluster.services {
            service.start()?;
        }
        cluster.until_all_answer(START).await?;
        cluster.probe = Some(Probe::new(&cluster).await?);
        Ok(cluster)
    }

    /// Where services of a kind listen.
    pub(crate) fn addresses(&self, role: Role) -> Vec<SocketAddr> {
        self.services.iter().filter(|service| service.role == role).map(|service| service.address).collect()
    }

    /// Lets what a step says happen, for as long as it says.
    ///
    /// # Errors
    /// Where it cannot be made, or ended.
    pub(crate) async fn suffer(&mut self, step: &Step) -> anyhow::Result<()> {
        tokio::time::sleep(step.after).await;
        for fault in &step.faults {
            self.begin(*fault).await.with_context(|| format!("{fault:?} could not be made"))?;
        }
        tokio::time::sleep(step.lasting).await;
        for fault in &step.faults {
            self.end(*fault).await.with_context(|| format!("{fault:?} could not be ended"))?;
        }
        Ok(())
    }

    /// Waits until all serve again.
    ///
    /// # Errors
    /// Where they do not.
    pub(crate) async fn recover(&mut self, step: &Step, report: &mut Report) -> anyhow::Result<()> {
        let over = Instant::now();
        self.until_all_serve().await.with_context(|| format!("after {:?}", step.faults))?;
        for fault in &step.faults {
            report.recovered(fault.name(), over.elapsed());
        }
        Ok(())
    }

    async fn begin(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(n) => self.services[n].kill9(),
            Fault::Freeze(n) => self.services[n].freeze(),
            Fault::Restart(n) => self.services[n].stop().await?,
            Fault::PostgresCrash => {
                let file = fs::read_to_string(self.postgres.data_directory().join("postmaster.pid"));
                // It may be on its way up from the crash before.
                if let Some(pid) = file.ok().as_deref().and_then(|text| text.lines().next()) {
                    Command::new("sh").args(["-c", &format!("kill -QUIT {pid}")]).status()?;
                }
                self.services.iter().for_each(|service| service.postgres.flow(Flow::Cut));
            }
            Fault::SessionsCut => self.cut_sessions().await?,
            Fault::DiskFull => self.fill_disk().await?,
            Fault::KafkaKill => self.kafka.kill9(),
            Fault::KafkaWiped => {
                self.kafka.kill9();
                self.kafka.wipe();
            }
            Fault::RetentionOut => self.expire_messages().await?,
            Fault::Forgotten(n) => {
                self.services[n].freeze();
                self.expire_messages().await?;
            }
            Fault::PartitionAdded => self.add_partition().await?,
            Fault::SentAgain => self.send_again().await?,
            Fault::PostgresCut(n) => self.services[n].postgres.flow(Flow::Cut),
            Fault::PostgresSilent(n) => self.services[n].postgres.flow(Flow::Silent),
            Fault::PostgresSlow(n) => self.services[n].postgres.flow(Flow::Slow(Duration::from_millis(300))),
            Fault::PostgresReset(n) => self.services[n].postgres.reset(),
            Fault::KafkaCut(n) => self.services[n].kafka.flow(Flow::Cut),
            Fault::KafkaSilent(n) => self.services[n].kafka.flow(Flow::Silent),
            Fault::KafkaReset(n) => self.services[n].kafka.reset(),
            Fault::RebuildKilled | Fault::Outdated(_) if self.sabotaged => {}
            Fault::Outdated(n) => self.outdate(n).await?,
            Fault::RebuildKilled => self.rebuild = Some(self.command(&["projections", "rebuild", "--all"])?.spawn()?),
        }
        Ok(())
    }

    async fn end(&mut self, fault: Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(n) | Fault::Restart(n) => self.services[n].start()?,
            Fault::Freeze(n) => self.services[n].thaw(),
            Fault::PostgresCrash => self.services.iter().for_each(|service| service.postgres.flow(Flow::Open)),
            Fault::DiskFull => self.free_disk()?,
            Fault::KafkaKill | Fault::KafkaWiped => self.kafka.restart().await,
            Fault::RetentionOut => self.retention("604800000").await?,
            Fault::Forgotten(n) => {
                self.retention("604800000").await?;
                self.services[n].thaw();
            }
            Fault::PostgresCut(n) | Fault::PostgresSilent(n) | Fault::PostgresSlow(n) => {
                self.services[n].postgres.flow(Flow::Open);
            }
            Fault::KafkaCut(n) | Fault::KafkaSilent(n) => self.services[n].kafka.flow(Flow::Open),
            Fault::RebuildKilled => {
                if let Some(mut rebuild) = self.rebuild.take() {
                    // Nothing where it is done.
                    let _ = rebuild.kill();
                    rebuild.wait()?;
                }
            }
            Fault::SessionsCut
            | Fault::PartitionAdded
            | Fault::SentAgain
            | Fault::PostgresReset(_)
            | Fault::KafkaReset(_)
            | Fault::Outdated(_) => {}
        }
        Ok(())
    }

    /// What an operator runs beside the services; what it says goes to a log.
    fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("operator.log"))?;
        let mut command = Command::new(&self.agora);
        command.args(args).args(["--database-url", self.postgres.url()]).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }

    /// Whether `agora check` finds everything as it was promised.
    ///
    /// # Errors
    /// Where it does not.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        let mut check = self.command(&["check"])?;
        let status = tokio::task::spawn_blocking(move || check.status()).await??;
        ensure!(status.success(), "`agora check` says what is broken in {}", self.dir.join("operator.log").display());
        Ok(())
    }

    /// As the superuser, one after the other.
    async fn cut_sessions(&self) -> anyhow::Result<()> {
        let options: PgConnectOptions = self.postgres.url().parse()?;
        let admin = PgPoolOptions::new().max_connections(1).connect_with(options.username("postgres")).await?;
        let sessions: Vec<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()",
        )
        .fetch_all(&admin)
        .await?;
        for pid in sessions {
            sqlx::query("select pg_terminate_backend($1)").bind(pid).execute(&admin).await?;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        admin.close().await;
        Ok(())
    }

    /// As if a release before had made the tables of a projection.
    async fn outdate(&self, n: usize) -> anyhow::Result<()> {
        let names = projector::names();
        let outdate = sqlx::query("update read.checkpoint set version = version - 1 where projection = $1");
        // Postgres may be on its way up.
        let _ = outdate.bind(names[n % names.len()]).execute(&self.pool).await;
        Ok(())
    }

    fn filler(&self) -> PathBuf {
        self.postgres.data_directory().with_file_name("filler")
    }

    async fn fill_disk(&self) -> anyhow::Result<()> {
        if !self.has_disk {
            println!("the disk was not filled: a file system of our own could not be mounted (root can)");
            return Ok(());
        }
        let filler = self.filler();
        let fill = move || Command::new("sh").args(["-c", "cat /dev/zero >\"$0\" 2>/dev/null"]).arg(filler).status();
        tokio::task::spawn_blocking(fill).await??;
        Ok(())
    }

    fn free_disk(&self) -> anyhow::Result<()> {
        if self.has_disk {
            fs::remove_file(self.filler())?;
        }
        Ok(())
    }

    async fn until_all_answer(&mut self, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        for n in 0..self.services.len() {
            if self.services[n].role == Role::Projector {
                continue;
            }
            let url = format!("http://{}/health/ready", self.services[n].address);
            while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                let name = self.services[n].name.clone();
                ensure!(Instant::now() < deadline, "{name} does not answer");
                self.services[n].revive()?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Until every command-service takes a command, and every query-service shows it. What has ended by itself is
    /// started again, as a supervisor would.
    async fn until_all_serve(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + RECOVERY;
        let mut probe = self.probe.take().context("the probe")?;
        let mut last = String::from("not asked");
        while Instant::now() < deadline {
            for service in &mut self.services {
                service.revive()?;
            }
            match probe.try_all(self).await {
                Ok(()) => {
                    self.probe = Some(probe);
                    return Ok(());
                }
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.probe = Some(probe);
        anyhow::bail!("not all serve again within {} s: {last}; {}", RECOVERY.as_secs(), self.standing().await)
    }

    /// How the store, the read tables and their sessions stand, for the story of what went wrong.
    async fn standing(&self) -> String {
        let asked = [
            "select 'head ' || position || ', relayed ' || coalesce((select max(position) from relay), 0) from store_head",
            "select projection || ' ' || shard || ' stands at ' || position || ' of ' || head
             from checkpoint c join (select shard, max(position) as head from events group by shard) e using (shard)
             where position < head",
            "select projection || ' ' || shard || ' stopped: ' || reason from parked",
            "select 'session ' || pid || ' ' || application_name || ' ' || state || ' ' || coalesce(wait_event, '') || ' '
                || coalesce(round(extract(epoch from clock_timestamp() - xact_start))::text, '-') || ' s: '
                || left(query, 80)
             from pg_stat_activity where backend_type = 'client backend' and state <> 'idle' and pid <> pg_backend_pid()",
        ];
        let mut found: Vec<String> = vec![];
        for query in asked {
            let rows = sqlx::query_scalar::<_, Option<String>>(query).fetch_all(&self.pool).await;
            match rows {
                Ok(rows) => found.extend(rows.into_iter().flatten()),
                Err(error) => found.push(format!("Postgres does not say: {error}")),
            }
        }
        found.join("\n")
    }

    /// Another projector, on read tables of its own, until it has shown all that the store has: a rebuild.
    ///
    /// # Errors
    /// Where it does not get there.
    pub(crate) async fn rebuilt(&self, patience: Duration) -> anyhow::Result<PgPool> {
        sqlx::query("drop database if exists rebuilt with (force)").execute(&self.pool).await?;
        sqlx::query("create database rebuilt").execute(&self.pool).await?;
        let url = self.postgres.url_of("rebuilt");
        let brokers = self.kafka.brokers().to_owned();
        let mut service = Service::new(Role::Projector, 99, self.agora.clone(), &self.dir).await?;
        // Kafka is not asked: topics of its own, with nothing in them.
        let topics = topics_on(&brokers);
        set_up(&mut service, self.postgres.url(), &brokers, &topics, &self.dir);
        service.set("AGORA__READ_DATABASE__URL", &url);
        let mut both = Command::new(&self.agora);
        migrate(both.args(["--database-url", self.postgres.url()]).env("AGORA__READ_DATABASE__URL", &url))?;
        service.start()?;
        let options: PgConnectOptions = url.parse()?;
        let pool =
            PgPoolOptions::new().max_connections(2).connect_with(options.options([("search_path", "read")])).await?;
        self.until_caught_up(&pool, patience).await.context("the rebuild")?;
        service.stop().await?;
        Ok(pool)
    }

    /// Until every projection stands at the head of every shard, with rows of this release.
    ///
    /// # Errors
    /// Says which do not.
    pub(crate) async fn until_caught_up(&self, read: &PgPool, patience: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let status = projector::status(&self.pool, read).await?;
            let shards = status.projections.iter().flat_map(|(name, shards)| shards.iter().map(move |it| (name, it)));
            let behind: Vec<_> = shards.filter(|(_, it)| it.lag > 0 || it.state != State::Live).collect();
            if behind.is_empty() && !status.projections.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "behind the head: {behind:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends everything, in order.
    ///
    /// # Errors
    /// Where a service does not end by itself.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        for service in &mut self.services {
            outcome = outcome.and(service.stop().await);
        }
        self.revival.abort();
        outcome
    }
}

/// Runs `agora` with these settings until both schemas are there.
fn migrate(agora: &mut Command) -> anyhow::Result<()> {
    let migrated = agora.arg("migrate").output()?;
    ensure!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    Ok(())
}

/// Settings that all services share, and their own ways.
fn set_up(service: &mut Service, url: &str, brokers: &str, topics: &KafkaConfig, dir: &Path) {
    let address = service.address;
    service.set("AGORA__DATABASE__URL", &url);
    service.set("AGORA__DATABASE__MAX_CONNECTIONS", &8);
    service.set("AGORA__KAFKA__BROKERS", &brokers);
    service.set("AGORA__KAFKA__EVENTS_TOPIC", &topics.events_topic);
    service.set("AGORA__KAFKA__CHANGES_TOPIC", &topics.changes_topic);
    service.set("AGORA__KAFKA__GROUP", &topics.group);
    service.set("AGORA__KAFKA__PARTITIONS", &topics.partitions);
    service.set("AGORA__HTTP__LISTEN", &address);
    service.set("AGORA__HTTP__ADMIN_LISTEN", &"127.0.0.1:0");
    service.set("AGORA__DATA_DIR", &dir.join("data").display());
    service.set("AGORA__TELEMETRY__LOG", &"info");
    // As cheap as it can be: these passwords guard nothing.
    service.set("AGORA__IDENTITY__PASSWORD__MEMORY_KIB", &64);
    service.set("AGORA__IDENTITY__PASSWORD__ITERATIONS", &1);
}

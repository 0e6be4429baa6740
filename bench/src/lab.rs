//! The servers that everything is measured on: a Postgres and a Kafka of the bench's own, on this machine's disk.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use agora::{config::Config, embedded::EmbeddedPostgres, stack};
use agora_tests::{
    kafka::{Kafka, topics_on},
    postgres::temporary_directory,
    reaper::{Reaper, quoted},
};
use anyhow::{Context as _, ensure};
use platform::kafka::{Broker, KafkaConfig};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use crate::{
    pgbench::Pgbench,
    process::{Agora, Place, cpu_of, cpu_of_family, without_settings},
    standing,
};

/// What the server runs with, besides what `agora up` gives it: room for 1,024 clients of the baselines. Its durability is
/// the default, its memory too.
const SETTINGS: [(&str, &str); 1] = [("max_connections", "1200")];

/// How thoroughly it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pairs of measurements of a row.
    pub pairs: usize,
    /// How long one measurement of a rate lasts.
    pub lasts: Duration,
    /// Posts of the history that most rows are measured on.
    pub size: u64,
    /// What it follows from.
    pub seed: u64,
    /// Whether there are five minutes, and not an hour.
    pub quick: bool,
}

/// CPU seconds, by whose they are.
pub type Cpu = Vec<(&'static str, f64)>;

/// See the module.
pub struct Lab {
    /// How thoroughly.
    pub options: Options,
    agora: PathBuf,
    dir: PathBuf,
    postgres: EmbeddedPostgres,
    kafka: OnceCell<Kafka>,
    filled: tokio::sync::Mutex<Vec<u64>>,
    _reaper: Reaper,
}

impl Lab {
    /// Starts Postgres. `agora` is the program that is measured.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start(agora: PathBuf, options: Options) -> anyhow::Result<Self> {
        let dir = temporary_directory("bench");
        let reaper = Reaper::new(&format!(
            "pid=$(head -n 1 {dir}/postgres/data/postmaster.pid) && kill -QUIT $pid; \
             while kill -0 $pid; do sleep 0.1; done; rm -rf {dir}",
            dir = quoted(&dir)
        ));
        let place = dir.clone();
        let postgres = tokio::task::spawn_blocking(move || EmbeddedPostgres::start_with(&place, &SETTINGS)).await??;
        let lab = Self {
            options,
            agora,
            dir,
            postgres,
            kafka: OnceCell::new(),
            filled: tokio::sync::Mutex::default(),
            _reaper: reaper,
        };
        lab.execute("create database empty").await?;
        stack::migrate(&Config::default().with_database(&lab.postgres.url_of("empty"))).await?;
        Ok(lab)
    }

    /// Where files of a measurement may be.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The URL of a new database with both schemas and nothing in them.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn empty(&self) -> anyhow::Result<String> {
        self.copy_of("empty").await
    }

    /// The URL of a new database with a made-up forum of so many posts, all of it projected.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn filled(&self, size: u64) -> anyhow::Result<String> {
        let name = format!("filled_{size}");
        let mut filled = self.filled.lock().await;
        if !filled.contains(&size) {
            self.fill(&name, size).await?;
            filled.push(size);
        }
        self.copy_of(&name).await
    }

    async fn fill(&self, name: &str, size: u64) -> anyhow::Result<()> {
        let (size, seed) = (size.to_string(), self.options.seed.to_string());
        eprintln!("bench: filling a database: agora demo --size {size} --seed {seed}");
        // A smaller one is a part of it already.
        self.execute(&format!("create database {name} template empty")).await?;
        let database = self.postgres.url_of(name);
        let up = self.run("up", &Place { database: database.clone(), kafka: None, core: None }, &[]).await?;
        let server = format!("http://{}", up.address);
        self.command(&["demo", "--size", &size, "--seed", &seed, "--server", &server, "--database-url", &database])?;
        let pool = connect(&database, 1).await?;
        standing::caught_up(&pool).await?;
        up.stop()?;
        pool.execute("vacuum analyze").await?;
        pool.close().await;
        self.checkpoint().await
    }

    /// The URL of a new database with the event store of [`Lab::filled`], and read tables with nothing in them.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub async fn unread(&self, size: u64) -> anyhow::Result<String> {
        let database = self.filled(size).await?;
        let mut connection = PgConnection::connect(&database).await?;
        connection.execute("drop schema read cascade").await?;
        connection.close().await?;
        stack::migrate(&Config::default().with_database(&database)).await?;
        Ok(database)
    }

    /// `agora` with these arguments, to be run to its end.
    pub fn program(&self, arguments: &[&str]) -> Command {
        let mut command = without_settings(Command::new(&self.agora));
        command.env("AGORA__DATA_DIR", self.dir.join("commands")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs `agora` with these arguments to its end; answers what it printed.
    ///
    /// # Errors
    /// Where it fails: with what it said.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.program(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "agora {}: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The URL of a new database like that one, to which nobody may be connected.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn copy(&self, url: &str) -> anyhow::Result<String> {
        let options: PgConnectOptions = url.parse()?;
        self.copy_of(options.get_database().context("a database")?).await
    }

    async fn copy_of(&self, template: &str) -> anyhow::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("bench_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("create database {name} template {template} strategy file_copy")).await?;
        Ok(self.postgres.url_of(&name))
    }

    /// Takes a database away again, with whoever is still connected.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn drop(&self, url: &str) -> anyhow::Result<()> {
        let options: PgConnectOptions = url.parse()?;
        let name = options.get_database().context("a database")?;
        // Autovacuum may be at work there, whom nobody else sends away.
        self.as_superuser(&format!("drop database {name} with (force)")).await
    }

    /// Takes the databases away that a row has left behind, which did not come to its end.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn tidy(&self) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        let left =
            sqlx::query_scalar::<_, String>("select datname::text from pg_database where datname like 'bench\\_%'");
        let left = left.fetch_all(&mut connection).await?;
        connection.close().await?;
        for name in left {
            self.drop(&self.postgres.url_of(&name)).await?;
        }
        Ok(())
    }

    /// What was written before is on disk: no measurement pays for another's.
    ///
    /// # Errors
    /// Those of the server.
    pub async fn checkpoint(&self) -> anyhow::Result<()> {
        self.as_superuser("checkpoint").await
    }

    async fn as_superuser(&self, sql: &str) -> anyhow::Result<()> {
        let options: PgConnectOptions = self.postgres.url().parse()?;
        let mut superuser = PgConnection::connect_with(&options.username("postgres")).await?;
        superuser.execute(sql).await.with_context(|| sql.to_owned())?;
        superuser.close().await?;
        Ok(())
    }

    async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(self.postgres.url()).await?;
        connection.execute(sql).await.with_context(|| sql.to_owned())?;
        connection.close().await?;
        Ok(())
    }

    /// CPU seconds so far of Agora, of Postgres, and of the Kafka that it has, where that was started here.
    ///
    /// # Errors
    /// Where one of them does not run.
    pub fn cpu(&self, agora: &Agora) -> anyhow::Result<Cpu> {
        let mut all = vec![("Agora", agora.cpu()?), ("Postgres", self.postgres_cpu()?)];
        if let Some(kafka) = self.kafka.get().and_then(Kafka::pid).filter(|_| agora.with_kafka) {
            all.push(("Kafka", cpu_of(kafka)?));
        }
        Ok(all)
    }

    /// The same since then.
    ///
    /// # Errors
    /// As [`Lab::cpu`].
    pub fn cpu_since(&self, agora: &Agora, before: &Cpu) -> anyhow::Result<Cpu> {
        let now = self.cpu(agora)?.into_iter().zip(before);
        Ok(now.map(|((whose, now), (_, before))| (whose, now - before)).collect())
    }

    /// CPU seconds of Postgres so far, all its processes.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn postgres_cpu(&self) -> anyhow::Result<f64> {
        cpu_of_family(self.postgres_pid()?)
    }

    /// Postgres's first process.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn postgres_pid(&self) -> anyhow::Result<u32> {
        let pid = fs::read_to_string(self.postgres.data_directory().join("postmaster.pid"))?;
        Ok(pid.lines().next().unwrap_or_default().parse()?)
    }

    /// Topics of one's own on the Kafka, which the first call starts.
    ///
    /// # Errors
    /// Where Kafka refuses to make them.
    pub async fn kafka(&self) -> anyhow::Result<KafkaConfig> {
        // It panics where there is no Kafka: that is this row's failure, and not the end of all.
        let kafka = self.kafka.get_or_try_init(|| tokio::spawn(Kafka::start())).await?;
        let config = KafkaConfig { partitions: KafkaConfig::default().partitions, ..topics_on(kafka.brokers()) };
        Broker::start(&config)?.ensure_topics().await?;
        Ok(config)
    }

    /// Starts a process of Agora.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn run(&self, role: &str, place: &Place, settings: &[(&str, &str)]) -> anyhow::Result<Agora> {
        Agora::start(&self.agora, &self.dir, role, place, settings).await
    }

    /// A baseline in that database.
    pub fn pgbench<'a>(&'a self, database: &'a str) -> Pgbench<'a> {
        Pgbench::new(database, &self.dir)
    }
}

/// Connections to a database, for the store's schema.
///
/// # Errors
/// Where it does not answer.
pub async fn connect(database: &str, connections: u32) -> anyhow::Result<PgPool> {
    let options: PgConnectOptions = database.parse()?;
    let options = options.options([("search_path", "store,read"), ("jit", "off")]);
    Ok(sqlx::postgres::PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .connect_with(options)
        .await?)
}

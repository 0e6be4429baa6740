//! `agora up`

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use platform::{
    health::Health,
    http,
    kafka::Broker,
    telemetry::{self, TelemetryConfig},
};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Signals;
use crate::{
    config::Config,
    embedded::{self, EmbeddedPostgres},
    local::{self, Published},
    stack,
    terminal::count,
};

/// How long background work may take to end, once no request is left: a flush, a batch.
const END_WITHIN: Duration = Duration::from_secs(20);
/// Within this, a process that was killed has given its ports back, and how often that is looked for.
const GONE_WITHIN: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Start everything on this machine: all services in one process, with a Postgres and a broker of their own
#[derive(Debug, Args)]
#[command(after_help = "\
Ctrl-C stops it: requests end, what was taken is written, Postgres stops last. Everything is still there at the next start.

Examples:
  agora up
  agora up --listen 0.0.0.0:8080
  agora up --database-url postgres://agora@db/agora --kafka-brokers kafka:9092")]
pub struct Up {}

impl Up {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// What keeps it from starting: a port in use, no Postgres, another `up` in the directory, a full disk.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        let began = Instant::now();
        let _telemetry = telemetry::init(&logs(&config), "agora")?;
        super::block_on(up(config, began))
    }
}

/// What `up` prints says what matters; details for whom they matter.
fn logs(config: &Config) -> TelemetryConfig {
    let mut telemetry = config.telemetry.clone();
    if telemetry.log == TelemetryConfig::default().log && std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        "warn,sqlx_core::pool=error".clone_into(&mut telemetry.log);
    }
    telemetry
}

async fn up(config: Config, began: Instant) -> anyhow::Result<()> {
    let Signals { stop, hurry } = Signals::listen()?;
    // First of all, as that fails most often, and costs nothing.
    let dir = std::path::absolute(&config.data_dir)?;
    let [public, admin] = bind(&config, &dir).await?;
    // Without a Postgres here, the directory is claimed without it.
    let (postgres, _claim) = if config.has_database() {
        (None, Some(embedded::claim(&dir)?))
    } else {
        (Some(start_postgres(dir.clone()).await?), None)
    };
    let config = match &postgres {
        Some(postgres) => config.with_database(postgres.url()),
        None => config,
    };
    let outcome = tokio::select! {
        outcome = serve(&config, &dir, postgres.as_ref(), [public, admin], stop, began) => outcome,
        () = hurry.cancelled() => Ok(()),
    };
    if let Some(postgres) = postgres {
        let stopped = tokio::task::spawn_blocking(move || postgres.stop()).await?;
        stopped.context("cannot stop the database")?;
    }
    outcome
}

/// The public address, and the operators'.
async fn bind(config: &Config, dir: &Path) -> anyhow::Result<[TcpListener; 2]> {
    let listening = async || {
        let public = http::bind(config.http.listen, "--listen").await?;
        anyhow::Ok([public, http::bind(config.http.admin_listen, "--admin-listen").await?])
    };
    let patience = Instant::now() + GONE_WITHIN;
    loop {
        match (listening().await, local::Up::find(dir)) {
            (Ok(bound), _) => return Ok(bound),
            (Err(_), Ok(_)) if Instant::now() < patience => tokio::time::sleep(LOOK_AGAIN).await,
            (Err(_), Ok(up)) => {
                anyhow::bail!("an `agora up` runs here already: {} (process {})", up.address, up.pid)
            }
            (Err(error), Err(_)) => return Err(error),
        }
    }
}

async fn start_postgres(dir: PathBuf) -> anyhow::Result<EmbeddedPostgres> {
    tokio::task::spawn_blocking(move || EmbeddedPostgres::start(&dir)).await?
}

async fn serve(
    config: &Config,
    dir: &Path,
    postgres: Option<&EmbeddedPostgres>,
    [public, admin]: [TcpListener; 2],
    stop: CancellationToken,
    began: Instant,
) -> anyhow::Result<()> {
    let (health, tasks, end) = (Health::new(), TaskTracker::new(), CancellationToken::new());
    // The broker stays until all who use it have ended.
    let broker = Broker::start(&config.kafka)?;
    let starting = async {
        stack::migrate(config).await?;
        let found = events_found(config).await?;
        anyhow::Ok((stack::start(config, &broker, &health, &end, &tasks).await?, found))
    };
    let started = tokio::select! {
        started = starting => Some(started),
        () = stop.cancelled() => None,
    };
    let served = match started {
        Some(Ok((router, found))) => {
            let (address, operators) = (reachable(public.local_addr()?), reachable(admin.local_addr()?));
            let _published = publish(config, dir, &address)?;
            eprintln!("{}", greeting(config, (postgres, found), &address, &operators, began.elapsed()));
            let told = async {
                stop.cancelled().await;
                // A terminal that has closed takes no word any more, and one that nobody reads none now: who stops does not
                // wait for it.
                std::thread::spawn(|| writeln!(std::io::stderr(), "stopping"));
                anyhow::Ok(())
            };
            let public = http::serve(public, router, &config.http, stop.clone());
            let admin = http::serve(admin, http::admin_router(health), &config.http, stop.clone());
            let kept = async {
                if let Some(postgres) = postgres {
                    stop.run_until_cancelled(postgres.keep_running()).await;
                }
                Ok(())
            };
            tokio::try_join!(public, admin, told, kept).map(|_| ())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    end.cancel();
    tasks.close();
    if timeout(END_WITHIN, tasks.wait()).await.is_err() {
        tracing::warn!("background work did not end within {END_WITHIN:?}, and is left");
    }
    served
}

/// How many events there are from before.
async fn events_found(config: &Config) -> anyhow::Result<i64> {
    let store = super::history(config).await?;
    let found = store.head().await?;
    store.pool().close().await;
    Ok(found)
}

/// Where this machine reaches what listens there.
fn reachable(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    format!("http://{address}")
}

fn publish(config: &Config, dir: &Path, address: &str) -> anyhow::Result<Published> {
    let (address, database_url) = (address.to_owned(), config.database.url.expose().to_owned());
    local::Up { address, database_url, pid: std::process::id() }.publish(dir)
}

/// How another terminal calls it, and finds this `up`.
fn called_as(config: &Config) -> String {
    let mut agora = std::env::var("AGORA_CALLED_AS").unwrap_or_else(|_| "agora".to_owned());
    let unless_told = std::env::var_os("AGORA__DATA_DIR").map_or_else(|| Config::default().data_dir, PathBuf::from);
    if config.data_dir != unless_told {
        let _ = write!(agora, " --dir '{}'", config.data_dir.display());
    }
    agora
}

/// What a person needs to know now.
fn greeting(
    config: &Config,
    (postgres, found): (Option<&EmbeddedPostgres>, i64),
    address: &str,
    operators: &str,
    took: Duration,
) -> String {
    let agora = called_as(config);
    let mut text = format!("\n  Agora {} is up, after {:.1} s\n\n", env!("CARGO_PKG_VERSION"), took.as_secs_f64());
    let mut line = |name: &str, what: &str| {
        let _ = writeln!(text, "  {name:10}{what}");
    };
    line("API", &format!("{address}/v2"));
    line("docs", &format!("{address}/docs"));
    line("metrics", &format!("{operators}/metrics"));
    match postgres {
        Some(postgres) => {
            line("data", &postgres.data_directory().display().to_string());
            line("SQL", &format!("psql '{}'", postgres.url()));
        }
        None => line("data", "the Postgres of --database-url"),
    }
    if found > 0 {
        line("", &format!("(found there: {} of before, and everything that they tell of)", events(found)));
    }
    if let Some(notice) = postgres.and_then(EmbeddedPostgres::notice) {
        line("", &format!("({notice})"));
    }
    let _ = write!(
        text,
        "\n  To try, in another terminal:\n\n    \
         {agora} demo                              make up a lively forum\n    \
         {agora} import stackexchange DIR          bring a Stack Exchange dump over\n    \
         curl {address}/v2/communities\n\n  \
         The tour in README.md goes on from there. Ctrl-C stops; everything is still there at the next start.\n"
    );
    text
}

fn events(many: i64) -> String {
    if many == 1 { "1 event".to_owned() } else { format!("{} events", count(many.unsigned_abs())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greeting_says_what_was_found() {
        let said = |found| greeting(&Config::default(), (None, found), "http://x", "http://y", Duration::ZERO);
        assert!(!said(0).contains("found"));
        assert!(said(1).contains("(found there: 1 event of before"), "{}", said(1));
        assert!(said(65_198).contains("(found there: 65,198 events of before"), "{}", said(65_198));
    }

    #[test]
    fn the_greeting_repeats_a_directory_that_was_named() {
        let said = |config: Config| greeting(&config, (None, 0), "http://x", "http://y", Duration::ZERO);
        let plain = said(Config::default());
        assert!(plain.contains("agora demo ") && plain.contains("agora import "), "{plain}");
        let named = said(Config { data_dir: "/srv/forum".into(), ..Config::default() });
        for command in ["agora --dir '/srv/forum' demo ", "agora --dir '/srv/forum' import "] {
            assert!(named.contains(command), "{named}");
        }
    }

    #[test]
    fn an_address_of_all_interfaces_is_reached_on_this_machine() {
        let reached = |address: &str| reachable(address.parse().expect("an address"));
        assert_eq!(reached("0.0.0.0:8080"), "http://127.0.0.1:8080");
        assert_eq!(reached("[::]:8080"), "http://[::1]:8080");
        assert_eq!(reached("192.0.2.1:80"), "http://192.0.2.1:80");
    }
}

//! What the command line can do, one file for each command.

pub mod check;
pub mod command_service;
pub mod completions;
pub mod config;
pub mod demo;
pub mod events;
pub mod import;
pub mod jobs;
pub mod migrate;
mod names;
pub mod openapi;
pub mod operators;
pub mod projections;
pub mod projector;
pub mod query_service;
pub mod rebuild;
pub mod status;
pub mod stream;
pub mod target;
pub mod up;
pub mod upgrade;
mod who;

use std::{future::Future, io::Write as _, time::Duration};

use anyhow::Context as _;
use platform::{
    db,
    telemetry::{self, LogFormat, Telemetry, TelemetryConfig},
};
use sqlx::PgPool;
use store_reader::StoreReader;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{config::Config, local, stack};

/// Names of the schemas.
const STORE: &str = "store";
const READ: &str = "read";
/// Connections that read history: one for each statement in flight, and one for what is asked beside them.
const HISTORY_CONNECTIONS: u32 = 3;

/// Runs to the end, on threads for all cores.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let outcome = runtime.block_on(work);
    // A thread that still reads or hashes does not hold the process up.
    runtime.shutdown_background();
    outcome
}

/// Runs a service, on schemas that it knows, until it is told to stop.
fn service<W: Future<Output = anyhow::Result<()>>>(
    config: &Config,
    run: impl FnOnce(CancellationToken) -> W,
) -> anyhow::Result<()> {
    block_on(async move {
        let Signals { stop, hurry } = Signals::listen()?;
        // Nothing has begun yet that would have to end: who is told to stop does not wait for a database.
        match stop.run_until_cancelled(stack::require(config)).await {
            Some(known) => known?,
            None => return Ok(()),
        }
        tokio::select! {
            outcome = run(stop) => outcome,
            () = hurry.cancelled() => Ok(()),
        }
    })
}

/// Does something with the event store of the database that is configured, or of the `agora up` that runs here.
fn with_store(config: Config, what: impl AsyncFnOnce(Config, PgPool) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let config = local::with_database(config)?;
    let _telemetry = quiet_logs(&config)?;
    block_on(async {
        let store = store(&config).await?;
        what(config, store).await
    })
}

/// What Ctrl-C, SIGTERM and a terminal that closes say.
struct Signals {
    /// Told once: end in good order.
    stop: CancellationToken,
    /// Told twice: wait for nobody.
    hurry: CancellationToken,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terms = signal(SignalKind::terminate())?;
        let mut hangups = signal(SignalKind::hangup())?;
        let (stop, hurry) = (CancellationToken::new(), CancellationToken::new());
        let telling = [stop.clone(), hurry.clone()];
        tokio::spawn(async move {
            for told in telling {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terms.recv() => {}
                    _ = hangups.recv() => {}
                }
                told.cancel();
            }
        });
        Ok(Self { stop, hurry })
    }
}

/// As [`block_on`], but what ends a process (Ctrl-C, SIGTERM, a terminal that closes) ends it with what was begun
/// cleaned up, and as a container's first process too, which signals do not end by themselves.
fn block_on_until_told<T>(work: impl Future<Output = anyhow::Result<T>>, then: &str) -> anyhow::Result<T> {
    block_on(until_told(work, then))
}

/// The same, of work that runs already where there are threads.
async fn until_told<T>(work: impl Future<Output = anyhow::Result<T>>, then: &str) -> anyhow::Result<T> {
    let Signals { stop, .. } = Signals::listen()?;
    stop.run_until_cancelled(work).await.unwrap_or_else(|| Err(anyhow::anyhow!("stopped: {then}")))
}

/// Logs of a command that ends by itself: warnings only, in words among its own, unless told otherwise, as its output is
/// what counts.
fn quiet_logs(config: &Config) -> anyhow::Result<Telemetry> {
    let (mut telemetry, default) = (config.telemetry.clone(), TelemetryConfig::default());
    if telemetry.log == default.log {
        // A statement that goes over all of history is slow, and what is stopped in the middle ends transactions that had
        // not begun yet: what went wrong is said at the end.
        "warn,sqlx=error".clone_into(&mut telemetry.log);
    }
    if telemetry.log_format == default.log_format {
        telemetry.log_format = LogFormat::Words;
    }
    telemetry::init(&telemetry, "agora")
}

/// The event store, for a command: a few connections.
async fn store(config: &Config) -> anyhow::Result<PgPool> {
    db::connect(&db::DatabaseConfig { max_connections: 2, ..config.database.clone() }, STORE, "agora").await
}

/// The event store, for a command that reads much of it at its reader's pace: a reader that stops (`| less`) is no error.
pub(crate) async fn history(config: &Config) -> anyhow::Result<StoreReader> {
    let database = db::DatabaseConfig {
        max_connections: HISTORY_CONNECTIONS,
        statement_timeout: Duration::ZERO,
        ..config.database.clone()
    };
    let pool = db::connect_with(&database, STORE, "agora-history", &store_reader::CONNECTION).await?;
    Ok(StoreReader::new(pool))
}

/// The read tables, for a command.
async fn read_tables(config: &Config) -> anyhow::Result<PgPool> {
    db::connect(&db::DatabaseConfig { max_connections: 2, ..config.read_tables().clone() }, READ, "agora").await
}

/// Prints to stdout; a reader that has seen enough (`| head`) is an error that `main` knows.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

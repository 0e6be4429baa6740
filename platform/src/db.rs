//! Connections to Postgres, none of which can hold others up, and the migrations of a schema.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Row,
    migrate::{MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{self, Secret, duration},
    health::Probe,
};

pub use connections::{Connections, Lent};

mod connections;

/// The oldest Postgres we run on, as `server_version_num`.
const OLDEST_POSTGRES: i32 = 150_000;
/// A connection that lay idle for longer is tried before it is used: its server may have gone meanwhile. No server is
/// back sooner.
const TRY_AFTER_IDLE: Duration = Duration::from_millis(100);
/// The key of the advisory lock under which schemas are created and migrated: one at a time in a database.
const MIGRATION_LOCK: i64 = 0x006d_6967_7261_7465;

/// How often it is looked whether the database answers.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// SQLSTATE of a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

const URL_FORM: &str = "the database URL is not of the form postgres://user:password@host:port/database";

/// How to reach a Postgres database.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`, or `postgres:///database?host=/socket/directory`.
    pub url: Secret,
    /// Connections at most, in one process and schema.
    #[serde(deserialize_with = "config::positive")]
    pub max_connections: u32,
    /// How long a request waits for a free connection before it is answered 503.
    #[serde(with = "duration")]
    pub acquire_timeout: Duration,
    /// How long a start waits for a database that does not answer yet.
    #[serde(with = "duration")]
    pub startup_timeout: Duration,
    /// After which Postgres gives a statement up.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// After which Postgres gives up waiting for a lock.
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
    /// After which Postgres ends a session that sits in an open transaction and does nothing: its process froze.
    #[serde(with = "duration")]
    pub idle_in_transaction_timeout: Duration,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: Secret::default(),
            max_connections: 16,
            acquire_timeout: Duration::from_secs(3),
            startup_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            idle_in_transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// Run-time parameters for connections whose statements look every row up by its key, be it one or thousands, or follow
/// the order of an index: planned once and for all, whatever the statistics say. Postgres would plan many of them anew
/// each time, which takes it longer than a page or a small batch itself, and whether it does changes with the tables' size.
pub const BY_KEY: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// A pool of connections whose `search_path` is `schema`, once the database answers. `app_name` is what
/// `pg_stat_activity` shows.
///
/// # Errors
/// Says which database could not be reached, as whom and why; and refuses a Postgres older than 15.
pub async fn connect(config: &DatabaseConfig, schema: &str, app_name: &str) -> anyhow::Result<PgPool> {
    connect_with(config, schema, app_name, &[]).await
}

/// As [`connect`], with more run-time parameters set, such as `("enable_seqscan", "off")`.
///
/// # Errors
/// As [`connect`].
pub async fn connect_with(
    config: &DatabaseConfig,
    schema: &str,
    app_name: &str,
    parameters: &[(&str, &str)],
) -> anyhow::Result<PgPool> {
    let pool = connect_lazily(config, schema, app_name, parameters)?;
    wait_for(&pool.connect_options(), config.startup_timeout).await?;
    Ok(pool)
}

/// As [`connect_with`], but asks the database only once somebody needs it: for what a service can do without for a while.
///
/// # Errors
/// Where the URL is none.
pub fn connect_lazily(
    config: &DatabaseConfig,
    schema: &str,
    app_name: &str,
    parameters: &[(&str, &str)],
) -> anyhow::Result<PgPool> {
    let options = options(config, schema, app_name)?.options(parameters.iter().copied());
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > TRY_AFTER_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .connect_lazy_with(options);
    Ok(pool)
}

/// How single connections are made, set up as those of [`connect`].
///
/// # Errors
/// Where the URL is none.
pub fn options(config: &DatabaseConfig, schema: &str, app_name: &str) -> anyhow::Result<PgConnectOptions> {
    if config.url.expose().is_empty() {
        bail!(
            "no database is configured: give --database-url (or database.url), postgres://user:password@host:port/database"
        );
    }
    let url = config.url.expose();
    if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        bail!(URL_FORM);
    }
    // sqlx would log it, with its value, which may be a secret.
    if let Some(unknown) = parameters(url).find(|name| !is_known(name)) {
        bail!("the database URL has a parameter `{unknown}`, which is not known here");
    }
    let options: PgConnectOptions = url.parse().context(URL_FORM)?;
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    Ok(options
        .application_name(app_name)
        // A schema's name is ours, never a client's.
        .options([("search_path", schema), ("timezone", "UTC"), ("client_min_messages", "warning")])
        // What was answered or shown is on disk, whatever the server's default is.
        .options([("synchronous_commit", "on")])
        // The planner overestimates `unnest` and would compile statements anew, 12 ms a call.
        .options([("jit", "off")])
        .options([
            ("statement_timeout", milliseconds(config.statement_timeout)),
            ("lock_timeout", milliseconds(config.lock_timeout)),
            ("idle_in_transaction_session_timeout", milliseconds(config.idle_in_transaction_timeout)),
        ])
        // A client that vanished (power, network) is noticed within 10 s, also in the middle of a statement.
        .options([("tcp_keepalives_idle", "5"), ("tcp_keepalives_interval", "2"), ("tcp_keepalives_count", "3")])
        .options([("tcp_user_timeout", "10000"), ("client_connection_check_interval", "2000")])
        .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1)))
}

/// The names of a URL's parameters.
fn parameters(url: &str) -> impl Iterator<Item = &str> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|pair| pair.split('=').next().unwrap_or_default()).filter(|name| !name.is_empty())
}

/// Whether sqlx takes a parameter.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    KNOWN.contains(&name) || name.starts_with("options[")
}

/// Creates `schema` where it is missing and brings it up to date. Several processes may do so at once.
///
/// # Errors
/// Refuses a schema that a newer release has migrated, or whose applied migrations were changed since; says so
/// where Postgres has no room left. What a failed migration did is rolled back.
pub async fn migrate(pool: &PgPool, schema: &str, migrator: &Migrator) -> anyhow::Result<()> {
    let unhurried = [("statement_timeout", "0"), ("lock_timeout", "0"), ("idle_in_transaction_session_timeout", "0")];
    let options = (*pool.connect_options()).clone().options(unhurried);
    let mut connection = options.connect().await.context("cannot connect to migrate the database")?;
    let outcome = migrate_on(&mut connection, schema, migrator).await;
    // Closing also gives the lock back; an error of it changes nothing.
    let _ = connection.close().await;
    outcome
}

async fn migrate_on(connection: &mut PgConnection, schema: &str, migrator: &Migrator) -> anyhow::Result<()> {
    sqlx::query("select pg_advisory_lock($1)").bind(MIGRATION_LOCK).execute(&mut *connection).await?;
    sqlx::query(&format!("create schema if not exists \"{}\"", schema.replace('"', "\"\"")))
        .execute(&mut *connection)
        .await
        .with_context(|| format!("cannot create the schema `{schema}`"))?;
    let newest = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    migrator.run(connection).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) if version > newest => anyhow::anyhow!(newer(schema, version, newest)),
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => anyhow::anyhow!(
            "the database's schema `{schema}` was made by another build: its migration {version} is not the one known \
             here. Run the release that made it, or use another database"
        ),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) if is_disk_full(&error) => {
            anyhow::anyhow!(
                "the disk of the database is full: the schema `{schema}` was left as it was. Free some space, then start again"
            )
        }
        other => anyhow::Error::new(other).context(format!("cannot migrate the schema `{schema}`")),
    })
}

/// Refuses a schema that is not as `migrator` leaves it: what a service asks before it starts beside others.
///
/// # Errors
/// Says what to run where the schema is older, newer, another build's or not there.
pub async fn require(pool: &PgPool, schema: &str, migrator: &Migrator) -> anyhow::Result<()> {
    let applied = sqlx::query_scalar("select version from _sqlx_migrations where success order by version");
    let applied: Vec<i64> = match applied.fetch_all(pool).await {
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code == UNDEFINED_TABLE) => Vec::new(),
        outcome => outcome.with_context(|| format!("cannot look at the schema `{schema}`"))?,
    };
    let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
    let newest = known.iter().copied().max().unwrap_or_default();
    match applied.iter().copied().find(|version| !known.contains(version)) {
        Some(version) => bail!(newer(schema, version, newest)),
        None if applied.len() < known.len() => bail!(
            "the database's schema `{schema}` is older than this release: it has {} of {} migrations. Run `agora migrate`",
            applied.len(),
            known.len()
        ),
        None => Ok(()),
    }
}

fn newer(schema: &str, version: i64, newest: i64) -> String {
    format!(
        "the database's schema `{schema}` is newer than this release: it has migration {version}, the newest known here \
         is {newest}. Run the newer release, or restore a backup from before it"
    )
}

/// Keeps `probe` true to whether the database answers, until `shutdown`.
pub async fn watch(pool: PgPool, probe: Probe, shutdown: CancellationToken) {
    let mut looks = tokio::time::interval(WATCH_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(looks.tick()).await.is_some() {
        match sqlx::query("select").execute(&pool).await {
            Ok(_) => probe.set_ready(),
            // Others wait as long for a connection: the database is there.
            Err(sqlx::Error::PoolTimedOut)
                if pool.num_idle() == 0 && pool.size() == pool.options().get_max_connections() => {}
            Err(_) => probe.set_unready("the database does not answer"),
        }
    }
}

/// Whether a database error may be gone at the next try: no connection, no room in the pool, a time-out, a restart.
pub fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // Connection exceptions; insufficient resources; operator intervention (57014 is a time-out); lock time-out;
        // idle-in-transaction time-out; serialization failure and deadlock.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "53", "57"].iter().any(|class| code.starts_with(class))
                || ["55P03", "25P03", "40001", "40P01"].contains(&&*code)
        }),
        _ => false,
    }
}

/// A short write comes with the code of any I/O error, and is told by its words.
fn is_disk_full(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error
        .is_some_and(|error| error.code().is_some_and(|code| code == "53100") || error.message().contains("wrote only"))
}

async fn wait_for(options: &PgConnectOptions, patience: Duration) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut said = false;
    loop {
        match options.clone().connect().await {
            Ok(mut connection) => {
                let outcome = refuse_old(&mut connection).await;
                let _ = connection.close().await;
                return outcome;
            }
            Err(error) if is_passing(&error) && started.elapsed() < patience => {
                if !said {
                    tracing::info!(database = %describe(options), cause = %error, "waiting for the database");
                    said = true;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => {
                return Err(anyhow::Error::new(error).context(format!("cannot reach Postgres {}", describe(options))));
            }
        }
    }
}

async fn refuse_old(connection: &mut PgConnection) -> anyhow::Result<()> {
    let row = sqlx::query("select current_setting('server_version_num')::int, current_setting('server_version')")
        .fetch_one(connection)
        .await?;
    let (number, words): (i32, String) = (row.try_get(0)?, row.try_get(1)?);
    if number < OLDEST_POSTGRES {
        bail!("Postgres {words} is too old: 15 or newer is needed");
    }
    Ok(())
}

/// The database and who asks, without the password.
fn describe(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    let address = match options.get_socket() {
        Some(directory) => format!("in {}", directory.display()),
        None => format!("at {}:{}", options.get_host(), options.get_port()),
    };
    format!("{address} (database `{database}`, user `{}`)", options.get_username())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> DatabaseConfig {
        DatabaseConfig { url: url.into(), startup_timeout: Duration::ZERO, ..DatabaseConfig::default() }
    }

    #[test]
    fn every_connection_is_bounded() {
        let options = options(&config("postgres://ada@localhost/forum"), "store", "test").expect("a good URL");
        let set = options.get_options().expect("it sets parameters");
        for parameter in [
            "search_path=store",
            "jit=off",
            "statement_timeout=15000",
            "lock_timeout=5000",
            "idle_in_transaction_session_timeout=10000",
            "tcp_keepalives_idle=5",
        ] {
            assert!(set.contains(parameter), "{parameter} is not in {set}");
        }
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_named_without_its_password() {
        // Port 1 is reserved; nothing listens there.
        let error = connect(&config("postgres://ada:hunter2@127.0.0.1:1/forum"), "store", "test").await;
        let message = format!("{:#}", error.expect_err("nobody is there"));
        assert!(
            message.starts_with("cannot reach Postgres at 127.0.0.1:1 (database `forum`, user `ada`): "),
            "{message}"
        );
        assert!(!message.contains("hunter2"));
    }

    #[test]
    fn a_url_that_is_none_says_how_one_looks() {
        for (url, words) in [("", "no database is configured"), ("mysql:/x", "not of the form postgres://")] {
            let error = options(&config(url), "store", "test").expect_err("it is none");
            assert!(format!("{error:#}").contains(words), "{error:#}");
        }
    }

    #[test]
    fn a_parameter_that_is_none_is_named_without_its_value() {
        let url = |parameters: &str| config(&format!("postgres://ada@localhost/forum?{parameters}"));
        let refused = options(&url("sslmode=disable&sslpassword=hunter2"), "store", "test").expect_err("unknown");
        let said = refused.to_string();
        assert!(said.contains("`sslpassword`") && !said.contains("hunter2"), "{said}");
        options(&url("host=/run/pg&options[jit]=on"), "store", "test").expect("known ones");
    }

    #[test]
    fn passing_failures_are_told_from_defects() {
        assert!(is_passing(&sqlx::Error::PoolTimedOut));
        assert!(is_passing(&sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())));
        assert!(!is_passing(&sqlx::Error::RowNotFound));
    }
}

//! Agora's write side: aggregates ([`cqrs_es::Aggregate`]), command endpoints, and the event store.
//!
//! One resource has one module: its state, its commands with their pure decisions, its refusals; and below it
//! `endpoints`, with bodies, use cases and handlers. [`access`] makes permissions, [`place`] finds what a path names,
//! [`store`] keeps it. All routes are in `http`; what must happen at a time is in [`jobs`].

#[macro_use]
mod macros;

pub mod access;
pub mod account;
mod answer;
pub mod category;
pub mod command;
pub mod community;
mod http;
pub mod jobs;
pub mod limits;
pub mod membership;
pub mod place;
pub mod post;
pub mod reaction;
pub mod refusal;
pub mod session;
pub mod store;
pub mod text;
pub mod thread;

#[cfg(test)]
mod fixture;

pub use refusal::Refusal;

use std::sync::Arc;

use anyhow::Context;
use events::catalogue;
use platform::{
    db::{self, DatabaseConfig},
    health::{self, Health},
    http::{HttpConfig, admin_router, bind, layers, serve},
    identity::{Authenticates, Authenticator, Identities, IdentityConfig, Verifier},
    instances::{self, Knows},
    openapi,
};
use serde::{Deserialize, Serialize};
use sqlx::migrate::Migrator;
use store_reader::Wake;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    jobs::Jobs,
    session::Attempts,
    store::{AppenderConfig, Store},
};

/// The event store's schema in its database.
pub const SCHEMA: &str = "store";

/// The event store's migrations.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/event-store");

/// How a command-service runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The event store's database.
    pub database: DatabaseConfig,
    /// Where it listens, where it runs alone.
    pub http: HttpConfig,
    /// Passwords and tokens.
    pub identity: IdentityConfig,
    /// How commands are gathered.
    pub appender: AppenderConfig,
    /// When what is due is done.
    pub jobs: jobs::Config,
}

/// What every handler has at hand. Clones share it.
#[derive(Clone)]
pub struct App {
    store: Store,
    identities: Identities,
    attempts: Attempts,
    authenticator: Arc<dyn Authenticator>,
}

impl Authenticates for App {
    fn authenticator(&self) -> &Arc<dyn Authenticator> {
        &self.authenticator
    }
}

/// Starts the parts on a database that is migrated, and answers the endpoints; with their documentation, so that they
/// can be served beside those of others, who check tokens by the verifier: it knows of a log-out at once. `check` is what the
/// daily check looks by; `wake` the relay's, if it runs in this process.
///
/// # Errors
/// Where the database is away, the configuration has values that the parts do not take, or somebody writes event versions
/// that this release cannot read.
pub async fn start(
    config: &Config,
    health: &Health,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
    check: Arc<dyn jobs::Check>,
    wake: Wake,
) -> anyhow::Result<(OpenApiRouter, Verifier)> {
    let probe = health.register("event store");
    let pool = db::connect(&config.database, SCHEMA, "agora command-service").await?;
    let identities = Identities::start(pool.clone(), &config.identity, shutdown.clone(), tasks).await?;
    probe.set_ready();
    tasks.spawn(db::watch(pool.clone(), probe, shutdown.clone()));
    let gate = instances::join(pool.clone(), knows(), shutdown.clone(), tasks).await?;
    let store = Store::waking(pool, &config.appender, wake, tasks).behind(gate);
    tasks.spawn(store.clone().heed_left_out(shutdown.clone()));
    let lease = db::options(&config.database, SCHEMA, &jobs::application_name())?;
    Jobs::new(store.clone(), config.jobs.clone()).checking_by(check).start(lease, shutdown, tasks);
    let authenticator = identities.authenticator();
    let app = App { store, identities, attempts: Attempts::new(), authenticator };
    let verifier = app.identities.verifier();
    Ok((http::routes().with_state(app).merge(verifier.routes()), verifier))
}

/// What it is to others: it decodes events as well, to decide on them.
fn knows() -> Knows {
    Knows {
        service: "command-service",
        release: env!("CARGO_PKG_VERSION"),
        reads: catalogue::readable(),
        writes: catalogue::written(),
    }
}

/// The documentation of all endpoints, without starting anything.
pub fn api() -> OpenApi {
    http::routes().into_openapi()
}

/// Runs a command-service alone, until `shutdown`; then lets requests end, and writes what was taken.
///
/// # Errors
/// What [`start`] refuses, and a port in use.
pub async fn run(config: Config, check: Arc<dyn jobs::Check>, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let health = Health::new();
    let listener = bind(config.http.listen, "http.listen").await?;
    let admin = bind(config.http.admin_listen, "http.admin_listen").await?;
    let (started, _) = start(&config, &health, shutdown.clone(), &tasks, check, Wake::default())
        .await
        .context("cannot start the command-service")?;
    let (router, api) = started.merge(health::routes(health.clone())).split_for_parts();
    let router = layers(router.merge(openapi::routes(api)), &config.http);
    let served = serve(listener, router, &config.http, shutdown.clone());
    let administered = serve(admin, admin_router(health), &config.http, shutdown);
    tokio::try_join!(served, administered)?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

//! Agora's read side: read endpoints over the read tables, and the cache of finished answers.
//!
//! A request passes, in this order:
//! 1. its extractor ([`visibility`]), which waits for the positions that the request names ([`freshness`]), asks the
//!    rows who may see, or whether they are still as they were ([`batch`]: one statement for all who ask at once),
//!    decides, and refuses;
//! 2. [`reading`], which looks for a finished answer that is good ([`cache`]) by what notices and checkpoints told of
//!    changes ([`changes`]), and else makes one;
//! 3. its [`view`], one file each, which reads rows and makes the page of them;
//! 4. [`answer`], which knows of conditions and headers.

mod account;
mod answer;
mod batch;
mod cache;
mod card;
mod category_tree;
mod changes;
mod checkpoint;
mod community;
mod cursor;
mod docs;
mod failure;
mod freshness;
mod history;
mod http;
mod listing;
mod membership;
mod moderation_log;
mod projection;
mod reaction;
mod reading;
mod thread_list;
mod thread_page;
mod view;
mod visibility;

pub use cache::CacheConfig;
#[cfg(feature = "micro")]
pub use reading::micro::Hit;

use std::sync::Arc;

use anyhow::Context;
use platform::{
    db::{self, Connections, DatabaseConfig},
    health::{self, Health},
    http::{HttpConfig, admin_router, bind, layers, serve},
    identity::{Authenticator, IdentityConfig, Verifier},
    kafka::{Broker, KafkaConfig},
    openapi,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::{
    batch::Batch,
    cache::Cache,
    changes::Changes,
    checkpoint::{Checkpoint, OfShard},
    freshness::Freshness,
    history::History,
    reading::{Parts, ReadSide},
    visibility::{AskFacts, AskPrivate, Remembered},
};

/// The read tables' schema in their database.
const SCHEMA: &str = "read";
/// The schema of the event store, where tokens' keys are.
const STORE_SCHEMA: &str = "store";

/// Statements under way at once that decide who may see: while one is answered, the questions of the next gather.
const DECIDING_LANES: usize = 2;
/// Connections, of those configured, that keep up with the read tables; the others read pages.
const KEEPING_UP: u32 = 2;

/// How a query-service runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The read tables' database.
    pub database: DatabaseConfig,
    /// The event store's database, for `/v2/events` and threads as they were; and for the keys of access tokens, where it
    /// runs alone.
    pub store: DatabaseConfig,
    /// Where it listens, where it runs alone.
    pub http: HttpConfig,
    /// How access tokens are checked, where it runs alone.
    pub identity: IdentityConfig,
    /// Where the change notices come from, where it runs alone.
    pub kafka: KafkaConfig,
    /// How much it remembers.
    pub cache: CacheConfig,
}

/// Starts the parts on read tables that are migrated, and answers the endpoints; with their documentation, so that they
/// can be served beside those of others. `authenticator` tells who asks.
///
/// # Errors
/// Where the database is away, or has no read tables. The event store may be away: what reads it answers 503 meanwhile.
pub async fn start(
    config: &Config,
    broker: Broker,
    authenticator: Arc<dyn Authenticator>,
    health: &Health,
    shutdown: CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<OpenApiRouter> {
    let probe = health.register("read tables");
    let most = config.database.max_connections;
    let few = DatabaseConfig { max_connections: KEEPING_UP.min(most), ..config.database.clone() };
    let db = db::connect_with(&few, SCHEMA, "agora query-service", &db::BY_KEY).await?;
    let changes = Arc::new(Changes::new());
    let checkpoints =
        Checkpoint::all(&db).await.context("there are no read tables: has the database been migrated?")?;
    for checkpoint in &changes.see(&checkpoints) {
        changes.give_up_on(checkpoint);
    }
    tasks.spawn(changes::follow(Arc::clone(&changes), broker, db.clone(), shutdown.clone()));
    probe.set_ready();
    tasks.spawn(db::watch(db.clone(), probe, shutdown.clone()));
    let history = History::start(&config.store, &changes, shutdown, tasks)?;
    let side = read_side(config, &db, changes, history, authenticator)?;
    Ok(http::routes().with_state(side))
}

/// On the read tables of this pool.
fn read_side(
    config: &Config,
    db: &PgPool,
    changes: Arc<Changes>,
    history: History,
    authenticator: Arc<dyn Authenticator>,
) -> anyhow::Result<ReadSide> {
    let checkpoints = Batch::start(OfShard, db, 1);
    let for_pages = config.database.max_connections.saturating_sub(KEEPING_UP).max(1);
    Ok(ReadSide::new(Parts {
        cache: Cache::new(&config.cache),
        freshness: Freshness::new(Arc::clone(&changes), checkpoints.clone()),
        facts: Remembered::new(Batch::start(AskFacts, db, DECIDING_LANES), checkpoints, Arc::clone(&changes)),
        private: Batch::start(AskPrivate, db, 1),
        changes,
        history,
        connections: Connections::like(db, usize::try_from(for_pages)?),
        authenticator,
    }))
}

/// The documentation of all endpoints, without starting anything.
pub fn api() -> OpenApi {
    http::routes().into_openapi()
}

/// Runs a query-service alone, until `shutdown`; then lets requests end.
///
/// # Errors
/// What [`start`] refuses, and a port in use.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    let health = Health::new();
    let listener = bind(config.http.listen, "http.listen").await?;
    let admin = bind(config.http.admin_listen, "http.admin_listen").await?;
    let broker = Broker::start(&config.kafka)?;
    let store = db::connect(&config.store, STORE_SCHEMA, "agora query-service").await?;
    let verifier = Verifier::start(store, &config.identity, shutdown.clone(), &tasks).await?;
    let started = start(&config, broker, Arc::new(verifier), &health, shutdown.clone(), &tasks)
        .await
        .context("cannot start the query-service")?;
    let (router, api) = started.merge(health::routes(health.clone())).split_for_parts();
    let router = layers(router.merge(openapi::routes(api)), &config.http);
    let served = serve(listener, router, &config.http, shutdown.clone());
    let administered = serve(admin, admin_router(health), &config.http, shutdown);
    tokio::try_join!(served, administered)?;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

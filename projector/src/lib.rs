//! Agora's projector: the relay (event store → Kafka), the projections (Kafka → read tables) and change notices.
//!
//! [`start`] runs all of it; [`Outbox`] sends events to Kafka, [`topic`] looks at what is there; [`status()`], [`retry`],
//! [`skip()`], [`repair()`] and [`leave_out`], [`rebuild`], [`check`] and [`history`] are what operators ask and decide.

mod account;
mod apply;
mod batch;
mod category_tree;
pub mod check;
mod checkpoint;
mod community;
mod consumer;
#[cfg(test)]
mod fixture;
pub mod history;
mod lanes;
mod left_out;
mod membership;
mod metrics;
mod moderation_log;
mod notice;
pub mod outbox;
mod pipeline;
mod producer;
mod projection;
pub mod rebuild;
mod relay;
mod repair;
mod skip;
mod status;
mod table;
mod thread_list;
mod thread_page;
pub mod topic;
mod trace;
mod unreadable;

use std::{marker::PhantomData, sync::Arc};

use events::catalogue;
use platform::{
    db::{self, Connections, DatabaseConfig},
    instances::{self, Knows},
    kafka::Broker,
};
use store_reader::{StoreReader, Wake};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use left_out::{LeaveOut, LeftOut, leave_out};
pub use outbox::Outbox;
pub use repair::{Repair, RepairWith, Repaired, Said, repair, repairs, was_repaired};
pub use skip::{Skip, skip, skip_event, skips};
pub use status::{Parked, ShardStatus, State, Status, retry, status};
pub use unreadable::Refused;

use apply::{AnyProjection, Of};
use consumer::Source;
use metrics::Metrics;
use notice::Notices;
use pipeline::Pipeline;
use relay::Relay;

/// The schemas.
const STORE: &str = "store";
const READ: &str = "read";

/// What the projector works on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The database of the event store, migrated.
    pub event_store: DatabaseConfig,
    /// The database of the read tables, migrated.
    pub read_tables: DatabaseConfig,
    /// Kafka.
    pub broker: Broker,
    /// How who appends in this process wakes the relay.
    pub wake: Wake,
}

/// Starts the relay and the projections as tasks that end with `shutdown`. From then on they wait by themselves for what
/// is away.
///
/// # Errors
/// A database that cannot be reached at start, a wrong configuration of Kafka, or somebody who writes event versions that
/// this release cannot read.
pub async fn start(parts: Parts, shutdown: CancellationToken, tasks: &TaskTracker) -> anyhow::Result<()> {
    let Parts { event_store, read_tables, broker, wake } = parts;
    let store = db::connect_with(&event_store, STORE, "agora-projector", &store_reader::CONNECTION).await?;
    // Its commits wait for the disk too: rows that a crash takes back were shown by then, and a community that turned
    // private would be public again until they are made anew.
    let read = db::connect_with(&read_tables, READ, "agora-projector", &db::BY_KEY).await?;
    instances::join(store.clone(), knows(), shutdown.clone(), tasks).await?;
    let metrics = Metrics::new(names());
    let source = Source::new(&broker)?;
    let relay = Relay {
        store: StoreReader::new(store.clone()),
        reads: Connections::like(&store, 1),
        read: read.clone(),
        lease: db::options(&event_store, STORE, "agora-relay")?,
        broker: broker.clone(),
        wake,
        metrics: metrics.clone(),
    };
    let pipeline = Pipeline {
        store: StoreReader::new(store),
        read: read.clone(),
        rows: Connections::like(&read, names().len()),
        projections: projections(),
        source: source.clone(),
        notices: Notices::new(&broker)?,
        metrics: metrics.clone(),
        outdated: Arc::default(),
    };
    let upgrade = rebuild::Upgrade {
        event_store,
        read_tables,
        read,
        metrics: metrics.clone(),
        outdated: Arc::clone(&pipeline.outdated),
    };
    tasks.spawn(relay.run(shutdown.clone()));
    tasks.spawn(source.run(metrics, shutdown.clone()));
    tasks.spawn(upgrade.run(shutdown.clone()));
    tasks.spawn(pipeline.run(shutdown));
    Ok(())
}

/// What it is to others.
fn knows() -> Knows {
    let release = env!("CARGO_PKG_VERSION");
    Knows { service: "projector", release, reads: catalogue::readable(), writes: Vec::new() }
}

/// Starts the projector and waits until it has ended after `shutdown`.
///
/// # Errors
/// As [`start`].
pub async fn run(parts: Parts, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tasks = TaskTracker::new();
    start(parts, shutdown.clone(), &tasks).await?;
    shutdown.cancelled().await;
    tasks.close();
    tasks.wait().await;
    Ok(())
}

/// The names of all projections.
pub fn names() -> Vec<&'static str> {
    projections().iter().map(|projection| projection.name()).collect()
}

/// All projections.
fn projections() -> Vec<Box<dyn AnyProjection>> {
    vec![
        Box::new(Of::<account::Accounts>(PhantomData)),
        Box::new(Of::<category_tree::CategoryTree>(PhantomData)),
        Box::new(Of::<community::Communities>(PhantomData)),
        Box::new(Of::<membership::Memberships>(PhantomData)),
        Box::new(Of::<moderation_log::ModerationLog>(PhantomData)),
        Box::new(Of::<thread_list::ThreadList>(PhantomData)),
        Box::new(Of::<thread_page::ThreadPage>(PhantomData)),
    ]
}

//! Rebuilds read tables beside the live ones, which readers and the live projection keep.
//!
//! The same folds write the same tables in a schema of their own, [`SHADOW`], shard by shard from the first event on.
//! Then the rows are compared, both sides at exactly the same positions; and the new tables take the place of the old
//! ones, with their checkpoints, in one short transaction. One that was killed goes on from the checkpoints that its
//! schema has.

mod compare;
mod deal;
mod fold;
mod shadow;
mod swap;
mod touched;
mod upgrade;

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Read as _,
    thread::available_parallelism,
    time::Duration,
};

use anyhow::{Context as _, bail};
use events::{Position, Shard};
use futures::try_join;
use platform::{
    db::{self, Connections, DatabaseConfig},
    lease::Lease,
    origin,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex;
use uuid::Uuid;

pub use compare::{Comparison, Difference};
use store_reader::StoreReader;
pub use touched::Touched;
pub(crate) use upgrade::Upgrade;

use crate::{
    READ, STORE,
    apply::AnyProjection,
    checkpoint::{self, Checkpoint},
    projections,
};

/// The schema that is built in.
const SHADOW: &str = "rebuild";
/// Held while somebody builds there: "rebuild" in ASCII.
pub(crate) const LOCK: i64 = 0x72_6562_7569_6c64;
/// What begins the names of our connections, which end with the process and host: from that of who holds [`LOCK`], others
/// learn who builds.
const APP_NAME: &str = "agora-rebuild ";
/// Groups of shards folded at once, by how many cores there are: Postgres works on one while another is decoded. More would
/// rebuild no faster, and stand before the reads and commands that go on meanwhile.
const FEWEST_GROUPS: usize = 2;
/// The most of them.
const MOST_GROUPS: usize = 4;
/// Connections that read events: one for each of [`MOST_GROUPS`], and two to spare.
const STORE_CONNECTIONS: u32 = 6;
/// Connections to the live tables: a snapshot, and looks beside it.
const LIVE_CONNECTIONS: u32 = 4;
/// Connections to the tables that are built: their indexes, and looks beside.
const SHADOW_CONNECTIONS: u32 = 4;
/// The same, that write, for each group: while Postgres works for one of its projections, rows of the next are made.
const FOLDING_CONNECTIONS: usize = 2;

/// Events are read by an index in whose order they stand. Of a large shard the planner would rather gather its rows in any
/// order, and sort them on disk: four times the work.
///
/// Who folds may take longer than the next events wait for them: the server is not to take that for a client that is gone.
const IN_ORDER: [(&str, &str); 3] =
    [store_reader::CONNECTION[0], ("enable_bitmapscan", "off"), ("tcp_user_timeout", "0")];
/// What was built need not be on disk: a crash of Postgres takes rows and their checkpoints back together, and the swap
/// waits for the disk, where all that was built comes before it.
const NO_WAIT: (&str, &str) = ("synchronous_commit", "off");

/// Which read tables.
#[derive(Clone, Debug)]
pub struct What {
    /// Their projections.
    pub projections: Vec<String>,
    /// Only what is of this shard.
    pub shard: Option<Shard>,
    /// What for: what is built to be looked at is nobody's beginning of a rebuild, and the other way round.
    pub purpose: Purpose,
}

impl What {
    /// All of them.
    pub fn everything(purpose: Purpose) -> Self {
        Self { projections: crate::names().into_iter().map(str::to_owned).collect(), shard: None, purpose }
    }
}

/// What is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To be compared with the live tables, and removed again.
    Look,
    /// To take their place.
    Replace,
}

/// What a rebuild is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Folding events into new rows, up to where the live ones are.
    Folding,
    /// Making the indexes that folding did without.
    Indexing,
    /// Comparing with the live rows.
    Comparing,
    /// Folding what came meanwhile, and taking the place of the live tables.
    Swapping,
}

/// Is told how a rebuild gets on.
pub trait Watch: Sync {
    /// It begins something: so many events, indexes or tables are to do, and so many were done before.
    fn begins(&self, phase: Phase, todo: u64, done: u64);
    /// So many more are done.
    fn done(&self, more: u64);
}

/// Tells nobody.
pub struct Silent;

impl Watch for Silent {
    fn begins(&self, _: Phase, _: u64, _: u64) {}

    fn done(&self, _: u64) {}
}

/// A rebuild that nobody else can be at.
pub struct Rebuild {
    store: StoreReader,
    live: PgPool,
    shadow: PgPool,
    /// The same, for what batches change.
    rows: Connections,
    projections: Vec<Box<dyn AnyProjection>>,
    what: What,
    /// Tells this build from others, which may fold otherwise.
    build: String,
    /// Holds [`LOCK`].
    lock: Mutex<PgConnection>,
}

/// Somebody else builds.
#[derive(Debug, thiserror::Error)]
#[error("another rebuild, verification or check is running{0}: one at a time")]
struct Elsewhere(String);

/// Tells the program that runs from others: by what its linker wrote at its beginning (an id of the build, mostly), how long
/// it is, and since when it is there. To read all of it would take as long as to fold ten thousand events.
fn build_id() -> std::io::Result<String> {
    const BEGINNING: u64 = 64 * 1024;
    let program = File::open(std::env::current_exe()?)?;
    let about = program.metadata()?;
    let mut beginning = Vec::new();
    program.take(BEGINNING).read_to_end(&mut beginning)?;
    let about = format!("{} {:?}", about.len(), about.modified()?);
    let digest = Sha256::new().chain_update(beginning).chain_update(about).finalize();
    Ok(Uuid::from_bytes(*digest.first_chunk().expect("a digest is longer")).simple().to_string())
}

/// Groups of shards folded at once on this machine.
fn groups_at_once() -> usize {
    available_parallelism().map_or(FEWEST_GROUPS, usize::from).clamp(FEWEST_GROUPS, MOST_GROUPS)
}

/// Connections that may take their time.
async fn connect(
    config: &DatabaseConfig,
    schema: &str,
    most: u32,
    parameters: &[(&str, &str)],
) -> anyhow::Result<PgPool> {
    let unhurried = DatabaseConfig {
        max_connections: most,
        acquire_timeout: config.startup_timeout.max(config.statement_timeout),
        statement_timeout: Duration::ZERO,
        idle_in_transaction_timeout: Duration::ZERO,
        ..config.clone()
    };
    let app_name = format!("{APP_NAME}{}@{}", std::process::id(), origin::host());
    db::connect_with(&unhurried, schema, &app_name, parameters).await
}

/// Up to where each lane, by projection and shard, is to be folded.
type Targets = HashMap<(usize, Shard), Position>;

impl Rebuild {
    /// Takes the lock, and makes the schema or takes over what a killed rebuild of the same has left.
    ///
    /// # Errors
    /// Where somebody else is at it, or a database is away.
    pub async fn begin(event_store: &DatabaseConfig, read_tables: &DatabaseConfig, what: What) -> anyhow::Result<Self> {
        let by_key = [&db::BY_KEY[..], &[NO_WAIT]].concat();
        let (store, live, shadow) = try_join!(
            connect(event_store, STORE, STORE_CONNECTIONS, &IN_ORDER),
            connect(read_tables, READ, LIVE_CONNECTIONS, &[]),
            connect(read_tables, SHADOW, SHADOW_CONNECTIONS, &by_key),
        )?;
        let store = StoreReader::new(store);
        let mut lock = live.acquire().await?.detach();
        let free: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut lock).await?;
        if !free {
            let by = Lease::holder(LOCK, &live).await?.unwrap_or_default();
            let by = by.strip_prefix(APP_NAME).map(|by| format!(", process {by}")).unwrap_or_default();
            return Err(Elsewhere(by).into());
        }
        let mut chosen = projections();
        chosen.retain(|projection| what.projections.iter().any(|name| name == projection.name()));
        let rows = Connections::like(&shadow, groups_at_once() * FOLDING_CONNECTIONS);
        let build = tokio::task::spawn_blocking(build_id).await??;
        let rebuild = Self { store, live, shadow, rows, projections: chosen, what, build, lock: Mutex::new(lock) };
        // Before it takes the place of what an upgrade has built so far.
        if rebuild.what.purpose == Purpose::Look || rebuild.what.shard.is_some() {
            rebuild.comparable().await?;
        }
        rebuild.make_shadow().await.context("cannot make the tables to build in")?;
        Ok(rebuild)
    }

    /// Folds up to where the live tables are, and compares; tells of `most` rows that differ. The live tables are only
    /// read.
    ///
    /// # Errors
    /// Where an event cannot be folded, or a database is away.
    pub async fn compare(&self, most: usize, watch: &dyn Watch) -> anyhow::Result<Comparison> {
        self.fold_to(&self.live_positions().await?, Some(Phase::Folding), watch).await?;
        self.compare_rows(most, watch).await
    }

    /// Removes what was built.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn discard(self) -> anyhow::Result<()> {
        self.drop_shadow().await?;
        Ok(())
    }

    /// The live tables, without a time limit.
    pub fn live(&self) -> &PgPool {
        &self.live
    }

    /// Whether nobody else builds: the session that holds the lock may have been ended.
    async fn holds_lock(&self) -> bool {
        let held =
            "select exists (select 1 from pg_locks where locktype = 'advisory' and pid = pg_backend_pid() and granted)";
        sqlx::query_scalar(held).fetch_one(&mut *self.lock.lock().await).await.unwrap_or(false)
    }

    /// The shards that are built.
    fn shards(&self) -> Vec<Shard> {
        self.what.shard.map_or_else(|| Shard::all().collect(), |shard| vec![shard])
    }

    fn names(&self) -> Vec<&'static str> {
        self.projections.iter().map(|projection| projection.name()).collect()
    }

    /// Where the lanes that are built stand, on one of the sides.
    async fn lanes(&self, side: impl sqlx::PgExecutor<'_>) -> anyhow::Result<HashMap<(usize, Shard), Checkpoint>> {
        let (names, shards) = (self.names(), self.shards());
        let lanes = checkpoint::all(side).await?.into_iter().filter_map(|checkpoint| {
            let projection = names.iter().position(|name| *name == checkpoint.projection)?;
            shards.contains(&checkpoint.shard).then_some(((projection, checkpoint.shard), checkpoint))
        });
        Ok(lanes.collect())
    }

    /// The projections whose live rows another version of them has made: name, version here, version there.
    async fn other_versions(&self) -> anyhow::Result<BTreeSet<(&'static str, i32, i32)>> {
        let lanes = self.lanes(&self.live).await?;
        let versions = lanes.into_iter().map(|((index, _), live)| (&self.projections[index], live.version));
        let others = versions.filter(|(ours, theirs)| ours.version() != *theirs);
        Ok(others.map(|(ours, theirs)| (ours.name(), ours.version(), theirs)).collect())
    }

    /// Up to where they are folded there.
    async fn positions(&self, side: impl sqlx::PgExecutor<'_>) -> anyhow::Result<Targets> {
        Ok(positions(self.lanes(side).await?))
    }

    /// Where the live tables stand.
    async fn live_positions(&self) -> anyhow::Result<Targets> {
        let lanes = self.lanes(&self.live).await?;
        let history = self.store.history().await?;
        if lanes.len() < self.names().len() * self.shards().len() || lanes.values().any(|it| it.history != history) {
            bail!("the live tables have not begun yet: start a projector first");
        }
        Ok(positions(lanes))
    }
}

fn positions(lanes: HashMap<(usize, Shard), Checkpoint>) -> Targets {
    lanes.into_iter().map(|(lane, checkpoint)| (lane, checkpoint.position)).collect()
}

//! What a projection is: a pure fold of events into row changes, and a set-based write of those changes.

use std::{collections::BTreeSet, fmt, future::Future};

use chrono::{DateTime, Utc};
use events::{AccountId, Envelope, Event};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::table::Writes;

/// Keeps some of the read tables. One event or ten thousand take the same way: load the rows they touch, fold, write.
pub(crate) trait Projection: 'static {
    /// Its name in checkpoints, notices and commands: that of its module.
    const NAME: &'static str;
    /// Raised by one wherever the same events make other rows, or a migration changes its tables: a projector then makes
    /// them anew, beside those of the version before.
    const VERSION: i32 = 1;
    /// The tables it keeps: nobody else writes them, and no other projection reads them.
    const TABLES: &'static [Kept];
    /// The rows that a batch touches.
    type Rows: Send + 'static;

    /// Whether such an event can change a row.
    fn concerns(event: &Event) -> bool;

    /// The rows that these events, all of which [concern](Self::concerns) it, will need.
    fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> impl Future<Output = sqlx::Result<Self::Rows>> + Send;

    /// What one event changes. Pure: events in order of position, each on what the ones before it left. After a fault
    /// the rows are thrown away.
    fn fold(rows: &mut Self::Rows, event: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault>;

    /// Says what is to be written: what was changed.
    fn write(rows: Self::Rows, to: &mut Writes);
}

/// A table that a projection keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) name: &'static str,
    /// SQL: whether a row belongs to one of the communities and accounts `$1`. Each is of one shard.
    pub(crate) owned: &'static str,
}

impl Kept {
    pub(crate) const fn new(name: &'static str, owned: &'static str) -> Self {
        Self { name, owned }
    }

    /// A table whose rows name their community.
    pub(crate) const fn of_community(name: &'static str) -> Self {
        Self::new(name, "community_id = any($1)")
    }
}

/// An event in its newest version, with the envelope it came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded<'a> {
    pub(crate) envelope: &'a Envelope,
    pub(crate) event: &'a Event,
}

impl Recorded<'_> {
    /// The community it belongs to.
    pub(crate) fn community(&self) -> Result<Uuid, Fault> {
        self.envelope.community.map(|id| id.0).ok_or(Fault::NoCommunity)
    }

    /// The id that its stream is named by.
    pub(crate) fn id(&self) -> Result<Uuid, Fault> {
        self.envelope.stream.uuid().map_err(|_| Fault::Stream(self.envelope.stream.to_string()))
    }

    /// When it happened.
    pub(crate) fn at(&self) -> DateTime<Utc> {
        self.envelope.occurred_at()
    }

    /// The version of its stream after it.
    pub(crate) fn version(&self) -> i64 {
        self.envelope.sequence
    }

    /// Its place in the store.
    pub(crate) fn position(&self) -> i64 {
        self.envelope.position
    }

    /// The account that acted.
    pub(crate) fn actor(&self) -> Option<Uuid> {
        self.envelope.metadata.actor.map(|AccountId(id)| id)
    }
}

/// Why an event could not be folded. It stops the projection in that shard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// What the event changes was never there, or its beginning was skipped.
    #[error("it changes a row of `{table}` that is not there: {key}")]
    NoRow {
        /// The table.
        table: &'static str,
        /// The row's key.
        key: String,
    },
    /// Every event but an account's own belongs to one.
    #[error("it names no community")]
    NoCommunity,
    /// Streams are named by UUIDs.
    #[error("its stream `{0}` is not named by a UUID")]
    Stream(String),
    /// A defect of ours.
    #[error("folding it panicked: {0}")]
    Panic(String),
}

/// Something that a reader may have cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// What is shown of an account.
    Account(Uuid),
    /// A community, its categories, members and lists of threads.
    Community(Uuid),
    /// A thread and the list of its posts.
    Thread(Uuid),
    /// A post and its revisions.
    Post(Uuid),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => write!(f, "account:{id}"),
            Self::Community(id) => write!(f, "community:{id}"),
            Self::Thread(id) => write!(f, "thread:{id}"),
            Self::Post(id) => write!(f, "post:{id}"),
        }
    }
}

/// Which things a batch changed in one shard.
#[derive(Debug, Default)]
pub(crate) struct Changed(pub(crate) BTreeSet<Key>);

impl Changed {
    /// What is shown of an account changed.
    pub(crate) fn account(&mut self, id: Uuid) {
        self.0.insert(Key::Account(id));
    }

    /// A community, its categories, members or lists changed.
    pub(crate) fn community(&mut self, id: Uuid) {
        self.0.insert(Key::Community(id));
    }

    /// A thread or the list of its posts changed.
    pub(crate) fn thread(&mut self, id: Uuid) {
        self.0.insert(Key::Thread(id));
    }

    /// A post changed.
    pub(crate) fn post(&mut self, id: Uuid) {
        self.0.insert(Key::Post(id));
    }
}

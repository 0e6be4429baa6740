//! What clients did and were told.

use std::{
    fmt,
    sync::{Mutex, MutexGuard},
};

use events::PositionToken;
use reqwest::Method;
use serde_json::Value;
use uuid::Uuid;

/// What a command was to do, as far as it can be told from the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// An event that bears the command's mark.
    Marked,
    /// This account's reaction to this post is that, or none.
    Reaction {
        /// The post.
        post: String,
        /// Whose.
        account: String,
        /// What it is then.
        kind: Option<String>,
    },
    /// This thread is locked, or not.
    Locked {
        /// The thread.
        thread: String,
        /// Whether.
        locked: bool,
    },
    /// This account is banned from the community, or not.
    Banned {
        /// The membership's stream.
        membership: String,
        /// Whether.
        banned: bool,
    },
    /// This account has a role there that was assigned, or none.
    Moderator {
        /// The membership's stream.
        membership: String,
        /// Whether.
        moderator: bool,
    },
    /// This account is among the community's owners, or not.
    Owner {
        /// The community.
        community: String,
        /// Whose.
        account: String,
        /// Whether.
        owner: bool,
    },
}

/// A command, with its idempotency key.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Its key, and its mark.
    pub(crate) key: Uuid,
    /// Who sends it.
    pub(crate) account: String,
    /// Its token.
    pub(crate) bearer: String,
    /// How.
    pub(crate) method: Method,
    /// Where to.
    pub(crate) path: String,
    /// What.
    pub(crate) body: Option<Value>,
    /// What it is to do.
    pub(crate) effect: Effect,
}

impl Order {
    /// What its events bear, where they can.
    pub(crate) fn mark(&self) -> String {
        mark(self.key)
    }
}

/// A word that is found again in events.
pub(crate) fn mark(key: Uuid) -> String {
    format!("op-{}", key.simple())
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} (key {}, by {})", self.method, self.path, self.key, self.account)
    }
}

/// What a client was told at last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 2xx.
    Acknowledged {
        /// The status.
        status: u16,
        /// The body.
        body: Value,
        /// Where it stands.
        position: PositionToken,
        /// Whether it was said that nothing had to be done.
        unchanged: bool,
    },
    /// A refusal: it has no effect.
    Refused {
        /// The status.
        status: u16,
        /// The problem's type.
        problem: String,
    },
    /// Nobody knows: it takes effect once or not at all.
    Unanswered,
}

/// What all clients did, as it went.
#[derive(Default)]
pub(crate) struct History {
    entries: Mutex<Vec<(Order, Outcome)>>,
    broken: Mutex<Vec<String>>,
    reads: Mutex<u64>,
}

impl History {
    /// Notes how a command ended.
    pub(crate) fn note(&self, order: Order, outcome: Outcome) {
        lock(&self.entries).push((order, outcome));
    }

    /// Notes an answered read.
    pub(crate) fn note_read(&self) {
        *lock(&self.reads) += 1;
    }

    /// Notes a promise that a client saw broken.
    pub(crate) fn note_broken(&self, story: String) {
        lock(&self.broken).push(story);
    }

    /// All commands so far.
    pub(crate) fn entries(&self) -> Vec<(Order, Outcome)> {
        lock(&self.entries).clone()
    }

    /// One of the commands so far.
    pub(crate) fn entry(&self, choose: impl FnOnce(usize) -> usize) -> Option<(Order, Outcome)> {
        let entries = lock(&self.entries);
        if entries.is_empty() { None } else { entries.get(choose(entries.len())).cloned() }
    }

    /// Whether clients saw no promise broken.
    ///
    /// # Errors
    /// The first one.
    pub(crate) fn whole(&self) -> anyhow::Result<()> {
        let broken = lock(&self.broken);
        let Some(story) = broken.first() else { return Ok(()) };
        anyhow::bail!("a client saw it: {story} ({} such in all)", broken.len())
    }

    /// How many reads were answered.
    pub(crate) fn reads(&self) -> u64 {
        *lock(&self.reads)
    }
}

/// What a client that panicked left is still good.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

//! Waiting out what nobody here can mend: a database or a broker that is away.

use std::{fmt, time::Duration};

use tokio_util::sync::CancellationToken;

/// The first wait; each one after is twice as long.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait: so much later than its cause is gone, at most, work goes on.
const LONGEST: Duration = Duration::from_secs(2);

/// Waits longer with each failure, and says so once, not at each.
#[derive(Debug)]
pub struct Patience {
    who: &'static str,
    next: Option<Duration>,
}

impl Patience {
    /// For one kind of work.
    pub fn new(who: &'static str) -> Self {
        Self { who, next: None }
    }

    /// It failed: waits, unless the process ends.
    pub async fn failed(&mut self, error: impl fmt::Display, shutdown: &CancellationToken) {
        if self.next.is_none() {
            tracing::warn!("{} waits, and will go on by itself: {error:#}", self.who);
        } else {
            tracing::debug!("{} still waits: {error:#}", self.who);
        }
        let wait = self.next.unwrap_or(FIRST);
        self.next = Some((wait * 2).min(LONGEST));
        shutdown.run_until_cancelled(tokio::time::sleep(wait)).await;
    }

    /// It worked.
    pub fn worked(&mut self) {
        if self.next.take().is_some() {
            tracing::info!("{} goes on", self.who);
        }
    }
}

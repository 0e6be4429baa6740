//! Replies at a constant rate, whatever becomes of those before, each of whose answers somebody does something with.

use std::{cell::Cell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use futures::future::try_join_all;
use tokio::{
    runtime,
    task::{LocalSet, spawn_local},
    time::{Instant, sleep_until},
};

use crate::{load::Connection, people::People};

/// Commands that may be under way.
const LANES: usize = 64;

/// What is to be sent.
pub struct Commands {
    /// To whom.
    pub to: SocketAddr,
    /// By whom.
    pub people: Arc<People>,
    /// So many a second.
    pub rate: f64,
    /// For so long.
    pub lasts: Duration,
}

/// A reply that was written.
pub struct Answered {
    /// Which one.
    pub nth: u64,
    /// The position that was answered, as it was.
    pub position: String,
    /// When.
    pub at: Instant,
    /// From when it was due.
    pub took: Duration,
}

struct Shared<F> {
    commands: Commands,
    then: F,
    start: Instant,
    next: Cell<u64>,
}

impl Commands {
    /// Sends them, on a thread of its own; answers what was made of each.
    ///
    /// # Errors
    /// Where one is not answered 201, or nothing can be made of it.
    pub async fn send<T: Send + 'static>(
        self,
        then: impl AsyncFn(Answered) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<Vec<T>> {
        tokio::task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, self.run(then))
        })
        .await?
    }

    async fn run<T: 'static>(
        self,
        then: impl AsyncFn(Answered) -> anyhow::Result<T> + 'static,
    ) -> anyhow::Result<Vec<T>> {
        let connections = try_join_all((0..LANES).map(|_| Connection::open(self.to))).await?;
        let shared = Rc::new(Shared { commands: self, then, start: Instant::now(), next: Cell::new(0) });
        let lanes: Vec<_> = connections.into_iter().map(|lane| spawn_local(work(Rc::clone(&shared), lane))).collect();
        let mut made = vec![];
        for lane in lanes {
            made.extend(lane.await??);
        }
        Ok(made)
    }
}

async fn work<T>(
    shared: Rc<Shared<impl AsyncFn(Answered) -> anyhow::Result<T>>>,
    mut connection: Connection,
) -> anyhow::Result<Vec<T>> {
    let Shared { commands, then, start, next } = &*shared;
    let mut made = vec![];
    loop {
        let nth = next.get();
        #[allow(clippy::cast_precision_loss, reason = "commands of a few minutes")]
        let due = Duration::from_secs_f64(nth as f64 / commands.rate);
        if due >= commands.lasts {
            return Ok(made);
        }
        next.set(nth + 1);
        sleep_until(*start + due).await;
        let answer = connection.exchange(&commands.people.reply(nth)).await?;
        let at = Instant::now();
        ensure!(answer.status == 201, "a reply was answered {}", answer.status);
        let position = answer.header("agora-position").context("no position")?.to_owned();
        made.push(then(Answered { nth, position, at, took: at - (*start + due) }).await?);
    }
}

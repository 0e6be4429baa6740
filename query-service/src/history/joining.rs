//! Whether this process may read events: not before it stands among those who do, whom writers wait for.

use std::time::Duration;

use axum::http::StatusCode;
use events::catalogue;
use platform::{
    instances::{self, Knows},
    patience::Patience,
    problem::Problem,
};
use sqlx::PgPool;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a request waits for the first attempt, which takes milliseconds: who asks right after a start is answered.
const FIRST_ATTEMPT: Duration = Duration::from_secs(2);
/// When a client is to ask again: it is tried every two seconds.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// What waits, in the log.
const WORK: &str = "reading events over HTTP";

/// How far it has come. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Joining(watch::Receiver<Standing>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The first attempt is under way.
    Asking,
    /// The store is away, or somebody writes what this release does not know.
    Waiting,
    Joined,
}

impl Joining {
    /// Begins, and goes on until it has joined or `shutdown`.
    pub(super) fn start(store: PgPool, shutdown: CancellationToken, tasks: &TaskTracker) -> Self {
        let (told, standing) = watch::channel(Standing::Asking);
        tasks.spawn(join(store, told, shutdown, tasks.clone()));
        Self(standing)
    }

    /// Goes through once this process may read events.
    ///
    /// # Errors
    /// 503 as long as it may not.
    pub(super) async fn passed(&self) -> Result<(), Problem> {
        let mut standing = self.0.clone();
        let known = timeout(FIRST_ATTEMPT, standing.wait_for(|standing| *standing != Standing::Asking)).await;
        // Neither in time, nor after the process began to end.
        if known.is_ok_and(|known| known.is_ok_and(|standing| *standing == Standing::Joined)) {
            return Ok(());
        }
        let words = "This process may not read events yet: the event store is away, or another release writes what this one \
                     does not know. Its log says which. Try again.";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "events-not-read-yet", words);
        Err(problem.with_retry_after(RETRY_AFTER))
    }
}

async fn join(store: PgPool, told: watch::Sender<Standing>, shutdown: CancellationToken, tasks: TaskTracker) {
    let release = env!("CARGO_PKG_VERSION");
    let knows = Knows { service: "query-service", release, reads: catalogue::readable(), writes: Vec::new() };
    let (mut patience, mut was_away) = (Patience::new(WORK), None);
    while !shutdown.is_cancelled() {
        match instances::join(store.clone(), knows.clone(), shutdown.clone(), &tasks).await {
            Ok(_) => {
                patience.worked();
                told.send_replace(Standing::Joined);
                return;
            }
            Err(error) => {
                told.send_replace(Standing::Waiting);
                let away = error.is::<sqlx::Error>();
                if was_away.replace(away).is_some_and(|was| was != away) {
                    // It waits for something else now, which is said too.
                    patience = Patience::new(WORK);
                }
                patience.failed(error, &shutdown).await;
            }
        }
    }
}

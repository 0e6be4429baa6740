//! Wakes the relay after commits: at once where it is in this process; else by a `NOTIFY` of its own, outside the append's
//! transaction, where it would have every commit wait for the one before it a second time. Many commits, one ping; a lost
//! one costs the relay one poll.

use std::{sync::Arc, time::Duration};

use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use store_reader::{APPENDED, Wake};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::TaskTracker;

/// How long to leave a database alone that refused a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// From one ping to the next at least: the relay's round costs as much for one event as for ten.
const PACE: Duration = Duration::from_millis(4);

/// Tells the relay of this process, or the task to ping. The task ends when this is dropped.
pub(super) struct Ping {
    wake: Wake,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Signal {
    notify: Notify,
    closed: std::sync::atomic::AtomicBool,
}

impl Ping {
    pub(super) fn start(options: PgConnectOptions, wake: Wake, tasks: &TaskTracker) -> Self {
        let signal = Arc::new(Signal::default());
        tasks.spawn(run(options, signal.clone()));
        Self { wake, signal }
    }

    pub(super) fn send(&self) {
        if !self.wake.tell() {
            self.signal.notify.notify_one();
        }
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        self.signal.closed.store(true, std::sync::atomic::Ordering::Release);
        self.signal.notify.notify_one();
    }
}

async fn run(options: PgConnectOptions, signal: Arc<Signal>) {
    let mut connection = None;
    loop {
        signal.notify.notified().await;
        if signal.closed.load(std::sync::atomic::Ordering::Acquire) {
            return;
        }
        let next = Instant::now() + PACE;
        if let Err(error) = ping(&options, &mut connection).await {
            tracing::debug!(%error, "the relay was not woken; it polls");
            connection = None;
            sleep(PAUSE).await;
        }
        sleep_until(next).await;
    }
}

async fn ping(options: &PgConnectOptions, connection: &mut Option<PgConnection>) -> Result<(), sqlx::Error> {
    let connection = match connection {
        Some(connection) => connection,
        none => none.insert(options.connect().await?),
    };
    sqlx::query("select pg_notify($1, '')").bind(APPENDED).execute(connection).await.map(drop)
}

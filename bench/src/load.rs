//! A generator of load over HTTP/1.1, in this process, which is another than the one that answers.
//!
//! One thread with one runtime: it takes at most one core. It speaks just enough of the protocol (RFC 9112) to be cheap:
//! a request is bytes made beforehand, an answer is read by its `content-length`. What it costs is in [`Outcome::cpu`].

mod connection;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use hdrhistogram::Histogram;
use tokio::{
    runtime,
    task::{LocalSet, spawn_local},
    time::{Instant, sleep_until},
};

pub use self::connection::{Answer, Connection};
use crate::process::thread_cpu;

/// Makes the nth request.
pub type Requests = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// How requests come.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// The next as soon as the one before is answered: how much can be carried.
    Flat,
    /// So many a second, whatever becomes of those before. Latency counts from when each was to be sent, so that a server
    /// that stands still is charged with all that would have come meanwhile (coordinated omission).
    Rate(f64),
}

/// What is to be sent.
#[derive(Clone)]
pub struct Load {
    /// To whom.
    pub to: SocketAddr,
    /// Over so many connections, each with one request at a time.
    pub connections: usize,
    /// How.
    pub pace: Pace,
    /// For so long.
    pub lasts: Duration,
    /// What.
    pub requests: Requests,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long it took.
    pub seconds: f64,
    /// Requests a second, from the first that was sent to the last.
    pub sent: f64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// In µs, of all answers.
    pub latency: Histogram<u64>,
    /// In µs, of answers 503.
    pub refused: Histogram<u64>,
    /// CPU seconds of the generator.
    pub cpu: f64,
}

impl Outcome {
    /// Answers 2xx and 3xx a second.
    pub fn rate(&self) -> f64 {
        self.good() / self.seconds
    }

    /// Answers 2xx and 3xx.
    #[allow(clippy::cast_precision_loss, reason = "counts of a few minutes")]
    pub fn good(&self) -> f64 {
        self.statuses.range(200..400).map(|(_, many)| *many).sum::<u64>() as f64
    }

    /// Fails where there is an answer of another kind.
    ///
    /// # Errors
    /// Names the statuses.
    pub fn all_good(self) -> anyhow::Result<Self> {
        if self.statuses.is_empty() || self.statuses.keys().any(|status| !(200..400).contains(status)) {
            bail!("not every request was answered 2xx: {:?}", self.statuses);
        }
        Ok(self)
    }

    /// The mean latency, in ms.
    pub fn mean(&self) -> f64 {
        self.latency.mean() / 1_000.
    }

    /// A percentile of the latency, in ms.
    pub fn ms(&self, percentile: f64) -> f64 {
        ms(&self.latency, percentile)
    }
}

/// A percentile in ms of a histogram in µs.
#[allow(clippy::cast_precision_loss, reason = "µs of a few minutes")]
pub fn ms(latency: &Histogram<u64>, percentile: f64) -> f64 {
    latency.value_at_quantile(percentile / 100.) as f64 / 1_000.
}

/// An empty histogram: µs, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

struct Shared {
    load: Load,
    next: Cell<u64>,
    start: Instant,
    end: Instant,
    last_sent: Cell<Instant>,
    statuses: RefCell<BTreeMap<u16, u64>>,
    latency: RefCell<Histogram<u64>>,
    refused: RefCell<Histogram<u64>>,
}

impl Load {
    /// Sends it, on a thread of its own, and waits for what comes of it. The connections are open before the first request.
    ///
    /// # Errors
    /// Where a connection fails.
    pub async fn send(self) -> anyhow::Result<Outcome> {
        tokio::task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, self.run())
        })
        .await?
    }

    #[allow(clippy::cast_precision_loss, reason = "requests of a few minutes")]
    async fn run(self) -> anyhow::Result<Outcome> {
        let mut connections = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            connections.push(Connection::open(self.to).await.context("a connection for load")?);
        }
        let (start, cpu) = (Instant::now(), thread_cpu()?);
        let shared = Rc::new(Shared {
            start,
            end: start + self.lasts,
            last_sent: Cell::new(start),
            load: self,
            next: Cell::new(0),
            statuses: RefCell::default(),
            latency: RefCell::new(histogram()),
            refused: RefCell::new(histogram()),
        });
        let sending: Vec<_> =
            connections.into_iter().map(|connection| spawn_local(work(Rc::clone(&shared), connection))).collect();
        for sender in sending {
            sender.await??;
        }
        Ok(Outcome {
            seconds: start.elapsed().as_secs_f64(),
            sent: shared.latency.borrow().len() as f64 / (shared.last_sent.get() - start).as_secs_f64(),
            statuses: shared.statuses.take(),
            latency: shared.latency.borrow().clone(),
            refused: shared.refused.borrow().clone(),
            cpu: thread_cpu()? - cpu,
        })
    }
}

async fn work(shared: Rc<Shared>, mut connection: Connection) -> anyhow::Result<()> {
    loop {
        let nth = shared.next.get();
        let due = match shared.load.pace {
            Pace::Flat => Instant::now(),
            #[allow(clippy::cast_precision_loss, reason = "requests of a few minutes")]
            Pace::Rate(rate) => shared.start + Duration::from_secs_f64(nth as f64 / rate),
        };
        if due >= shared.end {
            return Ok(());
        }
        shared.next.set(nth + 1);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        shared.last_sent.set(Instant::now());
        let answer = connection.exchange(&(shared.load.requests)(nth)).await?;
        let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
        *shared.statuses.borrow_mut().entry(answer.status).or_default() += 1;
        shared.latency.borrow_mut().record(took)?;
        if answer.status == 503 {
            shared.refused.borrow_mut().record(took)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    async fn server(answers: Router) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, answers).await });
        address
    }

    fn load(to: SocketAddr, pace: Pace, path: &'static str) -> Load {
        let requests = Arc::new(move |_| format!("GET {path} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes());
        Load { to, connections: 2, pace, lasts: Duration::from_millis(400), requests }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_late_is_counted_from_when_it_was_due() {
        let slow = Router::new().route("/", get(|| tokio::time::sleep(Duration::from_millis(100))));
        let outcome = load(server(slow).await, Pace::Rate(100.), "/").send().await.expect("answers");
        assert_eq!(outcome.statuses, BTreeMap::from([(200, 40)]));
        // Two connections carry 20/s: the last of 40 waits for about 2 s - 0.4 s.
        assert!(outcome.ms(100.) > 1_300., "{} ms", outcome.ms(100.));
        assert!(outcome.ms(1.) >= 100.);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn refusals_are_no_success() {
        let busy = Router::new().route("/", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, "busy") }));
        let outcome = load(server(busy).await, Pace::Flat, "/").send().await.expect("answers");
        assert!(outcome.refused.len() > 10 && outcome.good() == 0.);
        assert!(outcome.all_good().is_err());
    }
}

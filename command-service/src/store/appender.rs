//! Group commit: one appender flushes all waiting commands in one call; the next flush gathers while the last one is
//! on its way to disk.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use events::{Stream, catalogue};
use opentelemetry::{
    global,
    metrics::{Counter, Histogram},
};
use platform::{
    db,
    instances::Gate,
    sabotage::{Promise, breaks},
};
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use store_reader::Wake;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_util::task::TaskTracker;

use super::{Append, NewEvent, StoreError, Verdict, append::append, ping::Ping};

/// Commands in one flush, at most: past that the curve of commands a second is flat, and one flush's time is not.
const FLUSH_COMMANDS: usize = 1_024;
/// Bytes in one flush, about, at most: what one statement's arguments may take of memory, here and in Postgres.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;
/// Turns of the scheduler that a flush waits at most for those who are likely to be back.
const TURNS: usize = 4;
/// How long one call may take before its connection is given up and the flush sent again.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a command waits for its verdict before it is told that the store is out of reach.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries at a database that does not answer, from the first to the longest.
const BACKOFF: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(300), Duration::from_secs(1)];

/// How commands are gathered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppenderConfig {
    /// Commands that may wait for a flush; one more is answered 503.
    #[serde(deserialize_with = "platform::config::positive")]
    pub queue: usize,
}

impl Default for AppenderConfig {
    fn default() -> Self {
        Self { queue: 4_096 }
    }
}

struct Job {
    append: Append,
    verdict: oneshot::Sender<Result<Verdict, StoreError>>,
}

/// The way to the one task that appends. Cheap to clone; the task ends when the last clone is gone.
#[derive(Clone)]
pub struct Appender {
    queue: mpsc::Sender<Job>,
    gate: Gate,
}

impl Appender {
    /// Starts the task, on a connection of its own that is made anew whenever it breaks.
    pub fn start(config: &AppenderConfig, options: PgConnectOptions, wake: Wake, tasks: &TaskTracker) -> Self {
        let (queue, jobs) = mpsc::channel(config.queue);
        let ping = Ping::start(options.clone(), wake, tasks);
        // Plans made on empty tables stay, and costs that are not so would have them compiled.
        let options = options.options(db::BY_KEY).options([("jit", "off")]);
        let worker = Worker { jobs, options, connection: None, ping, metrics: Metrics::new() };
        tasks.spawn(worker.run());
        Self { queue, gate: Gate::default() }
    }

    /// The same, which appends no event that is held back there.
    #[must_use]
    pub fn behind(self, gate: Gate) -> Self {
        Self { gate, ..self }
    }

    /// Appends one command with whatever others are waiting.
    ///
    /// # Errors
    /// [`StoreError::ReadersBehind`] for an event that is held back, [`StoreError::Busy`] where the queue is full,
    /// [`StoreError::Unavailable`] where no verdict comes within ten seconds; then the command may still be in.
    pub async fn append(&self, append: Append) -> Result<Verdict, StoreError> {
        let held = |event: &NewEvent| self.gate.holds_back(&catalogue::words(event.name, event.version));
        if !self.gate.is_open() && append.events.iter().any(held) {
            return Err(StoreError::ReadersBehind);
        }
        let (verdict, answer) = oneshot::channel();
        self.queue.try_send(Job { append, verdict }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Busy,
            mpsc::error::TrySendError::Closed(_) => StoreError::Unavailable,
        })?;
        timeout(PATIENCE, answer).await.ok().and_then(Result::ok).unwrap_or(Err(StoreError::Unavailable))
    }
}

struct Worker {
    jobs: mpsc::Receiver<Job>,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
    ping: Ping,
    metrics: Metrics,
}

impl Worker {
    async fn run(mut self) {
        let (mut waiting, mut answered) = (Vec::new(), 0);
        while self.gather(&mut waiting, answered).await {
            let (flush, later) = independent(waiting);
            answered = flush.len();
            let appended = self.flush(flush).await;
            waiting = later.into_iter().filter_map(|job| appended.tell(job)).collect();
        }
    }

    /// Waits for work where there is none, then takes what is there. Where that is less than the flush before answered, lets
    /// others run first, a few turns: those that were answered are likely to be back, and not to wait for two flushes then.
    /// False when nobody can send any more.
    async fn gather(&mut self, waiting: &mut Vec<Job>, answered: usize) -> bool {
        if waiting.is_empty() && self.jobs.recv_many(waiting, FLUSH_COMMANDS).await == 0 {
            return false;
        }
        for _ in 0..TURNS {
            while waiting.len() < FLUSH_COMMANDS
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push(job);
            }
            if waiting.len() >= answered {
                break;
            }
            yield_now().await;
        }
        true
    }

    /// Brings a flush to its end: sent again where its answer was lost, halved where the database refuses a value,
    /// until each command has its verdict or nobody waits for it any more.
    async fn flush(&mut self, jobs: Vec<Job>) -> Appended {
        let mut appended = Appended::default();
        // A stack of flushes; each of a halved one stands alone.
        let mut flushes = vec![jobs];
        let mut resend = false;
        let mut failures = 0;
        while let Some(mut jobs) = flushes.pop() {
            jobs.retain(|job| !job.verdict.is_closed());
            if jobs.is_empty() {
                continue;
            }
            match self.call(resend, &jobs).await {
                Ok(verdicts) => {
                    self.answer(jobs, verdicts, &mut appended);
                    if failures > 0 {
                        tracing::info!(failures, "the event store answers again");
                    }
                    failures = 0;
                }
                Err(error) if is_refused_value(&error) => match halve(jobs) {
                    Halved::One(job) => {
                        tracing::error!(%error, "the database refused a command");
                        let _ = job.verdict.send(Ok(Verdict::Rejected(error.to_string())));
                    }
                    Halved::Two(first, second) => flushes.extend([second, first]),
                },
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "the event store does not answer; the flush is sent again");
                    }
                    self.connection = None;
                    resend = true;
                    sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]).await;
                    failures += 1;
                    flushes.push(jobs);
                }
            }
        }
        appended
    }

    async fn call(&mut self, resend: bool, jobs: &[Job]) -> Result<Vec<Verdict>, sqlx::Error> {
        let started = std::time::Instant::now();
        let commands: Vec<_> = jobs.iter().map(|job| &job.append).collect();
        let options = &self.options;
        let connection = &mut self.connection;
        let call = async {
            let connection = match connection {
                Some(connection) => connection,
                none => none.insert(options.connect().await?),
            };
            append(connection, resend, &commands).await
        };
        let answer = timeout(CALL_TIMEOUT, call).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.metrics.flush_seconds.record(started.elapsed().as_secs_f64(), &[]);
        self.metrics.flush_commands.record(jobs.len() as u64, &[]);
        answer
    }

    fn answer(&self, jobs: Vec<Job>, verdicts: Vec<Verdict>, appended: &mut Appended) {
        let mut events = 0;
        for (job, verdict) in jobs.into_iter().zip(verdicts) {
            if matches!(verdict, Verdict::Appended { .. }) {
                events += job.append.events.len() as u64;
                appended.note(&job.append);
            }
            // Nobody waits for it any more: then it will be asked for again, under its key.
            let _ = job.verdict.send(Ok(verdict));
        }
        if events > 0 {
            self.metrics.events.add(events, &[]);
            self.ping.send();
        }
    }
}

/// Takes the commands that do not depend on one another, in order; the others wait for the next flush.
///
/// A command that reads or writes what an earlier one of the same flush writes was decided on a past. The function
/// checks a flush against what stood before it, all at once; in the next flush that is what the earlier one wrote.
fn independent(jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    let mut written = Written::default();
    let mut bytes = 0;
    let (mut now, mut later) = (Vec::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        bytes += job.append.bytes();
        let full = bytes > FLUSH_BYTES && !now.is_empty();
        if full || written.concerns(&job.append) {
            later.push(job);
        } else {
            written.note(&job.append);
            now.push(job);
        }
    }
    (now, later)
}

/// What the commands of a flush write so far.
#[derive(Default)]
struct Written {
    streams: HashSet<Stream>,
    claims: HashSet<(&'static str, String)>,
    receipts: HashSet<(uuid::Uuid, String)>,
    private: HashSet<(uuid::Uuid, &'static str)>,
}

impl Written {
    fn concerns(&self, append: &Append) -> bool {
        if breaks(Promise::BlindFlush) {
            return append.events.iter().any(|event| self.streams.contains(&event.stream));
        }
        append.checks.iter().any(|(stream, _)| self.streams.contains(stream))
            || append.claims.iter().any(|claim| self.claims.contains(&(claim.kind, claim.value.clone())))
            || append.receipt.iter().any(|it| self.receipts.contains(&(it.owner, it.key.clone())))
            || append.private.iter().any(|it| self.private.contains(&(it.owner, it.kind)))
    }

    fn note(&mut self, append: &Append) {
        self.streams.extend(append.events.iter().map(|event| event.stream.clone()));
        self.claims.extend(append.claims.iter().map(|claim| (claim.kind, claim.value.clone())));
        self.receipts.extend(append.receipt.iter().map(|it| (it.owner, it.key.clone())));
        self.private.extend(append.private.iter().map(|it| (it.owner, it.kind)));
    }
}

/// What a flush appended. Who waited, and rests on less, is told so at once: versions only rise, so the database would
/// say nothing else, at a round trip for each.
#[derive(Default)]
struct Appended {
    versions: HashMap<Stream, i64>,
    receipts: HashSet<(uuid::Uuid, String)>,
}

impl Appended {
    fn note(&mut self, append: &Append) {
        for event in &append.events {
            let version = self.versions.entry(event.stream.clone()).or_default();
            *version = event.sequence.max(*version);
        }
        self.receipts.extend(append.receipt.iter().map(|it| (it.owner, it.key.clone())));
    }

    /// Answers a command that was overtaken, and gives back any other. One that is a repetition has its answer in the
    /// database.
    fn tell(&self, job: Job) -> Option<Job> {
        let Append { checks, receipt, .. } = &job.append;
        let repeats = receipt.iter().any(|it| self.receipts.contains(&(it.owner, it.key.clone())));
        let moved = checks.iter().find_map(|(stream, expected)| {
            let version = *self.versions.get(stream)?;
            (version > *expected).then(|| Verdict::Moved { stream: stream.to_string(), version })
        });
        match moved {
            Some(moved) if !repeats => {
                // Nobody waits for it any more, perhaps.
                let _ = job.verdict.send(Ok(moved));
                None
            }
            _ => Some(job),
        }
    }
}

enum Halved {
    One(Job),
    Two(Vec<Job>, Vec<Job>),
}

fn halve(mut jobs: Vec<Job>) -> Halved {
    if jobs.len() == 1
        && let Some(job) = jobs.pop()
    {
        return Halved::One(job);
    }
    let second = jobs.split_off(jobs.len() / 2);
    Halved::Two(jobs, second)
}

/// Whether the database refused a value of some command: a data exception (class 22), a broken constraint (23) or a
/// program limit (54). Everything else (gone, restarting, disk full, timed out) may pass.
fn is_refused_value(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}

struct Metrics {
    flush_seconds: Histogram<f64>,
    flush_commands: Histogram<u64>,
    events: Counter<u64>,
}

impl Metrics {
    fn new() -> Self {
        let meter = global::meter("agora");
        Self {
            flush_seconds: meter
                .f64_histogram("agora_append_flush_seconds")
                .with_description("Time of one flush, its commit included")
                .with_boundaries(platform::telemetry::SECONDS.to_vec())
                .build(),
            flush_commands: meter
                .u64_histogram("agora_append_flush_commands")
                .with_description("Commands in one flush")
                .build(),
            events: meter.u64_counter("agora_events_appended").with_description("Events appended").build(),
        }
    }
}

#[cfg(test)]
mod tests {
    use events::{PostId, Shard, ThreadId};

    use super::*;
    use crate::store::NewEvent;

    fn job(reads: &[&Stream], writes: &[&Stream]) -> Job {
        let event = |stream: &&Stream| NewEvent {
            stream: (*stream).clone(),
            sequence: 1,
            event_id: events::EventId::new(),
            name: "thread.locked",
            version: 1,
            payload: serde_json::value::to_raw_value("").expect("JSON"),
        };
        let append = Append {
            shard: Shard::default(),
            community: None,
            checks: reads.iter().chain(writes).map(|stream| ((*stream).clone(), 0)).collect(),
            events: writes.iter().map(event).collect(),
            metadata: String::new(),
            claims: Vec::new(),
            private: Vec::new(),
            receipt: None,
        };
        Job { append, verdict: oneshot::channel().0 }
    }

    #[test]
    fn a_command_that_rests_on_what_an_earlier_one_writes_waits_for_the_next_flush() {
        let thread = Stream::thread(ThreadId::new());
        let posts = [(); 3].map(|()| Stream::post(PostId::new()));
        let early_reply = job(&[&thread], &[&posts[0]]);
        let lock = job(&[], &[&thread]);
        let late_reply = job(&[&thread], &[&posts[1]]);
        let elsewhere = job(&[], &[&posts[2]]);
        let (now, later) = independent(vec![early_reply, lock, late_reply, elsewhere]);
        let written = |jobs: &[Job]| jobs.iter().map(|job| job.append.events[0].stream.clone()).collect::<Vec<_>>();
        assert_eq!(written(&now), [posts[0].clone(), thread, posts[2].clone()]);
        assert_eq!(written(&later), [posts[1].clone()]);
    }

    #[test]
    fn who_was_overtaken_while_it_waited_is_told_at_once() {
        let [thread, other] = [(); 2].map(|()| Stream::thread(ThreadId::new()));
        let mut appended = Appended::default();
        appended.note(&job(&[], &[&thread]).append);
        assert!(appended.tell(job(&[&other], &[&other])).is_some(), "it rests on nothing that moved");
        let (verdict, mut answer) = oneshot::channel();
        assert!(appended.tell(Job { verdict, ..job(&[&thread], &[&other]) }).is_none());
        let told = answer.try_recv().expect("an answer").expect("a verdict");
        assert!(matches!(told, Verdict::Moved { stream, version: 1 } if stream == thread.to_string()));
        let mut seen = job(&[&thread], &[&other]);
        seen.append.checks[0].1 = 1;
        assert!(appended.tell(seen).is_some(), "it was decided on that version");
    }

    #[test]
    fn a_flush_is_halved_until_one_command_stands_alone() {
        let stream = Stream::thread(ThreadId::new());
        let jobs = (0..3).map(|_| job(&[], &[&stream])).collect();
        let Halved::Two(first, second) = halve(jobs) else { panic!("three are two halves") };
        assert_eq!((first.len(), second.len()), (1, 2));
        assert!(matches!(halve(first), Halved::One(_)));
    }
}

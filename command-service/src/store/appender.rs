//! Group commit: the appender flushes waiting commands together, in one call.
//!
//! Few are one flush, and the next one gathers while it is on its way to disk. Many are two, each on a connection of its
//! own: while Postgres has the one, the commands of the other are answered, decided and sent, and it has them at hand when
//! the one before is committed.

use std::{
    collections::{HashMap, HashSet},
    future::ready,
    mem,
    time::Duration,
};

use events::{Stream, catalogue};
use futures::{StreamExt as _, stream::FuturesUnordered};
use opentelemetry::{
    global,
    metrics::{Counter, Histogram},
};
use platform::{db, instances::Gate};
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions, PgConnection, postgres::PgConnectOptions};
use store_reader::Wake;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::TaskTracker;

use self::written::Written;
use super::{Append, NewEvent, StoreError, Verdict, append::append, ping::Ping};

mod written;

/// Commands in one flush, at most: past that the curve of commands a second is flat, and one flush's time is not.
const FLUSH_COMMANDS: usize = 1_024;
/// Bytes in one flush, about, at most: what one statement's arguments may take of memory, here and in Postgres.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;
/// Commands that are worth a flush of their own beside another: fewer are sooner written together than one after the other.
const APART: usize = 24;
/// How long a flush may be under way for another to begin beside it, whose own time begins then.
const BESIDE: Duration = Duration::from_secs(1);
/// Turns of the scheduler that a flush waits at most for those who are likely to be back.
const TURNS: usize = 4;
/// Answers that wake their handlers before others have their turn.
const TOLD_TOGETHER: usize = 2;
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
    /// Commands that may wait for a flush, beside the 1,024 that are gathered for one; one more is answered 503.
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
    /// Starts the task, on two connections of its own that are made anew whenever they break.
    pub fn start(config: &AppenderConfig, options: PgConnectOptions, wake: Wake, tasks: &TaskTracker) -> Self {
        let (queue, jobs) = mpsc::channel(config.queue);
        let ping = Ping::start(options.clone(), wake, tasks);
        // Plans made on empty tables stay, and costs that are not so would have them compiled.
        let options = options.options(db::BY_KEY).options([("jit", "off")]);
        let line = |nth| Line { nth, options: options.clone(), connection: None };
        let lines = [0, 1].map(line);
        tasks.spawn(Gathering::new(jobs).run(lines, Told { ping, metrics: Metrics::new() }));
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

/// The commands that no flush has yet, and what is known of those that one has.
struct Gathering {
    jobs: mpsc::Receiver<Job>,
    waiting: Vec<Job>,
    /// Of those that wait, who were found to rest on what is under way.
    held: usize,
    /// Who was answered last and has not come back; by number, as it may be others who come.
    expected: usize,
    /// What each line's flush writes, as long as it is under way.
    written: [Written; 2],
    /// When the last flush began.
    begun: Instant,
}

impl Gathering {
    fn new(jobs: mpsc::Receiver<Job>) -> Self {
        let (waiting, written) = (Vec::new(), Default::default());
        Self { jobs, waiting, held: 0, expected: 0, written, begun: Instant::now() }
    }

    /// Until nobody can send any more.
    async fn run(mut self, lines: [Line; 2], told: Told) {
        let (mut idle, mut under_way, mut open) = (Vec::from(lines), FuturesUnordered::new(), true);
        loop {
            let mut begun = false;
            if let Some(line) = idle.pop() {
                let flush = self.next(line.nth, under_way.is_empty()).await;
                begun = !flush.is_empty();
                if begun {
                    under_way.push(line.flush(flush, &told));
                } else {
                    idle.push(line);
                }
            }
            let room = FLUSH_COMMANDS - self.waiting.len();
            tokio::select! {
                biased;
                Some((line, done)) = under_way.next() => {
                    self.written[line.nth] = Written::default();
                    self.waiting = mem::take(&mut self.waiting).into_iter().filter_map(|job| done.tell(job)).collect();
                    (self.expected, self.held) = (done.answered, 0);
                    if done.lost {
                        // The other one has not been tried since: half of a burst would, and wait for eight seconds.
                        idle.iter_mut().map(|line: &mut Line| line.connection.take()).for_each(drop);
                    }
                    idle.push(line);
                }
                // It is on its way: now for those beside it.
                () = ready(()), if begun => {}
                more = self.jobs.recv_many(&mut self.waiting, room), if open && room > 0 && !idle.is_empty() => {
                    self.expected = self.expected.saturating_sub(more);
                    open = more > 0;
                }
                else => return,
            }
        }
    }

    /// What is to go now on this line; nothing where there is nothing, or it is not worth a flush beside another. With
    /// nothing under way, that is all; or of many, half, the others as the flush beside it. Where that is not all who are
    /// about, lets others run first, a few turns: those that were answered are likely to be back, and not to wait for two
    /// flushes then.
    async fn next(&mut self, line: usize, alone: bool) -> Vec<Job> {
        let mut turns = 0..TURNS;
        loop {
            while self.waiting.len() < FLUSH_COMMANDS
                && let Ok(job) = self.jobs.try_recv()
            {
                self.waiting.push(job);
                self.expected = self.expected.saturating_sub(1);
            }
            let waiting = self.waiting.len();
            if !alone {
                let all = self.expected == 0 || waiting == FLUSH_COMMANDS;
                let worth_it = all && waiting >= self.held + APART && self.begun.elapsed() < BESIDE;
                return if worth_it { self.take(APART, waiting, line) } else { Vec::new() };
            }
            let about = waiting + self.expected;
            let goal = if about < 2 * APART { about } else { about.div_ceil(2) };
            if waiting == 0 || waiting >= goal || turns.next().is_none() {
                return self.take(0, goal, line);
            }
            yield_now().await;
        }
    }

    /// Takes commands that do not depend on one another or on what is under way, in order, for a line, as many as that at
    /// most; nothing where they are too few. The others go on waiting.
    ///
    /// A command that reads or writes what an earlier one of the same flush writes was decided on a past. The function
    /// checks a flush against what stood before it, all at once; in the next flush that is what the earlier one wrote.
    fn take(&mut self, least: usize, most: usize, line: usize) -> Vec<Job> {
        let mut written = Written::default();
        let (mut many, mut bytes) = (0, 0);
        let goes = |Job { append, .. }: &Job| {
            let is_full = many == most || many > 0 && bytes + append.bytes() > FLUSH_BYTES;
            let goes = !is_full && !self.written.iter().chain([&written]).any(|written| written.concerns(append));
            if goes {
                written.note(append);
                (many, bytes) = (many + 1, bytes + append.bytes());
            }
            goes
        };
        let mut going = self.waiting.iter().map(goes).collect::<Vec<bool>>().into_iter();
        if many < least {
            self.held = self.waiting.len();
            return Vec::new();
        }
        let (now, later) = mem::take(&mut self.waiting).into_iter().partition(|_| going.next() == Some(true));
        self.waiting = later;
        self.written[line] = written;
        self.begun = Instant::now();
        now
    }
}

/// What is told of each flush, besides its commands.
struct Told {
    ping: Ping,
    metrics: Metrics,
}

/// A connection, made anew whenever it breaks, that brings one flush after the other to the database.
struct Line {
    nth: usize,
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Line {
    /// Brings a flush to its end: sent again where its answer was lost, halved where the database refuses a value,
    /// until each command has its verdict or nobody waits for it any more.
    async fn flush(mut self, jobs: Vec<Job>, told: &Told) -> (Self, Done) {
        let mut done = Done::default();
        // A stack of flushes; each of a halved one stands alone.
        let mut flushes = vec![jobs];
        let mut resend = false;
        let mut failures = 0;
        while let Some(mut jobs) = flushes.pop() {
            jobs.retain(|job| !job.verdict.is_closed());
            if jobs.is_empty() {
                continue;
            }
            match self.call(resend, &jobs, &told.metrics).await {
                Ok(verdicts) => {
                    told.answer(jobs, verdicts, &mut done).await;
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
                    (resend, done.lost) = (true, true);
                    sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]).await;
                    failures += 1;
                    flushes.push(jobs);
                }
            }
        }
        (self, done)
    }

    async fn call(&mut self, resend: bool, jobs: &[Job], metrics: &Metrics) -> Result<Vec<Verdict>, sqlx::Error> {
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
        metrics.flush_seconds.record(started.elapsed().as_secs_f64(), &[]);
        metrics.flush_commands.record(jobs.len() as u64, &[]);
        answer
    }
}

impl Told {
    /// The relay first, then those who wait, a few at a time: told all at once, a thousand would go before whoever comes next.
    async fn answer(&self, jobs: Vec<Job>, verdicts: Vec<Verdict>, done: &mut Done) {
        let appended = |verdict: &Verdict| matches!(verdict, Verdict::Appended { .. });
        let writes = jobs.iter().zip(&verdicts).filter(|(_, verdict)| appended(verdict));
        let events: usize = writes.map(|(job, _)| job.append.events.len()).sum();
        if events > 0 {
            self.metrics.events.add(events as u64, &[]);
            self.ping.send();
        }
        done.answered += jobs.len();
        for (nth, (job, verdict)) in jobs.into_iter().zip(verdicts).enumerate() {
            if nth > 0 && nth.is_multiple_of(TOLD_TOGETHER) {
                yield_now().await;
            }
            if appended(&verdict) {
                done.note(&job.append);
            }
            // Nobody waits for it any more: then it will be asked for again, under its key.
            let _ = job.verdict.send(Ok(verdict));
        }
    }
}

/// What came of a flush. Who waited, and rests on less than it appended, is told so at once: versions only rise, so the
/// database would say nothing else, at a round trip for each.
#[derive(Default)]
struct Done {
    /// How many commands had their verdict.
    answered: usize,
    /// Whether a connection was lost.
    lost: bool,
    /// What it appended.
    versions: HashMap<Stream, i64>,
    receipts: HashSet<(uuid::Uuid, String)>,
}

impl Done {
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
                .with_description("Time of one flush, from its sending, behind the one before it, to its commit")
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
        let mut gathering = Gathering::new(mpsc::channel(1).1);
        gathering.waiting = vec![early_reply, lock, late_reply, elsewhere];
        let written = |jobs: &[Job]| jobs.iter().map(|job| job.append.events[0].stream.clone()).collect::<Vec<_>>();
        assert_eq!(written(&gathering.take(0, 4, 0)), [posts[0].clone(), thread, posts[2].clone()]);
        assert_eq!(written(&gathering.waiting), [posts[1].clone()]);
        assert!(gathering.take(0, 4, 1).is_empty(), "the other line has what it rests on");
        gathering.written[0] = Written::default();
        assert_eq!(written(&gathering.take(0, 4, 1)), [posts[1].clone()]);
    }

    #[test]
    fn who_was_overtaken_while_it_waited_is_told_at_once() {
        let [thread, other] = [(); 2].map(|()| Stream::thread(ThreadId::new()));
        let mut done = Done::default();
        done.note(&job(&[], &[&thread]).append);
        assert!(done.tell(job(&[&other], &[&other])).is_some(), "it rests on nothing that moved");
        let (verdict, mut answer) = oneshot::channel();
        assert!(done.tell(Job { verdict, ..job(&[&thread], &[&other]) }).is_none());
        let told = answer.try_recv().expect("an answer").expect("a verdict");
        assert!(matches!(told, Verdict::Moved { stream, version: 1 } if stream == thread.to_string()));
        let mut seen = job(&[&thread], &[&other]);
        seen.append.checks[0].1 = 1;
        assert!(done.tell(seen).is_some(), "it was decided on that version");
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

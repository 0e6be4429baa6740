//! The event store alone: replies appended through our store, through `postgres-es`, and as plain `INSERT`s of the same
//! payload by pgbench.
//!
//! Ours writes more than the others do: each reply rests on the versions of its thread, its category tree and its
//! author's membership, and leaves a receipt. The baseline of pgbench is the cheapest that holds the same bytes: one table
//! with a number for its key.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use command_service::{
    post::Post,
    store::{Append, AppenderConfig, NewEvent, Receipt, Store, StoreError, Verdict},
};
use cqrs_es::persist::{PersistedEventRepository as _, SerializedEvent};
use events::{AccountId, CommunityId, EventId, PostId, Shard, Stream, ThreadId};
use futures::future::try_join_all;
use hdrhistogram::Histogram;
use platform::db::BY_KEY;
use postgres_es::PostgresEventRepository;
use serde_json::{Value, json, value::RawValue};
use sqlx::Executor as _;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::{
    lab::{Lab, connect},
    load::{histogram, ms},
    pairs::{Pairs, Spread},
    process::cpu_of,
    report::{Bound, Report, Unit},
    standing,
};

/// Commands in flight.
const CURVE: [usize; 6] = [1, 8, 32, 64, 256, 1_024];
/// The connections of postgres-es's own pool, where one does not say.
const THEIR_POOL: u32 = 10;
/// Of what it carries, while latency is looked at.
const SHARE: f64 = 0.6;
/// What is read into memory of a thread, a tree and a member: streams that are there.
const REST_ON: i64 = 1;

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.empty().await?;
    let pool = connect(&database, 2).await?;
    prepare(&pool).await?;
    let bed = Bed { lab, database: &database };
    for in_flight in curve(lab) {
        let (ours, pgbench) = (|| bed.ours(in_flight), || bed.pgbench(in_flight));
        let pairs = Pairs::take(lab.options.pairs, ours, pgbench).await?;
        report.beside(
            format!("append, {in_flight} in flight"),
            Unit::PerSecond,
            &pairs,
            "pgbench INSERT",
            at_least(match in_flight {
                64 => Some(1.3),
                256 => Some(2.),
                32 | 1_024 => Some(1.),
                _ => None,
            }),
        );
        for (connections, held_to) in [(THEIR_POOL, true), (64, false)] {
            if lab.options.quick && !held_to {
                continue;
            }
            let (ours, theirs) = (|| bed.ours(in_flight), || bed.postgres_es(in_flight, connections));
            let pairs = Pairs::take(lab.options.pairs, ours, theirs).await?;
            let what = if held_to { "postgres-es" } else { "postgres-es, pool of 64" };
            let bound = held_to.then_some(match in_flight {
                64 => 4.,
                256 => 6.,
                _ => 1.,
            });
            report.beside(format!("append, {in_flight} in flight"), Unit::PerSecond, &pairs, what, at_least(bound));
        }
    }
    if !lab.options.quick {
        bed.beside_the_call(report).await?;
    }
    bed.few(report).await?;
    bed.steadily(report).await?;
    bed.too_much(report).await?;
    pool.close().await;
    lab.drop(&database).await
}

fn curve(lab: &Lab) -> Vec<usize> {
    CURVE.into_iter().filter(|in_flight| !lab.options.quick || matches!(in_flight, 1 | 64 | 256)).collect()
}

fn at_least(ratio: Option<f64>) -> Option<Bound> {
    ratio.map(Bound::Least)
}

/// What the others write into; and what replies rest on.
async fn prepare(pool: &sqlx::PgPool) -> anyhow::Result<()> {
    pool.execute("create table plain (id bigint generated always as identity primary key, payload json not null)")
        .await?;
    // As in postgres-es's own `db/init.sql`.
    pool.execute(
        "create schema theirs; create table theirs.events (
            aggregate_type text not null, aggregate_id text not null, sequence bigint not null check (sequence >= 0),
            event_type text not null, event_version text not null, payload json not null, metadata json not null,
            primary key (aggregate_type, aggregate_id, sequence)
        )",
    )
    .await?;
    Ok(())
}

pub(super) struct Bed<'a> {
    pub(super) lab: &'a Lab,
    pub(super) database: &'a str,
}

impl Bed<'_> {
    pub(super) async fn ours(&self, in_flight: usize) -> anyhow::Result<f64> {
        self.lab.checkpoint().await?;
        let pool = connect(self.database, 4).await?;
        let tasks = TaskTracker::new();
        let store = Store::start(pool.clone(), &AppenderConfig::default(), &tasks);
        let forum = Arc::new(Forum::found(&store).await?);
        let outcome = write(in_flight, self.lab.options.lasts, || {
            let (store, forum) = (store.clone(), Arc::clone(&forum));
            async move { forum.reply(&store).await.map(|_| ()) }
        })
        .await?;
        drop(store);
        tasks.close();
        tasks.wait().await;
        pool.close().await;
        Ok(outcome.rate)
    }

    async fn postgres_es(&self, in_flight: usize, connections: u32) -> anyhow::Result<f64> {
        self.lab.checkpoint().await?;
        let options: sqlx::postgres::PgConnectOptions = self.database.parse()?;
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(connections)
            .acquire_timeout(Duration::from_secs(60))
            .connect_with(options.options([("search_path", "theirs")]))
            .await?;
        let repository = Arc::new(PostgresEventRepository::new(pool.clone()));
        let outcome = write(in_flight, self.lab.options.lasts, || {
            let repository = Arc::clone(&repository);
            async move {
                let event = SerializedEvent::new(
                    PostId::new().to_string(),
                    1,
                    "post".to_owned(),
                    "post.written".to_owned(),
                    "1".to_owned(),
                    PAYLOAD.clone(),
                    json!({"actor": AccountId::new().to_string()}),
                );
                Ok(repository.persist::<Post>(&[event], None).await?)
            }
        })
        .await?;
        pool.close().await;
        Ok(outcome.rate)
    }

    async fn pgbench(&self, clients: usize) -> anyhow::Result<f64> {
        self.lab.checkpoint().await?;
        let script = format!("insert into store.plain (payload) values ('{}');\n", payload());
        Ok(self.lab.pgbench(self.database).run(&script, clients, self.lab.options.lasts).await?.rate)
    }
}

impl Bed<'_> {
    /// What one command takes without a program around it: pgbench calls `append()` as the store does.
    async fn beside_the_call(&self, report: &mut Report) -> anyhow::Result<()> {
        let call = "pgbench, append() of one";
        let pairs = Pairs::take(self.lab.options.pairs, || self.ours(1), || self.call()).await?;
        report.beside("append, 1 in flight", Unit::PerSecond, &pairs, call, None);
        let theirs = || self.postgres_es(1, THEIR_POOL);
        let pairs = Pairs::take(self.lab.options.pairs, || self.call(), theirs).await?;
        report.beside(call, Unit::PerSecond, &pairs, "postgres-es", None);
        let pairs = Pairs::take(self.lab.options.pairs, || self.call(), || self.pgbench(1)).await?;
        report.beside(call, Unit::PerSecond, &pairs, "pgbench INSERT", None);
        Ok(())
    }

    async fn call(&self) -> anyhow::Result<f64> {
        let pool = connect(self.database, 4).await?;
        let forum = Forum::found(&Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new())).await?;
        self.lab.checkpoint().await?;
        let before = standing::events(&pool).await?;
        let parameters = BY_KEY.into_iter().chain([("search_path", "store"), ("jit", "off")]);
        let pgbench = self.lab.pgbench(self.database).with(parameters);
        let called = pgbench.run(&forum.call(), 1, self.lab.options.lasts).await?;
        let written = standing::events(&pool).await? - before;
        pool.close().await;
        let least = 0.9 * called.rate * self.lab.options.lasts.as_secs_f64();
        ensure!(written >= least, "append() was called, and wrote {written} events");
        Ok(called.rate)
    }

    /// Under saturation: what one command takes, and what it takes beside few others.
    async fn few(&self, report: &mut Report) -> anyhow::Result<()> {
        let pool = connect(self.database, 4).await?;
        let store = Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new());
        let forum = Arc::new(Forum::found(&store).await?);
        let time = |in_flight: usize| {
            let (store, forum) = (store.clone(), Arc::clone(&forum));
            async move {
                let reply = || {
                    let (store, forum) = (store.clone(), Arc::clone(&forum));
                    async move { forum.reply(&store).await.map(|_| ()) }
                };
                self.lab.checkpoint().await?;
                anyhow::Ok(ms(&write(in_flight, self.lab.options.lasts, reply).await?.latency, 50.))
            }
        };
        for in_flight in [8, 16] {
            let pairs = Pairs::take(self.lab.options.pairs, || time(in_flight), || time(1)).await?;
            let name = format!("append, {in_flight} in flight: p50 of a command");
            report.beside(name, Unit::Ms, &pairs, "a flush of one of ours, alone", Some(Bound::Most(2.)));
        }
        drop(store);
        pool.close().await;
        Ok(())
    }

    /// At a constant rate: what a command takes from when it was to be sent, and what it costs.
    async fn steadily(&self, report: &mut Report) -> anyhow::Result<()> {
        let pool = connect(self.database, 4).await?;
        let store = Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new());
        let forum = Arc::new(Forum::found(&store).await?);
        let (mut latencies, mut of_ours, mut of_postgres) = (vec![], vec![], vec![]);
        let rate = SHARE * self.ours(64).await?;
        for _ in 0..self.lab.options.pairs {
            self.lab.checkpoint().await?;
            let (ours, postgres) = (cpu_of(std::process::id())?, self.lab.postgres_cpu()?);
            let sent = send(&store, &forum, rate, self.lab.options.lasts).await?;
            ensure!(sent.refused.is_empty(), "a command was refused at {rate:.0}/s");
            let each = |seconds: f64| 1e6 * seconds / count(&sent.taken);
            of_ours.push(each(cpu_of(std::process::id())? - ours));
            of_postgres.push(each(self.lab.postgres_cpu()? - postgres));
            latencies.push(sent.taken);
        }
        let name = format!("append, at 60 % of what 64 in flight are, {rate:.0}/s");
        report.latencies(&name, &latencies, 50.);
        report.alone(format!("{name}: CPU of the store and who asks"), Unit::Micros, Spread::of(of_ours), None);
        report.alone(format!("{name}: CPU of Postgres"), Unit::Micros, Spread::of(of_postgres), None);
        drop(store);
        pool.close().await;
        Ok(())
    }

    /// Twice of what it can carry.
    async fn too_much(&self, report: &mut Report) -> anyhow::Result<()> {
        let pool = connect(self.database, 4).await?;
        let store = Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new());
        let forum = Arc::new(Forum::found(&store).await?);
        let (mut carried, mut refused) = (vec![], histogram());
        for _ in 0..self.lab.options.pairs {
            let reply = || {
                let (store, forum) = (store.clone(), Arc::clone(&forum));
                async move { forum.reply(&store).await.map(|_| ()) }
            };
            self.lab.checkpoint().await?;
            let best = write(1_024, self.lab.options.lasts, reply).await?.rate;
            let sent = send(&store, &forum, 2. * best, self.lab.options.lasts).await?;
            carried.push(100. * sent.rate / best);
            refused.add(&sent.refused)?;
        }
        let carried = Spread::of(carried);
        report.alone(
            "append at twice what it can carry: carried of its best",
            Unit::Percent,
            carried,
            Some(Bound::Least(80.)),
        );
        if refused.is_empty() {
            anyhow::bail!("nothing was refused at twice the load");
        }
        let p99 = Spread::of([ms(&refused, 99.)]);
        report.alone("append at twice what it can carry: p99 of a refusal", Unit::Ms, p99, Some(Bound::Most(50.)));
        drop(store);
        pool.close().await;
        Ok(())
    }
}

/// What came of a run.
struct Run {
    rate: f64,
    /// In µs.
    latency: Histogram<u64>,
}

/// So many at once, each begun when the one before has ended.
async fn write<F>(in_flight: usize, lasts: Duration, one: impl Fn() -> F) -> anyhow::Result<Run>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (started, end) = (Instant::now(), Instant::now() + lasts);
    let lane = async || {
        let mut latency = histogram();
        while Instant::now() < end {
            let began = Instant::now();
            // A task of its own, as a request is one.
            tokio::spawn(one()).await??;
            latency.record(micros(began))?;
        }
        anyhow::Ok(latency)
    };
    let lanes = try_join_all((0..in_flight).map(|_| lane())).await?;
    let seconds = started.elapsed().as_secs_f64();
    let mut latency = histogram();
    for lane in lanes {
        latency.add(lane)?;
    }
    Ok(Run { rate: count(&latency) / seconds, latency })
}

/// What came of commands that were sent at a rate. Latencies are in µs, from when they were to be sent.
struct Sent {
    /// Written, a second.
    rate: f64,
    taken: Histogram<u64>,
    refused: Histogram<u64>,
}

/// Sends so many a second, whatever becomes of them.
async fn send(store: &Store, forum: &Arc<Forum>, rate: f64, lasts: Duration) -> anyhow::Result<Sent> {
    let written = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut sent: Vec<JoinHandle<anyhow::Result<(bool, u64)>>> = vec![];
    let mut due = 0.;
    while started.elapsed() < lasts {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let until = started.elapsed().as_secs_f64() * rate;
        while due < until {
            due += 1.;
            // When it was due, not when this came to it.
            let began = started + Duration::from_secs_f64(due / rate);
            let (store, forum, written) = (store.clone(), Arc::clone(forum), Arc::clone(&written));
            sent.push(tokio::spawn(async move {
                let taken = forum.reply(&store).await?;
                if taken {
                    written.fetch_add(1, Ordering::Relaxed);
                }
                Ok((taken, micros(began)))
            }));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "commands of a few seconds")]
    let rate = written.load(Ordering::Relaxed) as f64 / seconds;
    let (mut taken, mut refused) = (histogram(), histogram());
    for sent in sent {
        let (was_taken, after) = sent.await??;
        if was_taken { &mut taken } else { &mut refused }.record(after)?;
    }
    Ok(Sent { rate, taken, refused })
}

#[allow(clippy::cast_precision_loss, reason = "commands of a few seconds")]
fn count(of: &Histogram<u64>) -> f64 {
    of.len() as f64
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// What is written is made once, as it is for pgbench: to make it is not to append it.
static PAYLOAD: LazyLock<Value> = LazyLock::new(payload);
static TEXT: LazyLock<Box<RawValue>> =
    LazyLock::new(|| RawValue::from_string(PAYLOAD.to_string()).expect("it is JSON"));

/// What the replies rest on.
struct Forum {
    community: CommunityId,
    thread: ThreadId,
    account: AccountId,
}

impl Forum {
    async fn found(store: &Store) -> anyhow::Result<Self> {
        let forum = Self { community: CommunityId::new(), thread: ThreadId::new(), account: AccountId::new() };
        let rest = forum.rest_on();
        let events = rest.iter().map(|stream| event(stream.clone(), "post.written")).collect();
        let append = Append { checks: rest.into_iter().map(|stream| (stream, 0)).collect(), ..forum.append(events) };
        match store.append(append).await? {
            Verdict::Appended { .. } => Ok(forum),
            other => anyhow::bail!("the forum was not founded: {other:?}"),
        }
    }

    fn rest_on(&self) -> [Stream; 3] {
        [
            Stream::thread(self.thread),
            Stream::category_tree(self.community),
            Stream::membership(self.community, self.account),
        ]
    }

    fn append(&self, events: Vec<NewEvent>) -> Append {
        let metadata = format!(r#"{{"actor":"{}","correlation_id":"{}"}}"#, self.account, Uuid::now_v7());
        let (shard, community) = (Shard::of_community(self.community), Some(self.community));
        Append { shard, community, checks: vec![], events, metadata, claims: vec![], private: vec![], receipt: None }
    }

    /// A script that appends one, as [`Forum::reply`] has the store do it.
    fn call(&self) -> String {
        let (shard, community) = (i16::from(Shard::of_community(self.community)), self.community);
        let rest = self
            .rest_on()
            .map(|Stream { aggregate, id }| format!("row('{aggregate}', '{id}', {REST_ON}, array[1])::append_check"));
        let metadata = json!({"actor": self.account, "correlation_id": Uuid::now_v7()});
        let answer = json!({"id": Uuid::now_v7(), "version": 1});
        // An id behind the ones before, as those of version 7 are.
        let id = "('01900000-0000-7000-' || overlay(lpad(:n, 16, '0') placing '-' from 5 for 0))";
        format!(
            "\\set n :n + 1\n\
             select * from append(false, array[{rest}, row('post', {id}, 0, array[1])::append_check], \
             array[row(1, 1, 'post', {id}, 1, 'post.written', '1', '{payload}', '{metadata}', {id}::uuid, '{community}', \
             {shard})::append_event], '{{}}', '{{}}', '{{}}', array[row(1, '{account}', {id}, \
             decode(repeat('07', 16), 'hex'), 201, '{answer}', 1, {shard})::append_receipt]);\n",
            rest = rest.join(", "),
            payload = payload(),
            account = self.account,
        )
    }

    /// Appends one; false where it is refused as there are too many.
    async fn reply(&self, store: &Store) -> anyhow::Result<bool> {
        let post = Stream::post(PostId::new());
        let checks = self.rest_on().map(|stream| (stream, REST_ON)).into_iter().chain([(post.clone(), 0)]).collect();
        let answer = Some((201, format!(r#"{{"id":"{}","version":1}}"#, post.id)));
        let key = Uuid::now_v7().to_string();
        let receipt = Some(Receipt { owner: self.account.0, key, fingerprint: [7; 16], answer });
        let append = Append { checks, receipt, ..self.append(vec![event(post, "post.written")]) };
        match store.append(append).await {
            Ok(Verdict::Appended { .. }) => Ok(true),
            Err(StoreError::Busy) => Ok(false),
            other => anyhow::bail!("a reply was not appended: {other:?}"),
        }
    }
}

fn event(stream: Stream, name: &'static str) -> NewEvent {
    NewEvent { stream, sequence: 1, event_id: EventId::new(), name, version: 1, payload: TEXT.clone() }
}

/// A reply as people write them: 400 bytes of JSON.
pub(super) fn payload() -> Value {
    let body = "It steeps for two minutes, never longer: what is bitter in it dissolves last. Warm the pot before you \
                begin, take the water off the boil, and pour it out to the last drop when the time has come.";
    json!({
        "thread": "0190a5d1-1111-7aaa-8bbb-000000000002", "parent": "0190a5d1-2222-7aaa-8bbb-000000000003", "depth": 1,
        "author": "0190a5d0-b000-7d10-8a3b-5e6f708192a3", "body": body, "format": "markdown",
    })
}

//! What it costs that a store, a thread or a stream is large: each beside the same in a small one.

mod long;

use anyhow::ensure;
use events::ThreadId;
use sqlx::{Executor as _, PgPool};
use uuid::Uuid;

use super::{append, projection::project};
use crate::{
    burst,
    lab::{Lab, connect},
    load::{Load, Pace},
    pairs::Pairs,
    people,
    process::{Agora, Place},
    report::{Bound, Report, Unit},
    standing,
};

/// Events in the store. The last takes minutes to make.
const SIZES: [u32; 3] = [10_000, 100_000, 1_000_000];
/// The same in a minute.
const QUICK_SIZES: [u32; 2] = [10_000, 50_000];
/// Posts of a history from which on the last is measured too.
const LARGE: u64 = 50_000;
/// Posts of the made-up forum that all of them begin with.
const POSTS: u64 = 5_000;
/// Posts on a page.
const PAGE: i64 = 20;
/// Events that are projected.
const BURST: i64 = 10_000;
/// Flat within a fifth.
const FLAT: Bound = Bound::Least(0.8);

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let sizes = match &lab.options {
        options if options.quick => &QUICK_SIZES[..],
        options if options.size < LARGE => &SIZES[..2],
        _ => &SIZES[..],
    };
    let small = Bed::new(lab, sizes[0]).await?;
    for size in &sizes[1..] {
        let large = Bed::new(lab, *size).await?;
        let beside = |what: &str| format!("{what}, {size} events in the store");
        let pairs = Pairs::take(lab.options.pairs, || large.append(), || small.append()).await?;
        report.beside(beside("append, 64 in flight"), Unit::PerSecond, &pairs, "10,000", Some(FLAT));
        let pairs = Pairs::take(lab.options.pairs, || large.read(), || small.read()).await?;
        report.beside(beside("uncached page of a thread"), Unit::PerSecond, &pairs, "10,000", Some(FLAT));
        let pairs = Pairs::take(lab.options.pairs, || large.project(), || small.project()).await?;
        report.beside(beside("live projection"), Unit::PerSecond, &pairs, "10,000", Some(FLAT));
        lab.drop(&large.database).await?;
    }
    long::thread(lab, &small.database, report).await?;
    long::stream(lab, &small.database, report).await?;
    lab.drop(&small.database).await
}

/// A database that nobody is connected to, all of it projected.
struct Bed<'a> {
    lab: &'a Lab,
    database: String,
}

impl<'a> Bed<'a> {
    /// With so many events: a made-up forum, and its replies again and again.
    async fn new(lab: &'a Lab, events: u32) -> anyhow::Result<Self> {
        let database = lab.filled(POSTS).await?;
        let pool = connect(&database, 2).await?;
        loop {
            let missing = f64::from(events) - standing::events(&pool).await?;
            if missing <= 0. {
                break;
            }
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let (_, more) = burst::append(lab, &pool, &burst::replies(missing as u64)).await?;
            ensure!(more > 0., "there is no reply");
        }
        let up = uncached(lab, &database).await?;
        standing::caught_up(&pool).await?;
        up.stop()?;
        pool.execute("vacuum analyze").await?;
        pool.close().await;
        lab.checkpoint().await?;
        Ok(Self { lab, database })
    }

    async fn append(&self) -> anyhow::Result<f64> {
        let database = self.lab.copy(&self.database).await?;
        let rate = append::Bed { lab: self.lab, database: &database }.ours(64).await?;
        self.lab.drop(&database).await?;
        Ok(rate)
    }

    async fn read(&self) -> anyhow::Result<f64> {
        let pool = connect(&self.database, 1).await?;
        let threads = threads(&pool).await?;
        pool.close().await;
        let up = uncached(self.lab, &self.database).await?;
        let rate = pages(self.lab, &up, move |nth| people::read(threads[nth % threads.len()], None)).await?;
        up.stop()?;
        Ok(rate)
    }

    async fn project(&self) -> anyhow::Result<f64> {
        let database = self.lab.copy(&self.database).await?;
        let replies = |from: i64, to: i64| burst::replies((to - from).unsigned_abs());
        let projected = project(self.lab, &database, replies, BURST).await?;
        self.lab.drop(&database).await?;
        Ok(projected.rate)
    }
}

/// Agora without a memory for answers.
async fn uncached(lab: &Lab, database: &str) -> anyhow::Result<Agora> {
    let place = Place { database: database.to_owned(), kafka: None, core: None };
    lab.run("up", &place, &[("cache.capacity_bytes", "0")]).await
}

/// Threads that anyone may read, and whose first page was full from the beginning.
async fn threads(pool: &PgPool) -> anyhow::Result<Vec<ThreadId>> {
    let threads = sqlx::query_scalar::<_, Uuid>(
        "select thread_id from thread join community using (community_id)
        where visibility = 'public' and community.status = 'active' and not deleted
            and (select count(*) from post p where p.thread_id = thread.thread_id and p.position < $1) >= $2
        order by thread.position limit 100",
    );
    let threads = threads.bind(i64::try_from(POSTS)?).bind(PAGE).fetch_all(pool).await?;
    ensure!(!threads.is_empty(), "no thread has a full page");
    Ok(threads.into_iter().map(ThreadId).collect())
}

/// Answers a second.
async fn pages(
    lab: &Lab,
    up: &Agora,
    request: impl Fn(usize) -> Vec<u8> + Send + Sync + 'static,
) -> anyhow::Result<f64> {
    #[allow(clippy::cast_possible_truncation, reason = "the bench runs on 64 bits")]
    let requests = std::sync::Arc::new(move |nth| request(nth as usize));
    let load = Load { to: up.address, connections: 8, pace: Pace::Flat, lasts: lab.options.lasts, requests };
    Ok(load.send().await?.all_good()?.rate())
}

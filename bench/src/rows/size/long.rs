//! A long thread, and a long stream.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, ensure};
use events::ThreadId;
use serde_json::json;
use sqlx::Executor as _;

use super::{pages, threads, uncached};
use crate::{
    burst,
    lab::{Lab, connect},
    load::Connection,
    pairs::{Pairs, Spread},
    people::{self, People},
    process::{Agora, Place},
    report::{Bound, Report, Unit},
    standing,
};

/// Posts of the one, events of the other.
const LONG: u64 = 10_000;
/// Events behind its snapshot: hardly more are possible.
const BEHIND: u64 = 450;
/// Decisions on the stream once it is known.
const WARM: u32 = 20;

/// Pages of a thread that has 10,000 posts more than another.
pub(super) async fn thread(lab: &Lab, database: &str, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.copy(database).await?;
    let pool = connect(&database, 2).await?;
    let threads = threads(&pool).await?;
    let (long, short) = (threads[0], *threads.get(1).context("a second thread with a full page")?);
    burst::append(lab, &pool, &burst::replies_in(long, LONG)).await?;
    let up = uncached(lab, &database).await?;
    standing::caught_up(&pool).await?;
    let first = |thread| pages(lab, &up, move |_| people::read(thread, None));
    let pairs = Pairs::take(lab.options.pairs, || first(long), || first(short)).await?;
    let flat = Some(super::FLAT);
    report.beside("first page of a thread of 10,000 posts", Unit::PerSecond, &pairs, "of a short one", flat);
    let deep = || pages(lab, &up, move |_| deep(long));
    let pairs = Pairs::take(lab.options.pairs, deep, || first(long)).await?;
    report.beside("page from post 9,000 of that thread", Unit::PerSecond, &pairs, "its first page", flat);
    up.stop()?;
    pool.close().await;
    lab.drop(&database).await
}

fn deep(thread: ThreadId) -> Vec<u8> {
    format!("GET /v2/threads/{thread}/posts?from=9000&limit=20 HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes()
}

/// A thread's title is changed for the ten thousandth time: by a command-service that has not seen it, from its snapshot on
/// and without one, and by one that has.
pub(super) async fn stream(lab: &Lab, database: &str, report: &mut Report) -> anyhow::Result<()> {
    let place = Place { database: lab.copy(database).await?, kafka: None, core: None };
    let commands = lab.run("command-service", &place, &[]).await?;
    let people = Arc::new(People::settle(commands.address, 1, 2).await?);
    let mut connection = Connection::open(commands.address).await?;
    retitle(&mut connection, &people, 0, "Once").await?;
    commands.stop()?;
    let pool = connect(&place.database, 2).await?;
    burst::append(lab, &pool, &burst::more_of(people.thread(0), LONG)).await?;
    let (mut whole, mut cold, mut warm) = (vec![], vec![], vec![]);
    for nth in 0..lab.options.pairs {
        pool.execute("truncate store.snapshots").await?;
        let (commands, _, took) = first(lab, &place, &people, &format!("Whole {nth}")).await?;
        whole.push(took);
        while sqlx::query("select from store.snapshots").fetch_optional(&pool).await?.is_none() {
            tokio::task::yield_now().await;
        }
        commands.stop()?;
        burst::append(lab, &pool, &burst::more_of(people.thread(0), BEHIND)).await?;
        let (commands, mut connection, took) = first(lab, &place, &people, &format!("Cold {nth}")).await?;
        cold.push(took);
        let mut known = vec![];
        for again in 0..WARM {
            known.push(retitle(&mut connection, &people, 0, &format!("Warm {nth} {again}")).await?);
        }
        warm.push(Spread::of(known).median);
        commands.stop()?;
    }
    pool.close().await;
    let most = Some(Bound::Most(10.));
    let row = |how: &str| format!("a stream of 10,000 events decided on, {how}");
    report.alone(row("cold"), Unit::Ms, Spread::of(cold), most);
    report.alone(row("cold, and it has no snapshot"), Unit::Ms, Spread::of(whole), None);
    report.alone(row("warm"), Unit::Ms, Spread::of(warm), most);
    lab.drop(&place.database).await
}

/// The long thread's title is the second that a command-service changes: connections and the token are not what is measured.
async fn first(lab: &Lab, place: &Place, people: &People, title: &str) -> anyhow::Result<(Agora, Connection, f64)> {
    let commands = lab.run("command-service", place, &[]).await?;
    let mut connection = Connection::open(commands.address).await?;
    retitle(&mut connection, people, 1, title).await?;
    let took = retitle(&mut connection, people, 0, title).await?;
    Ok((commands, connection, took))
}

/// In ms, to the answer.
async fn retitle(connection: &mut Connection, people: &People, nth: u64, title: &str) -> anyhow::Result<f64> {
    let path = format!("threads/{}", people.thread(nth));
    let request = people.request(nth, "PATCH", &path, &json!({"title": title}));
    let began = Instant::now();
    let answer = connection.exchange(&request).await?;
    ensure!(answer.status == 200, "a title was answered {}: {}", answer.status, String::from_utf8_lossy(answer.body));
    Ok(began.elapsed().as_secs_f64() * 1_000.)
}

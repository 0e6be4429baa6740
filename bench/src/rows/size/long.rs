//! A long thread, and a long stream.

use std::{sync::Arc, time::Instant};

use anyhow::ensure;
use serde_json::json;
use sqlx::Executor as _;

use super::reads::{pages, uncached};
use crate::{
    burst,
    forum::get,
    lab::{Lab, connect},
    load::{Connection, Load, Pace},
    pairs::{Pairs, Spread},
    people::People,
    process::{Agora, Place},
    report::{Bound, Report, Unit},
    rows::projection,
    standing,
};

/// Posts of the one, events of the other.
const LONG: u64 = 10_000;
/// Replies that a thread begins with: more than its page has.
const FULL: usize = 12;
/// Replies that are projected, to a thread of either length.
const BURST: i64 = 5_000;
/// Events behind its snapshot: hardly more are possible.
const BEHIND: u64 = 450;
/// Decisions on the stream once it is known.
const WARM: u32 = 20;

/// Pages of a thread that has 10,000 posts more than another; and replies to both, written and projected.
pub(super) async fn thread(lab: &Lab, database: &str, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.copy(database).await?;
    let pool = connect(&database, 2).await?;
    let up = uncached(lab, &database).await?;
    let people = People::settle(up.address, 1, 2).await?;
    let mut connection = Connection::open(up.address).await?;
    for nth in (0..2).cycle().take(2 * FULL) {
        let answer = connection.exchange(&people.reply(nth)).await?;
        ensure!(answer.status == 201, "a reply was answered {}", answer.status);
    }
    let (long, short) = (people.thread(0), people.thread(1));
    burst::append(lab, &pool, &burst::replies_in(long, LONG)).await?;
    standing::caught_up(&pool).await?;
    let (pairs, lasts, flat) = (lab.options.pairs, lab.options.lasts, Some(super::FLAT));
    let read = |thread, from: u64| {
        let page = format!("/v2/threads/{thread}/posts?from={from}&limit=10");
        pages(&up, vec![get(&page, None)], 1, lasts)
    };
    let reads = Pairs::take(pairs, || read(long, 1), || read(short, 1)).await?;
    report.beside("first page of a thread of 10,000 posts", Unit::PerSecond, &reads, "of a short one", flat);
    let best = |thread| {
        let page = format!("/v2/threads/{thread}/posts?view=tree&sort=best&limit=10");
        pages(&up, vec![get(&page, None)], 1, lasts)
    };
    let reads = Pairs::take(pairs, || best(long), || best(short)).await?;
    report.beside("the best of a thread of 10,000 posts, as a tree", Unit::PerSecond, &reads, "of a short one", flat);
    let reads = Pairs::take(pairs, || read(long, 9_000), || read(long, 1)).await?;
    report.beside("page from post 9,000 of that thread", Unit::PerSecond, &reads, "its first page", flat);
    let people = Arc::new(people);
    let write = |nth: u64| {
        let people = Arc::clone(&people);
        let requests = Arc::new(move |_| people.reply(nth));
        let load = Load { to: up.address, connections: 8, pace: Pace::Flat, lasts, requests };
        async move { Ok(load.send().await?.all_good()?.rate()) }
    };
    let writes = Pairs::take(pairs, || write(0), || write(1)).await?;
    report.beside("replies into that thread", Unit::PerSecond, &writes, "into a short one", flat);
    standing::caught_up(&pool).await?;
    up.stop()?;
    pool.close().await;
    let project = async |thread| {
        let database = lab.copy(&database).await?;
        let replies = |from: i64, to: i64| burst::replies_in(thread, (to - from).unsigned_abs());
        let rate = projection::project(lab, &database, replies, BURST).await?.rate;
        lab.drop(&database).await?;
        anyhow::Ok(rate)
    };
    let projected = Pairs::take(pairs, || project(long), || project(short)).await?;
    report.beside("live projection of replies into that thread", Unit::PerSecond, &projected, "into a short one", flat);
    lab.drop(&database).await
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

//! The relay: from the event store to a real Kafka, catching up and live.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;

use crate::{
    commands::Commands,
    lab::{Lab, connect},
    pairs::Spread,
    people::People,
    process::Place,
    report::{Bound, Report, Unit},
    standing,
    topic::Topic,
};

/// Commands a second.
const RATE: f64 = 200.;
/// A percentile wants more than a second.
const LEAST: Duration = Duration::from_secs(3);

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let (mut rates, mut cpu) = (vec![], vec![]);
    for _ in 0..lab.options.pairs {
        let (rate, each) = catch_up(lab, &database).await?;
        rates.push(rate);
        cpu.push(each);
    }
    report.alone("relay, catching up: events", Unit::PerSecond, Spread::of(rates), Some(Bound::Least(50_000.)));
    report.alone("relay, catching up: CPU of its process for a thousand events", Unit::Ms, Spread::of(cpu), None);
    live(lab, &database, report).await?;
    lab.drop(&database).await
}

/// A projector brings all events to a new topic. Its read tables are up to date: what comes back from Kafka it decodes and
/// drops, which is counted too.
async fn catch_up(lab: &Lab, database: &str) -> anyhow::Result<(f64, f64)> {
    let pool = connect(database, 1).await?;
    let events = standing::events(&pool).await?;
    pool.close().await;
    let kafka = lab.kafka().await?;
    lab.checkpoint().await?;
    let topic = Topic::of(&kafka)?;
    let filling = tokio::task::spawn_blocking(move || topic.fills(events));
    let place = Place { database: database.to_owned(), kafka: Some(kafka), core: None };
    let projector = lab.run("projector", &place, &[]).await?;
    let rate = filling.await??;
    let cpu = projector.cpu()? * 1_000. / (events / 1_000.);
    projector.stop()?;
    Ok((rate, cpu))
}

/// From the time of an event, which is before its commit, to its message's arrival at a consumer.
async fn live(lab: &Lab, database: &str, report: &mut Report) -> anyhow::Result<()> {
    let kafka = lab.kafka().await?;
    let place = Place { database: database.to_owned(), kafka: Some(kafka.clone()), core: None };
    let up = lab.run("up", &place, &[]).await?;
    let people = Arc::new(People::settle(up.address, 8, 8).await?);
    let pool = connect(database, 1).await?;
    standing::caught_up(&pool).await?;
    pool.close().await;
    let (mut p50, mut p99) = (vec![], vec![]);
    for _ in 0..lab.options.pairs {
        lab.checkpoint().await?;
        let topic = Topic::of(&kafka)?;
        let listening = tokio::task::spawn_blocking(move || topic.listen()).await??;
        let commands =
            Commands { to: up.address, people: Arc::clone(&people), rate: RATE, lasts: lab.options.lasts.max(LEAST) };
        let answered = commands.send(async |answered| position(&answered.position)).await?;
        let heard = tokio::task::spawn_blocking(move || listening.heard()).await??;
        let mut added = vec![];
        for position in answered {
            let took = heard.get(&position).with_context(|| format!("position {position} did not come"))?;
            added.push(1_000. * took.as_seconds_f64());
        }
        p50.push(percentile(&mut added, 50));
        p99.push(percentile(&mut added, 99));
    }
    let name = |what: &str| format!("relay, live at 200 commands/s: from before the commit to the message, {what}");
    report.alone(name("p50"), Unit::Ms, Spread::of(p50), Some(Bound::Most(5.)));
    report.alone(name("p99"), Unit::Ms, Spread::of(p99), None);
    up.stop()
}

/// The last part of a token.
fn position(token: &str) -> anyhow::Result<i64> {
    Ok(token.rsplit('.').next().context("a position")?.parse()?)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

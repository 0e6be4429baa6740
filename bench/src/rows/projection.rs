//! The live projections, through a real Kafka: events that a running projector has not seen appear in the store, all at
//! once, and are relayed, consumed and projected.
//!
//! Not into read tables that are empty from the start: what is behind when a projector begins, it takes from the store, as
//! it does with what Kafka does not bring within two checks of the tail. So the projector runs already, and knows that
//! Kafka brings it something, when they appear; and its own counter says how many it took from the store all the same.
//! The relay is in the same process, and what it takes is counted.

use anyhow::{bail, ensure};
use sqlx::PgPool;

use crate::{
    burst,
    lab::{Lab, connect},
    pairs::Spread,
    process::{Agora, Place},
    psql::psql,
    report::{Bound, Report, Unit},
    standing,
};

/// Events of a small batch that shows whether Kafka brings them.
const FEW: i64 = 20;
/// Small batches until it has to.
const BATCHES: i64 = 20;
/// The metric of what the projector has passed.
const PASSED: &str = "agora_projection_events_total";
/// The metric of what the projector took from the store.
const FILLED: &str = "agora_projection_filled_total";

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let file = lab.dir().join("projection.copy");
    let from = lab.filled(lab.options.size).await?;
    psql(&from, &[format!(r"\copy (select * from store.events order by position) to '{}'", file.display())]).await?;
    lab.drop(&from).await?;
    let mut all = vec![];
    for _ in 0..lab.options.pairs {
        let database = lab.empty().await?;
        let stage = "create table staged (like store.events including indexes)".to_owned();
        psql(&database, &[stage, format!(r"\copy staged from '{}'", file.display())]).await?;
        let staged = |from, to| {
            format!("select * from public.staged where position > {from} and position <= {to} order by position")
        };
        all.push(project(lab, &database, staged, i64::MAX).await?);
        lab.drop(&database).await?;
    }
    std::fs::remove_file(file)?;
    let name = |what: &str| format!("live projection through Kafka, all projections: {what}");
    let spread = |of: fn(&Projected) -> f64| Spread::of(all.iter().map(of));
    report.alone(name("events"), Unit::PerSecond, spread(|it| it.rate), Some(Bound::Least(20_000.)));
    report.alone(
        name("taken from the store all the same"),
        Unit::Percent,
        spread(|it| it.filled),
        Some(Bound::Most(5.)),
    );
    report.alone(name("CPU of relay and projector for a thousand"), Unit::Ms, spread(|it| it.cpu), None);
    Ok(())
}

/// What came of a burst.
pub(super) struct Projected {
    /// Events a second, from when they could be seen until all projections had passed them.
    pub(super) rate: f64,
    /// Of a hundred events, those that were not taken from Kafka.
    filled: f64,
    /// ms of the process for a thousand events.
    cpu: f64,
}

/// Has a new projector go on at the head of a database that is caught up, with a new topic, and appends a burst:
/// `rows` is a query for what is behind the first so many of the burst up to the second.
pub(super) async fn project(
    lab: &Lab,
    database: &str,
    rows: impl Fn(i64, i64) -> String,
    burst: i64,
) -> anyhow::Result<Projected> {
    let (pool, kafka) = (connect(database, 2).await?, lab.kafka().await?);
    // What is in the store already is not for this topic.
    let relay = "insert into store.relay (topic, history, position) select $1, history, position from store.store_head";
    sqlx::query(relay).bind(&kafka.events_topic).execute(&pool).await?;
    let place = Place { database: database.to_owned(), kafka: Some(kafka), core: None };
    let projector = lab.run("projector", &place, &[]).await?;
    let seen = listening(lab, &pool, &projector, &rows).await?;
    let (before, busy) = (projector.counted(FILLED, &[]).await?, projector.cpu()?);
    let passed = projector.counted(PASSED, &[]).await?;
    let (began, events) = burst::append(lab, &pool, &rows(seen, burst)).await?;
    standing::caught_up(&pool).await?;
    let rate = events / began.elapsed().as_secs_f64();
    let filled = 100. * (projector.counted(FILLED, &[]).await? - before) / events;
    let cpu = (projector.cpu()? - busy) * 1_000. / (events / 1_000.);
    // By several projections each: where there is nothing, it is not what is counted.
    ensure!(
        projector.counted(PASSED, &[]).await? - passed >= events,
        "the projector's metrics do not tell of {events} events"
    );
    projector.stop()?;
    pool.close().await;
    Ok(Projected { rate, filled, cpu })
}

/// Appends few events at a time until Kafka brings them to the projector; answers how many there are then.
async fn listening(
    lab: &Lab,
    pool: &PgPool,
    projector: &Agora,
    rows: &impl Fn(i64, i64) -> String,
) -> anyhow::Result<i64> {
    for batch in 0..BATCHES {
        let before = projector.counted(FILLED, &[]).await?;
        let to = (batch + 1) * FEW;
        burst::append(lab, pool, &rows(batch * FEW, to)).await?;
        standing::caught_up(pool).await?;
        #[allow(clippy::float_cmp, reason = "a count")]
        if projector.counted(FILLED, &[]).await? == before {
            return Ok(to);
        }
    }
    bail!("Kafka brings the projector nothing")
}

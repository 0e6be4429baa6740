//! From a command's answer to the answer of a read that shows it, at 500 commands a second on a real Kafka.
//!
//! The read sends the position back that the command answered, and is answered once it can be seen: the read itself is
//! counted too.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use hdrhistogram::Histogram;

use crate::{
    commands::Commands,
    lab::Lab,
    load::{Connection, histogram, ms},
    pairs::Spread,
    people::{People, read},
    process::{Agora, Place},
    report::{Bound, Report, Unit},
};

/// Commands a second.
const RATE: f64 = 500.;
/// Of so many commands, one is looked for.
const OF: u64 = 10;
/// A percentile wants more than a second.
const LEAST: Duration = Duration::from_secs(2);
/// Until Kafka has compiled what it does: a broker that serves anybody has run for longer.
const WARM: Duration = Duration::from_secs(15);

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let kafka = Some(lab.kafka().await?);
    let up = lab.run("up", &Place { database: database.clone(), kafka, core: None }, &[]).await?;
    let people = Arc::new(People::settle(up.address, 8, 8).await?);
    let (mut p50, mut p99, mut late, mut worst, mut commands) = (vec![], vec![], vec![], vec![], vec![]);
    look(&up, &people, WARM).await?;
    lab.checkpoint().await?;
    let (before, mut sent) = (lab.cpu(&up)?, 0.);
    for _ in 0..lab.options.pairs {
        let lasts = lab.options.lasts.max(LEAST);
        let seen = look(&up, &people, lasts).await?;
        sent += RATE * lasts.as_secs_f64();
        p50.push(ms(&seen.visible, 50.));
        p99.push(ms(&seen.visible, 99.));
        late.push(ms(&seen.visible, 99.9));
        worst.push(ms(&seen.visible, 100.));
        commands.push(ms(&seen.answered, 99.));
        lab.checkpoint().await?;
    }
    let name = |what: &str| format!("visible to a read at 500 commands/s: {what}");
    report.alone(name("p50"), Unit::Ms, Spread::of(p50), Some(Bound::Most(15.)));
    report.alone(name("p99"), Unit::Ms, Spread::of(p99), Some(Bound::Most(50.)));
    report.alone(name("p99.9"), Unit::Ms, Spread::of(late), None);
    report.alone(name("the last"), Unit::Ms, Spread::of(worst), None);
    report.alone(name("p99 of the commands themselves"), Unit::Ms, Spread::of(commands), None);
    for (whose, seconds) in lab.cpu_since(&up, &before)? {
        let each = Spread::of([1e3 * seconds / sent]);
        report.alone(name(&format!("CPU of {whose} for a command")), Unit::Ms, each, None);
    }
    up.stop()?;
    lab.drop(&database).await
}

/// In µs.
struct Seen {
    /// From a command's answer to that of the read.
    visible: Histogram<u64>,
    /// From when a command was due to its answer.
    answered: Histogram<u64>,
}

async fn look(up: &Agora, people: &Arc<People>, lasts: Duration) -> anyhow::Result<Seen> {
    let (to, who) = (up.address, Arc::clone(people));
    let idle = Mutex::new(Vec::<Connection>::new());
    let commands = Commands { to, people: Arc::clone(people), rate: RATE, lasts };
    let looked = commands.send(async move |answered| {
        if answered.nth % OF != 0 {
            return Ok((answered.took, None));
        }
        let found = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match found {
            Some(connection) => connection,
            None => Connection::open(to).await?,
        };
        let status = connection.exchange(&read(who.thread(answered.nth), Some(&answered.position))).await?.status;
        let visible = answered.at.elapsed();
        ensure!(status == 200, "a read was answered {status}");
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok((answered.took, Some(visible)))
    });
    let mut seen = Seen { visible: histogram(), answered: histogram() };
    for (took, visible) in looked.await? {
        seen.answered.record(micros(took))?;
        if let Some(visible) = visible {
            seen.visible.record(micros(visible))?;
        }
    }
    Ok(seen)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

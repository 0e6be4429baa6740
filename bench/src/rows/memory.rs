//! An `agora up` that nobody asks anything, with the broker inside it, on a filled database: its memory and CPU; and
//! what each connection adds that rests after a request, or is a stream of events that waits for the next.
//!
//! Memory is the process's own: neither that of Postgres, nor the kernel's for its sockets.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::sleep;

use crate::{
    forum::{get, sign_in, threads},
    lab::Lab,
    load::Connection,
    pairs::Spread,
    process::{Agora, Place},
    report::{Bound, Report, Unit},
};

/// Connections that rest.
const RESTING: usize = 1_000;
/// Operators who have streams, and how many streams an account may have: 400 of the 500 that there may be.
const OPERATORS: usize = 50;
const STREAMS_OF_EACH: usize = 8;
/// What a connection may add, in KiB.
pub(super) const OF_A_CONNECTION: f64 = 50.;
/// By itself, the server would close a connection that rests for 15 s.
pub(super) const MAY_REST: (&str, &str) = ("http.header_timeout", "30min");
/// After a change, before memory is looked at.
pub(super) const SETTLES: Duration = Duration::from_secs(3);
pub(super) const KIB: f64 = 1024.;

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let page = threads(&database, 1).await?[0].request(None);
    let operators = sign_in(lab, &database, OPERATORS, true).await?;
    let place = Place { database: database.clone(), kafka: None, core: None };
    let up = lab.run("up", &place, &[MAY_REST]).await?;
    idle(lab, report, &up).await?;
    // The first stay: what they make once for all that come is not counted, and nothing is freed for others.
    let first = rest(&up, &page, RESTING / 10).await?;
    let before = settled(&up).await?;
    let resting = rest(&up, &page, RESTING).await?;
    let each = Spread::of([(settled(&up).await? - before) / KIB / count(resting.len())]);
    let bound = Some(Bound::Most(OF_A_CONNECTION));
    report.alone("memory of a connection that rests, of 1,000", Unit::KiB, each, bound);
    drop((first, resting));
    up.stop()?;

    let up = lab.run("up", &place, &[]).await?;
    let (some, others) = operators.split_at(OPERATORS / 10);
    let first = follow(&up, some).await?;
    let before = settled(&up).await?;
    let streams = follow(&up, others).await?;
    let each = Spread::of([(settled(&up).await? - before) / KIB / count(streams.len())]);
    report.alone("memory of a stream of events that waits, of 400", Unit::KiB, each, bound);
    drop((first, streams));
    up.stop()?;
    lab.drop(&database).await
}

async fn idle(lab: &Lab, report: &mut Report, up: &Agora) -> anyhow::Result<()> {
    let [first, then] = if lab.options.quick { [10, 8] } else { [30, 20] }.map(Duration::from_secs);
    sleep(first).await;
    let memory = Spread::of([up.memory()? / KIB / KIB]);
    report.alone("memory of an idle `agora up`", Unit::MiB, memory, Some(Bound::Most(150.)));
    let name = "memory of an idle `agora up`, with its program's pages";
    report.alone(name, Unit::MiB, Spread::of([up.resident()? / KIB / KIB]), Some(Bound::Most(150.)));
    let before = up.cpu()?;
    sleep(then).await;
    let cpu = Spread::of([100. * (up.cpu()? - before) / then.as_secs_f64()]);
    report.alone("CPU of an idle `agora up`, of one core", Unit::Percent, cpu, Some(Bound::Most(3.)));
    Ok(())
}

/// So many connections that each made one request.
pub(super) async fn rest(agora: &Agora, request: &[u8], many: usize) -> anyhow::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(many);
    for _ in 0..many {
        let mut connection = Connection::open(agora.address).await?;
        let status = connection.exchange(request).await?.status;
        ensure!(status == 200, "a page was answered {status}");
        connections.push(connection);
    }
    Ok(connections)
}

/// As many streams of all events as these operators may have.
async fn follow(up: &Agora, operators: &[String]) -> anyhow::Result<Vec<Connection>> {
    let mut streams = Vec::with_capacity(operators.len() * STREAMS_OF_EACH);
    for token in operators {
        let request = get("/v2/events", Some(token));
        let accept = b"accept: text/event-stream\r\n\r\n";
        let request = [&request[..request.len() - 2], accept].concat();
        for _ in 0..STREAMS_OF_EACH {
            let mut stream = Connection::open(up.address).await?;
            let status = stream.follow(&request).await?;
            ensure!(status == 200, "a stream was answered {status}");
            streams.push(stream);
        }
    }
    Ok(streams)
}

/// Bytes of its memory, once it has come to rest.
pub(super) async fn settled(agora: &Agora) -> anyhow::Result<f64> {
    sleep(SETTLES).await;
    agora.memory()
}

#[allow(clippy::cast_precision_loss, reason = "thousands")]
pub(super) fn count(many: usize) -> f64 {
    many as f64
}

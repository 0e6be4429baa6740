//! 10,000 open connections to a query-service, of which 100 ask for a cached page, 2,000 times a second together.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use hdrhistogram::Histogram;
use tokio::time::sleep;

use super::memory::{KIB, MAY_REST, OF_A_CONNECTION, count, rest, settled};
use crate::{
    forum::threads,
    lab::Lab,
    load::{Load, Pace},
    pairs::Spread,
    process::{Agora, Place},
    report::{Bound, Report, Unit},
};

/// Connections that rest.
const RESTING: usize = 9_900;
/// Connections that ask.
const ACTIVE: usize = 100;
/// A second.
const RATE: f64 = 2_000.;
/// Of those that rest, one of so many is asked in the end whether it is still there.
const SAMPLE: usize = 100;
/// By itself, the server takes 10,000, that of who looks whether it is ready included.
const ENOUGH: (&str, &str) = ("http.max_connections", "12000");
/// What most of the time of the active ones is held to, in ms.
const P99: f64 = 50.;

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let page = threads(&database, 1).await?[0].request(None);
    let place = Place { database: database.clone(), kafka: Some(lab.kafka().await?), core: None };
    let service = lab.run("query-service", &place, &[ENOUGH, MAY_REST]).await?;
    // What requests make once, for all that come.
    active(lab, &service, &page).await?;
    let before = settled(&service).await?;
    let mut resting = rest(&service, &page, RESTING).await?;
    settled(&service).await?;
    let (mut latencies, mut each) = (vec![], vec![]);
    for _ in 0..lab.options.pairs {
        let (latency, memory) = active(lab, &service, &page).await?;
        latencies.push(latency);
        // The active ones may have the memory of those that were active before: they count as nothing.
        each.push((memory - before) / KIB / count(RESTING));
    }
    for connection in resting.iter_mut().step_by(SAMPLE) {
        let status = connection.exchange(&page).await?.status;
        ensure!(status == 200, "a connection that rested was answered {status}");
    }
    let bound = Bound::Most(OF_A_CONNECTION);
    report.alone("10,000 connections, 100 of them active: memory of each", Unit::KiB, Spread::of(each), Some(bound));
    report.latencies("10,000 connections, 100 of them active, at 2,000/s", &latencies, P99);
    drop(resting);
    service.stop()?;
    lab.drop(&database).await
}

/// The latencies of the active ones, and the bytes of the service's memory in the middle of it.
async fn active(lab: &Lab, service: &Agora, page: &[u8]) -> anyhow::Result<(Histogram<u64>, f64)> {
    let (page, lasts): (Arc<[u8]>, Duration) = (page.into(), lab.options.lasts);
    let requests = Arc::new(move |_| page.to_vec());
    let load = Load { to: service.address, connections: ACTIVE, pace: Pace::Rate(RATE), lasts, requests };
    let memory = async {
        sleep(lasts / 2).await;
        service.memory()
    };
    let (outcome, memory) = tokio::join!(load.send(), memory);
    Ok((outcome?.all_good()?.latency, memory?))
}

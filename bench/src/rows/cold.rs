//! A query-service that has just started, and 2,000 reads/s of 200 threads' pages from its first moment on.
//!
//! Some threads are asked for far more often than others, as it is: of what is asked for most, many readers ask before
//! the first answer is there.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::ensure;

use crate::{
    forum::{scattered, threads},
    lab::Lab,
    load::{Load, Pace},
    pairs::Spread,
    process::Place,
    report::{Bound, Report, Unit},
};

const THREADS: i64 = 200;
/// A second.
const RATE: f64 = 2_000.;
/// Reads in the first second, all that there are.
const READS: u64 = 2_000;
const CONNECTIONS: usize = 64;
/// In ms.
const P99: f64 = 100.;

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let pages: Vec<Vec<u8>> = threads(&database, THREADS).await?.iter().map(|thread| thread.request(None)).collect();
    let (pages, kafka): (Arc<[Vec<u8>]>, _) = (pages.into(), lab.kafka().await?);
    let keys = (0..READS).map(|nth| asked_for(nth, pages.len())).collect::<BTreeSet<_>>().len();
    report.say(format_args!("a cold cache: {READS} reads of {keys} threads"));
    let place = Place { database: database.clone(), kafka: Some(kafka), core: None };
    let (mut latencies, mut loads) = (vec![], vec![]);
    for _ in 0..lab.options.pairs {
        let service = lab.run("query-service", &place, &[]).await?;
        let pages = Arc::clone(&pages);
        let requests = Arc::new(move |nth| pages[asked_for(nth, pages.len())].clone());
        let (to, lasts) = (service.address, Duration::from_secs(1));
        let load = Load { to, connections: CONNECTIONS, pace: Pace::Rate(RATE), lasts, requests };
        latencies.push(load.send().await?.all_good()?.latency);
        let loaded = service.counted("agora_query_load_seconds_count", &["view=\"thread_page_flat\""]).await?;
        ensure!(loaded >= super::memory::count(keys), "{loaded} loads of {keys} pages are counted");
        loads.push(loaded / super::memory::count(keys));
        service.stop()?;
    }
    report.latencies("cold cache, 2,000 reads/s, the first second", &latencies, P99);
    let once = Some(Bound::Most(1.));
    report.alone("cold cache, 2,000 reads/s: loads of a key", Unit::Times, Spread::of(loads), once);
    lab.drop(&database).await
}

/// Which of so many the nth read is of: half of all reads are of an eighth of them.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "below 1, and below `many`"
)]
fn asked_for(nth: u64, many: usize) -> usize {
    let uniform = scattered(nth) as f64 / u64::MAX as f64;
    ((uniform.powi(3) * many as f64) as usize).min(many - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_asked_for_and_some_far_more_often() {
        let reads: Vec<usize> = (0..READS).map(|nth| asked_for(nth, 200)).collect();
        assert!(reads.iter().collect::<BTreeSet<_>>().len() > 190);
        let of_the_first = reads.iter().filter(|thread| **thread < 25).count();
        assert!((900..1_100).contains(&of_the_first), "{of_the_first}");
    }
}

//! The fault campaign: every service in processes of its own, on a real Postgres and a real Apache Kafka; clients who
//! use them; faults, one or several at once; and then the whole history, checked.
//!
//! A round sets up communities and accounts, lets the clients work while up to twenty faults happen, lets everything
//! come to rest, and checks ([`check`]). A seed gives the same schedule again; what happens when still differs, as it
//! does between real processes.

mod check;
mod clients;
mod cluster;
mod history;
mod link;
mod report;
mod sabotage;
mod schedule;
mod service;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;

pub use self::report::Report;
use self::{clients::Crowd, cluster::Cluster, schedule::Schedule};

/// How long all may take to come to rest after the last fault.
const REST: Duration = Duration::from_secs(120);

/// What a campaign does.
pub struct Options {
    /// The binary under test.
    pub agora: PathBuf,
    /// The schedule of the first round; the next one's is one more.
    pub seed: u64,
    /// Rounds at most.
    pub rounds: u64,
    /// No round begins after so long.
    pub within: Duration,
    /// Faults in a round.
    pub faults: usize,
    /// Where logs and a found fault's story are kept.
    pub dir: PathBuf,
    /// The promise that the binary breaks on purpose.
    pub sabotage: Option<String>,
}

/// Runs a campaign; answers what was survived.
///
/// # Errors
/// The first promise that was found broken, with the seed and the place of the logs.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    for seed in options.seed..options.seed + options.rounds {
        if begun.elapsed() > options.within {
            break;
        }
        let dir = options.dir.join(format!("seed-{seed}"));
        let outcome = round(options, seed, dir.clone(), &mut report).await;
        outcome.with_context(|| format!("seed {seed}; logs in {}", dir.display()))?;
        report.rounds += 1;
    }
    Ok(report)
}

async fn round(options: &Options, seed: u64, dir: PathBuf, report: &mut Report) -> anyhow::Result<()> {
    let schedule = Schedule::of(seed, options.faults, options.sabotage.as_deref());
    let mut cluster = Cluster::start(&options.agora, dir, options.sabotage.as_deref()).await?;
    let crowd = Crowd::gather(&cluster, seed).await.context("nothing has happened yet, and clients cannot set up")?;
    let working = crowd.work();
    for step in &schedule.steps {
        cluster.suffer(step, report).await?;
    }
    let history = working.stop(REST).await?;
    let checked = check::everything(&mut cluster, &history, REST).await?;
    report.faults += schedule.faults();
    report.add(&checked);
    println!(
        "seed {seed}: {} faults survived; {} commands sent, {} acknowledged, {} reads, {} events",
        schedule.faults(),
        checked.sent,
        checked.acknowledged,
        checked.reads,
        checked.events
    );
    cluster.stop().await
}

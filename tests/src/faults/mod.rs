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
use self::{check::Checked, clients::Crowd, cluster::Cluster, schedule::Schedule};

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
}

/// The same where a promise is broken on purpose: some show by never coming to rest.
const REST_BROKEN: Duration = Duration::from_secs(30);
/// Seeds that a broken promise may take to be found.
const SEEDS_TO_FIND: u64 = 3;

/// Runs a campaign; answers what was survived.
///
/// # Errors
/// The first promise that was found broken, with the seed and the place of the logs; or what kept a round from running.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let begun = Instant::now();
    let mut report = Report::default();
    for seed in options.seed..options.seed + options.rounds {
        if begun.elapsed() > options.within {
            break;
        }
        let dir = options.dir.join(format!("seed-{seed}"));
        let story = || format!("seed {seed}; logs in {}", dir.display());
        let checked =
            round(options, seed, None, dir.clone(), &mut report).await.and_then(|kept| kept).with_context(story)?;
        println!(
            "seed {seed}: {} faults survived; {} commands sent, {} acknowledged, {} reads, {} events",
            checked.faults, checked.sent, checked.acknowledged, checked.reads, checked.events
        );
        report.rounds += 1;
        report.add(&checked);
    }
    Ok(report)
}

/// Lets the binary break each of these promises on purpose, all of them where none is named, and says how it was found.
///
/// # Errors
/// The first one that was not found, or what kept a round from running.
pub async fn sabotage(options: &Options, names: &[String]) -> anyhow::Result<()> {
    let all = sabotage::names();
    let chosen: Vec<&str> = if names.is_empty() { all } else { names.iter().map(String::as_str).collect() };
    for name in chosen {
        let begun = Instant::now();
        let mut found = None;
        for seed in options.seed..options.seed + SEEDS_TO_FIND {
            let dir = options.dir.join(name);
            let outcome = round(options, seed, Some(name), dir, &mut Report::default()).await;
            found = outcome.with_context(|| name.to_owned())?.err();
            if found.is_some() {
                break;
            }
        }
        let story = found.with_context(|| format!("{name} was broken on purpose, and was not found"))?;
        println!("{name}: found after {} s: {story:#}", begun.elapsed().as_secs());
    }
    Ok(())
}

/// What was checked, or the promise that was found broken.
type Kept = anyhow::Result<Checked>;

/// # Errors
/// What kept it from running.
async fn round(
    options: &Options,
    seed: u64,
    sabotage: Option<&str>,
    dir: PathBuf,
    report: &mut Report,
) -> anyhow::Result<Kept> {
    let schedule = Schedule::of(seed, options.faults, sabotage);
    let mut cluster = Cluster::start(&options.agora, dir, sabotage).await?;
    let crowd = Crowd::gather(&cluster, seed).await.context("nothing has happened yet, and clients cannot set up")?;
    let working = crowd.work();
    for step in &schedule.steps {
        cluster.suffer(step).await?;
        if let Err(broken) = cluster.recover(step, report).await.and_then(|()| working.history().whole()) {
            return Ok(Err(broken));
        }
    }
    let kept = async {
        let history = working.stop(REST).await?;
        check::everything(&mut cluster, &history, if sabotage.is_some() { REST_BROKEN } else { REST }).await
    };
    let kept = kept.await.map(|checked| Checked { faults: schedule.faults(), ..checked });
    cluster.stop().await?;
    Ok(kept)
}

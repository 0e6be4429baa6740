//! `./dev bench`: every number that Agora is held to, beside its baseline, on servers that it starts for that.
#![allow(unreachable_pub, reason = "a program: what its modules show, they show one another")]

mod bare;
mod burst;
mod commands;
mod forum;
mod lab;
mod load;
mod pairs;
mod people;
mod pgbench;
mod process;
mod psql;
mod report;
mod rows;
mod standing;
mod topic;

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use clap::Parser;

use self::{
    bare::Bare,
    lab::{Lab, Options},
    report::Report,
    rows::Row,
};

/// What `agora` has: the event store alone, and the bare handler, run in this program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measure Agora beside its baselines; exits with 1 where a number is short of what it is held to, with 2 where it could not be measured
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    /// What to measure; all of it unless told
    rows: Vec<Row>,
    /// Under five minutes in all: shorter, fewer pairs, a smaller history, and no limits beside what falls short
    #[arg(long)]
    quick: bool,
    /// Print the result as JSON, at the end
    #[arg(long)]
    json: bool,
    /// Pairs of measurements of a row [5; 2 with --quick]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Seconds that one measurement lasts [5; 1 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// Posts of the made-up forum that it is measured on [50000; 5000 with --quick]
    #[arg(long, value_name = "N")]
    size: Option<u64>,
    /// What the forum follows from
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// The program that is measured
    #[arg(long, value_name = "FILE", env = "AGORA_UNDER_TEST")]
    agora: PathBuf,
}

fn main() -> ExitCode {
    let outcome = match Bare::asked_for() {
        Some((bare, address)) => bare.serve(&address).map(|()| ExitCode::SUCCESS),
        None => run(&Cli::parse()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::from(2)
    })
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let by_thoroughness = |quick, thorough| if cli.quick { quick } else { thorough };
    let options = Options {
        pairs: cli.pairs.unwrap_or(by_thoroughness(2, 5)).max(1),
        lasts: Duration::from_secs(cli.seconds.unwrap_or(if cli.quick { 1 } else { 5 }).max(1)),
        size: cli.size.unwrap_or(if cli.quick { 5_000 } else { 50_000 }),
        seed: cli.seed,
        quick: cli.quick,
    };
    rlimit::increase_nofile_limit(u64::MAX)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(measure(cli, options))?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("\nname · ours · baseline · ratio · held to · met or short");
        report.lines().iter().for_each(|line| println!("{line}"));
    }
    Ok(match report.failures() {
        0 if report.all_met() => ExitCode::SUCCESS,
        0 => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    })
}

async fn measure(cli: &Cli, options: Options) -> anyhow::Result<Report> {
    let mut report = Report::new(about(&options), cli.json);
    let began = Instant::now();
    let lab = Lab::start(cli.agora.clone(), options).await?;
    let rows = if cli.rows.is_empty() { Row::ALL } else { &cli.rows };
    for row in rows {
        report.say(format_args!("measuring {} (after {} s)", row.name(), began.elapsed().as_secs()));
        if let Err(error) = row.measure(&lab, &mut report).await {
            // The others are worth to be known all the same.
            report.failed(row.name(), &error);
            lab.tidy().await?;
        }
    }
    Ok(report)
}

/// The commit, the day, and how thoroughly.
fn about(options: &Options) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok();
        output.map_or_else(String::new, |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Options { pairs, lasts, size, seed, quick } = options;
    format!(
        "commit {} on {}: {size} posts (seed {seed}), {pairs} pairs of {} s{}",
        git(&["describe", "--always", "--dirty"]),
        chrono::Utc::now().format("%F"),
        lasts.as_secs(),
        if *quick { ", a quick run" } else { "" },
    )
}

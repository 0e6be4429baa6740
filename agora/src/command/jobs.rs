//! `agora jobs`

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::{
    Args, Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};
use command_service::{
    jobs::{self, Job, Listed, Run, Status},
    store::Store,
};
use indicatif::HumanDuration;
use serde::Serialize;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

use super::upgrade;
use crate::{config::Config, daily_check::DailyCheck};

/// See what is done at its time, and have it done now
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Schedules are cron expressions with seconds first, in the time zone jobs.time_zone: agora.example.toml explains them.

Examples:
  agora jobs list
  agora jobs run expire_receipts
  agora jobs history end_bans --json")]
pub enum Jobs {
    /// List the jobs: when each is due next, what came of its last run, and which process runs them
    List(Shown),
    /// Do a job's work now, beside its schedule
    Run(Named),
    /// Show the last runs, the newest first; of those that found nothing to do, the last one of each job
    History(History),
}

/// How to show it.
#[derive(Clone, Copy, Debug, Args)]
pub struct Shown {
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Which job.
#[derive(Debug, Args)]
pub struct Named {
    /// Its name, as `list` shows it
    #[arg(value_parser = names())]
    job: String,
    #[command(flatten)]
    shown: Shown,
}

/// Whose runs.
#[derive(Debug, Args)]
pub struct History {
    /// Only this job's
    #[arg(value_parser = names())]
    job: Option<String>,
    #[command(flatten)]
    shown: Shown,
}

impl Jobs {
    /// Does it, in the database that is configured, or that of the `agora up` that runs here.
    ///
    /// # Errors
    /// Where a job that was run did not do all its work, or found something broken, or there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        super::with_store(config, async |config, store| match self {
            Self::List(Shown { json }) => {
                let status = jobs::status(&store, &config.jobs).await?;
                print(json, &status, || list(&status))
            }
            Self::Run(Named { job, shown: Shown { json } }) => {
                if named(&job)? == Job::Check {
                    let shards = jobs::shards_to_check(&store, Utc::now()).await?;
                    let shards: Vec<String> = shards.iter().map(ToString::to_string).collect();
                    eprintln!("looking at shards {}: `agora check` looks at all", shards.join(", "));
                }
                let run = run_now(&config, store, named(&job)?).await?;
                print(json, &run, || format!("{job}: {}, in {}\n", outcome(&run), took(&run)))?;
                anyhow::ensure!(run.failure.is_none(), "{job} did not do all its work");
                let broken = named(&job)? == Job::Check && run.done > 0;
                anyhow::ensure!(!broken, "it found what should not be: `agora check` looks everything through");
                Ok(())
            }
            Self::History(History { job, shown: Shown { json } }) => {
                let job = job.as_deref().map(named).transpose()?;
                let runs = jobs::history(&store, job).await?;
                print(json, &runs, || history(&runs))
            }
        })
    }
}

fn named(job: &str) -> anyhow::Result<Job> {
    Job::named(job).ok_or_else(|| anyhow::anyhow!("there is no job `{job}`: `agora jobs list` lists them"))
}

fn print(json: bool, what: &impl Serialize, words: impl FnOnce() -> String) -> anyhow::Result<()> {
    let said = if json { serde_json::to_string_pretty(what)? + "\n" } else { words() };
    Ok(super::print(&said)?)
}

/// In this process, on a store of its own: the services that run meanwhile notice it as they would one another.
async fn run_now(config: &Config, pool: PgPool, job: Job) -> anyhow::Result<Run> {
    let behind = upgrade::behind(&pool).await?;
    anyhow::ensure!(behind.is_empty(), "readers run that do not know what this release writes: `agora upgrade check`");
    let tasks = TaskTracker::new();
    let store = Store::start(pool, &config.appender, &tasks);
    let run = jobs::Jobs::new(store, config.jobs.clone()).checking_by(DailyCheck::of(config)).run_by_hand(job).await?;
    tasks.close();
    tasks.wait().await;
    Ok(run)
}

/// One line a job, then what failed.
fn list(status: &Status) -> String {
    let zone = status.jobs.first().map_or("", |listed| &*listed.time_zone);
    let mut text = match &status.leader {
        Some(leader) => format!("run by process {} on {}, in the time zone {zone}\n\n", leader.process, leader.host),
        None => "run by nobody: once a command-service runs, it does what came due until then\n\n".to_owned(),
    };
    let longest = status.jobs.iter().map(|listed| listed.schedule.len()).max().unwrap_or_default();
    let width = longest.max("schedule".len()) + 2;
    let mut line = |job: &str, schedule: &str, next: &str, last: &str, outcome: &str| {
        let _ = writeln!(text, "{job:24}{schedule:width$}{next:18}{last:18}{outcome}");
    };
    line("job", "schedule", "next due", "last run", "outcome");
    for Listed { job, schedule, next_due, last_run, .. } in &status.jobs {
        let next = next_due.map_or_else(|| "never".to_owned(), |due| until(status.now, due));
        let last = last_run.as_ref().map_or_else(|| "never".to_owned(), |run| ago(status.now, run.finished_at));
        let said = match last_run {
            Some(run) if run.failure.is_some() => "failed".to_owned(),
            Some(run) => outcome(run),
            None => "-".to_owned(),
        };
        line(job.name(), schedule, &next, &last, &said);
    }
    for run in status.jobs.iter().filter_map(|listed| listed.last_run.as_ref()).filter(|run| run.failure.is_some()) {
        let Run { job, .. } = run;
        let _ =
            writeln!(text, "\n{job} {}\n  it is tried again by itself; now with: agora jobs run {job}", outcome(run));
    }
    text
}

/// One line a run.
fn history(runs: &[Run]) -> String {
    if runs.is_empty() {
        return "nothing has run yet: `agora jobs list` shows when it will\n".to_owned();
    }
    let mut text = format!("{:22}{:24}{:22}{:>8}  outcome\n", "began", "job", "due", "took");
    for run in runs {
        let due = if run.by_hand { "by hand".to_owned() } else { second(run.due) };
        let _ = writeln!(text, "{:22}{:24}{due:22}{:>8}  {}", second(run.started_at), run.job, took(run), outcome(run));
    }
    text
}

/// What came of a run: `3 bans ended`.
fn outcome(run: &Run) -> String {
    // A job of another release did something, whatever it was.
    let deed = Job::named(&run.job).map_or_else(|| format!("{} done", run.done), |job| job.deed(run.done));
    match &run.failure {
        Some(failure) if run.done > 0 => format!("{deed}, then failed: {failure}"),
        Some(failure) => format!("failed: {failure}"),
        None if run.done == 0 => Job::named(&run.job).map_or("nothing to do", Job::no_deed).to_owned(),
        None => deed,
    }
}

/// The names of all, each with what it does.
fn names() -> PossibleValuesParser {
    Job::ALL.map(|job| PossibleValue::new(job.name()).help(job.about())).into()
}

fn took(run: &Run) -> String {
    let took = run.finished_at - run.started_at;
    if took < TimeDelta::seconds(10) {
        format!("{} ms", took.num_milliseconds())
    } else {
        format!("{} s", took.num_seconds())
    }
}

fn second(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn ago(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    format!("{} ago", HumanDuration((now - since).to_std().unwrap_or_default()))
}

/// What is due is due until somebody did it.
fn until(now: DateTime<Utc>, due: DateTime<Utc>) -> String {
    match (due - now).to_std() {
        Ok(left) => format!("in {}", HumanDuration(left)),
        Err(_) => "now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use command_service::jobs::Leader;

    use super::*;

    fn at(time: &str) -> DateTime<Utc> {
        time.parse().expect("a time")
    }

    fn run(done: u64, failure: Option<&str>) -> Run {
        Run {
            job: "end_bans".to_owned(),
            due: at("2026-01-01T00:00:00Z"),
            by_hand: false,
            started_at: at("2026-01-01T00:00:00.100Z"),
            finished_at: at("2026-01-01T00:00:01.350Z"),
            done,
            failure: failure.map(str::to_owned),
        }
    }

    fn listed(last_run: Option<Run>, next_due: Option<DateTime<Utc>>) -> Listed {
        let (schedule, time_zone) = ("*/10 * * * * *".to_owned(), "Europe/Berlin".to_owned());
        Listed { job: Job::EndBans, schedule, time_zone, next_due, done_through: None, last_run }
    }

    fn words(line: &str) -> Vec<&str> {
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn a_job_is_listed_with_what_came_of_it_and_who_runs_it() {
        let now = at("2026-01-01T00:00:08Z");
        let leader = Some(Leader { process: 4711, host: "web-1".to_owned() });
        let jobs = vec![
            listed(Some(run(1_234, None)), Some(at("2026-01-01T00:00:10Z"))),
            listed(Some(run(0, None)), Some(at("2026-01-01T00:00:00Z"))),
            listed(None, None),
        ];
        let text = list(&Status { leader, now, jobs });
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "run by process 4711 on web-1, in the time zone Europe/Berlin");
        assert_eq!(words(lines[2]), ["job", "schedule", "next due", "last run", "outcome"]);
        let job = ["end_bans", "*/10 * * * * *"];
        assert_eq!(words(lines[3]), [&job[..], &["in 2 seconds", "7 seconds ago", "1234 bans ended"]].concat());
        assert_eq!(words(lines[4]), [&job[..], &["now", "7 seconds ago", "nothing to do"]].concat());
        assert_eq!(words(lines[5]), [&job[..], &["never", "never", "-"]].concat());
    }

    #[test]
    fn a_failure_is_told_with_what_to_do() {
        let jobs = vec![listed(Some(run(0, Some("the event store does not answer"))), None)];
        let text = list(&Status { leader: None, now: at("2026-01-01T00:00:08Z"), jobs });
        assert!(text.starts_with("run by nobody: once a command-service runs, it does what came due"), "{text}");
        let told = "\nend_bans failed: the event store does not answer\n  it is tried again by itself; now with: agora \
                    jobs run end_bans\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn a_run_is_one_line_of_the_history() {
        let text = history(&[run(3, None), Run { by_hand: true, ..run(2, Some("no room")) }]);
        let lines: Vec<_> = text.lines().map(words).collect();
        let began = "2026-01-01T00:00:00Z";
        assert_eq!(lines[1], [began, "end_bans", began, "1250 ms", "3 bans ended"]);
        assert_eq!(lines[2], [began, "end_bans", "by hand", "1250 ms", "2 bans ended, then failed: no room"]);
        assert!(history(&[]).starts_with("nothing has run yet"));
    }
}

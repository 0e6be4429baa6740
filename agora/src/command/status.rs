//! `agora projections status`

use std::{
    fmt::Write as _,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use clap::Args;
use indicatif::HumanDuration;
use projector::{ShardStatus, State, Status};

use crate::{config::Config, terminal::count};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What takes a terminal back to its first line, and clears it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// How to show it.
#[derive(Debug, Args)]
pub struct ProjectionsStatus {
    /// Look again every second, with rates, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Show the shards that are behind or have stopped, one by one
    #[arg(long)]
    shards: bool,
    /// Print every shard, as JSON
    #[arg(long)]
    json: bool,
}

/// What was seen before, to tell how fast it goes.
struct Look {
    at: Instant,
    status: Status,
}

impl ProjectionsStatus {
    /// Shows it.
    ///
    /// # Errors
    /// Where there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        super::with_store(config, async |config, store| {
            let read = super::read_tables(&config).await?;
            let mut before: Option<Look> = None;
            loop {
                let look = Look { at: Instant::now(), status: projector::status(&store, &read).await? };
                let text = if !self.json {
                    let rates = before.as_ref().map(|before| before.rates(&look));
                    show(&look.status, rates.as_ref().map(|rates| rates as _), self.shards, Utc::now())
                } else if self.watch {
                    serde_json::to_string(&look.status)? + "\n"
                } else {
                    serde_json::to_string_pretty(&look.status)? + "\n"
                };
                let clear = if self.watch && !self.json && std::io::stdout().is_terminal() { CLEAR } else { "" };
                super::print(&format!("{clear}{text}"))?;
                if !self.watch {
                    return Ok(());
                }
                before = Some(look);
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}

impl Look {
    /// Events a second that each projection has passed between two looks: every projection passes every event.
    fn rates(&self, later: &Self) -> impl Fn(&str) -> f64 {
        let passed = |look: &Self, name: &str| {
            let lag: i64 = look.status.projections.get(name).into_iter().flatten().map(|shard| shard.lag).sum();
            look.status.head - lag
        };
        move |name| {
            let many = u32::try_from(passed(later, name) - passed(self, name)).unwrap_or(0);
            f64::from(many) / later.at.duration_since(self.at).as_secs_f64()
        }
    }
}

/// One line a projection, then what stopped.
fn show(status: &Status, rate: Option<&dyn Fn(&str) -> f64>, each: bool, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    let relayed = status.relayed.map_or_else(|| "nothing yet".to_owned(), at);
    let _ = writeln!(text, "event store at {}, Kafka has up to {relayed}\n", at(status.head));
    let _ = writeln!(text, "{:16}{:14}{:>12}{:>18}{:>12}", "projection", "state", "behind", "waiting for", "events/s");
    for (name, shards) in &status.projections {
        let state = shards.iter().map(|shard| shard.state).max().unwrap_or(State::Live);
        let rebuilding = if status.rebuilding.contains(name) { " (being rebuilt)" } else { "" };
        let behind: i64 = shards.iter().map(|shard| shard.lag).sum();
        let waiting = waiting(shards.iter().filter_map(|shard| shard.waiting_since).min(), now);
        let rate = rate.as_ref().map_or_else(|| "-".to_owned(), |rate| format!("{:.0}", rate(name)));
        let _ = writeln!(text, "{name:16}{:14}{:>12}{waiting:>18}{rate:>12}{rebuilding}", word(state), at(behind));
        for shard in shards.iter().filter(|shard| each && (shard.lag > 0 || shard.state != State::Live)) {
            let (name, waiting) = (format!("  shard {}", shard.shard), self::waiting(shard.waiting_since, now));
            let _ = writeln!(text, "{name:16}{:14}{:>12}{waiting:>18}", word(shard.state), at(shard.lag));
        }
    }
    if status.projections.is_empty() {
        text += "none has run yet\n";
    }
    for (name, shards) in &status.projections {
        for ShardStatus { shard, parked, .. } in shards {
            let Some(parked) = parked else { continue };
            let _ = write!(
                text,
                "\n{name} stopped in shard {shard} {} ago, at event {} (position {}):\n  {}\n  go on with: agora \
                 projections retry {name} {shard}\n",
                ago(now, parked.at),
                parked.event_id,
                parked.position,
                parked.reason
            );
        }
    }
    text
}

fn at(position: i64) -> String {
    count(u64::try_from(position).unwrap_or(0))
}

fn word(state: State) -> &'static str {
    match state {
        State::Live => "live",
        State::CatchingUp => "catching up",
        State::Outdated => "outdated",
        State::Parked => "stopped",
    }
}

fn waiting(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    since.map_or_else(|| "-".to_owned(), |since| ago(now, since))
}

fn ago(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    HumanDuration((now - since).to_std().unwrap_or_default()).to_string()
}

#[cfg(test)]
mod tests {
    use events::{EventId, HistoryId, Shard};
    use projector::Parked;

    use super::*;

    #[test]
    fn a_stopped_shard_comes_with_what_resolves_it() {
        let now: DateTime<Utc> = "2025-01-01T00:01:00Z".parse().expect("a time");
        let at = "2025-01-01T00:00:00Z".parse().expect("a time");
        let history = HistoryId::new();
        let parked = Parked { event_id: EventId::new(), position: 9, reason: "no such thread".into(), at };
        let shard = |number: i16, parked: Option<Parked>| ShardStatus {
            shard: Shard::try_from(number).expect("a shard"),
            history,
            position: 8,
            head: 10,
            lag: 2,
            waiting_since: Some(at),
            version: 1,
            state: if parked.is_some() { State::Parked } else { State::CatchingUp },
            parked,
        };
        let projections = [("thread_page".to_owned(), vec![shard(3, None), shard(17, Some(parked))])].into();
        let rebuilding = ["thread_page".to_owned()].into();
        let status = Status { history, head: 12_345, relayed: Some(12_345), projections, rebuilding };
        let text = show(&status, None, true, now);
        assert!(text.starts_with("event store at 12,345, Kafka has up to 12,345\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("thread_page")).expect("a line");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["thread_page", "stopped", "4", "60", "seconds", "-", "(being", "rebuilt)"]
        );
        assert!(text.contains("agora projections retry thread_page 17"), "{text}");
        assert!(text.contains("\n  shard 3       catching up              2"), "{text}");
        let later = Look { at: Instant::now(), status: Status { head: 12_445, ..status.clone() } };
        let before = Look { at: later.at.checked_sub(Duration::from_secs(2)).expect("up for two seconds"), status };
        assert!((before.rates(&later)("thread_page") - 50.0).abs() < 1e-9);
    }
}

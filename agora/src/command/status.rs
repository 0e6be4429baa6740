//! `agora projections status`

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use clap::Args;
use events::{EventId, Position, Shard};
use indicatif::HumanDuration;
use projector::{Parked, State, Status};
use serde::Serialize;

use crate::{config::Config, terminal::count};

/// How often `--watch` looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What passes between the two looks that a rate is told by.
const LOOK_TWICE: Duration = Duration::from_millis(500);
/// What takes a terminal back to its first line, and clears it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// How to show it.
#[derive(Debug, Args)]
pub struct ProjectionsStatus {
    /// Look again every second, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
    /// Show each shard that has events
    #[arg(long)]
    shards: bool,
    /// Print every shard, as JSON
    #[arg(long)]
    json: bool,
}

/// What was seen, and when, to tell how fast it goes.
struct Look {
    at: Instant,
    status: Status,
}

/// As JSON.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    status: &'a Status,
    /// By projection.
    events_per_second: &'a Rates,
}

/// Events that each projection has passed in a second.
type Rates = BTreeMap<String, f64>;

impl ProjectionsStatus {
    /// Shows it.
    ///
    /// # Errors
    /// Where there is no database.
    pub fn run(self, config: Config) -> anyhow::Result<()> {
        super::with_store(config, async |config, store| {
            let read = super::read_tables(&config).await?;
            let look =
                async || anyhow::Ok(Look { at: Instant::now(), status: projector::status(&store, &read).await? });
            let mut before = look().await?;
            tokio::time::sleep(LOOK_TWICE).await;
            loop {
                let look = look().await?;
                let rates = before.rates(&look);
                let printed = Printed { status: &look.status, events_per_second: &rates };
                let text = if !self.json {
                    show(&look.status, &rates, self.shards, Utc::now())
                } else if self.watch {
                    serde_json::to_string(&printed)? + "\n"
                } else {
                    serde_json::to_string_pretty(&printed)? + "\n"
                };
                let clear = if self.watch && !self.json && std::io::stdout().is_terminal() { CLEAR } else { "" };
                super::print(&format!("{clear}{text}"))?;
                if !self.watch {
                    return Ok(());
                }
                before = look;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
    }
}

impl Look {
    /// Between two looks: every projection passes every event.
    fn rates(&self, later: &Self) -> Rates {
        let passed = |look: &Self, name: &str| {
            let lag: i64 = look.status.projections.get(name).into_iter().flatten().map(|shard| shard.lag).sum();
            look.status.head - lag
        };
        let rate = |name: &String| {
            let many = u32::try_from(passed(later, name) - passed(self, name)).unwrap_or(0);
            (name.clone(), f64::from(many) / later.at.duration_since(self.at).as_secs_f64())
        };
        later.status.projections.keys().map(rate).collect()
    }
}

/// One line a projection, then what stopped.
fn show(status: &Status, rates: &Rates, each: bool, now: DateTime<Utc>) -> String {
    let mut text = String::new();
    let relayed =
        status.relayed.map_or_else(|| "nothing of this history yet".to_owned(), |to| format!("up to {}", at(to)));
    let _ = writeln!(text, "event store at {}, Kafka has {relayed}\n", at(status.head));
    let _ = writeln!(
        text,
        "{:16}{:14}{:>12}{:>12}{:>18}{:>12}",
        "projection", "state", "position", "behind", "waiting for", "events/s"
    );
    for (name, shards) in &status.projections {
        let state = shards.iter().map(|shard| shard.state).max().unwrap_or(State::Live);
        let rebuilding = if status.rebuilding.contains(name) { " (being rebuilt)" } else { "" };
        let behind: i64 = shards.iter().map(|shard| shard.lag).sum();
        let waiting = waiting(shards.iter().filter_map(|shard| shard.waiting_since).min(), now);
        let rate = rates.get(name).copied().unwrap_or_default();
        let position = at(shards.iter().map(|shard| shard.position).max().unwrap_or(0));
        let (state, behind) = (word(state), at(behind));
        let _ = writeln!(text, "{name:16}{state:14}{position:>12}{behind:>12}{waiting:>18}{rate:>12.0}{rebuilding}");
        for shard in shards.iter().filter(|shard| each && shard.head > 0) {
            let (name, waiting) = (format!("  shard {}", shard.shard), self::waiting(shard.waiting_since, now));
            let (state, position, behind) = (word(shard.state), at(shard.position), at(shard.lag));
            let _ = writeln!(text, "{name:16}{state:14}{position:>12}{behind:>12}{waiting:>18}");
        }
    }
    if status.projections.is_empty() {
        text += "none has run yet\n";
    }
    text += &stopped(status, now);
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
        State::Newer => "of a newer one",
        State::Parked => "stopped",
        State::Ahead => "ahead",
    }
}

fn waiting(since: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    since.map_or_else(|| "-".to_owned(), |since| ago(now, since))
}

fn ago(now: DateTime<Utc>, since: DateTime<Utc>) -> String {
    HumanDuration((now - since).to_std().unwrap_or_default()).to_string()
}

/// What stopped, event by event: where all projections did, nobody can read it.
fn stopped(status: &Status, now: DateTime<Utc>) -> String {
    type Lane<'a> = (&'a str, Shard, &'a Parked);
    let mut events: BTreeMap<(Position, EventId), Vec<Lane<'_>>> = BTreeMap::new();
    for (name, shards) in &status.projections {
        for (shard, parked) in shards.iter().filter_map(|shard| Some((shard.shard, shard.parked.as_ref()?))) {
            events.entry((parked.position, parked.event_id)).or_default().push((name, shard, parked));
        }
    }
    let mut text = String::new();
    for ((position, event), stopped) in events {
        let at = |shard: Shard, parked: &Parked| {
            let ago = ago(now, parked.at);
            format!(
                "stopped in shard {shard} {ago} ago, at event {event} (position {position}):\n  {}\n",
                parked.reason
            )
        };
        if let [(_, shard, parked), ..] = stopped[..]
            && stopped.len() == status.projections.len()
        {
            let _ = write!(
                text,
                "\nall projections {}  once a release runs that reads it, go on with: agora projections retry all {shard}\n  \
                 where there is none, put back what it said: agora events repair {event} --with FILE --reason WHY\n  \
                 or go on without it, every reader: agora events skip {event} --reason WHY\n",
                at(shard, parked)
            );
            continue;
        }
        for (name, shard, parked) in stopped {
            let _ = write!(
                text,
                "\n{name} {}  go on with: agora projections retry {name} {shard}\n  or without it: agora projections skip \
                 {name} {shard} --reason WHY\n",
                at(shard, parked)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use events::HistoryId;
    use projector::ShardStatus;

    use super::*;

    #[test]
    fn a_stopped_shard_comes_with_what_resolves_it() {
        let now: DateTime<Utc> = "2025-01-01T00:01:00Z".parse().expect("a time");
        let at = "2025-01-01T00:00:00Z".parse().expect("a time");
        let history = HistoryId::new();
        let event = EventId::new();
        let parked = Parked { event_id: event, position: 9, reason: "no such thread".into(), at };
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
        let text = show(&status, &[("thread_page".to_owned(), 12.4)].into(), true, now);
        assert!(text.starts_with("event store at 12,345, Kafka has up to 12,345\n"), "{text}");
        let line = text.lines().find(|line| line.starts_with("thread_page")).expect("a line");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>(),
            ["thread_page", "stopped", "8", "4", "60", "seconds", "12", "(being", "rebuilt)"]
        );
        assert!(text.contains("\nall projections stopped in shard 17 60 seconds ago, at event "), "{text}");
        assert!(text.contains("agora projections retry all 17\n"), "{text}");
        assert!(text.contains(&format!("agora events skip {event} --reason WHY\n")), "{text}");
        let more = [("thread_list".to_owned(), vec![])];
        let projections = status.projections.clone().into_iter().chain(more).collect();
        let one = stopped(&Status { projections, ..status.clone() }, now);
        assert!(one.contains("\nthread_page stopped in shard 17") && one.contains("retry thread_page 17\n"), "{one}");
        assert!(one.contains("agora projections skip thread_page 17") && !one.contains("events skip"), "{one}");
        assert!(text.contains("\n  shard 3       catching up              8           2"), "{text}");
        let later = Look { at: Instant::now(), status: Status { head: 12_445, ..status.clone() } };
        let before = Look { at: later.at.checked_sub(Duration::from_secs(2)).expect("up for two seconds"), status };
        assert!((before.rates(&later)["thread_page"] - 50.0).abs() < 1e-9);
    }
}

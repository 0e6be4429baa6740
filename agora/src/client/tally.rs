//! What was sent, by kind, and what became of it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use serde::Serialize;

use super::{Outcome, command::Kind};
use crate::terminal::count;

/// Counts commands as they are answered.
#[derive(Default)]
pub struct Tally(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    kinds: BTreeMap<Kind, Count>,
    /// When the first answer came, and the last.
    times: Option<(Instant, Instant)>,
}

/// What became of the commands of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Took effect now.
    pub written: u64,
    /// Had taken effect before.
    pub already_there: u64,
    /// Refused by the server.
    pub refused: u64,
}

/// How it stood at one moment: what is shown at the end.
#[derive(Clone, Debug, Serialize)]
pub struct Sent {
    /// By kind, in the order in which kinds are sent.
    pub kinds: BTreeMap<Kind, Count>,
    /// All kinds together.
    pub total: Count,
    /// From the first answer to the last.
    pub seconds: f64,
}

impl Tally {
    /// One more.
    pub fn count(&self, kind: Kind, outcome: &Outcome) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        counted.times = Some((counted.times.map_or(now, |(first, _)| first), now));
        let count = counted.kinds.entry(kind).or_default();
        match outcome {
            Outcome::Written => count.written += 1,
            Outcome::AlreadyThere => count.already_there += 1,
            Outcome::Refused(_) => count.refused += 1,
        }
    }

    /// How it stands.
    pub fn sent(&self) -> Sent {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kinds = counted.kinds.clone();
        let mut total = Count::default();
        for count in kinds.values() {
            total.written += count.written;
            total.already_there += count.already_there;
            total.refused += count.refused;
        }
        let seconds = counted.times.map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        Sent { kinds, total, seconds }
    }
}

impl Count {
    /// All that were answered.
    pub fn all(&self) -> u64 {
        self.written + self.already_there + self.refused
    }
}

impl Sent {
    /// Commands answered in a second.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // For people.
    pub fn rate(&self) -> u64 {
        (self.total.all() as f64 / self.seconds.max(1e-3)) as u64
    }
}

impl fmt::Display for Sent {
    /// A table, one kind a line, and the rate below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:18}{:>12}{:>16}{:>10}", "", "written", "already there", "refused")?;
        let all = [("all", &self.total)];
        for (name, sent) in self.kinds.iter().map(|(kind, sent)| (kind.name(), sent)).chain(all) {
            let Count { written, already_there, refused } = sent;
            writeln!(f, "{name:18}{:>12}{:>16}{:>10}", count(*written), count(*already_there), count(*refused))?;
        }
        write!(f, "{} commands in {:.1} s: {} a second", count(self.total.all()), self.seconds, count(self.rate()))
    }
}

//! What happens when: made from a seed, and the same from the same.

use std::time::Duration;

use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::ChaCha8Rng, seq::IndexedRandom as _};

/// What happens to one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// `kill -9` of a process; started again when it is over.
    Kill(usize),
    /// `SIGSTOP`, longer than any lease, then `SIGCONT`.
    Freeze(usize),
    /// `SIGTERM`, and started again.
    Restart(usize),
    /// Postgres stopped as a crash does (`immediate`), and started again.
    PostgresCrash,
    /// Each session of Postgres ended, one by one.
    SessionsCut,
    /// No room on the disk of Postgres.
    DiskFull,
    /// `kill -9` of Kafka, and started again.
    KafkaKill,
    /// The same, and all its messages and topics gone.
    KafkaWiped,
    /// All messages so far deleted, as where retention has run out.
    RetentionOut,
    /// The same, while a projector hangs that has not read them.
    Forgotten(usize),
    /// A partition more.
    PartitionAdded,
    /// Messages sent again, also old ones.
    SentAgain,
    /// A process cut off from Postgres.
    PostgresCut(usize),
    /// What it sends to Postgres, or is answered, does not arrive.
    PostgresSilent(usize),
    /// Every answer of Postgres late.
    PostgresSlow(usize),
    /// Its connections to Postgres reset, in the middle of what they carry.
    PostgresReset(usize),
    /// A process cut off from Kafka.
    KafkaCut(usize),
    /// Nothing arrives between it and Kafka.
    KafkaSilent(usize),
    /// Its connections to Kafka reset.
    KafkaReset(usize),
    /// `kill -9` of a rebuild, where it is not done before.
    RebuildKilled,
    /// Read tables are of an older version of their projection: projectors make them anew by themselves.
    Outdated(usize),
}

impl Fault {
    /// For the table: what, not to whom.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill(_) => "kill -9 of a service",
            Self::Freeze(_) => "SIGSTOP, SIGCONT of a service",
            Self::Restart(_) => "SIGTERM of a service",
            Self::PostgresCrash => "Postgres stopped (immediate)",
            Self::SessionsCut => "Postgres sessions ended one by one",
            Self::DiskFull => "Postgres disk full",
            Self::KafkaKill => "kill -9 of Kafka",
            Self::KafkaWiped => "Kafka's data wiped",
            Self::RetentionOut => "Kafka's messages deleted",
            Self::Forgotten(_) => "Kafka's messages deleted before they were read",
            Self::PartitionAdded => "a partition added",
            Self::SentAgain => "messages sent again",
            Self::PostgresCut(_) => "cut off from Postgres",
            Self::PostgresSilent(_) => "Postgres silent",
            Self::PostgresSlow(_) => "Postgres slow",
            Self::PostgresReset(_) => "connections to Postgres reset",
            Self::KafkaCut(_) => "cut off from Kafka",
            Self::KafkaSilent(_) => "Kafka silent",
            Self::KafkaReset(_) => "connections to Kafka reset",
            Self::RebuildKilled => "a rebuild, killed or done",
            Self::Outdated(_) => "read tables of an older version",
        }
    }

    /// Whether it takes longer than to begin it.
    fn lasts(self) -> bool {
        !matches!(
            self,
            Self::SessionsCut
                | Self::RetentionOut
                | Self::Forgotten(_)
                | Self::PartitionAdded
                | Self::SentAgain
                | Self::PostgresReset(_)
                | Self::KafkaReset(_)
                | Self::Outdated(_)
        )
    }
}

/// Faults that happen at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// How long all is well before.
    pub(crate) after: Duration,
    /// What happens.
    pub(crate) faults: Vec<Fault>,
    /// How long it lasts.
    pub(crate) lasting: Duration,
}

/// A round's.
pub(crate) struct Schedule {
    /// In order.
    pub(crate) steps: Vec<Step>,
}

/// How many processes of each kind there are, in the order of their numbers.
pub(crate) const COMMAND_SERVICES: usize = 2;
/// Behind them.
pub(crate) const PROJECTORS: usize = 3;
/// Behind those.
pub(crate) const QUERY_SERVICES: usize = 2;
/// All of them.
pub(crate) const SERVICES: usize = COMMAND_SERVICES + PROJECTORS + QUERY_SERVICES;

impl Schedule {
    /// The one of a seed, with so many faults; before them those that bring a broken promise out.
    pub(crate) fn of(seed: u64, faults: usize, sabotage: Option<&str>) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let first = brought_out_by(sabotage.unwrap_or_default());
        let (after, lasting) = (Duration::from_secs(1), Duration::from_secs(4));
        let mut steps: Vec<Step> =
            first.into_iter().map(|fault| Step { after, faults: vec![fault], lasting }).collect();
        // The last is what only the tail check repairs: nothing comes after it in shards that are quiet.
        let mut left = faults.saturating_sub(1);
        while left > 0 {
            let at_once = [1, 1, 1, 2, 2, 3].choose(&mut dice).copied().unwrap_or(1).min(left);
            let mut together: Vec<Fault> = vec![];
            while together.len() < at_once {
                let fault = any(&mut dice);
                // One thing happens to one part at a time.
                if together.iter().all(|other| other.name() != fault.name() && !clash(*other, fault)) {
                    together.push(fault);
                }
            }
            left -= at_once;
            let longest = if together.iter().any(|fault| matches!(fault, Fault::Freeze(_))) { 6_000 } else { 3_000 };
            let lasting = if together.iter().any(|fault| fault.lasts()) { dice.random_range(100..longest) } else { 0 };
            steps.push(Step {
                after: Duration::from_millis(dice.random_range(200..2_500)),
                faults: together,
                lasting: Duration::from_millis(lasting),
            });
        }
        if faults > 0 {
            let hangs = dice.random_range(COMMAND_SERVICES..COMMAND_SERVICES + PROJECTORS);
            let (after, lasting) = (Duration::from_secs(1), Duration::ZERO);
            steps.push(Step { after, faults: vec![Fault::Forgotten(hangs)], lasting });
        }
        Self { steps }
    }

    /// How many there are.
    pub(crate) fn faults(&self) -> usize {
        self.steps.iter().map(|step| step.faults.len()).sum()
    }
}

/// Whether two cannot happen at once: to the same part, or one to a process and the other to what it is told.
fn clash(one: Fault, other: Fault) -> bool {
    let hangs = |fault| matches!(fault, Fault::Forgotten(_));
    let ends = |fault| matches!(fault, Fault::Kill(_) | Fault::Freeze(_) | Fault::Restart(_));
    kind(one) == kind(other) || hangs(one) && ends(other) || ends(one) && hangs(other)
}

/// What two faults at once may not share.
fn kind(fault: Fault) -> usize {
    match fault {
        Fault::Kill(n) | Fault::Freeze(n) | Fault::Restart(n) => n,
        Fault::PostgresCrash | Fault::SessionsCut | Fault::DiskFull => SERVICES,
        Fault::KafkaKill
        | Fault::KafkaWiped
        | Fault::RetentionOut
        | Fault::PartitionAdded
        | Fault::SentAgain
        | Fault::Forgotten(_) => SERVICES + 1,
        Fault::PostgresCut(n) | Fault::PostgresSilent(n) | Fault::PostgresSlow(n) | Fault::PostgresReset(n) => {
            SERVICES + 2 + n
        }
        Fault::KafkaCut(n) | Fault::KafkaSilent(n) | Fault::KafkaReset(n) => 2 * SERVICES + 2 + n,
        Fault::RebuildKilled | Fault::Outdated(_) => 3 * SERVICES + 2,
    }
}

/// What a broken promise shows by: most do by anything, some only by what seldom happens.
fn brought_out_by(sabotage: &str) -> Vec<Fault> {
    let [projector, query] = [COMMAND_SERVICES, COMMAND_SERVICES + PROJECTORS];
    let projectors = projector..query;
    match sabotage {
        "any-history" => vec![Fault::SentAgain; 2],
        // What is read takes long, and changes meanwhile.
        "token-from-memory" | "old-load" => [Fault::PostgresSlow(query), Fault::PostgresSlow(query + 1)].repeat(3),
        // What is cached is not told of.
        "notice-lost" => [Fault::KafkaSilent(query), Fault::KafkaCut(query + 1), Fault::KafkaKill].repeat(2),
        "no-compare-and-set" | "checkpoint-apart" => {
            [Fault::Freeze(projector), Fault::PostgresReset(projector)].repeat(2)
        }
        // Whichever projector hangs, what it has not read is gone.
        "no-gap-filling" | "no-tail-check" => projectors.map(Fault::Forgotten).collect(),
        // What waits longer for its flush has more beside it there.
        "blind-flush" => vec![Fault::PostgresSlow(0), Fault::PostgresSlow(1)],
        _ => vec![],
    }
}

fn any(dice: &mut ChaCha8Rng) -> Fault {
    let n = dice.random_range(0..SERVICES);
    // Command-services have nothing to do with Kafka.
    let reader = dice.random_range(COMMAND_SERVICES..SERVICES);
    let projector = dice.random_range(COMMAND_SERVICES..COMMAND_SERVICES + PROJECTORS);
    match dice.next_u32() % 28 {
        0..4 => Fault::Kill(n),
        4 | 5 => Fault::Freeze(n),
        6 => Fault::Restart(n),
        7 | 8 => Fault::PostgresCrash,
        9 => Fault::SessionsCut,
        10 => Fault::DiskFull,
        11 => Fault::KafkaKill,
        12 => Fault::KafkaWiped,
        13 => Fault::RetentionOut,
        14 => Fault::PartitionAdded,
        15 => Fault::SentAgain,
        16 => Fault::PostgresCut(n),
        17 => Fault::PostgresSilent(n),
        18 => Fault::PostgresSlow(n),
        19 | 20 => Fault::PostgresReset(n),
        21 => Fault::KafkaCut(reader),
        22 => Fault::KafkaSilent(reader),
        23 | 24 => Fault::Forgotten(projector),
        25 => Fault::RebuildKilled,
        26 => Fault::Outdated(n),
        _ => Fault::KafkaReset(reader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_schedule_again_and_another_another() {
        assert_eq!(Schedule::of(7, 20, None).steps, Schedule::of(7, 20, None).steps);
        assert_ne!(Schedule::of(7, 20, None).steps, Schedule::of(8, 20, None).steps);
        assert_eq!(Schedule::of(7, 20, None).faults(), 20);
    }
}

//! `agora events replay`

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Args;
use events::Position;
use platform::extract::moment;
use store_reader::StoreReader;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::position;
use crate::{
    command::{self, Signals},
    config::Config,
    history::{Asked, Block, Blocks, Gather, Lines, Part, file::LinesFile, seen::Seen, topic::Topic},
    terminal::{Progress, Unit, count},
};

/// Stream the event history, as it would be written today: one CloudEvent (1.0, JSON) a line
///
/// Events come in the order of their positions, each payload in its newest version. How far it has come is on stderr,
/// and at the end, or when it is stopped, the position to go on from. What an attribute is called in a line is what its
/// header is called in Kafka, without the `ce_`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agora events replay > history.ndjson
  agora events replay --type thread.started --community tea | jq -r .data.title
  agora events replay --from 120000 --since 2025-06-01T00:00:00Z --to-file june.ndjson
  agora events replay --kafka-topic replayed --kafka-brokers localhost:9092

The same command with --to-file goes on where the file ends, however it came to end there:
after a crash, or a month later. Beside the file, FILE.progress says what its lines answer.
With --kafka-topic it looks at the last message of each partition, and sends what is missing:
their header agora_question tells that they answer the same. What answers another is refused.
A topic that is there is left as it is, with the partitions that it has; a missing one is made
with `kafka.partitions`, 16 unless told. What was made before a backup was restored is refused.")]
#[allow(clippy::doc_markdown, reason = "these are words for people, printed as they are")]
pub struct Replay {
    #[command(flatten)]
    which: Which,
    /// Write to this file, and go on where an earlier run left it
    #[arg(long, value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// Send to this topic of Kafka instead, the messages that the relay sends, payloads as written; made where it is missing
    #[arg(long, value_name = "TOPIC", conflicts_with = "to_file")]
    kafka_topic: Option<String>,
}

/// Which events.
#[derive(Debug, Args)]
pub struct Which {
    /// Begin behind this position
    #[arg(long, value_name = "POSITION", default_value_t = 0, value_parser = position, allow_negative_numbers = true)]
    from: Position,
    /// End with this position [default: that of the last event there is now]
    #[arg(long, value_name = "POSITION", value_parser = position, allow_negative_numbers = true)]
    to: Option<Position>,
    /// Only events of this name, such as post.written; several with commas, or said several times
    #[arg(long = "type", value_name = "NAME", value_delimiter = ',')]
    types: Vec<String>,
    /// Only events of this community
    #[arg(long, value_name = "ID_OR_SLUG")]
    community: Option<String>,
    /// Only events recorded at this time or later (RFC 3339); an import is recorded when it is made
    #[arg(long, value_name = "TIME", value_parser = moment, allow_hyphen_values = true)]
    since: Option<DateTime<Utc>>,
}

impl From<Which> for Asked {
    fn from(Which { from, to, types, community, since }: Which) -> Self {
        Self { from, to, since, types, community }
    }
}

/// How long a reader has for the block that is being printed when a signal comes.
const LAST_BLOCK: Duration = Duration::from_secs(1);

/// What was written, and how far it reaches.
struct Done {
    events: u64,
    /// Events that nobody can read and every reader leaves out.
    left_out: u64,
    through: Position,
    started: Instant,
}

impl Replay {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let signals = Signals::listen()?;
        let store = command::history(&config).await?;
        let part = Asked::from(self.which).look_up(&store).await?;
        match (&self.kafka_topic, &self.to_file) {
            (Some(name), _) => to_topic(&config, name, store, part, &signals).await,
            (None, Some(path)) => to_file(path, store, part, &signals).await,
            (None, None) => to_stdout(store, part, &signals).await,
        }
    }
}

async fn to_topic(
    config: &Config,
    name: &str,
    store: StoreReader,
    mut part: Part,
    Signals { stop, hurry }: &Signals,
) -> anyhow::Result<()> {
    let mut topic = Topic::open(&config.kafka, name, &part, &store).await.context("--kafka-topic")?;
    part.after = topic.arrived().through;
    let mut done = Done::behind(part.after);
    let last = topic.goes_on_from().unwrap_or(part.after);
    if topic.goes_on_from().is_some() {
        eprintln!("{}", goes_on(name, part.after, last));
    }
    let work = async {
        each(store, &part, &mut done, async |messages, _| topic.send(messages).await).await?;
        topic.finish().await
    };
    let outcome = stop.run_until_cancelled(work).await;
    let complete = matches!(outcome, Some(Ok(())));
    let settled = complete || hurry.run_until_cancelled(topic.settle()).await == Some(true);
    if !settled {
        eprintln!("Kafka has not answered for all that was sent: more of it may have arrived");
    }
    let arrived = topic.arrived();
    done.events = arrived.events;
    // Where all has arrived, the topic has all that was read, also what was there and not sent again.
    done.through = if settled { done.through.max(arrived.through) } else { arrived.through };
    let (took, there) = (done.took(), there(name, done.through, last));
    eprintln!("{} events sent{took}; {there}; go on with the same command", count(done.events));
    done.end(&part, outcome)
}

/// What a look at its partitions says; where shards have been silent for long, more may be there than that.
fn goes_on(name: &str, behind: Position, last: Position) -> String {
    let how_far = if last > behind {
        format!(
            "the partition that is furthest behind reaches position {behind}, the one that is furthest ahead {last}"
        )
    } else {
        format!("it reaches position {last}")
    };
    format!("{name} has events of this replay: {how_far}; what is missing is sent")
}

/// What a topic has of a replay: `mine has all of this replay up to position 21135, and of what follows some, up to 90870`.
fn there(name: &str, through: Position, last: Position) -> String {
    let all = format!("{name} has all of this replay up to position {through}");
    if last > through { format!("{all}, and of what follows some, up to {last}") } else { all }
}

async fn to_file(
    path: &Path,
    store: StoreReader,
    mut part: Part,
    Signals { stop, .. }: &Signals,
) -> anyhow::Result<()> {
    let mut file = LinesFile::open(path, part.question(), &store).await.context("--to-file")?;
    if file.cut_off() > 0 {
        let (name, bytes, whole) = (path.display(), count(file.cut_off()), file.position());
        eprintln!(
            "{name}: cut off {bytes} bytes behind position {whole}, where a replay that was killed has left off, or somebody \
             has added to it"
        );
    }
    part.after = part.after.max(file.position());
    let mut done = Done::behind(part.after);
    let asked = store.clone();
    let add = async |Lines(lines), through| {
        if file.add(&lines, through)? {
            file.save(Seen::at(&asked, through).await?)?;
        }
        Ok(())
    };
    let outcome = stop.run_until_cancelled(each(store, &part, &mut done, add)).await;
    // Where the disk is full, what was written is found again without it.
    let saved = match Seen::at(&asked, file.position()).await {
        Ok(last) => file.save(last),
        Err(error) => Err(error.into()),
    };
    eprintln!("{}; go on with the same command", done.said());
    done.end(&part, outcome.map(|outcome| outcome.and(saved)))
}

async fn to_stdout(store: StoreReader, part: Part, Signals { stop, .. }: &Signals) -> anyhow::Result<()> {
    let mut done = Done::behind(part.after);
    // Not cancelled: a block that is begun is printed whole, and the position that is told is behind it.
    let outcome = each(store, &part, &mut done, async |Lines(lines), _| print(lines, stop).await).await;
    if let Err(error) = &outcome
        && error.root_cause().downcast_ref::<io::Error>().is_some_and(nobody_reads)
    {
        return outcome;
    }
    eprintln!("{}; go on with --from {}", done.said(), done.through);
    done.end(&part, Some(outcome).filter(|outcome| !outcome.as_ref().is_err_and(is_stop)))
}

/// Hands on block by block.
async fn each<G: Gather>(
    store: StoreReader,
    part: &Part,
    done: &mut Done,
    mut take: impl AsyncFnMut(G, Position) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let progress = Progress::start("replaying", part.positions(), Unit::Things("positions"));
    let mut blocks = Blocks::of(store, part.clone());
    while let Some(Block { gathered, events, left_out, through }) = blocks.next().await? {
        take(gathered, through).await?;
        done.events += events;
        done.left_out += left_out;
        progress.note(format!("{} events, at position {through}", count(done.events)));
        progress.add(u64::try_from(through - done.through).unwrap_or(0));
        done.through = through;
    }
    Ok(())
}

/// Nothing more is to be printed.
#[derive(Debug, thiserror::Error)]
#[error("stopped")]
struct Stopped;

/// A reader that takes its time is waited for on a thread of its own: a signal is heard meanwhile, and what is begun is
/// printed whole where the reader takes it.
async fn print(lines: Vec<u8>, stop: &CancellationToken) -> anyhow::Result<()> {
    if stop.is_cancelled() {
        return Err(Stopped.into());
    }
    let mut printing = tokio::task::spawn_blocking(move || io::stdout().lock().write_all(&lines));
    let printed = match stop.run_until_cancelled(&mut printing).await {
        Some(printed) => printed,
        None => {
            timeout(LAST_BLOCK, printing).await.context("nobody took the last lines: what came of them is cut off")?
        }
    };
    Ok(printed??)
}

fn is_stop(error: &anyhow::Error) -> bool {
    error.is::<Stopped>()
}

fn nobody_reads(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

impl Done {
    fn behind(position: Position) -> Self {
        Self { events: 0, left_out: 0, through: position, started: Instant::now() }
    }

    /// `7,007 events up to position 7007 in 0.1 s (70,070/s)`.
    fn said(&self) -> String {
        format!("{} events up to position {}{}", count(self.events), self.through, self.took())
    }

    /// ` in 0.1 s (70,070/s)`.
    fn took(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // For people.
        let rate = count((self.events as f64 / seconds) as u64);
        format!(" in {seconds:.1} s ({rate}/s)")
    }

    /// Says what was left out, and why it ends, where that is not with the part; no outcome is one that was stopped.
    fn end(&self, part: &Part, outcome: Option<anyhow::Result<()>>) -> anyhow::Result<()> {
        super::say_left_out(self.left_out);
        outcome.unwrap_or_else(|| Err(anyhow::anyhow!("stopped before position {}", part.through)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_positions_of_a_topic_are_not_taken_for_one_another() {
        assert_eq!(
            goes_on("mine", 9, 9),
            "mine has events of this replay: it reaches position 9; what is missing is sent"
        );
        assert_eq!(
            goes_on("mine", 7, 9),
            "mine has events of this replay: the partition that is furthest behind reaches position 7, the one that is \
             furthest ahead 9; what is missing is sent"
        );
        assert_eq!(there("mine", 9, 9), "mine has all of this replay up to position 9");
        assert_eq!(
            there("mine", 7, 9),
            "mine has all of this replay up to position 7, and of what follows some, up to 9"
        );
    }
}

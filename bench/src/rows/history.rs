//! The whole history in order: into this process, as lines of JSON and as Parquet; the latter two beside `COPY` of the
//! same events to a file.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use agora::history::{Asked, Blocks, Gather};
use anyhow::ensure;
use events::{Delivered, Position};
use store_reader::{Filter, StoreReader, Unreadable};

use crate::{
    lab::{Lab, connect},
    pairs::{Pairs, Spread},
    process::{most_memory_of, timed},
    psql::psql,
    report::{Bound, Report, Unit},
    standing,
};

const MIB: f64 = 1024. * 1024.;
/// MiB that a history of any length may take.
const MOST: f64 = 100.;

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let pool = connect(&database, 4).await?;
    let events = standing::events(&pool).await?;
    let store = StoreReader::new(pool.clone());

    let bed = Bed { lab, database: &database, events };
    let (mut rates, mut alone, mut memory) = (vec![], vec![], vec![]);
    for _ in 0..lab.options.pairs {
        rates.push(read(&store, events).await?);
        alone.push(read_alone(&store, events).await?);
        memory.push(bed.memory().await?);
    }
    let into = "history into the process, in order";
    report.alone(format!("{into}: events"), Unit::PerSecond, Spread::of(rates), Some(Bound::Least(300_000.)));
    report.alone(format!("{into}, one statement: events"), Unit::PerSecond, Spread::of(alone), None);
    report.alone(
        "history, replayed: the most it has in memory",
        Unit::MiB,
        Spread::of(memory),
        Some(Bound::Most(MOST)),
    );
    let pairs = Pairs::take(lab.options.pairs, || bed.replay(), || bed.copy()).await?;
    report.beside(
        "history to a file, NDJSON: events",
        Unit::PerSecond,
        &pairs,
        "COPY to a file",
        Some(Bound::Least(0.5)),
    );
    let pairs = Pairs::take(lab.options.pairs, || bed.export(), || bed.copy()).await?;
    report.beside(
        "history to files, Parquet: events",
        Unit::PerSecond,
        &pairs,
        "COPY to a file",
        Some(Bound::Least(0.5)),
    );
    pool.close().await;
    lab.drop(&database).await
}

/// Some events, as whoever reads history has them in hand.
#[derive(Default)]
struct Hand {
    events: Vec<Delivered>,
    bytes: usize,
}

impl Gather for Hand {
    fn add(&mut self, event: Delivered) -> Result<(), Unreadable> {
        self.bytes += event.envelope.payload.get().len();
        self.events.push(event);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Reads all of it as `agora events replay` does; answers events a second.
async fn read(store: &StoreReader, events: f64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let part = Asked::default().look_up(store).await?;
    let mut blocks = Blocks::<Hand>::of(store.clone(), part);
    let mut last = 0;
    while let Some(block) = blocks.next().await? {
        for event in block.gathered.events {
            last = follows(last, &event)?;
        }
    }
    whole(last, events)?;
    Ok(events / began.elapsed().as_secs_f64())
}

/// The same by one statement, its rows one by one.
async fn read_alone(store: &StoreReader, events: f64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut copy = store.copy(0, Position::MAX, &Filter::default()).await?;
    let mut last = 0;
    while let Some(event) = copy.next().await? {
        last = follows(last, &event)?;
    }
    whole(last, events)?;
    Ok(events / began.elapsed().as_secs_f64())
}

fn follows(last: Position, event: &Delivered) -> anyhow::Result<Position> {
    let position = event.envelope.position;
    ensure!(position == last + 1, "position {position} came behind {last}");
    Ok(position)
}

fn whole(last: Position, events: f64) -> anyhow::Result<()> {
    #[allow(clippy::cast_precision_loss, reason = "positions of a bench")]
    let arrived = last as f64 >= events;
    ensure!(arrived, "it ended at position {last} of {events}");
    Ok(())
}

struct Bed<'a> {
    lab: &'a Lab,
    database: &'a str,
    events: f64,
}

impl Bed<'_> {
    async fn replay(&self) -> anyhow::Result<f64> {
        let file = self.place("history.ndjson");
        let mut replay = self.lab.program(&["events", "replay", "--database-url", self.database]);
        replay.stdout(fs::File::create(&file)?);
        let rate = self.rate_of(replay).await?;
        fs::remove_file(file)?;
        Ok(rate)
    }

    /// The most that a replay has in memory, in MiB.
    async fn memory(&self) -> anyhow::Result<f64> {
        let mut replay = self.lab.program(&["events", "replay", "--database-url", self.database]);
        replay.stdout(Stdio::null());
        Ok(most_memory_of(replay).await? / MIB)
    }

    async fn export(&self) -> anyhow::Result<f64> {
        let dir = self.place("history");
        fs::create_dir(&dir)?;
        let to = dir.to_string_lossy();
        let rate =
            self.rate_of(self.lab.program(&["events", "export", "--to", &to, "--database-url", self.database])).await?;
        fs::remove_dir_all(&dir)?;
        Ok(rate)
    }

    async fn copy(&self) -> anyhow::Result<f64> {
        self.lab.checkpoint().await?;
        let file = self.place("history.copy");
        let copy = format!(r"\copy store.events to '{}'", file.display());
        let took = psql(self.database, &[copy]).await?;
        fs::remove_file(file)?;
        Ok(self.events / took.as_secs_f64())
    }

    async fn rate_of(&self, command: Command) -> anyhow::Result<f64> {
        self.lab.checkpoint().await?;
        Ok(self.events / timed(command).await?.as_secs_f64())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }
}

//! Reads while read tables are made anew and commands come in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use events::ThreadId;
use uuid::Uuid;

use crate::{
    lab::{Lab, connect},
    load::{Load, Outcome, Pace},
    pairs::Spread,
    people::{People, read},
    process::{Agora, Place, timed},
    report::{Report, Unit},
    standing,
};

/// A second.
const READS: f64 = 500.;
const COMMANDS: f64 = 200.;
/// Reads and commands that may be under way.
const CONNECTIONS: usize = 64;
/// A rebuild takes about a second of it at least.
const LEAST: Duration = Duration::from_secs(3);

/// What the module says.
pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let up = lab.run("up", &Place { database: database.clone(), kafka: None, core: None }, &[]).await?;
    let people = Arc::new(People::settle(up.address, 4, 8).await?);
    let threads = public_threads(&database).await?;
    let bed = Bed { lab, database: &database, up: &up, threads: Arc::new(threads), people };
    let (mut latencies, mut commands, mut calm) = (vec![], vec![], vec![]);
    let mut tables = vec![];
    for _ in 0..lab.options.pairs {
        lab.checkpoint().await?;
        calm.push(bed.load().await?.0.ms(99.));
        let ((reads, replies), rebuilds) = bed.load_while_rebuilding().await?;
        latencies.push(reads.latency);
        commands.push(replies.ms(99.));
        tables.push(rebuilds);
    }
    let name = |what: &str| format!("reads while a rebuild runs and 200 commands/s come in: {what}");
    report.latencies("reads while a rebuild runs and 200 commands/s come in", &latencies, 50.);
    report.alone(name("p99 of the commands"), Unit::Ms, Spread::of(commands), None);
    report.alone(name("p99 of reads without the rebuild"), Unit::Ms, Spread::of(calm), None);
    report.alone(name("rebuilds that ended meanwhile"), Unit::Count, Spread::of(tables), None);
    up.stop()?;
    lab.drop(&database).await
}

/// Those that are written to first.
async fn public_threads(database: &str) -> anyhow::Result<Vec<ThreadId>> {
    let pool = connect(database, 1).await?;
    standing::caught_up(&pool).await?;
    let threads = sqlx::query_scalar::<_, Uuid>(
        "select thread_id from thread join community using (community_id)
        where visibility = 'public' and status = 'active' and not deleted order by thread.position desc",
    );
    let threads = threads.fetch_all(&pool).await?;
    pool.close().await;
    Ok(threads.into_iter().map(ThreadId).collect())
}

struct Bed<'a> {
    lab: &'a Lab,
    database: &'a str,
    up: &'a Agora,
    threads: Arc<Vec<ThreadId>>,
    people: Arc<People>,
}

impl Bed<'_> {
    /// Rebuilds, one after the other, for as long as it lasts; answers what the load saw, and how many ended meanwhile.
    async fn load_while_rebuilding(&self) -> anyhow::Result<((Outcome, Outcome), f64)> {
        let over = AtomicBool::new(false);
        let load = async {
            let outcome = self.load().await;
            over.store(true, Ordering::Relaxed);
            outcome
        };
        let rebuilding = async {
            let mut ended = 0.;
            while !over.load(Ordering::Relaxed) {
                let rebuild = ["projections", "rebuild", "--all", "--json", "--database-url", self.database];
                timed(self.lab.program(&rebuild)).await?;
                ended += if over.load(Ordering::Relaxed) { 0. } else { 1. };
            }
            Ok(ended)
        };
        tokio::try_join!(load, rebuilding)
    }

    /// What became of the reads, and of the replies.
    async fn load(&self) -> anyhow::Result<(Outcome, Outcome)> {
        let threads = Arc::clone(&self.threads);
        #[allow(clippy::cast_possible_truncation, reason = "the bench runs on 64 bits")]
        let reads = move |nth| read(threads[nth as usize % threads.len()], None);
        let people = Arc::clone(&self.people);
        let load = Load {
            to: self.up.address,
            connections: CONNECTIONS,
            pace: Pace::Rate(READS),
            lasts: self.lab.options.lasts.max(LEAST),
            requests: Arc::new(reads),
        };
        let replies =
            Load { pace: Pace::Rate(COMMANDS), requests: Arc::new(move |nth| people.reply(nth)), ..load.clone() };
        let (reads, replies) = tokio::try_join!(load.send(), replies.send())?;
        Ok((reads.all_good()?, replies.all_good()?))
    }
}

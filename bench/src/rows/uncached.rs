//! Pages that no cache has: ever other threads', read from their rows, beside pgbench running the very same statement.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Context as _, bail, ensure};
use events::Shard;
use platform::db::BY_KEY;
use serde::Deserialize;
use sqlx::Executor as _;
use uuid::Uuid;

use crate::{
    bare::Bare,
    forum::{Thread, in_turn, threads},
    lab::{Lab, connect},
    load::{Load, Outcome, Pace, Requests},
    pairs::Pairs,
    process::{Agora, Place},
    report::{Bound, Report, Unit},
};

const CONNECTIONS: usize = 16;
/// Threads at most, those with the most posts. Ours reads one after the other, pgbench any of them each time.
const THREADS: i64 = 1_000;
pub(super) const NO_CACHE: [(&str, &str); 1] = [("cache.capacity_bytes", "0")];
/// Of the answers, those that were read from rows at least; a page that two ask for at once is read once.
const READ: f64 = 0.9;
/// Of what it carries, while latency is measured.
const SHARE: f64 = 0.6;
/// Posts on a page, and one more that tells whether there is a next page.
const ROWS: u32 = 21;
/// What the page joins.
const PROJECTIONS: &str = "{account,thread_list,thread_page}";
/// What the statement of a thread's page ends with, as the query-service has it.
const PICKS: &str = "where p.thread_id = $5 and p.number > coalesce($6, 0) order by p.number limit $7";

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let threads = threads(&database, THREADS).await?;
    let script = script(&database, &threads).await?;
    let place = Place { database: database.clone(), kafka: Some(lab.kafka().await?), core: None };
    let service = lab.run("query-service", &place, &NO_CACHE).await?;
    let requests: Vec<Vec<u8>> = threads.iter().map(|thread| thread.request(None)).collect();
    let bed = Bed { lab, service: &service, requests: Arc::new(move |nth| in_turn(&requests, nth).clone()) };
    let theirs = async || bed.pgbench(&database, &script).await;
    let pairs = Pairs::take(lab.options.pairs, async || Ok(bed.read(Pace::Flat).await?.rate()), theirs).await?;
    report.beside("uncached read", Unit::PerSecond, &pairs, "pgbench, the same statement", Some(Bound::Least(0.6)));
    if !lab.options.quick {
        bed.beside_bare(report, &database, &script).await?;
    }
    let rate = Pace::Rate(SHARE * pairs.ours().median);
    let mut latencies = vec![];
    for _ in 0..lab.options.pairs {
        latencies.push(bed.read(rate).await?.latency);
    }
    report.latencies("uncached read, at 60% of what it carries", &latencies, 50.);
    service.stop()?;
    lab.drop(&database).await
}

struct Bed<'a> {
    lab: &'a Lab,
    service: &'a Agora,
    requests: Requests,
}

/// The same, of a service with [`NO_CACHE`]; fails where it was not the rows that were read.
pub(super) async fn read(service: &Agora, load: Load) -> anyhow::Result<Outcome> {
    let loads = async || service.counted("agora_query_load_seconds_count", &[]).await;
    let before = loads().await?;
    let outcome = load.send().await?.all_good()?;
    let (loads, answers) = (loads().await? - before, outcome.good());
    ensure!(loads >= READ * answers, "{loads} of {answers} answers were read from rows, the others were at hand");
    Ok(outcome)
}

impl Bed<'_> {
    /// What there is to be had over HTTP: an axum handler that sends the statement through sqlx, and counts its rows.
    async fn beside_bare(&self, report: &mut Report, database: &str, script: &Script) -> anyhow::Result<()> {
        let file = self.lab.dir().join("statement");
        fs::write(&file, &script.of_number)?;
        let bare = Bare::Selects(file, database.to_owned()).start(None).await?;
        let limit = async || anyhow::Ok(self.load(bare.address, Pace::Flat).send().await?.all_good()?.rate());
        let ours = async || Ok(self.read(Pace::Flat).await?.rate());
        let pairs = Pairs::take(self.lab.options.pairs, ours, limit).await?;
        report.beside("uncached read", Unit::PerSecond, &pairs, "bare axum, the same statement", None);
        let pairs = Pairs::take(self.lab.options.pairs, limit, async || self.pgbench(database, script).await).await?;
        let name = "bare axum, the same statement";
        report.beside(name, Unit::PerSecond, &pairs, "pgbench, the same statement", None);
        Ok(())
    }

    async fn pgbench(&self, database: &str, script: &Script) -> anyhow::Result<f64> {
        Ok(self.lab.pgbench(database).run(&script.of_pgbench, CONNECTIONS, self.lab.options.lasts).await?.rate)
    }

    fn load(&self, to: SocketAddr, pace: Pace) -> Load {
        let (requests, lasts) = (Arc::clone(&self.requests), self.lab.options.lasts);
        Load { to, connections: CONNECTIONS, pace, lasts, requests }
    }

    async fn read(&self, pace: Pace) -> anyhow::Result<Outcome> {
        read(self.service, self.load(self.service.address, pace)).await
    }
}

/// The statement, of any of some threads.
struct Script {
    of_pgbench: String,
    /// The thread is that of the number `$1`.
    of_number: String,
}

/// The statement, of any of these threads. What cannot be a constant is looked up in an array, by its index: that takes
/// the baseline next to nothing. Its clients find the tables that the query-service finds, and plan as it does.
async fn script(database: &str, threads: &[Thread]) -> anyhow::Result<Script> {
    let pool = connect(database, 1).await?;
    for (setting, value) in BY_KEY.into_iter().chain([("search_path", "read"), ("jit", "off")]) {
        let set = format!("execute format('alter database %I set {setting} = {value}', current_database())");
        pool.execute(format!("do $$ begin {set}; end $$").as_str()).await?;
    }
    let history: Uuid = sqlx::query_scalar("select history from checkpoint limit 1").fetch_one(&pool).await?;
    pool.close().await;
    let shards = threads.iter().map(|thread| i16::from(Shard::of_community(thread.community())));
    let statement = statement()?
        .replace("$1", &format!("'{PROJECTIONS}'::text[]"))
        .replace("$2", &format!("array[{}]", any_of("smallint", shards)))
        .replace("$3", &format!("'{history}'::uuid"))
        .replace("$4", "false")
        .replace("$5", &any_of("uuid", threads.iter().map(|thread| thread.thread_id)))
        .replace("$6", "null::integer")
        .replace("$7", &ROWS.to_string());
    Ok(Script {
        of_pgbench: format!("\\set any random(1, {})\n{statement};\n", threads.len()),
        of_number: statement.replace(":any", &format!("1 + $1 % {}", threads.len())),
    })
}

fn any_of(kind: &str, values: impl Iterator<Item = impl ToString>) -> String {
    let values: Vec<String> = values.map(|value| value.to_string()).collect();
    format!("('{{{}}}'::{kind}[])[:any]", values.join(","))
}

/// As the query-service sends it: it was compiled with it, and what it was compiled with is kept in the tree.
fn statement() -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Compiled {
        query: String,
    }
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx");
    for file in fs::read_dir(&kept).with_context(|| kept.display().to_string())? {
        let Compiled { query } = serde_json::from_slice(&fs::read(file?.path())?)?;
        if query.ends_with(PICKS) {
            return Ok(query);
        }
    }
    bail!("the query-service has no statement that ends `{PICKS}` any more")
}

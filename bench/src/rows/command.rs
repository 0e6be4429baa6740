//! Commands over HTTP: replies, each under a key of its own, with all that is checked of a request.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{
    bare::{Bare, MOST},
    lab::{Lab, connect},
    load::{Answer, Connection, Load, Outcome, Pace, Requests, histogram, ms},
    pairs::{Pairs, Spread},
    people::People,
    process::{Agora, GENERATOR, Pinned, Place, SERVER, cpu_of},
    report::{Bound, Report, Unit},
    standing,
};

/// Connections of the load.
const CONNECTIONS: usize = 64;
/// Many more.
const CROWDED: usize = 6_000;
/// Until all of them wait; and a percentile wants more than a second.
const LONG: Duration = Duration::from_secs(4);
/// Of what can be carried, at which latency is looked at: a service that is always full has a queue, whatever it does.
const SHARE: f64 = 0.6;
/// Into one thread, and on one post of it, a second.
const HOT_REPLIES: f64 = 200.;
const HOT_REACTIONS: f64 = 50.;
/// Who writes there.
const CROWD: usize = 8;

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    alone(lab, report).await?;
    with_everything(lab, report).await
}

async fn alone(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = empty(lab).await?;
    let bed = Bed { lab, database: &database, projected: false };
    let place = Place { database: database.clone(), kafka: None, core: None };
    let service = lab.run("command-service", &place, &[]).await?;
    let people = Arc::new(People::settle(service.address, 8, 8).await?);
    bed.carried(report, &service, &people, "the command-service alone", 1.).await?;
    bed.one(report, &service, &people).await?;
    if !lab.options.quick {
        bed.beside_bare(report, &service, &people).await?;
    }
    bed.one_thread(report, &service).await?;
    service.stop()?;
    bed.too_much(report).await?;
    lab.drop(&database).await
}

async fn with_everything(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = empty(lab).await?;
    let bed = Bed { lab, database: &database, projected: true };
    let place = Place { database: database.clone(), kafka: Some(lab.kafka().await?), core: None };
    let up = lab.run("up", &place, &[]).await?;
    let people = Arc::new(People::settle(up.address, 8, 8).await?);
    bed.carried(report, &up, &people, "everything beside it", 0.7).await?;
    up.stop()?;
    lab.drop(&database).await
}

/// A database with nothing in it but the table of the baselines.
async fn empty(lab: &Lab) -> anyhow::Result<String> {
    let database = lab.empty().await?;
    let pool = connect(&database, 1).await?;
    sqlx::query("create table plain (id bigint generated always as identity primary key, payload json not null)")
        .execute(&pool)
        .await?;
    pool.close().await;
    Ok(database)
}

struct Bed<'a> {
    lab: &'a Lab,
    database: &'a str,
    /// Whether projections follow.
    projected: bool,
}

impl Bed<'_> {
    /// How many a second, beside pgbench; and how long one takes while it is less.
    async fn carried(
        &self,
        report: &mut Report,
        agora: &Agora,
        people: &Arc<People>,
        with: &str,
        held_to: f64,
    ) -> anyhow::Result<()> {
        let ours = async || anyhow::Ok(self.replies(agora, people, CONNECTIONS, Pace::Flat).await?.rate());
        let theirs = async || anyhow::Ok(self.insert(CONNECTIONS).await?.rate);
        let pairs = Pairs::take(self.lab.options.pairs, ours, theirs).await?;
        let name = format!("commands over HTTP, {CONNECTIONS} connections, {with}");
        report.beside(name, Unit::PerSecond, &pairs, "pgbench INSERT", Some(Bound::Least(held_to)));
        let rate = SHARE * pairs.ours().median;
        let (mut latencies, mut behind, mut costs) = (vec![], vec![], BTreeMap::<_, Vec<f64>>::new());
        for _ in 0..self.lab.options.pairs {
            self.settle().await?;
            let before = self.lab.cpu(agora)?;
            let outcome = self.replies(agora, people, CONNECTIONS, Pace::Rate(rate)).await?;
            let answered = Instant::now();
            // What is projected behind the answers is a part of what they cost.
            self.settle().await?;
            behind.push(answered.elapsed().as_secs_f64() * 1e3);
            for (whose, seconds) in
                self.lab.cpu_since(agora, &before)?.into_iter().chain([("the generator", outcome.cpu)])
            {
                costs.entry(whose).or_default().push(seconds * 1e6 / outcome.good());
            }
            latencies.push(outcome.latency);
        }
        report.latencies(format!("– at 60 % of that, {rate:.0}/s, {with}"), &latencies, 50.);
        if self.projected {
            let name = format!("– until all of it is projected and on disk, {with}");
            report.alone(name, Unit::Ms, Spread::of(behind), None);
        }
        for (whose, each) in costs {
            report.alone(format!("– CPU of {whose} for one, {with}"), Unit::Micros, Spread::of(each), None);
        }
        Ok(())
    }

    /// One by one.
    async fn one(&self, report: &mut Report, agora: &Agora, people: &Arc<People>) -> anyhow::Result<()> {
        // pgbench tells a mean.
        let ours = async || anyhow::Ok(self.replies(agora, people, 1, Pace::Flat).await?.mean());
        let theirs = async || anyhow::Ok(self.insert(1).await?.ms);
        let pairs = Pairs::take(self.lab.options.pairs, ours, theirs).await?;
        report.beside("one command alone, over HTTP", Unit::Ms, &pairs, "one INSERT commit", Some(Bound::Most(2.)));
        Ok(())
    }

    /// What anybody's command over HTTP takes: an axum handler that keeps the body by one `INSERT`, through sqlx.
    async fn beside_bare(&self, report: &mut Report, agora: &Agora, people: &Arc<People>) -> anyhow::Result<()> {
        let bare = Bare::Inserts(self.database.to_owned()).start(None).await?;
        let at = |to, connections| {
            let load = self.load_at(to, people, connections, Pace::Flat);
            async move {
                self.settle().await?;
                load.send().await?.all_good()
            }
        };
        let rate = async |to| anyhow::Ok(at(to, CONNECTIONS).await?.rate());
        let pairs = Pairs::take(self.lab.options.pairs, || rate(agora.address), || rate(bare.address)).await?;
        let name = format!("commands over HTTP, {CONNECTIONS} connections, the command-service alone");
        report.beside(name, Unit::PerSecond, &pairs, "bare axum and one INSERT", None);
        let time = async |to| anyhow::Ok(at(to, 1).await?.mean());
        let pairs = Pairs::take(self.lab.options.pairs, || time(agora.address), || time(bare.address)).await?;
        report.beside("one command alone, over HTTP", Unit::Ms, &pairs, "bare axum and one INSERT", None);
        let pairs = Pairs::take(self.lab.options.pairs, || time(bare.address), async || Ok(self.insert(1).await?.ms));
        report.beside("bare axum and one INSERT, alone", Unit::Ms, &pairs.await?, "one INSERT commit", None);
        let theirs = async || Ok(self.insert(CONNECTIONS).await?.rate);
        let pairs = Pairs::take(self.lab.options.pairs, || rate(bare.address), theirs).await?;
        let name = format!("bare axum and one INSERT, {CONNECTIONS} connections");
        report.beside(name, Unit::PerSecond, &pairs, "pgbench INSERT", None);
        Ok(())
    }

    /// Twice of what it can carry, over so many connections that they all wait. The command-service and Postgres have one
    /// core, the generator the other: it sends twice as much, and would take that from them.
    async fn too_much(&self, report: &mut Report) -> anyhow::Result<()> {
        let place = Place { database: self.database.to_owned(), kafka: None, core: Some(SERVER) };
        let (_postgres, _generator) = (Pinned::of(self.lab.postgres_pid()?, SERVER)?, Pinned::to(GENERATOR)?);
        let service = self.lab.run("command-service", &place, &[]).await?;
        let people = Arc::new(People::settle(service.address, 8, 8).await?);
        let (mut carried, mut refused, mut bests) = (vec![], histogram(), vec![]);
        for _ in 0..self.lab.options.pairs {
            let best = self.replies(&service, &people, MOST, Pace::Flat).await?.rate();
            let flood = self.flood(service.address, &people, 2. * best).await?;
            carried.push(100. * flood.rate() / best);
            refused.add(&flood.refused)?;
            bests.push(best);
        }
        service.stop()?;
        let name = "commands over HTTP at twice what it can carry: carried of its best";
        report.alone(name, Unit::Percent, Spread::of(carried), Some(Bound::Least(80.)));
        ensure!(!refused.is_empty(), "nothing was refused at twice the load");
        let name = format!("– p99 of a refusal (503), of {}", refused.len());
        report.alone(name, Unit::Ms, Spread::of([ms(&refused, 99.)]), Some(Bound::Most(50.)));
        if !self.lab.options.quick {
            self.too_much_for_bare(report, &people, Spread::of(bests).median).await?;
        }
        Ok(())
    }

    /// What there is to be had of both, at twice of our best.
    async fn too_much_for_bare(&self, report: &mut Report, people: &Arc<People>, best: f64) -> anyhow::Result<()> {
        let left = self.left_by_bare_refusals(people, best).await?;
        let name = "– what the refusals of a bare axum handler would leave of it";
        report.alone(name, Unit::Percent, Spread::of([left]), None);
        let bare = Bare::Inserts(self.database.to_owned()).start(Some(SERVER)).await?;
        let refused = self.flood(bare.address, people, 2. * best).await?.refused;
        let name = format!("– p99 of a refusal by bare axum with one INSERT, sent as many, of {}", refused.len());
        report.alone(name, Unit::Ms, Spread::of([ms(&refused, 99.)]), None);
        Ok(())
    }

    /// So many a second, over many connections.
    fn crowd(&self, to: SocketAddr, people: &Arc<People>, rate: f64) -> Load {
        let load = self.load_at(to, people, CROWDED, Pace::Rate(rate));
        Load { lasts: load.lasts.max(LONG), ..load }
    }

    /// The same, of which some are refused.
    async fn flood(&self, to: SocketAddr, people: &Arc<People>, rate: f64) -> anyhow::Result<Outcome> {
        let flood = self.crowd(to, people, rate).send().await?;
        let other = flood.statuses.keys().find(|status| !matches!(status, 201 | 503));
        ensure!(other.is_none(), "at twice the load: {:?}", flood.statuses);
        ensure!(flood.sent > 0.95 * rate, "{rate:.0} requests a second were to be sent, and {:.0} were", flood.sent);
        Ok(flood)
    }

    /// What share of its best the server's core could still carry at twice of that, if a refusal took no more than the answer
    /// of a bare handler, which looks at nothing, takes over as many connections.
    async fn left_by_bare_refusals(&self, people: &Arc<People>, best: f64) -> anyhow::Result<f64> {
        let head =
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\r\n";
        let said = Answer { status: 503, head, body: br#"{"type":"/problems/overloaded","status":503}"# };
        let bare = Bare::Answers(Bare::kept(self.lab.dir(), &said)?).start(Some(SERVER)).await?;
        let before = cpu_of(bare.pid())?;
        let answered = self.crowd(bare.address, people, 2. * best).send().await?.good();
        let refusal = (cpu_of(bare.pid())? - before) / answered;
        // Of x carried and 2 best - x refused a second, at 1/best of the core for each that is carried, the core is full.
        Ok(100. * (1. - 2. * best * refusal) / (1. - best * refusal))
    }

    /// All into one thread, and all on one post: nobody is told of a conflict.
    async fn one_thread(&self, report: &mut Report, agora: &Agora) -> anyhow::Result<()> {
        let people = Arc::new(People::settle(agora.address, CROWD, 1).await?);
        people.join_the_first(agora.address).await?;
        let thread = format!("threads/{}/posts", people.thread(0));
        let body = json!({"body": "Two minutes."});
        // The first of them writes what the others react to.
        let post = people.request(0, "POST", &thread, &body);
        let post: Value = serde_json::from_slice(Connection::open(agora.address).await?.exchange(&post).await?.body)?;
        let reaction = format!("posts/{}/reaction", post["id"].as_str().context("a post's id")?);
        let load = |rate, requests: Requests| Load {
            to: agora.address,
            connections: CONNECTIONS,
            pace: Pace::Rate(rate),
            lasts: self.lab.options.lasts.max(LONG),
            requests,
        };
        let replies = load(HOT_REPLIES, {
            let people = Arc::clone(&people);
            Arc::new(move |nth| people.request(nth, "POST", &thread, &body))
        });
        let reactions = load(HOT_REACTIONS, {
            let others = CROWD as u64 - 1;
            Arc::new(move |nth| {
                // Another kind than each had before, or nothing would be written.
                let kind = ["like", "up"][usize::from((nth / others).is_multiple_of(2))];
                people.request(1 + nth % others, "PUT", &reaction, &json!({"kind": kind}))
            })
        });
        let [mut to_thread, mut on_post] = [vec![], vec![]];
        for _ in 0..self.lab.options.pairs {
            let (replies, reactions) = tokio::try_join!(replies.clone().send(), reactions.clone().send())?;
            to_thread.push(replies.all_good()?.latency);
            on_post.push(reactions.all_good()?.latency);
        }
        report.latencies("200 replies/s into one thread, all 2xx", &to_thread, 100.);
        report.latencies("50 reactions/s on one post, all 2xx", &on_post, 100.);
        Ok(())
    }

    /// No measurement pays for another's.
    async fn settle(&self) -> anyhow::Result<()> {
        if self.projected {
            let pool = connect(self.database, 1).await?;
            standing::caught_up(&pool).await?;
            pool.close().await;
        }
        self.lab.checkpoint().await
    }

    async fn replies(
        &self,
        agora: &Agora,
        people: &Arc<People>,
        connections: usize,
        pace: Pace,
    ) -> anyhow::Result<Outcome> {
        self.settle().await?;
        self.load(agora, people, connections, pace).send().await?.all_good()
    }

    fn load(&self, agora: &Agora, people: &Arc<People>, connections: usize, pace: Pace) -> Load {
        self.load_at(agora.address, people, connections, pace)
    }

    fn load_at(&self, to: SocketAddr, people: &Arc<People>, connections: usize, pace: Pace) -> Load {
        let people = Arc::clone(people);
        let requests = Arc::new(move |nth| people.reply(nth));
        Load { to, connections, pace, lasts: self.lab.options.lasts, requests }
    }

    async fn insert(&self, clients: usize) -> anyhow::Result<crate::pgbench::Measured> {
        self.settle().await?;
        let script = format!("insert into store.plain (payload) values ('{}');\n", super::append::payload());
        self.lab.pgbench(self.database).run(&script, clients, self.lab.options.lasts).await
    }
}

//! A page that the cache has, over HTTP: the busiest public thread's first, as a guest and signed in.
//!
//! The query-service has one core, the generator the other, and so does the baseline, by turns: a bare axum handler
//! that returns the same bytes. Postgres, whose rows decide who may see, runs where there is room; what it takes is
//! shown.

mod memcached;

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use crate::{
    bare::Bare,
    forum::{Thread, in_turn, sign_in, threads},
    lab::Lab,
    load::{Connection, Load, Outcome, Pace, Requests},
    pairs::{Pairs, Spread},
    process::{Baseline, GENERATOR, Pinned, Place, SERVER, cpu_of},
    report::{Bound, Report, Unit},
};

const CONNECTIONS: usize = 64;
/// Who is signed in: one account a connection.
const READERS: usize = CONNECTIONS;
/// Of what it carries, while latency is measured.
const SHARE: f64 = 0.6;
/// Connections, and what p99 is held to there, in ms.
const LATENCIES: [(usize, f64); 2] = [(CONNECTIONS, 10.), (1_000, 50.)];

pub async fn measure(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let database = lab.filled(lab.options.size).await?;
    let busiest = threads(&database, 1).await?[0];
    let tokens = sign_in(lab, &database, READERS, false).await?;
    let kafka = Some(lab.kafka().await?);
    let place = Place { database: database.clone(), kafka, core: Some(SERVER) };
    let service = lab.run("query-service", &place, &[]).await?;
    let pinned = Pinned::to(GENERATOR)?;
    for (who, tokens) in [("a guest", vec![]), ("signed in", tokens)] {
        let served = Served { address: service.address, pid: service.pid(), requests: requests(busiest, &tokens) };
        row(lab, report, who, &served, &database).await?;
    }
    drop(pinned);
    service.stop()?;
    lab.drop(&database).await
}

fn requests(thread: Thread, tokens: &[String]) -> Requests {
    let mut requests: Vec<Vec<u8>> = tokens.iter().map(|token| thread.request(Some(token))).collect();
    if requests.is_empty() {
        requests.push(thread.request(None));
    }
    Arc::new(move |nth| in_turn(&requests, nth).clone())
}

async fn row(lab: &Lab, report: &mut Report, who: &str, ours: &Served, database: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(ours.address).await?;
    let answer = connection.exchange(&(ours.requests)(0)).await?;
    let kept = Bare::kept(lab.dir(), &answer)?;
    let bare = Bare::Answers(kept.clone()).start(Some(SERVER)).await?;
    let served = |it: &Baseline| Served { address: it.address, pid: it.pid(), requests: Arc::clone(&ours.requests) };
    let theirs = served(&bare);
    let [our_costs, their_costs] = [(); 2].map(|()| RefCell::<Costs>::default());
    let pairs =
        Pairs::take(lab.options.pairs, || ours.costs(lab, &our_costs), || theirs.costs(lab, &their_costs)).await?;
    let name = format!("cached read, {who}");
    report.beside(&name, Unit::PerSecond, &pairs, "bare axum", Some(Bound::Least(0.8)));
    our_costs.take().tell(report, &name);
    their_costs.take().tell(report, "bare axum");
    if !lab.options.quick {
        // Decided from current rows on each request, it is one look at them for all who wait, whatever else it is.
        let looks = Bare::Looks(kept, database.to_owned()).start(Some(SERVER)).await?;
        let limit = served(&looks);
        let looking = || limit.rate(lab);
        let beside_ours = Pairs::take(lab.options.pairs, || ours.rate(lab), looking).await?;
        report.beside(&name, Unit::PerSecond, &beside_ours, "bare axum and one look", None);
        let beside_theirs = Pairs::take(lab.options.pairs, looking, || theirs.rate(lab)).await?;
        report.beside("bare axum and one look", Unit::PerSecond, &beside_theirs, "bare axum", None);
    }
    memcached::row(lab, report, &name, answer.body, || ours.rate(lab)).await?;
    let rate = SHARE * pairs.ours().median;
    for (connections, bound) in LATENCIES {
        let p99 = async |of: &Served| anyhow::Ok(of.load(lab, connections, Pace::Rate(rate)).await?.ms(99.));
        let pairs = Pairs::take(lab.options.pairs, || p99(ours), || p99(&theirs)).await?;
        let name = format!("{name}: p99 over {connections} connections, at 60% of what it carries");
        report.alone(&name, Unit::Ms, pairs.ours(), Some(Bound::Most(bound)));
        report.alone(format!("{name}, of bare axum"), Unit::Ms, pairs.theirs(), None);
    }
    drop(bare);
    Ok(())
}

/// Whom requests are sent to.
struct Served {
    address: SocketAddr,
    pid: u32,
    requests: Requests,
}

impl Served {
    async fn load(&self, lab: &Lab, connections: usize, pace: Pace) -> anyhow::Result<Outcome> {
        let requests = Arc::clone(&self.requests);
        Load { to: self.address, connections, pace, lasts: lab.options.lasts, requests }.send().await?.all_good()
    }

    /// What it carries a second.
    async fn rate(&self, lab: &Lab) -> anyhow::Result<f64> {
        Ok(self.load(lab, CONNECTIONS, Pace::Flat).await?.rate())
    }

    /// The same; and notes what that costs.
    async fn costs(&self, lab: &Lab, costs: &RefCell<Costs>) -> anyhow::Result<f64> {
        let (server, postgres) = (cpu_of(self.pid)?, lab.postgres_cpu()?);
        let outcome = self.load(lab, CONNECTIONS, Pace::Flat).await?;
        let (server, postgres) = (cpu_of(self.pid)? - server, lab.postgres_cpu()? - postgres);
        let mut costs = costs.borrow_mut();
        costs.server.push(1e6 * server / outcome.good());
        costs.postgres.push(1e6 * postgres / outcome.good());
        costs.core.push(100. * server / outcome.seconds);
        costs.generator.push(100. * outcome.cpu / outcome.seconds);
        Ok(outcome.rate())
    }
}

/// Of each run.
#[derive(Default)]
struct Costs {
    /// CPU µs of a request.
    server: Vec<f64>,
    /// CPU µs of a request.
    postgres: Vec<f64>,
    /// Of the server's core, in percent.
    core: Vec<f64>,
    /// Of the generator's core, in percent.
    generator: Vec<f64>,
}

impl Costs {
    fn tell(self, report: &mut Report, name: &str) {
        report.alone(format!("{name}: CPU of a request"), Unit::Micros, Spread::of(self.server), None);
        report.alone(format!("{name}: Postgres's CPU of a request"), Unit::Micros, Spread::of(self.postgres), None);
        // Less than all of it: who decides is slower than who answers.
        report.alone(format!("{name}: the server's core"), Unit::Percent, Spread::of(self.core), None);
        // Above that, the generator would be what is measured.
        let bound = Some(Bound::Most(90.));
        report.alone(format!("{name}: the generator's core"), Unit::Percent, Spread::of(self.generator), bound);
    }
}

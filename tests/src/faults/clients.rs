//! Who uses the forum while things break: posters who send again what was not answered, the same account from two
//! places, moderators and owners who get in one another's way, and readers who never want to see less.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use events::PositionToken;
use rand::{RngExt as _, SeedableRng as _, rngs::ChaCha8Rng, seq::IndexedRandom as _};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    cluster::Cluster,
    history::{Effect, History, Order, Outcome, lock, mark},
    service::Role,
};

mod moderators;
mod probe;
mod readers;

pub(crate) use probe::Probe;

/// How long a client waits for an answer before it asks elsewhere.
const TIMEOUT: Duration = Duration::from_secs(4);
/// How long a command is tried.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it rests before it tries again, at most.
const REST: Duration = Duration::from_millis(200);
const POSTERS: usize = 6;
const READERS: usize = 12;
/// Who writes into one thread as fast as they can, while watchers read it: something changes whenever it is read.
const CHATTERS: usize = 2;
const WATCHERS: usize = 8;
/// Threads that most look at, and many reply to: what is cached of them is asked for again soon, and changes meanwhile.
const POPULAR: usize = 4;

/// Somebody with an account.
#[derive(Clone)]
struct Person {
    id: String,
    bearer: String,
}

struct Community {
    id: String,
    category: String,
    owners: [Person; 2],
    moderator: Person,
}

/// What there is to be posted to, growing.
struct World {
    communities: Vec<Community>,
    threads: Mutex<Vec<(usize, String)>>,
    posts: Mutex<Vec<(usize, String)>>,
    /// The positions at which replies to a thread were acknowledged.
    replies: Mutex<HashMap<String, Vec<PositionToken>>>,
    posters: Vec<Person>,
    /// A thread that nobody locks, and who may write there.
    chat: (String, Person),
    commands: Vec<SocketAddr>,
    queries: Vec<SocketAddr>,
    client: Client,
    history: History,
    over: AtomicBool,
}

/// All clients of a round.
pub(crate) struct Crowd {
    world: Arc<World>,
    seed: u64,
}

/// The clients at work.
pub(crate) struct Working {
    world: Arc<World>,
    tasks: JoinSet<()>,
}

impl Crowd {
    /// Registers everybody and makes what they meet in, while all is well.
    ///
    /// # Errors
    /// Where that is refused.
    pub(crate) async fn gather(cluster: &Cluster, seed: u64) -> anyhow::Result<Self> {
        let mut world = World::of(cluster)?;
        for n in 0..POSTERS {
            let poster = world.register(&format!("poster-{n}")).await?;
            world.posters.push(poster);
        }
        for n in 0..2 {
            let owners =
                [world.register(&format!("owner-{n}")).await?, world.register(&format!("other-owner-{n}")).await?];
            let moderator = world.register(&format!("moderator-{n}")).await?;
            let slug = format!("place-{n}");
            let body = json!({"slug": slug, "name": slug, "description": ""});
            let created = world.must(&owners[0], Method::POST, "/v2/communities", Some(body)).await?;
            let id = text(&created["id"])?;
            let general = json!({"slug": "general", "name": "General", "description": ""});
            let path = format!("/v2/communities/{id}/categories");
            let category = text(&world.must(&owners[0], Method::POST, &path, Some(general)).await?["id"])?;
            for member in [&owners[1], &moderator].into_iter().chain(&world.posters) {
                world.must(member, Method::PUT, &format!("/v2/communities/{id}/members/{}", member.id), None).await?;
            }
            let path = format!("/v2/communities/{id}/owners/{}", owners[1].id);
            world.must(&owners[0], Method::PUT, &path, None).await?;
            let path = format!("/v2/communities/{id}/members/{}/role", moderator.id);
            world.must(&owners[0], Method::PUT, &path, Some(json!({"role": "moderator"}))).await?;
            for t in 0..3 {
                let body = json!({"title": format!("Thread {t}"), "body": "It begins.", "category_id": category});
                let path = format!("/v2/communities/{id}/threads");
                let started = world.must(&owners[0], Method::POST, &path, Some(body)).await?;
                lock(&world.threads).push((n, text(&started["id"])?));
                lock(&world.posts).push((n, text(&started["opening_post_id"])?));
            }
            world.communities.push(Community { id, category, owners, moderator });
        }
        let chatter = world.register("chatter").await?;
        world.chat = (world.place_of_ones_own(&chatter, "chat").await?, chatter);
        Ok(Self { world: Arc::new(world), seed })
    }

    /// Lets them begin.
    pub(crate) fn work(self) -> Working {
        let mut tasks = JoinSet::new();
        let dice = |n: usize| ChaCha8Rng::seed_from_u64(self.seed ^ (n as u64) << 32);
        // The last two of the posters are one account in two places, on the same few posts.
        for n in 0..POSTERS {
            let (world, dice) = (Arc::clone(&self.world), dice(n));
            let who = n.min(POSTERS - 2);
            tasks.spawn(async move { world.posts_and_reacts(who, who == POSTERS - 2, dice).await });
        }
        for n in 0..2 {
            let (world, dice) = (Arc::clone(&self.world), dice(10 + n));
            tasks.spawn(async move { world.moderates(n, dice).await });
            for owner in 0..2 {
                let (world, dice) = (Arc::clone(&self.world), ChaCha8Rng::seed_from_u64((20 + 2 * n + owner) as u64));
                tasks.spawn(async move { world.owns(n, owner, dice).await });
            }
        }
        for n in 0..READERS {
            let (world, dice) = (Arc::clone(&self.world), dice(30 + n));
            tasks.spawn(async move { world.reads(dice).await });
        }
        for n in 0..CHATTERS {
            let (world, dice) = (Arc::clone(&self.world), dice(100 + n));
            tasks.spawn(async move { world.chats(dice).await });
        }
        for n in 0..WATCHERS {
            let (world, dice) = (Arc::clone(&self.world), dice(110 + n));
            tasks.spawn(async move { world.watches(dice).await });
        }
        Working { world: self.world, tasks }
    }
}

impl Working {
    /// All of it so far.
    pub(crate) fn history(&self) -> &History {
        &self.world.history
    }

    /// Lets everybody finish what they began; what they did.
    ///
    /// # Errors
    /// Where one does not come to an end.
    pub(crate) async fn stop(mut self, patience: Duration) -> anyhow::Result<Finished> {
        self.world.over.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(patience, all).await.context("clients do not come to an end")??;
        Ok(Finished { world: self.world })
    }
}

/// What they did.
pub(crate) struct Finished {
    world: Arc<World>,
}

impl Finished {
    /// All of it.
    pub(crate) fn history(&self) -> &History {
        &self.world.history
    }

    /// Sends a command again, now that all is well: its answer must be the same.
    pub(crate) async fn again(&self, order: &Order) -> Outcome {
        self.world.try_for(order, PATIENCE).await
    }
}

impl World {
    /// Nobody in it yet.
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self {
            communities: vec![],
            threads: Mutex::default(),
            posts: Mutex::default(),
            replies: Mutex::default(),
            posters: vec![],
            chat: (String::new(), nobody()),
            commands: cluster.addresses(Role::Command),
            queries: cluster.addresses(Role::Query),
            client: Client::builder().timeout(TIMEOUT).build()?,
            history: History::default(),
            over: AtomicBool::new(false),
        })
    }

    async fn register(&self, name: &str) -> anyhow::Result<Person> {
        let account = json!({
            "username": name, "email": format!("{name}@example.org"), "password": "correct horse", "display_name": name,
        });
        let id = text(&self.must(&nobody(), Method::POST, "/v2/accounts", Some(account)).await?["id"])?;
        let credentials = json!({"login": name, "password": "correct horse"});
        let tokens = self.must(&nobody(), Method::POST, "/v2/sessions", Some(credentials)).await?;
        Ok(Person { id, bearer: text(&tokens["access_token"])? })
    }

    /// A community of a person's own, and the thread in it.
    async fn place_of_ones_own(&self, person: &Person, slug: &str) -> anyhow::Result<String> {
        let body = json!({"slug": slug, "name": slug, "description": ""});
        self.must(person, Method::POST, "/v2/communities", Some(body)).await?;
        let general = json!({"slug": "general", "name": "General", "description": ""});
        let path = format!("/v2/communities/{slug}/categories");
        let category = self.must(person, Method::POST, &path, Some(general)).await?;
        let body = json!({"title": slug, "body": "Is anybody there?", "category_id": category["id"]});
        let started = self.must(person, Method::POST, &format!("/v2/communities/{slug}/threads"), Some(body)).await?;
        text(&started["id"])
    }

    async fn must(&self, who: &Person, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let mut request = self.client.request(method, format!("http://{}{path}", self.commands[0]));
        if !who.bearer.is_empty() {
            request = request.bearer_auth(&who.bearer);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await.unwrap_or_default();
        ensure!(status.is_success(), "{path}: {status}: {body}");
        Ok(body)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sends it until it is answered, or gives up; notes how it ended.
    async fn carry_out(&self, order: Order, dice: &mut ChaCha8Rng) -> Outcome {
        // Some give up early: nobody knows then what became of it.
        let patience = if dice.random_bool(0.1) { Duration::ZERO } else { PATIENCE };
        let outcome = self.try_for(&order, patience).await;
        self.history.note(order, outcome.clone());
        outcome
    }

    async fn try_for(&self, order: &Order, patience: Duration) -> Outcome {
        let begun = Instant::now();
        for attempt in order.key.as_u128() as usize.. {
            let address = self.commands[attempt % self.commands.len()];
            if let Some(outcome) = self.try_once(order, address).await {
                return outcome;
            }
            if begun.elapsed() >= patience {
                break;
            }
            tokio::time::sleep(REST.mul_f64(rand::random())).await;
        }
        Outcome::Unanswered
    }

    async fn try_once(&self, order: &Order, address: SocketAddr) -> Option<Outcome> {
        let mut request = self
            .client
            .request(order.method.clone(), format!("http://{address}{}", order.path))
            .bearer_auth(&order.bearer)
            .header("idempotency-key", order.key.to_string());
        if let Some(body) = &order.body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let header = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        match status {
            200..300 => {
                let position = header("agora-position").and_then(|position| position.parse().ok());
                let unchanged = header("agora-unchanged").is_some();
                // Without its whole body it is no answer.
                let body = answer.json().await.ok()?;
                let Some(position) = position else {
                    self.history.note_broken(format!("{order}: acknowledged without a position"));
                    return Some(Outcome::Unanswered);
                };
                Some(Outcome::Acknowledged { status, body, position, unchanged })
            }
            408 | 429 | 500.. => {
                if status == 500 {
                    self.history
                        .note_broken(format!("{order}: answered 500: {}", answer.text().await.unwrap_or_default()));
                }
                None
            }
            _ => {
                let problem: Value = answer.json().await.ok()?;
                Some(Outcome::Refused { status, problem: problem["type"].as_str().unwrap_or_default().to_owned() })
            }
        }
    }

    /// One of the threads; with that probability a popular one.
    fn thread(&self, popular: f64, dice: &mut ChaCha8Rng) -> (usize, String) {
        let threads = lock(&self.threads);
        let many = if dice.random_bool(popular) { POPULAR.min(threads.len()) } else { threads.len() };
        threads[..many].choose(dice).cloned().unwrap_or_default()
    }

    fn post(&self, few: bool, dice: &mut ChaCha8Rng) -> (usize, String) {
        let posts = lock(&self.posts);
        let of = if few { &posts[..posts.len().min(3)] } else { &posts[..] };
        of.choose(dice).cloned().unwrap_or_default()
    }

    async fn posts_and_reacts(&self, who: usize, twin: bool, mut dice: ChaCha8Rng) {
        let me = self.posters[who].clone();
        let mut mine: Vec<(String, u64)> = vec![];
        while !self.is_over() {
            match dice.random_range(0..100) {
                0..40 if !twin => {
                    let (place, thread) = self.thread(0.5, &mut dice);
                    let mut order = order(&me, Method::POST, format!("/v2/threads/{thread}/posts"), Effect::Marked);
                    order.body = Some(json!({"body": format!("{} says I", order.mark())}));
                    let outcome = self.carry_out(order.clone(), &mut dice).await;
                    if let Outcome::Acknowledged { body, position, .. } = outcome
                        && let Some(id) = body["id"].as_str()
                    {
                        mine.push((id.to_owned(), 1));
                        lock(&self.posts).push((place, id.to_owned()));
                        self.replied(&thread, position);
                        // Who looks each time writes little while reads are slow.
                        if dice.random_bool(0.5) {
                            self.read_back(&me, id, &order, position, &mut dice).await;
                        }
                    }
                }
                40..50 if !mine.is_empty() => {
                    let n = dice.random_range(0..mine.len());
                    let (post, revision) = mine[n].clone();
                    let mut order = order(&me, Method::PATCH, format!("/v2/posts/{post}"), Effect::Marked);
                    order.body = Some(json!({"body": format!("{} edited", order.mark()), "base_revision": revision}));
                    let outcome = self.carry_out(order.clone(), &mut dice).await;
                    match outcome {
                        Outcome::Acknowledged { body, position, .. } => {
                            mine[n].1 = body["revision"].as_u64().unwrap_or(revision + 1);
                            self.read_back(&me, &post, &order, position, &mut dice).await;
                        }
                        // Perhaps it was edited: nobody can tell what the next edit is based on.
                        _ => drop(mine.swap_remove(n)),
                    }
                }
                50..55 if !twin => {
                    let place = dice.random_range(0..self.communities.len());
                    let path = format!("/v2/communities/{}/threads", self.communities[place].id);
                    let mut order = order(&me, Method::POST, path, Effect::Marked);
                    order.body = Some(json!({
                        "title": order.mark(), "body": "It goes on.", "category_id": self.communities[place].category,
                    }));
                    if let Outcome::Acknowledged { body, .. } = self.carry_out(order, &mut dice).await
                        && let Some(id) = body["id"].as_str()
                    {
                        lock(&self.threads).push((place, id.to_owned()));
                    }
                }
                // A name that others want too.
                55..60 => {
                    let name = format!("wanted-{}", dice.random_range(0..40));
                    let mut order = order(&me, Method::POST, "/v2/accounts".to_owned(), Effect::Marked);
                    let mail = format!("{}@example.org", order.mark());
                    order.body = Some(json!({
                        "username": name, "email": mail, "password": "correct horse", "display_name": order.mark(),
                    }));
                    self.carry_out(order, &mut dice).await;
                }
                60..65 => self.send_again(&mut dice).await,
                _ => {
                    let (_, post) = self.post(twin, &mut dice);
                    let kind = *[Some("like"), Some("up"), None].choose(&mut dice).unwrap_or(&None);
                    let effect = Effect::Reaction {
                        post: post.clone(),
                        account: me.id.clone(),
                        kind: kind.map(ToOwned::to_owned),
                    };
                    let method = if kind.is_some() { Method::PUT } else { Method::DELETE };
                    let mut order = order(&me, method, format!("/v2/posts/{post}/reaction"), effect);
                    order.body = kind.map(|kind| json!({"kind": kind}));
                    self.carry_out(order, &mut dice).await;
                }
            }
        }
    }

    /// Writes without looking.
    async fn chats(&self, mut dice: ChaCha8Rng) {
        let (thread, me) = &self.chat;
        while !self.is_over() {
            let mut order = order(me, Method::POST, format!("/v2/threads/{thread}/posts"), Effect::Marked);
            order.body = Some(json!({"body": order.mark()}));
            if let Outcome::Acknowledged { position, .. } = self.carry_out(order, &mut dice).await {
                self.replied(thread, position);
            }
            tokio::time::sleep(Duration::from_millis(dice.random_range(10..60))).await;
        }
    }

    /// A command that was answered long ago: its answer must be the same.
    async fn send_again(&self, dice: &mut ChaCha8Rng) {
        let Some((order, first)) = self.history.entry(|many| dice.random_range(0..many)) else { return };
        if !matches!(first, Outcome::Acknowledged { .. }) {
            return;
        }
        let again = self.try_for(&order, Duration::from_secs(5)).await;
        if again != first && again != Outcome::Unanswered {
            self.history.note_broken(format!("{order}: first {first:?}, then {again:?}"));
        }
    }
}

fn nobody() -> Person {
    Person { id: String::new(), bearer: String::new() }
}

fn reflected(answer: &Response) -> Vec<PositionToken> {
    let header = answer.headers().get("agora-position").and_then(|value| value.to_str().ok());
    header.and_then(|header| PositionToken::parse_list(header).ok()).unwrap_or_default()
}

fn text(value: &Value) -> anyhow::Result<String> {
    Ok(value.as_str().with_context(|| format!("a string, not {value}"))?.to_owned())
}

/// A command with a key of its own.
fn order(who: &Person, method: Method, path: String, effect: Effect) -> Order {
    Order { key: Uuid::now_v7(), account: who.id.clone(), bearer: who.bearer.clone(), method, path, body: None, effect }
}

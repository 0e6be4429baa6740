//! A whole Agora in the test's process, on a database of its own, and people who use it over HTTP.
//!
//! People remember the positions that their commands answered and send them with each read, as a client would: a test
//! reads what it wrote, and never sleeps.

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use agora::{config::Config, stack};
use platform::{
    health::Health,
    http::{bind, serve},
    identity::{IdentityConfig, PasswordConfig, add_operator},
    kafka::Broker,
};
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{contract, kafka::topics_on, postgres::fresh_database, telemetry};

/// Everything of Agora, on a free port.
pub struct TestForum {
    /// `http://127.0.0.1:<port>`.
    pub url: String,
    /// The same, for a socket.
    pub address: SocketAddr,
    /// How it was set up.
    pub config: Config,
    /// Its databases: both schemas, `store` and `read`, on the search path.
    pub pool: PgPool,
    /// Where the databases are.
    pub database_url: String,
    /// The broker that it uses.
    pub broker: Broker,
    client: reqwest::Client,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl TestForum {
    /// Starts one on the in-process broker.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts one on a Kafka, with topics and a group of its own there.
    pub async fn start_on_kafka(brokers: &str) -> Self {
        Self::start_with(|config| config.kafka = topics_on(brokers)).await
    }

    /// Starts one that is set up otherwise.
    pub async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::start_on(fresh_database().await, adjust).await
    }

    /// Starts one on the database of another that has ended.
    pub async fn start_on(database_url: String, adjust: impl FnOnce(&mut Config)) -> Self {
        telemetry::start();
        let mut config = Config { identity: identity(), ..Config::default() }.with_database(&database_url);
        config.database.max_connections = 8;
        adjust(&mut config);
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let broker = Broker::start(&config.kafka).expect("a broker");
        broker.ensure_topics().await.expect("topics");
        let health = Health::new();
        let starting = Box::pin(stack::start(&config, &broker, &health, &shutdown, &tasks));
        let router = starting.await.expect("all services");
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "a free port").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tasks.spawn({
            let (http, shutdown) = (config.http.clone(), shutdown.clone());
            async move { serve(listener, router, &http, shutdown).await.expect("serves") }
        });
        let options: sqlx::postgres::PgConnectOptions = database_url.parse().expect("a URL");
        let pool = PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects");
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let url = format!("http://{address}");
        Self { url, address, config, pool, database_url, broker, client, shutdown, tasks }
    }

    /// Somebody without an account.
    pub fn guest(&self) -> Person<'_> {
        Person { forum: self, id: None, token: None, positions: Mutex::default() }
    }

    /// Registers `name` (password `correct horse`) and logs it in.
    pub async fn person(&self, name: &str) -> Person<'_> {
        let guest = self.guest();
        let account = json!({
            "username": name, "email": format!("{name}@example.org"), "password": "correct horse", "display_name": name,
        });
        let registered = guest.post("/v2/accounts", &account).await.expect(201);
        self.log_in(Person { id: Some(text(&registered["id"])), ..guest }, name).await
    }

    async fn log_in<'a>(&'a self, person: Person<'a>, name: &str) -> Person<'a> {
        let credentials = json!({"login": name, "password": "correct horse"});
        let tokens = self.guest().post("/v2/sessions", &credentials).await.expect(201);
        Person { token: Some(text(&tokens["access_token"])), ..person }
    }

    /// An operator of the platform, with an account of its own (`operator`).
    pub async fn operator(&self) -> Person<'_> {
        let registered = self.person("operator").await;
        let account = registered.id().parse().expect("an id");
        add_operator(&self.pool, account).await.expect("an operator");
        self.log_in(registered, "operator").await
    }

    /// A public community of `owner`'s with one category, `general`.
    pub async fn community(&self, owner: &Person<'_>, slug: &str) -> Community {
        self.community_with(owner, slug, &json!({})).await
    }

    /// The same, with more settings.
    pub async fn community_with(&self, owner: &Person<'_>, slug: &str, settings: &Value) -> Community {
        let mut body = json!({"slug": slug, "name": slug, "description": ""});
        for (key, value) in settings.as_object().expect("settings") {
            body[key] = value.clone();
        }
        let created = owner.post("/v2/communities", &body).await.expect(201);
        let general = json!({"slug": "general", "name": "General", "description": ""});
        let category = owner.post(&format!("/v2/communities/{slug}/categories"), &general).await.expect(201);
        Community { id: text(&created["id"]), slug: slug.to_owned(), category: text(&category["id"]) }
    }

    /// Ends it, and waits until everything has ended.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(30), self.tasks.wait()).await.expect("all of it ends");
    }
}

impl Drop for TestForum {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Hashing as cheap as it can be: these passwords guard nothing.
fn identity() -> IdentityConfig {
    IdentityConfig {
        password: PasswordConfig { memory_kib: 64, iterations: 1, ..PasswordConfig::default() },
        ..IdentityConfig::default()
    }
}

/// A community of a test's.
pub struct Community {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// Its category `general`.
    pub category: String,
}

/// Somebody who uses the forum.
pub struct Person<'a> {
    forum: &'a TestForum,
    id: Option<String>,
    token: Option<String>,
    positions: Mutex<Vec<String>>,
}

impl<'a> Person<'a> {
    /// The same person with another client, who has seen nothing yet.
    #[must_use]
    pub fn elsewhere(&self) -> Person<'a> {
        Person { forum: self.forum, id: self.id.clone(), token: self.token.clone(), positions: Mutex::default() }
    }

    /// Its account.
    pub fn id(&self) -> &str {
        self.id.as_deref().expect("a guest has no account")
    }

    /// Its access token.
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("a guest has no token")
    }

    /// Reads, having seen all that it wrote itself.
    pub async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None, &[]).await
    }

    /// Reads, having seen besides all that somebody else wrote.
    pub async fn get_after(&self, other: &Person<'_>, path: &str) -> Reply {
        self.catch_up(other);
        self.get(path).await
    }

    /// Sees from now on all that somebody else wrote so far.
    pub fn catch_up(&self, other: &Person<'_>) {
        let theirs = other.positions.lock().expect("a lock").clone();
        let mut mine = self.positions.lock().expect("a lock");
        for position in theirs {
            remember(&mut mine, position);
        }
    }

    /// `POST` of a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    /// `PUT` of a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PUT, path, Some(body), &[]).await
    }

    /// `PATCH` of a JSON body.
    pub async fn patch(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::PATCH, path, Some(body), &[]).await
    }

    /// `DELETE`, without a body.
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, None, &[]).await
    }

    /// Any request, with headers of its own. What is answered must be as the API's description has it.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Reply {
        let mut request = self.forum.client.request(method.clone(), format!("{}{path}", self.forum.url));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if method == Method::GET {
            let positions = self.positions.lock().expect("a lock").join(", ");
            if !positions.is_empty() {
                request = request.header("agora-position", positions).header("prefer", "wait=20");
            }
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        if method != Method::GET
            && let Some(position) = headers.get("agora-position")
        {
            remember(&mut self.positions.lock().expect("a lock"), position.to_str().expect("text").to_owned());
        }
        let bytes = response.bytes().await.expect("a body");
        if let Err(wrong) = contract::check(method.as_str(), path, status, &headers, &bytes) {
            panic!("{method} {path} is not answered as openapi.json has it: {wrong}");
        }
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| Value::String(lossy(&bytes)));
        Reply { status, headers, body, bytes: bytes.to_vec(), what: format!("{method} {path}") }
    }

    /// The same person with another access token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Person<'a> {
        Person { token: Some(token.to_owned()), ..self.elsewhere() }
    }

    /// Sends it, and expects to be refused so; answers the problem. `null` is no body.
    pub async fn refused(&self, method: Method, path: &str, body: Value, problem: (u16, &str)) -> Value {
        let body = (!body.is_null()).then_some(&body);
        self.send(method, path, body, &[]).await.expect_problem(problem.0, problem.1)
    }

    /// Starts a thread; its id and its opening post's.
    pub async fn thread(&self, community: &Community, title: &str) -> (String, String) {
        let body = json!({"title": title, "body": format!("{title}, says I."), "category_id": community.category});
        let started = self.post(&format!("/v2/communities/{}/threads", community.slug), &body).await.expect(201);
        (text(&started["id"]), text(&started["opening_post_id"]))
    }

    /// Replies to a thread; the post's id.
    pub async fn reply(&self, thread: &str, body: &str) -> String {
        let written = self.post(&format!("/v2/threads/{thread}/posts"), &json!({"body": body})).await.expect(201);
        text(&written["id"])
    }
}

/// One position of each shard is enough: the newest.
fn remember(positions: &mut Vec<String>, position: String) {
    let shard = |position: &str| position.rsplit_once('.').map(|(shard, _)| shard.to_owned());
    let number = |position: &str| position.rsplit_once('.').and_then(|(_, n)| n.parse::<i64>().ok());
    match positions.iter_mut().find(|known| shard(known) == shard(&position)) {
        Some(known) if number(known) < number(&position) => *known = position,
        Some(_) => {}
        None => positions.push(position),
    }
}

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, as JSON where it is; else as a string.
    pub body: Value,
    /// The body as it came.
    pub bytes: Vec<u8>,
    what: String,
}

impl Reply {
    /// The body of an answer with that status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}: {}", self.what, self.body);
        self.body
    }

    /// Its status only.
    #[track_caller]
    pub fn expect_status(self, status: u16) {
        self.expect(status);
    }

    /// That it is a problem of that status and kind (RFC 9457); answers it.
    #[track_caller]
    pub fn expect_problem(self, status: u16, name: &str) -> Value {
        assert_eq!((self.status, &self.body["type"]), (status, &json!(format!("/problems/{name}"))), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        self.body
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// A JSON string's text.
#[track_caller]
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

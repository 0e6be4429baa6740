//! A client of the command endpoints, for work that sends a great many: it keeps connections open, sends each command
//! under its idempotency key, and sends it again while the server is away, overloaded or starting anew. So whatever
//! is interrupted, on either side, may simply be run again.

pub mod command;
pub mod lanes;
pub mod tally;
pub mod token;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use chrono::SecondsFormat;
use events::{PositionToken, Shard};
use platform::config::Secret;
use reqwest::{RequestBuilder, Response, StatusCode, header};
use serde::Deserialize;

use self::{command::Command, tally::Tally, token::Token};

/// Commands in flight at once: enough for the server to commit them in groups.
pub const LANES: usize = 64;

/// How long one request may take before it is sent again.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long the server may be away, at most, before the client gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a server may be away without a word.
const SAY_AFTER: Duration = Duration::from_secs(3);

/// How long to wait before a second try; doubled with each more, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long one read may wait for the read tables, as the server is asked.
const READ_WAIT: Duration = Duration::from_secs(10);

/// How often a failure on the server's side (500) is tried again before the row is given up: it may be one command
/// that it fails on, and the rest goes on.
const FAILURES: u32 = 3;

/// See the module.
pub struct Client {
    http: reqwest::Client,
    server: String,
    /// Where reads are answered, where that is another one.
    reads: String,
    token: Token,
    /// What was sent, and what became of it.
    pub tally: Tally,
    /// The last position that was answered, of each shard.
    positions: Mutex<HashMap<Shard, PositionToken>>,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect, now.
    Written,
    /// It had taken effect before, or would change nothing.
    AlreadyThere,
    /// The server understood and refused.
    Refused(Refusal),
}

/// A refusal, as the server says it (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// The last part of the problem's `type`; empty where the answer was no problem.
    pub name: String,
    /// The part of the command that is to blame (`#/username`), where one is; the first of several.
    pub pointer: String,
    /// In words.
    pub detail: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ProblemBody {
    r#type: String,
    detail: String,
    errors: Vec<ErrorBody>,
}

#[derive(Deserialize)]
struct ErrorBody {
    pointer: String,
    detail: String,
}

impl Client {
    /// A client of the server at `server` (`http://host:port`, or that with the API's `/v2`), with an operator's token.
    /// Reads go to `reads`, where that is another one.
    ///
    /// # Errors
    /// Where one of them is no address.
    pub fn new(server: &str, reads: Option<&str>, token: Token) -> anyhow::Result<Self> {
        let (url, reads) = (address(server)?, address(reads.unwrap_or(server))?);
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("agora/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .pool_max_idle_per_host(LANES)
            .timeout(TIMEOUT);
        // A proxy is for the way out of this machine.
        if matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]")) {
            http = http.no_proxy();
        }
        Ok(Self {
            http: http.build()?,
            server: base(&url),
            reads: base(&reads),
            token,
            tally: Tally::default(),
            positions: Mutex::default(),
        })
    }

    /// Whether somebody answers there at all, reads too: what was mistyped shows at once, before anything is written,
    /// and is not waited for.
    ///
    /// # Errors
    /// Where nobody does, or reads are to go to a command-service alone.
    pub async fn knock(&self) -> anyhow::Result<()> {
        self.status(&self.server, "/health/live").await?;
        let status = self.status(&self.reads, "/v2/communities?limit=1").await?;
        // A command-service knows the path, for who makes one.
        ensure!(
            status != StatusCode::METHOD_NOT_ALLOWED,
            "{} takes commands only: say with --read-server where the query-service is",
            self.reads
        );
        Ok(())
    }

    async fn status(&self, server: &str, path: &str) -> anyhow::Result<StatusCode> {
        let answer = self.http.get(format!("{server}{path}")).send().await;
        Ok(answer.map_err(|error| anyhow!("{server} does not answer: {}", cause(&error)))?.status())
    }

    /// Where reads are answered, without a slash at the end.
    pub fn reads(&self) -> &str {
        &self.reads
    }

    /// Sends a command until it is answered, and counts the answer.
    ///
    /// # Errors
    /// Where it makes no sense to go on: nobody answered for two minutes, or the token is not accepted.
    pub async fn send(&self, command: &Command) -> anyhow::Result<Outcome> {
        let outcome = self.send_uncounted(command).await?;
        self.tally.count(command.kind, &outcome);
        Ok(outcome)
    }

    /// As [`Self::send`], for what may be tried again in another way: the last way is to be counted.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_uncounted(&self, command: &Command) -> anyhow::Result<Outcome> {
        let body = (!command.body.is_null()).then(|| command.body.to_string());
        let mut pauses = Pauses::new();
        let mut failures = 0;
        let mut renewed = false;
        loop {
            let (response, token) = match self.try_send(self.request(command, body.clone())).await {
                Ok(sent) => sent,
                Err(reason) => {
                    pauses.wait(None, &reason).await?;
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() {
                self.remember_position(&response);
                return Ok(if changed_nothing(&response) { Outcome::AlreadyThere } else { Outcome::Written });
            }
            let retry_after = retry_after(&response);
            let refusal = refusal(response).await;
            match status {
                StatusCode::UNAUTHORIZED if !renewed && self.token.renew(&token).await => renewed = true,
                StatusCode::UNAUTHORIZED => {
                    bail!(
                        "{} does not accept the token: {} With a fresh one, the same command goes on where it was",
                        self.server,
                        refusal.detail
                    );
                }
                StatusCode::INTERNAL_SERVER_ERROR if failures < FAILURES => {
                    failures += 1;
                    pauses.wait(retry_after, &refusal.detail).await?;
                }
                status if is_passing(status) => pauses.wait(retry_after, &refusal.detail).await?,
                _ if command.says_it_is_there(&refusal) => return Ok(Outcome::AlreadyThere),
                _ if self.is_there(command).await? => return Ok(Outcome::AlreadyThere),
                _ => return Ok(Outcome::Refused(refusal)),
            }
        }
    }

    /// Whether the post that a refused command would make was made before: what happened since (its thread was locked,
    /// what it answers was deleted) may be what the refusal is about, once the receipt has expired.
    async fn is_there(&self, command: &Command) -> anyhow::Result<bool> {
        match command.makes() {
            Some(path) => Ok(self.read(&path).await?.is_some()),
            None => Ok(false),
        }
    }

    /// One try; why there was no answer, where there was none.
    async fn try_send(&self, request: RequestBuilder) -> Result<(Response, Secret), String> {
        let token = self.token.current().await.map_err(|error| format!("no token can be made: {error:#}"))?;
        match request.bearer_auth(token.expose()).send().await {
            Ok(response) => Ok((response, token)),
            Err(error) => {
                let server = error.url().map_or_else(|| self.server.clone(), |url| url.origin().ascii_serialization());
                Err(format!("{server} does not answer: {}", cause(&error)))
            }
        }
    }

    fn request(&self, command: &Command, body: Option<String>) -> RequestBuilder {
        let mut request = self
            .http
            .request(command.method.clone(), format!("{}{}", self.server, command.path))
            .header("Idempotency-Key", &command.key)
            .header("Agora-Occurred-At", command.occurred_at.to_rfc3339_opts(SecondsFormat::Millis, true));
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body);
        }
        if let Some(behalf) = command.on_behalf_of {
            request = request.header("Agora-On-Behalf-Of", behalf.to_string());
        }
        request
    }

    fn remember_position(&self, response: &Response) {
        let token = response.headers().get("Agora-Position").and_then(|value| value.to_str().ok());
        let Some(token) = token.and_then(|token| token.parse::<PositionToken>().ok()) else { return };
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        let last = positions.entry(token.shard).or_insert(token);
        if last.history != token.history || last.position < token.position {
            *last = token;
        }
    }

    /// Waits until each of these reads shows all that was written, and says how long that took.
    ///
    /// # Errors
    /// Where the read tables do not catch up within two minutes.
    pub async fn wait_for_reads(&self, paths: &[String]) -> anyhow::Result<Duration> {
        let started = Instant::now();
        for path in paths {
            self.read(path).await?;
        }
        Ok(started.elapsed())
    }

    /// Reads, as fresh as what was written; the body. Nothing where there is no such thing.
    ///
    /// # Errors
    /// Where the read tables do not catch up within two minutes, or the server refuses.
    pub async fn read(&self, path: &str) -> anyhow::Result<Option<serde_json::Value>> {
        let positions = {
            let positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
            positions.values().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        let mut pauses = Pauses::new();
        loop {
            let mut request = self.http.get(format!("{}{path}", self.reads));
            if !positions.is_empty() {
                request = request.header("Agora-Position", &positions);
                request = request.header("Prefer", format!("wait={}", READ_WAIT.as_secs()));
            }
            let (response, token) = match self.try_send(request).await {
                Ok(sent) => sent,
                Err(reason) => {
                    pauses.wait(None, &reason).await?;
                    continue;
                }
            };
            let status = response.status();
            if status.is_success() {
                return Ok(Some(response.json().await.with_context(|| format!("{path} answered what is no JSON"))?));
            }
            if status == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let retry_after = retry_after(&response);
            let refusal = refusal(response).await;
            let renewed = status == StatusCode::UNAUTHORIZED && self.token.renew(&token).await;
            if !renewed && !is_passing(status) {
                bail!("GET {path} was refused: {refusal}");
            }
            pauses.wait(retry_after, &refusal.detail).await?;
        }
    }
}

/// Whether nobody else in the process has said so just now: all lanes wait for the same server.
fn say_now() -> bool {
    static SAID: Mutex<Option<Instant>> = Mutex::new(None);
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let now = said.is_none_or(|at| at.elapsed() > PATIENCE / 4);
    if now {
        *said = Some(Instant::now());
    }
    now
}

/// The waits between tries: longer and longer, and bounded as a whole.
struct Pauses {
    started: Instant,
    next: Duration,
    said: bool,
}

impl Pauses {
    fn new() -> Self {
        Self { started: Instant::now(), next: FIRST_PAUSE, said: false }
    }

    async fn wait(&mut self, at_least: Option<Duration>, reason: &str) -> anyhow::Result<()> {
        if self.started.elapsed() > PATIENCE {
            bail!("gave up after {} s: {reason}", PATIENCE.as_secs());
        }
        if !self.said && self.started.elapsed() > SAY_AFTER && say_now() {
            self.said = true;
            eprintln!("waiting for the server, for {} s at most: {reason}", PATIENCE.as_secs());
        }
        // Spread out, so that lanes that were refused together do not come back together.
        let spread = rand::random_range(0.5..1.5);
        tokio::time::sleep(self.next.mul_f64(spread).max(at_least.unwrap_or_default().min(LONGEST_PAUSE))).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.name, self.detail)
    }
}

/// Worth another try: the server, or what stands before it, is overloaded or starting.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 502 | 503 | 504)
}

fn changed_nothing(response: &Response) -> bool {
    let says = |name: &str| response.headers().get(name).is_some_and(|value| value == "true");
    says("Idempotency-Replayed") || says("Agora-Unchanged")
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn refusal(response: Response) -> Refusal {
    let status = response.status();
    let body = response.bytes().await.unwrap_or_default();
    let problem: ProblemBody = serde_json::from_slice(&body).unwrap_or_default();
    let mut detail = problem.detail;
    let pointer = problem.errors.first().map(|error| error.pointer.clone()).unwrap_or_default();
    for error in problem.errors {
        detail = format!("{detail} ({}: {})", error.pointer, error.detail);
    }
    let name = problem.r#type.rsplit('/').next().unwrap_or_default().to_owned();
    Refusal { status, name, pointer, detail }
}

fn address(server: &str) -> anyhow::Result<reqwest::Url> {
    let url = reqwest::Url::parse(server).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.with_context(|| format!("`{server}` is not the address of a server: say http://host:port"))
}

/// As paths are appended to it. The API's own `/v2`, as documents show it, is in each path already.
fn base(url: &reqwest::Url) -> String {
    let url = url.as_str().trim_end_matches('/');
    url.strip_suffix("/v2").unwrap_or(url).trim_end_matches('/').to_owned()
}

/// What is at the bottom of an error of reqwest, whose own words only repeat the address.
fn cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;

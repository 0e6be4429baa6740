//! What a use case is to the store, and what comes of carrying it out.

use std::{future::ready, time::Duration};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use events::{AccountId, PositionToken};
use platform::problem::Problem;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{
    Append, Receipt, Store, StoreError, Verdict, Work,
    append::Replay,
    turns::{Concerns, Turn},
    work::Seen,
};

/// How long an operation is attempted anew on state that others change meanwhile: longer than any queue that moves,
/// shorter than clients wait.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest wait between two attempts where it is another process that changes it.
const BACKOFF: Duration = Duration::from_millis(50);

/// Names how far a reader must have come to see what was written.
pub const AGORA_POSITION: HeaderName = HeaderName::from_static("agora-position");
/// Says that an answer was given before, under the same key.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Says that everything was so already: the command stands, and nothing was written.
const AGORA_UNCHANGED: HeaderName = HeaderName::from_static("agora-unchanged");

/// One use case. It may be attempted several times: each attempt reads through `work`, decides, and leaves there what
/// is to be appended.
pub trait Operation: Send + Sync {
    /// Why it may be refused.
    type Refusal: Into<Problem> + Send + 'static;

    /// Reads and decides; nothing is written before the store took the whole of it.
    fn attempt(&self, work: &mut Work<'_>) -> impl Future<Output = Result<Answer, Stop<Self::Refusal>>> + Send;

    /// Which refusal it is where somebody else holds a unique value of that kind.
    fn taken(&self, kind: &str) -> Self::Refusal;

    /// Whether a request under a used key says the same in what its fingerprint leaves out; `answer` is the body that was
    /// answered.
    fn repeats(&self, _answer: &Value) -> impl Future<Output = Result<bool, Problem>> + Send {
        ready(Ok(true))
    }

    /// Where that which it created is found; from the answer's body, as that is all a repeated answer has.
    fn location(&self, _body: &Value) -> Option<String> {
        None
    }
}

/// Why an attempt ends without an answer.
#[derive(Debug)]
pub enum Stop<R> {
    /// A rule forbids it.
    Refused(R),
    /// The client's `If-Match` names another version.
    VersionMismatch {
        /// The version it is at.
        version: i64,
    },
    /// The store could not be read.
    Store(StoreError),
}

impl<R> Stop<R> {
    /// The same, with another kind of refusal.
    pub fn map<S>(self, refusal: impl FnOnce(R) -> S) -> Stop<S> {
        match self {
            Self::Refused(reason) => Stop::Refused(refusal(reason)),
            Self::VersionMismatch { version } => Stop::VersionMismatch { version },
            Self::Store(error) => Stop::Store(error),
        }
    }
}

impl<R> From<StoreError> for Stop<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What a use case answers when it stands.
#[derive(Debug)]
pub struct Answer {
    /// 200, 201 or 202.
    pub status: StatusCode,
    /// Never a secret: it is kept in the receipt. Its `version` is the `ETag`.
    pub body: Value,
}

/// The key under which a command may be sent again.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Whose key it is: an account's, or a guest's.
    pub owner: Uuid,
    /// The key.
    pub key: String,
    /// The first half of a SHA-256 of all that the request says.
    pub fingerprint: [u8; 16],
}

/// What a client asked with, besides the body.
#[derive(Clone, Debug)]
pub struct Request {
    /// The account that acts; none for a guest, an operator in a deleted account's place, or a job.
    pub actor: Option<AccountId>,
    /// Whether an operator of the platform acts.
    pub operator: bool,
    /// Now, for all rules that ask.
    pub now: DateTime<Utc>,
    /// When it happened, where an operator says that it was not now.
    pub occurred_at: Option<DateTime<Utc>>,
    /// The trace it belongs to (W3C Trace Context).
    pub traceparent: Option<String>,
    /// The request's id.
    pub correlation_id: Uuid,
    /// The event that made it necessary, where that is what asks.
    pub causation_id: Option<Uuid>,
    /// The version named in `If-Match`.
    pub if_match: Option<i64>,
    /// The idempotency key.
    pub idempotency: Option<Idempotency>,
}

impl Request {
    fn receipt(&self, answer: Option<(u16, String)>) -> Option<Receipt> {
        let Idempotency { owner, key, fingerprint } = self.idempotency.clone()?;
        Some(Receipt { owner, key, fingerprint, answer })
    }
}

/// An answer on its way out, given now or repeated.
#[derive(Debug)]
pub(crate) struct Settled {
    status: StatusCode,
    body: String,
    position: PositionToken,
    /// Whether it was given before, under the same key.
    pub(crate) replayed: bool,
    /// Whether everything was so already, and nothing was written.
    pub(crate) unchanged: bool,
}

/// What one attempt came to: an end, or the advice to try again, with all that it concerned.
enum Attempt {
    Settled(Settled),
    Moved(Concerns),
}

impl Store {
    /// Carries out a use case: attempts it until it stands on versions that are current, for five seconds at most. From
    /// the second attempt on it has its [turn](super::turns), so that only another process can come in between.
    ///
    /// A 2xx is on disk. A refusal was confirmed against the store, so that it is never one of a past that others
    /// have changed. Under an idempotency key, the first 2xx is answered again.
    pub async fn execute<O: Operation>(&self, request: Request, operation: &O) -> Response {
        match self.settle(request, operation).await {
            Ok(settled) => settled.respond(operation),
            Err(problem) => problem.into_response(),
        }
    }

    /// As [`Self::execute`], for who is no client of the API.
    pub(crate) async fn settle<O: Operation>(&self, request: Request, operation: &O) -> Result<Settled, Problem> {
        let deadline = Instant::now() + PATIENCE;
        let mut backoff = Duration::from_millis(1);
        let mut turn: Option<Turn<'_>> = None;
        loop {
            let concerns = match self.attempt(&request, operation, turn.as_ref()).await? {
                Attempt::Settled(settled) => return Ok(settled),
                Attempt::Moved(concerns) => concerns,
            };
            if turn.as_ref().is_some_and(|turn| turn.covers(&concerns)) {
                sleep(backoff.mul_f64(rand::random())).await;
                backoff = BACKOFF.min(backoff * 2);
            } else {
                // Given back first: with one in hand, taking another might wait for somebody who waits for this one.
                drop(turn.take());
                turn = timeout_at(deadline, self.turns.take(concerns)).await.ok();
            }
            if turn.is_none() || Instant::now() > deadline {
                return Err(StoreError::Contended.into());
            }
        }
    }

    async fn attempt<O: Operation>(
        &self,
        request: &Request,
        operation: &O,
        turn: Option<&Turn<'_>>,
    ) -> Result<Attempt, Problem> {
        let mut work = Work::new(self, request, turn.is_some());
        let attempted = operation.attempt(&mut work).await;
        let refusal = match attempted.and_then(|answer| work.require_new().map(|()| answer)) {
            Ok(answer) => return self.append_decision(work, request, operation, answer, turn).await,
            Err(Stop::Store(error)) => return Err(error.into()),
            Err(Stop::Refused(refusal)) => refusal.into(),
            Err(Stop::VersionMismatch { version }) => version_mismatch(version),
        };
        self.confirm_refusal(work, request, operation, refusal).await
    }

    async fn append_decision<O: Operation>(
        &self,
        work: Work<'_>,
        request: &Request,
        operation: &O,
        answer: Answer,
        turn: Option<&Turn<'_>>,
    ) -> Result<Attempt, Problem> {
        let body = answer.body.to_string();
        let (append, seen) = work.into_append(request.receipt(Some((answer.status.as_u16(), body.clone()))))?;
        if self.turns.are_others_on(append.events.iter().map(|event| &event.stream), turn) {
            return Ok(Attempt::Moved(seen.concerns()));
        }
        let (shard, unchanged) = (append.shard, append.events.is_empty());
        match self.appender.append(append).await? {
            Verdict::Appended { history, position, .. } => {
                seen.news().for_each(|(stream, read, after)| self.loader.grown(stream, read, after));
                let position = PositionToken { history, shard, position };
                Ok(Attempt::Settled(Settled { status: answer.status, body, position, replayed: false, unchanged }))
            }
            Verdict::Replayed(replay) => Settled::again(request, operation, replay).await.map(Attempt::Settled),
            Verdict::Moved { stream, .. } => Ok(self.moved(seen, &stream)),
            Verdict::Claimed { kind } => Err(operation.taken(&kind).into()),
            Verdict::Rejected(reason) => Err(StoreError::Rejected(reason).into()),
        }
    }

    /// A refusal rests on what was read, perhaps from a cache: it stands only where that is still so. Where the key
    /// was answered before, that answer comes first: what was created under it is no duplicate of itself.
    async fn confirm_refusal<O: Operation>(
        &self,
        work: Work<'_>,
        request: &Request,
        operation: &O,
        refusal: Problem,
    ) -> Result<Attempt, Problem> {
        let (confirmation, seen) = work.into_confirmation(request.receipt(None));
        if confirmation.checks.is_empty() && confirmation.receipt.is_none() {
            return Err(refusal);
        }
        match self.appender.append(confirmation).await? {
            Verdict::Appended { .. } => Err(refusal),
            Verdict::Replayed(replay) => Settled::again(request, operation, replay).await.map(Attempt::Settled),
            Verdict::Moved { stream, .. } => Ok(self.moved(seen, &stream)),
            Verdict::Claimed { kind } => Err(StoreError::Rejected(kind).into()),
            Verdict::Rejected(reason) => Err(StoreError::Rejected(reason).into()),
        }
    }

    fn moved(&self, seen: Seen, stream: &str) -> Attempt {
        if let Some((stream, version)) = seen.named(stream) {
            self.loader.forget(stream, version);
        }
        Attempt::Moved(seen.concerns())
    }

    /// Appends what was decided elsewhere: for `cqrs-es`.
    ///
    /// # Errors
    /// [`StoreError`] where the store could not take it; what it decided against is a [`Verdict`].
    pub async fn append(&self, append: Append) -> Result<Verdict, StoreError> {
        self.appender.append(append).await
    }
}

impl Settled {
    async fn again<O: Operation>(request: &Request, operation: &O, replay: Replay) -> Result<Self, Problem> {
        let Replay { history, shard, position, fingerprint, status, answer, unchanged } = replay;
        let same = request.idempotency.as_ref().is_none_or(|it| it.fingerprint == *fingerprint);
        if !same || !operation.repeats(&serde_json::from_str(&answer).unwrap_or_default()).await? {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "This Idempotency-Key was used for another request. Take a new key for a new command.",
            ));
        }
        let position = PositionToken { history, shard, position };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        Ok(Self { status, body: answer, position, replayed: true, unchanged })
    }

    fn respond<O: Operation>(self, operation: &O) -> Response {
        let mut response = (self.status, self.body.clone()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut insert = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        insert(AGORA_POSITION, self.position.to_string());
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        if let Some(version) = body.get("version").and_then(Value::as_i64) {
            insert(header::ETAG, format!("\"{version}\""));
        }
        if self.status == StatusCode::CREATED
            && let Some(location) = operation.location(&body)
        {
            insert(header::LOCATION, location);
        }
        if self.replayed {
            insert(IDEMPOTENCY_REPLAYED, "true".to_owned());
        }
        if self.unchanged {
            insert(AGORA_UNCHANGED, "true".to_owned());
        }
        response
    }
}

fn version_mismatch(version: i64) -> Problem {
    let detail = format!("If-Match names another version: it is at {version} now.");
    Problem::new(StatusCode::PRECONDITION_FAILED, "version-mismatch", detail)
        .with_header(header::ETAG, HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes"))
}

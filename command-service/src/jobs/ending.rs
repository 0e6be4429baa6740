//! Bans, silences and pins whose end has come: a command for each, as anybody's, that names the event which it ends.
//!
//! Decisions need none of it, as they ask what is over at their moment. It states the fact, for all who read events and
//! the tables made of them.

use chrono::{DateTime, SecondsFormat, Utc};
use events::{AccountId, CommunityId, EventId, Stream};
use futures::{StreamExt as _, stream};
use platform::{problem::Problem, telemetry};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::Outcome;
use crate::{
    Refusal,
    access::Over,
    answer::done,
    membership::{EndBan, EndSilence, Membership},
    store::{Answer, Idempotency, Operation, Request, Stop, Store, Work},
    thread::{EndPin, Ground, Thread},
};

/// What is due read in one statement.
const BATCH: i64 = 500;
/// Commands under way at once: they share flushes, of which they are a small part, so that others' have their place.
const AT_ONCE: usize = 64;
/// Of all of them, those that read at once: the process has 16 connections unless it is told otherwise, and others need
/// theirs.
static READERS: Semaphore = Semaphore::const_new(4);
/// Whose idempotency keys these are: the platform's own. No account has this id, and no guest's name comes to it.
const PLATFORM: Uuid = Uuid::max();

/// What ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ban,
    Silence,
    Pin,
}

/// One of them that has come to its end.
#[derive(Clone, Debug)]
struct Ending {
    kind: Kind,
    stream: Stream,
    community: CommunityId,
    /// What began it.
    event: EventId,
    over: Over,
}

impl Kind {
    /// As the table has it.
    const fn name(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::Silence => "silence",
            Self::Pin => "pin",
        }
    }

    fn stream(self, id: String) -> Stream {
        let aggregate = match self {
            Self::Ban | Self::Silence => "membership",
            Self::Pin => "thread",
        };
        Stream { aggregate: aggregate.to_owned(), id }
    }
}

/// Ends all of a kind whose end has come at `now`. One that cannot be ended keeps no other from it, and is tried again in
/// the next run.
pub(super) async fn end_all(store: &Store, kind: Kind, now: DateTime<Utc>) -> Outcome {
    let run = Uuid::now_v7();
    let mut outcome = Outcome::default();
    let mut failures = 0_u64;
    let mut after = (DateTime::UNIX_EPOCH, Uuid::nil());
    loop {
        let due = match due(store.pool(), kind, now, after).await {
            Ok(due) => due,
            Err(error) => return Outcome { failure: Some(error.to_string()), ..outcome },
        };
        let Some(last) = due.last() else { break };
        after = (last.over.end(), last.event.0);
        let ended = stream::iter(due).map(|ending| async move { end(store, &ending, run, now).await });
        let before = (outcome.done, failures);
        for ended in ended.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await {
            match ended {
                Ok(changed) => outcome.done += u64::from(changed),
                Err(failure) => {
                    failures += 1;
                    outcome.failure.get_or_insert(failure);
                }
            }
        }
        let in_vain = outcome.done == before.0 && failures > before.1;
        if in_vain {
            break;
        }
    }
    if let Some(first) = &mut outcome.failure {
        *first = format!("{failures} not ended, the first because of {first}");
    }
    outcome
}

/// The next that are due, in order of their end.
async fn due(
    pool: &PgPool,
    kind: Kind,
    now: DateTime<Utc>,
    (ended_at, event): (DateTime<Utc>, Uuid),
) -> sqlx::Result<Vec<Ending>> {
    let rows = sqlx::query!(
        "select aggregate_id, community_id, event_id, ends_at from endings
        where kind = $1 and ends_at <= $2 and (ends_at, event_id) > ($3, $4)
        order by ends_at, event_id limit $5",
        kind.name(),
        now,
        ended_at,
        event,
        BATCH,
    );
    let rows = rows.fetch_all(pool).await?.into_iter();
    let ending = rows.filter_map(|row| {
        let over = Over::at(row.ends_at, now)?;
        let (community, event) = (CommunityId(row.community_id), EventId(row.event_id));
        Some(Ending { kind, stream: kind.stream(row.aggregate_id), community, event, over })
    });
    Ok(ending.collect())
}

/// Whether it stood, and is ended now and by this.
///
/// # Errors
/// Why it was not ended, in words, with its stream.
async fn end(store: &Store, ending: &Ending, run: Uuid, now: DateTime<Utc>) -> Result<bool, String> {
    let failed = |problem: Problem| format!("{} ({})", ending.stream, problem.cause().unwrap_or(problem.detail()));
    let settled = store.settle(ending.request(run, now), ending).await.map_err(failed)?;
    Ok(!settled.unchanged && !settled.replayed)
}

impl Ending {
    /// By nobody: the platform itself. Under a key made of what it ends, and when that was due.
    fn request(&self, run: Uuid, now: DateTime<Utc>) -> Request {
        let due = self.over.end().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let key = format!("end-{}/{due}/{}", self.kind.name(), self.event);
        Request {
            actor: None,
            operator: false,
            now,
            occurred_at: None,
            traceparent: telemetry::current_traceparent(),
            correlation_id: run,
            causation_id: Some(self.event.0),
            if_match: None,
            // The event's id says all that the request says.
            idempotency: Some(Idempotency { owner: PLATFORM, key, fingerprint: *self.event.0.as_bytes() }),
        }
    }

    /// Whose membership it is.
    fn account(&self) -> Option<AccountId> {
        self.stream.id.split_once('.')?.1.parse().ok()
    }

    /// The version that it leaves the stream at.
    async fn attempt_on(&self, work: &mut Work<'_>) -> Result<i64, Stop<Refusal>> {
        let Self { kind, stream, over, .. } = self;
        // Nobody closes it. It is held while something is read, and not while the append is waited for.
        let reader = READERS.acquire().await.ok();
        // Loaded first: what began it is asked for under the version that guards the answer.
        let version = match kind {
            Kind::Ban | Kind::Silence => work.load::<Membership>(stream).await?.version,
            Kind::Pin => work.load::<Thread>(stream).await?.version,
        };
        let stands = work.begun_by(kind.name(), stream).await? == Some(self.event);
        drop(reader);
        let over = *over;
        Ok(match (kind, self.account()) {
            _ if !stands => version,
            (Kind::Ban, Some(account)) => {
                work.handle::<Membership>(stream, EndBan { over }.into(), &account).await?.version
            }
            (Kind::Silence, Some(account)) => {
                work.handle::<Membership>(stream, EndSilence { over }.into(), &account).await?.version
            }
            (Kind::Pin, _) => work.handle::<Thread>(stream, EndPin { over }.into(), &Ground::default()).await?.version,
            // No membership is called so.
            (Kind::Ban | Kind::Silence, None) => version,
        })
    }
}

/// What its receipt remembers.
#[derive(Serialize)]
struct Ended {
    id: String,
    version: i64,
}

impl Operation for Ending {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        work.in_community(self.community);
        let version = self.attempt_on(work).await?;
        Ok(done(&Ended { id: self.stream.id.clone(), version }))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

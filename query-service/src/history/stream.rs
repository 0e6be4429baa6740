//! A stream of the history, as Server-Sent Events (WHATWG HTML, 9.2): what is behind its client is read from the store,
//! then it follows the [tail](super::tail).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse as _, Response, Sse, sse::Event},
};
use chrono::{TimeDelta, Utc};
use events::{AccountId, Delivered, Envelope, HistoryId, Position, PositionToken, Shard};
use futures::stream::unfold;
use platform::{
    http::Stopping,
    problem::{FieldError, Problem},
};
use serde_json::json;
use store_reader::{Filter, Most, Side, StoreReader, Unreadable};
use tokio::{
    sync::{
        broadcast::{Receiver, error::RecvError},
        mpsc,
    },
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{History, seats::Seat, tail::Batch, told};
use crate::{
    freshness::history_lost,
    listing,
    reading::ReadSide,
    visibility::{Admission, InHistory},
};

/// Where a client goes on.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies of nginx's kind to hand on what comes as it comes.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
/// How long a client is to wait before it connects again.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// The same after a problem, which a person has to see to.
const RETRY_PROBLEM_AFTER: Duration = Duration::from_secs(60);
/// How long is waited for the read tables to show an event that changes what the reader is: below the silence that
/// proxies bear, [`KEEP_ALIVE`].
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// How long the last word may take to be taken.
const LAST_WORD: Duration = Duration::from_millis(100);
/// After which silence something is said: proxies cut what is silent for a minute, some for half of one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether the reader still may: who may not any more gets nothing that comes later.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long a client may take to take one event.
const STALLED: Duration = Duration::from_secs(30);
/// How long to wait where the store, or the read tables, do not answer.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Events that wait for the client, besides those that its connection holds.
const WAITING: usize = 1;
/// What is read from the store at once.
const MOST: Most = Most { events: 100, bytes: 256 * 1024 };

/// What was recorded within this may be later than what was known when it was last looked whether the reader may: read
/// tables may be behind, too.
const LATELY: TimeDelta = TimeDelta::minutes(1);

/// Answers with a stream.
pub(super) async fn open(
    side: &ReadSide,
    at: InHistory,
    headers: &HeaderMap,
    stopping: Stopping,
) -> Result<Response, Problem> {
    let InHistory { asked, community, reader, admission, .. } = at;
    listing::does_not_apply(
        [("?to", asked.to.is_some()), ("?limit", asked.limit.is_some()), ("?cursor", asked.cursor.is_some())]
            .into_iter()
            .filter_map(|(pointer, given)| given.then_some((pointer, "does not go with a stream"))),
    )?;
    let last = last_event_id(headers)?;
    let store = side.history.store().await?.clone();
    let seat = side.history.seats.take(reader, community.is_none())?;
    // Before the store is asked: what comes in between is heard.
    let tail = side.history.tail.listen();
    let part = asked.look_up(&store, community).await?;
    let position = match last {
        Some((line, position)) if line == part.line && position <= part.head => position,
        Some(_) => return Err(history_lost("Last-Event-ID")),
        None if asked.from.is_some() || asked.since.is_some() => part.after,
        None => part.head,
    };
    let (out, events) = mpsc::channel(WAITING);
    let now = Instant::now();
    let stream = Stream {
        side: side.clone(),
        store,
        reader,
        admission,
        filter: part.filter,
        line: part.line,
        position,
        behind: true,
        tail,
        out,
        checked: now,
        said: now,
        _seat: seat,
    };
    side.history.tasks.spawn(stream.run(stopping));
    let events =
        unfold(events, async |mut events| events.recv().await.map(|event| (Ok::<_, Infallible>(event), events)));
    Ok(([UNBUFFERED], Sse::new(events)).into_response())
}

/// What an `id` of ours says.
fn last_event_id(headers: &HeaderMap) -> Result<Option<(HistoryId, Position)>, Problem> {
    // An empty one says nothing (WHATWG HTML, 9.2.2).
    let Some(value) = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parse = || {
        let (line, position) = value.to_str().ok()?.split_once('.')?;
        let position = position.parse().ok().filter(|position: &Position| *position >= 0)?;
        Some((line.parse().ok()?, position))
    };
    parse().map(Some).ok_or_else(|| {
        let words = "This is no id of a stream's event: send back the last one that you received.";
        let error = FieldError::new(LAST_EVENT_ID.as_str(), "malformed_id", words);
        Problem::new(StatusCode::BAD_REQUEST, "malformed-request", words).with_errors(vec![error])
    })
}

struct Stream {
    side: ReadSide,
    store: StoreReader,
    reader: AccountId,
    admission: Admission,
    filter: Filter,
    line: HistoryId,
    /// What is up to here was sent, or not let through.
    position: Position,
    /// Whether the store has more than what the tail will tell.
    behind: bool,
    tail: Receiver<Arc<Batch>>,
    out: mpsc::Sender<Event>,
    /// When it was last looked whether the reader may.
    checked: Instant,
    /// When something was last sent.
    said: Instant,
    _seat: Seat,
}

/// Why a stream ends before its client does.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the reader may not read it any more: {0}")]
    Refused(Problem),
    #[error("the event store was restored or replaced")]
    Lost,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("what the reader may read has changed")]
    Changed,
    #[error("the client takes nothing")]
    Stalled,
    #[error("the server stops")]
    Stopped,
    #[error("{0}")]
    Failed(sqlx::Error),
}

impl Ended {
    /// The last event of the stream: the problem that a new request would be answered, or that it may connect again.
    fn said(self, history: &History) -> Event {
        let problem = match self {
            Self::Refused(problem) => problem,
            Self::Lost => history_lost("the id of the last event"),
            Self::Unreadable(event) => history.unreadable_here(&event),
            Self::Changed | Self::Stalled | Self::Stopped | Self::Failed(_) => {
                return Event::default().comment("ended: connect again");
            }
        };
        let body = json!({"type": format!("/problems/{}", problem.name()), "status": problem.status().as_u16(),
            "detail": problem.detail()});
        // It will be no better in two seconds.
        Event::default().event("problem").retry(RETRY_PROBLEM_AFTER).data(body.to_string())
    }
}

impl Stream {
    async fn run(mut self, stopping: Stopping) {
        let (client, stop) = (self.out.clone(), self.side.history.shutdown.clone());
        let ended = tokio::select! {
            () = client.closed() => return,
            () = stop.cancelled() => Ended::Stopped,
            () = stopping.begun() => Ended::Stopped,
            Err(ended) = self.follow() => ended,
        };
        if let Ended::Failed(_) = ended {
            tracing::warn!(cause = %ended, "a stream of events ended");
        }
        // Said where there is room for it, or comes to be soon.
        let _ = timeout(LAST_WORD, self.out.send(ended.said(&self.side.history))).await;
    }

    async fn follow(&mut self) -> Result<Infallible, Ended> {
        self.send(self.marked(Event::default().retry(RECONNECT_AFTER))).await?;
        loop {
            self.check().await?;
            if self.behind {
                self.catch_up().await?;
            } else {
                self.hear().await?;
            }
        }
    }

    /// Looks from time to time whether the reader still may. Until that is known, nothing is told.
    async fn check(&mut self) -> Result<(), Ended> {
        if self.checked.elapsed() >= CHECK_EVERY { self.look_again().await } else { Ok(()) }
    }

    async fn look_again(&mut self) -> Result<(), Ended> {
        loop {
            match self.admission.check().await {
                Ok(()) => {
                    self.checked = Instant::now();
                    return Ok(());
                }
                Err(problem) if problem.status().is_server_error() => self.pause().await?,
                Err(problem) => return Err(Ended::Refused(problem)),
            }
        }
    }

    /// Sends what the store has, a piece of it.
    async fn catch_up(&mut self) -> Result<(), Ended> {
        let read = async {
            let store = &self.store;
            let (line, head) = store.standing().await?;
            Ok((line, head, store.piece((self.position, head), &self.filter, Side::Beginning, MOST).await?))
        };
        let (line, head, piece) = match read.await {
            Ok(read) => read,
            Err(error) if platform::db::is_passing(&error) => return self.pause().await,
            Err(error) => return Err(Ended::Failed(error)),
        };
        if line != self.line || piece.events.iter().any(|event| event.history != line) {
            return Err(Ended::Lost);
        }
        let lately = Utc::now() - LATELY;
        if piece.events.last().is_some_and(|event| event.envelope.recorded_at > lately) {
            self.look_again().await?;
        }
        for event in &piece.events {
            let changes = event.envelope.recorded_at > lately && self.is_of_the_reader(&event.envelope);
            self.tell(event).await?;
            if changes {
                return Err(self.changed(&event.envelope).await);
            }
        }
        if let Some(unreadable) = piece.unreadable {
            return Err(unreadable.into());
        }
        self.position = piece.through.max(self.position);
        self.behind = self.position < head;
        self.keep_alive().await
    }

    /// Sends what the tail tells next.
    async fn hear(&mut self) -> Result<(), Ended> {
        let until = (self.checked + CHECK_EVERY).min(self.said + KEEP_ALIVE);
        match timeout_at(until, self.tail.recv()).await {
            Ok(Ok(batch)) => self.take(&batch).await?,
            // The batches that it was slow to take are in the store.
            Ok(Err(RecvError::Lagged(_))) => self.behind = true,
            Ok(Err(RecvError::Closed)) => return Err(Ended::Stopped),
            Err(_) => {}
        }
        self.keep_alive().await
    }

    async fn take(&mut self, batch: &Batch) -> Result<(), Ended> {
        if batch.line != self.line {
            return Err(Ended::Lost);
        }
        if batch.after > self.position {
            self.behind = true;
            return Ok(());
        }
        for event in &batch.events {
            let changes = event.as_ref().ok().filter(|event| self.is_of_the_reader(&event.envelope));
            let told = match event {
                Ok(Delivered { envelope, .. })
                    if envelope.position <= self.position || !self.filter.lets_through(envelope) =>
                {
                    Ok(())
                }
                Ok(event) => self.tell(event).await,
                Err(unreadable) if unreadable.position > self.position && self.may_concern(unreadable.shard) => {
                    Err(unreadable.clone().into())
                }
                Err(_) => Ok(()),
            };
            if let Err(Ended::Unreadable(_)) = told {
                // The store says whether it is left out.
                self.behind = true;
                return Ok(());
            }
            told?;
            if let Some(event) = changes {
                return Err(self.changed(&event.envelope).await);
            }
        }
        self.position = self.position.max(batch.through);
        Ok(())
    }

    /// Whether what the reader is in this community may be another after it: a new request looks at that before anything
    /// behind it is told.
    fn is_of_the_reader(&self, envelope: &Envelope) -> bool {
        let of_it = self.filter.community.is_some() && envelope.community == self.filter.community;
        let reader = self.reader.to_string();
        of_it
            && envelope.position > self.position
            && match &*envelope.stream.aggregate {
                "membership" => envelope.stream.id.ends_with(&reader),
                "community" => envelope.payload.get().contains(&reader),
                _ => false,
            }
    }

    /// How it ends behind such an event: as a new request would be answered there.
    async fn changed(&self, Envelope { shard, position, .. }: &Envelope) -> Ended {
        let there = PositionToken { history: self.line, shard: *shard, position: *position };
        match self.admission.check_at(there, SHOWN_WITHIN).await {
            Err(problem) if !problem.status().is_server_error() => Ended::Refused(problem),
            Ok(()) | Err(_) => Ended::Changed,
        }
    }

    /// Whose event it is that nobody can read is not known; only in which shard it is.
    fn may_concern(&self, shard: Shard) -> bool {
        self.filter.community.is_none_or(|community| Shard::of_community(community) == shard)
    }

    /// Sends an event. Of several that an old one became, only the last names what to go on behind.
    async fn tell(&mut self, event: &Delivered) -> Result<(), Ended> {
        let Delivered { envelope, .. } = event;
        let unreadable = |error: events::DecodeError| Unreadable::of(envelope, error);
        let newest = envelope.newest().map_err(unreadable)?;
        let told = told(event).map_err(unreadable)?;
        let last = told.len();
        for (nth, (newest, told)) in (1..).zip(newest.iter().zip(told)) {
            let mut sent = Event::default().event(newest.name).data(told.0.get());
            if nth == last {
                self.position = envelope.position;
                sent = self.marked(sent);
            }
            self.send(sent).await?;
        }
        Ok(())
    }

    /// Where nothing was said for long: how far it has come, which a client keeps without hearing of an event.
    async fn keep_alive(&mut self) -> Result<(), Ended> {
        if self.said.elapsed() < KEEP_ALIVE {
            return Ok(());
        }
        self.send(self.marked(Event::default().comment("still here"))).await
    }

    async fn pause(&mut self) -> Result<(), Ended> {
        sleep(TRY_AGAIN_AFTER).await;
        self.keep_alive().await
    }

    /// The event, with what `Last-Event-ID` is to say to go on behind it.
    fn marked(&self, event: Event) -> Event {
        event.id(format!("{}.{}", self.line, self.position))
    }

    async fn send(&mut self, event: Event) -> Result<(), Ended> {
        match timeout(STALLED, self.out.send(event)).await {
            Ok(Ok(())) => {
                self.said = Instant::now();
                Ok(())
            }
            Ok(Err(_)) | Err(_) => Err(Ended::Stalled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(value: &str) -> Result<Option<(HistoryId, Position)>, Problem> {
        last_event_id(&HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_str(value).expect("ASCII"))]))
    }

    #[test]
    fn an_id_comes_back_as_it_was_sent_and_nothing_else_is_one() {
        let line = HistoryId::new();
        assert_eq!(id(&format!("{line}.7")).expect("an id"), Some((line, 7)));
        assert_eq!(id("").expect("nothing"), None);
        for bad in ["7", "x.7", &format!("{line}.-7"), &format!("{line}.7.7"), &format!("{line}.")] {
            let problem = id(bad).expect_err("none");
            assert_eq!(
                (problem.status(), problem.errors()[0].pointer.as_str()),
                (StatusCode::BAD_REQUEST, "last-event-id")
            );
        }
    }
}

//! The event history itself, for operators and for a community's own admins: [page by page](page), or [as it goes
//! on](stream). Read from the event store, which may be away while all other reads go on.

pub(crate) mod catalogue;
mod joining;
mod page;
mod seats;
mod stream;
mod tail;

use std::{fmt::Display, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{CommunityId, DecodeError, Delivered, Event, HistoryId, Position, cloud_event};
use garde::Validate;
use platform::{
    db::{self, DatabaseConfig},
    extract::{invalid, optional_moment_field},
    http::Stopping,
    problem::{FieldError, Problem},
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use store_reader::{Alarms, Filter, StoreReader, Unreadable};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::{IntoParams, PartialSchema, ToSchema, openapi};

use crate::{
    STORE_SCHEMA,
    changes::Changes,
    listing::{self, LONGEST_PAGE, List, PAGE},
    reading::ReadSide,
    thread_page::Folded,
    visibility::InHistory,
};
use joining::Joining;
use seats::Seats;
use tail::Tail;

/// Connections to the event store at most: one for the tail, the others for pages and for streams that catch up, which
/// wait for one another rather than take the store's from the commands.
const CONNECTIONS: u32 = 4;

/// What an event stops that cannot be read.
const UNREADABLE_STOPS: &str =
    "pages and streams of /v2/events end in front of it, and as_of does not show its thread (500 unreadable-event)";

/// The event store, as it is read here.
pub(crate) struct History {
    store: StoreReader,
    joining: Joining,
    tail: Arc<Tail>,
    /// Threads as they were.
    pub(crate) folded: Folded,
    seats: Seats,
    alarms: Alarms,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl History {
    /// Asks the store for nothing yet.
    ///
    /// # Errors
    /// Where the configuration names no database.
    pub(crate) fn start(
        store: &DatabaseConfig,
        changes: &Arc<Changes>,
        shutdown: CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let few = DatabaseConfig { max_connections: store.max_connections.min(CONNECTIONS), ..store.clone() };
        let pool = db::connect_lazily(&few, STORE_SCHEMA, "agora query-service history", &store_reader::CONNECTION)?;
        let joining = Joining::start(pool.clone(), shutdown.clone(), tasks);
        let store = StoreReader::new(pool);
        let tail = Arc::new(Tail::new());
        tasks.spawn(tail::follow(Arc::clone(&tail), store.clone(), Arc::clone(changes), shutdown.clone()));
        Ok(Self {
            store,
            joining,
            tail,
            folded: Folded::default(),
            seats: Seats::default(),
            alarms: Alarms::new(),
            shutdown,
            tasks: tasks.clone(),
        })
    }

    /// The event store, once this process may read it.
    ///
    /// # Errors
    /// 503 as long as it may not.
    pub(crate) async fn store(&self) -> Result<&StoreReader, Problem> {
        self.joining.passed().await?;
        Ok(&self.store)
    }

    /// Raises the alarm of an event that cannot be read, and says so; and `instead`, what can be asked for. None is skipped
    /// but by an operator, on record: who wants to go on behind it says so.
    pub(crate) fn unreadable(&self, event: &Unreadable, instead: impl Display) -> Problem {
        let Unreadable { event_id, position, .. } = event;
        self.alarms.raise(event, UNREADABLE_STOPS);
        let words = format_args!(
            "The event {event_id} at position {position} cannot be read by this release, and none is skipped. {instead}"
        );
        // Without a cause: each request that meets it would tell the log again what the alarm says once a minute.
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unreadable-event", words)
    }

    /// The same, for who goes through the history.
    fn unreadable_here(&self, event: &Unreadable) -> Problem {
        self.unreadable(event, format_args!("What follows it is read with from={}.", event.position))
    }
}

/// Which events.
#[derive(Clone, Debug, Default, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Asked {
    /// Only events behind this position. Without it a page begins with the first event there is, and a stream with the next
    /// one that comes.
    #[garde(inner(range(min = 0)))]
    #[param(value_type = Option<i64>, minimum = 0)]
    from: Option<Position>,
    /// Only events up to this position and with it. Not for a stream.
    #[garde(inner(range(min = 0)))]
    #[param(value_type = Option<i64>, minimum = 0)]
    to: Option<Position>,
    /// Only events of these names, separated by commas.
    #[garde(inner(custom(known)))]
    #[param(
        inline, value_type = Option<Vec<catalogue::Name>>, style = Form, explode = false,
        example = json!(["post.written", "post.edited"])
    )]
    r#type: Option<Names>,
    /// Only events of this community: its id or slug. Its admins and owners must name it, operators may.
    #[garde(skip)]
    #[param(example = "french-meta")]
    pub(crate) community: Option<String>,
    /// Only events recorded at this time or later. What an import brought was recorded when it was made.
    #[garde(skip)]
    #[serde(deserialize_with = "optional_moment_field")]
    since: Option<DateTime<Utc>>,
    /// Events on a page, 1 to 100. Fewer where they are long, or where few are let through. Not for a stream.
    #[garde(inner(range(min = 1, max = LONGEST_PAGE)))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: Option<u32>,
    /// `next` or `previous` of another page. Not for a stream.
    #[garde(skip)]
    cursor: Option<String>,
}

/// Names of events.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        let mut names: Vec<String> = String::deserialize(list)?.split(',').map(|name| name.trim().to_owned()).collect();
        // The same question however it was asked.
        names.sort_unstable();
        names.dedup();
        Ok(Self(names))
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn known(names: &Names, _: &()) -> garde::Result {
    let Some(unknown) = names.0.iter().find(|name| Event::newest_version(name).is_none()) else { return Ok(()) };
    let all: Vec<_> = Event::newest().map(|(name, _)| name).collect();
    Err(invalid("unknown_value", format_args!("there is no event `{unknown}`; there are {}", all.join(", "))))
}

/// An event as it is answered.
#[derive(Serialize)]
#[serde(transparent)]
struct Told(Box<RawValue>);

impl PartialSchema for Told {
    fn schema() -> openapi::RefOr<openapi::Schema> {
        cloud_event::CloudEvent::schema()
    }
}

impl ToSchema for Told {
    fn name() -> std::borrow::Cow<'static, str> {
        "CloudEvent".into()
    }

    /// What it refers to.
    fn schemas(schemas: &mut Vec<(String, openapi::RefOr<openapi::Schema>)>) {
        cloud_event::CloudEvent::schemas(schemas);
    }
}

/// The history of events, or what happens from now on
///
/// For operators, and for a community's own admins and owners: they name their `community`. Events come as CloudEvents
/// (1.0, JSON), each payload in its newest version, whose JSON Schema `GET /v2/events/catalogue` has. No e-mail address that an
/// account was registered with is in any, nor a password's hash or a token; what people wrote, in a post or a profile, is as
/// they wrote it. Who is an operator no more reads on until its access token expires, 15 minutes at most.
///
/// **A page** has events in the order of their positions; `last` of its `Link` header is the one with the newest. 50,000 are
/// looked at for one page at most: where `type` lets few through, a page may be short, or empty, and have a `next` (or, read
/// backwards, a `previous`).
///
/// **With `Accept: text/event-stream`**, preferred to JSON, the answer does not end (Server-Sent Events, WHATWG HTML, 9.2):
/// `event` is an event's name, `data` the event as on a page, and `id` what `Last-Event-ID` goes on behind, with nothing missing
/// and nothing twice. It begins behind `from`, with `since`, or now. A stream ends when the access token expires or its session
/// ends, which is looked at every 5 s; before anything that follows a change of what the reader is in the community; when the
/// server stops; or when the client takes nothing for 30 s. Connect again, then. Where that would be refused, the last event is
/// a `problem`, its `data` the problem's `type`, `status` and `detail`. There may be 8 streams of one account.
#[utoipa::path(
    get, path = "/v2/events", tag = "events", operation_id = "events_list",
    params(
        Asked,
        ("Last-Event-ID" = Option<String>, Header, description = "For a stream: the `id` of the last event that was \
            received. It goes before `from` and `since`."),
    ),
    responses(
        (status = 200, description = "A page of events, or a stream of them.", content(
            (List<Told> = "application/json"),
            (String = "text/event-stream", example = "event: thread.locked\nid: 0191e2b8-7c00-7000-8000-000000000001.4711\n\
                data: {\"specversion\":\"1.0\",…}\n\n"),
        )),
        (status = 403, description = "`role-required`: all events are for operators, those of a community for its admins and \
            owners."),
        (status = 410, description = "`history-lost`: what `Agora-Position`, `Last-Event-ID` or the cursor names is of a \
            history that was lost."),
        (status = 429, description = "`too-many-streams`: this account has 8 already.", body = Problem,
            content_type = "application/problem+json"),
        (status = 500, description = "`unreadable-event`: the next event cannot be read, and an operator has to see to it. None \
            is skipped but by an operator, on record.",
            body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`events-not-read-yet`: this process does not read events yet, as the event store is away, \
            or another release writes what this one does not know; `position-not-reached`, as all reads; or the service is \
            overloaded."),
    ),
)]
pub(crate) async fn list(
    State(side): State<ReadSide>,
    headers: HeaderMap,
    stopping: Stopping,
    at: InHistory,
) -> Result<Response, Problem> {
    let mut response = if wants_stream(&headers) {
        stream::open(&side, at, &headers, stopping).await?
    } else {
        page::show(&side, at).await?
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether `Accept` prefers streams to JSON (RFC 9110, section 12.5.1): they do not end, so they have to be named, and where
/// both are and neither is preferred, it is a page.
fn wants_stream(headers: &HeaderMap) -> bool {
    let Some(stream) = weight(headers, "text/event-stream").filter(|stream| *stream > 0.0) else { return false };
    if let Some(page) = weight(headers, "application/json") {
        return stream > page;
    }
    let page = weight(headers, "application/*").or_else(|| weight(headers, "*/*"));
    page.is_none_or(|page| stream >= page)
}

/// What `Accept` weighs this range, from 0 to 1; none where it does not name it.
fn weight(headers: &HeaderMap, range: &str) -> Option<f32> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).find_map(|accepted| {
        let mut parts = accepted.split(';').map(str::trim);
        let named = parts.next().is_some_and(|media| media.eq_ignore_ascii_case(range));
        let mut weights = parts.filter_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        named.then(|| weights.next().and_then(|weight| weight.parse().ok()).unwrap_or(1.0))
    })
}

/// What was asked for, looked up in the store.
struct Part {
    line: HistoryId,
    /// The newest position.
    head: Position,
    /// It begins behind this position.
    after: Position,
    /// It ends with this one.
    through: Position,
    filter: Filter,
}

impl Asked {
    async fn look_up(&self, store: &StoreReader, community: Option<CommunityId>) -> Result<Part, Problem> {
        let (line, head) = store.standing().await?;
        self.check(head)?;
        let since = match self.since {
            None => 0,
            Some(time) => store.position_before(time).await?,
        };
        let types = self.r#type.clone().map(|Names(names)| names).unwrap_or_default();
        Ok(Part {
            line,
            head,
            after: self.from.unwrap_or(0).max(since),
            through: self.to.unwrap_or(head),
            filter: Filter { types, community },
        })
    }

    fn check(&self, head: Position) -> Result<(), Problem> {
        let beyond = |position: Option<Position>| position.is_some_and(|position| position > head);
        let not_yet = format!("is a position that there is not yet: the event store is at {head}");
        let refused = [
            ("?from", "too_large", &*not_yet, beyond(self.from)),
            ("?to", "too_large", &*not_yet, beyond(self.to)),
            ("?to", "too_small", "must not be below `from`", self.to.is_some_and(|to| Some(to) < self.from)),
        ];
        let refused = refused.into_iter().filter(|(.., applies)| *applies);
        listing::refused(refused.map(|(pointer, code, words, _)| FieldError::new(pointer, code, words)).collect())
    }

    /// What pages of the same list have in common.
    fn filters(&self, community: Option<CommunityId>) -> [(&'static str, Option<String>); 5] {
        [
            ("from", self.from.map(|position| position.to_string())),
            ("to", self.to.map(|position| position.to_string())),
            ("type", self.r#type.as_ref().map(|Names(names)| names.join(","))),
            ("community", community.map(|id| id.to_string())),
            ("since", self.since.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true))),
        ]
    }

    fn page(&self) -> u32 {
        self.limit.unwrap_or(PAGE)
    }
}

/// The event as CloudEvents: several where an old version said several things.
fn told(event: &Delivered) -> Result<Vec<Told>, DecodeError> {
    let mut lines = Vec::new();
    cloud_event::write_lines(event, &mut lines)?;
    let text = String::from_utf8(lines).expect("JSON is UTF-8");
    Ok(text.lines().map(|line| Told(RawValue::from_string(line.to_owned()).expect("a line is JSON"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_for_who_prefers_one() {
        let wants = |accept: &'static str| {
            wants_stream(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
        };
        for accept in [
            "text/event-stream",
            "application/json;q=0.5, Text/Event-Stream ; Q=0.6",
            "text/event-stream, */*",
            "application/*;q=0.5, text/event-stream;q=0.5, */*",
            "*/*;q=0.1, text/event-stream;charset=utf-8;q=0.2",
            "application/json;q=0, text/event-stream;q=0.1, */*",
        ] {
            assert!(wants(accept), "{accept}");
        }
        for accept in [
            "*/*",
            "application/json",
            "text/event-stream;q=0",
            "text/*",
            "application/json, text/event-stream;q=0.1",
            "application/json, text/event-stream",
            "text/event-stream;q=0.5, */*",
            "text/event-stream;q=0, application/*;q=0",
        ] {
            assert!(!wants(accept), "{accept}");
        }
    }

    #[test]
    fn names_are_the_same_question_however_they_are_asked_for() {
        let names = |list: &str| serde_json::from_value::<Names>(list.into()).expect("a list");
        assert_eq!(names("post.written,post.edited"), names("post.edited, post.written,post.edited"));
        assert!(known(&names("post.edited"), &()).is_ok());
        let words = known(&names("post.edited,post.sung"), &()).expect_err("unknown").to_string();
        assert!(words.contains("there is no event `post.sung`; there are account.registered, "), "{words}");
    }
}

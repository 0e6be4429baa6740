//! Events as `CloudEvents` 1.0 in structured mode: one JSON object for each (JSON Event Format, 3), in their newest
//! version. Its attributes are those of the Kafka message ([`crate::kafka`]), under the same names and as text: of the
//! types that `CloudEvents` knows, its 32-bit Integer has no room for a position.

use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{AccountId, CommunityId, DecodeError, Delivered, Metadata, kafka::SOURCE, upcast::Newest};

/// What the payload is.
pub const CONTENT_TYPE: &str = "application/json";

/// An event: a `CloudEvents` 1.0 object. Its attributes are text, as they are in the headers of Kafka's message.
#[derive(Serialize, ToSchema)]
pub struct CloudEvent<'a> {
    /// The version of `CloudEvents`.
    #[schema(example = "1.0")]
    specversion: &'static str,
    /// The event's own id.
    id: String,
    /// Always the same.
    source: &'static str,
    /// The event's name.
    #[schema(example = "post.written")]
    r#type: &'a str,
    /// Whose event it is: its stream, `<aggregate>/<id>`.
    #[schema(value_type = String, example = "thread/0191e2b8-7c00-7000-8000-000000000001")]
    subject: Text<&'a crate::Stream>,
    /// When it was recorded.
    #[schema(format = DateTime)]
    time: String,
    /// What the payload is.
    #[schema(example = "application/json")]
    datacontenttype: &'static str,
    /// The version that the payload has here: the newest.
    #[schema(value_type = String, example = "1")]
    version: Text<u32>,
    /// Its place in its stream, from 1.
    #[schema(value_type = String, example = "1")]
    sequence: Text<i64>,
    /// Its place in the whole history, rising.
    #[schema(value_type = String, example = "4711")]
    position: Text<i64>,
    /// Its lane: order is promised within it.
    #[schema(value_type = String, example = "17")]
    shard: Text<crate::Shard>,
    /// The position of the event before it in its shard; 0 for the first.
    #[schema(value_type = String, example = "4702")]
    previous: Text<i64>,
    /// The line of positions.
    history: Uuid,
    /// The request that everything goes back to.
    correlationid: Uuid,
    /// The community it belongs to; missing for an account's own events.
    #[serde(skip_serializing_if = "Option::is_none")]
    community: Option<CommunityId>,
    /// The account that acted; missing where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<AccountId>,
    /// The event or job that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    /// The trace it belongs to (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    /// When it happened, where that is not when it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    occurredat: Option<String>,
    /// The payload. `agora events catalogue` has the JSON Schema of each.
    #[schema(value_type = Object)]
    data: &'a RawValue,
}

/// Written as a string, whatever it is.
struct Text<T>(T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Adds the event to `lines` (NDJSON: each object ends with a line feed, and has no other). One line, or several where an
/// old event said several things; of those the second's id is `<id>.2`, as no two `CloudEvents` share one.
///
/// # Errors
/// [`DecodeError`] where nobody can read it; `lines` is as it was.
pub fn write_lines(event: &Delivered, lines: &mut Vec<u8>) -> Result<(), DecodeError> {
    for (nth, newest) in (1..).zip(event.envelope.newest()?) {
        write_line(event, nth, &newest, lines);
    }
    Ok(())
}

fn write_line(event: &Delivered, nth: u32, newest: &Newest<'_>, lines: &mut Vec<u8>) {
    let begin = lines.len();
    serde_json::to_writer(&mut *lines, &cloud_event(event, nth, newest)).expect("text and a payload, into memory");
    // A payload is kept byte for byte. Outside its strings, where none can be, a line feed is as good as a blank.
    for byte in &mut lines[begin..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    lines.push(b'\n');
}

fn cloud_event<'a>(event: &'a Delivered, nth: u32, newest: &'a Newest<'_>) -> CloudEvent<'a> {
    let Delivered { envelope, previous, history } = event;
    let Metadata { actor, correlation_id, causation_id, traceparent, occurred_at } = &envelope.metadata;
    let id = envelope.event_id.to_string();
    CloudEvent {
        specversion: "1.0",
        id: if nth == 1 { id } else { format!("{id}.{nth}") },
        source: SOURCE,
        r#type: newest.name,
        subject: Text(&envelope.stream),
        time: time(&envelope.recorded_at),
        datacontenttype: CONTENT_TYPE,
        version: Text(newest.version),
        sequence: Text(envelope.sequence),
        position: Text(envelope.position),
        shard: Text(envelope.shard),
        previous: Text(*previous),
        history: history.0,
        correlationid: *correlation_id,
        community: envelope.community,
        actor: *actor,
        causationid: *causation_id,
        traceparent: traceparent.as_deref(),
        occurredat: occurred_at.as_ref().map(time),
        data: &newest.payload,
    }
}

/// The text of a time, to the microsecond, as the store keeps it (RFC 3339).
pub(crate) fn time(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

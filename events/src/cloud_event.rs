//! Events as `CloudEvents` 1.0 in structured mode: one JSON object for each (JSON Event Format, 3), in their newest
//! version. Its attributes are those of the Kafka message ([`crate::kafka`]), under the same names and as text: of the
//! types that `CloudEvents` knows, its 32-bit Integer has no room for a position.

use std::fmt::Display;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{AccountId, CommunityId, DecodeError, Delivered, Metadata, kafka::SOURCE, upcast::Newest};

/// What the payload is.
pub const CONTENT_TYPE: &str = "application/json";

#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    r#type: &'a str,
    subject: Text<&'a crate::Stream>,
    time: String,
    datacontenttype: &'static str,
    version: Text<u32>,
    sequence: Text<i64>,
    position: Text<i64>,
    shard: Text<crate::Shard>,
    previous: Text<i64>,
    history: Uuid,
    correlationid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    community: Option<CommunityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurredat: Option<String>,
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

//! Events as `CloudEvents` 1.0 in structured mode: one JSON object for each (JSON Event Format, 3), in their newest
//! version. Its attributes are those of the Kafka message ([`crate::kafka`]), under the same names and as text: of the
//! types that `CloudEvents` knows, its 32-bit Integer has no room for a position.

use chrono::{DateTime, SecondsFormat, Utc};
use memchr::memchr_iter;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{AccountId, CommunityId, DecodeError, Delivered, Metadata, kafka::SOURCE, upcast::Newest};

/// What the payload is.
pub const CONTENT_TYPE: &str = "application/json";

/// How U+2028 and U+2029 begin in UTF-8; 80 A8 or 80 A9 follows. JSON has them in strings as they are, but to who cuts text
/// by Unicode's rules (Python's `str.splitlines`) they end a line.
const SEPARATOR: u8 = 0xe2;

/// An event: a `CloudEvents` 1.0 object. Its attributes are text, as they are in the headers of Kafka's message.
// Its schema; it is written by `write_line`.
#[derive(ToSchema)]
pub struct CloudEvent {
    /// The version of `CloudEvents`.
    #[schema(example = "1.0")]
    pub specversion: String,
    /// The event's own id.
    pub id: String,
    /// Always the same.
    pub source: String,
    /// The event's name.
    #[schema(example = "post.written")]
    pub r#type: String,
    /// Whose event it is: its stream, `<aggregate>/<id>`.
    #[schema(example = "thread/0191e2b8-7c00-7000-8000-000000000001")]
    pub subject: String,
    /// When it was recorded.
    #[schema(format = DateTime)]
    pub time: String,
    /// What the payload is.
    #[schema(example = "application/json")]
    pub datacontenttype: String,
    /// The version that the payload has here: the newest.
    #[schema(example = "1")]
    pub version: String,
    /// Its place in its stream, from 1.
    #[schema(example = "1")]
    pub sequence: String,
    /// Its place in the whole history, rising.
    #[schema(example = "4711")]
    pub position: String,
    /// Its lane: order is promised within it.
    #[schema(example = "17")]
    pub shard: String,
    /// The position of the event before it in its shard; 0 for the first.
    #[schema(example = "4702")]
    pub previous: String,
    /// The line of positions.
    pub history: Uuid,
    /// The request that everything goes back to.
    pub correlationid: Uuid,
    /// The community it belongs to; missing for an account's own events.
    pub community: Option<CommunityId>,
    /// The account that acted; missing where none did.
    pub actor: Option<AccountId>,
    /// The event or job that caused it.
    pub causationid: Option<Uuid>,
    /// The trace it belongs to (W3C Trace Context).
    pub traceparent: Option<String>,
    /// When it happened, where that is not when it was recorded.
    #[schema(format = DateTime)]
    pub occurredat: Option<String>,
    /// The payload. `GET /v2/events/catalogue` (and `agora events catalogue`) has the JSON Schema of each.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
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
    let Delivered { envelope: it, previous, history } = event;
    let Metadata { actor, correlation_id, causation_id, traceparent, occurred_at } = &it.metadata;
    let mut object = Object::begin(lines);
    object.plain("specversion", "1.0");
    if nth == 1 {
        object.id("id", it.event_id);
    } else {
        object.plain("id", &format!("{}.{nth}", it.event_id));
    }
    object.plain("source", SOURCE);
    object.text("type", newest.name);
    object.text("subject", &it.stream.to_string());
    object.plain("time", &time(&it.recorded_at));
    object.plain("datacontenttype", CONTENT_TYPE);
    object.number("version", newest.version.into());
    object.number("sequence", it.sequence);
    object.number("position", it.position);
    object.number("shard", it.shard.number().into());
    object.number("previous", *previous);
    object.id("history", *history);
    object.id("correlationid", *correlation_id);
    if let Some(id) = it.community {
        object.id("community", id);
    }
    if let Some(id) = *actor {
        object.id("actor", id);
    }
    if let Some(id) = *causation_id {
        object.id("causationid", id);
    }
    if let Some(trace) = traceparent {
        object.text("traceparent", trace);
    }
    if let Some(at) = occurred_at {
        object.plain("occurredat", &time(at));
    }
    object.end_with("data", newest.payload.get());
}

/// A JSON object on a line, as it is written. The names of all members, and the values of most, hold nothing that would
/// have to be escaped: to look for it in each of them took a quarter of the time of a replay.
struct Object<'a>(&'a mut Vec<u8>);

impl<'a> Object<'a> {
    fn begin(lines: &'a mut Vec<u8>) -> Self {
        lines.push(b'{');
        Self(lines)
    }

    fn name(&mut self, name: &str) {
        for part in ["\"", name, "\":"] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    /// A text that needs no escape.
    fn plain(&mut self, name: &str, value: &str) {
        self.name(name);
        for part in ["\"", value, "\","] {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        serde_json::to_writer(&mut *self.0, value).expect("text, into memory");
        self.0.push(b',');
    }

    fn id(&mut self, name: &str, id: impl Into<Uuid>) {
        self.plain(name, id.into().hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    }

    fn number(&mut self, name: &str, number: i64) {
        self.plain(name, itoa::Buffer::new().format(number));
    }

    /// A payload is kept byte for byte, where that leaves it on one line. A line feed can only be outside of its strings,
    /// and is as good as a blank there; other separators of lines only in them ([`SEPARATOR`]).
    fn end_with(mut self, name: &str, payload: &str) {
        self.name(name);
        let begin = self.0.len();
        self.escaped(payload.as_bytes());
        if payload.contains('\n') || payload.contains('\r') {
            let breaks = self.0[begin..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
            breaks.for_each(|byte| *byte = b' ');
        }
        self.0.extend_from_slice(b"}\n");
    }

    /// Adds JSON without raw separators of lines.
    fn escaped(&mut self, json: &[u8]) {
        let mut begin = 0;
        for at in memchr_iter(SEPARATOR, json) {
            let escape: &[u8] = match json[at + 1..] {
                [0x80, 0xa8, ..] => br"\u2028",
                [0x80, 0xa9, ..] => br"\u2029",
                _ => continue,
            };
            self.0.extend_from_slice(&json[begin..at]);
            self.0.extend_from_slice(escape);
            begin = at + 3;
        }
        self.0.extend_from_slice(&json[begin..]);
    }
}

/// The text of a time, to the microsecond, as the store keeps it (RFC 3339).
pub(crate) fn time(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_a_line_in_its_middle() {
        let said = "a\u{2028}b\u{2029}\u{2029}c \u{2026} \u{2014} \u{20ac}";
        let payload = format!("{{\"body\": \"{said}\"}}");
        let mut line = Vec::new();
        Object::begin(&mut line).end_with("data", &payload);
        let line = String::from_utf8(line).expect("UTF-8");
        assert_eq!(line, "{\"data\":{\"body\": \"a\\u2028b\\u2029\\u2029c \u{2026} \u{2014} \u{20ac}\"}}\n");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["data"]["body"], said, "it says the same");
    }
}

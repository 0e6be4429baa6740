//! An event as it is printed.

use std::collections::HashMap;

use chrono::{DateTime, SecondsFormat, Utc};
use events::Envelope;
use serde_json::{Value, json};

/// Characters of a payload on a line.
const PAYLOAD_CHARS: usize = 100;
/// Characters of a field of a payload on a line.
const FIELD_CHARS: usize = 160;

/// `       42 2025-01-01T00:00:00.000Z thread.locked  thread/018f…  {"reason":"…"}`
pub(crate) fn as_line(event: &Envelope) -> String {
    let at = time(event.occurred_at());
    let payload = event.payload.get();
    let shown: String = payload.chars().take(PAYLOAD_CHARS).collect();
    let rest = if shown.len() < payload.len() { "…" } else { "" };
    let mark = unreadable(event).map_or_else(String::new, |why| format!("  ({why})"));
    format!("{:>9} {at} {:26} {} {shown}{rest}{mark}", event.position, event.name, event.stream)
}

/// Says so of an event that is printed though this release cannot read it.
pub(crate) fn unreadable(event: &Envelope) -> Option<String> {
    event.newest().err().map(|why| format!("this release cannot read it: {why}"))
}

/// Every field of the envelope, the payload as it is; and `unreadable`, the reason, where this release cannot read it.
pub(crate) fn as_json(event: &Envelope) -> anyhow::Result<Value> {
    let metadata = serde_json::to_value(&event.metadata)?;
    let mut object = json!({
        "position": event.position,
        "shard": event.shard,
        "event_id": event.event_id,
        "event_type": event.name,
        "event_version": event.version,
        "stream": event.stream.to_string(),
        "sequence": event.sequence,
        "community_id": event.community,
        "recorded_at": event.recorded_at.to_rfc3339_opts(SecondsFormat::Micros, true),
        "metadata": metadata,
        "payload": payload(event.payload.get()),
    });
    if let Err(why) = event.newest() {
        object["unreadable"] = why.to_string().into();
    }
    Ok(object)
}

/// A payload; as a text where it is damaged, and Postgres takes for JSON what nobody else does.
pub(crate) fn payload(stored: &str) -> Value {
    serde_json::from_str(stored).unwrap_or_else(|_| stored.into())
}

/// Each field of a payload on a line of its own, with what it said before where it said another thing:
/// `title  How long? → How long, and how hot?`.
pub(crate) fn fields(payload: &Value, before: &HashMap<&str, Value>, indent: usize) -> String {
    let Value::Object(fields) = payload else { return format!("{:indent$}{payload}\n", "") };
    let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): (&String, &Value)| {
        let value = match before.get(name.as_str()) {
            Some(before) => format!("{} → {}", readable(before, FIELD_CHARS / 2), readable(value, FIELD_CHARS / 2)),
            None => readable(value, FIELD_CHARS),
        };
        format!("{:indent$}{name:width$}  {value}\n", "")
    };
    fields.iter().map(line).collect()
}

/// On one line, without quotes where it is a text or a list of texts; cut where it is longer than so many characters.
fn readable(value: &Value, most: usize) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Array(items) if !items.is_empty() => {
            items.iter().map(|item| readable(item, most)).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let shown: String = text.chars().take(most).collect();
    if shown.len() < text.len() { format!("{shown}… ({} characters)", text.chars().count()) } else { shown }
}

/// A time to the millisecond.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use events::{AccountId, EventId, Metadata, Shard, Stream, ThreadId};
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    use super::*;

    fn event() -> Envelope {
        let payload = to_raw_value(&json!({"reason": "x".repeat(200)})).expect("JSON");
        let metadata = Metadata {
            actor: Some(AccountId::new()),
            correlation_id: Uuid::nil(),
            causation_id: None,
            traceparent: None,
            occurred_at: Some("2011-08-17T20:18:56.507Z".parse().expect("a time")),
        };
        Envelope {
            event_id: EventId::new(),
            stream: Stream::thread(ThreadId::new()),
            sequence: 2,
            position: 42,
            shard: Shard::try_from(3_u8).expect("a shard"),
            community: None,
            name: "thread.locked".into(),
            version: 1,
            recorded_at: "2025-01-01T00:00:00Z".parse().expect("a time"),
            metadata,
            payload,
        }
    }

    #[test]
    fn a_damaged_payload_is_shown_as_it_is() {
        let half = r#"{"body": "\ud800"}"#;
        assert_eq!(payload(half), json!(half));
        assert!(fields(&super::payload(half), &HashMap::new(), 2).contains("ud800"));
    }

    #[test]
    fn what_this_release_cannot_read_is_marked() {
        let event = Envelope { version: 99, ..event() };
        let why = "unknown event thread.locked version 99: written by a newer release?";
        assert!(as_line(&event).ends_with(&format!("…  (this release cannot read it: {why})")), "{}", as_line(&event));
        assert_eq!(as_json(&event).expect("JSON")["unreadable"], why);
    }

    #[test]
    fn a_line_is_short() {
        let line = as_line(&event());
        assert!(line.starts_with("       42 2011-08-17T20:18:56.507Z thread.locked "), "{line}");
        assert!(line.ends_with('…') && line.chars().count() < 230, "{line}");
    }

    #[test]
    fn a_payload_is_shown_field_by_field() {
        let payload = json!({"title": "Two\n lines", "tags": ["a", "b"], "author": null, "body": "x".repeat(500)});
        let before = HashMap::from([("title", json!("One line")), ("tags", json!(["a"]))]);
        assert_eq!(
            fields(&payload, &before, 4),
            format!(
                "    author  -\n    body    {}… (500 characters)\n    tags    a → a, b\n    title   One line → Two lines\n",
                "x".repeat(160)
            )
        );
    }

    #[test]
    fn json_is_whole() {
        let event = event();
        let json = as_json(&event).expect("JSON");
        assert_eq!(json["event_type"], "thread.locked");
        assert_eq!(json["payload"]["reason"].as_str().map(str::len), Some(200));
        assert_eq!(json["metadata"]["occurred_at"], "2011-08-17T20:18:56.507Z");
        assert_eq!(json["shard"], 3);
        assert!(json.get("unreadable").is_none());
    }
}

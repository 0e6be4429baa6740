//! What holds for every event: samples decode for good, and nothing is lost on the way through Kafka.

use std::{collections::BTreeMap, fs};

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};
use utoipa::PartialSchema as _;
use uuid::Uuid;

use crate::{
    AccountId, CommunityId, Delivered, Envelope, Event, EventId, HistoryId, Metadata, Shard, Stream, catalogue,
    cloud_event::{self, CloudEvent},
    kafka,
};

/// `samples/<name>.<version>.json`: one of every version ever written. A file there is never changed.
fn samples() -> BTreeMap<(String, u32), Box<RawValue>> {
    let files = fs::read_dir("samples").expect("samples/");
    files
        .map(|file| {
            let path = file.expect("a sample").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            let (name, version) = stem.rsplit_once('.').expect("name.version");
            let text = fs::read_to_string(&path).expect("a readable sample");
            let payload = RawValue::from_string(text.trim().to_owned()).expect("JSON");
            ((name.to_owned(), version.parse().expect("a version")), payload)
        })
        .collect()
}

#[test]
fn every_version_ever_written_decodes() {
    for ((name, version), payload) in samples() {
        let events = crate::decode(&name, version, &payload).unwrap_or_else(|error| panic!("{error}"));
        assert!(!events.is_empty(), "{name} version {version} says nothing any more");
    }
}

/// `samples.sha256` is what `sha256sum samples/*` prints: lines are only ever added to it.
#[test]
fn samples_are_never_edited_and_never_deleted() {
    let frozen = fs::read_to_string("samples.sha256").expect("samples.sha256");
    let files = fs::read_dir("samples").expect("samples/");
    let mut lines: Vec<String> = files
        .map(|file| {
            let path = file.expect("a sample").path();
            let digest = Sha256::digest(fs::read(&path).expect("a readable sample"));
            let hex: Vec<String> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{}  {}\n", hex.concat(), path.display())
        })
        .collect();
    lines.sort_by(|one, other| one[64..].cmp(&other[64..]));
    assert_eq!(lines.concat(), frozen);
}

#[test]
fn every_event_has_a_sample_of_its_newest_version_and_is_written_as_that_sample() {
    let samples = samples();
    for entry in catalogue::catalogue() {
        let key = (entry.name.to_owned(), entry.version);
        let payload = samples.get(&key).unwrap_or_else(|| panic!("no samples/{}.{}.json", entry.name, entry.version));
        let [event] = &crate::decode(entry.name, entry.version, payload).expect("decodes")[..] else {
            panic!("{} is one event", entry.name)
        };
        assert_eq!((event.name(), event.version()), (entry.name, entry.version));
        assert_eq!(event.payload().expect("JSON").get(), payload.get());
    }
}

#[test]
fn what_is_not_known_or_not_whole_is_an_error_with_its_name() {
    let decode = |name, version, payload: &str| {
        let payload = RawValue::from_string(payload.to_owned()).expect("JSON");
        crate::decode(name, version, &payload).expect_err("refused").to_string()
    };
    assert_eq!(decode("post.sung", 1, "{}"), "unknown event post.sung version 1: written by a newer release?");
    assert_eq!(decode("thread.locked", 2, "{}"), "unknown event thread.locked version 2: written by a newer release?");
    assert!(decode("thread.retitled", 1, "{}").contains("missing field `title`"));
}

/// Events are kept for good and shown to who may read history: what may have to be deleted has no place in any.
#[test]
fn no_version_of_any_event_has_a_field_for_what_is_private() {
    fn fields(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(object) => object.iter().for_each(|(name, value)| {
                found.push(name.to_lowercase());
                fields(value, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| fields(item, found)),
            _ => {}
        }
    }
    let read = |payload: &RawValue| serde_json::from_str(payload.get()).expect("JSON");
    let samples = samples().into_iter().map(|((name, _), payload)| (name, read(&payload)));
    // What a sample leaves out, the schema has.
    let schemas = catalogue::catalogue().into_iter();
    let schemas = schemas.map(|entry| (entry.name.to_owned(), serde_json::to_value(entry.schema).expect("JSON")));
    for (event, said) in samples.chain(schemas) {
        let mut found = Vec::new();
        fields(&said, &mut found);
        for private in ["mail", "password", "hash", "token", "secret", "subject", "address"] {
            assert!(!found.iter().any(|name| name.contains(private)), "{event} has a field for a {private}");
        }
    }
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

/// To the microsecond, as the store keeps it, from 1970 to 2100.
fn time() -> impl Strategy<Value = DateTime<Utc>> {
    (0_i64..4_102_444_800_000_000).prop_map(|micros| DateTime::from_timestamp_micros(micros).expect("in range"))
}

prop_compose! {
    fn metadata()(
        actor in prop::option::of(uuid().prop_map(AccountId)),
        correlation_id in uuid(),
        causation_id in prop::option::of(uuid()),
        traceparent in prop::option::of("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"),
        occurred_at in prop::option::of(time()),
    ) -> Metadata {
        Metadata { actor, correlation_id, causation_id, traceparent, occurred_at }
    }
}

prop_compose! {
    fn delivered()(
        ids in (uuid(), uuid(), uuid(), prop::option::of(uuid())),
        (sequence, position, previous) in (1..i64::MAX, 1..i64::MAX, 0..i64::MAX),
        shard in 0_i16..64,
        sample in prop::sample::select(samples().into_iter().collect::<Vec<_>>()),
        recorded_at in time(),
        metadata in metadata(),
        text in any::<String>(),
    ) -> Delivered {
        let (event_id, stream, history, community) = ids;
        let ((name, version), _) = sample;
        Delivered {
            envelope: Envelope {
                event_id: EventId(event_id),
                stream: Stream::account(AccountId(stream)),
                sequence,
                position,
                shard: Shard::try_from(shard).expect("a shard"),
                community: community.map(CommunityId),
                name,
                version,
                recorded_at,
                metadata,
                payload: serde_json::value::to_raw_value(&text).expect("JSON"),
            },
            previous,
            history: HistoryId(history),
        }
    }
}

proptest! {
    #[test]
    fn a_message_says_all_that_the_envelope_does(event in delivered()) {
        let message = kafka::encode(&event);
        let headers = message.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        prop_assert_eq!(kafka::decode(headers, message.value.as_bytes()).expect("decodes"), event);
    }

    #[test]
    fn a_line_of_json_says_under_the_same_names_what_the_message_does(event in delivered(), wide in any::<bool>()) {
        let mut event = event;
        prop_assume!(Event::newest_version(&event.envelope.name) == Some(event.envelope.version));
        let stored = samples()[&(event.envelope.name.clone(), event.envelope.version)].get().to_owned();
        // However the JSON was spaced.
        let payload = if wide { stored.replacen(':', ":\r\n", 1) } else { stored };
        event.envelope.payload = RawValue::from_string(payload).expect("JSON");
        let mut lines = b"one before\n".to_vec();
        cloud_event::write_lines(&event, &mut lines).expect("it is known");
        let text = String::from_utf8(lines).expect("text");
        let [_, line] = text.lines().collect::<Vec<_>>()[..] else { panic!("not one line: {text}") };
        let mut json: serde_json::Map<String, Value> = serde_json::from_str(line).expect("an object");
        let schema = serde_json::to_value(CloudEvent::schema()).expect("JSON");
        prop_assert!(json.keys().all(|name| schema["properties"][name].is_object()), "{schema}");
        let required = schema["required"].as_array().expect("names");
        prop_assert!(required.iter().all(|name| json.contains_key(name.as_str().expect("a name"))), "{schema}");
        let data = json.remove("data").expect("a payload");
        prop_assert_eq!(data, serde_json::from_str::<Value>(event.envelope.payload.get()).expect("JSON"));
        prop_assert_eq!(json.remove("datacontenttype"), Some("application/json".into()));
        let attributes: BTreeMap<String, Value> = json.into_iter().map(|(name, value)| (format!("ce_{name}"), value)).collect();
        let headers = kafka::encode(&event).headers.into_iter().skip(1);
        let headers: BTreeMap<String, Value> = headers.map(|(name, value)| (name.to_owned(), value.into())).collect();
        prop_assert_eq!(attributes, headers);
    }

    #[test]
    fn metadata_is_text_through_and_through_and_comes_back(metadata in metadata()) {
        let column = serde_json::to_string(&metadata).expect("JSON");
        let as_cqrs_es: BTreeMap<String, String> = serde_json::from_str(&column).expect("all of it is text");
        prop_assert_eq!(as_cqrs_es.contains_key("actor"), metadata.actor.is_some());
        prop_assert_eq!(serde_json::from_str::<Metadata>(&column).expect("decodes"), metadata);
    }

    #[test]
    fn a_message_without_one_of_its_headers_is_refused_by_name(event in delivered(), nth in 1_usize..14) {
        let message = kafka::encode(&event);
        let missing = message.headers[nth].0;
        prop_assume!(missing != "ce_source");
        let headers = message.headers.iter().filter(|(name, _)| *name != missing);
        let error = kafka::decode(headers.map(|(name, value)| (*name, value.as_bytes())), message.value.as_bytes());
        prop_assert!(error.expect_err("refused").to_string().contains(missing));
    }
}

//! The Kafka codec: `CloudEvents` 1.0 in binary mode (Kafka Protocol Binding, 3.2).
//!
//! Every field of the envelope is a header (`ce_…`), the value is the payload byte for byte, the key is the id that
//! the shard comes from: the community's, or the account's for its own events.

use std::{collections::HashMap, str::FromStr};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use crate::{
    Delivered, Envelope, Metadata, Stream,
    cloud_event::{CONTENT_TYPE, time},
};

/// What an Agora event comes from, as `CloudEvents` asks (`source`, a URI reference).
pub const SOURCE: &str = "/agora";

/// A message, ready to be produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The id that the shard comes from, in text.
    pub key: String,
    /// In the order of the envelope; absent fields have no header.
    pub headers: Vec<(&'static str, String)>,
    /// The payload.
    pub value: String,
}

/// Why a message is not one of ours.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A header that every message has is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header says what it cannot.
    #[error("header {name} says `{value}`: {reason}")]
    Header {
        /// Which.
        name: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The value is not JSON.
    #[error("the value is not JSON: {0}")]
    Value(#[from] serde_json::Error),
}

/// Writes an event as a message.
pub fn encode(event: &Delivered) -> Message {
    let Delivered { envelope, previous, history } = event;
    let Metadata { actor, correlation_id, causation_id, traceparent, occurred_at } = &envelope.metadata;
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", envelope.event_id.to_string()),
        ("ce_source", SOURCE.to_owned()),
        ("ce_type", envelope.name.clone()),
        ("ce_subject", envelope.stream.to_string()),
        ("ce_time", time(&envelope.recorded_at)),
        ("ce_version", envelope.version.to_string()),
        ("ce_sequence", envelope.sequence.to_string()),
        ("ce_position", envelope.position.to_string()),
        ("ce_shard", envelope.shard.to_string()),
        ("ce_previous", previous.to_string()),
        ("ce_history", history.to_string()),
        ("ce_correlationid", correlation_id.to_string()),
    ];
    let optional = [
        ("ce_community", envelope.community.map(|id| id.to_string())),
        ("ce_actor", actor.map(|id| id.to_string())),
        ("ce_causationid", causation_id.map(|id| id.to_string())),
        ("ce_traceparent", traceparent.clone()),
        ("ce_occurredat", occurred_at.as_ref().map(time)),
    ];
    headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
    Message { key: key(envelope), headers, value: envelope.payload.get().to_owned() }
}

/// Reads a message as it was consumed.
///
/// # Errors
/// [`CodecError`] names the header at fault: a message that is not ours stops the reader.
pub fn decode<'a>(headers: impl Iterator<Item = (&'a str, &'a [u8])>, value: &[u8]) -> Result<Delivered, CodecError> {
    let headers = Headers(headers.collect());
    let spec: String = headers.get("ce_specversion")?;
    if spec != "1.0" {
        return Err(CodecError::Header { name: "ce_specversion", value: spec, reason: "only 1.0 is known".to_owned() });
    }
    let metadata = Metadata {
        actor: headers.optional("ce_actor")?,
        correlation_id: headers.get("ce_correlationid")?,
        causation_id: headers.optional("ce_causationid")?,
        traceparent: headers.optional("ce_traceparent")?,
        occurred_at: headers.optional::<DateTime<Utc>>("ce_occurredat")?,
    };
    let envelope = Envelope {
        event_id: headers.get("ce_id")?,
        stream: headers.get::<Stream>("ce_subject")?,
        sequence: headers.get("ce_sequence")?,
        position: headers.get("ce_position")?,
        shard: headers.shard()?,
        community: headers.optional("ce_community")?,
        name: headers.get("ce_type")?,
        version: headers.get("ce_version")?,
        recorded_at: headers.get("ce_time")?,
        metadata,
        payload: serde_json::from_slice::<Box<RawValue>>(value)?,
    };
    Ok(Delivered { envelope, previous: headers.get("ce_previous")?, history: headers.get("ce_history")? })
}

fn key(envelope: &Envelope) -> String {
    envelope.community.map_or_else(|| envelope.stream.id.clone(), |community| community.to_string())
}

struct Headers<'a>(HashMap<&'a str, &'a [u8]>);

impl Headers<'_> {
    fn get<T: FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Result<T, CodecError> {
        self.optional(name)?.ok_or(CodecError::Missing(name))
    }

    fn optional<T: FromStr<Err: std::fmt::Display>>(&self, name: &'static str) -> Result<Option<T>, CodecError> {
        let Some(bytes) = self.0.get(name) else { return Ok(None) };
        let value = String::from_utf8_lossy(bytes);
        let error = |reason: String| CodecError::Header { name, value: value.clone().into_owned(), reason };
        value.parse().map(Some).map_err(|reason| error(format!("{reason}")))
    }

    fn shard(&self) -> Result<crate::Shard, CodecError> {
        let number: i16 = self.get("ce_shard")?;
        crate::Shard::try_from(number).map_err(|reason| CodecError::Header {
            name: "ce_shard",
            value: number.to_string(),
            reason: reason.to_string(),
        })
    }
}

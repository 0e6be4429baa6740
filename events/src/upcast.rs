//! Upcasting: an event stored in an old version is brought to the newest one when it is read, a version at a time.
//!
//! A step may fail, and may make several events of one (an old event that said two things). What is stored is never
//! rewritten.

use std::borrow::Cow;

use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{DecodeError, Event, next};

/// An event between two versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Versioned {
    /// Its name: a step may give it another one.
    pub name: &'static str,
    /// The version that [`Self::payload`] has.
    pub version: u32,
    /// Its payload.
    pub payload: Value,
}

/// An event in its newest version.
#[derive(Clone, Debug)]
pub struct Newest<'a> {
    /// Its name, which an upcaster may have changed.
    pub name: &'a str,
    /// The version.
    pub version: u32,
    /// The payload: as it was stored, where that is the newest version.
    pub payload: Cow<'a, RawValue>,
}

/// One step: from one version of one event to what is said in its place now.
pub struct Step {
    /// The event that it reads.
    pub name: &'static str,
    /// The version that it reads.
    pub from: u32,
    /// What takes its place, in order; or why the payload is not what the version promised.
    pub run: fn(Value) -> Result<Vec<Versioned>, String>,
}

/// A set of steps, and which version of each event is the newest.
pub struct Upcasters {
    /// At most one for each name and version.
    pub steps: &'static [Step],
    /// The newest version of an event; `None` where the name is unknown.
    pub newest: fn(&str) -> Option<u32>,
}

/// The steps of this release. None is needed yet: every event is in its first version.
pub static CURRENT: Upcasters = Upcasters { steps: next::STEPS, newest: Event::newest_version };

/// More steps than any event will ever need: a set of steps that goes in circles is an error, not a hang.
const MOST_STEPS: u32 = 1_000;

impl Upcasters {
    /// Brings an event to the newest version.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] where no step leads on from a version, or the version is newer than this release;
    /// [`DecodeError::Upcast`] where a step refused.
    pub fn upcast(&self, name: &str, version: u32, payload: &RawValue) -> Result<Vec<Versioned>, DecodeError> {
        let parsed = serde_json::from_str(payload.get()).map_err(|source| malformed(name, version, source))?;
        let mut newest = Vec::new();
        // A stack, last first, so that what one event becomes stays in order.
        let mut waiting = self.step(name, version, parsed)?;
        waiting.reverse();
        for _ in 0..MOST_STEPS {
            let Some(event) = waiting.pop() else { return Ok(newest) };
            if (self.newest)(event.name) == Some(event.version) {
                newest.push(event);
            } else {
                waiting.extend(self.step(event.name, event.version, event.payload)?.into_iter().rev());
            }
        }
        let reason = format!("no end after {MOST_STEPS} steps");
        Err(DecodeError::Upcast { name: name.to_owned(), version, reason })
    }

    fn step(&self, name: &str, version: u32, payload: Value) -> Result<Vec<Versioned>, DecodeError> {
        let step = self.steps.iter().find(|step| step.name == name && step.from == version);
        let unknown = || DecodeError::Unknown { name: name.to_owned(), version };
        (step.ok_or_else(unknown)?.run)(payload).map_err(|reason| DecodeError::Upcast {
            name: name.to_owned(),
            version,
            reason,
        })
    }
}

/// Reads a payload with these steps; the newest version takes a short way, without a tree of values.
pub(crate) fn decode_with(
    upcasters: &Upcasters,
    name: &str,
    version: u32,
    payload: &RawValue,
) -> Result<Vec<Event>, DecodeError> {
    if (upcasters.newest)(name) == Some(version) {
        return Ok(vec![read(name, version, payload.get())?]);
    }
    let events = upcasters.upcast(name, version, payload)?;
    events.into_iter().map(|event| read(event.name, event.version, &event.payload.to_string())).collect()
}

/// As [`decode_with`], but keeps the payload as it is written rather than as it is understood.
pub(crate) fn newest<'a>(
    upcasters: &Upcasters,
    name: &'a str,
    version: u32,
    payload: &'a RawValue,
) -> Result<Vec<Newest<'a>>, DecodeError> {
    if (upcasters.newest)(name) == Some(version) {
        read(name, version, payload.get())?;
        return Ok(vec![Newest { name, version, payload: Cow::Borrowed(payload) }]);
    }
    let written = |Versioned { name, version, payload }: Versioned| {
        let payload = to_raw_value(&payload).map_err(|source| malformed(name, version, source))?;
        read(name, version, payload.get())?;
        Ok(Newest { name, version, payload: Cow::Owned(payload) })
    };
    upcasters.upcast(name, version, payload)?.into_iter().map(written).collect()
}

fn read(name: &str, version: u32, payload: &str) -> Result<Event, DecodeError> {
    // Serde takes an array for a struct, field by field; the catalogue's schemas do not.
    if !payload.starts_with('{') {
        return Err(malformed(name, version, serde::de::Error::custom("it is no object")));
    }
    Event::from_payload(name, payload)
        .ok_or_else(|| DecodeError::Unknown { name: name.to_owned(), version })?
        .map_err(|source| malformed(name, version, source))
}

fn malformed(name: &str, version: u32, source: serde_json::Error) -> DecodeError {
    DecodeError::Payload { name: name.to_owned(), version, source }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    /// Version 1 of `tea.made` said two things at once; version 2 of `tea.made` had no temperature.
    static TEA: Upcasters = Upcasters {
        steps: &[
            Step { name: "tea.made", from: 1, run: split },
            Step { name: "tea.made", from: 2, run: add_temperature },
            Step {
                name: "tea.lost",
                from: 1,
                run: |payload| Ok(vec![Versioned { name: "tea.lost", version: 1, payload }]),
            },
        ],
        newest: |name| match name {
            "tea.made" => Some(3),
            "tea.drunk" => Some(1),
            "tea.lost" => Some(2),
            _ => None,
        },
    };

    #[allow(clippy::needless_pass_by_value, reason = "a step owns what it reads")]
    fn split(payload: Value) -> Result<Vec<Versioned>, String> {
        let drinker = payload.get("drunk_by").cloned().ok_or("nobody drank it")?;
        Ok(vec![
            Versioned { name: "tea.made", version: 2, payload: json!({"leaf": payload["leaf"]}) },
            Versioned { name: "tea.drunk", version: 1, payload: json!({"by": drinker}) },
        ])
    }

    #[allow(clippy::unnecessary_wraps, reason = "other steps refuse")]
    fn add_temperature(mut payload: Value) -> Result<Vec<Versioned>, String> {
        payload["celsius"] = json!(95);
        Ok(vec![Versioned { name: "tea.made", version: 3, payload }])
    }

    fn upcast(name: &str, version: u32, payload: &Value) -> Result<Vec<Versioned>, DecodeError> {
        TEA.upcast(name, version, &to_raw_value(payload).expect("JSON"))
    }

    #[test]
    fn one_event_becomes_several_in_order_each_in_its_newest_version() {
        let events = upcast("tea.made", 1, &json!({"leaf": "assam", "drunk_by": "ada"})).expect("upcasts");
        assert_eq!(
            events,
            [
                Versioned { name: "tea.made", version: 3, payload: json!({"leaf": "assam", "celsius": 95}) },
                Versioned { name: "tea.drunk", version: 1, payload: json!({"by": "ada"}) },
            ]
        );
    }

    #[test]
    fn a_step_may_refuse_and_is_named() {
        let refused = upcast("tea.made", 1, &json!({"leaf": "assam"})).expect_err("refused");
        assert_eq!(refused.to_string(), "event tea.made version 1 cannot be upcast: nobody drank it");
    }

    #[test]
    fn what_nobody_knows_is_an_error_never_skipped() {
        for (name, version) in [("tea.made", 4), ("tea.spilled", 1)] {
            assert!(matches!(upcast(name, version, &json!({})), Err(DecodeError::Unknown { .. })));
        }
    }

    #[test]
    fn a_payload_is_an_object() {
        let array = to_raw_value(&json!([])).expect("JSON");
        let refused = crate::decode("thread.locked", 1, &array).expect_err("refused").to_string();
        assert_eq!(refused, "event thread.locked version 1 does not decode: it is no object");
    }

    #[test]
    fn steps_that_go_in_circles_end() {
        assert!(matches!(upcast("tea.lost", 1, &json!({})), Err(DecodeError::Upcast { .. })));
    }
}

//! Times as clients write them.

use chrono::{DateTime, Datelike as _, Utc};
use serde::{Deserialize, Deserializer, de::Error as _};

const RULE: &str = "must be a time as in RFC 3339, like 2030-01-31T12:00:00Z";

/// A time as in RFC 3339, whose years have four digits: what can be shown as it was said.
///
/// # Errors
/// The rule, in words.
pub fn moment(text: &str) -> Result<DateTime<Utc>, &'static str> {
    let time = DateTime::parse_from_rfc3339(text).map_err(|_| RULE)?.to_utc();
    if (0..=9_999).contains(&time.year()) { Ok(time) } else { Err(RULE) }
}

/// For a field of a body: serde takes more than RFC 3339, and says less of what it does not take.
///
/// # Errors
/// The rule, as serde's.
pub fn moment_field<'de, D: Deserializer<'de>>(value: D) -> Result<DateTime<Utc>, D::Error> {
    moment(&String::deserialize(value)?).map_err(D::Error::custom)
}

/// The same, for a field that may be absent or null; it needs `default` beside.
///
/// # Errors
/// The rule, as serde's.
pub fn optional_moment_field<'de, D: Deserializer<'de>>(value: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let text = Option::<String>::deserialize(value)?;
    text.map(|text| moment(&text).map_err(D::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_rfc_3339_knows_is_a_moment() {
        for text in ["2030-01-31T12:00:00Z", "2030-01-31T12:00:00.5+02:00", "9999-12-31T23:59:59Z"] {
            assert!(moment(text).is_ok(), "{text}");
        }
        for text in [
            "+262142-12-31T23:59:59Z",
            "-0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59-05:00",
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-02-30T12:00:00Z",
            "tomorrow",
            "",
        ] {
            assert_eq!(moment(text), Err(RULE), "{text}");
        }
    }
}

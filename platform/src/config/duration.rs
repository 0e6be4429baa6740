//! Durations as people write them: `"15m"`, `"2s"`, `"1h 30m"`. For fields: `#[serde(with = "config::duration")]`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Writes `15m`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}

/// As the module, for what must not be 0: `#[serde(with = "config::duration::positive")]`.
pub mod positive {
    use serde::{Deserializer, de::Error};

    pub use super::serialize;

    /// Reads `15m`.
    ///
    /// # Errors
    /// 0, and what is no number with a unit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<std::time::Duration, D::Error> {
        let duration = super::deserialize(deserializer)?;
        if duration.is_zero() { Err(D::Error::custom("must be more than 0")) } else { Ok(duration) }
    }
}

/// Reads `15m`.
///
/// # Errors
/// What is no number with a unit.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format_args!("{text:?} is no duration like \"15m\" or \"2s\": {error}")))
}

//! Ids that come out the same each time they are made: what is sent twice is recognised, and written once.

use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

/// A `UUIDv7` (RFC 9562) of the time `at`, its random bits taken from the SHA-256 of `name`. The name must be unique
/// among all that is ever derived, and say what it names: `stackexchange/french-meta/post/42`.
///
/// A time before 1970 counts as 1970.
pub fn id(at: DateTime<Utc>, name: &str) -> Uuid {
    let hash = Sha256::digest(name.as_bytes());
    let mut bits = [0; 10];
    bits.copy_from_slice(&hash[..10]);
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_and_time_give_the_same_id_for_good() {
        let at = "2011-08-17T20:18:56.507Z".parse().expect("a time");
        let found = id(at, "stackexchange/french-meta/post/1");
        assert_eq!(found.to_string(), "0131d965-8d7b-7ecc-93ea-e698801958f4");
        assert_eq!(found.get_version_num(), 7);
        assert_ne!(found, id(at, "stackexchange/french-meta/post/2"));
    }

    #[test]
    fn ids_sort_by_time() {
        let [early, late] =
            ["2011-08-17T20:18:56.507Z", "2011-08-17T20:18:56.508Z"].map(|at| at.parse().expect("a time"));
        assert!(id(early, "b") < id(late, "a"));
    }
}

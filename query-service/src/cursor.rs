//! Keyset pagination: a page ends at a row, and the next one begins after it, whatever came and went meanwhile.
//!
//! A cursor is the whole sort key of that row, the direction to go from it, and the mark of the list it belongs to.
//! It is opaque to clients, not secret: all it could be forged for is another place in a list that they may see. One that
//! we cannot have written is refused, so that no query meets a key that it cannot take.

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Datelike, Utc};
use platform::problem::{FieldError, Problem};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// The form of cursor written now.
const VERSION: u8 = 1;
/// Bytes of a list's mark.
const MARK: usize = 8;

/// Which way a page goes from its place, in the list's own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// The rows after it.
    Forward,
    /// The rows before it.
    Backward,
}

/// A place in a list: a row's whole sort key, and the way to go from there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place<K> {
    pub(crate) key: K,
    pub(crate) direction: Direction,
}

/// What a list is sorted by.
pub(crate) trait SortKey: Serialize + DeserializeOwned {
    /// Whether a row can have it: JSON says more than the database keeps.
    fn is_possible(&self) -> bool;
}

macro_rules! always_possible {
    ($($key:ty),+) => {
        $(impl SortKey for $key {
            fn is_possible(&self) -> bool {
                true
            }
        })+
    };
}

always_possible!(bool, i16, i32, i64, Uuid);

impl SortKey for DateTime<Utc> {
    /// What RFC 3339 can say: less than what chrono and Postgres keep, and more than a row of ours has.
    fn is_possible(&self) -> bool {
        (0..=9999).contains(&self.year())
    }
}

impl SortKey for String {
    /// Postgres keeps no NUL in a text.
    fn is_possible(&self) -> bool {
        !self.contains('\0')
    }
}

impl SortKey for Vec<i32> {
    fn is_possible(&self) -> bool {
        self.len() <= usize::from(events::limits::POST_DEPTH)
    }
}

impl<K: SortKey> SortKey for Option<K> {
    fn is_possible(&self) -> bool {
        self.as_ref().is_none_or(K::is_possible)
    }
}

macro_rules! possible_in_each_part {
    ($(($($part:ident),+)),+) => {
        $(impl<$($part: SortKey),+> SortKey for ($($part,)+) {
            fn is_possible(&self) -> bool {
                #[expect(non_snake_case, reason = "a variable for each type")]
                let ($($part,)+) = self;
                $($part.is_possible())&&+
            }
        })+
    };
}

possible_in_each_part!((A, B), (A, B, C), (A, B, C, D));

impl<K: SortKey> Place<K> {
    /// The cursor that leads here in the list that is known by `name`: its address with its filters, without limit.
    pub(crate) fn to_cursor(&self, name: &str) -> String {
        let mut bytes = vec![VERSION, matches!(self.direction, Direction::Backward).into()];
        bytes.extend(mark(name));
        serde_json::to_writer(&mut bytes, &self.key).expect("a sort key is numbers, text and ids");
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor of the list that is known by `name`.
    ///
    /// # Errors
    /// 400 for what is no cursor of ours, or one of another list.
    pub(crate) fn from_cursor(cursor: &str, name: &str) -> Result<Self, Problem> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| no_cursor())?;
        let (head, key) = bytes.split_at_checked(2 + MARK).ok_or_else(no_cursor)?;
        let direction = match head[..2] {
            [VERSION, 0] => Direction::Forward,
            [VERSION, 1] => Direction::Backward,
            _ => return Err(no_cursor()),
        };
        if head[2..] != mark(name) {
            return Err(foreign_cursor());
        }
        let key: K = serde_json::from_slice(key).map_err(|_| no_cursor())?;
        let place = Self { key, direction };
        // Written otherwise than we write it: with a space, or a time in another zone.
        if place.key.is_possible() && place.to_cursor(name) == cursor { Ok(place) } else { Err(no_cursor()) }
    }
}

fn mark(name: &str) -> [u8; MARK] {
    *Sha256::digest(name).first_chunk().expect("a digest is longer")
}

pub(crate) fn no_cursor() -> Problem {
    refused("malformed_cursor", "This is no cursor: send one back as `next` or `previous` gave it.")
}

fn foreign_cursor() -> Problem {
    refused("foreign_cursor", "This cursor is of another list: keep path, filters and sorting as they were.")
}

fn refused(code: &'static str, words: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-request", words)
        .with_errors(vec![FieldError::new("?cursor", code, words)])
}

#[cfg(test)]
mod tests {
    use super::*;

    type Key = (bool, i64, String);

    fn code(cursor: &str, name: &str) -> String {
        let problem = Place::<Key>::from_cursor(cursor, name).expect_err("refused");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        problem.errors()[0].code.to_string()
    }

    #[test]
    fn a_cursor_leads_back_to_its_place() {
        for direction in [Direction::Forward, Direction::Backward] {
            let place = Place { key: (true, -7, "ü".to_owned()), direction };
            let cursor = place.to_cursor("/things?sort=new");
            assert_eq!(Place::<Key>::from_cursor(&cursor, "/things?sort=new").expect("it is its own"), place);
        }
    }

    #[test]
    fn a_cursor_of_another_list_is_refused_as_such() {
        let cursor =
            Place { key: (true, -7, String::new()), direction: Direction::Forward }.to_cursor("/things?sort=new");
        assert_eq!(code(&cursor, "/things?sort=top"), "foreign_cursor");
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = Place { key: (true, 1, String::new()), direction: Direction::Forward }.to_cursor("/things");
        let other_key = Place { key: 1, direction: Direction::Forward }.to_cursor("/things");
        let newer = URL_SAFE_NO_PAD.encode([VERSION + 1; 20]);
        for cursor in ["", "%%%", "AQ", &good[..good.len() - 3], &other_key, &newer] {
            assert_eq!(code(cursor, "/things"), "malformed_cursor", "{cursor}");
        }
    }

    #[test]
    fn what_we_cannot_have_written_is_refused() {
        type Keys = (Option<DateTime<Utc>>, String, Vec<i32>);
        let read = |key: &str| {
            let bytes = [&[VERSION, 0][..], &mark("/things"), key.as_bytes()].concat();
            Place::<Keys>::from_cursor(&URL_SAFE_NO_PAD.encode(bytes), "/things")
        };
        for good in [r#"["9999-12-31T23:59:59.999999Z","a",[2,4]]"#, r#"[null,"",[]]"#] {
            assert!(read(good).is_ok(), "{good}");
        }
        for forged in [
            r#"["+262142-12-31T23:59:59Z","a",[]]"#,
            r#"["-0001-12-31T23:59:59Z","a",[]]"#,
            r#"["2026-01-01T00:00:00+01:00","a",[]]"#,
            r#"[null,"a\u0000b",[]]"#,
            r#"[null, "a",[]]"#,
            r#"[null,"a",[1,2,3,4,5,6,7,8,9,10,11,12,13]]"#,
        ] {
            assert!(read(forged).is_err(), "{forged}");
        }
    }
}

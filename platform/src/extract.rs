//! What handlers take from a request: [`Json`] or [`NoBody`], [`Path`] and [`Query`], refused as problems that say where
//! and why.
//!
//! Unknown fields and parameters are refused, whatever the type says of itself. A type that is flattened or an untagged
//! enum hides what it ignores: such types also say `#[serde(deny_unknown_fields)]`.

mod json;
mod moment;
mod no_body;
mod path;
mod query;
mod validation;

pub use json::Json;
pub use moment::{moment, moment_field, optional_moment_field};
pub use no_body::NoBody;
pub use path::Path;
pub use query::Query;
pub use validation::invalid;

use axum::http::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_path_to_error::Segment;

use crate::problem::{FieldError, Problem};

/// What a URI fragment cannot hold as it is (RFC 3986, section 3.5).
const NOT_IN_FRAGMENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'%').add(b'<').add(b'>').add(b'[').add(b']').add(b'^').add(b'`');

/// 400 for a request that is not what the endpoint takes.
fn malformed(detail: impl std::fmt::Display, error: FieldError) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-request", detail).with_errors(vec![error])
}

/// `#/tags/0`: a JSON pointer as a URI fragment (RFC 6901, section 6).
fn pointer<'a>(path: impl IntoIterator<Item = &'a Segment>) -> String {
    let mut pointer = "#".to_owned();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            // A variant is no place in the text; what is unknown cannot be named.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Appends one part of a JSON pointer.
fn push(pointer: &mut String, part: &str) {
    let part = part.replace('~', "~0").replace('/', "~1");
    pointer.push('/');
    pointer.extend(utf8_percent_encode(&part, NOT_IN_FRAGMENT));
}

/// The `code` of a refusal by serde, from its words: they are all that it gives.
fn code(words: &str) -> &'static str {
    const CODES: [(&str, &str); 6] = [
        ("missing field", "missing_field"),
        ("unknown field", "unknown_field"),
        ("duplicate field", "duplicate_field"),
        ("unknown variant", "unknown_value"),
        ("invalid type", "wrong_type"),
        ("invalid length", "wrong_length"),
    ];
    CODES.iter().find(|(start, _)| words.starts_with(start)).map_or("invalid_value", |&(_, code)| code)
}

/// A refusal by serde, or by a `FromStr` below it, in words for people who know JSON and no Rust.
fn plain(words: &str) -> String {
    const PHRASES: [(&str, &str); 7] = [
        ("UUID parsing failed", "must be a UUID"),
        ("invalid digit found in string", "must be a whole number"),
        ("cannot parse integer from empty string", "must be a whole number"),
        ("number too large to fit in target type", "must be a smaller number"),
        ("number too small to fit in target type", "must be a larger number"),
        ("provided string was not `true` or `false`", "must be `true` or `false`"),
        ("invalid float literal", "must be a number"),
    ];
    if let Some((_, phrase)) = PHRASES.iter().find(|(start, _)| words.starts_with(start)) {
        return (*phrase).to_owned();
    }
    // What was found may quote the client, so what was expected is looked for from the end.
    let Some((found, expected)) = words.rsplit_once(", expected ") else { return words.to_owned() };
    let found = match found {
        "invalid type: map" => "invalid type: object",
        "invalid type: sequence" => "invalid type: list",
        found => found,
    };
    format!("{}, expected {}", found.replacen("unknown variant", "unknown value", 1), kind(expected))
}

/// What serde calls a type, as JSON's readers call it.
fn kind(expected: &str) -> String {
    match expected {
        "u8" => whole(u8::MIN, u8::MAX),
        "u16" => whole(u16::MIN, u16::MAX),
        "u32" => whole(u32::MIN, u32::MAX),
        "i32" => whole(i32::MIN, i32::MAX),
        "u64" | "usize" => whole(u64::MIN, u64::MAX),
        "i64" => whole(i64::MIN, i64::MAX),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "`true` or `false`".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "an object".to_owned(),
        "a formatted UUID string" => "a UUID".to_owned(),
        // Of a struct, serde says its name; of an enum, in what form it looks for one of its variants.
        expected if expected.starts_with("struct ") => "an object".to_owned(),
        expected if expected.starts_with("enum ") || expected == "variant identifier" => "a string".to_owned(),
        expected => expected.to_owned(),
    }
}

fn whole(min: impl std::fmt::Display, max: impl std::fmt::Display) -> String {
    format!("a whole number from {min} to {max}")
}

//! What handlers take from a request: [`Json`], [`Path`] and [`Query`], refused as problems that say where and why.
//!
//! Unknown fields and parameters are refused, whatever the type says of itself. A type that is flattened or an untagged
//! enum hides what it ignores: such types also say `#[serde(deny_unknown_fields)]`.

mod json;
mod path;
mod query;
mod validation;

pub use json::Json;
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

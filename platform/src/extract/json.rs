use axum::{
    body::{Body, to_bytes},
    extract::{FromRequest, OptionalFromRequest, Request},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use garde::Validate;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Segment, Track};

use super::{code, malformed, plain, pointer, push, validation};
use crate::{
    http::body,
    problem::{FieldError, Problem},
};

/// A body that is a JSON object, understood and valid by `T`'s own `garde` rules; as an answer, JSON.
///
/// Refused: 415 another media type; 413 over the limit; 408 too slow; 400 no JSON, an unknown or missing field, a wrong
/// type, a NUL character; 422 against a rule of `T`, with every rule that is broken in `errors`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        require_json(request.headers())?;
        let text = read(request.into_body()).await?;
        parse(&text).map(Self)
    }
}

/// No body and no `Content-Type` is `None`, and so is `null`.
impl<T, S> OptionalFromRequest<S> for Json<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Option<Self>, Problem> {
        let typed = request.headers().contains_key(header::CONTENT_TYPE);
        if typed {
            require_json(request.headers())?;
        }
        let text = read(request.into_body()).await?;
        match (typed, text.is_empty()) {
            (_, true) => Ok(None),
            (true, false) if text.trim_ascii() == b"null" => Ok(None),
            (true, false) => parse(&text).map(|body| Some(Self(body))),
            (false, false) => Err(unsupported("none")),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Err(unsupported("none"));
    };
    let content_type = content_type.to_str().unwrap_or_default();
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next().unwrap_or_default();
    let json = media == "application/json" || (media.starts_with("application/") && media.ends_with("+json"));
    let utf8 = parts.filter_map(|part| Some(part.strip_prefix("charset=")?.trim_matches('"').to_owned()));
    if json && utf8.into_iter().all(|charset| charset == "utf-8") { Ok(()) } else { Err(unsupported(content_type)) }
}

fn unsupported(found: &str) -> Problem {
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        format_args!("The body must be JSON in UTF-8: send Content-Type: application/json (found: {found})."),
    )
}

pub(super) async fn read(body: Body) -> Result<Bytes, Problem> {
    // The body was bounded when the request came in; no second limit here.
    to_bytes(body, usize::MAX).await.map_err(|error| body::problem(&error))
}

fn parse<T: DeserializeOwned + Validate<Context = ()>>(text: &[u8]) -> Result<T, Problem> {
    if text.is_empty() {
        return Err(malformed("The body is empty: it must be JSON.", FieldError::new("#", "empty", "empty")));
    }
    if text.trim_ascii_start().first() == Some(&b'[') {
        // serde would take a list for a struct: its fields by position.
        return Err(malformed(
            "The body must be a JSON object.",
            FieldError::new("#", "wrong_type", "must be an object"),
        ));
    }
    let mut track = Track::new();
    let mut reader = serde_json::Deserializer::from_slice(text);
    let mut ignored = None;
    let parsed = serde_ignored::deserialize(
        serde_path_to_error::Deserializer::new(&mut reader, &mut track),
        |path: serde_ignored::Path<'_>| {
            ignored.get_or_insert_with(|| ignored_pointer(&path));
        },
    );
    let parsed: T = parsed.map_err(|error| refusal(text, &error, track.path().iter()))?;
    reader.end().map_err(|error| refusal(text, &error, []))?;
    if let Some(pointer) = ignored {
        let error = FieldError::new(pointer, "unknown_field", "unknown field");
        return Err(malformed(format!("There is no field {}.", error.pointer), error));
    }
    refuse_nul(text)?;
    validation::check(&parsed, "#")?;
    Ok(parsed)
}

fn refusal<'a>(text: &[u8], error: &serde_json::Error, path: impl IntoIterator<Item = &'a Segment>) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    let words = error.to_string();
    let mut words = words.rsplit_once(" at line ").map_or(&*words, |(words, _)| words);
    // Of a number where it looks for one of an enum's names, serde_json says that it is no JSON.
    let misnamed = error.is_syntax() && serde_json::from_slice::<Value>(text).is_ok();
    if misnamed {
        words = "invalid type, expected a string";
    }
    if error.is_data() || misnamed {
        let mut pointer = pointer(path);
        if let Some(field) = named_field(words) {
            push(&mut pointer, field);
        }
        let (code, words) = (code(words), plain(words));
        let detail = format!("The body does not fit at {pointer} ({place}): {words}.");
        malformed(detail, FieldError::new(pointer, code, words))
    } else {
        let detail = format!("The body is not valid JSON ({place}): {words}.");
        malformed(detail, FieldError::new("#", "invalid_json", words))
    }
}

/// The field that is missing or doubled: serde says it of the object that it should be in.
fn named_field(words: &str) -> Option<&str> {
    let words = words.strip_prefix("missing field `").or_else(|| words.strip_prefix("duplicate field `"))?;
    words.strip_suffix('`')
}

fn ignored_pointer(path: &serde_ignored::Path<'_>) -> String {
    fn collect(path: &serde_ignored::Path<'_>, segments: &mut Vec<Segment>) {
        use serde_ignored::Path as P;
        match path {
            P::Root => {}
            P::Seq { parent, index } => {
                collect(parent, segments);
                segments.push(Segment::Seq { index: *index });
            }
            P::Map { parent, key } => {
                collect(parent, segments);
                segments.push(Segment::Map { key: key.clone() });
            }
            P::Some { parent } | P::NewtypeStruct { parent } | P::NewtypeVariant { parent } => {
                collect(parent, segments);
            }
        }
    }
    let mut segments = Vec::new();
    collect(path, &mut segments);
    pointer(&segments)
}

/// Postgres stores no NUL in a text, so it is refused here, where the field can be named. As JSON has it only in its
/// escaped form, one search settles nearly every body.
fn refuse_nul(text: &[u8]) -> Result<(), Problem> {
    if !str::from_utf8(text).is_ok_and(|text| text.contains(r"\u0000")) {
        return Ok(());
    }
    // It may still be an escaped backslash before "u0000".
    let value = serde_json::from_slice(text).unwrap_or_default();
    let Some(path) = nul(&value) else { return Ok(()) };
    let error = FieldError::new(pointer(&path), "nul_character", "must not contain the character U+0000");
    Err(malformed(format!("There is a NUL character at {}.", error.pointer), error))
}

/// The path of the first key or text that contains a NUL.
fn nul(value: &Value) -> Option<Vec<Segment>> {
    let below = |segment, value| {
        let mut path = nul(value)?;
        path.insert(0, segment);
        Some(path)
    };
    match value {
        Value::String(text) => text.contains('\0').then(Vec::new),
        Value::Array(values) => {
            values.iter().enumerate().find_map(|(index, value)| below(Segment::Seq { index }, value))
        }
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let segment = Segment::Map { key: key.clone() };
            if key.contains('\0') { Some(vec![segment]) } else { below(segment, value) }
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests;

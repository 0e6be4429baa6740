use axum::{
    extract::{FromRequestParts, Path as AxumPath, RawPathParams, path::ErrorKind, rejection::PathRejection},
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use super::{kind as kind_of, malformed, plain};
use crate::problem::{FieldError, Problem};

/// The named parts of the path, refused with 400 where one is not what it must be (an id that is no UUID, bad UTF-8, a
/// NUL character).
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.path().contains("%00") {
            return Err(nul(parts, state).await);
        }
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error)) => Err(refusal(error.into_kind())),
            // The route has no such parts: a defect of ours.
            Err(error) => Err(Problem::internal(&error)),
        }
    }
}

async fn nul<S: Send + Sync>(parts: &mut Parts, state: &S) -> Problem {
    let named = RawPathParams::from_request_parts(parts, state).await.ok();
    let name = named.as_ref().and_then(|named| named.iter().find(|(_, value)| value.contains('\0')));
    let pointer = name.map_or_else(String::new, |(name, _)| format!("{{{name}}}"));
    let error = FieldError::new(pointer, "nul_character", "must not contain the character U+0000");
    malformed("There is a NUL character in the path.", error)
}

fn refusal(kind: ErrorKind) -> Problem {
    let (name, code, words) = match kind {
        ErrorKind::ParseErrorAtKey { key, value, expected_type } => {
            (key, "invalid_value", format!("`{value}`: expected {}", kind_of(expected_type)))
        }
        ErrorKind::DeserializeError { key, value, message } => {
            (key, "invalid_value", format!("`{value}`: {}", plain(&message)))
        }
        ErrorKind::InvalidUtf8InPathParam { key } => (key, "invalid_utf8", "not valid UTF-8".to_owned()),
        ErrorKind::ParseError { value, expected_type } | ErrorKind::ParseErrorAtIndex { value, expected_type, .. } => {
            (String::new(), "invalid_value", format!("`{value}`: expected {}", kind_of(expected_type)))
        }
        ErrorKind::Message(words) => (String::new(), "invalid_value", plain(&words)),
        // Only a route whose handler takes what it does not have.
        other => return Problem::internal(&std::io::Error::other(other.to_string())),
    };
    let pointer = if name.is_empty() { name } else { format!("{{{name}}}") };
    let detail = format!("The path does not fit{}{pointer}: {words}.", if pointer.is_empty() { "" } else { " at " });
    malformed(detail, FieldError::new(pointer, code, words))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use serde_json::json;
    use tower::ServiceExt;
    use uuid::Uuid;

    use super::*;
    use crate::testing;

    async fn get_things(path: &str) -> (u16, serde_json::Value) {
        let router = Router::new()
            .route("/things/{id}", get(|Path(id): Path<Uuid>| async move { id.to_string() }))
            .route("/named/{name}", get(|Path(name): Path<String>| async move { name }))
            .route("/pages/{name}/{page}", get(|Path((_, page)): Path<(String, u32)>| async move { page.to_string() }));
        let request = Request::get(path).body(Body::empty()).expect("a request");
        testing::read(router.oneshot(request).await.expect("an answer")).await
    }

    #[tokio::test]
    async fn an_id_that_is_no_uuid_is_refused_by_name() {
        let (status, body) = get_things("/things/42").await;
        assert_eq!((status, &body["type"]), (400, &json!("/problems/malformed-request")));
        assert_eq!(body["errors"][0]["pointer"], "{id}");
        assert_eq!(body["errors"][0]["code"], "invalid_value");
    }

    #[tokio::test]
    async fn bad_utf8_and_nul_are_refused_by_name() {
        let (status, body) = get_things("/named/a%FFb").await;
        assert_eq!((status, &body["errors"][0]["code"]), (400, &json!("invalid_utf8")));
        let (status, body) = get_things("/named/a%00b").await;
        assert_eq!((status, &body["errors"][0]["code"]), (400, &json!("nul_character")));
        assert_eq!(body["errors"][0]["pointer"], "{name}");
    }

    #[tokio::test]
    async fn a_number_that_is_none_is_refused() {
        let (status, body) = get_things("/pages/x/many").await;
        assert_eq!((status, &body["errors"][0]["code"]), (400, &json!("invalid_value")));
    }
}

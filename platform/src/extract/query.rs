use axum::{extract::FromRequestParts, http::request::Parts};
use garde::Validate;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Segment, Track};

use super::{code, malformed, plain, validation};
use crate::problem::{FieldError, Problem};

/// The query, understood and valid by `T`'s own `garde` rules. Refused: 400 an unknown or doubled parameter, a wrong
/// type, bad UTF-8, a NUL character; 422 against a rule of `T`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned + Validate<Context = ()>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        // `form_urlencoded` would put U+FFFD in place of what is no UTF-8.
        let refused = match percent_decode_str(query).decode_utf8() {
            Err(_) => Some(("invalid_utf8", "is not valid UTF-8")),
            Ok(decoded) if decoded.contains('\0') => Some(("nul_character", "contains the character U+0000")),
            Ok(_) => None,
        };
        if let Some((code, words)) = refused {
            return Err(malformed(format_args!("The query {words}."), FieldError::new("?", code, words)));
        }
        parse(query).map(Self)
    }
}

fn parse<T: DeserializeOwned + Validate<Context = ()>>(query: &str) -> Result<T, Problem> {
    let mut track = Track::new();
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    let mut ignored = None;
    let parsed: Result<T, _> = serde_ignored::deserialize(
        serde_path_to_error::Deserializer::new(pairs, &mut track),
        |path: serde_ignored::Path<'_>| {
            ignored.get_or_insert_with(|| path.to_string());
        },
    );
    let refused = match (parsed, ignored) {
        (Ok(parsed), None) => {
            validation::check(&parsed, "?")?;
            return Ok(parsed);
        }
        (Ok(_), Some(name)) => FieldError::new(format!("?{name}"), "unknown_parameter", "unknown parameter"),
        (Err(error), _) => {
            let words = error.to_string();
            let name = match track.path().iter().next_back() {
                Some(Segment::Map { key }) => key.clone(),
                // A doubled parameter is named in serde's words only.
                _ => words.split('`').nth(1).unwrap_or_default().to_owned(),
            };
            let code = code(&words).replace("field", "parameter");
            FieldError::new(format!("?{name}"), code, plain(&words).replace("field", "parameter"))
        }
    };
    Err(malformed(format_args!("The query does not fit at {}: {}.", refused.pointer, refused.detail), refused.clone()))
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::get};
    use serde::Deserialize;
    use tower::ServiceExt;

    use super::*;
    use crate::testing;

    #[derive(Deserialize, Validate)]
    #[serde(default)]
    struct Page {
        #[garde(range(min = 1, max = 100))]
        limit: u32,
        #[garde(length(chars, max = 5))]
        name: Option<String>,
    }

    impl Default for Page {
        fn default() -> Self {
            Self { limit: 10, name: None }
        }
    }

    async fn asked(query: &str) -> (u16, serde_json::Value) {
        let handler = |Query(page): Query<Page>| async move { format!("\"{} {:?}\"", page.limit, page.name.is_some()) };
        let router = Router::new().route("/", get(handler));
        let request = Request::get(format!("/{query}")).body(Body::empty()).expect("a request");
        testing::read(router.oneshot(request).await.expect("an answer")).await
    }

    #[tokio::test]
    async fn defaults_stand_where_nothing_is_said() {
        assert_eq!(asked("").await, (200, "10 false".into()));
        assert_eq!(asked("?limit=20&name=ada").await, (200, "20 true".into()));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_by_name() {
        let (_, body) = asked("?limit=many").await;
        assert_eq!(body["errors"][0]["detail"], "must be a whole number");
        let cases = [
            ("?limti=20", 400, "?limti", "unknown_parameter"),
            ("?limit=many", 400, "?limit", "invalid_value"),
            ("?limit=1&limit=2", 400, "?limit", "duplicate_parameter"),
            ("?name=%FF", 400, "?", "invalid_utf8"),
            ("?name=%00", 400, "?", "nul_character"),
            ("?limit=0", 422, "?limit", "too_small"),
            ("?name=abcdef", 422, "?name", "too_long"),
        ];
        for (query, status, pointer, code) in cases {
            let (answered, body) = asked(query).await;
            let error = &body["errors"][0];
            assert_eq!(
                (answered, &error["pointer"], &error["code"]),
                (status, &pointer.into(), &code.into()),
                "{body}"
            );
        }
    }
}

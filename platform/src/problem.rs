//! Refusals and failures as clients see them: RFC 9457 problem details.

use std::{
    borrow::Cow,
    error::Error,
    fmt::{self, Display, Write as _},
    sync::Arc,
    time::Duration,
};

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// The media type of every problem (RFC 9457, section 3).
pub const CONTENT_TYPE: &str = "application/problem+json";

/// A refusal or failure, answered as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug)]
pub struct Problem {
    name: &'static str,
    status: StatusCode,
    detail: String,
    errors: Vec<FieldError>,
    headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

/// A [`Problem`] as it is sent.
#[derive(Serialize, ToSchema)]
struct Body<'a> {
    /// What kind of problem it is: a stable URI reference, `/problems/<name>`. Programs tell problems apart by it.
    #[schema(example = "/problems/not-found")]
    r#type: String,
    /// The kind in words, the same for every occurrence.
    #[schema(example = "Not found")]
    title: String,
    /// The HTTP status code, again.
    #[schema(example = 404)]
    status: u16,
    /// What went wrong this time, and what to do about it.
    detail: &'a str,
    /// Which parts of the request are to blame, where that is known.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
}

/// Why a problem is a failure of ours, for the log: it travels beside the answer to whoever logs the request, as an
/// extension of the response.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) Arc<str>);

/// Which problem an answer is, for the log, as [`Cause`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name(pub(crate) &'static str);

/// One part of a request that is to blame for a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// Where: `#/tags/0` in the body (JSON pointer as a URI fragment, RFC 6901 section 6), `?limit` in the query,
    /// `{id}` in the path.
    #[schema(example = "#/tags/0")]
    pub pointer: String,
    /// What is wrong, in a word that stays the same: `too_long`, `unknown_field`, …
    #[schema(value_type = String, example = "too_long")]
    pub code: Cow<'static, str>,
    /// What is wrong, in a sentence.
    pub detail: String,
}

impl Problem {
    /// A problem of the kind `name` (lower-case words joined by hyphens, stable: it becomes the `type`), with what
    /// went wrong this time in `detail`, which is shown to the client.
    pub fn new(status: StatusCode, name: &'static str, detail: impl Display) -> Self {
        Self { name, status, detail: detail.to_string(), errors: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// A failure of ours, with [`Problem::with_cause`].
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal-error",
            "Something failed on our side and was logged. The x-request-id of this answer finds it there.",
        )
        .with_cause(cause)
    }

    /// Something we depend on, or we ourselves, cannot serve now; the same request may succeed after `retry_after`.
    pub fn unavailable(detail: impl Display, retry_after: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).with_retry_after(retry_after)
    }

    /// The same, naming the parts of the request that are to blame.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The same, with `Retry-After` in whole seconds, rounded up, at least 1 (RFC 9110, section 10.2.3).
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// The same, with one more header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same, because of `cause`. It and the causes below it are logged when the request is answered, and nothing of
    /// them is shown.
    #[must_use]
    pub fn with_cause(mut self, cause: &(dyn Error + 'static)) -> Self {
        self.cause = Some(Cause(Chain(cause).to_string().into()));
        self
    }

    /// What is sent.
    pub(crate) fn to_json(&self) -> String {
        let body = Body {
            r#type: format!("/problems/{}", self.name),
            title: title(self.name),
            status: self.status.as_u16(),
            detail: &self.detail,
            errors: &self.errors,
        };
        serde_json::to_string(&body).expect("strings and numbers serialise")
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The last part of its `type`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it says went wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Why it is a failure of ours, for the log of who answers no client; none where it is a refusal.
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_ref().map(|Cause(cause)| &**cause)
    }

    /// The parts of the request that are to blame.
    pub fn errors(&self) -> &[FieldError] {
        &self.errors
    }
}

impl FieldError {
    /// `pointer` as it is to be shown: see [`FieldError::pointer`].
    pub fn new(pointer: impl Into<String>, code: impl Into<Cow<'static, str>>, detail: impl Display) -> Self {
        Self { pointer: pointer.into(), code: code.into(), detail: detail.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        // Who asks again may be answered differently, and so may somebody else.
        let headers = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, self.to_json()).into_response();
        if self.status == StatusCode::UNAUTHORIZED
            && self.headers.iter().all(|(name, _)| name != header::WWW_AUTHENTICATE)
        {
            // Each 401 has one (RFC 9110, section 15.5.2).
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        for (name, value) in self.headers {
            response.headers_mut().append(name, value);
        }
        response.extensions_mut().insert(Name(self.name));
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Body::schema()
    }
}

impl ToSchema for Problem {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.name, self.detail)
    }
}

impl Error for Problem {}

impl From<anyhow::Error> for Problem {
    /// As [`From<sqlx::Error>`] where that is the cause, else [`Problem::internal`].
    fn from(error: anyhow::Error) -> Self {
        match error.downcast::<sqlx::Error>() {
            Ok(error) => error.into(),
            Err(error) => Self::internal(error.as_ref()),
        }
    }
}

impl From<sqlx::Error> for Problem {
    /// A database that is away or overloaded is worth another try; anything else is a defect of ours.
    fn from(error: sqlx::Error) -> Self {
        if !crate::db::is_passing(&error) {
            return Self::internal(&error);
        }
        Self::unavailable("The database cannot serve this now.", Duration::from_secs(1)).with_cause(&error)
    }
}

/// An error and the causes below it, on one line.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        let mut below = self.0.source();
        while let Some(cause) = below {
            // Many errors say their source in their own words.
            let words = cause.to_string();
            if !said.contains(&words) {
                write!(said, ": {words}")?;
            }
            below = cause.source();
        }
        f.write_str(&said)
    }
}

fn title(name: &str) -> String {
    let mut words = name.replace('-', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    async fn answered(problem: Problem) -> (Response<()>, Value) {
        let (parts, body) = problem.into_response().into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("the body is whole");
        (Response::from_parts(parts, ()), serde_json::from_slice(&body).expect("the body is JSON"))
    }

    #[tokio::test]
    async fn says_type_title_status_and_detail() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "own-thing", "It is yours.");
        let (response, body) = answered(problem).await;
        assert_eq!(response.status(), 422);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(
            body,
            json!({"type": "/problems/own-thing", "title": "Own thing", "status": 422, "detail": "It is yours."})
        );
    }

    #[tokio::test]
    async fn names_the_parts_to_blame() {
        let error = FieldError::new("#/tags/0", "too_long", "at most 48 characters");
        let (_, body) = answered(Problem::new(StatusCode::BAD_REQUEST, "x", "y").with_errors(vec![error])).await;
        assert_eq!(
            body["errors"],
            json!([{"pointer": "#/tags/0", "code": "too_long", "detail": "at most 48 characters"}])
        );
    }

    #[tokio::test]
    async fn retry_after_is_in_whole_seconds_and_never_0() {
        for (after, header) in [(0, "1"), (1, "1"), (1_500, "2"), (3_000, "3")] {
            let (response, _) = answered(Problem::unavailable("busy", Duration::from_millis(after))).await;
            assert_eq!(response.headers()["retry-after"], header);
        }
    }

    #[tokio::test]
    async fn a_401_says_how_to_log_in() {
        let refused = Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Who are you?");
        let (response, _) = answered(refused.clone()).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        let (response, _) =
            answered(refused.with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"x\"")))
                .await;
        let said: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(said, ["Bearer error=\"x\""]);
    }

    #[tokio::test]
    async fn a_cause_is_never_shown() {
        let cause = std::io::Error::other("password=hunter2");
        let (response, body) = answered(Problem::internal(&cause)).await;
        assert_eq!(response.status(), 500);
        assert!(!body.to_string().contains("hunter2"));
    }

    #[test]
    fn a_passing_failure_of_the_database_may_be_tried_again() {
        assert_eq!(Problem::from(sqlx::Error::PoolTimedOut).status(), 503);
        assert_eq!(Problem::from(anyhow::Error::from(sqlx::Error::PoolTimedOut)).status(), 503);
        assert_eq!(Problem::from(sqlx::Error::RowNotFound).status(), 500);
    }

    #[test]
    fn its_schema_is_that_of_what_is_sent() {
        let schema = serde_json::to_value(Problem::schema()).expect("JSON");
        assert_eq!(<Problem as ToSchema>::name(), "Problem");
        assert_eq!(schema["required"], json!(["type", "title", "status", "detail"]));
        assert_eq!(schema["properties"]["errors"]["type"], "array");
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let error = anyhow::Error::from(std::io::Error::other("disk on fire")).context("cannot write");
        assert_eq!(Chain(error.as_ref()).to_string(), "cannot write: disk on fire");
    }
}

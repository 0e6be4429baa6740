use axum::extract::{FromRequest, Request};

use super::{json::read, malformed};
use crate::problem::{FieldError, Problem};

/// Nothing where others take a body: none at all, or one that says nothing (`{}`, `null`). What says something is refused
/// with 400, as it would be ignored.
#[derive(Clone, Copy, Debug)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let text = read(request.into_body()).await?;
        let said: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        if matches!(said.as_slice(), b"" | b"{}" | b"null") {
            return Ok(Self);
        }
        let words = "no body is taken here";
        Err(malformed("This takes no body.", FieldError::new("#", "unexpected_body", words)))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::Request, routing::delete};
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn what_says_nothing_is_no_body_and_anything_else_is_refused() {
        let router = Router::new().route("/", delete(|NoBody| async { "true" }));
        for (body, status) in
            [("", 200), ("{}", 200), (" null\n", 200), ("{\"reason\": \"x\"}", 400), ("x", 400), ("[]", 400)]
        {
            let request = Request::delete("/").body(Body::from(body)).expect("a request");
            let answer = testing::read(router.clone().oneshot(request).await.expect("an answer")).await;
            assert_eq!(answer.0, status, "{body}");
            if status == 400 {
                assert_eq!(answer.1["errors"][0]["code"], json!("unexpected_body"));
            }
        }
    }
}

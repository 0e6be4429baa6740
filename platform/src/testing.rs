//! What the tests of this crate share.

use axum::{body::to_bytes, response::Response};
use serde_json::Value;

/// The status and body of an answer; a body that is no JSON as a string.
pub(crate) async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.expect("the body is whole");
    let text = String::from_utf8_lossy(&body).into_owned();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

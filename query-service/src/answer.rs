//! The HTTP side of an answer: conditions and validators (RFC 9110, sections 8.8 and 13), caching (RFC 9111).

use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use events::PositionToken;
use http_body::{Frame, SizeHint};

use crate::freshness::AGORA_POSITION;

/// The headers of a request that an answer differs by.
const VARY: HeaderValue = HeaderValue::from_static("accept-encoding, agora-position, authorization, prefer");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// May be kept, and must be asked about before each use: who may see is decided each time.
const CHECK_FIRST: HeaderValue = HeaderValue::from_static("no-cache");
/// The same, by the client only.
const CHECK_FIRST_PRIVATELY: HeaderValue = HeaderValue::from_static("private, no-cache");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `"<version>-<hash of the answer>"`: `If-Match` of a command compares the version part, `If-None-Match` the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ETag {
    /// The version of the stream that the answer shows; 0 where it shows several.
    pub(crate) version: i64,
    pub(crate) hash: u64,
}

impl ETag {
    fn header(self) -> HeaderValue {
        HeaderValue::from_str(&self.to_string()).expect("digits")
    }
}

impl std::fmt::Display for ETag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}-{:016x}\"", self.version, self.hash)
    }
}

/// `If-None-Match`: the answers that the client has already.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(Vec<HeaderValue>);

impl Known {
    /// Whether the client has it: compared weakly, as RFC 9110 asks (section 13.1.2); `*` is any.
    pub(crate) fn has(&self, etag: ETag) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let ours = etag.to_string();
        let listed = self.0.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        listed.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == ours)
    }

    fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect())
    }
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// A body in at most two pieces, of known length.
#[derive(Clone, Debug)]
pub(crate) struct Whole([Bytes; 2]);

impl Whole {
    /// A body in one piece.
    pub(crate) fn of(body: impl Into<Bytes>) -> Self {
        Self([body.into(), Bytes::new()])
    }

    /// The same, and this after it.
    pub(crate) fn and(self, end: Bytes) -> Self {
        let Self([first, _]) = self;
        Self([first, end])
    }
}

impl HttpBody for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.0.iter_mut().map(mem::take).find(|piece| !piece.is_empty());
        Poll::Ready(next.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// An answer, ready but for the condition.
pub(crate) struct Answer {
    pub(crate) etag: ETag,
    pub(crate) body: Whole,
    pub(crate) links: Option<HeaderValue>,
    /// What it reflects.
    pub(crate) positions: Vec<PositionToken>,
    /// The reader said who it is: nobody else may be shown this.
    pub(crate) signed_in: bool,
    /// The wait that was asked for and granted, in seconds.
    pub(crate) waited: Option<u64>,
}

impl Answer {
    /// The answer itself, or 304 where the client has it.
    pub(crate) fn respond(self, known: &Known) -> Response {
        let mut response = if known.has(self.etag) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, JSON)], Body::new(self.body)).into_response()
        };
        let headers = response.headers_mut();
        headers.insert(header::ETAG, self.etag.header());
        headers.insert(header::CACHE_CONTROL, if self.signed_in { CHECK_FIRST_PRIVATELY } else { CHECK_FIRST });
        headers.insert(header::VARY, VARY);
        headers.extend(self.links.map(|links| (header::LINK, links)));
        headers.extend(position_header(&self.positions).map(|positions| (AGORA_POSITION, positions)));
        headers.extend(self.waited.map(|seconds| (PREFERENCE_APPLIED, wait_header(seconds))));
        response
    }
}

fn position_header(positions: &[PositionToken]) -> Option<HeaderValue> {
    use std::fmt::Write as _;
    let mut value = String::with_capacity(positions.len() * 64);
    for (index, token) in positions.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(value, "{separator}{token}").expect("a String takes it");
    }
    (!value.is_empty()).then(|| HeaderValue::from_str(&value).expect("tokens are ASCII"))
}

fn wait_header(seconds: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("wait={seconds}")).expect("digits")
}

#[cfg(test)]
mod tests {
    use events::{HistoryId, Shard};

    use super::*;

    const ETAG: ETag = ETag { version: 12, hash: 0xfeed };

    fn known(lines: &[&'static str]) -> Known {
        let lines = lines.iter().map(|line| (header::IF_NONE_MATCH, HeaderValue::from_static(line)));
        Known::of(&lines.collect())
    }

    fn answer() -> Answer {
        let shard = Shard::try_from(3_i16).expect("a shard");
        let token = |position| PositionToken { history: HistoryId(uuid::Uuid::nil()), shard, position };
        Answer {
            etag: ETAG,
            body: Whole::of(&b"{}"[..]),
            links: Some(HeaderValue::from_static("</>; rel=\"first\"")),
            positions: vec![token(1), token(2)],
            signed_in: false,
            waited: Some(5),
        }
    }

    #[test]
    fn what_the_client_has_is_told_whole_and_weakly() {
        assert_eq!(ETAG.to_string(), "\"12-000000000000feed\"");
        for line in
            ["*", "\"12-000000000000feed\"", "\"x\", W/\"12-000000000000feed\"", "\"x\",\"12-000000000000feed\""]
        {
            assert!(known(&[line]).has(ETAG), "{line}");
        }
        for line in ["", "12-000000000000feed", "\"12-\"", "\"13-000000000000feed\""] {
            assert!(!known(&[line]).has(ETAG), "{line}");
        }
        assert!(known(&["\"x\"", "\"12-000000000000feed\""]).has(ETAG));
        assert!(!Known::default().has(ETAG));
    }

    #[test]
    fn an_answer_says_what_it_reflects_and_how_long_it_holds() {
        let response = answer().respond(&Known::default());
        assert_eq!(response.status(), StatusCode::OK);
        let headers = response.headers();
        assert_eq!(headers["etag"], "\"12-000000000000feed\"");
        assert_eq!(headers["cache-control"], "no-cache");
        assert_eq!(headers["preference-applied"], "wait=5");
        let nil = uuid::Uuid::nil();
        assert_eq!(headers["agora-position"], format!("{nil}.3.1, {nil}.3.2"));
        assert!(headers["vary"].to_str().expect("ASCII").contains("agora-position"));
    }

    #[test]
    fn a_304_has_the_validators_and_no_body() {
        let response = Answer { signed_in: true, ..answer() }.respond(&known(&["*"]));
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(response.headers()["etag"], "\"12-000000000000feed\"");
        assert_eq!(response.headers()["cache-control"], "private, no-cache");
        assert!(!response.headers().contains_key("content-type"));
    }
}

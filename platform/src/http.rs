//! The HTTP server and what stands before every handler: limits of time and size, request ids, traces, metrics,
//! compression, CORS, and problems for what no handler answers.

pub(crate) mod body;
mod chassis;
mod on_header;
mod seen;
mod serve;
mod socket;

pub use seen::RequestId;
pub use serve::{Stopping, bind, serve};

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
    routing::get,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tower::{ServiceBuilder, util::option_layer};
use tower_http::{
    compression::{
        CompressionLayer,
        predicate::{NotForContentType, Predicate, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

use self::on_header::OnHeaderLayer;
use crate::{
    config::{self, duration},
    health::{self, Health},
    limits::{COMPRESS_FROM_BYTES, CORS_MAX_AGE},
    problem::Problem,
    telemetry,
};

/// Request headers that scripts of other origins may set. A `*` would not cover Authorization (Fetch standard).
const ALLOWED_HEADERS: [&str; 13] = [
    "agora-occurred-at",
    "agora-on-behalf-of",
    "agora-position",
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "prefer",
    "traceparent",
    "tracestate",
    "x-request-id",
];
/// Answer headers that scripts of other origins may read.
const EXPOSED_HEADERS: [&str; 9] = [
    "agora-position",
    "agora-unchanged",
    "etag",
    "idempotency-replayed",
    "link",
    "location",
    "retry-after",
    "traceresponse",
    "x-request-id",
];

/// Where a service listens, and how long and how much it takes from a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// The public address.
    pub listen: SocketAddr,
    /// The address of `/metrics` and `/health`, for operators.
    pub admin_listen: SocketAddr,
    /// How long a client may take to send a request's head, and how long a connection may lie idle between requests.
    #[serde(with = "duration::positive")]
    pub header_timeout: Duration,
    /// A request's head at most, in bytes (431 above).
    pub header_limit_bytes: usize,
    /// How long a client may take to send a request's body (408 after).
    #[serde(with = "duration::positive")]
    pub body_timeout: Duration,
    /// A request's body at most, in bytes (413 above).
    pub body_limit_bytes: usize,
    /// How long a handler may take to begin its answer (503 after).
    #[serde(with = "duration::positive")]
    pub handler_timeout: Duration,
    /// Open connections at most; more wait to be accepted.
    #[serde(deserialize_with = "config::positive")]
    pub max_connections: usize,
    /// Commands (requests of other methods than GET, HEAD and OPTIONS) in progress at most, of those that are all
    /// here; one more is answered 503 at once, before anything is done for it. As many as one flush of the event store
    /// holds: others might wait for another.
    #[serde(deserialize_with = "config::positive")]
    pub max_commands: usize,
    /// How long requests may go on after a shutdown began, before their connections are cut.
    #[serde(with = "duration")]
    pub shutdown_grace: Duration,
    /// Origins whose scripts may call the API, `["*"]` for all, none for no CORS at all. Credentials are never allowed:
    /// tokens travel in a header.
    #[serde(deserialize_with = "origins")]
    pub cors_origins: Vec<String>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9090)),
            header_timeout: Duration::from_secs(15),
            header_limit_bytes: 32 * 1024,
            body_timeout: Duration::from_secs(15),
            body_limit_bytes: 1024 * 1024,
            handler_timeout: Duration::from_secs(30),
            max_connections: 10_000,
            max_commands: 1_024,
            shutdown_grace: Duration::from_secs(10),
            cors_origins: vec!["*".to_owned()],
        }
    }
}

/// Reads origins (RFC 6454), or the one word `*`.
fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let origins = Vec::<String>::deserialize(deserializer)?;
    let is_origin = |text: &String| {
        let rest = text.split_once("://").map(|(_, rest)| rest);
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|c| c.is_ascii_graphic() && c != b'/'))
    };
    match origins.iter().find(|text| !is_origin(text)) {
        Some(wrong) if origins != ["*"] => Err(D::Error::custom(format_args!(
            "{wrong:?} is no origin like \"https://forum.example\", and not the only \"*\""
        ))),
        _ => Ok(origins),
    }
}

/// Puts before a service's finished router what every request passes. Once, last of all, after [`telemetry::init`]: the
/// router must have no fallbacks of its own.
///
/// # Panics
/// On an origin that no header can hold.
pub fn layers(router: Router, config: &HttpConfig) -> Router {
    let compression = CompressionLayer::new()
        .compress_when(SizeAbove::new(COMPRESS_FROM_BYTES).and(NotForContentType::IMAGES).and(NotForContentType::SSE));
    let compression = ServiceBuilder::new()
        .map_request(plain_is_accepted)
        .map_response(|response: Response<_>| weaken_tag(response.map(Body::new)))
        .layer(compression);
    let stack = ServiceBuilder::new()
        .layer(option_layer(cors(&config.cors_origins).map(|cors| OnHeaderLayer::new(header::ORIGIN, cors))))
        .layer(chassis::ChassisLayer::new(config))
        .layer(OnHeaderLayer::new(header::ACCEPT_ENCODING, compression.into_inner()));
    router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        // Without this, axum would build each handler and the layers before it anew for every request.
        .with_state(())
        .layer(stack)
}

/// Who accepts no coding at all, not even none, is answered without one (RFC 9110, section 12.5.3, leaves it to the
/// server): what a command did is done, and a 406 in place of its answer would say otherwise.
fn plain_is_accepted(mut request: Request) -> Request {
    let accepted = request.headers().get_all(header::ACCEPT_ENCODING).iter();
    let codings: Vec<&str> =
        accepted.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).collect();
    let refuses_plain = |coding: &&str| {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        (name == "*" || name.eq_ignore_ascii_case("identity"))
            && weight.is_some_and(|weight| weight.trim().parse() == Ok(0.0))
    };
    if codings.iter().any(refuses_plain) {
        let others: Vec<&str> = codings.iter().copied().filter(|coding| !refuses_plain(coding)).collect();
        let others = HeaderValue::from_str(&others.join(","));
        let _ = others.map(|others| request.headers_mut().insert(header::ACCEPT_ENCODING, others));
    }
    request
}

/// A compressed answer has other bytes than the one that its tag was made for: they are the same in meaning only
/// (RFC 9110, section 8.8.1).
fn weaken_tag(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.contains_key(header::CONTENT_ENCODING)
        && let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\""))
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        headers.insert(header::ETAG, weak);
    }
    response
}

/// What operators and their tools ask, on an address of its own: `/metrics` (Prometheus), `/health/live`,
/// `/health/ready`.
pub fn admin_router(health: Health) -> Router {
    let metrics = get(|| async { ([(header::CONTENT_TYPE, telemetry::PROMETHEUS)], telemetry::prometheus_text()) });
    Router::from(health::routes(health)).route("/metrics", metrics)
}

fn cors(origins: &[String]) -> Option<CorsLayer> {
    let allowed = match origins {
        [] => return None,
        [any] if any == "*" => AllowOrigin::any(),
        some => AllowOrigin::list(
            some.iter().map(|origin| HeaderValue::from_str(origin).expect("an origin is visible ASCII")),
        ),
    };
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods(methods)
            .allow_headers(ALLOWED_HEADERS.map(HeaderName::from_static))
            .expose_headers(EXPOSED_HEADERS.map(HeaderName::from_static))
            .max_age(CORS_MAX_AGE),
    )
}

async fn not_found(uri: axum::http::Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-endpoint", format_args!("There is no endpoint {}.", uri.path()))
}

/// axum itself adds `Allow`.
async fn method_not_allowed(method: Method, uri: axum::http::Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        format_args!("{} does not take {method}: see the Allow header.", uri.path()),
    )
}

#[cfg(test)]
mod tests;

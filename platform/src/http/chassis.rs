//! What happens around every handler. One layer rather than six: each would cost every request an allocation.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, HttpBody},
    extract::{FromRequestParts, MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use futures::{FutureExt, future::BoxFuture};
use opentelemetry::{
    KeyValue,
    metrics::{Histogram, UpDownCounter},
};
use tokio::time::timeout;
use tower::{Layer, Service};
use tracing::{Instrument, Span, field};
use uuid::Builder;

use super::{
    HttpConfig,
    body::{Bounded, too_large},
};
use crate::{limits::REQUEST_ID_BYTES, problem::Problem, telemetry};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
/// When a request that took too long may be tried again.
const RETRY_AFTER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of the duration histogram, in seconds: from a cached read to the handler's time limit.
const BUCKETS: [f64; 15] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Names a request in logs and answers: the client's `X-Request-Id`, or one of ours.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id: visible ASCII, at most 64 bytes.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn of(request: &Request) -> Self {
        let given = request.headers().get(REQUEST_ID).filter(|id| id.len() <= REQUEST_ID_BYTES && id.to_str().is_ok());
        Self(given.cloned().unwrap_or_else(|| {
            let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
            let id = Builder::from_random_bytes(rand::random()).into_uuid();
            HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).expect("a UUID is visible ASCII")
        }))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // Missing only where a test calls a router without its layers.
        Ok(parts.extensions.get().cloned().unwrap_or_else(|| Self(HeaderValue::from_static("none"))))
    }
}

/// Wraps a service in a [`Chassis`].
#[derive(Clone)]
pub(super) struct ChassisLayer(Arc<Shared>);

/// See the module.
#[derive(Clone)]
pub(super) struct Chassis<S> {
    inner: S,
    shared: Arc<Shared>,
}

struct Shared {
    body_limit: usize,
    body_timeout: Duration,
    handler_timeout: Duration,
    duration: Histogram<f64>,
    active: UpDownCounter<i64>,
}

impl ChassisLayer {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let meter = opentelemetry::global::meter("agora");
        Self(Arc::new(Shared {
            body_limit: config.body_limit_bytes,
            body_timeout: config.body_timeout,
            handler_timeout: config.handler_timeout,
            // Names and units: OpenTelemetry's semantic conventions for HTTP servers.
            duration: meter
                .f64_histogram("http.server.request.duration")
                .with_description("Time until an answer began, by route, method and status")
                .with_unit("s")
                .with_boundaries(BUCKETS.to_vec())
                .build(),
            active: meter
                .i64_up_down_counter("http.server.active_requests")
                .with_description("Requests that are being handled")
                .with_unit("{request}")
                .build(),
        }))
    }
}

impl<S> Layer<S> for ChassisLayer {
    type Service = Chassis<S>;

    fn layer(&self, inner: S) -> Chassis<S> {
        Chassis { inner, shared: Arc::clone(&self.0) }
    }
}

impl<S, B> Service<Request> for Chassis<S>
where
    S: Service<Request, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        let seen = Seen::new(&request, &shared);
        request.extensions_mut().insert(seen.id.clone());
        let span = seen.span.clone();
        let handled = shared.bound(request).map(|request| self.inner.call(request));
        async move {
            let response = match handled {
                Ok(handled) => shared.handle(handled).await,
                Err(problem) => problem.into_response(),
            };
            Ok(seen.answered(response))
        }
        .instrument(span)
        .boxed()
    }
}

impl Shared {
    /// The request with its body bounded, or 413 where it says itself that it is too large.
    fn bound(&self, request: Request) -> Result<Request, Problem> {
        if request.body().is_end_stream() {
            return Ok(request);
        }
        if request.body().size_hint().lower() > self.body_limit as u64 {
            return Err(too_large(self.body_limit));
        }
        Ok(request.map(|body| Body::new(Bounded::new(body, self.body_limit, self.body_timeout))))
    }

    /// The handler's answer, or a problem where it panics or takes too long.
    async fn handle<B>(&self, handled: impl Future<Output = Result<Response<B>, Infallible>>) -> Response
    where
        B: HttpBody<Data = bytes::Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        match timeout(self.handler_timeout, AssertUnwindSafe(handled).catch_unwind()).await {
            Ok(Ok(Ok(response))) => response.map(Body::new),
            Ok(Err(panic)) => Problem::internal(&Panicked(words(&*panic).to_owned())).into_response(),
            Err(_elapsed) => {
                tracing::warn!(timeout = ?self.handler_timeout, "a handler took too long");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "handler-timeout", "This took too long and was given up.")
                    .with_retry_after(RETRY_AFTER_TIMEOUT)
                    .into_response()
            }
        }
    }
}

/// A panic of a handler; the panic hook has said where.
#[derive(Debug, thiserror::Error)]
#[error("a handler panicked: {0}")]
struct Panicked(String);

fn words(panic: &(dyn Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => words,
        (_, Some(words)) => words,
        _ => "(no words)",
    }
}

/// One request, from its arrival to its answer.
struct Seen {
    started: Instant,
    id: RequestId,
    method: &'static str,
    route: String,
    span: Span,
    /// The client traces this request, and is told of our part.
    traced: bool,
    shared: Arc<Shared>,
}

impl Seen {
    fn new(request: &Request, shared: &Arc<Shared>) -> Self {
        let id = RequestId::of(request);
        let method = method(request.method());
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default().to_owned();
        let span = tracing::info_span!(
            target: "http",
            "request",
            id = id.as_str(),
            method,
            route,
            status = field::Empty,
            trace = field::Empty,
            otel.kind = field::Empty,
            otel.name = field::Empty,
        );
        let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        if let Some(traceparent) = traceparent {
            telemetry::continue_trace(&span, traceparent);
        }
        if telemetry::exporting() {
            span.record("otel.kind", "server").record("otel.name", format!("{method} {route}"));
        }
        // Where somebody else can look the trace up, the log names it.
        if telemetry::exporting() || traceparent.is_some() {
            telemetry::trace_id(&span).inspect(|trace| {
                span.record("trace", trace);
            });
        }
        shared.active.add(1, &[]);
        Self {
            started: Instant::now(),
            id,
            method,
            route,
            span,
            traced: traceparent.is_some(),
            shared: Arc::clone(shared),
        }
    }

    fn answered(&self, mut response: Response) -> Response {
        let status = response.status().as_u16();
        let elapsed = self.started.elapsed();
        let labels = [
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.route", self.route.clone()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        self.shared.duration.record(elapsed.as_secs_f64(), &labels);
        self.span.record("status", status);
        if response.status().is_server_error() {
            tracing::warn!(target: "http", status, ?elapsed, "answered");
        } else {
            tracing::debug!(target: "http", status, ?elapsed, "answered");
        }
        response.headers_mut().insert(REQUEST_ID, self.id.0.clone());
        if self.traced {
            let ours = telemetry::current_traceparent().and_then(|ours| HeaderValue::try_from(ours).ok());
            response.headers_mut().extend(ours.map(|ours| (TRACERESPONSE, ours)));
        }
        response
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.shared.active.add(-1, &[]);
    }
}

/// The method as a label: a client must not be able to invent labels.
fn method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}

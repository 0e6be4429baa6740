//! What is known of a request: its id, its trace, how long it took. A read that nobody traces and that succeeds costs no
//! more than an id and a measurement.

use std::{
    convert::Infallible,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    extract::{FromRequestParts, Request},
    http::{HeaderName, HeaderValue, Method, request::Parts},
    response::Response,
};
use opentelemetry::{
    KeyValue, StringValue,
    metrics::{Histogram, Meter},
};
use tracing::{Level, Span, field};
use uuid::{Builder, fmt::Hyphenated};

use crate::{
    limits::REQUEST_ID_BYTES,
    problem::{Cause, Name},
    telemetry,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// Requests that are being handled, in this process.
static ACTIVE: AtomicI64 = AtomicI64::new(0);

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
            let mut text = [0; Hyphenated::LENGTH];
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

/// What is measured of every request. Names and units: OpenTelemetry's semantic conventions for HTTP servers.
#[derive(Clone)]
pub(super) struct Metrics {
    duration: Histogram<f64>,
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        meter
            .i64_observable_up_down_counter("http.server.active_requests")
            .with_description("Requests that are being handled")
            .with_unit("{request}")
            .with_callback(|observer| observer.observe(ACTIVE.load(Ordering::Relaxed), &[]))
            .build();
        let duration = meter
            .f64_histogram("http.server.request.duration")
            .with_description("Time until an answer began, by route, method and status")
            .with_unit("s")
            .with_boundaries(telemetry::SECONDS.to_vec())
            .build();
        Self { duration }
    }
}

/// One request, from its arrival to its answer.
pub(super) struct Seen {
    started: Instant,
    id: RequestId,
    method: &'static str,
    route: Arc<str>,
    /// None for a read or a refusal that nobody traces: it would cost more than these.
    span: Span,
    /// The client traces this request, and is told of our part.
    traced: bool,
    metrics: Metrics,
}

impl Seen {
    /// `spanned`: with a span though nobody traces it, as what handles it may log.
    pub(super) fn new(request: &mut Request, route: Arc<str>, metrics: Metrics, spanned: bool) -> Self {
        let id = RequestId::of(request);
        request.extensions_mut().insert(id.clone());
        let method = label(request.method());
        let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let span = if spanned || traceparent.is_some() || watched() {
            span(&id, method, &route, traceparent)
        } else {
            Span::none()
        };
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        Self { started: Instant::now(), id, method, route, span, traced: traceparent.is_some(), metrics }
    }

    /// What the handler runs in.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// Measures and logs the answer, and names the request in it.
    pub(super) fn answered(&self, mut response: Response) -> Response {
        let status = response.status();
        let labels = [
            KeyValue::new("http.request.method", self.method),
            KeyValue::new("http.route", StringValue::from(Arc::clone(&self.route))),
            KeyValue::new("http.response.status_code", i64::from(status.as_u16())),
        ];
        self.metrics.duration.record(self.started.elapsed().as_secs_f64(), &labels);
        if status.is_server_error() {
            self.log_failure(&response);
        } else {
            tracing::debug!(target: "http", status = status.as_u16(), elapsed = ?self.started.elapsed(), "answered");
        }
        response.headers_mut().insert(REQUEST_ID, self.id.0.clone());
        if self.traced {
            let ours = telemetry::current_traceparent().and_then(|ours| HeaderValue::try_from(ours).ok());
            response.headers_mut().extend(ours.map(|ours| (TRACERESPONSE, ours)));
        }
        response
    }

    fn log_failure(&self, response: &Response) {
        let status = response.status().as_u16();
        let unlogged = if status == 500 { Some(0) } else { Warnings::another() };
        let Some(unlogged) = unlogged else { return };
        let (elapsed, unlogged) = (self.started.elapsed(), (unlogged > 0).then_some(unlogged));
        let cause = response.extensions().get::<Cause>().map(|cause| field::display(&cause.0));
        let problem = response.extensions().get::<Name>().map(|name| name.0);
        let its = if self.span.is_none() { span(&self.id, self.method, &self.route, None) } else { self.span() };
        let _within = its.enter();
        if status == 500 {
            tracing::error!(target: "http", status, problem, ?elapsed, cause, "the request failed");
        } else {
            tracing::warn!(target: "http", status, problem, ?elapsed, cause, unlogged, "the request could not be served");
        }
    }
}

static WARNINGS: Mutex<Warnings> = Mutex::new(Warnings { second: None, logged: 0, unlogged: 0 });

/// Lines about requests that could not be served: all of them fail alike while a database is away, thousands a second.
struct Warnings {
    second: Option<Instant>,
    logged: u32,
    unlogged: u64,
}

impl Warnings {
    /// Lines in a second at most.
    const MOST: u32 = 10;

    /// [`Warnings::next`], of this process.
    fn another() -> Option<u64> {
        WARNINGS.lock().unwrap_or_else(PoisonError::into_inner).next(Instant::now())
    }

    /// Whether there is to be another line, and how many there were not since the last one.
    fn next(&mut self, now: Instant) -> Option<u64> {
        if self.second.is_none_or(|second| now - second >= Duration::from_secs(1)) {
            (self.second, self.logged) = (Some(now), 0);
        }
        if self.logged == Self::MOST {
            self.unlogged += 1;
            return None;
        }
        self.logged += 1;
        Some(mem::take(&mut self.unlogged))
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether somebody looks at every request: an exporter of traces, or a log of all answers.
fn watched() -> bool {
    telemetry::exporting() || tracing::enabled!(target: "http", Level::DEBUG)
}

fn span(id: &RequestId, method: &'static str, route: &str, traceparent: Option<&str>) -> Span {
    let span = tracing::info_span!(
        target: "http",
        "request",
        id = id.as_str(),
        method,
        route,
        trace = field::Empty,
        otel.kind = field::Empty,
        otel.name = field::Empty,
    );
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
    span
}

/// The method as a label: a client must not be able to invent labels.
fn label(method: &Method) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_ten_a_second_and_the_next_one_tells_how_many_were_not_logged() {
        let mut warnings = Warnings { second: None, logged: 0, unlogged: 0 };
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(warnings.next(began), Some(0));
        }
        assert_eq!((warnings.next(began), warnings.next(began)), (None, None));
        let later = began + Duration::from_secs(1);
        assert_eq!((warnings.next(later), warnings.next(later)), (Some(2), Some(0)));
    }
}

//! Where the traces of this test process end: a collector of our own, which a test looks into.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, Once, PoisonError},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use platform::telemetry::{self, LogFormat, TelemetryConfig};
use prost::Message as _;

/// Every span that was sent here.
static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());
static STARTED: Once = Once::new();

/// Sets up the telemetry of this process, once: only the traces that clients began are exported, to the collector.
pub(crate) fn start() {
    STARTED.call_once(|| {
        let config = TelemetryConfig {
            log: "error".to_owned(),
            log_format: LogFormat::Text,
            otlp_endpoint: Some(format!("http://{}", collector())),
            trace_ratio: 0.0,
        };
        // It is never dropped: other tests go on with it.
        std::mem::forget(telemetry::init(&config, "agora-tests").expect("telemetry"));
    });
}

/// The spans of a trace (32 hexadecimal digits) that have ended and were exported.
pub async fn exported(trace: &str) -> Vec<Span> {
    let flush = || drop(telemetry::init(&TelemetryConfig::default(), "agora-tests").expect("telemetry"));
    tokio::task::spawn_blocking(flush).await.expect("flushes");
    let trace = u128::from_str_radix(trace, 16).expect("a trace id").to_be_bytes();
    let of_trace = |span: &&Span| span.trace_id == trace;
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(of_trace).cloned().collect()
}

/// A server on a thread of its own: it outlives every test's runtime.
fn collector() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address");
    listener.set_nonblocking(true).expect("a listener for tokio");
    let serve = async move {
        let router = Router::new().route("/v1/traces", post(collect)).fallback(|| async { StatusCode::OK });
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener for tokio");
        axum::serve(listener, router).await
    };
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(serve)
    });
    address
}

async fn collect(body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    SPANS.lock().unwrap_or_else(PoisonError::into_inner).extend(scopes.flat_map(|scope| scope.spans));
    StatusCode::OK
}

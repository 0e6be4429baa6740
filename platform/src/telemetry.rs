//! Logs, traces and metrics.
//!
//! Every request has a valid trace, exported or not: it goes on from the client's `traceparent` (W3C Trace Context)
//! into what the request leaves behind, and from there into whoever takes it up. Metrics are made with
//! `opentelemetry::global::meter("agora")`, after [`init`].

use std::{
    io::IsTerminal,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use axum::http::Uri;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_otlp::{MetricExporter, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    trace::{Sampler, SdkTracerProvider},
};
use prometheus::{Encoder, Registry, TextEncoder, process_collector::ProcessCollector};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tracing::{Metadata, Span, level_filters::LevelFilter};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, Targets, filter_fn},
    fmt,
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// The media type of [`prometheus_text`].
pub const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Bounds of histograms of durations, in seconds: from a cached read to the handler's time limit.
pub const SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Lines of the log that may wait to be written; more are dropped.
const LINES_WAITING: usize = 8_192;

/// How long a collector may take to answer: a process that ends waits for it, once for each signal.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

static STATE: OnceLock<State> = OnceLock::new();
static INIT: Mutex<()> = Mutex::new(());

/// What is told to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Which events are logged: a level, and others for what begins with a name: `info`, `warn,projector=debug`, ….
    /// `http=debug` logs every request.
    #[serde(deserialize_with = "directives")]
    pub log: String,
    /// How a log line looks.
    pub log_format: LogFormat,
    /// Where traces and metrics are sent by OTLP over HTTP, such as `http://localhost:4318`; nowhere without.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "endpoint")]
    pub otlp_endpoint: Option<String>,
    /// The share of traces begun here that are exported, from 0 to 1. A client that traces decides for itself.
    #[serde(deserialize_with = "crate::config::share")]
    pub trace_ratio: f64,
}

fn directives<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<Targets>() {
        Ok(_) => Ok(text),
        Err(_) => Err(D::Error::custom(format_args!("{text:?} is no list of directives like \"info,http=debug\""))),
    }
}

fn endpoint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<Uri>() {
        Ok(uri) if uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")) => Ok(Some(text)),
        _ => Err(D::Error::custom(format_args!("{text:?} is no address like \"http://localhost:4318\""))),
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `text` on a terminal, `json` elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For programs: one object a line.
    Json,
    /// What is said, and nothing else: for a command that says more itself.
    Words,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info,opentelemetry=warn,sqlx_core::pool=error,tokio_cron_scheduler=warn".to_owned(),
            log_format: LogFormat::Auto,
            otlp_endpoint: None,
            trace_ratio: 1.0,
        }
    }
}

struct State {
    tracers: SdkTracerProvider,
    meters: SdkMeterProvider,
    registry: Registry,
    exporting: bool,
}

/// Sends what is not exported yet when it is dropped: keep it until the process ends.
#[must_use]
#[derive(Debug)]
pub struct Telemetry(#[expect(dead_code, reason = "writes what is left when it is dropped")] Option<WorkerGuard>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        let Some(state) = STATE.get() else { return };
        // Flushed, not shut down: in a test, others of the process go on. The exporter logs its own errors.
        let _ = state.tracers.force_flush();
        let _ = state.meters.force_flush();
    }
}

/// Sets up logs, traces and metrics of this process; `service` is its name in them. Only the first call has an effect.
///
/// # Errors
/// Log directives that are none, or an endpoint that is no URL.
pub fn init(config: &TelemetryConfig, service: &str) -> anyhow::Result<Telemetry> {
    let _one_at_a_time = INIT.lock().unwrap_or_else(PoisonError::into_inner);
    if STATE.get().is_some() {
        return Ok(Telemetry(None));
    }
    let logged: Targets = config.log.parse().with_context(|| {
        format!("`telemetry.log` is {:?}, which is no list of directives like \"info,http=debug\"", config.log)
    })?;
    let resource = Resource::builder().with_service_name(service.to_owned()).build();
    let registry = Registry::new();
    // Processor time, memory, open files, by the names that Prometheus gives them.
    registry.register(Box::new(ProcessCollector::for_self()))?;
    let meters = build_meters(config, resource.clone(), registry.clone())?;
    let exporting = config.otlp_endpoint.is_some();
    let tracers = build_tracers(config, resource)?;

    let spans = tracing_opentelemetry::layer()
        .with_tracer(tracers.tracer("agora"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false);
    // A terminal that nobody reads, or a pipe that is full, holds up the log and not the server.
    let (writer, written) = NonBlockingBuilder::default().buffered_lines_limit(LINES_WAITING).finish(std::io::stderr());
    let logs = log(config.log_format, writer);
    tracing_subscriber::registry().with(spans_and(logged)).with(logs).with(spans).try_init()?;
    opentelemetry::global::set_meter_provider(meters.clone());
    let _ = STATE.set(State { tracers, meters, registry, exporting });
    Ok(Telemetry(Some(written)))
}

/// What Prometheus reads: every metric as text, format 0.0.4 ([`PROMETHEUS`]).
pub fn prometheus_text() -> String {
    let Some(state) = STATE.get() else { return String::new() };
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&state.registry.gather(), &mut text) {
        tracing::error!(%error, "cannot encode the metrics");
    }
    String::from_utf8(text).unwrap_or_default()
}

/// Whether spans are sent to somebody.
pub(crate) fn exporting() -> bool {
    STATE.get().is_some_and(|state| state.exporting)
}

/// The current span as W3C Trace Context writes it, for a header or a message; `None` outside of any span.
pub fn current_traceparent() -> Option<String> {
    let span = context_of(&Span::current())?;
    let flags = span.trace_flags().to_u8();
    Some(format!("00-{}-{}-{flags:02x}", span.trace_id(), span.span_id()))
}

/// The trace that `span` is part of: 32 hexadecimal digits.
pub(crate) fn trace_id(span: &Span) -> Option<String> {
    Some(context_of(span)?.trace_id().to_string())
}

fn context_of(span: &Span) -> Option<SpanContext> {
    let context = span.context();
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

/// Makes `span` part of the trace that `traceparent` (W3C Trace Context) names. To be called before the span is entered;
/// what is no `traceparent` is ignored, as the standard asks.
pub fn continue_trace(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        // It fails where nobody listens to this span, and then there is no trace to continue.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may go on after that (section 3.2.4 of the standard).
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.trim().split('-');
    let mut hex = |length: usize| {
        let lower = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        parts.next().filter(|part| part.len() == length && part.bytes().all(lower))
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let more = parts.next().is_some();
    if version == "ff" || (version == "00" && more) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

/// What is logged, and every span, so that traces go on whatever the log shows. One filter before all layers: with one
/// for each, what somebody asked by `tracing::enabled!` (sqlx does after each statement) was taken for the answer about
/// the next span, which was lost (tokio-rs/tracing#2519, in 0.3.23).
fn spans_and(logged: Targets) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let levels = logged.iter().map(|(_, level)| level).chain(logged.default_level());
    let highest = levels.max().unwrap_or(LevelFilter::OFF).max(LevelFilter::INFO);
    let wanted = move |metadata: &Metadata<'_>| {
        (metadata.is_span() && *metadata.level() <= LevelFilter::INFO)
            || logged.would_enable(metadata.target(), metadata.level())
    };
    filter_fn(wanted).with_max_level_hint(highest)
}

fn log<S>(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(writer).with_ansi(terminal);
    match format {
        LogFormat::Auto if terminal => layer.boxed(),
        LogFormat::Text => layer.boxed(),
        LogFormat::Auto | LogFormat::Json => {
            layer.with_ansi(false).json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
        LogFormat::Words => layer.without_time().with_level(false).with_target(false).boxed(),
    }
}

fn build_tracers(config: &TelemetryConfig, resource: Resource) -> anyhow::Result<SdkTracerProvider> {
    let mut builder = SdkTracerProvider::builder().with_resource(resource);
    // Ids are made all the same; only nothing is recorded under them.
    let mut root = Sampler::AlwaysOff;
    if let Some(endpoint) = &config.otlp_endpoint {
        root = Sampler::TraceIdRatioBased(config.trace_ratio);
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(signal(endpoint, "traces"))
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .context("cannot send traces to `telemetry.otlp_endpoint`")?;
        builder = builder.with_batch_exporter(exporter);
    }
    Ok(builder.with_sampler(Sampler::ParentBased(Box::new(root))).build())
}

fn build_meters(config: &TelemetryConfig, resource: Resource, registry: Registry) -> anyhow::Result<SdkMeterProvider> {
    let prometheus = opentelemetry_prometheus::exporter().with_registry(registry).without_target_info().build()?;
    let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus);
    if let Some(endpoint) = &config.otlp_endpoint {
        let exporter = MetricExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(signal(endpoint, "metrics"))
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .context("cannot send metrics to `telemetry.otlp_endpoint`")?;
        builder = builder.with_periodic_exporter(exporter);
    }
    Ok(builder.build())
}

/// The endpoint of one signal below the one that is configured (OTLP specification, "Endpoint URLs for OTLP/HTTP").
fn signal(endpoint: &str, name: &str) -> String {
    format!("{}/v1/{name}", endpoint.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let good = parse(&format!("00-{TRACE}-b7ad6b7169203331-01")).expect("it is one");
        assert_eq!(good.trace_id().to_string(), TRACE);
        assert!(good.is_sampled() && good.is_remote());
        let later = format!("cc-{TRACE}-b7ad6b7169203331-00-what-the-future-will-be-like");
        assert!(!parse(&later).expect("later versions may have more").is_sampled());
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        for text in [
            "",
            "00",
            "hello",
            &format!("00-{TRACE}-b7ad6b7169203331"),
            &format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            &format!("ff-{TRACE}-b7ad6b7169203331-01"),
            &format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_trace_goes_on_whether_or_not_it_is_exported() {
        let config = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
        let _telemetry = init(&config, "test").expect("the first call");
        let _again = init(&config, "test").expect("a second call does nothing");

        let begun = tracing::info_span!("begun").in_scope(current_traceparent).expect("a valid trace");
        assert!(parse(&begun).is_some(), "{begun}");

        let span = tracing::info_span!("continued");
        continue_trace(&span, &format!("00-{TRACE}-b7ad6b7169203331-01"));
        let ours = span.in_scope(current_traceparent).expect("a valid trace");
        assert!(ours.starts_with(&format!("00-{TRACE}-")) && ours.ends_with("-01"), "{ours}");
        assert!(!ours.contains("b7ad6b7169203331"), "a span of its own: {ours}");

        assert_eq!(current_traceparent(), None);
    }

    #[test]
    fn a_question_about_the_log_costs_no_span() {
        let logged = || "warn,asked=debug".parse().expect("directives");
        let spans =
            tracing_subscriber::registry().with(spans_and(logged())).with(fmt::layer().with_writer(std::io::sink));
        let answers = tracing::subscriber::with_default(spans, || {
            let asked = tracing::enabled!(target: "asked", Level::DEBUG);
            let unasked = tracing::enabled!(target: "unasked", Level::DEBUG);
            let info = tracing::enabled!(target: "unasked", Level::INFO);
            [
                asked,
                unasked,
                info,
                tracing::info_span!("begun").is_disabled(),
                tracing::debug_span!("detail").is_disabled(),
            ]
        });
        assert_eq!(answers, [true, false, false, false, true]);
    }

    #[test]
    fn each_signal_has_its_endpoint() {
        assert_eq!(signal("http://localhost:4318/", "traces"), "http://localhost:4318/v1/traces");
    }
}

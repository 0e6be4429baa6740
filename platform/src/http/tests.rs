use std::convert::Infallible;

use axum::{
    body::{Body, Bytes},
    http::Request,
    response::Response,
    routing::{get, post},
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::{extract, telemetry::TelemetryConfig, testing};

/// Small limits of size; those of time are left to the tests that wait for them.
fn small() -> HttpConfig {
    HttpConfig { body_limit_bytes: 2_000, ..HttpConfig::default() }
}

fn router(config: &HttpConfig) -> Router {
    let router = Router::new()
        .route("/hello", get(|| async { ([(header::ETAG, "\"1\"")], "\"hello\"") }).post(|| async { "\"posted\"" }))
        .route("/id", get(|id: RequestId| async move { format!("\"{}\"", id.as_str()) }))
        .route("/echo", post(|extract::Json(body): extract::Json<AnyJson>| async { extract::Json(body.0) }))
        .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/large", get(|| async { ([(header::ETAG, "\"1\"")], "x".repeat(5_000)) }))
        .route("/stuck", get(std::future::pending::<()>).put(|_: Bytes| std::future::pending::<()>()))
        .route("/panic", get(|| async { assert_eq!(1, 2, "the secret") }));
    layers(router, config)
}

#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct AnyJson(Value);

impl garde::Validate for AnyJson {
    type Context = ();

    fn validate_into(&self, (): &(), _: &mut dyn FnMut() -> garde::Path, _: &mut garde::Report) {}
}

async fn ask(request: Request<Body>) -> Response {
    router(&small()).oneshot(request).await.expect("an answer")
}

fn asking(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path)
}

fn empty(request: axum::http::request::Builder) -> Request<Body> {
    request.body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn what_nobody_answers_is_a_problem() {
    let (status, body) = testing::read(ask(empty(asking("GET", "/nowhere"))).await).await;
    assert_eq!((status, &body["type"]), (404, &json!("/problems/no-such-endpoint")));
    let response = ask(empty(asking("DELETE", "/hello"))).await;
    assert_eq!(response.headers()["allow"], "GET,HEAD,POST");
    let (status, body) = testing::read(response).await;
    assert_eq!((status, &body["type"]), (405, &json!("/problems/method-not-allowed")));
}

#[tokio::test]
async fn every_answer_names_its_request() {
    let response = ask(empty(asking("GET", "/id"))).await;
    let named = response.headers()["x-request-id"].to_str().expect("ASCII").to_owned();
    assert_eq!(testing::read(response).await.1, json!(named));
    let response = ask(empty(asking("GET", "/nowhere").header("x-request-id", "mine"))).await;
    assert_eq!(response.headers()["x-request-id"], "mine");
    let response = ask(empty(asking("GET", "/id").header("x-request-id", "m".repeat(65)))).await;
    assert_eq!(response.headers()["x-request-id"].len(), 36);
}

#[tokio::test]
async fn a_trace_begun_by_the_client_goes_on() {
    let config = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
    let _telemetry = telemetry::init(&config, "test").expect("good settings");
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let response = ask(empty(asking("GET", "/hello").header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))));
    let ours = response.await.headers()["traceresponse"].to_str().expect("ASCII").to_owned();
    assert!(ours.starts_with(&format!("00-{trace}-")) && !ours.contains("b7ad6b7169203331"), "{ours}");
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let config = TelemetryConfig { log: "off".to_owned(), ..TelemetryConfig::default() };
    let _telemetry = telemetry::init(&config, "test").expect("good settings");
    ask(empty(asking("GET", "/large"))).await;
    let metrics =
        testing::read(admin_router(Health::new()).oneshot(empty(asking("GET", "/metrics"))).await.expect("ok"));
    let metrics = metrics.await.1.as_str().expect("text").to_owned();
    let counted = metrics.lines().find(|line| {
        line.starts_with("http_server_request_duration_seconds_count{")
            && [r#"http_route="/large""#, r#"http_response_status_code="200""#].iter().all(|label| line.contains(label))
    });
    assert!(counted.is_some(), "{metrics}");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_wherever_it_is_read() {
    let long = "x".repeat(2_001);
    let streamed = || Body::from_stream(stream::iter(vec!["x"; 2_001]).map(Ok::<_, Infallible>));
    for path in ["/echo", "/length"] {
        let request = asking("POST", path).header("content-type", "application/json").body(Body::from(long.clone()));
        let (status, body) = testing::read(ask(request.expect("a request")).await).await;
        assert_eq!((status, &body["type"]), (413, &json!("/problems/body-too-large")), "{path}");
    }
    let request = asking("POST", "/echo").header("content-type", "application/json").body(streamed());
    let (status, body) = testing::read(ask(request.expect("a request")).await).await;
    assert_eq!((status, &body["type"]), (413, &json!("/problems/body-too-large")));
    let request = asking("POST", "/length").body(streamed()).expect("a request");
    assert_ne!(ask(request).await.status(), 200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let body = Body::from_stream(stream::once(async { Ok::<_, Infallible>("{") }).chain(stream::pending()));
    let request = asking("POST", "/echo").header("content-type", "application/json").body(body).expect("a request");
    let router = router(&HttpConfig { body_timeout: Duration::from_millis(100), ..small() });
    let (status, body) = testing::read(router.oneshot(request).await.expect("an answer")).await;
    assert_eq!((status, &body["type"]), (408, &json!("/problems/request-timeout")));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_given_up() {
    let router = router(&HttpConfig { handler_timeout: Duration::from_millis(100), ..small() });
    let response = router.oneshot(empty(asking("GET", "/stuck"))).await.expect("an answer");
    assert_eq!(response.headers()["retry-after"], "2");
    let (status, body) = testing::read(response).await;
    assert_eq!((status, &body["type"]), (503, &json!("/problems/handler-timeout")));
}

#[tokio::test]
async fn a_command_that_finds_no_place_is_refused_at_once_and_reads_need_none() {
    let router = router(&HttpConfig { max_commands: 1, ..small() });
    let ask = |method, path| router.clone().oneshot(empty(asking(method, path)));
    // Of a length that nobody knows before its end.
    let body = Body::from_stream(stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"all of it"))]));
    let mut first = router.clone().oneshot(asking("PUT", "/stuck").body(body).expect("a request"));
    assert!(futures::poll!(&mut first).is_pending());
    let response = ask("POST", "/hello").await.expect("an answer");
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(response.headers().contains_key("x-request-id"));
    let (status, body) = testing::read(response).await;
    assert_eq!((status, &body["type"]), (503, &json!("/problems/overloaded")));
    assert_eq!(ask("GET", "/hello").await.expect("an answer").status(), 200);
    // Its client went away; and who has not sent all of a command yet holds no place.
    drop(first);
    let unsent = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let mut slow = router.clone().oneshot(asking("POST", "/length").body(unsent).expect("a request"));
    assert!(futures::poll!(&mut slow).is_pending());
    assert_eq!(ask("POST", "/hello").await.expect("an answer").status(), 200);
}

#[tokio::test]
async fn a_panic_is_a_problem_that_shows_nothing() {
    let (status, body) = testing::read(ask(empty(asking("GET", "/panic"))).await).await;
    assert_eq!((status, &body["type"]), (500, &json!("/problems/internal-error")));
    assert!(!body.to_string().contains("secret"));
}

#[tokio::test]
async fn only_large_answers_are_compressed_and_then_tagged_weakly() {
    for (path, encoding, tag) in [("/large", Some("gzip"), "W/\"1\""), ("/hello", None, "\"1\"")] {
        let response = ask(empty(asking("GET", path).header("accept-encoding", "gzip"))).await;
        let found = response.headers().get("content-encoding").map(|value| value.to_str().expect("ASCII"));
        assert_eq!(found, encoding, "{path}");
        assert_eq!(response.headers()["etag"], tag, "{path}");
    }
}

#[tokio::test]
async fn who_accepts_no_coding_at_all_is_answered_all_the_same() {
    for accepted in ["identity;q=0", "*;q=0", "identity; q=0.000, *;Q=0", "br;q=0,*;q=0"] {
        let response = ask(empty(asking("GET", "/large").header("accept-encoding", accepted))).await;
        assert_eq!((response.status().as_u16(), response.headers().get("content-encoding")), (200, None), "{accepted}");
    }
    let response = ask(empty(asking("GET", "/large").header("accept-encoding", "identity;q=0, gzip"))).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
}

#[tokio::test]
async fn scripts_of_other_origins_may_call_where_that_is_configured() {
    let preflight = || {
        let request = asking("OPTIONS", "/hello").header("origin", "https://forum.example");
        empty(
            request
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization"),
        )
    };
    let response = ask(preflight()).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
    assert!(response.headers()["access-control-allow-headers"].to_str().expect("ASCII").contains("authorization"));
    let response = ask(empty(asking("GET", "/nowhere").header("origin", "https://forum.example"))).await;
    assert!(response.headers()["access-control-expose-headers"].to_str().expect("ASCII").contains("agora-position"));

    let closed = router(&HttpConfig { cors_origins: Vec::new(), ..small() });
    let response = closed.oneshot(preflight()).await.expect("an answer");
    assert!(!response.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn readiness_is_said_with_its_reasons() {
    let health = Health::new();
    let probe = health.register("store");
    let ready = || async {
        testing::read(admin_router(health.clone()).oneshot(empty(asking("GET", "/health/ready"))).await.expect("ok"))
            .await
    };
    let (status, body) = ready().await;
    assert_eq!((status, &body["parts"][0]["reason"]), (503, &json!("starting")));
    probe.set_ready();
    assert_eq!(ready().await, (200, json!({"ready": true, "parts": [{"name": "store", "ready": true}]})));
}

use std::sync::Arc;

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
};

use super::*;
use crate::http::layers;

/// Longer than any test waits for something that must come.
const FOR_EVER: Duration = Duration::from_secs(600);

fn impatient() -> HttpConfig {
    HttpConfig { header_timeout: Duration::from_millis(200), ..HttpConfig::default() }
}

fn hello() -> Router {
    layers(Router::new().route("/hello", get(|| async { "\"hello\"" })), &HttpConfig::default())
}

/// A server on a port of its own.
struct Served {
    address: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Served {
    async fn start(router: Router, config: HttpConfig) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "http.listen").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let ended = tokio::spawn(async move { serve(listener, router, &config, stop).await });
        Self { address, shutdown, ended }
    }

    /// Sends `text`, and reads until the server closes the connection.
    async fn say(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it reads");
        let mut answer = Vec::new();
        // A reset after the answer is an end as well: the server need not have read all of it.
        let _ = tokio::time::timeout(FOR_EVER, stream.read_to_end(&mut answer)).await.expect("in time");
        String::from_utf8(answer).expect("text")
    }
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = Served::start(hello(), HttpConfig::default()).await;
    for head in ["", "host: x\r\nhost: y\r\n"] {
        let answer = server.say(&format!("GET /hello HTTP/1.1\r\n{head}connection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.contains("Host"), "{answer}");
    }
    let answer = server.say("GET /hello HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn what_has_no_end_of_its_own_ends_when_the_server_stops() {
    let asked = Arc::new(Notify::new());
    let begun = Arc::clone(&asked);
    let endless = get(move |stopping: Stopping| async move {
        begun.notify_one();
        stopping.begun().await;
        "\"the end\""
    });
    let router = layers(Router::new().route("/endless", endless), &HttpConfig::default());
    let server = Served::start(router, HttpConfig { shutdown_grace: FOR_EVER, ..HttpConfig::default() }).await;
    let stop = async {
        asked.notified().await;
        server.shutdown.cancel();
    };
    let (answer, ()) = tokio::join!(server.say("GET /endless HTTP/1.1\r\nhost: x\r\n\r\n"), stop);
    assert!(answer.contains("the end"), "{answer}");
    server.ended.await.expect("no panic").expect("it ends");
}

#[tokio::test]
async fn who_sends_too_much_before_reading_hears_the_refusal() {
    let server = Served::start(hello(), HttpConfig::default()).await;
    let much = 8 * 1024 * 1024;
    let body = "x".repeat(much);
    let head = "POST /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    let answer = server.say(&format!("{head}content-length: {much}\r\n\r\n{body}")).await;
    assert!(answer.starts_with("HTTP/1.1 413 Payload Too Large\r\n"), "{answer}");
}

#[tokio::test]
async fn a_slow_head_is_answered_408() {
    let server = Served::start(hello(), impatient()).await;
    for half in ["GET /hello HTTP/1.1\r\nhost: x\r\nx-sl", "PRI * HTT", "P"] {
        let answer = server.say(half).await;
        assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{half}: {answer}");
        assert!(answer.contains("/problems/request-timeout"), "{answer}");
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_without_a_word() {
    let server = Served::start(hello(), impatient()).await;
    assert_eq!(server.say("").await, "");
}

#[tokio::test]
async fn a_request_is_answered() {
    let server = Served::start(hello(), HttpConfig::default()).await;
    let answer = server.say("GET /hello HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\"hello\""), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Served::start(hello(), HttpConfig { header_limit_bytes: 8 * 1024, ..HttpConfig::default() }).await;
    let answer = server.say(&format!("GET /hello HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(9_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// A handler that says when it has begun, and ends when it is told to.
fn held(config: &HttpConfig) -> (Router, Arc<Notify>, Arc<Notify>) {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (Arc::clone(&begun), Arc::clone(&go_on));
    let handler = async move || {
        signals.0.notify_one();
        signals.1.notified().await;
        "done"
    };
    (layers(Router::new().route("/held", get(handler)), config), begun, go_on)
}

#[tokio::test]
async fn a_request_under_way_ends_in_peace() {
    let config = HttpConfig::default();
    let (router, begun, go_on) = held(&config);
    let server = Served::start(router, config).await;
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
    begun.notified().await;
    server.shutdown.cancel();
    go_on.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer, and the end");
    assert!(answer.ends_with("done"), "{answer}");
    server.ended.await.expect("no panic").expect("a good end");
    assert!(TcpStream::connect(server.address).await.is_err(), "it listens no more");
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_after_the_grace() {
    let config = HttpConfig { shutdown_grace: Duration::from_millis(50), ..HttpConfig::default() };
    let (router, begun, _go_on) = held(&config);
    let server = Served::start(router, config).await;
    let mut stream = TcpStream::connect(server.address).await.expect("it listens");
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it reads");
    begun.notified().await;
    server.shutdown.cancel();
    server.ended.await.expect("no panic").expect("a good end");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert_eq!(answer, "");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    let message = bind(address, "http.listen").await.expect_err("it is taken").to_string();
    assert_eq!(
        message,
        format!("cannot listen on {address}: the port is in use. Choose another address with `http.listen`")
    );
}

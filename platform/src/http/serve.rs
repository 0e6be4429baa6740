//! Accepting connections, and letting them end.

use std::{
    convert::Infallible,
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::FromRequestParts,
    http::{StatusCode, Version, header, request::Parts},
    response::IntoResponse as _,
};
use futures::{FutureExt as _, future::ready};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    HttpConfig,
    socket::{Remains, Socket},
};
use crate::{
    limits::HTTP2_STREAMS,
    problem::{CONTENT_TYPE, Problem},
};

/// How long to wait when no connection can be accepted (out of file descriptors).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);
/// Open files that are not connections of clients: those to databases and Kafka, logs, the admin port.
const FILES_OF_OTHERS: u64 = 256;
/// How long a client may take nothing of what was sent to it.
#[cfg(target_os = "linux")]
const UNTAKEN: Duration = Duration::from_secs(30);
/// How often an HTTP/2 connection is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(20);

/// Listens on `address`; `setting` is the key that set it, for the message where that fails.
///
/// # Errors
/// Says what is wrong with the address and how to choose another.
pub async fn bind(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::AddrInUse => "the port is in use".to_owned(),
            ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
            ErrorKind::PermissionDenied => "ports below 1024 need a privilege".to_owned(),
            _ => error.to_string(),
        };
        anyhow::anyhow!("cannot listen on {address}: {reason}. Choose another address with `{setting}`")
    })?;
    Ok(listener)
}

/// Tells a handler that its server stops: an answer that has no end of its own ends then, or it would hold the stop up.
#[derive(Clone, Debug, Default)]
pub struct Stopping(CancellationToken);

impl Stopping {
    /// Ends when the server begins to stop.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }
}

impl<S: Sync> FromRequestParts<S> for Stopping {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        // Missing only where a test calls a router without its server: it never stops.
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}

/// Serves `router` (see [`super::layers`]) until `shutdown`, then lets requests end for `shutdown_grace` and cuts what
/// is left. HTTP/1.1 and HTTP/2 without TLS.
///
/// # Errors
/// Where the listener is none any more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &HttpConfig,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    let builder = builder(config);
    let most = room(config);
    let room = Arc::new(Semaphore::new(most));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%address, %error, "cannot accept a connection");
                sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // Answers are written whole: waiting for more to send with them would only be slow.
        let _ = stream.set_nodelay(true);
        give_up_on_who_takes_nothing(&stream);
        let served = connection(
            stream,
            builder.clone(),
            router.clone(),
            graceful.watcher(),
            config.header_timeout,
            Stopping(shutdown.clone()),
        );
        let cut = cut.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = served => {}
                () = cut.cancelled() => {}
            }
            drop(permit);
        });
    }
    drop(listener);
    if timeout(config.shutdown_grace, graceful.shutdown()).await.is_err() {
        let connections = most - room.available_permits();
        tracing::warn!(%address, connections, grace = ?config.shutdown_grace, "cut connections that did not end");
        cut.cancel();
    }
    Ok(())
}

/// Resets the connection once what was sent has waited for so long to be taken (tcp(7), `TCP_USER_TIMEOUT`): else a client
/// that stops reading holds it for ever.
fn give_up_on_who_takes_nothing(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNTAKEN));
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}

/// How many connections there may be at once: no more than leave files to everybody else in the process.
fn room(config: &HttpConfig) -> usize {
    // As many as the system allows; where it does not say, it is asked for nothing.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(u64::MAX);
    let left = usize::try_from(files.saturating_sub(FILES_OF_OTHERS)).unwrap_or(usize::MAX).max(1);
    if left < config.max_connections {
        tracing::warn!(
            files,
            connections = left,
            "fewer connections than `http.max_connections`: this process may open no more files (`ulimit -Hn`)"
        );
    }
    config.max_connections.min(left)
}

fn builder(config: &HttpConfig) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        // hyper refuses less than 8 KiB.
        .max_buf_size(config.header_limit_bytes.max(8 * 1024));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(config.header_limit_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(PING_EVERY);
    builder
}

async fn connection(
    stream: TcpStream,
    builder: Builder<TokioExecutor>,
    router: Router,
    watcher: Watcher,
    header_timeout: Duration,
    stopping: Stopping,
) {
    let (socket, remains) = Socket::new(stream);
    let asked = Arc::new(AtomicBool::new(false));
    let first = Arc::clone(&asked);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        first.store(true, Ordering::Relaxed);
        if !says_whom_it_asks(&request) {
            let detail = "A request of HTTP/1.1 names one host: send exactly one Host header.";
            let problem = Problem::new(StatusCode::BAD_REQUEST, "malformed-request", detail);
            return ready(Ok(problem.into_response())).left_future();
        }
        let mut router = router.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(stopping.clone());
        Service::call(&mut router, request).right_future()
    });
    let connection = watcher.watch(builder.serve_connection(TokioIo::new(socket), service).into_owned());
    // hyper's own limit holds only once it knows HTTP/1 from HTTP/2, and it reads 24 bytes for that.
    let no_request = async {
        sleep(header_timeout).await;
        if asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let late = tokio::select! {
        outcome = connection => outcome.is_err_and(|error| {
            tracing::debug!(%error, "a connection failed");
            error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
        }),
        () = no_request => true,
    };
    if late {
        say_goodbye(&remains);
    }
}

/// RFC 9112, section 3.2: who does not is answered 400.
fn says_whom_it_asks(request: &hyper::Request<Incoming>) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(header::HOST).iter().count() == 1
}

fn say_goodbye(remains: &Remains) {
    static FAREWELL: LazyLock<String> = LazyLock::new(|| {
        let detail = "The head of the request took too long to arrive.";
        let body = Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", detail).to_json();
        let length = body.len();
        format!(
            "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: \
             {length}\r\n\r\n{body}"
        )
    });
    remains.answer_half_a_request(FAREWELL.as_bytes());
}

#[cfg(test)]
mod tests;

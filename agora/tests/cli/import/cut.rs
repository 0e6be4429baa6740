//! What stands between an import and its server, and cuts them off from one another at a command that was counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::{Response, StatusCode},
};
use tokio::{net::TcpListener, sync::watch};

/// A way to a server that ends after `limit` commands: the last of them is done, but its answer is lost; whoever asks
/// later waits until there is a server again.
pub(crate) struct Cut {
    /// Its own address.
    pub(crate) url: String,
    server: watch::Sender<Option<String>>,
}

#[derive(Clone)]
struct Way {
    http: reqwest::Client,
    limit: usize,
    seen: Arc<AtomicUsize>,
    server: watch::Sender<Option<String>>,
}

impl Cut {
    /// To `server`, for as long as this runtime runs.
    pub(crate) async fn after(limit: usize, server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let server = watch::Sender::new(Some(server.to_owned()));
        let way = Way { http, limit, seen: Arc::default(), server: server.clone() };
        let router = Router::new().fallback(move |request| way.clone().go(request));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, server }
    }

    /// Waits until it has happened.
    pub(crate) async fn happened(&self) {
        self.server.subscribe().wait_for(Option::is_none).await.expect("it is ours");
    }

    /// Goes on, to `server`.
    pub(crate) fn go_on(&self, server: &str) {
        self.server.send_replace(Some(server.to_owned()));
    }
}

impl Way {
    async fn go(self, request: Request) -> Response<reqwest::Body> {
        let server = self.server.subscribe().wait_for(Option::is_some).await.expect("it is ours").clone();
        let writes = usize::from(!request.method().is_safe());
        let nth = self.seen.fetch_add(writes, Ordering::Relaxed) + writes;
        let answer = self.forward(&server.unwrap_or_default(), request).await;
        if writes > 0 && nth == self.limit {
            self.server.send_replace(None);
            return lost();
        }
        answer.unwrap_or_else(|_| lost())
    }

    async fn forward(&self, server: &str, request: Request) -> reqwest::Result<Response<reqwest::Body>> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let request = self.http.request(head.method, format!("{server}{}", head.uri)).headers(head.headers).body(body);
        Ok(request.send().await?.into())
    }
}

fn lost() -> Response<reqwest::Body> {
    let mut answer = Response::new(reqwest::Body::default());
    *answer.status_mut() = StatusCode::BAD_GATEWAY;
    answer
}

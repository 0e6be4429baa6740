//! A client of Server-Sent Events (WHATWG HTML, 9.2).

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::Value;
use tokio::time::timeout;

/// How long an event may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// A stream that is being read.
pub struct EventSource {
    response: Response,
    received: String,
    /// What `Last-Event-ID` would say.
    pub last_id: String,
    /// How long to wait before connecting again, in milliseconds: empty until it was told.
    pub retry: String,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// The id it came with.
    pub id: String,
    /// Its data, as JSON.
    pub data: Value,
}

impl EventSource {
    /// Asks for a stream.
    pub async fn ask(url: &str, token: &str, headers: &[(&str, &str)]) -> Response {
        // Not all answers are done within a time.
        let mut request = Client::new().get(url).bearer_auth(token).header("accept", "text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
    }

    /// Opens a stream, and waits until it has begun.
    pub async fn open(url: &str, token: &str, headers: &[(&str, &str)]) -> Self {
        let response = Self::ask(url, token, headers).await;
        assert_eq!(response.status(), 200, "{url}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert!(!response.headers().contains_key("content-encoding"), "what is compressed is held back");
        let mut source = Self { response, received: String::new(), last_id: String::new(), retry: String::new() };
        while source.last_id.is_empty() {
            source.block().await.expect("it begins");
        }
        source
    }

    /// The next event; none once the stream has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let mut lines = block.lines().filter_map(|line| line.strip_prefix(name));
                lines.next().map(|value| value.trim_start().to_owned())
            };
            if let Some(data) = field("data:") {
                let data = serde_json::from_str(&data).expect("JSON");
                return Some(Event { name: field("event:").expect("a name"), id: self.last_id.clone(), data });
            }
        }
    }

    /// The next so many events.
    pub async fn take(&mut self, many: usize) -> Vec<Event> {
        let mut events = Vec::with_capacity(many);
        while events.len() < many {
            events.push(self.next().await.expect("it goes on"));
        }
        events
    }

    /// Up to the next empty line, with the id taken in, as a browser does even where there is no data.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.find("\n\n") {
                let rest = self.received.split_off(end + 2);
                let block = std::mem::replace(&mut self.received, rest);
                for (field, kept) in [("id:", &mut self.last_id), ("retry:", &mut self.retry)] {
                    if let Some(value) = block.lines().filter_map(|line| line.strip_prefix(field)).next_back() {
                        value.trim_start().clone_into(kept);
                    }
                }
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something comes, or the end");
            // A connection that was cut is an end too.
            let chunk = chunk.ok().flatten()?;
            self.received += std::str::from_utf8(&chunk).expect("UTF-8");
        }
    }
}

//! Somebody who uses a running Agora over HTTP, and remembers how far it has to have come.

use std::sync::Mutex;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::agora::Up;

/// A client of one server.
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    token: Option<String>,
    positions: Mutex<Vec<String>>,
}

impl Client {
    /// A guest.
    pub(crate) fn of(up: &Up) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { http, url: up.url.clone(), token: None, positions: Mutex::default() }
    }

    /// Registers `name`, and goes on as that account.
    pub(crate) async fn register(mut self, name: &str) -> Self {
        let account = json!({"username": name, "email": format!("{name}@example.org"), "password": "correct horse"});
        self.post("/v2/accounts", &account).await;
        self.log_in(name).await;
        self
    }

    /// Logs in as `name`, which was registered before.
    pub(crate) async fn log_in(&mut self, name: &str) {
        let tokens = self.post("/v2/sessions", &json!({"login": name, "password": "correct horse"})).await;
        self.token = Some(tokens["access_token"].as_str().expect("a token").to_owned());
    }

    /// The same person, who goes on at another server.
    pub(crate) fn at(self, up: &Up) -> Self {
        Self { url: up.url.clone(), ..self }
    }

    /// Reads what is there, after all that it wrote itself.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(path).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("GET {path} is no JSON: {body}"))
    }

    /// Every item of a list, page by page.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut items = vec![];
        let mut next = format!("{path}{separator}limit=100");
        loop {
            let page = self.get(&next).await;
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            let Some(cursor) = page["next"].as_str() else { return items };
            next = format!("{path}{separator}limit=100&cursor={cursor}");
        }
    }

    /// The status and the text that a path answers.
    pub(crate) async fn ask(&self, path: &str) -> (u16, String) {
        let positions = self.positions.lock().expect("a lock").join(", ");
        let mut request = self.request(Method::GET, path);
        if !positions.is_empty() {
            request = request.header("agora-position", positions).header("prefer", "wait=30");
        }
        let answer = request.send().await.unwrap_or_else(|error| panic!("GET {path}: {error}"));
        (answer.status().as_u16(), answer.text().await.expect("a body"))
    }

    /// Writes.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.request(Method::POST, path).json(body).send().await.expect("an answer");
        if let Some(position) = answer.headers().get("agora-position") {
            self.positions.lock().expect("a lock").push(position.to_str().expect("text").to_owned());
        }
        let status = answer.status();
        let body: Value = answer.json().await.expect("JSON");
        assert!(status.is_success(), "POST {path}: {status} {body}");
        body
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.url) };
        let request = self.http.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

//! People who write: registered, logged in, and with threads of their own, made through the API as any client would.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use events::ThreadId;
use reqwest::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::forum::in_turn;

/// What a reply says: 200 bytes, as people write them.
const BODY: &str = "It steeps for two minutes, never longer: what is bitter in it dissolves last. Warm the pot before you \
                    begin, take the water off the boil, and pour it out to the last drop when the time has come.";

/// People, each with a public community, and threads in them.
#[derive(Default)]
pub struct People {
    accounts: Vec<String>,
    communities: Vec<String>,
    tokens: Vec<String>,
    threads: Vec<ThreadId>,
}

impl People {
    /// Settles so many, with so many threads each, on an Agora that listens there.
    ///
    /// # Errors
    /// Where a command is refused.
    pub async fn settle(to: SocketAddr, people: usize, threads: usize) -> anyhow::Result<Self> {
        let (client, mut settled) = (Client::new(), Self::default());
        for _ in 0..people {
            // Of this bench alone, whoever else is there.
            let id = Uuid::now_v7().simple().to_string();
            let name = format!("bench{}", &id[20..]);
            let account =
                json!({"username": name, "email": format!("{name}@example.org"), "password": "correct horse"});
            let client = Poster { client: &client, to, token: "" };
            settled.accounts.push(text(&client.post("accounts", &account).await?, "id")?);
            let session = client.post("sessions", &json!({"login": name, "password": "correct horse"})).await?;
            let token = text(&session, "access_token")?;
            let client = Poster { token: &token, ..client };
            client.post("communities", &json!({"slug": name, "name": name, "description": "Of the bench."})).await?;
            let category = json!({"slug": "general", "name": "General"});
            let category = text(&client.post(&format!("communities/{name}/categories"), &category).await?, "id")?;
            for nth in 0..threads {
                let thread = json!({"category_id": category, "title": format!("Thread {nth}"), "body": BODY});
                let thread = client.post(&format!("communities/{name}/threads"), &thread).await?;
                settled.threads.push(text(&thread, "id")?.parse()?);
            }
            settled.communities.push(name);
            settled.tokens.push(token);
        }
        Ok(settled)
    }

    /// Has all of them join the first one's community.
    ///
    /// # Errors
    /// Where that is refused.
    pub async fn join_the_first(&self, to: SocketAddr) -> anyhow::Result<()> {
        let (client, community) = (Client::new(), &self.communities[0]);
        for (token, account) in self.tokens.iter().zip(&self.accounts).skip(1) {
            let path = format!("http://{to}/v2/communities/{community}/members/{account}");
            let status = client.put(path).bearer_auth(token).send().await?.status();
            ensure!(status.is_success(), "who wants to join is answered {status}");
        }
        Ok(())
    }

    /// The thread that the nth reply goes to.
    pub fn thread(&self, nth: u64) -> ThreadId {
        *in_turn(&self.threads, nth)
    }

    /// The request that writes the nth reply, by one of them and under a key of its own.
    pub fn reply(&self, nth: u64) -> Vec<u8> {
        self.request(nth, "POST", &format!("threads/{}/posts", self.thread(nth)), &json!({"body": BODY}))
    }

    /// A request of the nth of them; after the last it is the first's turn again.
    pub fn request(&self, nth: u64, method: &str, path: &str, body: &Value) -> Vec<u8> {
        let (body, key, token) = (body.to_string(), Uuid::now_v7(), in_turn(&self.tokens, nth));
        let length = body.len();
        format!(
            "{method} /v2/{path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nidempotency-key: {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

struct Poster<'a> {
    client: &'a Client,
    to: SocketAddr,
    token: &'a str,
}

impl Poster<'_> {
    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.client.post(format!("http://{}/v2/{path}", self.to)).json(body);
        let request = if self.token.is_empty() { request } else { request.bearer_auth(self.token) };
        let answer = request.send().await?;
        let status = answer.status();
        let said = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status} {said}");
        Ok(serde_json::from_str(&said)?)
    }
}

fn text(answer: &Value, field: &str) -> anyhow::Result<String> {
    Ok(answer[field].as_str().with_context(|| format!("no {field} in {answer}"))?.to_owned())
}

/// The request of a guest who reads a page of a thread; with the position that it must reflect, where it waits for one.
pub fn read(thread: ThreadId, position: Option<&str>) -> Vec<u8> {
    let position = position.map_or_else(String::new, |token| format!("agora-position: {token}\r\n"));
    format!("GET /v2/threads/{thread}/posts?limit=20 HTTP/1.1\r\nhost: bench\r\n{position}\r\n").into_bytes()
}

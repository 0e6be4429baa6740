//! The made-up forum as its readers see it: its public threads, and accounts that are signed in.

use events::CommunityId;
use platform::identity;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use sqlx::FromRow;
use uuid::Uuid;

use crate::{
    lab::{Lab, connect},
    process::Place,
};

const PASSWORD: &str = "correct horse";
/// Passwords are not what is measured: they are to take no time.
const CHEAP_PASSWORDS: [(&str, &str); 2] =
    [("identity.password.memory_kib", "64"), ("identity.password.iterations", "1")];

/// A thread that guests see.
#[derive(Clone, Copy, Debug, FromRow)]
pub struct Thread {
    /// Its id.
    pub thread_id: Uuid,
    community_id: Uuid,
}

impl Thread {
    /// Where its history is.
    pub fn community(&self) -> CommunityId {
        CommunityId(self.community_id)
    }

    /// A request for its first page.
    pub fn request(&self, token: Option<&str>) -> Vec<u8> {
        get(&format!("/v2/threads/{}/posts", self.thread_id), token)
    }
}

/// A GET, with an access token or without.
pub fn get(path: &str, token: Option<&str>) -> Vec<u8> {
    let authorization = token.map_or_else(String::new, |token| format!("authorization: Bearer {token}\r\n"));
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{authorization}\r\n").into_bytes()
}

/// Threads that guests see, those with the most replies first; at most so many.
///
/// # Errors
/// Those of the database, and where there is none.
pub async fn threads(database: &str, many: i64) -> anyhow::Result<Vec<Thread>> {
    let pool = connect(database, 1).await?;
    let threads: Vec<Thread> = sqlx::query_as(
        "select t.thread_id, t.community_id from thread t join community c on c.community_id = t.community_id
        where c.visibility = 'public' and not t.deleted order by t.replies desc, t.thread_id limit $1",
    )
    .bind(many)
    .fetch_all(&pool)
    .await?;
    pool.close().await;
    anyhow::ensure!(!threads.is_empty(), "the forum has no public thread");
    Ok(threads)
}

/// Access tokens of so many new accounts, which are registered and log in over HTTP; good for 15 minutes.
///
/// # Errors
/// Where the command-service does not run, or refuses.
pub async fn sign_in(lab: &Lab, database: &str, many: usize, operators: bool) -> anyhow::Result<Vec<String>> {
    let place = Place { database: database.to_owned(), kafka: None, core: None };
    let service = lab.run("command-service", &place, &CHEAP_PASSWORDS).await?;
    let store = connect(database, 1).await?;
    let (client, api) = (reqwest::Client::new(), format!("http://{}/v2", service.address));
    let mut tokens = Vec::with_capacity(many);
    for nth in 0..many {
        let name = format!("reader-{nth}");
        let email = format!("{name}@example.org");
        let account = json!({"username": name, "email": email, "password": PASSWORD});
        let account: Registered = post(&client, &format!("{api}/accounts"), &account).await?;
        if operators {
            identity::add_operator(&store, account.id).await?;
        }
        let log_in = json!({"login": name, "password": PASSWORD});
        let session: Session = post(&client, &format!("{api}/sessions"), &log_in).await?;
        tokens.push(session.access_token);
    }
    store.close().await;
    service.stop()?;
    Ok(tokens)
}

#[derive(serde::Deserialize)]
struct Registered {
    id: Uuid,
}

#[derive(serde::Deserialize)]
struct Session {
    access_token: String,
}

async fn post<T: DeserializeOwned>(client: &reqwest::Client, url: &str, body: &impl Serialize) -> anyhow::Result<T> {
    let answer = client.post(url).json(body).send().await?;
    let (status, said) = (answer.status(), answer.text().await?);
    anyhow::ensure!(status.is_success(), "{url}: {status}: {said}");
    Ok(serde_json::from_str(&said)?)
}

/// The nth of them, and after the last the first again.
pub fn in_turn<T>(things: &[T], nth: u64) -> &T {
    &things[usize::try_from(nth).unwrap_or_default() % things.len()]
}

/// Numbers without any order, the same each time (splitmix64).
pub fn scattered(nth: u64) -> u64 {
    let mut z = nth.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

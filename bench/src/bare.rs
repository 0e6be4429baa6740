//! Bare axum, as a program of a user's would have it: what there is to be lost.
//!
//! A handler that returns finished bytes is the baseline of cached reads; one that keeps what is posted by one `INSERT`
//! through sqlx is what a command over HTTP takes at least. Each is a process of its own, this program once more:
//! `bench --bare FILE ADDRESS`, where the file holds an answer of Agora's, head and body, and
//! `bench --bare-insert DATABASE ADDRESS`.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    routing::{MethodRouter, any, post},
    serve::ListenerExt as _,
};
use serde_json::value::RawValue;
use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::load::Answer;

const ANSWERS: &str = "--bare";
const INSERTS: &str = "--bare-insert";
/// Headers that hyper writes itself.
const HYPERS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// What such a server does.
pub enum Bare {
    /// Answers each request with what is in this file.
    Answers(PathBuf),
    /// Keeps what is posted in the table `store.plain` of this database.
    Inserts(String),
}

impl Bare {
    /// One that answers with this, which it keeps in a file in `dir`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn of(dir: &Path, answer: &Answer<'_>) -> anyhow::Result<Self> {
        let file = dir.join("answer");
        fs::write(&file, [answer.head, answer.body].concat())?;
        Ok(Self::Answers(file))
    }

    /// What this process is to be, and the address, where it is such a server.
    pub fn asked_for() -> Option<(Self, String)> {
        let arguments: Vec<OsString> = env::args_os().skip(1).collect();
        let [flag, of, address] = arguments.as_slice() else { return None };
        let bare = match flag.to_str()? {
            ANSWERS => Self::Answers(of.into()),
            INSERTS => Self::Inserts(of.to_str()?.to_owned()),
            _ => return None,
        };
        Some((bare, address.to_string_lossy().into_owned()))
    }

    /// The arguments of such a server.
    pub fn arguments(&self, address: SocketAddr) -> Vec<OsString> {
        let (flag, of) = match self {
            Self::Answers(file) => (ANSWERS, file.into()),
            Self::Inserts(database) => (INSERTS, database.into()),
        };
        vec![flag.into(), of, address.to_string().into()]
    }

    /// Serves until it is killed.
    ///
    /// # Errors
    /// Where the file holds no answer, the database is away or the address is taken.
    pub fn serve(self, address: &str) -> anyhow::Result<()> {
        tokio::runtime::Runtime::new()?.block_on(async {
            let handler = match self {
                Self::Answers(file) => answers(&file)?,
                Self::Inserts(database) => inserts(PgPool::connect(&database).await?),
            };
            let listener = TcpListener::bind(address).await?.tap_io(|stream| {
                stream.set_nodelay(true).ok();
            });
            Ok(axum::serve(listener, Router::new().route("/v2/threads/{id}/posts", handler)).await?)
        })
    }
}

fn answers(file: &Path) -> anyhow::Result<MethodRouter> {
    let answer = fs::read(file)?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").context("an answer")?;
    let headers = headers(std::str::from_utf8(&answer[..end])?)?;
    let body = Bytes::from(answer).slice(end + 4..);
    Ok(any(move || {
        let answer = (headers.clone(), body.clone());
        async { answer }
    }))
}

fn inserts(pool: PgPool) -> MethodRouter {
    post(async move |Json(posted): Json<Box<RawValue>>| {
        let inserted = sqlx::query("insert into store.plain (payload) values ($1)").bind(sqlx::types::Json(posted));
        inserted.execute(&pool).await.map(|_| StatusCode::CREATED).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
    })
}

/// Those of a head that hyper does not write itself.
fn headers(head: &str) -> anyhow::Result<HeaderMap> {
    let fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let ours = fields.filter(|(name, _)| !HYPERS.contains(name));
    ours.map(|(name, value)| Ok((name.parse::<HeaderName>()?, HeaderValue::from_str(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hyper_writes_itself_is_left_to_it() {
        let headers = headers("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: now\r\netag: \"1: 2\"");
        let headers = headers.expect("headers");
        assert_eq!((headers.len(), &headers["etag"]), (2, &HeaderValue::from_static("\"1: 2\"")));
    }
}

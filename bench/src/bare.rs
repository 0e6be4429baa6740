//! Bare axum, as a program of a user's would have it: what there is to be lost.
//!
//! A handler that returns finished bytes is the baseline of cached reads. Three more are limits, what there is to be had over
//! HTTP: one that looks at a row first, in one statement for all who wait; one that runs a page's statement; and one that keeps
//! what is posted by one `INSERT`. Each is a process of its own, this program once more: `bench --bare ANSWER ADDRESS`,
//! `bench --bare-look ANSWER DATABASE ADDRESS`, `bench --bare-select STATEMENT DATABASE ADDRESS` and
//! `bench --bare-insert DATABASE ADDRESS`; an answer is a file with one of Agora's, head and body.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
};

use anyhow::Context as _;
use axum::{
    Json, Router,
    body::Bytes,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    routing::{MethodRouter, any, post},
    serve::ListenerExt as _,
};
use platform::db::Connections;
use serde_json::value::RawValue;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    task::yield_now,
};

use crate::{load::Answer, process::Baseline};

const ANSWERS: &str = "--bare";
const LOOKS: &str = "--bare-look";
const SELECTS: &str = "--bare-select";
const INSERTS: &str = "--bare-insert";
/// Commands under way at most, as Agora has it (`http.max_commands`).
pub const MOST: usize = 1_024;
/// Connections to the database: as many as those who ask.
const CLIENTS: usize = 64;
/// Who waits for the same look at most.
const TOGETHER: usize = 256;
const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;
/// Headers that hyper writes itself.
const HYPERS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// What such a server does.
pub enum Bare {
    /// Answers each request with what is in this file.
    Answers(PathBuf),
    /// The same, once a row of this database has been looked at after the request came.
    Looks(PathBuf, String),
    /// Answers how many rows the statement in this file has, whose `$1` is another number each time, in this database.
    Selects(PathBuf, String),
    /// Keeps what is posted in the table `store.plain` of this database, of [`MOST`] at once; refuses others.
    Inserts(String),
}

impl Bare {
    /// The file of one that answers with this, in `dir`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn kept(dir: &Path, answer: &Answer<'_>) -> anyhow::Result<PathBuf> {
        let file = dir.join("answer");
        fs::write(&file, [answer.head, answer.body].concat())?;
        Ok(file)
    }

    /// Starts it, on one core where one is named.
    ///
    /// # Errors
    /// Where it does not listen within a minute.
    pub async fn start(&self, core: Option<usize>) -> anyhow::Result<Baseline> {
        Baseline::start(&env::current_exe()?, core, |address| self.arguments(address)).await
    }

    fn arguments(&self, address: SocketAddr) -> Vec<OsString> {
        let of: Vec<&OsStr> = match self {
            Self::Answers(file) => vec![ANSWERS.as_ref(), file.as_ref()],
            Self::Looks(file, database) => vec![LOOKS.as_ref(), file.as_ref(), database.as_ref()],
            Self::Selects(file, database) => vec![SELECTS.as_ref(), file.as_ref(), database.as_ref()],
            Self::Inserts(database) => vec![INSERTS.as_ref(), database.as_ref()],
        };
        of.into_iter().map(OsStr::to_owned).chain([address.to_string().into()]).collect()
    }

    /// What this process is to be, and the address, where it is such a server.
    pub fn asked_for() -> Option<(Self, String)> {
        let arguments: Vec<String> = env::args().skip(1).collect();
        let [flag, of @ .., address] = arguments.as_slice() else { return None };
        let bare = match (flag.as_str(), of) {
            (ANSWERS, [file]) => Self::Answers(file.into()),
            (LOOKS, [file, database]) => Self::Looks(file.into(), database.clone()),
            (SELECTS, [file, database]) => Self::Selects(file.into(), database.clone()),
            (INSERTS, [database]) => Self::Inserts(database.clone()),
            _ => return None,
        };
        Some((bare, address.clone()))
    }

    /// Serves until it is killed.
    ///
    /// # Errors
    /// Where the file holds no answer, the database is away or the address is taken.
    pub fn serve(self, address: &str) -> anyhow::Result<()> {
        tokio::runtime::Runtime::new()?.block_on(async {
            let handler = match self {
                Self::Answers(file) => answers(&file)?,
                Self::Looks(file, database) => looks(&file, PgConnection::connect(&database).await?)?,
                Self::Selects(file, database) => selects(fs::read_to_string(file)?, connections(&database).await?),
                Self::Inserts(database) => inserts(connections(&database).await?),
            };
            let listener = TcpListener::bind(address).await?.tap_io(|stream| {
                stream.set_nodelay(true).ok();
            });
            Ok(axum::serve(listener, Router::new().route("/v2/threads/{id}/posts", handler)).await?)
        })
    }
}

fn answers(file: &Path) -> anyhow::Result<MethodRouter> {
    let answer = finished(file)?;
    Ok(any(move || {
        let answer = answer.clone();
        async { answer }
    }))
}

/// A look begins after all whom it answers have asked, as those of the query-service.
fn looks(file: &Path, mut connection: PgConnection) -> anyhow::Result<MethodRouter> {
    let answer = finished(file)?;
    let (ask, mut asked) = mpsc::channel::<oneshot::Sender<()>>(TOGETHER);
    tokio::spawn(async move {
        let mut waiting = Vec::with_capacity(TOGETHER);
        while asked.recv_many(&mut waiting, TOGETHER).await > 0 {
            yield_now().await;
            while let Ok(more) = asked.try_recv() {
                waiting.push(more);
            }
            let look = sqlx::query("select position from read.checkpoint where projection = $1 and shard = $2");
            if look.bind("community").bind(0_i16).fetch_all(&mut connection).await.is_ok() {
                waiting.drain(..).for_each(|asker| asker.send(()).unwrap_or_default());
            }
            waiting.clear();
        }
    });
    Ok(any(move || {
        let (answer, ask) = (answer.clone(), ask.clone());
        async move {
            let (asker, looked) = oneshot::channel();
            ask.send(asker).await.map_err(|_| FAILED)?;
            looked.await.map(|()| answer).map_err(|_| FAILED)
        }
    }))
}

/// As ours are: sqlx's own pool would ask each of them whether it lives, twice a request.
async fn connections(database: &str) -> anyhow::Result<Arc<Connections>> {
    Ok(Arc::new(Connections::like(&PgPool::connect(database).await?, CLIENTS)))
}

fn selects(statement: String, connections: Arc<Connections>) -> MethodRouter {
    let (statement, nth) = (Arc::<str>::from(statement), Arc::new(AtomicI32::new(0)));
    any(async move || {
        let mut connection = connections.take().await.map_err(|_| FAILED)?;
        let select = sqlx::query(&statement).bind(nth.fetch_add(1, Ordering::Relaxed));
        let rows = select.fetch_all(&mut *connection).await.map_err(|_| FAILED)?;
        connection.give_back();
        Ok::<_, StatusCode>(rows.len().to_string())
    })
}

fn inserts(connections: Arc<Connections>) -> MethodRouter {
    static PLACES: Semaphore = Semaphore::const_new(MOST);
    post(async move |Json(posted): Json<Box<RawValue>>| {
        let Ok(_place) = PLACES.try_acquire() else { return Err(StatusCode::SERVICE_UNAVAILABLE) };
        let mut connection = connections.take().await.map_err(|_| FAILED)?;
        let insert = sqlx::query("insert into store.plain (payload) values ($1)").bind(sqlx::types::Json(posted));
        insert.execute(&mut *connection).await.map_err(|_| FAILED)?;
        connection.give_back();
        Ok(StatusCode::CREATED)
    })
}

/// What a file of [`Bare::kept`] holds.
fn finished(file: &Path) -> anyhow::Result<(HeaderMap, Bytes)> {
    let answer = fs::read(file)?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").context("an answer")?;
    let headers = headers(std::str::from_utf8(&answer[..end])?)?;
    Ok((headers, Bytes::from(answer).slice(end + 4..)))
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

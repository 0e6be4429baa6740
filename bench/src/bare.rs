//! The baseline of cached reads: an axum handler that returns finished bytes, as a program of a user's would.
//!
//! It is a process of its own, this program once more: `bench --bare FILE ADDRESS`, where the file holds an answer of
//! Agora's, head and body.

use std::{
    env,
    ffi::OsString,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue},
    routing::get,
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;

use crate::load::Answer;

const FLAG: &str = "--bare";
/// Headers that hyper writes itself.
const HYPERS: [&str; 4] = ["connection", "content-length", "date", "transfer-encoding"];

/// The file and the address, where this process is to be such a server.
pub fn asked_for() -> Option<(PathBuf, String)> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let [flag, file, address] = arguments.as_slice() else { return None };
    (flag == FLAG).then(|| (file.into(), address.to_string_lossy().into_owned()))
}

/// Keeps an answer in a file in `dir`.
///
/// # Errors
/// Where it cannot be written.
pub fn keep(dir: &Path, answer: &Answer<'_>) -> anyhow::Result<PathBuf> {
    let file = dir.join("answer");
    fs::write(&file, [answer.head, answer.body].concat())?;
    Ok(file)
}

/// The arguments of such a server.
pub fn arguments(answer: &Path, address: SocketAddr) -> Vec<OsString> {
    vec![FLAG.into(), answer.into(), address.to_string().into()]
}

/// Answers until it is killed.
///
/// # Errors
/// Where the file holds no answer, or the address is taken.
pub fn serve(answer: &Path, address: &str) -> anyhow::Result<()> {
    let answer = fs::read(answer)?;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").context("an answer")?;
    let headers = headers(std::str::from_utf8(&answer[..end])?)?;
    let body = axum::body::Bytes::from(answer).slice(end + 4..);
    let handler = get(move || {
        let answer = (headers.clone(), body.clone());
        async { answer }
    });
    let router = Router::new().route("/v2/threads/{id}/posts", handler);
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(address).await?.tap_io(|stream| {
            stream.set_nodelay(true).ok();
        });
        Ok(axum::serve(listener, router).await?)
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

//! A whole import of the made-up dumps, into a server of two lines that remembers what it was sent.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use platform::config::Secret;

use super::{report::Skipped, *};
use crate::client::{command::Kind, tally::Count, token::Token};

/// Commands in the order of their arrival, and the keys that were seen.
#[derive(Default)]
struct Seen {
    commands: Vec<(String, String)>,
    bodies: HashMap<String, String>,
    /// Paths that are refused.
    refused: Option<fn(&str) -> bool>,
}

type Server = Arc<Mutex<Seen>>;

async fn answer(State(seen): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: String) -> Response {
    let mut seen = seen.lock().expect("no test panicked");
    if method == Method::GET {
        let status = if uri.path().starts_with("/v2/posts/") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        return (status, "{}").into_response();
    }
    if seen.refused.is_some_and(|refused| refused(uri.path())) {
        return (StatusCode::UNPROCESSABLE_ENTITY, r#"{"type": "/problems/no", "detail": "No."}"#).into_response();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let key = header("idempotency-key");
    if let Some(before) = seen.bodies.get(&key) {
        assert_eq!(*before, body, "another body under {key}");
        return (StatusCode::CREATED, [("Idempotency-Replayed", "true")]).into_response();
    }
    assert!(!header("agora-occurred-at").is_empty());
    seen.bodies.insert(key.clone(), body);
    seen.commands.push((key, header("agora-on-behalf-of")));
    StatusCode::CREATED.into_response()
}

async fn server() -> anyhow::Result<(Server, String)> {
    let seen = Server::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let router = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((seen, address))
}

fn fixture(name: &str) -> PathBuf {
    Path::new("../tests/fixtures/stackexchange").join(name)
}

async fn import(dump: &str, address: &str) -> anyhow::Result<Summary> {
    let work = tempfile::tempdir()?;
    let options = Options { dump: fixture(dump), community: None, work: work.path().join(".agora") };
    let summary = run(options, Arc::new(Client::new(address, None, Token::Given(Secret::new("token")))?)).await;
    assert!(!work.path().join(".agora").exists(), "working files are gone");
    summary
}

/// What became of the commands of a kind: written, already there, refused.
fn count(summary: &Summary, kind: Kind) -> (u64, u64, u64) {
    let Count { written, already_there, refused } = summary.sent.kinds.get(&kind).copied().unwrap_or_default();
    (written, already_there, refused)
}

fn skipped(summary: &Summary, table: Table) -> Vec<(&str, u64)> {
    let of_table = summary.skipped.iter().filter(|skipped| skipped.table == table);
    of_table.map(|Skipped { reason, rows, .. }| (reason.as_str(), *rows)).collect()
}

#[tokio::test]
async fn everything_is_sent_once_and_the_second_time_nothing_is_written() -> anyhow::Result<()> {
    let (seen, address) = server().await?;
    let first = import("tiny", &address).await?;
    let expected = [
        (Kind::Place, 2),
        (Kind::Account, 10),
        (Kind::Member, 9),
        (Kind::Thread, 4),
        (Kind::Answer, 6),
        (Kind::Comment, 6),
        (Kind::Score, 6 + 3),
        (Kind::Accepted, 1),
    ];
    for (kind, commands) in expected {
        assert_eq!(count(&first, kind), (commands, 0, 0), "{kind:?}");
    }
    assert_eq!(first.read.values().copied().collect::<Vec<_>>(), [10, 12, 8, 17]);
    assert_eq!(skipped(&first, Table::Posts), [("a tag's wiki", 2), ("its accepted answer is not in the dump", 1)]);

    let commands = seen.lock().expect("no test panicked").commands.len();
    let second = import("tiny", &address).await?;
    assert_eq!(second.sent.total, Count { written: 0, already_there: commands as u64, refused: 0 });
    assert!(second.to_string().ends_with("nothing was written: tiny has all of it already"), "{second}");
    assert_eq!(seen.lock().expect("no test panicked").commands.len(), commands);
    Ok(())
}

#[tokio::test]
async fn a_reply_never_comes_before_its_parent_and_the_gone_act_as_deleted() -> anyhow::Result<()> {
    let (seen, address) = server().await?;
    import("tiny", &address).await?;
    let seen = seen.lock().expect("no test panicked");
    let nth = |what: &str| {
        let key = format!("stackexchange/tiny/tiny/{what}");
        seen.commands.iter().position(|(sent, _)| *sent == key).unwrap_or_else(|| panic!("{key} was not sent"))
    };
    for chain in [
        &["thread/1", "comment/1", "comment/2", "post/2", "post/3", "comment/3", "post/12", "comment/8", "accepted/1"]
            [..],
        &["thread/4", "comment/4", "post/5", "comment/5", "post/6", "score/6"],
        &["thread/7", "post/8"],
    ] {
        assert!(chain.is_sorted_by_key(|what| nth(what)), "{chain:?}");
    }
    assert_eq!(seen.commands[0].0, "stackexchange/tiny/user/-1");
    for (what, deleted) in [("thread/4", true), ("post/12", true), ("comment/4", true), ("thread/1", false)] {
        assert_eq!(seen.commands[nth(what)].1 == "deleted", deleted, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn broken_rows_are_counted_and_the_rest_goes_on() -> anyhow::Result<()> {
    let (_, address) = server().await?;
    let summary = import("broken", &address).await?;
    assert_eq!(count(&summary, Kind::Account), (3, 0, 0));
    assert_eq!(count(&summary, Kind::Thread), (1, 0, 0));
    assert_eq!(count(&summary, Kind::Answer), (1, 0, 0));
    assert_eq!(count(&summary, Kind::Comment), (2, 0, 0));
    assert_eq!(skipped(&summary, Table::Users), [("the row is broken", 4)]);
    assert_eq!(
        skipped(&summary, Table::Posts),
        [
            ("its accepted answer is not in the dump", 1),
            ("its question is not in the dump, or not carried over", 1),
            ("its title is too long", 1),
            ("the row is broken", 6),
        ]
    );
    assert_eq!(skipped(&summary, Table::Comments), [("its post is not in the dump", 1), ("the row is broken", 2)]);
    assert_eq!(skipped(&summary, Table::Votes), [("the row is broken", 2)]);
    assert!(summary.to_string().ends_with("broken is complete, but for broken rows: 14"), "{summary}");
    Ok(())
}

#[tokio::test]
async fn what_hangs_on_a_refused_post_is_not_sent() -> anyhow::Result<()> {
    let (seen, address) = server().await?;
    seen.lock().expect("no test panicked").refused = Some(|path| path.starts_with("/v2/threads/"));
    let summary = import("tiny", &address).await?;
    assert_eq!(count(&summary, Kind::Answer), (0, 0, 6));
    assert_eq!(count(&summary, Kind::Comment), (3, 0, 0));
    assert_eq!(count(&summary, Kind::Accepted), (0, 0, 0));
    let reasons = skipped(&summary, Table::Posts);
    assert!(reasons.contains(&("the server refused it (no)", 6)), "{reasons:?}");
    assert!(skipped(&summary, Table::Comments).contains(&("what it hangs on was refused", 3)));
    Ok(())
}

#[tokio::test]
async fn what_is_no_dump_is_refused_with_what_it_lacks() -> anyhow::Result<()> {
    let refusal = import("..", "http://127.0.0.1:1").await.expect_err("no dump").to_string();
    assert!(refusal.contains("is not a Stack Exchange dump: it has no Users.xml, no Posts.xml"), "{refusal}");
    let refusal = import("nowhere", "http://127.0.0.1:1").await.expect_err("no directory").to_string();
    assert!(refusal.starts_with("cannot open "), "{refusal}");
    Ok(())
}

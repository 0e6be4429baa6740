//! The client against a server that answers what it is told to.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex as SyncMutex},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use events::{PostId, ThreadId, post::Format};

use super::{
    command::{Behalf, Context, Kind, NewPost, Text},
    tally::Count,
    *,
};

/// Answers still to be given, and the headers of the requests that came.
#[derive(Default)]
struct Script {
    answers: VecDeque<Response>,
    came: Vec<HeaderMap>,
}

type Server = Arc<SyncMutex<Script>>;

async fn answer(State(script): State<Server>, headers: HeaderMap) -> Response {
    let mut script = script.lock().expect("no test panicked");
    script.came.push(headers);
    script.answers.pop_front().unwrap_or_else(|| StatusCode::CREATED.into_response())
}

async fn server(answers: impl IntoIterator<Item = Response>) -> anyhow::Result<(Server, String)> {
    let script = Server::new(SyncMutex::new(Script { answers: answers.into_iter().collect(), came: vec![] }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok((script, address))
}

fn given() -> Token {
    Token::Given(Secret::new("given"))
}

fn problem(status: u16, name: &str, pointer: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    let errors = serde_json::json!([{"pointer": pointer, "code": "x", "detail": "That one."}]);
    let body = serde_json::json!({"type": format!("/problems/{name}"), "detail": "No.", "errors": errors});
    (status, body.to_string()).into_response()
}

fn reply() -> Command {
    let post = NewPost { id: PostId::new(), text: Text { body: "Yes.".into(), format: Format::Markdown } };
    let at = "2011-08-17T20:18:56.507Z".parse().expect("a time");
    Command::answer(ThreadId::new(), &post, Context { key: "a/b/1".into(), behalf: Some(Behalf::Deleted), at })
}

fn counted(client: &Client) -> Count {
    client.tally.sent().kinds[&Kind::Answer]
}

#[tokio::test]
async fn a_command_says_under_which_key_for_whom_and_when() -> anyhow::Result<()> {
    let (script, address) = server([]).await?;
    let client = Client::new(&address, None, given())?;
    assert_eq!(client.send(&reply()).await?, Outcome::Written);
    let came = &script.lock().expect("no test panicked").came[0];
    assert_eq!(came["idempotency-key"], "a/b/1");
    assert_eq!(came["agora-on-behalf-of"], "deleted");
    assert_eq!(came["agora-occurred-at"], "2011-08-17T20:18:56.507Z");
    assert_eq!(came["authorization"], "Bearer given");
    Ok(())
}

#[tokio::test]
async fn what_passes_is_tried_again_until_it_is_answered() -> anyhow::Result<()> {
    let passing = [503, 429, 502, 500].map(|status| problem(status, "busy", ""));
    let (script, address) = server(passing).await?;
    let client = Client::new(&address, None, given())?;
    assert_eq!(client.send(&reply()).await?, Outcome::Written);
    assert_eq!(script.lock().expect("no test panicked").came.len(), 5);
    assert_eq!(counted(&client), Count { written: 1, ..Count::default() });
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_waited_for() -> anyhow::Result<()> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let client = Client::new(&format!("http://{address}"), None, given())?;
    let sending = tokio::spawn(async move { client.send(&reply()).await });
    // It goes away with the first try in its hands: who tries now is turned away.
    drop(tokio::time::timeout(TIMEOUT, listener.accept()).await??);
    drop(listener);
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = Router::new().fallback(|| async { StatusCode::CREATED });
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert_eq!(sending.await??, Outcome::Written);
    Ok(())
}

#[tokio::test]
async fn what_was_there_before_is_not_written() -> anyhow::Result<()> {
    let replayed = (StatusCode::CREATED, [("Idempotency-Replayed", "true")]).into_response();
    let unchanged = (StatusCode::OK, [("Agora-Unchanged", "true")]).into_response();
    let (_, address) = server([replayed, unchanged, problem(409, "duplicate", "#/id")]).await?;
    let client = Client::new(&address, None, given())?;
    for _ in 0..3 {
        assert_eq!(client.send(&reply()).await?, Outcome::AlreadyThere);
    }
    assert_eq!(counted(&client), Count { already_there: 3, ..Count::default() });
    Ok(())
}

#[tokio::test]
async fn a_post_that_is_there_is_not_refused_because_of_what_came_after() -> anyhow::Result<()> {
    let locked = || problem(422, "thread-locked", "");
    let (script, address) =
        server([locked(), "{}".into_response(), locked(), problem(404, "post-not-found", "")]).await?;
    let client = Client::new(&address, None, given())?;
    assert_eq!(client.send(&reply()).await?, Outcome::AlreadyThere);
    assert!(matches!(client.send(&reply()).await?, Outcome::Refused(_)));
    assert_eq!(script.lock().expect("no test panicked").came.len(), 4);
    Ok(())
}

#[tokio::test]
async fn a_refusal_says_what_is_to_blame() -> anyhow::Result<()> {
    let (_, address) = server([problem(409, "duplicate", "#/slug"), problem(404, "post-not-found", "")]).await?;
    let client = Client::new(&address, None, given())?;
    let Outcome::Refused(refusal) = client.send(&reply()).await? else { panic!("refused") };
    assert_eq!((refusal.name.as_str(), refusal.pointer.as_str()), ("duplicate", "#/slug"));
    assert_eq!(refusal.to_string(), "409 duplicate: No. (#/slug: That one.)");
    Ok(())
}

#[tokio::test]
async fn a_minted_token_is_made_anew_and_a_given_one_is_not() -> anyhow::Result<()> {
    let (script, address) = server([problem(401, "unauthenticated", "")]).await?;
    let made = Arc::new(SyncMutex::new(0));
    let mint = Box::new(move || {
        let mut made = made.lock().expect("no test panicked");
        *made += 1;
        let token = Secret::new(format!("minted {made}"));
        Box::pin(async move { Ok(token) }) as futures::future::BoxFuture<'static, _>
    });
    let client = Client::new(&address, None, Token::minted(mint))?;
    assert_eq!(client.send(&reply()).await?, Outcome::Written);
    assert_eq!(script.lock().expect("no test panicked").came[1]["authorization"], "Bearer minted 2");

    let (_, address) = server([problem(401, "unauthenticated", "")]).await?;
    let error = Client::new(&address, None, given())?.send(&reply()).await.expect_err("refused");
    assert!(error.to_string().contains("does not accept the token"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn reads_ask_for_the_last_position_of_each_shard() -> anyhow::Result<()> {
    let history = "01890a5d-ac96-774b-bcce-b302099a8057";
    let written = |shard: u8, position: i64| {
        (StatusCode::CREATED, [("Agora-Position", format!("{history}.{shard}.{position}"))]).into_response()
    };
    let behind = problem(503, "behind", "");
    let read = "{}".into_response();
    let (script, address) =
        server([written(3, 10), written(3, 12), written(3, 11), written(4, 1), behind, read]).await?;
    let client = Client::new(&address, None, given())?;
    for _ in 0..4 {
        client.send(&reply()).await?;
    }
    client.wait_for_reads(&["/v2/communities/x".to_owned()]).await?;
    let script = script.lock().expect("no test panicked");
    let asked = script.came.last().expect("a read")["agora-position"].to_str()?;
    let mut asked: Vec<&str> = asked.split(", ").collect();
    asked.sort_unstable();
    assert_eq!(asked, [format!("{history}.3.12"), format!("{history}.4.1")]);
    Ok(())
}

#[test]
fn an_address_is_a_url() {
    for wrong in ["localhost:8080", "ftp://x", ""] {
        assert!(Client::new(wrong, None, given()).is_err(), "{wrong}");
    }
}

#[test]
fn an_address_may_be_that_of_the_api() -> anyhow::Result<()> {
    for server in ["http://x:1", "http://x:1/", "http://x:1/v2", "http://x:1/v2/", "http://x:1//v2//"] {
        assert_eq!(Client::new(server, None, given())?.reads(), "http://x:1", "{server}");
    }
    assert_eq!(Client::new("http://x:1", Some("http://y:2/v2"), given())?.reads(), "http://y:2");
    Ok(())
}

#[tokio::test]
async fn a_command_service_alone_is_noticed_before_anything_is_written() -> anyhow::Result<()> {
    let alone = || ["alive".into_response(), problem(405, "method-not-allowed", "")];
    let (_, commands) = server(alone()).await?;
    let error = Client::new(&commands, None, given())?.knock().await.expect_err("no reads").to_string();
    assert_eq!(error, format!("{commands} takes commands only: say with --read-server where the query-service is"));

    let (_, commands) = server(alone()).await?;
    let (_, reads) = server(["{}".into_response()]).await?;
    Client::new(&commands, Some(&reads), given())?.knock().await
}

//! The read side's cache: shared, never older than asked for, and right without a single notice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agora_tests::{
    forum::{TestForum, text},
    pages::each,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
    response::Response,
};
use events::Shard;
use futures::{FutureExt, future::BoxFuture};
use platform::{
    config::Secret,
    db::DatabaseConfig,
    health::Health,
    identity::{Authenticator, Identity, TokenError},
    kafka::{Broker, KafkaConfig},
};
use query_service::CacheConfig;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

#[tokio::test]
async fn a_fresh_answer_is_everybodys_and_says_to_each_what_is_its_own() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    let guest = forum.guest();
    guest.get_after(&ada, &path).await.expect(200);
    let stranger = forum.guest();
    bob.put(&format!("/v2/posts/{opening}/reaction"), &json!({"kind": "like"})).await.expect(200);
    bob.reply(&thread, "more").await;
    // Whoever asks for what it wrote makes the answer that all others are given, whatever they ask for.
    let of_bob = bob.get(&path).await.expect(200);
    let of_stranger = stranger.get(&path).await;
    assert!(of_stranger.header("agora-position").is_some());
    let of_stranger = of_stranger.expect(200);
    assert_eq!(of_bob["items"], of_stranger["items"]);
    assert_eq!(each(of_stranger["items"].as_array().expect("posts"), "/body"), ["Talk, says I.", "more"]);
    assert_eq!(of_bob["mine"], json!({"reactions": {&opening: "like"}}));
    assert_eq!(eve.elsewhere().get(&path).await.expect(200)["mine"], json!({"reactions": {}}));
    assert_eq!(of_stranger.get("mine"), None);

    // What differs has an ETag of its own.
    let etag = async |reader: &agora_tests::forum::Person<'_>| {
        reader.get(&path).await.header("etag").expect("an ETag").to_owned()
    };
    let (of_bob, of_eve, of_guest) = (etag(&bob).await, etag(&eve).await, etag(&stranger).await);
    assert!(of_bob != of_eve && of_eve != of_guest && of_guest != of_bob);
    let known = bob.send(Method::GET, &path, None, &[("if-none-match", &of_guest)]).await;
    assert_eq!(known.status, 200, "a guest's answer is not bob's");
    forum.stop().await;
}

#[tokio::test]
async fn without_a_single_notice_a_read_is_as_fresh_as_it_asks_for() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    ada.get(&path).await.expect(200);
    bob.get("/v2/accounts/me").await.expect(200);
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let deaf = deaf(&forum.database_url, &shutdown, &tasks).await;
    assert_eq!(read(&deaf, &path, None).await["items"].as_array().expect("posts").len(), 1);
    let (membership, communities) = ("/v2/communities/tea/members/me", "/v2/accounts/bob/communities");
    for (method, joined) in [(Method::PUT, 1), (Method::DELETE, 0), (Method::PUT, 1)] {
        let changed = bob.send(method, membership, None, &[]).await;
        let position = changed.header("agora-position").expect("a position").to_owned();
        changed.expect(200);
        let page = read(&deaf, communities, Some(&position)).await;
        assert_eq!(page["items"].as_array().expect("communities").len(), joined, "the kept answer was too old");
    }
    for written in 2..=20 {
        let reply = ada.post(&path, &json!({"body": "more"})).await;
        let position = reply.header("agora-position").expect("a position").to_owned();
        reply.expect(201);
        let page = read(&deaf, &path, Some(&position)).await;
        assert_eq!(page["items"].as_array().expect("posts").len(), written, "the kept answer was too old");
    }
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    forum.stop().await;
}

#[tokio::test]
async fn without_a_single_notice_what_is_kept_is_dropped_by_the_checkpoints() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let deaf = deaf(&forum.database_url, &shutdown, &tasks).await;
    let (head, posts) = (format!("/v2/threads/{thread}"), format!("/v2/threads/{thread}/posts"));
    // A title is of the community's shard, its author's name of another; a list is of several.
    let changes = [
        (&*head, json!({"title": "Another title"}), &*head),
        ("/v2/accounts/me", json!({"display_name": "Another name"}), &*posts),
        (&*head, json!({"title": "Another once more"}), "/v2/accounts/ada/threads"),
        ("/v2/communities/tea", json!({"name": "Another place"}), "/v2/communities"),
    ];
    for (changed, change, path) in changes {
        ada.get(path).await.expect(200);
        let new = change.as_object().and_then(|change| change.values().next()).expect("a value");
        assert!(!read(&deaf, path, None).await.to_string().contains(&text(new)), "{path}");
        ada.patch(changed, &change).await.expect(200);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !read(&deaf, path, None).await.to_string().contains(&text(new)) {
            assert!(Instant::now() < deadline, "{path} is kept");
        }
    }
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    forum.stop().await;
}

#[tokio::test]
async fn rows_that_a_crash_of_their_database_took_back_are_waited_for() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    let reply = ada.post(&path, &json!({"body": "more"})).await;
    let position = reply.header("agora-position").expect("a position").to_owned();
    let reply = text(&reply.expect(201)["id"]);
    let posts = |body: &Value| body["items"].as_array().expect("posts").len();
    assert_eq!(posts(&ada.get(&path).await.expect(200)), 2);
    let guest = forum.guest();
    let read = async |limit: u32, wait: &str| {
        let headers = [("agora-position", &*position), ("prefer", wait)];
        guest.send(Method::GET, &format!("{path}?limit={limit}"), None, &headers).await
    };
    // As Postgres comes back whose last transactions were not on disk: rows and checkpoint together.
    let shard = i16::from(Shard::of_community(tea.id.parse().expect("an id")));
    let mut crash = forum.pool.begin().await.expect("begins");
    let taken_back = sqlx::query("delete from post where post_id = $1::uuid").bind(&reply);
    assert_eq!(taken_back.execute(&mut *crash).await.expect("deleted").rows_affected(), 1);
    sqlx::query(
        "update checkpoint c set position = e.position, event_id = e.event_id
        from (select position, event_id from events where shard = $1 order by position desc limit 1 offset 1) e
        where c.shard = $1 and c.projection = 'thread_page'",
    )
    .bind(shard)
    .execute(&mut *crash)
    .await
    .expect("moved");
    crash.commit().await.expect("commits");
    // The projector waits meanwhile.
    let mut held = forum.pool.begin().await.expect("begins");
    sqlx::query("lock table checkpoint in share mode").execute(&mut *held).await.expect("locked");
    for limit in 3..6 {
        read(limit, "wait=0").await.expect_problem(503, "position-not-reached");
    }
    held.rollback().await.expect("rolls back");
    assert_eq!(posts(&read(6, "wait=20").await.expect(200)), 2);
    forum.stop().await;
}

#[tokio::test]
async fn a_community_that_turned_private_is_hidden_and_out_of_every_list_at_once_without_a_notice() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    forum.community(&ada, "tea").await;
    let mug = forum.community(&ada, "mug").await;
    let (thread, opening) = ada.thread(&mug, "Talk").await;
    let pages = [
        format!("/v2/communities/{}", mug.id),
        format!("/v2/categories/{}", mug.category),
        format!("/v2/threads/{thread}/posts"),
        format!("/v2/posts/{opening}"),
    ];
    for page in &pages {
        ada.get(page).await.expect(200);
    }
    let lists = [("/v2/communities", "/slug"), ("/v2/accounts/ada/communities", "/community/slug")];
    for (path, _) in lists {
        ada.get(path).await.expect(200);
    }
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let deaf = deaf(&forum.database_url, &shutdown, &tasks).await;
    let slugs = async |path, slug| each(read(&deaf, path, None).await["items"].as_array().expect("items"), slug);
    for (path, slug) in lists {
        assert_eq!(slugs(path, slug).await.len(), 2);
    }
    for visibility in ["public", "private", "public", "private"] {
        ada.patch(&format!("/v2/communities/{}", mug.id), &json!({"visibility": visibility})).await.expect(200);
        ada.get("/v2/communities/mug").await.expect(200);
        for (path, slug) in lists {
            assert!(visibility == "public" || slugs(path, slug).await == [json!("tea")], "{path}");
        }
        // Twice: what was found out for the first is remembered.
        for page in pages.iter().chain(&pages) {
            let status = answer(&deaf, page, None).await.status();
            assert_eq!(status, if visibility == "public" { 200 } else { 404 }, "{page}");
        }
    }
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    forum.stop().await;
}

/// A query-service that hears no notices, and would keep an answer for an hour.
async fn deaf(database_url: &str, shutdown: &CancellationToken, tasks: &TaskTracker) -> Router {
    let database = DatabaseConfig { url: Secret::from(database_url.to_owned()), ..DatabaseConfig::default() };
    let config = query_service::Config {
        store: database.clone(),
        database,
        cache: CacheConfig { time_to_live: Duration::from_secs(3600), ..CacheConfig::default() },
        ..query_service::Config::default()
    };
    let silent = Broker::start(&KafkaConfig::default()).expect("a broker of its own");
    let started =
        query_service::start(&config, silent, Arc::new(Guests), &Health::new(), shutdown.clone(), tasks).await;
    started.expect("it starts").into()
}

async fn read(router: &Router, path: &str, position: Option<&str>) -> Value {
    let answer = answer(router, path, position).await;
    assert_eq!(answer.status(), 200, "{path}");
    let body = to_bytes(answer.into_body(), usize::MAX).await.expect("the body is whole");
    serde_json::from_slice(&body).expect("JSON")
}

async fn answer(router: &Router, path: &str, position: Option<&str>) -> Response {
    let mut request = Request::get(path);
    if let Some(position) = position {
        request = request.header("agora-position", position).header("prefer", "wait=20");
    }
    router.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer")
}

/// Knows nobody.
struct Guests;

impl Authenticator for Guests {
    fn authenticate<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
        async { Err(TokenError::Expired) }.boxed()
    }
}

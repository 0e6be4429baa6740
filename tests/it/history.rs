//! The history of events over HTTP: pages of it, and streams.

mod as_of;
mod stream;

use std::{sync::Arc, time::Duration};

use agora_tests::{
    forum::{Person, TestForum, text},
    pages::walk,
    postgres::fresh_database,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request,
};
use futures::{FutureExt as _, future::BoxFuture};
use platform::{
    config::Secret,
    db::DatabaseConfig,
    health::Health,
    identity::{Authenticator, Identity, TokenError},
    instances::{self, Knows},
    kafka::{Broker, KafkaConfig},
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use uuid::Uuid;

const EVENTS: &str = "/v2/events";
/// What this release does not know.
const NEWER: &str = "tea.made version 1";
/// How long what should happen soon may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// The positions that a condition holds for, in order.
async fn positions(pool: &PgPool, condition: &str) -> Vec<Value> {
    let query = format!("select position from events where {condition} order by position");
    let found: Vec<i64> = sqlx::query_scalar(&query).fetch_all(pool).await.expect("positions");
    found.into_iter().map(|position| json!(position.to_string())).collect()
}

fn positions_of(events: &[Value]) -> Vec<Value> {
    events.iter().map(|event| event["position"].clone()).collect()
}

async fn page(reader: &Person<'_>, query: &str) -> Vec<Value> {
    let page = reader.get(&format!("{EVENTS}?limit=100&{query}")).await.expect(200);
    assert!(page["next"].is_null(), "{query}: all of it is on one page");
    page["items"].as_array().expect("events").clone()
}

#[tokio::test]
async fn pages_are_the_history_and_its_parts_are_what_was_asked_for() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let (tea, mug) = (forum.community(&ada, "tea").await, forum.community(&bob, "mug").await);
    let (thread, _) = ada.thread(&tea, "First").await;
    bob.thread(&mug, "Other").await;
    for n in 0..8 {
        bob.reply(&thread, &format!("reply {n}")).await;
    }
    let all = walk(&operator, EVENTS, 7).await;
    assert_eq!(positions_of(&all), positions(&forum.pool, "true").await);
    for (nth, event) in all.iter().enumerate() {
        let before = all[..nth].iter().rev().find(|before| before["shard"] == event["shard"]);
        assert_eq!(event["previous"], before.map_or(json!("0"), |before| before["position"].clone()));
    }
    let first = &all[0];
    assert_eq!((&first["type"], &first["specversion"]), (&json!("account.registered"), &json!("1.0")));

    let names = "event_type in ('post.written', 'thread.started')";
    assert_eq!(
        positions_of(&page(&operator, "type=thread.started,post.written").await),
        positions(&forum.pool, names).await
    );
    let of_tea = format!("community_id = '{}'", tea.id);
    for name in [&tea.slug, &tea.id] {
        let shown = page(&operator, &format!("community={name}")).await;
        assert_eq!(positions_of(&shown), positions(&forum.pool, &of_tea).await);
        assert!(shown.iter().all(|event| all.contains(event)), "an event says the same wherever it is shown");
    }
    let both = page(&operator, "community=tea&type=post.written&from=14&to=16").await;
    let condition = format!("{of_tea} and event_type = 'post.written' and position > 14 and position <= 16");
    assert_eq!(positions_of(&both), positions(&forum.pool, &condition).await);
    let since = text(&all[all.len() / 2]["time"]);
    let later = positions(&forum.pool, &format!("recorded_at >= '{since}'")).await;
    assert!(later.len() > 1 && later.len() < all.len());
    assert_eq!(positions_of(&page(&operator, &format!("since={since}")).await), later);

    // Whatever pages it is cut into.
    let cut = walk_filtered(&operator, "community=tea&type=post.written").await;
    assert_eq!(positions_of(&cut), positions(&forum.pool, &format!("{of_tea} and event_type = 'post.written'")).await);
    forum.stop().await;
}

#[tokio::test]
async fn the_newest_events_are_one_link_away() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    for n in 0..5 {
        ada.reply(&thread, &format!("reply {n}")).await;
    }
    for query in ["limit=2", "limit=2&type=post.written", "limit=2&from=3&to=7"] {
        let answer = operator.get(&format!("{EVENTS}?{query}")).await;
        let links = answer.header("link").expect("links").to_owned();
        let last = links.split(", ").find_map(|link| link.strip_suffix(r#">; rel="last""#)).expect("the last one");
        let last = &last[1..];
        for reply in ["newer", "newest"] {
            let page = operator.get(last).await.expect(200);
            let shown = positions_of(page["items"].as_array().expect("events"));
            let condition = match query {
                "limit=2" => "true",
                "limit=2&type=post.written" => "event_type = 'post.written'",
                _ => "position > 3 and position <= 7",
            };
            let all = positions(&forum.pool, condition).await;
            assert_eq!(shown, all[all.len() - 2..], "{query}, whatever has come since");
            assert!(page["next"].is_null() && page["previous"].is_string(), "{page}");
            let before = format!("{EVENTS}?{query}&cursor={}", text(&page["previous"]));
            let before = operator.get(&before).await.expect(200);
            assert_eq!(positions_of(before["items"].as_array().expect("events")), all[all.len() - 4..all.len() - 2]);
            ada.reply(&thread, reply).await;
        }
    }
    forum.stop().await;
}

#[tokio::test]
async fn the_catalogue_tells_everybody_what_each_event_says() {
    let forum = TestForum::start().await;
    let answer = forum.guest().get(&format!("{EVENTS}/catalogue")).await;
    let etag = answer.header("etag").expect("an ETag").to_owned();
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let catalogue = answer.expect(200);
    let printed = events::catalogue::catalogue();
    assert_eq!(catalogue, json!({"items": printed}));
    assert_eq!(catalogue["items"][0]["schema"]["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let path = format!("{EVENTS}/catalogue");
    let again = forum.guest().send(Method::GET, &path, None, &[("if-none-match", &etag)]).await;
    assert_eq!(again.status, 304);
    // And the parameter says which there are.
    let api = serde_json::to_value(agora::stack::openapi()).expect("JSON");
    let parameters = api["paths"][EVENTS]["get"]["parameters"].as_array().expect("parameters");
    let names = parameters.iter().find(|it| it["name"] == "type").expect("one")["schema"]["items"]["enum"].clone();
    assert_eq!(names, json!(printed.iter().map(|entry| entry.name).collect::<Vec<_>>()));
    forum.stop().await;
}

/// Two on a page, forwards and then backwards: where there is a filter, the last page may be empty.
async fn walk_filtered(reader: &Person<'_>, query: &str) -> Vec<Value> {
    let forwards = follow(reader, query, "next", None).await;
    let last = forwards.last().expect("a page");
    let mut backwards = follow(reader, query, "previous", last["previous"].as_str()).await;
    backwards.reverse();
    assert_eq!(items(&backwards), items(&forwards[..forwards.len() - 1]));
    items(&forwards)
}

/// The pages that one another name as `relation`, from a cursor on.
async fn follow(reader: &Person<'_>, query: &str, relation: &str, from: Option<&str>) -> Vec<Value> {
    let mut cursor = from.map(str::to_owned);
    let mut pages: Vec<Value> = Vec::new();
    while pages.is_empty() || cursor.is_some() {
        let at = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = reader.get(&format!("{EVENTS}?limit=2&{query}{at}")).await.expect(200);
        cursor = page[relation].as_str().map(str::to_owned);
        pages.push(page);
    }
    pages
}

fn items(pages: &[Value]) -> Vec<Value> {
    pages.iter().flat_map(|page| page["items"].as_array().expect("events").clone()).collect()
}

#[tokio::test]
async fn all_events_are_for_operators_and_a_communitys_for_its_admins() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    forum.community(&ada, "tea").await;
    forum.community_with(&ada, "den", &json!({"visibility": "private"})).await;
    let of_tea = format!("{EVENTS}?community=tea");
    for (name, role) in [("bob", "admin"), ("eve", "moderator")] {
        let person = if name == "bob" { &bob } else { &eve };
        person.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
        ada.put(&format!("/v2/communities/tea/members/{name}/role"), &json!({"role": role})).await.expect(200);
        person.catch_up(&ada);
    }
    for admin in [&ada, &bob] {
        let shown = admin.get(&of_tea).await.expect(200);
        assert!(shown["items"].as_array().is_some_and(|events| events.len() > 3));
        admin.refused(Method::GET, EVENTS, Value::Null, (403, "role-required")).await;
    }
    let refused = eve.refused(Method::GET, &of_tea, Value::Null, (403, "role-required")).await;
    assert_eq!(refused["detail"], "It takes an admin or an owner of this community to read its events.");
    let of_den = format!("{EVENTS}?community=den");
    bob.refused(Method::GET, &of_den, Value::Null, (404, "community-not-found")).await;
    let guest = forum.guest();
    for path in [EVENTS, &of_tea, &of_den] {
        guest.refused(Method::GET, path, Value::Null, (401, "unauthenticated")).await;
    }
    let operator = forum.operator().await;
    for path in [EVENTS, &of_tea, &of_den] {
        operator.get_after(&ada, path).await.expect(200);
    }
    // Who is an admin no more reads no more.
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "member"})).await.expect(200);
    bob.catch_up(&ada);
    bob.refused(Method::GET, &of_tea, Value::Null, (403, "role-required")).await;
    forum.stop().await;
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_place() {
    let forum = TestForum::start().await;
    let (_, operator) = (forum.person("ada").await, forum.operator().await);
    for (query, status, pointer, code) in [
        ("type=post.sung", 422, "?type", "unknown_value"),
        ("type=", 422, "?type", "unknown_value"),
        ("from=-1", 422, "?from", "too_small"),
        ("from=999999", 422, "?from", "too_large"),
        ("to=999999", 422, "?to", "too_large"),
        ("from=1&to=0", 422, "?to", "too_small"),
        ("limit=101", 422, "?limit", "too_large"),
        ("limit=0", 422, "?limit", "too_small"),
        ("from=x", 400, "?from", "invalid_value"),
        ("since=yesterday", 400, "?since", "invalid_value"),
        ("cursor=x", 400, "?cursor", "malformed_cursor"),
        ("form=1", 400, "?form", "unknown_parameter"),
        ("type=post.written&type=post.edited", 400, "?type", "duplicate_parameter"),
    ] {
        let answer = operator.get(&format!("{EVENTS}?{query}")).await.expect(status);
        assert_eq!(
            (&answer["errors"][0]["pointer"], &answer["errors"][0]["code"]),
            (&json!(pointer), &json!(code)),
            "{query}"
        );
    }
    let cursor = operator.get(&format!("{EVENTS}?limit=1")).await.expect(200)["next"].clone();
    let other = format!("{EVENTS}?type=post.written&cursor={}", text(&cursor));
    operator.refused(Method::GET, &other, Value::Null, (400, "malformed-request")).await;
    sqlx::query("update history_line set history = gen_random_uuid()").execute(&forum.pool).await.expect("restored");
    let lost = format!("{EVENTS}?cursor={}", text(&cursor));
    operator.refused(Method::GET, &lost, Value::Null, (410, "history-lost")).await;
    forum.stop().await;
}

#[tokio::test]
async fn no_secret_is_in_any_event_that_is_answered() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    forum.community(&ada, "tea").await;
    let password = json!({"current_password": "correct horse", "new_password": "battery staple"});
    ada.put("/v2/accounts/me/password", &password).await.expect(200);
    let private: Vec<String> =
        sqlx::query_scalar("select value from private_data").fetch_all(&forum.pool).await.expect("private data");
    let secrets: Vec<String> =
        [ada.token(), operator.token(), "correct horse", "battery staple", "@example.org", "$argon2"]
            .into_iter()
            .map(str::to_owned)
            .chain(private)
            .collect();
    assert!(secrets.len() >= 10, "hashes and addresses are there to be found: {}", secrets.len());
    let events = walk(&operator, EVENTS, 10).await;
    assert!(events.iter().any(|event| event["type"] == "account.password_changed"));
    let told = serde_json::to_string(&events).expect("JSON");
    for secret in secrets {
        assert!(!told.contains(&secret), "{secret} is in an event");
    }
    forum.stop().await;
}

#[tokio::test]
async fn a_page_that_finds_little_looks_at_so_much_and_says_where_it_goes_on() {
    let url = fresh_database().await;
    let options: PgConnectOptions = url.parse().expect("a URL");
    let pool = PgPool::connect_with(options.options([("search_path", "store,read")])).await.expect("connects");
    // One that is looked for, at the end of more than are looked at for two pages.
    sqlx::raw_sql(
        r#"insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
            position, shard, event_id, community_id, recorded_at)
        select 'thread', 'x', n, case n when 120000 then 'thread.locked' else 'thread.unlocked' end, '1', '{}',
            '{"correlation_id": "00000000-0000-0000-0000-000000000000"}', n, 7, gen_random_uuid(), null, now()
        from generate_series(1, 120000) n"#,
    )
    .execute(&pool)
    .await
    .expect("events");
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let reads = start(&url, &url, &shutdown, &tasks).await;
    let mut at = format!("{EVENTS}?type=thread.locked");
    let mut found = Vec::new();
    for page in 1..=3 {
        let (status, answer) = ask(&reads, &at).await;
        assert_eq!(status, 200, "{answer}");
        found.extend(answer["items"].as_array().expect("events").clone());
        assert_eq!((answer["next"].is_null(), found.len()), (page == 3, usize::from(page == 3)), "page {page}");
        at = format!("{EVENTS}?type=thread.locked&cursor={}", answer["next"].as_str().unwrap_or_default());
    }
    assert_eq!(positions_of(&found), [json!("120000")]);

    // What nobody can read stops it, after what precedes it.
    let unknown = "insert into events select aggregate_type, 'y', 1, 'thread.sung', '1', payload, metadata, 120001, 7, \
                   gen_random_uuid(), null, now() from events where position = 1";
    sqlx::raw_sql(unknown).execute(&pool).await.expect("written");
    let (_, before) = ask(&reads, &format!("{EVENTS}?from=119998")).await;
    assert_eq!(positions_of(before["items"].as_array().expect("events")), [json!("119999"), json!("120000")]);
    let (status, problem) = ask(&reads, &format!("{EVENTS}?from=119998&cursor={}", text(&before["next"]))).await;
    assert_eq!((status, &problem["type"]), (500, &json!("/problems/unreadable-event")));
    assert!(problem["detail"].as_str().is_some_and(|words| words.contains("at position 120001")), "{problem}");
    end(&shutdown, &tasks).await;
}

#[tokio::test]
async fn without_the_event_store_other_reads_go_on() {
    let (url, nowhere) = (fresh_database().await, "postgres://agora@127.0.0.1:1/agora");
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let reads = start(&url, nowhere, &shutdown, &tasks).await;
    assert_eq!(ask(&reads, "/v2/communities").await.0, 200);
    let (status, problem) = ask(&reads, EVENTS).await;
    assert_eq!((status, &problem["type"]), (503, &json!("/problems/events-not-read-yet")));
    end(&shutdown, &tasks).await;
}

#[tokio::test]
async fn who_does_not_know_what_is_written_answers_no_events_until_it_may() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let as_of = format!("/v2/threads/{thread}/posts?as_of=2999-01-01T00:00:00Z");
    ada.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
    let (pool, url) = (forum.pool.clone(), forum.database_url.clone());
    forum.stop().await;
    // Nobody else runs: it writes.
    let newer = Knows { service: "writer", release: "7.0.0", reads: Vec::new(), writes: vec![NEWER.to_owned()] };
    let (stop_writing, writing) = (CancellationToken::new(), TaskTracker::new());
    instances::join(pool.clone(), newer, stop_writing.clone(), &writing).await.expect("it writes");

    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let reads = start(&url, &url, &shutdown, &tasks).await;
    assert_eq!(ask(&reads, "/v2/communities").await.0, 200, "other reads go on");
    for (path, accept) in [(EVENTS, "application/json"), (EVENTS, "text/event-stream"), (&as_of, "*/*")] {
        let request = Request::get(path).header("authorization", "Bearer operator").header("accept", accept);
        let answer = reads.clone().oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert_eq!(answer.status(), 503, "{path} {accept}");
        assert_eq!(answer.headers()["retry-after"], "2");
        let body = to_bytes(answer.into_body(), usize::MAX).await.expect("the body is whole");
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(problem["type"], "/problems/events-not-read-yet", "{problem}");
    }
    let readers = "select count(*) from instances where service = 'query-service'";
    assert_eq!(sqlx::query_scalar::<_, i64>(readers).fetch_one(&pool).await.expect("a count"), 0);

    end(&stop_writing, &writing).await;
    let page = async {
        loop {
            match ask(&reads, EVENTS).await {
                (503, _) => tokio::task::yield_now().await,
                answer => break answer,
            }
        }
    };
    let (status, page) = tokio::time::timeout(PATIENCE, page).await.expect("it may read");
    assert_eq!((status, &page["items"][0]["type"]), (200, &json!("account.registered")), "{page}");
    let (status, then) = ask(&reads, &as_of).await;
    assert_eq!(
        (status, &then["errors"][0]["code"]),
        (422, &json!("in_the_future")),
        "it looks at what is asked: {then}"
    );
    assert_eq!(
        sqlx::query_scalar::<_, i64>(readers).fetch_one(&pool).await.expect("a count"),
        1,
        "writers wait for it"
    );
    end(&shutdown, &tasks).await;
}

/// A query-service alone, whose readers are all operators.
async fn start(database: &str, store: &str, shutdown: &CancellationToken, tasks: &TaskTracker) -> Router {
    let at = |url: &str| DatabaseConfig { url: Secret::from(url.to_owned()), ..DatabaseConfig::default() };
    let config = query_service::Config { database: at(database), store: at(store), ..query_service::Config::default() };
    let silent = Broker::start(&KafkaConfig::default()).expect("a broker of its own");
    let health = Health::new();
    let reads = query_service::start(&config, silent, Arc::new(Operators), &health, shutdown.clone(), tasks);
    reads.await.expect("it starts").into()
}

async fn ask(reads: &Router, path: &str) -> (u16, Value) {
    let request = Request::get(path).header("authorization", "Bearer operator").body(Body::empty()).expect("a request");
    let answer = reads.clone().oneshot(request).await.expect("an answer");
    let status = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), usize::MAX).await.expect("the body is whole");
    (status, serde_json::from_slice(&body).expect("JSON"))
}

async fn end(shutdown: &CancellationToken, tasks: &TaskTracker) {
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
}

/// Takes everybody for an operator.
struct Operators;

impl Authenticator for Operators {
    fn authenticate<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Identity, TokenError>> {
        let operator = Identity { account: Uuid::from_u128(1), session: Uuid::nil(), operator: true };
        async move { Ok(operator) }.boxed()
    }
}

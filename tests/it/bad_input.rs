//! Bad input: each gets a clear answer that says where and why, and leaves nothing half-done behind.

use std::{net::SocketAddr, time::Duration};

use agora_tests::forum::{Person, TestForum, text};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const REGISTER: &str = "/v2/accounts";

/// Sends a body as it is.
async fn send(forum: &TestForum, content_type: Option<&str>, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let mut request = reqwest::Client::new().post(format!("{}{REGISTER}", forum.url)).body(body);
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (status, response.json().await.expect("a problem"))
}

/// How many events there are, and what else a command writes.
async fn written(forum: &TestForum) -> i64 {
    sqlx::query_scalar(
        "select (select count(*) from events) + (select count(*) from claims) + (select count(*) from private_data)",
    )
    .fetch_one(&forum.pool)
    .await
    .expect("a count")
}

#[tokio::test]
async fn a_body_that_does_not_fit_is_refused_where_it_does_not() {
    let forum = TestForum::start().await;
    let good = r#"{"username": "ada", "email": "ada@example.org", "password": "correct horse""#;
    let with = |more: &str| format!("{good}{more}}}").into_bytes();
    let cases: [(&str, Vec<u8>, &str, &str); 16] = [
        ("nothing", Vec::new(), "#", "empty"),
        ("no JSON", b"hello".to_vec(), "#", "invalid_json"),
        ("half of it", good.as_bytes().to_vec(), "#", "invalid_json"),
        ("more behind it", [with(""), b" {}".to_vec()].concat(), "#", "invalid_json"),
        ("a list", b"[1]".to_vec(), "#", "wrong_type"),
        ("a number", b"7".to_vec(), "#", "wrong_type"),
        ("null", b"null".to_vec(), "#", "wrong_type"),
        ("too deep", [b"[".repeat(100_000), b"]".repeat(100_000)].concat(), "#", "wrong_type"),
        ("an unknown field", with(r#", "admin": true"#), "#/admin", "unknown_field"),
        ("the same twice", with(r#", "username": "eve""#), "#/username", "duplicate_field"),
        ("a wrong type", with(r#", "display_name": 7"#), "#/display_name", "wrong_type"),
        ("an id that is none", with(r#", "id": "7""#), "#/id", "invalid_value"),
        ("a NUL", with(r#", "display_name": "a\u0000b""#), "#/display_name", "nul_character"),
        ("a raw control character", with(", \"display_name\": \"a\u{1}b\""), "#", "invalid_json"),
        ("bad UTF-8", with_bytes(good, b", \"display_name\": \"\xff\"}"), "#", "invalid_json"),
        ("half a surrogate pair", with(r#", "display_name": "\ud800""#), "#", "invalid_json"),
    ];
    let before = written(&forum).await;
    for (what, body, pointer, code) in cases {
        let (status, problem) = send(&forum, Some("application/json"), body).await;
        assert_eq!((status, &problem["type"]), (400, &json!("/problems/malformed-request")), "{what}: {problem}");
        assert_eq!(
            (&problem["errors"][0]["code"], &problem["errors"][0]["pointer"]),
            (&json!(code), &json!(pointer)),
            "{what}: {problem}"
        );
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 15), "{what}: {problem}");
    }
    let (_, missing) = send(&forum, Some("application/json"), "{}").await;
    assert!(missing["detail"].as_str().is_some_and(|detail| detail.contains("username")), "{missing}");
    assert_eq!(written(&forum).await, before, "nothing was written");
    forum.stop().await;
}

fn with_bytes(start: &str, end: &[u8]) -> Vec<u8> {
    [start.as_bytes(), end].concat()
}

#[tokio::test]
async fn other_media_and_too_large_bodies_are_refused() {
    let forum = TestForum::start_with(|config| config.http.body_limit_bytes = 4_000).await;
    for media in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/json; charset=latin1"),
        Some("json"),
    ] {
        let (status, problem) = send(&forum, media, "{}").await;
        assert_eq!((status, &problem["type"]), (415, &json!("/problems/unsupported-media-type")), "{media:?}");
    }
    for media in ["application/json; charset=UTF-8", "application/merge-patch+json"] {
        assert_eq!(send(&forum, Some(media), "{}").await.0, 400, "{media} is JSON");
    }
    let large = json!({"username": "x".repeat(5_000)}).to_string();
    let (status, problem) = send(&forum, Some("application/json"), large.clone()).await;
    assert_eq!((status, &problem["type"]), (413, &json!("/problems/body-too-large")));
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("4000")), "{problem}");
    // In chunks, of which nobody knows how many will come.
    let head = "POST /v2/accounts HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let chunk = format!("{:x}\r\n{large}\r\n", large.len());
    let answer = say(forum.address, format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("/problems/body-too-large"), "{answer}");
    forum.stop().await;
}

#[tokio::test]
async fn every_text_has_a_limit_and_says_it() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let long = |characters: usize| json!("é".repeat(characters + 1));
    let word = |characters: usize| json!("x".repeat(characters + 1));
    let many = |count: usize| json!((0..=count).map(|n| n.to_string()).collect::<Vec<_>>());
    let threads = "/v2/communities/tea/threads";
    let thread_path = format!("/v2/threads/{thread}");
    let member = "/v2/communities/tea/members/me";
    let cases = [
        (Method::POST, "/v2/communities", json!({"name": "x"}), "slug", word(64), 64),
        (Method::POST, "/v2/communities", json!({"slug": "x"}), "name", long(120), 120),
        (Method::PATCH, "/v2/communities/tea", json!({}), "description", long(2_000), 2_000),
        (Method::PATCH, "/v2/communities/tea", json!({}), "reactions", many(32), 32),
        (Method::PATCH, "/v2/accounts/me", json!({}), "about", long(10_000), 10_000),
        (Method::PATCH, "/v2/accounts/me", json!({}), "location", long(254), 254),
        (Method::POST, threads, json!({"category_id": tea.category, "body": "x"}), "title", long(300), 300),
        (Method::PATCH, &thread_path, json!({}), "tags", many(10), 10),
        (Method::PATCH, &format!("/v2/posts/{opening}"), json!({"base_revision": 1}), "body", long(51_200), 102_400),
        (Method::PUT, &format!("{member}/ban"), json!({}), "reason", long(2_000), 2_000),
        (Method::PUT, &format!("/v2/posts/{opening}/reaction"), json!({}), "kind", word(48), 48),
    ];
    for (method, path, mut body, field, value, limit) in cases {
        body[field] = value;
        let problem = ada.refused(method, path, body, (422, "invalid-value")).await;
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["pointer"], &error["code"]),
            (&json!(format!("#/{field}")), &json!("too_long")),
            "{problem}"
        );
        assert!(error["detail"].as_str().is_some_and(|detail| detail.contains(&limit.to_string())), "{problem}");
    }
    let tag = json!({"tags": ["fine", "x".repeat(49)]});
    let problem = ada.refused(Method::PATCH, &thread_path, tag, (422, "invalid-value")).await;
    assert_eq!(problem["errors"][0]["pointer"], "#/tags/1");
    // At the limit it is taken, and shown whole.
    let most = "é".repeat(51_200);
    let post = ada.reply(&thread, &most).await;
    assert_eq!(ada.get(&format!("/v2/posts/{post}")).await.expect(200)["body"], json!(most));
    // Every character of it is escaped in the event's JSON: six bytes for one.
    let escaped = json!({"body": format!("x{}", "\u{1}".repeat(100_000))});
    ada.refused(Method::POST, &format!("{thread_path}/posts"), escaped, (422, "event-too-large")).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_path_or_query_that_does_not_fit_is_refused_where_it_does_not() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    for path in [
        "/v2/threads/7",
        "/v2/threads/7/posts",
        "/v2/posts/x",
        "/v2/categories/a%20b",
        "/v2/posts/%FF",
        "/v2/threads/%00",
    ] {
        let problem = ada.refused(Method::GET, path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["pointer"], "{id}", "{path}: {problem}");
    }
    for path in ["/v2/communities/%00", "/v2/communities/%FF", "/v2/communities/a%00b/threads"] {
        let problem = ada.refused(Method::GET, path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["pointer"], "{c}", "{path}: {problem}");
    }
    for (query, pointer) in
        [("limit=-1", "?limit"), ("limit=99999999999", "?limit"), ("a=%FF", "?"), ("cursor=%00", "?"), ("x", "?x")]
    {
        let path = format!("/v2/communities?{query}");
        let problem = ada.refused(Method::GET, &path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{query}: {problem}");
    }
    for (method, path) in
        [(Method::DELETE, "/v2/posts/7"), (Method::PUT, "/v2/threads/7/lock"), (Method::PUT, "/v2/posts/7/hide")]
    {
        ada.refused(method, path, Value::Null, (400, "malformed-request")).await;
    }
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let reason = format!("/v2/threads/{thread}?reason={}", "x".repeat(2_001));
    ada.refused(Method::DELETE, &reason, Value::Null, (422, "invalid-value")).await;
    ada.refused(Method::DELETE, &format!("/v2/threads/{thread}?because=x"), Value::Null, (400, "malformed-request"))
        .await;
    forum.stop().await;
}

/// Cursors as no list of ours gives them, made of one that it gave: each part of its key replaced by what is too much
/// for somebody.
fn forged(cursor: &str) -> Vec<String> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).expect("base64");
    // Version, direction, and the list's mark.
    let (head, key) = bytes.split_at(10);
    let key: Value = serde_json::from_slice(key).expect("JSON");
    let parts = key.as_array().cloned().unwrap_or_else(|| vec![key.clone()]);
    let mut forged = Vec::new();
    for (index, direction) in (0..parts.len()).flat_map(|index| [(index, 0), (index, 1)]) {
        for much in [
            json!(i64::MIN),
            json!(i64::MAX),
            json!(-8_334_601_228_800_000_000_i64),
            json!(i32::MAX),
            json!(i32::MIN),
            json!("a\0b"),
            json!("+262142-12-31T23:59:59Z"),
            json!([i32::MAX]),
            Value::Null,
        ] {
            let mut parts = parts.clone();
            parts[index] = much;
            let key = if key.is_array() { Value::Array(parts) } else { parts.remove(0) };
            let bytes = [&head[..1], &[direction], &head[2..], key.to_string().as_bytes()].concat();
            forged.push(URL_SAFE_NO_PAD.encode(bytes));
        }
    }
    forged
}

#[tokio::test]
async fn a_forged_cursor_is_refused_or_leads_to_another_place_of_its_list() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    ada.catch_up(&bob);
    forum.community(&ada, "mate").await;
    let tagged = json!({"title": "x", "body": "x", "category_id": tea.category, "tags": ["a", "b"]});
    ada.post("/v2/communities/tea/threads", &tagged).await.expect(201);
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    for _ in 0..2 {
        ada.reply(&thread, "more").await;
    }
    let edit = json!({"body": "x", "base_revision": 1});
    ada.patch(&format!("/v2/posts/{opening}"), &edit).await.expect(200);
    let news = json!({"slug": "news", "name": "News"});
    ada.post("/v2/communities/tea/categories", &news).await.expect(201);
    let mut lists = vec![
        "/v2/accounts/ada/communities?".to_owned(),
        "/v2/accounts/ada/posts?".to_owned(),
        "/v2/accounts/ada/threads?".to_owned(),
        "/v2/communities/tea/moderation-log?".to_owned(),
        "/v2/communities/tea/tags?".to_owned(),
        format!("/v2/posts/{opening}/revisions?"),
        format!("/v2/posts/{opening}/replies?"),
        format!("/v2/posts/{opening}/replies?sort=best&"),
        format!("/v2/threads/{thread}/posts?"),
        format!("/v2/threads/{thread}/posts?view=tree&"),
        format!("/v2/threads/{thread}/posts?view=tree&sort=best&"),
    ];
    lists.extend(["active", "new", "hot", "top", "replies"].map(|s| format!("/v2/communities/tea/threads?sort={s}&")));
    lists.extend(["role", "name"].map(|sort| format!("/v2/communities/tea/members?sort={sort}&")));
    lists.extend(["activity", "new", "name"].map(|sort| format!("/v2/communities?sort={sort}&")));
    for list in lists {
        let page = ada.get(&format!("{list}limit=1")).await.expect(200);
        for cursor in forged(&text(&page["next"])) {
            let answer = ada.get(&format!("{list}limit=1&cursor={cursor}")).await;
            if answer.status != 200 {
                let problem = answer.expect_problem(400, "malformed-request");
                assert_eq!(problem["errors"][0]["code"], "malformed_cursor", "{list}{cursor}");
            }
        }
    }
    forum.stop().await;
}

#[tokio::test]
async fn headers_that_do_not_fit_are_named() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let patch = json!({"location": "London"});
    for (header, value) in [
        ("idempotency-key", ""),
        ("idempotency-key", "two words"),
        ("idempotency-key", &*"k".repeat(256)),
        ("if-match", "1"),
        ("if-match", "\"-1\""),
        ("if-match", "\"1\", \"2\""),
    ] {
        let answer = ada.send(Method::PATCH, "/v2/accounts/me", Some(&patch), &[(header, value)]).await;
        assert_eq!(answer.expect_problem(400, "malformed-request")["errors"][0]["pointer"], header, "{value}");
    }
    let headers = [("idempotency-key", "one"), ("idempotency-key", "other")];
    let twice = ada.send(Method::PATCH, "/v2/accounts/me", Some(&patch), &headers).await;
    twice.expect_problem(400, "malformed-request");
    assert_eq!(location(&ada).await, Value::Null, "nothing was written");
    forum.stop().await;
}

#[tokio::test]
async fn what_nobody_would_read_is_refused() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let before = written(&forum).await;
    let reason = json!({"reason": "it belongs into the query"});
    for (method, path) in [
        (Method::DELETE, format!("/v2/posts/{opening}")),
        (Method::DELETE, format!("/v2/threads/{thread}/pin")),
        (Method::PUT, "/v2/communities/tea/archive".to_owned()),
        (Method::PUT, "/v2/communities/tea/members/ada/invitation".to_owned()),
        (Method::POST, format!("/v2/posts/{opening}/restore")),
        (Method::DELETE, "/v2/sessions/current".to_owned()),
    ] {
        let problem = ada.refused(method, &path, reason.clone(), (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["code"], "unexpected_body", "{path}");
    }
    let reply = json!({"body": "x"});
    for (method, path, body) in [
        (Method::POST, format!("/v2/threads/{thread}/posts"), reply.clone()),
        (Method::PUT, format!("/v2/threads/{thread}/lock"), Value::Null),
        (Method::POST, "/v2/accounts".to_owned(), json!({})),
        (Method::POST, "/v2/sessions".to_owned(), json!({"login": "ada", "password": "correct horse"})),
    ] {
        let problem = ada.refused(method, &format!("{path}?zzz=1"), body, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["pointer"], "?zzz", "{path}");
    }
    let stale = [("if-match", "\"77\"")];
    let new = json!({"title": "New", "body": "New.", "category_id": tea.category});
    for (path, body) in [(format!("/v2/threads/{thread}/posts"), &reply), ("/v2/communities/tea/threads".into(), &new)]
    {
        ada.send(Method::POST, &path, Some(body), &stale).await.expect_problem(412, "version-mismatch");
    }
    assert_eq!(written(&forum).await, before, "nothing was written");
    for (path, body) in [("lock", Value::Null), ("pin", json!(null)), ("lock", json!({}))] {
        ada.send(Method::PUT, &format!("/v2/threads/{thread}/{path}"), Some(&body), &[]).await.expect(200);
    }
    // Who needs no token is asked for none, so a bad one is nobody's business.
    let guest = forum.guest().with_token("expired");
    let eve = json!({"username": "eve", "email": "eve@example.org", "password": "correct horse"});
    guest.post("/v2/accounts", &eve).await.expect(201);
    guest.post("/v2/sessions", &json!({"login": "eve", "password": "correct horse"})).await.expect(201);
    forum.stop().await;
}

#[tokio::test]
async fn values_that_mislead_or_overflow_are_refused() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let (thread, score) = (format!("/v2/threads/{thread}"), format!("/v2/posts/{opening}/imported-score"));
    let until = json!({"until": "+262142-12-31T23:59:59Z", "reason": "x"});
    let invalid = (422, "invalid-value");
    for (person, method, path, body, problem, pointer, code) in [
        (&ada, Method::PATCH, &*thread, json!({"title": "\u{200b}"}), invalid, "#/title", "invisible_character"),
        (&ada, Method::PATCH, &thread, json!({"title": "\u{202e}eltit"}), invalid, "#/title", "invisible_character"),
        (
            &ada,
            Method::PATCH,
            "/v2/accounts/me",
            json!({"display_name": "Admin\u{200b}"}),
            invalid,
            "#/display_name",
            "invisible_character",
        ),
        (&ada, Method::PATCH, &thread, json!({"tags": ["Tag", "tag"]}), invalid, "#/tags", "repeated"),
        (&ada, Method::PATCH, "/v2/communities/tea", json!({"reactions": ["up"]}), invalid, "#/reactions", "reserved"),
        (&operator, Method::PUT, &score, json!({"up": 2_147_483_648_u32, "down": 0}), invalid, "#/up", "too_large"),
        (
            &ada,
            Method::PUT,
            "/v2/communities/tea/members/operator/ban",
            until,
            (400, "malformed-request"),
            "#/until",
            "invalid_value",
        ),
        (
            &ada,
            Method::PUT,
            &format!("{thread}/pin"),
            json!({"until": "tomorrow"}),
            (400, "malformed-request"),
            "#/until",
            "invalid_value",
        ),
    ] {
        let refused = person.refused(method, path, body.clone(), problem).await;
        let error = &refused["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)), "{body}: {refused}");
    }
    let emoji = json!({"title": "👩\u{200d}💻 ❤\u{fe0f} نمی\u{200c}خواهم", "tags": ["Tag", "tags"]});
    ada.patch(&thread, &emoji).await.expect(200);
    ada.put(&format!("{thread}/pin"), &json!({"until": null})).await.expect(200);
    operator.put(&score, &json!({"up": 1_000_000_000, "down": 0})).await.expect(200);
    assert_eq!(ada.get_after(&operator, &thread).await.expect(200)["score"], 1_000_000_000);
    forum.stop().await;
}

async fn location(person: &Person<'_>) -> Value {
    person.get("/v2/accounts/me").await.expect(200)["location"].clone()
}

/// Writes bytes, and reads what is answered until the server closes the connection.
async fn say(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(bytes).await.expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_is_slow_or_speaks_no_http_does_not_keep_a_connection() {
    let forum = TestForum::start_with(|config| {
        config.http.header_timeout = Duration::from_millis(300);
        config.http.body_timeout = Duration::from_millis(300);
    })
    .await;
    let body =
        "POST /v2/sessions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"lo";
    for (what, bytes, status) in [
        ("a slow head", "GET /v2/communities HTTP/1.1\r\nhost: x\r\nx-slow: ", "408"),
        ("a slow body", body, "408"),
        ("no HTTP", "HELLO\r\n\r\n", "400"),
    ] {
        let answer = say(forum.address, bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
    }
    let head = format!("GET /v2/communities HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "x".repeat(40_000));
    let answer = say(forum.address, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // Others are served meanwhile and after.
    forum.guest().get("/v2/communities").await.expect(200);
    forum.stop().await;
}

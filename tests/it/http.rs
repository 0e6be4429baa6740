//! What HTTP itself promises of every endpoint: conditions, waiting, positions, problems, and the API's description.

use agora_tests::forum::{Person, TestForum, text};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

async fn position(person: &Person<'_>, slug: &str) -> String {
    let made = person.post("/v2/communities", &json!({"slug": slug, "name": slug})).await;
    let position = made.header("agora-position").expect("a position").to_owned();
    made.expect(201);
    position
}

#[tokio::test]
async fn an_etag_saves_sending_what_is_there_and_changes_with_the_answer() {
    let forum = TestForum::start().await;
    let (ada, guest) = (forum.person("ada").await, forum.guest());
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    let first = guest.get_after(&ada, &path).await;
    let etag = first.header("etag").expect("an ETag").to_owned();
    assert_eq!(
        (first.header("cache-control"), ada.get(&path).await.header("cache-control")),
        (Some("no-cache"), Some("private, no-cache"))
    );
    let vary =
        first.headers.get_all("vary").iter().map(|it| it.to_str().unwrap_or_default()).collect::<Vec<_>>().join(",");
    assert!(vary.contains("agora-position") && vary.contains("authorization"), "{vary}");
    let known = async |etag: &str| guest.send(Method::GET, &path, None, &[("if-none-match", etag)]).await;
    for sent in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
        let unchanged = known(&sent).await;
        assert_eq!((unchanged.status, unchanged.bytes.len()), (304, 0), "{sent}");
        assert_eq!(unchanged.header("etag"), Some(&*etag));
    }
    assert_eq!(known("\"1-0000000000000000\"").await.status, 200);
    // A reply changes the page, not the thread's version.
    ada.reply(&thread, "more").await;
    guest.catch_up(&ada);
    let changed = known(&etag).await;
    assert_eq!(changed.status, 200);
    let version = |etag: &str| etag.split('-').next().map(str::to_owned);
    assert_eq!(version(changed.header("etag").expect("an ETag")), version(&etag));
    let head = guest.send(Method::HEAD, &path, None, &[]).await;
    assert_eq!((head.status, head.bytes.len()), (200, 0));
    forum.stop().await;
}

#[tokio::test]
async fn a_read_waits_for_a_position_as_long_as_it_is_told_to_and_says_so() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let reached = position(&ada, "tea").await;
    let (line, number) = reached.rsplit_once('.').expect("a token");
    let number: i64 = number.parse().expect("a position");
    let guest = forum.guest();
    let read = async |position: &str, prefer: &str| {
        let headers = [("agora-position", position), ("prefer", prefer)];
        guest.send(Method::GET, "/v2/communities/tea", None, &headers).await
    };
    let answer = read(&reached, "wait=20").await;
    assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    let reflected = answer.header("agora-position").expect("what it reflects").to_owned();
    answer.expect(200);
    let reflected = reflected.split(", ").find_map(|token| token.strip_prefix(&format!("{line}.")).map(str::to_owned));
    assert!(reflected.and_then(|number| number.parse().ok()) >= Some(number));

    let ahead = format!("{line}.{}", number + 1_000);
    for tokens in [ahead.clone(), format!("{reached},{ahead}")] {
        let late = read(&tokens, "wait=0").await;
        assert!(late.header("retry-after").is_some());
        late.expect_problem(503, "position-not-reached");
    }
    // It is woken by what it waits for.
    let next = format!("{line}.{}", number + 1);
    let renamed = json!({"name": "New"});
    let (waited, written) = tokio::join!(read(&next, "wait=20"), ada.patch("/v2/communities/tea", &renamed));
    written.expect(200);
    assert_eq!(waited.expect(200)["name"], "New");
    forum.stop().await;
}

#[tokio::test]
async fn a_position_of_another_history_is_gone_and_nonsense_is_none() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let position = position(&ada, "tea").await;
    ada.get("/v2/communities/tea").await.expect(200);
    let (_, place) = position.split_once('.').expect("a token");
    let guest = forum.guest();
    let with = async |position: &str| {
        guest.send(Method::GET, "/v2/communities/tea", None, &[("agora-position", position)]).await
    };
    let (shard, _) = place.split_once('.').expect("a shard");
    // However little it asks for.
    for place in [place, &format!("{shard}.0")] {
        with(&format!("{}.{place}", Uuid::now_v7())).await.expect_problem(410, "history-lost");
    }
    for nonsense in ["", "yesterday", "1.2.3", &format!("{position},"), &format!("{position}.1")] {
        with(nonsense).await.expect_problem(400, "malformed-position");
    }
    forum.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let forum = TestForum::start().await;
    let guest = forum.guest();
    for path in ["/v2", "/v2/", "/v2/nothing", "/v2/threads", "/v1/communities", "/v2/communities/tea/nothing", "//"] {
        guest.refused(Method::GET, path, Value::Null, (404, "no-such-endpoint")).await;
    }
    let id = Uuid::now_v7();
    for (method, path, allowed) in [
        (Method::DELETE, "/v2/communities".to_owned(), &["GET", "POST"][..]),
        (Method::GET, "/v2/sessions".to_owned(), &["POST"]),
        (Method::POST, format!("/v2/threads/{id}"), &["GET", "PATCH", "DELETE"]),
        (Method::POST, format!("/v2/posts/{id}/reaction"), &["PUT", "DELETE"]),
        (Method::GET, format!("/v2/threads/{id}/lock"), &["PUT", "DELETE"]),
    ] {
        let answer = guest.send(method, &path, None, &[]).await;
        let allow = answer.header("allow").expect("Allow").to_owned();
        answer.expect_problem(405, "method-not-allowed");
        assert!(allowed.iter().all(|method| allow.contains(method)), "{path}: {allow}");
    }
    forum.stop().await;
}

#[tokio::test]
async fn a_problem_says_what_it_is_and_nothing_of_us() {
    let forum = TestForum::start().await;
    let answer = forum.guest().get("/v2/communities/none").await;
    assert!(answer.header("x-request-id").is_some());
    let problem = answer.expect_problem(404, "community-not-found");
    let fields: Vec<_> = problem.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, ["detail", "status", "title", "type"]);
    assert_eq!((&problem["status"], &problem["title"]), (&json!(404), &json!("Community not found")));
    let own = forum.guest().send(Method::GET, "/v2/communities/none", None, &[("x-request-id", "mine-7")]).await;
    assert_eq!(own.header("x-request-id"), Some("mine-7"));
    forum.stop().await;
}

#[tokio::test]
async fn the_api_describes_every_endpoint_that_there_is() {
    let forum = TestForum::start().await;
    let guest = forum.guest();
    let api = guest.get("/openapi.json").await.expect(200);
    let paths = api["paths"].as_object().expect("paths");
    let id = Uuid::now_v7().to_string();
    let mut asked = 0;
    for (path, item) in paths.iter().filter(|(path, _)| path.starts_with("/v2/")) {
        for method in item.as_object().expect("operations").keys() {
            let method: Method = method.to_uppercase().parse().expect("a method");
            let path = path.split('/').map(|part| if part.starts_with('{') { &*id } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let answer = guest.send(method.clone(), &path, None, &[]).await;
            assert!(answer.status != 405 && answer.status < 500, "{method} {path}: {answer:?}");
            if answer.status >= 400 {
                assert_ne!(text(&answer.body["type"]), "/problems/no-such-endpoint", "{method} {path}");
            }
            asked += 1;
        }
    }
    assert!(asked > 50, "{asked} operations");
    forum.stop().await;
}

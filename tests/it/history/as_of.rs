//! A thread as it was: what its page showed at each moment, and nothing that came later.

use agora_tests::{
    forum::{Person, TestForum, text},
    pages::walk,
};
use reqwest::Method;
use serde_json::{Value, json};

/// What a moderator was shown at a position.
struct Shown {
    position: i64,
    posts: Value,
    thread: Value,
}

async fn shown(reader: &Person<'_>, thread: &str, position: i64) -> Shown {
    let posts = reader.get(&format!("/v2/threads/{thread}/posts?limit=100")).await.expect(200)["items"].clone();
    let thread = reader.get(&format!("/v2/threads/{thread}")).await.expect(200);
    Shown { position, posts, thread }
}

/// Does it, and answers where it stands in the history.
async fn act(by: &Person<'_>, method: Method, path: &str, body: Value) -> i64 {
    let reply = by.send(method, path, (!body.is_null()).then_some(&body), &[]).await;
    let position = reply.header("agora-position").expect("a position").rsplit_once('.').expect("its parts").1.parse();
    assert!(reply.status < 300, "{path}: {}", reply.body);
    position.expect("a number")
}

/// All that can happen to a thread, with what its page showed after each of it.
async fn life(ada: &Person<'_>, bob: &Person<'_>, category: &str, thread: &str, opening: &str) -> Vec<Shown> {
    let reply = bob.reply(thread, "*one*").await;
    let below = json!({"body": "two", "parent_id": reply});
    let below = text(&bob.post(&format!("/v2/threads/{thread}/posts"), &below).await.expect(201)["id"]);
    let (on_thread, on_reply) = (format!("/v2/threads/{thread}"), format!("/v2/posts/{reply}"));
    let (on_below, on_opening) = (format!("/v2/posts/{below}"), format!("/v2/posts/{opening}"));
    let acts = [
        (ada, Method::PUT, format!("{on_reply}/reaction"), json!({"kind": "like"})),
        (bob, Method::PUT, format!("{on_opening}/reaction"), json!({"kind": "up"})),
        (bob, Method::PUT, format!("{on_opening}/reaction"), json!({"kind": "down"})),
        (bob, Method::PATCH, on_reply.clone(), json!({"body": "**one**, better", "base_revision": 1})),
        (ada, Method::PUT, format!("{on_below}/hide"), json!({"reason": "rude"})),
        (ada, Method::PATCH, on_thread.clone(), json!({"title": "Another title", "tags": ["leaf"]})),
        (ada, Method::PUT, format!("{on_thread}/answer"), json!({"post_id": reply})),
        (bob, Method::DELETE, on_reply.clone(), Value::Null),
        (ada, Method::PUT, format!("{on_thread}/lock"), json!({})),
        (ada, Method::DELETE, format!("{on_below}/hide"), Value::Null),
        (ada, Method::PATCH, on_thread.clone(), json!({"category_id": category})),
        (ada, Method::PUT, format!("{on_thread}/pin"), json!({"until": "2999-01-01T00:00:00Z"})),
        (bob, Method::POST, format!("{on_reply}/restore"), Value::Null),
        (ada, Method::DELETE, format!("{on_reply}/reaction"), Value::Null),
        (ada, Method::DELETE, on_thread.clone(), Value::Null),
        (ada, Method::POST, format!("{on_thread}/restore"), Value::Null),
        (ada, Method::DELETE, format!("{on_thread}/answer"), Value::Null),
        (ada, Method::DELETE, format!("{on_thread}/lock"), Value::Null),
        (bob, Method::POST, format!("{on_thread}/posts"), json!({"body": "last", "parent_id": below})),
    ];
    let mut life = Vec::new();
    for (by, method, path, body) in acts {
        let position = act(by, method, &path, body).await;
        ada.catch_up(by);
        life.push(shown(ada, thread, position).await);
    }
    life
}

#[tokio::test]
async fn a_thread_is_shown_as_its_page_showed_it_at_every_moment() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let news = json!({"slug": "news", "name": "News"});
    let news = text(&ada.post("/v2/communities/tea/categories", &news).await.expect(201)["id"]);
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    let life = life(&ada, &bob, &news, &thread, &opening).await;
    for Shown { position, posts, thread } in &life {
        // Whatever a client says that it has: nobody was to keep it.
        let asked = format!("{path}?limit=100&as_of={position}");
        let then = ada.send(Method::GET, &asked, None, &[("if-none-match", "*")]).await;
        assert_eq!((then.header("cache-control"), then.header("etag")), (Some("no-store"), None));
        let then = then.expect(200);
        assert_eq!(&then["items"], posts, "at {position}");
        let (state, as_of) = (&then["as_of"]["thread"], &then["as_of"]["position"]);
        assert_eq!(as_of, &json!(position));
        for field in ["title", "tags", "created_at", "pinned", "pinned_until", "locked", "deleted", "version"] {
            assert_eq!(state[field], thread[field], "{field} at {position}");
        }
        assert_eq!((&state["category_id"], &state["author_id"]), (&thread["category"]["id"], &thread["author"]["id"]));
    }
    let last = life.last().expect("moments");
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert_eq!(ada.get(&format!("{path}?limit=100&as_of={now}")).await.expect(200)["items"], last.posts);
    assert_eq!(json!(walk(&ada, &format!("{path}?as_of={}", last.position), 2).await), last.posts);
    assert_eq!(ada.get(&format!("{path}?as_of={now}&from=3&limit=1")).await.expect(200)["items"][0], last.posts[2]);
    // A time is when things were recorded: that of an event shows it.
    let moment = &life[3];
    let recorded: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select recorded_at from events where position = $1")
            .bind(moment.position)
            .fetch_one(&forum.pool)
            .await
            .expect("a time");
    let time = recorded.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    assert_eq!(ada.get(&format!("{path}?limit=100&as_of={time}")).await.expect(200)["items"], moment.posts);
    forum.stop().await;
}

#[tokio::test]
async fn what_was_is_for_moderators_and_for_times_that_were() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = bob.thread(&tea, "Talk").await;
    let path = format!("/v2/threads/{thread}/posts");
    for reader in [&ada, &operator] {
        reader.catch_up(&bob);
    }
    let now = ada.get(&format!("{path}?as_of=2020-01-01T00:00:00Z")).await.expect_problem(404, "thread-not-begun");
    assert!(now["detail"].as_str().is_some_and(|words| words.contains("it began at position ")), "{now}");
    ada.refused(Method::GET, &format!("{path}?as_of=1"), Value::Null, (404, "thread-not-begun")).await;
    let head: i64 = sqlx::query_scalar("select position from store_head").fetch_one(&forum.pool).await.expect("a head");
    let head = format!("{path}?as_of={head}");
    operator.get(&head).await.expect(200);
    bob.refused(Method::GET, &head, Value::Null, (403, "role-required")).await;
    forum.guest().refused(Method::GET, &head, Value::Null, (401, "unauthenticated")).await;
    for (query, status, pointer, code) in [
        ("as_of=999999", 422, "?as_of", "in_the_future"),
        ("as_of=2999-01-01T00:00:00Z", 422, "?as_of", "in_the_future"),
        ("as_of=yesterday", 400, "?as_of", "invalid_value"),
        ("as_of=1&view=tree", 422, "?as_of", "does_not_apply"),
    ] {
        let refused = ada.get(&format!("{path}?{query}")).await.expect(status);
        assert_eq!((&refused["errors"][0]["pointer"], &refused["errors"][0]["code"]), (&json!(pointer), &json!(code)));
    }
    forum.stop().await;
}

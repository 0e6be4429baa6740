//! The moderation log: what moderators, admins, owners and operators did, and nothing that authors did to what is theirs.

use agora_tests::{
    forum::{Community, Person, TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};

const LOG: &str = "/v2/communities/tea/moderation-log";

/// Everything that a moderator can do, once, and what the log says of it (oldest first): the action and its detail.
async fn order_is_kept(ada: &Person<'_>, bob: &Person<'_>, tea: &Community) -> Vec<(&'static str, Value)> {
    let (thread, opening) = bob.thread(tea, "Loud").await;
    let reply = bob.reply(&thread, "Very loud").await;
    let (on_thread, on_post) = (format!("/v2/threads/{thread}"), format!("/v2/posts/{opening}"));
    let on_bob = "/v2/communities/tea/members/bob";
    let news = json!({"slug": "news", "name": "News"});
    let news = text(&ada.post("/v2/communities/tea/categories", &news).await.expect(201)["id"]);
    let until = "2999-01-01T00:00:00Z";
    let acts = [
        (Method::PATCH, on_thread.clone(), json!({"title": "Quiet"}), "thread.retitled", json!({"title": "Quiet"})),
        (Method::PATCH, on_thread.clone(), json!({"tags": ["x"]}), "thread.tags_set", json!({"tags": ["x"]})),
        (
            Method::PATCH,
            on_thread.clone(),
            json!({"category_id": news}),
            "thread.moved",
            json!({"from": tea.category, "to": news}),
        ),
        (Method::PUT, format!("{on_thread}/lock"), json!({"reason": "a"}), "thread.locked", json!({"reason": "a"})),
        (Method::DELETE, format!("{on_thread}/lock"), Value::Null, "thread.unlocked", json!({})),
        (Method::PUT, format!("{on_thread}/pin"), json!({"until": until}), "thread.pinned", json!({"until": until})),
        (Method::DELETE, format!("{on_thread}/pin"), Value::Null, "thread.unpinned", json!({})),
        (Method::PUT, format!("{on_thread}/answer"), json!({"post_id": reply}), "thread.answer_accepted", json!({})),
        (Method::DELETE, format!("{on_thread}/answer"), Value::Null, "thread.answer_cleared", json!({})),
        (
            Method::PATCH,
            on_post.clone(),
            json!({"body": "Hush", "base_revision": 1, "reason": "b"}),
            "post.edited",
            json!({"revision": 2, "reason": "b"}),
        ),
        (Method::PUT, format!("{on_post}/hide"), Value::Null, "post.hidden", json!({})),
        (Method::DELETE, format!("{on_post}/hide"), Value::Null, "post.unhidden", json!({})),
        (Method::DELETE, format!("/v2/posts/{reply}?reason=c"), Value::Null, "post.deleted", json!({"reason": "c"})),
        (Method::POST, format!("/v2/posts/{reply}/restore"), Value::Null, "post.restored", json!({})),
        (Method::DELETE, on_thread.clone(), Value::Null, "thread.deleted", json!({})),
        (Method::POST, format!("{on_thread}/restore"), Value::Null, "thread.restored", json!({})),
        (Method::PUT, format!("{on_bob}/invitation"), Value::Null, "membership.invited", json!({})),
        (Method::DELETE, on_bob.to_owned(), Value::Null, "membership.left", json!({})),
        (Method::PUT, format!("{on_bob}/ban"), json!({"reason": "d"}), "membership.banned", json!({"reason": "d"})),
        (Method::DELETE, format!("{on_bob}/ban"), Value::Null, "membership.ban_lifted", json!({})),
        (
            Method::PUT,
            format!("{on_bob}/silence"),
            json!({"until": until, "reason": "e"}),
            "membership.silenced",
            json!({"until": until, "reason": "e"}),
        ),
        (Method::DELETE, format!("{on_bob}/silence"), Value::Null, "membership.silence_lifted", json!({})),
        (Method::DELETE, format!("/v2/categories/{news}"), Value::Null, "category.archived", json!({})),
    ];
    let mut logged = vec![("category.created", json!({"slug": "news", "name": "News"}))];
    for (method, path, body, action, detail) in acts {
        let body = (!body.is_null()).then_some(&body);
        ada.send(method, &path, body, &[]).await.expect(200);
        logged.push((action, detail));
    }
    logged
}

#[tokio::test]
async fn every_act_is_on_record_for_moderators() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let logged = order_is_kept(&ada, &bob, &tea).await;
    let mut log = walk(&ada, LOG, 5).await;
    log.reverse();
    let shown: Vec<_> = log.iter().skip(1).map(|act| (act["action"].clone(), act["detail"].clone())).collect();
    let expected: Vec<_> = logged.into_iter().map(|(action, detail)| (json!(action), detail)).collect();
    assert_eq!(shown, expected, "after the category that every community of these tests has");
    assert!(log.iter().all(|act| act["actor"]["username"] == "ada" && act["at"].is_string()));
    for act in &log {
        let (kind, _) = act["action"].as_str().and_then(|action| action.split_once('.')).expect("kind and verb");
        let about = match kind {
            "thread" => "/thread/title",
            "post" => "/post_id",
            "membership" => "/account/username",
            _ => "/category_id",
        };
        assert!(act.pointer(about).is_some_and(Value::is_string), "{act} says what it is about");
    }
    bob.catch_up(&ada);
    bob.refused(Method::GET, LOG, Value::Null, (403, "role-required")).await;
    forum.guest().refused(Method::GET, LOG, Value::Null, (401, "unauthenticated")).await;
    forum.operator().await.get_after(&ada, LOG).await.expect(200);
    let nowhere = "/v2/communities/none/moderation-log";
    ada.refused(Method::GET, nowhere, Value::Null, (404, "community-not-found")).await;
    forum.stop().await;
}

#[tokio::test]
async fn what_authors_do_to_what_is_theirs_is_nobodys_record() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    let (thread, opening) = bob.thread(&tea, "Mine").await;
    let reply = bob.reply(&thread, "Mine too").await;
    let (on_thread, on_post) = (format!("/v2/threads/{thread}"), format!("/v2/posts/{opening}"));
    for (method, path, body) in [
        (Method::PATCH, on_thread.clone(), json!({"title": "Still mine", "tags": ["x"]})),
        (Method::PUT, format!("{on_thread}/answer"), json!({"post_id": reply})),
        (Method::DELETE, format!("{on_thread}/answer"), Value::Null),
        (Method::PATCH, on_post.clone(), json!({"body": "Better", "base_revision": 1})),
        (Method::DELETE, on_post.clone(), Value::Null),
        (Method::POST, format!("{on_post}/restore"), Value::Null),
        (Method::DELETE, on_thread.clone(), Value::Null),
        (Method::POST, format!("{on_thread}/restore"), Value::Null),
        (Method::DELETE, "/v2/communities/tea/members/me".to_owned(), Value::Null),
    ] {
        bob.send(method, &path, (!body.is_null()).then_some(&body), &[]).await.expect(200);
    }
    ada.patch("/v2/communities/tea", &json!({"name": "Teas"})).await.expect(200);
    operator.put("/v2/communities/tea/suspension", &json!({"reason": "asked"})).await.expect(200);
    operator.delete("/v2/communities/tea/suspension").await.expect(200);
    ada.catch_up(&bob);
    ada.catch_up(&operator);
    let log = walk(&ada, LOG, 2).await;
    let acts = ["community.resumed", "community.suspended", "community.settings_changed", "category.created"];
    assert_eq!(each(&log, "/action"), acts);
    assert_eq!(log[1]["detail"], json!({"reason": "asked"}));
    forum.stop().await;
}

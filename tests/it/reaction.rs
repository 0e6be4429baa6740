//! Reactions, and the scores they come to.

use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, TestForum},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// A post's reactions, its score, and what the reader is told of its own.
async fn shown(reader: &Person<'_>, post: &str) -> (Value, Value, Value) {
    let page = reader.get(&format!("/v2/posts/{post}")).await.expect(200);
    (page["reactions"].clone(), page["score"].clone(), page["mine"]["reactions"][post].clone())
}

#[tokio::test]
async fn one_reaction_for_each_account_and_post() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community_with(&ada, "tea", &json!({"reactions": ["cheers"]})).await;
    let (thread, opening) = ada.thread(&tea, "Nice").await;
    let path = format!("/v2/posts/{opening}/reaction");
    let kind = |kind: &str| json!({"kind": kind});
    eve.put(&path, &kind("like")).await.expect(200);
    bob.catch_up(&eve);
    for (set, reactions, score) in [
        ("up", json!({"like": 1, "up": 1}), 2),
        ("like", json!({"like": 2}), 2),
        ("down", json!({"like": 1, "down": 1}), 0),
        ("cheers", json!({"like": 1, "cheers": 1}), 1),
    ] {
        let answer = bob.put(&path, &kind(set)).await.expect(200);
        assert_eq!(answer["kind"], set);
        assert_eq!(shown(&bob, &opening).await, (reactions, json!(score), json!(set)));
        assert_eq!(bob.get(&format!("/v2/threads/{thread}")).await.expect(200)["score"], score);
    }
    let again = bob.put(&path, &kind("cheers")).await;
    assert_eq!((again.status, again.header("agora-unchanged")), (200, Some("true")));
    assert_eq!(shown(&eve, &opening).await.2, "like", "to each its own");
    let guest = forum.guest().get_after(&bob, &format!("/v2/posts/{opening}")).await.expect(200);
    assert!(guest.get("mine").is_none());
    bob.delete(&path).await.expect(200);
    assert_eq!(bob.delete(&path).await.header("agora-unchanged"), Some("true"));
    assert_eq!(shown(&bob, &opening).await, (json!({"like": 1}), json!(1), Value::Null));
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn not_on_ones_own_nor_what_is_gone_nor_of_an_unknown_kind() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Nice").await;
    let reply = ada.reply(&thread, "Gone").await;
    bob.put(&format!("/v2/posts/{reply}/reaction"), &json!({"kind": "like"})).await.expect(200);
    ada.delete(&format!("/v2/posts/{reply}")).await.expect(200);
    let on = |post: &str| format!("/v2/posts/{post}/reaction");
    let like = json!({"kind": "like"});
    let unknown = Uuid::now_v7().to_string();
    for (person, post, body, problem) in [
        (&ada, &opening, &like, (422, "own-post")),
        (&bob, &opening, &json!({"kind": "cheers"}), (422, "unknown-reaction")),
        (&bob, &opening, &json!({"kind": "Not A Kind"}), (422, "invalid-value")),
        (&bob, &opening, &json!({"kind": 7}), (400, "malformed-request")),
        (&bob, &reply, &json!({"kind": "up"}), (422, "post-deleted")),
        (&bob, &unknown, &like, (404, "post-not-found")),
        (&forum.guest(), &opening, &like, (401, "unauthenticated")),
    ] {
        person.refused(Method::PUT, &on(post), body.clone(), problem).await;
    }
    // What was set before can still be taken back.
    bob.delete(&on(&reply)).await.expect(200);
    ada.patch("/v2/communities/tea", &json!({"reactions": ["cheers"]})).await.expect(200);
    bob.put(&on(&opening), &json!({"kind": "cheers"})).await.expect(200);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn imported_votes_stand_beside_those_of_accounts() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Nice").await;
    let path = format!("/v2/posts/{opening}/imported-score");
    ada.refused(Method::PUT, &path, json!({"up": 1, "down": 0}), (403, "operators-only")).await;
    operator.refused(Method::PUT, &path, json!({"up": -1, "down": 0}), (400, "malformed-request")).await;
    operator.put(&path, &json!({"up": 100, "down": 1})).await.expect(200);
    operator.put(&path, &json!({"up": 12, "down": 2})).await.expect(200);
    bob.put(&format!("/v2/posts/{opening}/reaction"), &json!({"kind": "up"})).await.expect(200);
    bob.catch_up(&operator);
    assert_eq!(shown(&bob, &opening).await, (json!({"up": 13, "down": 2}), json!(11), json!("up")));
    assert_eq!(bob.get(&format!("/v2/threads/{thread}")).await.expect(200)["score"], 11);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

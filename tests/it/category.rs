//! Category trees.

use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// Makes a category in `tea`; its id.
async fn make(person: &Person<'_>, slug: &str, parent: Option<&str>) -> String {
    let body = json!({"slug": slug, "name": slug, "parent_id": parent});
    text(&person.post("/v2/communities/tea/categories", &body).await.expect(201)["id"])
}

/// The tree of `tea` as slugs in order, children in brackets.
async fn shape(reader: &Person<'_>) -> String {
    fn slugs(items: &Value) -> String {
        let items = items.as_array().expect("categories").iter();
        let shown = items.map(|item| match slugs(&item["children"]) {
            below if below.is_empty() => text(&item["slug"]),
            below => format!("{}({below})", text(&item["slug"])),
        });
        shown.collect::<Vec<_>>().join(" ")
    }
    slugs(&reader.get("/v2/communities/tea/categories").await.expect(200)["items"])
}

#[tokio::test]
async fn a_tree_grows_changes_and_is_put_in_order() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let general = forum.community(&ada, "tea").await.category;
    let news = make(&ada, "news", None).await;
    let local = make(&ada, "local", Some(&news)).await;
    let world = make(&ada, "world", Some(&news)).await;
    let leaf = make(&ada, "leaf", Some(&local)).await;
    assert_eq!(shape(&ada).await, "general news(local(leaf) world)");

    ada.post("/v2/communities/tea/categories/order", &json!({"order": [news, general]})).await.expect(200);
    let below = json!({"parent_id": news, "order": [world, local]});
    let version = ada.post("/v2/communities/tea/categories/order", &below).await.expect(200)["version"].clone();
    assert_eq!(shape(&ada).await, "news(world local(leaf)) general");
    let changed = json!({"slug": "earth", "name": "The Earth", "description": "All of it.", "parent_id": null});
    let headers = [("if-match", &*format!("\"{version}\""))];
    let path = format!("/v2/categories/{world}");
    ada.send(Method::PATCH, &path, Some(&changed), &headers).await.expect(200);
    ada.send(Method::PATCH, &path, Some(&changed), &headers).await.expect_problem(412, "version-mismatch");
    assert_eq!(shape(&ada).await, "news(local(leaf)) general earth");
    let shown = ada.get(&path).await;
    let etag = shown.header("etag").expect("an ETag").to_owned();
    let shown = shown.expect(200);
    assert!(etag.starts_with(&format!("\"{}-", shown["version"])), "{etag} {shown}");
    assert_eq!((&shown["name"], &shown["description"]), (&json!("The Earth"), &json!("All of it.")));
    assert_eq!((&shown["parent_id"], &shown["place"]), (&Value::Null, &json!(2)));

    ada.delete(&format!("/v2/categories/{leaf}")).await.expect(200);
    assert_eq!(ada.get(&format!("/v2/categories/{leaf}")).await.expect(200)["archived"], true);
    forum.stop().await;
}

#[tokio::test]
async fn a_tree_has_no_circles_no_doubles_and_three_levels() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let general = forum.community(&ada, "tea").await.category;
    let one = make(&ada, "one", None).await;
    let two = make(&ada, "two", Some(&one)).await;
    let three = make(&ada, "three", Some(&two)).await;
    let categories = "/v2/communities/tea/categories";
    let new = |slug: &str, parent: &str| json!({"slug": slug, "name": slug, "parent_id": parent});
    let unknown = Uuid::now_v7().to_string();
    let cases = [
        (new("four", &three), (422, "too-deep"), "#/parent_id"),
        (new("two", &one), (409, "duplicate"), "#/slug"),
        (new("x", &unknown), (422, "unknown-category"), "#/parent_id"),
        (json!({"id": one, "slug": "x", "name": "x"}), (409, "duplicate"), "#/id"),
    ];
    for (body, problem, pointer) in cases {
        let refused = ada.refused(Method::POST, categories, body, problem).await;
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    let cases = [
        (&one, json!({"parent_id": three}), (422, "category-cycle")),
        (&one, json!({"parent_id": one}), (422, "category-cycle")),
        (&one, json!({"parent_id": general}), (422, "too-deep")),
        (&one, json!({"slug": "general"}), (409, "duplicate")),
        (&unknown, json!({"slug": "x"}), (404, "category-not-found")),
    ];
    for (category, body, problem) in cases {
        ada.refused(Method::PATCH, &format!("/v2/categories/{category}"), body, problem).await;
    }
    let order = format!("{categories}/order");
    for wrong in [json!([one]), json!([one, one]), json!([one, general, two])] {
        ada.refused(Method::POST, &order, json!({"order": wrong}), (422, "order-mismatch")).await;
    }
    bob.refused(Method::POST, categories, new("x", &one), (403, "role-required")).await;
    bob.refused(Method::DELETE, &format!("/v2/categories/{one}"), Value::Null, (403, "role-required")).await;
    bob.catch_up(&ada);
    bob.refused(Method::GET, &format!("/v2/categories/{unknown}"), Value::Null, (404, "category-not-found")).await;
    assert_eq!(shape(&bob).await, "general one(two(three))", "nothing of it was done");
    forum.stop().await;
}

#[tokio::test]
async fn an_archived_category_is_read_only_with_all_below_it() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let mut tea = forum.community(&ada, "tea").await;
    let general = tea.category.clone();
    let top = make(&ada, "top", None).await;
    tea.category = make(&ada, "below", Some(&top)).await;
    let (thread, opening) = bob.thread(&tea, "Old").await;
    let reply = ada.reply(&thread, "An answer").await;
    ada.delete(&format!("/v2/categories/{top}")).await.expect(200);
    let shown = async |id: &str| {
        let shown = ada.get(&format!("/v2/categories/{id}")).await.expect(200);
        (shown["archived"].clone(), shown["read_only"].clone())
    };
    assert_eq!(shown(&general).await, (json!(false), json!(false)));
    assert_eq!(shown(&top).await, (json!(true), json!(true)));
    assert_eq!(shown(&tea.category).await, (json!(false), json!(true)));
    let tree = ada.get("/v2/communities/tea/categories").await.expect(200);
    let top = tree["items"].as_array().expect("items").iter().find(|it| it["slug"] == "top").expect("it is there");
    assert_eq!((&top["read_only"], &top["children"][0]["read_only"]), (&json!(true), &json!(true)));

    let archived = (422, "category-archived");
    let new = json!({"title": "New", "body": "New.", "category_id": tea.category});
    ada.refused(Method::POST, "/v2/communities/tea/threads", new, archived).await;
    let cases = [
        (Method::POST, format!("/v2/threads/{thread}/posts"), json!({"body": "late"})),
        (Method::PATCH, format!("/v2/posts/{opening}"), json!({"body": "late", "base_revision": 1})),
        (Method::PATCH, format!("/v2/threads/{thread}"), json!({"title": "Late"})),
        (Method::PUT, format!("/v2/threads/{thread}/answer"), json!({"post_id": reply})),
        (Method::PUT, format!("/v2/posts/{reply}/reaction"), json!({"kind": "like"})),
        (Method::DELETE, format!("/v2/posts/{opening}"), Value::Null),
    ];
    for (method, path, body) in cases {
        bob.refused(method, &path, body, archived).await;
    }
    for on in ["lock", "pin"] {
        for method in [Method::PUT, Method::DELETE] {
            ada.refused(method, &format!("/v2/threads/{thread}/{on}"), Value::Null, archived).await;
        }
    }
    bob.get_after(&ada, &format!("/v2/threads/{thread}/posts")).await.expect(200);
    ada.patch(&format!("/v2/threads/{thread}"), &json!({"category_id": general})).await.expect(200);
    bob.reply(&thread, "out of there").await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_restored_category_takes_threads_again() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (path, restore) =
        (format!("/v2/categories/{}", tea.category), format!("/v2/categories/{}/restore", tea.category));
    ada.delete(&path).await.expect(200);
    bob.refused(Method::POST, &restore, Value::Null, (403, "role-required")).await;
    ada.send(Method::POST, &restore, None, &[]).await.expect(200);
    assert_eq!(ada.get(&path).await.expect(200)["archived"], false);
    bob.thread(&tea, "Again").await;
    assert_eq!(ada.send(Method::POST, &restore, None, &[]).await.header("agora-unchanged"), Some("true"));
    let log = ada.get("/v2/communities/tea/moderation-log").await.expect(200);
    assert_eq!(log["items"][0]["action"], "category.restored");
    forum.stop().await;
}

#[tokio::test]
async fn counts_and_the_last_post_follow_what_happens_in_a_category() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let news = make(&ada, "news", None).await;
    let (first, opening) = ada.thread(&tea, "First").await;
    let (second, _) = bob.thread(&tea, "Second").await;
    let reply = bob.reply(&first, "Newest").await;
    ada.catch_up(&bob);
    let category = async |id: &str| {
        let shown = ada.get(&format!("/v2/categories/{id}")).await.expect(200);
        (shown["threads"].clone(), shown["posts"].clone(), shown["last_post"]["id"].clone())
    };
    assert_eq!(category(&tea.category).await, (json!(2), json!(3), json!(reply)));
    bob.delete(&format!("/v2/posts/{reply}")).await.expect(200);
    ada.catch_up(&bob);
    assert_eq!((category(&tea.category).await.0, category(&tea.category).await.1), (json!(2), json!(2)));
    ada.delete(&format!("/v2/threads/{second}")).await.expect(200);
    assert_eq!(category(&tea.category).await, (json!(1), json!(1), json!(opening)));
    ada.patch(&format!("/v2/threads/{first}"), &json!({"category_id": news})).await.expect(200);
    assert_eq!(category(&tea.category).await, (json!(0), json!(0), Value::Null));
    assert_eq!(category(&news).await, (json!(1), json!(1), json!(opening)));
    let listed = walk(&ada, "/v2/communities/tea/threads?category=news", 2).await;
    assert_eq!(each(&listed, "/id"), [json!(first)]);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

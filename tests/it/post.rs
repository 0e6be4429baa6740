//! Posts: replying, editing, deleting, hiding; and a thread's page, flat and as a tree.

use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

/// Replies to a post; the reply's id.
async fn below(person: &Person<'_>, post: &str, body: &str) -> String {
    let written = person.post(&format!("/v2/posts/{post}/replies"), &json!({"body": body})).await.expect(201);
    text(&written["id"])
}

async fn shown(reader: &Person<'_>, post: &str) -> Value {
    reader.get(&format!("/v2/posts/{post}")).await.expect(200)
}

#[tokio::test]
async fn replies_go_below_what_they_answer() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let (other, _) = ada.thread(&tea, "Elsewhere").await;
    let foreign = ada.reply(&other, "foreign").await;
    let posts = format!("/v2/threads/{thread}/posts");
    let id = Uuid::now_v7().to_string();
    let answer = ada.post(&posts, &json!({"id": id, "body": "One"})).await;
    assert_eq!(answer.header("location"), Some(&*format!("/v2/posts/{id}")));
    assert_eq!(answer.expect(201), json!({"id": id, "version": 1, "revision": 1, "thread_id": thread}));
    let named = text(&ada.post(&posts, &json!({"body": "Two", "parent_id": id})).await.expect(201)["id"]);
    let deep = below(&ada, &named, "Three").await;
    for (post, parent, depth, number) in [(&id, &opening, 1, 2), (&named, &id, 2, 3), (&deep, &named, 3, 4)] {
        let post = shown(&ada, post).await;
        assert_eq!(
            (&post["parent_id"], &post["depth"], &post["number"]),
            (&json!(parent), &json!(depth), &json!(number))
        );
    }
    assert_eq!(shown(&ada, &opening).await["replies"], 1, "direct ones");

    for (body, problem) in [
        (json!({"body": "x", "parent_id": foreign}), (422, "unknown-parent")),
        (json!({"body": "x", "parent_id": Uuid::now_v7()}), (422, "unknown-parent")),
        (json!({"body": "x", "id": id}), (409, "duplicate")),
        (json!({"body": " \n"}), (422, "invalid-value")),
        (json!({"body": "x", "id": Uuid::nil()}), (422, "invalid-value")),
        (json!({"body": "x", "format": "bbcode"}), (400, "malformed-request")),
        (json!({}), (400, "malformed-request")),
    ] {
        ada.refused(Method::POST, &posts, body, problem).await;
    }
    let nowhere = format!("/v2/threads/{}/posts", Uuid::now_v7());
    ada.refused(Method::POST, &nowhere, json!({"body": "x"}), (404, "thread-not-found")).await;
    let nothing = format!("/v2/posts/{}/replies", Uuid::now_v7());
    ada.refused(Method::POST, &nothing, json!({"body": "x"}), (404, "post-not-found")).await;
    ada.delete(&format!("/v2/posts/{named}")).await.expect(200);
    ada.refused(Method::POST, &format!("/v2/posts/{named}/replies"), json!({"body": "x"}), (422, "parent-gone")).await;
    let mut last = deep;
    for _ in 4..=12 {
        last = below(&ada, &last, "deeper").await;
    }
    ada.refused(Method::POST, &format!("/v2/posts/{last}/replies"), json!({"body": "x"}), (422, "too-deep")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn an_edit_names_what_it_was_made_from_and_history_is_kept() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (_, post) = bob.thread(&tea, "Draft").await;
    let path = format!("/v2/posts/{post}");
    let edit = |body: &str, base: u32| json!({"body": body, "base_revision": base});
    bob.refused(Method::PATCH, &path, json!({"body": "x"}), (422, "base-revision-required")).await;
    bob.refused(Method::PATCH, &path, edit("x", 0), (422, "invalid-value")).await;
    eve.refused(Method::PATCH, &path, edit("x", 1), (403, "not-author")).await;
    let edited = bob.patch(&path, &edit("*Second*", 1)).await.expect(200);
    assert_eq!((&edited["revision"], &edited["version"]), (&json!(2), &json!(2)));
    bob.refused(Method::PATCH, &path, edit("*Other*", 1), (409, "edit-conflict")).await;
    let same = bob.patch(&path, &edit("*Second*", 2)).await;
    assert_eq!((same.status, same.header("agora-unchanged")), (200, Some("true")));
    let etag = ada.get_after(&bob, &path).await.header("etag").expect("an ETag").to_owned();
    let third = json!({"body": "<i>Third</i>", "format": "html", "reason": "tidied"});
    ada.send(Method::PATCH, &path, Some(&third), &[("if-match", &etag)]).await.expect(200);
    ada.send(Method::PATCH, &path, Some(&third), &[("if-match", &etag)]).await.expect_problem(412, "version-mismatch");
    for malformed in ["7", "\"x\"", "w/\"3\""] {
        let answer = ada.send(Method::PATCH, &path, Some(&third), &[("if-match", malformed)]).await;
        answer.expect_problem(400, "malformed-request");
    }

    let now = shown(&ada, &post).await;
    assert_eq!(
        (&now["revision"], &now["body"], &now["body_html"]),
        (&json!(3), &json!("<i>Third</i>"), &json!("<i>Third</i>"))
    );
    assert!(now["edited_at"].is_string() && now["author"]["username"] == "bob");
    let revisions = walk(&ada, &format!("{path}/revisions"), 1).await;
    assert_eq!(each(&revisions, "/revision"), [3, 2, 1]);
    assert_eq!(each(&revisions, "/body"), ["<i>Third</i>", "*Second*", "Draft, says I."]);
    assert_eq!(each(&revisions, "/editor/username"), ["ada", "bob", "bob"]);
    assert_eq!(each(&revisions, "/reason"), [json!("tidied"), Value::Null, Value::Null]);
    forum.stop().await;
}

#[tokio::test]
async fn a_deleted_post_keeps_its_place_and_its_replies() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let post = bob.reply(&thread, "Regretted").await;
    let reply = below(&eve, &post, "Heard").await;
    let path = format!("/v2/posts/{post}");
    eve.refused(Method::DELETE, &path, Value::Null, (403, "not-author")).await;
    for (by, problem) in [(&bob, None), (&ada, Some((403, "role-required")))] {
        by.delete(&format!("{path}?reason=hasty")).await.expect(200);
        let again = by.delete(&path).await;
        assert_eq!(again.header("agora-unchanged"), Some("true"));
        eve.catch_up(by);
        ada.catch_up(by);
        // In a deleted post's place there is no text, also not for moderators; they find it among its revisions.
        for reader in [&eve, &ada] {
            let now = shown(reader, &post).await;
            assert_eq!((&now["deleted"], &now["body"], &now["body_html"]), (&json!(true), &Value::Null, &Value::Null));
        }
        let texts = async |reader: &Person<'_>| each(&walk(reader, &format!("{path}/revisions"), 5).await, "/body");
        assert_eq!((texts(&eve).await, texts(&ada).await), (vec![Value::Null], vec![json!("Regretted")]));
        let page = eve.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
        assert_eq!(each(page["items"].as_array().expect("posts"), "/deleted"), [false, true, false].map(Value::from));
        assert_eq!(page["items"][2]["id"], json!(reply));
        let head = eve.get(&format!("/v2/threads/{thread}")).await.expect(200);
        assert_eq!(head["replies"], 1, "as many as can be seen");
        assert_eq!((&page["items"][0]["replies"], &page["items"][1]["replies"]), (&json!(0), &json!(1)), "here too");
        bob.refused(Method::PATCH, &path, json!({"body": "x", "base_revision": 1}), (422, "post-deleted")).await;
        assert_counts_hold(&forum).await;
        let restore = format!("{path}/restore");
        if let Some(problem) = problem {
            bob.refused(Method::POST, &restore, Value::Null, problem).await;
        }
        by.send(Method::POST, &restore, None, &[]).await.expect(200);
        eve.catch_up(by);
        assert_eq!(shown(&eve, &post).await["body"], "Regretted");
    }
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_hidden_posts_text_is_for_moderators_and_its_author() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let post = bob.reply(&thread, "Spam").await;
    let (path, hide) = (format!("/v2/posts/{post}"), format!("/v2/posts/{post}/hide"));
    bob.refused(Method::PUT, &hide, Value::Null, (403, "role-required")).await;
    // Seen by all, and cached, before it is hidden.
    for reader in [&ada, &bob, &eve] {
        reader.catch_up(&bob);
        assert_eq!(shown(reader, &post).await["body"], "Spam");
        reader.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
    }
    ada.put(&hide, &json!({"reason": "spam"})).await.expect(200);
    for (reader, sees, moderates) in [(&ada, true, true), (&bob, true, false), (&eve, false, false)] {
        reader.catch_up(&ada);
        let now = shown(reader, &post).await;
        let text = if sees { json!("Spam") } else { Value::Null };
        assert_eq!((&now["hidden"], &now["body"], now["body_html"].is_string()), (&json!(true), &text, sees));
        assert_eq!(each(&walk(reader, &format!("{path}/revisions"), 5).await, "/body"), [text]);
        let page = reader.get(&format!("/v2/threads/{thread}/posts")).await.expect(200).to_string();
        assert_eq!(page.contains("Spam"), moderates, "on the page, to moderators only");
    }
    assert_eq!(eve.get("/v2/accounts/bob").await.expect(200)["posts"], 0);
    eve.refused(Method::POST, &format!("{path}/replies"), json!({"body": "x"}), (422, "parent-gone")).await;
    eve.refused(Method::PUT, &format!("{path}/reaction"), json!({"kind": "up"}), (422, "post-hidden")).await;
    assert_counts_hold(&forum).await;
    bob.refused(Method::DELETE, &hide, Value::Null, (403, "role-required")).await;
    ada.delete(&hide).await.expect(200);
    assert_eq!(shown(&eve.elsewhere(), &post).await["id"], json!(post));
    eve.catch_up(&ada);
    assert_eq!(shown(&eve, &post).await["body"], "Spam");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

/// A thread of nine replies, scored; numbers are those of the posts:
///
/// ```text
/// 1 ─ 2 ─ 5 ─ 8
///   │   └ 6
///   ├ 3 ─ 7
///   └ 4 ─ 9
///       └ 10
/// ```
async fn tree(ada: &Person<'_>, operator: &Person<'_>, thread: &str, opening: &str) -> Vec<String> {
    let mut posts = vec![opening.to_owned()];
    for parent in [1, 1, 1, 2, 2, 3, 5, 4, 4] {
        posts.push(below(ada, &posts[parent - 1].clone(), &format!("post {}", posts.len() + 1)).await);
    }
    assert_eq!(shown(ada, &posts[9]).await["thread"]["id"], json!(thread));
    for (number, up, down) in [(3, 5, 0), (4, 7, 0), (6, 2, 0), (5, 0, 1), (10, 1, 0)] {
        let path = format!("/v2/posts/{}/imported-score", posts[number - 1]);
        operator.put(&path, &json!({"up": up, "down": down})).await.expect(200);
    }
    ada.catch_up(operator);
    posts
}

fn numbers(page: &Value) -> Vec<i64> {
    page["items"].as_array().expect("posts").iter().map(|post| post["number"].as_i64().expect("a number")).collect()
}

#[tokio::test]
async fn a_thread_is_shown_flat_and_as_a_tree() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Tree").await;
    let posts = tree(&ada, &operator, &thread, &opening).await;
    let path = format!("/v2/threads/{thread}/posts");
    let walked = async |query: &str, limit: usize| {
        let items = walk(&ada, &format!("{path}?{query}"), limit).await;
        each(&items, "/number").iter().map(|number| number.as_i64().expect("a number")).collect::<Vec<_>>()
    };
    for limit in [1, 3, 4, 100] {
        assert_eq!(walked("view=flat", limit).await, (1..=10).collect::<Vec<_>>());
        assert_eq!(walked("view=tree", limit).await, [1, 2, 5, 8, 6, 3, 7, 4, 9, 10], "preorder, the oldest first");
        assert_eq!(walked(&format!("view=tree&parent={}", posts[1]), limit).await, [5, 8, 6]);
        assert_eq!(walked(&format!("view=tree&parent={opening}"), limit).await, [2, 5, 8, 6, 3, 7, 4, 9, 10]);
    }
    let from = ada.get(&format!("{path}?from=4&limit=2")).await;
    assert!(from.header("link").is_some_and(|links| links.contains("rel=\"last\"")));
    assert_eq!(numbers(&from.expect(200)), [4, 5]);
    let replies = walk(&ada, &format!("/v2/posts/{opening}/replies"), 2).await;
    assert_eq!(each(&replies, "/number"), [2, 3, 4]);
    let best = walk(&ada, &format!("/v2/posts/{opening}/replies?sort=best"), 2).await;
    assert_eq!(each(&best, "/number"), [4, 3, 2]);
    for (wrong, pointers) in [
        (format!("view=flat&parent={opening}"), &["?parent"][..]),
        ("view=tree&from=2".to_owned(), &["?from"]),
        ("from=0".to_owned(), &["?from"]),
        ("children=21&view=tree&sort=best".to_owned(), &["?children"]),
        ("sort=best&children=2&levels=2".to_owned(), &["?sort", "?children", "?levels"]),
        ("sort=oldest".to_owned(), &["?sort"]),
        ("view=tree&levels=2".to_owned(), &["?levels"]),
        ("view=tree&sort=oldest&children=2".to_owned(), &["?children"]),
    ] {
        let path = format!("{path}?{wrong}");
        let problem = ada.refused(Method::GET, &path, Value::Null, (422, "invalid-value")).await;
        assert_eq!(each(problem["errors"].as_array().expect("errors"), "/pointer"), pointers, "{wrong}");
    }
    let stranger = format!("{path}?view=tree&parent={}", Uuid::now_v7());
    ada.refused(Method::GET, &stranger, Value::Null, (404, "post-not-found")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn the_best_first_tree_tells_how_many_more_there_are_and_leads_to_them() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Tree").await;
    let posts = tree(&ada, &operator, &thread, &opening).await;
    let path = format!("/v2/threads/{thread}/posts?view=tree&sort=best");
    let whole = ada.get(&path).await.expect(200);
    assert_eq!(numbers(&whole), [1, 4, 10, 9, 3, 7, 2, 6, 5, 8]);
    assert!(whole["items"].as_array().expect("posts").iter().all(|post| post.get("more").is_none()));

    let some = ada.get(&format!("{path}&limit=2&children=1&levels=2")).await.expect(200);
    assert_eq!(numbers(&some), [1, 4, 10, 3, 7]);
    let more = |page: &Value, number: i64| {
        let items = page["items"].as_array().expect("posts");
        items.iter().find(|post| post["number"] == number).expect("that post")["more"].clone()
    };
    assert_eq!(
        (&more(&some, 1)["count"], &more(&some, 4)["count"], &more(&some, 3)),
        (&json!(1), &json!(1), &Value::Null)
    );
    let next = ada.get(&format!("{path}&limit=2&cursor={}", text(&some["next"]))).await.expect(200);
    assert_eq!((numbers(&next), &next["next"]), (vec![2, 6, 5, 8], &Value::Null));
    let rest = format!("{path}&limit=2&parent={}&cursor={}", posts[3], text(&more(&some, 4)["cursor"]));
    let rest = ada.get(&rest).await.expect(200);
    assert_eq!((numbers(&rest), &rest["next"]), (vec![9], &Value::Null));
    let none = ada.get(&format!("{path}&children=0&levels=2")).await.expect(200);
    assert_eq!(numbers(&none), [1, 4, 3, 2]);
    assert_eq!(more(&none, 4)["count"], 2);
    let first = format!("{path}&limit=2&parent={}&cursor={}", posts[3], text(&more(&none, 4)["cursor"]));
    assert_eq!(numbers(&ada.get(&first).await.expect(200)), [10, 9]);
    let elsewhere = format!("{path}&parent={}&cursor={}", posts[1], text(&more(&none, 4)["cursor"]));
    let problem = ada.refused(Method::GET, &elsewhere, Value::Null, (400, "malformed-request")).await;
    assert_eq!(problem["errors"][0]["code"], "foreign_cursor");
    forum.stop().await;
}

#[tokio::test]
async fn votes_between_the_pages_of_the_best_neither_hide_what_stayed_nor_go_on_for_ever() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Tree").await;
    let mut replies = Vec::new();
    for n in 0..6 {
        replies.push(below(&ada, &opening, &format!("{n}")).await);
    }
    let vote = async |post: &str, kind: &str| {
        bob.put(&format!("/v2/posts/{post}/reaction"), &json!({"kind": kind})).await.expect(200);
    };
    let page = async |cursor: Option<&str>| {
        let cursor = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        bob.get(&format!("/v2/threads/{thread}/posts?view=tree&sort=best&limit=2{cursor}")).await.expect(200)
    };
    vote(&replies[0], "up").await;
    vote(&replies[5], "down").await;
    let first = page(None).await;
    assert_eq!(numbers(&first), [1, 2, 3]);
    // One that was shown falls behind, one that was not rises before.
    vote(&replies[0], "down").await;
    vote(&replies[3], "up").await;
    let mut shown = numbers(&first);
    let mut next = first["next"].as_str().map(str::to_owned);
    while let Some(cursor) = next {
        assert!(shown.len() < 20, "it ends: {shown:?}");
        let page = page(Some(&cursor)).await;
        shown.extend(numbers(&page));
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(shown, [1, 2, 3, 4, 6, 2, 7], "what stayed where it was is shown once");
    forum.stop().await;
}

#[tokio::test]
async fn more_counts_what_can_be_seen_and_leads_to_the_place_holders_too() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Tree").await;
    let mut replies = Vec::new();
    for n in 2..=7 {
        replies.push(below(&ada, &opening, &format!("post {n}")).await);
    }
    let answer = below(&ada, &replies[5], "below the last, which goes").await;
    for gone in [0, 3, 5] {
        ada.delete(&format!("/v2/posts/{}", replies[gone])).await.expect(200);
    }
    ada.put(&format!("/v2/posts/{}/hide", replies[4]), &json!({})).await.expect(200);
    let path = format!("/v2/threads/{thread}/posts?view=tree&sort=best&limit=2");
    let mut page = ada.get(&path).await.expect(200);
    assert_eq!((&page["items"][0]["replies"], &page["items"][0]["more"]["count"]), (&json!(2), &json!(1)));
    let mut shown = numbers(&page);
    while let Some(cursor) = page["next"].as_str().map(str::to_owned) {
        page = ada.get(&format!("{path}&cursor={cursor}")).await.expect(200);
        shown.extend(numbers(&page));
    }
    assert_eq!(shown, [1, 2, 3, 4, 5, 6, 7, 8], "every post once, and what is below a place-holder");
    // At the place-holders only: nothing to count, and a way to what is below them.
    let most = ada.get(&format!("/v2/threads/{thread}/posts?view=tree&sort=best&limit=4")).await.expect(200);
    assert_eq!((numbers(&most), &most["items"][0]["more"]["count"]), (vec![1, 2, 3, 4, 5], &json!(0)));
    let rest = format!("/v2/threads/{thread}/posts?view=tree&sort=best&limit=4&cursor={}", text(&most["next"]));
    let rest = ada.get(&rest).await.expect(200);
    assert_eq!((numbers(&rest), &rest["items"][2]["id"]), (vec![6, 7, 8], &json!(answer)));
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_page_of_long_posts_is_shorter_and_the_next_one_goes_on() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Long").await;
    let long = "word ".repeat(20 * 1024);
    let mut replies = Vec::new();
    for _ in 2..=14 {
        replies.push(below(&ada, &opening, &long).await);
    }
    let deeper = [below(&ada, &replies[0], &long).await, below(&ada, &replies[0], "short").await];
    let path = format!("/v2/threads/{thread}/posts?limit=100&view=");
    let page = async |query: String| {
        let page = ada.get(&format!("{path}{query}")).await.expect(200);
        assert!(page.to_string().len() < 1_200_000, "{query}: a page of {} bytes", page.to_string().len());
        page
    };
    let follow = async |layout: &str, mut pages: Vec<Value>, field: &str| {
        while let Some(cursor) = pages[pages.len() - 1][field].as_str().map(str::to_owned) {
            assert!(pages.len() < 10, "{layout}: it ends");
            pages.push(page(format!("{layout}&cursor={cursor}")).await);
        }
        pages
    };
    let preorder = [1, 2, 15, 16].into_iter().chain(3..=14);
    for (layout, order) in [("flat", (1..=16).collect::<Vec<_>>()), ("tree", preorder.collect())] {
        let pages = follow(layout, vec![page(layout.to_owned()).await], "next").await;
        assert!(pages.len() > 2, "{layout}: more than a page");
        assert_eq!(pages.iter().flat_map(numbers).collect::<Vec<_>>(), order);
        let mut back = follow(layout, vec![pages[pages.len() - 1].clone()], "previous").await;
        back.reverse();
        assert_eq!(back.iter().flat_map(numbers).collect::<Vec<_>>(), order, "backwards");
    }
    let best = follow("tree&sort=best", vec![page("tree&sort=best".to_owned()).await], "next").await;
    let shown: Vec<i64> = best.iter().flat_map(numbers).collect();
    let first = &best[0]["items"][1];
    assert_eq!((shown[..3].to_vec(), &first["number"], &first["more"]["count"]), (vec![1, 2, 3], &json!(2), &json!(2)));
    assert!((3..=14).all(|number| shown.contains(&number)), "all of the first level: {shown:?}");
    let cursor = format!("tree&sort=best&parent={}&cursor={}", replies[0], text(&first["more"]["cursor"]));
    let rest = page(cursor).await;
    assert_eq!(each(rest["items"].as_array().expect("posts"), "/id"), deeper.map(Value::from));
    forum.stop().await;
}

//! Threads: starting, changing, locking, pinning, answering, deleting; and their lists.

use agora_tests::{
    counts::assert_counts_hold,
    forum::{Community, Person, TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const THREADS: &str = "/v2/communities/tea/threads";

async fn shown(reader: &Person<'_>, thread: &str) -> Value {
    reader.get(&format!("/v2/threads/{thread}")).await.expect(200)
}

#[tokio::test]
async fn a_thread_is_started_with_its_opening_post() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (id, opening) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let body = json!({
        "id": id, "opening_post_id": opening, "category_id": tea.category, "title": "Which kettle?",
        "tags": ["kettles", "c++"], "body": "The <b>red</b> one<script>x</script>?", "format": "html",
    });
    let answer = ada.post(THREADS, &body).await;
    assert_eq!(answer.header("location"), Some(&*format!("/v2/threads/{id}")));
    let started = answer.expect(201);
    assert_eq!(started, json!({"id": id, "version": 1, "community_id": tea.id, "opening_post_id": opening}));
    let thread = shown(&ada, &id).await;
    for (field, value) in [
        ("title", json!("Which kettle?")),
        ("tags", json!(["kettles", "c++"])),
        ("opening_post_id", json!(opening)),
        ("replies", json!(0)),
        ("locked", json!(false)),
        ("version", json!(1)),
    ] {
        assert_eq!(thread[field], value, "{field}");
    }
    assert_eq!((&thread["last_post"]["id"], &thread["community"]["slug"]), (&json!(opening), &json!("tea")));
    let post = ada.get(&format!("/v2/posts/{opening}")).await.expect(200);
    assert_eq!((&post["number"], &post["depth"], &post["parent_id"]), (&json!(1), &json!(0), &Value::Null));
    assert_eq!((&post["format"], &post["body_html"]), (&json!("html"), &json!("The <b>red</b> one?")));

    let again = json!({"id": Uuid::now_v7(), "opening_post_id": opening});
    for (changed, pointer) in [(json!({}), "#/id"), (again, "#/opening_post_id")] {
        let mut body = body.clone();
        body.as_object_mut().expect("an object").extend(changed.as_object().expect("an object").clone());
        let problem = ada.refused(Method::POST, THREADS, body, (409, "duplicate")).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let elsewhere = json!({"category_id": Uuid::now_v7(), "title": "x", "body": "x"});
    ada.refused(Method::POST, THREADS, elsewhere, (422, "unknown-category")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn its_author_and_moderators_change_a_thread_all_or_nothing() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let news = json!({"slug": "news", "name": "News"});
    let news = text(&ada.post("/v2/communities/tea/categories", &news).await.expect(201)["id"]);
    let (thread, _) = bob.thread(&tea, "Old").await;
    let path = format!("/v2/threads/{thread}");
    bob.patch(&path, &json!({"title": "New", "tags": ["a", "b"]})).await.expect(200);
    let now = shown(&bob, &thread).await;
    assert_eq!((&now["title"], &now["tags"], &now["version"]), (&json!("New"), &json!(["a", "b"]), &json!(3)));
    let both = json!({"title": "Newer", "category_id": news});
    bob.refused(Method::PATCH, &path, both.clone(), (403, "role-required")).await;
    eve.refused(Method::PATCH, &path, json!({"title": "Mine"}), (403, "not-author")).await;
    assert_eq!(shown(&bob, &thread).await, now, "nothing of it was done");
    ada.patch(&path, &both).await.expect(200);
    let now = shown(&ada, &thread).await;
    assert_eq!((&now["title"], &now["category"]["slug"]), (&json!("Newer"), &json!("news")));
    bob.patch(&path, &json!({"tags": null})).await.expect(200);
    assert_eq!(shown(&bob, &thread).await["tags"], json!([]));

    let etag = bob.get(&path).await.header("etag").expect("an ETag").to_owned();
    let headers = [("if-match", &*etag)];
    bob.send(Method::PATCH, &path, Some(&json!({"title": "A"})), &headers).await.expect(200);
    bob.send(Method::PATCH, &path, Some(&json!({"title": "B"})), &headers)
        .await
        .expect_problem(412, "version-mismatch");
    let unknown = format!("/v2/threads/{}", Uuid::now_v7());
    bob.refused(Method::PATCH, &unknown, json!({"title": "x"}), (404, "thread-not-found")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn moderators_lock_and_pin() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = bob.thread(&tea, "First").await;
    let (newer, _) = bob.thread(&tea, "Second").await;
    let (lock, pin) = (format!("/v2/threads/{thread}/lock"), format!("/v2/threads/{thread}/pin"));
    for path in [&lock, &pin] {
        bob.refused(Method::PUT, path, Value::Null, (403, "role-required")).await;
        bob.refused(Method::DELETE, path, Value::Null, (403, "role-required")).await;
    }
    ada.put(&lock, &json!({"reason": "enough"})).await.expect(200);
    let posts = format!("/v2/threads/{thread}/posts");
    bob.refused(Method::POST, &posts, json!({"body": "more"}), (422, "thread-locked")).await;
    ada.post(&posts, &json!({"body": "the last word"})).await.expect(201);
    assert_eq!(shown(&ada, &thread).await["locked"], true);
    let again = ada.put(&lock, &json!({})).await;
    assert_eq!(again.header("agora-unchanged"), Some("true"));
    ada.delete(&lock).await.expect(200);
    bob.post(&posts, &json!({"body": "more"})).await.expect(201);

    bob.reply(&newer, "newest").await;
    ada.catch_up(&bob);
    let first = async || ada.get(THREADS).await.expect(200)["items"][0]["id"].clone();
    assert_eq!(first().await, json!(newer));
    let until = json!({"until": "2999-01-01T00:00:00Z"});
    ada.put(&pin, &until).await.expect(200);
    assert_eq!(first().await, json!(thread));
    let now = shown(&ada, &thread).await;
    assert_eq!((&now["pinned"], &now["pinned_until"]), (&json!(true), &until["until"]));
    ada.refused(Method::PUT, &pin, json!({"until": "2001-01-01T00:00:00Z"}), (422, "until-in-the-past")).await;
    ada.delete(&pin).await.expect(200);
    assert_eq!(first().await, json!(newer));
    forum.stop().await;
}

#[tokio::test]
async fn a_thread_has_one_answer_of_its_own() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = bob.thread(&tea, "Question").await;
    let (other, _) = bob.thread(&tea, "Another").await;
    let one = eve.reply(&thread, "One").await;
    let two = ada.reply(&thread, "Two").await;
    let foreign = eve.reply(&other, "Elsewhere").await;
    let gone = eve.reply(&thread, "Gone").await;
    eve.delete(&format!("/v2/posts/{gone}")).await.expect(200);
    let path = format!("/v2/threads/{thread}/answer");
    for post in [&opening, &foreign, &gone, &Uuid::now_v7().to_string()] {
        let refused = bob.refused(Method::PUT, &path, json!({"post_id": post}), (422, "not-an-answer")).await;
        assert_eq!(refused["errors"][0]["pointer"], "#/post_id");
    }
    eve.refused(Method::PUT, &path, json!({"post_id": one}), (403, "not-author")).await;
    let accepted = async || {
        let posts = bob.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
        let posts = posts["items"].as_array().expect("posts").clone();
        each(posts.iter().filter(|post| post["accepted"] == true), "/id")
    };
    bob.catch_up(&eve);
    for answer in [&one, &two] {
        bob.put(&path, &json!({"post_id": answer})).await.expect(200);
        assert_eq!(shown(&bob, &thread).await["answer_id"], json!(answer));
        assert_eq!(accepted().await, [json!(answer)]);
    }
    assert_eq!(each(&walk(&bob, &format!("{THREADS}?unanswered=true"), 5).await, "/id"), [json!(other)]);
    assert_eq!(each(&walk(&bob, &format!("{THREADS}?unanswered=false"), 5).await, "/id"), [json!(thread)]);
    // While it cannot be seen there is none, for anybody; and when it comes back, it is the answer again.
    let unanswered = async || each(&walk(&bob, &format!("{THREADS}?unanswered=true&sort=new"), 5).await, "/id");
    let (post, hide) = (format!("/v2/posts/{two}"), format!("/v2/posts/{two}/hide"));
    for (goes, comes) in [
        ((Method::PUT, hide.clone()), (Method::DELETE, hide)),
        ((Method::DELETE, post.clone()), (Method::POST, format!("{post}/restore"))),
    ] {
        ada.send(goes.0, &goes.1, None, &[]).await.expect(200);
        bob.catch_up(&ada);
        assert_eq!((shown(&bob, &thread).await["answer_id"].clone(), accepted().await), (Value::Null, Vec::new()));
        assert_eq!(bob.get(&post).await.expect(200)["accepted"], false);
        assert_eq!(unanswered().await, [json!(other), json!(thread)]);
        assert_counts_hold(&forum).await;
        ada.send(comes.0, &comes.1, None, &[]).await.expect(200);
        bob.catch_up(&ada);
        assert_eq!(shown(&bob, &thread).await["answer_id"], json!(two));
        assert_eq!((accepted().await, unanswered().await), (vec![json!(two)], vec![json!(other)]));
    }
    bob.delete(&path).await.expect(200);
    assert_eq!((shown(&bob, &thread).await["answer_id"].clone(), accepted().await), (Value::Null, Vec::new()));
    forum.stop().await;
}

#[tokio::test]
async fn a_deleted_thread_is_there_for_moderators_and_comes_back_whole() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = bob.thread(&tea, "Going").await;
    let reply = eve.reply(&thread, "Here").await;
    let path = format!("/v2/threads/{thread}");
    eve.refused(Method::DELETE, &path, Value::Null, (403, "not-author")).await;
    for (by, whose) in [(&bob, "author"), (&ada, "moderator")] {
        let restored_by_author = whose == "author";
        if !restored_by_author {
            // Who deletes first does not keep the right to undo it.
            bob.delete(&path).await.expect(200);
        }
        by.delete(&format!("{path}?reason=wrong%20place")).await.expect(200);
        eve.catch_up(by);
        ada.catch_up(by);
        for (path, problem) in [
            (path.clone(), "thread-not-found"),
            (format!("{path}/posts"), "thread-not-found"),
            (format!("/v2/posts/{opening}"), "post-not-found"),
            (format!("/v2/posts/{reply}"), "post-not-found"),
        ] {
            eve.refused(Method::GET, &path, Value::Null, (404, problem)).await;
        }
        // Who may restore it reads it, and nobody else.
        bob.catch_up(by);
        for path in [path.clone(), format!("{path}/posts"), format!("/v2/posts/{reply}")] {
            let status = if restored_by_author { 200 } else { 404 };
            bob.get(&path).await.expect_status(status);
        }
        for reader in [&ada, &bob, &eve] {
            assert!(walk(reader, THREADS, 5).await.is_empty());
        }
        let deleted = format!("{THREADS}?deleted=true");
        let found = walk(&ada, &deleted, 5).await;
        assert_eq!(each(&found, "/id"), [json!(thread)]);
        assert_eq!((&found[0]["deleted"], &found[0]["deleted_by"]), (&json!(true), &json!(whose)));
        bob.refused(Method::GET, &deleted, Value::Null, (403, "role-required")).await;
        forum.guest().refused(Method::GET, &deleted, Value::Null, (401, "unauthenticated")).await;
        let (late, like) = (json!({"body": "late"}), json!({"kind": "like"}));
        for (method, path, body, problem) in [
            (Method::POST, format!("{path}/posts"), late.clone(), "thread-not-found"),
            (Method::DELETE, path.clone(), Value::Null, "thread-not-found"),
            (Method::POST, format!("{path}/restore"), Value::Null, "thread-not-found"),
            (Method::PUT, format!("/v2/posts/{opening}/reaction"), like, "post-not-found"),
            (Method::POST, format!("/v2/posts/{opening}/replies"), late.clone(), "post-not-found"),
            (Method::DELETE, format!("/v2/posts/{reply}"), Value::Null, "post-not-found"),
        ] {
            eve.refused(method, &path, body, (404, problem)).await;
        }
        for who_knows in [&bob, &ada] {
            let posts = format!("{path}/posts");
            who_knows.refused(Method::POST, &posts, late.clone(), (422, "thread-deleted")).await;
        }
        assert_eq!(eve.get("/v2/accounts/eve").await.expect(200)["posts"], 0);
        assert_eq!(ada.get_after(by, &path).await.expect(200)["deleted"], true);
        let restore = format!("{path}/restore");
        if restored_by_author {
            bob.send(Method::POST, &restore, None, &[]).await.expect(200);
        } else {
            bob.refused(Method::POST, &restore, Value::Null, (403, "role-required")).await;
            ada.send(Method::POST, &restore, None, &[]).await.expect(200);
        }
        assert_counts_hold(&forum).await;
        eve.catch_up(&bob);
        eve.catch_up(&ada);
        assert_eq!(shown(&eve, &thread).await["replies"], 1);
        assert_eq!(eve.get("/v2/accounts/eve").await.expect(200)["posts"], 1);
    }
    forum.stop().await;
}

/// Five threads of different ages, replies, scores, tags and categories; their ids.
async fn shelf(ada: &Person<'_>, bob: &Person<'_>, operator: &Person<'_>, tea: &Community) -> Vec<String> {
    let below = json!({"slug": "below", "name": "Below", "parent_id": tea.category});
    let below = text(&ada.post("/v2/communities/tea/categories", &below).await.expect(201)["id"]);
    let times = ["2011-01-01T00:00:00Z", "2012-01-01T00:00:00Z", "2013-01-01T00:00:00Z"];
    let mut threads = Vec::new();
    for n in 0..5 {
        let category = if n % 2 == 0 { &tea.category } else { &below };
        let tags: &[&str] = if n < 3 { &["leaf", "cup"] } else { &["Cup"] };
        let body = json!({"title": format!("Thread {n}"), "body": "x", "category_id": category, "tags": tags});
        let mut headers = vec![("agora-on-behalf-of", ada.id())];
        headers.extend(times.get(n).map(|time| ("agora-occurred-at", *time)));
        let started = operator.send(Method::POST, THREADS, Some(&body), &headers).await.expect(201);
        for _ in 0..[2, 0, 1, 0, 3][n] {
            bob.reply(&text(&started["id"]), "reply").await;
        }
        let (up, down) = [(5, 0), (9, 2), (0, 4), (3, 0), (0, 0)][n];
        let path = format!("/v2/posts/{}/imported-score", text(&started["opening_post_id"]));
        operator.put(&path, &json!({"up": up, "down": down})).await.expect(200);
        threads.push(text(&started["id"]));
    }
    ada.catch_up(operator);
    ada.catch_up(bob);
    threads
}

#[tokio::test]
async fn threads_are_listed_in_five_orders_and_filtered() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let threads = shelf(&ada, &bob, &operator, &tea).await;
    let listed = async |query: &str| {
        let items = walk(&ada, &format!("{THREADS}?{query}"), 2).await;
        let number = |id: Value| threads.iter().position(|thread| *thread == id).expect("one of them");
        each(&items, "/id").into_iter().map(number).collect::<Vec<_>>()
    };
    for (query, order) in [
        ("sort=active", &[4, 3, 2, 0, 1][..]),
        ("sort=new", &[4, 3, 2, 1, 0]),
        ("sort=top", &[1, 0, 3, 4, 2]),
        ("sort=top&period=year", &[3, 4]),
        ("sort=hot", &[3, 4, 2, 1, 0]),
        ("sort=replies", &[4, 0, 2, 3, 1]),
        ("sort=new&tag=Leaf", &[2, 1, 0]),
        ("sort=new&tag=none", &[]),
        ("sort=new&category=general/below", &[3, 1]),
        ("sort=new&category=general", &[4, 3, 2, 1, 0]),
        ("sort=new&tag=leaf&category=general/below&unanswered=true", &[1]),
    ] {
        assert_eq!(listed(query).await, order, "{query}");
    }
    ada.send(Method::PUT, &format!("/v2/threads/{}/pin", threads[1]), None, &[]).await.expect(200);
    assert_eq!(listed("sort=new").await, [1, 4, 3, 2, 0], "pinned first");
    let tags = walk(&ada, "/v2/communities/tea/tags", 1).await;
    assert_eq!(tags, [json!({"tag": "cup", "threads": 5}), json!({"tag": "leaf", "threads": 3})]);
    ada.refused(Method::GET, &format!("{THREADS}?category=nowhere"), Value::Null, (404, "category-not-found")).await;
    for wrong in ["sort=new&period=day", "period=ever"] {
        let path = format!("{THREADS}?{wrong}");
        let problem = ada.refused(Method::GET, &path, Value::Null, (422, "invalid-value")).await;
        assert_eq!(problem["errors"][0]["pointer"], "?period");
    }
    for wrong in ["tag", "category"] {
        let path = format!("{THREADS}?{wrong}=");
        let problem = ada.refused(Method::GET, &path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["pointer"], format!("?{wrong}"));
    }
    for wrong in ["sort=odd", "unanswered=maybe", "period=hour", "colour=red", "sort=new&sort=top", "limit=x"] {
        ada.refused(Method::GET, &format!("{THREADS}?{wrong}"), Value::Null, (400, "malformed-request")).await;
    }
    for wrong in ["limit=0", "limit=101"] {
        ada.refused(Method::GET, &format!("{THREADS}?{wrong}"), Value::Null, (422, "invalid-value")).await;
    }
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_page_goes_on_where_it_ended_whatever_came_meanwhile() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let mut threads = Vec::new();
    for n in 0..6 {
        threads.push(ada.thread(&tea, &format!("Thread {n}")).await.0);
    }
    let page = ada.get(&format!("{THREADS}?sort=new&limit=2")).await.expect(200);
    ada.thread(&tea, "Came in between").await;
    ada.delete(&format!("/v2/threads/{}", threads[4])).await.expect(200);
    ada.delete(&format!("/v2/threads/{}", threads[2])).await.expect(200);
    let rest = format!("{THREADS}?sort=new&limit=10&cursor={}", text(&page["next"]));
    let rest = ada.get(&rest).await.expect(200);
    assert_eq!(each(rest["items"].as_array().expect("items"), "/id"), [3, 1, 0].map(|n: usize| json!(threads[n])));
    for elsewhere in [
        format!("{THREADS}?sort=top"),
        format!("{THREADS}?sort=new&tag=x"),
        "/v2/communities?sort=new".to_owned(),
        format!("/v2/threads/{}/posts?view=flat", threads[0]),
    ] {
        let path = format!("{elsewhere}&cursor={}", text(&page["next"]));
        let problem = ada.refused(Method::GET, &path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["errors"][0]["code"], "foreign_cursor", "{elsewhere}");
    }
    for none in ["", "x", "%FF", "AQAAAAAAAAAAAAAA"] {
        let path = format!("{THREADS}?cursor={none}");
        let problem = ada.refused(Method::GET, &path, Value::Null, (400, "malformed-request")).await;
        assert_eq!(problem["status"], 400);
    }
    forum.stop().await;
}

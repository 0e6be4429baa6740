//! Communities: making them, settings, owners, being read-only, and the lists of them.

use agora_tests::{
    counts::assert_counts_hold,
    forum::{TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn a_community_is_made_and_its_maker_owns_it() {
    let forum = TestForum::start().await;
    let (ada, guest) = (forum.person("ada").await, forum.guest());
    let body = json!({"slug": "tea", "name": "Tea", "description": "Leaves.", "reactions": ["cheers"]});
    let answer = ada.post("/v2/communities", &body).await;
    let location = answer.header("location").expect("where it is").to_owned();
    let made = answer.expect(201);
    let shown = guest.get_after(&ada, "/v2/communities/tea").await.expect(200);
    assert_eq!((&shown["id"], &shown["slug"], &shown["version"]), (&made["id"], &made["slug"], &made["version"]));
    for (field, value) in [
        ("name", json!("Tea")),
        ("description", json!("Leaves.")),
        ("visibility", json!("public")),
        ("status", json!("active")),
        ("reactions", json!(["cheers"])),
        ("members", json!(1)),
        ("last_activity_at", Value::Null),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_eq!(each(shown["owners"].as_array().expect("owners"), "/username"), ["ada"]);
    assert!(shown.get("mine").is_none(), "a guest is told nothing of itself");
    assert_eq!(ada.get(&location).await.expect(200)["mine"], json!({"role": "owner", "status": "member"}));

    for (same, pointer) in [(json!({"slug": "tea"}), "#/slug"), (json!({"slug": "tea2", "id": made["id"]}), "#/id")] {
        let mut body = same;
        body["name"] = json!("Again");
        let problem = ada.refused(Method::POST, "/v2/communities", body, (409, "duplicate")).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    guest.refused(Method::POST, "/v2/communities", body, (401, "unauthenticated")).await;
    guest.refused(Method::GET, "/v2/communities/coffee", Value::Null, (404, "community-not-found")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn settings_change_for_admins_at_the_version_they_saw() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let etag = ada.get("/v2/communities/tea").await.header("etag").expect("an ETag").to_owned();
    let renamed = json!({"slug": "green-tea", "name": "Green tea", "description": null});
    let if_match = [("if-match", etag.as_str())];
    ada.send(Method::PATCH, "/v2/communities/tea", Some(&renamed), &if_match).await.expect(200);
    let stale = json!({"name": "Black tea"});
    let answer = ada.send(Method::PATCH, "/v2/communities/green-tea", Some(&stale), &if_match).await;
    assert_eq!(answer.header("etag"), Some("\"2\""));
    answer.expect_problem(412, "version-mismatch");

    ada.refused(Method::GET, "/v2/communities/tea", Value::Null, (404, "community-not-found")).await;
    for name in ["green-tea", &tea.id] {
        let shown = ada.get(&format!("/v2/communities/{name}")).await.expect(200);
        assert_eq!((&shown["name"], &shown["description"]), (&json!("Green tea"), &json!("")));
    }
    bob.refused(Method::PATCH, "/v2/communities/green-tea", stale, (403, "role-required")).await;
    let other = forum.community(&bob, "tea").await;
    assert_ne!(other.id, tea.id, "a slug given up is free");
    let taken = json!({"slug": "green-tea"});
    bob.refused(Method::PATCH, "/v2/communities/tea", taken, (409, "duplicate")).await;
    forum.stop().await;
}

#[tokio::test]
async fn there_is_always_an_owner() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    forum.community(&ada, "tea").await;
    let owner = |name: &str| format!("/v2/communities/tea/owners/{name}");
    let none = || Value::Null;
    ada.refused(Method::DELETE, &owner("ada"), none(), (422, "last-owner")).await;
    ada.refused(Method::DELETE, "/v2/communities/tea/members/me", none(), (422, "last-owner")).await;
    ada.refused(Method::PUT, &owner("bob"), none(), (422, "not-a-member")).await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    bob.refused(Method::PUT, &owner("bob"), none(), (403, "role-required")).await;
    ada.refused(Method::PUT, &owner("nobody"), none(), (404, "account-not-found")).await;
    ada.send(Method::PUT, &owner("bob"), None, &[]).await.expect(200);
    let shown = eve.get_after(&ada, "/v2/communities/tea").await.expect(200);
    let mut owners = each(shown["owners"].as_array().expect("owners"), "/username");
    owners.sort_by_key(Value::to_string);
    assert_eq!(owners, ["ada", "bob"]);
    let member = eve.get("/v2/communities/tea/members/bob").await.expect(200);
    assert_eq!(member["role"], "owner");

    bob.refused(Method::DELETE, &owner("ada"), none(), (403, "not-superior")).await;
    let ban = json!({"reason": "a coup"});
    bob.refused(Method::PUT, "/v2/communities/tea/members/ada/ban", ban, (422, "target-is-owner")).await;
    ada.delete("/v2/communities/tea/members/me").await.expect(200);
    let shown = eve.get_after(&ada, "/v2/communities/tea").await.expect(200);
    assert_eq!(each(shown["owners"].as_array().expect("owners"), "/username"), ["bob"]);
    assert_eq!(shown["members"], 1);
    ada.refused(Method::PATCH, "/v2/communities/tea", json!({"name": "Mine"}), (403, "role-required")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_suspended_or_archived_community_is_read_only() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Before").await;
    let (suspension, archive) = ("/v2/communities/tea/suspension", "/v2/communities/tea/archive");
    let reason = json!({"reason": "a complaint"});
    ada.refused(Method::PUT, suspension, reason.clone(), (403, "operators-only")).await;
    bob.refused(Method::PUT, archive, Value::Null, (403, "role-required")).await;

    operator.put(suspension, &reason).await.expect(200);
    for (method, path, body) in [
        (Method::POST, format!("/v2/threads/{thread}/posts"), json!({"body": "late"})),
        (Method::PATCH, format!("/v2/posts/{opening}"), json!({"body": "late", "base_revision": 1})),
        (Method::PUT, "/v2/communities/tea/members/me".to_owned(), json!({})),
        (Method::PATCH, "/v2/communities/tea".to_owned(), json!({"name": "Late"})),
    ] {
        let person = if method == Method::PUT { &bob } else { &ada };
        person.refused(method, &path, body, (422, "community-suspended")).await;
    }
    ada.refused(Method::PUT, archive, Value::Null, (403, "operators-only")).await;
    ada.refused(Method::DELETE, archive, Value::Null, (403, "operators-only")).await;
    assert_eq!(ada.get_after(&operator, "/v2/communities/tea").await.expect(200)["status"], "suspended");
    ada.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
    operator.delete(suspension).await.expect(200);
    ada.reply(&thread, "again").await;

    for path in ["/v2/communities/tea/members/me", "/v2/communities/tea/members/operator"] {
        let member = if path.ends_with("me") { &bob } else { &operator };
        member.put(path, &json!({})).await.expect(200);
    }
    ada.send(Method::PUT, archive, None, &[]).await.expect(200);
    for (person, method, path) in [
        (&ada, Method::PUT, "owners/bob"),
        (&ada, Method::DELETE, "owners/ada"),
        (&operator, Method::PUT, "owners/bob"),
        (&ada, Method::DELETE, "members/me"),
        (&ada, Method::DELETE, "members/bob"),
        (&ada, Method::DELETE, "members/me/role"),
    ] {
        let path = format!("/v2/communities/tea/{path}");
        person.refused(method, &path, Value::Null, (422, "community-archived")).await;
    }
    bob.delete("/v2/communities/tea/members/me").await.expect(200);
    assert_eq!(ada.get("/v2/communities/tea").await.expect(200)["status"], "archived");
    let late = json!({"body": "late"});
    ada.refused(Method::POST, &format!("/v2/threads/{thread}/posts"), late, (422, "community-archived")).await;
    ada.delete(archive).await.expect(200);
    assert_eq!(ada.get("/v2/communities/tea").await.expect(200)["status"], "active");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn only_members_write_in_a_restricted_community() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let club = forum.community_with(&ada, "club", &json!({"visibility": "restricted"})).await;
    let (thread, _) = ada.thread(&club, "Welcome").await;
    bob.get_after(&ada, &format!("/v2/threads/{thread}/posts")).await.expect(200);
    let hello = json!({"body": "hello"});
    bob.refused(Method::POST, &format!("/v2/threads/{thread}/posts"), hello.clone(), (403, "members-only")).await;
    bob.put("/v2/communities/club/members/me", &json!({})).await.expect(200);
    bob.post(&format!("/v2/threads/{thread}/posts"), &hello).await.expect(201);
    forum.stop().await;
}

#[tokio::test]
async fn a_private_community_is_there_for_those_who_were_invited() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let den = forum.community_with(&ada, "den", &json!({"visibility": "private"})).await;
    let (thread, _) = ada.thread(&den, "Inside").await;
    bob.catch_up(&ada);
    let (page, member) = (format!("/v2/threads/{thread}"), "/v2/communities/den/members/me");
    bob.refused(Method::GET, &page, Value::Null, (404, "thread-not-found")).await;
    bob.refused(Method::PUT, member, json!({}), (404, "community-not-found")).await;
    ada.send(Method::PUT, "/v2/communities/den/members/bob/invitation", None, &[]).await.expect(200);
    bob.catch_up(&ada);
    bob.refused(Method::GET, &page, Value::Null, (404, "thread-not-found")).await;
    bob.put(member, &json!({})).await.expect(200);
    bob.get(&page).await.expect(200);
    assert_eq!(each(&walk(&bob, "/v2/communities", 5).await, "/slug"), ["den"]);
    operator.get_after(&ada, &page).await.expect(200);
    ada.put("/v2/communities/den/members/bob/ban", &json!({"reason": "told"})).await.expect(200);
    bob.catch_up(&ada);
    bob.refused(Method::GET, &page, Value::Null, (404, "thread-not-found")).await;
    assert_eq!(walk(&bob, "/v2/communities", 5).await, Vec::<Value>::new());
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn communities_are_listed_by_activity_age_and_name() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let mut made = Vec::new();
    for slug in ["mate", "assam", "zen", "kombucha", "chai"] {
        made.push(forum.community(&ada, slug).await);
    }
    for n in [3, 0, 4] {
        ada.thread(&made[n], "News").await;
    }
    let listed = async |sort: &str| each(&walk(&ada, &format!("/v2/communities?sort={sort}"), 2).await, "/slug");
    assert_eq!(listed("activity").await, ["chai", "mate", "kombucha", "zen", "assam"]);
    assert_eq!(listed("new").await, ["chai", "kombucha", "zen", "assam", "mate"]);
    assert_eq!(listed("name").await, ["assam", "chai", "kombucha", "mate", "zen"]);
    let by_name = ada.get("/v2/communities?sort=name&limit=2").await.expect(200);
    let cursor = text(&by_name["next"]);
    let elsewhere = ada.get(&format!("/v2/communities?sort=new&limit=2&cursor={cursor}")).await;
    assert_eq!(elsewhere.expect_problem(400, "malformed-request")["errors"][0]["code"], "foreign_cursor");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

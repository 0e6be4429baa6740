//! Members: joining and leaving, roles, bans and silences.

use std::time::Duration;

use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, TestForum},
    pages::{each, walk},
};
use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};

const MEMBERS: &str = "/v2/communities/tea/members";
const LATER: &str = "2999-01-01T00:00:00Z";

fn member(name: &str) -> String {
    format!("/v2/communities/tea/members/{name}")
}

async fn join(people: &[&Person<'_>]) {
    for person in people {
        person.put(&member("me"), &json!({})).await.expect(200);
    }
}

async fn give_role(by: &Person<'_>, to: &Person<'_>, role: &str) {
    by.put(&format!("{}/role", member(to.id())), &json!({"role": role})).await.expect(200);
}

#[tokio::test]
async fn people_join_and_leave_for_themselves() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    forum.community(&ada, "tea").await;
    bob.catch_up(&ada);
    bob.refused(Method::GET, &member("me"), Value::Null, (404, "member-not-found")).await;
    let joined = bob.put(&member("me"), &json!({})).await.expect(200);
    assert_eq!((&joined["role"], &joined["version"]), (&json!("member"), &json!(1)));
    let again = bob.send(Method::PUT, &member("bob"), None, &[]).await;
    assert_eq!((again.status, again.header("agora-unchanged")), (200, Some("true")));
    eve.refused(Method::PUT, &member("bob"), json!({}), (403, "not-yourself")).await;
    eve.refused(Method::DELETE, &member("bob"), Value::Null, (403, "role-required")).await;
    forum.guest().refused(Method::PUT, &member("bob"), json!({}), (401, "unauthenticated")).await;
    let shown = eve.get_after(&bob, &member("bob")).await.expect(200);
    assert_eq!((&shown["status"], &shown["account"]["username"]), (&json!("member"), &json!("bob")));
    assert!(shown.get("sanctions").is_none(), "sanctions are not everybody's business");
    assert!(bob.get(&member("me")).await.expect(200)["sanctions"].is_object());
    assert_eq!(bob.get("/v2/communities/tea").await.expect(200)["members"], 2);
    bob.delete(&member("me")).await.expect(200);
    assert_eq!(bob.get("/v2/communities/tea").await.expect(200)["members"], 1);
    eve.catch_up(&bob);
    eve.refused(Method::GET, &member("bob"), Value::Null, (404, "member-not-found")).await;
    join(&[&bob]).await;
    ada.delete(&member("bob")).await.expect(200);
    assert_eq!(each(&walk(&ada, member("").trim_end_matches('/'), 5).await, "/account/username"), ["ada"]);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn roles_are_given_from_above() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let (eve, tom) = (forum.person("eve").await, forum.person("tom").await);
    forum.community(&ada, "tea").await;
    join(&[&bob, &eve]).await;
    give_role(&ada, &bob, "admin").await;
    give_role(&bob, &eve, "moderator").await;
    let role = |name: &str| format!("{}/role", member(name));
    let cases = [
        (&bob, Method::PUT, role("eve"), json!({"role": "admin"}), (403, "not-superior")),
        (&eve, Method::PUT, role("eve"), json!({"role": "admin"}), (403, "role-required")),
        (&eve, Method::DELETE, role("bob"), Value::Null, (403, "role-required")),
        (&bob, Method::PUT, role("ada"), json!({"role": "member"}), (403, "not-superior")),
        (&ada, Method::PUT, role("bob"), json!({"role": "owner"}), (422, "ownership-is-no-role")),
        (&ada, Method::PUT, role("tom"), json!({"role": "admin"}), (422, "not-a-member")),
        (&ada, Method::PUT, role("bob"), json!({"role": "king"}), (400, "malformed-request")),
        (&ada, Method::PUT, role("nobody"), json!({"role": "admin"}), (404, "account-not-found")),
    ];
    for (person, method, path, body, problem) in cases {
        person.refused(method, &path, body, problem).await;
    }
    tom.catch_up(&bob);
    tom.catch_up(&ada);
    let members = walk(&tom, "/v2/communities/tea/members", 1).await;
    let shown: Vec<_> = members.iter().map(|it| (&it["account"]["username"], &it["role"])).collect();
    assert_eq!(
        shown,
        [(&json!("ada"), &json!("owner")), (&json!("bob"), &json!("admin")), (&json!("eve"), &json!("moderator"))]
    );
    eve.delete(&role("me")).await.expect(200);
    ada.delete(&role("bob")).await.expect(200);
    eve.catch_up(&ada);
    for name in ["bob", "eve"] {
        assert_eq!(eve.get(&member(name)).await.expect(200)["role"], "member", "{name}");
    }
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn nobody_sanctions_a_peer_or_a_superior() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let (eve, tom) = (forum.person("eve").await, forum.person("tom").await);
    forum.community(&ada, "tea").await;
    join(&[&bob, &eve, &tom]).await;
    give_role(&ada, &bob, "moderator").await;
    give_role(&ada, &eve, "moderator").await;
    let sanctions = [("ban", json!({"reason": "x"})), ("silence", json!({"reason": "x", "until": LATER}))];
    for (what, body) in &sanctions {
        for (by, of, problem) in [
            (&bob, "eve", "not-superior"),
            (&bob, "bob", "not-superior"),
            (&bob, "ada", "not-superior"),
            (&tom, "bob", "role-required"),
        ] {
            by.refused(Method::PUT, &format!("{}/{what}", member(of)), body.clone(), (403, problem)).await;
        }
        let until = json!({"reason": "x", "until": "2001-01-01T00:00:00Z"});
        let path = format!("{}/{what}", member("tom"));
        bob.refused(Method::PUT, &path, until, (422, "until-in-the-past")).await;
        bob.refused(Method::PUT, &path, json!({"reason": " ", "until": LATER}), (422, "invalid-value")).await;
        tom.refused(Method::DELETE, &path, Value::Null, (403, "role-required")).await;
    }
    bob.refused(Method::PUT, &format!("{}/silence", member("tom")), json!({"reason": "x"}), (400, "malformed-request"))
        .await;
    bob.refused(Method::DELETE, &member("eve"), Value::Null, (403, "not-superior")).await;
    forum.stop().await;
}

#[tokio::test]
async fn who_is_banned_takes_no_part_and_who_is_silenced_reads_on() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    join(&[&bob]).await;
    give_role(&ada, &bob, "moderator").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let (ban, silence) = (format!("{}/ban", member("bob")), format!("{}/silence", member("bob")));
    let attempts = [
        (Method::POST, format!("/v2/threads/{thread}/posts"), json!({"body": "hello"})),
        (Method::PUT, format!("/v2/posts/{opening}/reaction"), json!({"kind": "like"})),
        (Method::PUT, format!("/v2/threads/{thread}/lock"), json!({})),
    ];
    for (path, until, problem) in [(&silence, Some(LATER), "silenced"), (&ban, None, "banned")] {
        ada.put(path, &json!({"reason": "rude", "until": until})).await.expect(200);
        for (method, path, body) in &attempts {
            bob.refused(method.clone(), path, body.clone(), (403, problem)).await;
        }
        bob.get_after(&ada, &format!("/v2/threads/{thread}/posts")).await.expect(200);
        let shown = bob.get(&member("me")).await.expect(200);
        let sanctions = &shown["sanctions"];
        let of_ban = (&sanctions["banned"], &sanctions["ban_reason"]);
        let of_silence = (&sanctions["silenced_until"], &sanctions["silence_reason"]);
        if problem == "banned" {
            assert_eq!((of_ban.0, of_ban.1, &shown["role"]), (&json!(true), &json!("rude"), &json!("member")));
        } else {
            assert_eq!(of_silence, (&json!(LATER), &json!("rude")));
        }
        ada.delete(path).await.expect(200);
        let again = ada.delete(path).await;
        assert_eq!((again.status, again.header("agora-unchanged")), (200, Some("true")));
    }
    bob.reply(&thread, "back again").await;
    bob.refused(Method::PUT, &attempts[2].1, json!({}), (403, "role-required")).await;
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn a_membership_changes_at_the_version_that_was_seen() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    forum.community(&ada, "tea").await;
    join(&[&bob]).await;
    let etag = ada.get_after(&bob, &member("bob")).await.header("etag").expect("an ETag").to_owned();
    let role = |role: &str| json!({"role": role});
    let path = format!("{}/role", member("bob"));
    let headers = [("if-match", &*etag)];
    ada.send(Method::PUT, &path, Some(&role("moderator")), &headers).await.expect(200);
    ada.send(Method::PUT, &path, Some(&role("admin")), &headers).await.expect_problem(412, "version-mismatch");
    forum.stop().await;
}

#[tokio::test]
async fn members_are_listed_by_role_and_by_name() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    forum.community(&ada, "tea").await;
    let mut people = Vec::new();
    for name in ["Zoe", "bob", "Eve", "tom", "Mia"] {
        people.push(forum.person(name).await);
    }
    for person in &people {
        join(&[person]).await;
        ada.catch_up(person);
    }
    give_role(&ada, &people[3], "moderator").await;
    let path = "/v2/communities/tea/members";
    let by_name = walk(&ada, &format!("{path}?sort=name"), 2).await;
    assert_eq!(each(&by_name, "/account/username"), ["ada", "bob", "Eve", "Mia", "tom", "Zoe"]);
    let by_role = walk(&ada, path, 2).await;
    assert_eq!(each(&by_role[..2], "/account/username"), ["ada", "tom"]);
    // Then the newest account first.
    assert_eq!(each(&by_role[2..], "/account/username"), ["Mia", "Eve", "bob", "Zoe"]);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn moderators_list_who_is_invited_banned_and_silenced() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let (eve, tom, zoe) = (forum.person("eve").await, forum.person("tom").await, forum.person("zoe").await);
    forum.community(&ada, "tea").await;
    join(&[&bob, &tom]).await;
    give_role(&ada, &bob, "moderator").await;
    ada.send(Method::PUT, &format!("{}/invitation", member("eve")), None, &[]).await.expect(200);
    for (name, what) in [("tom", "ban"), ("zoe", "ban"), ("tom", "silence")] {
        let path = format!("{}/{what}", member(name));
        ada.put(&path, &json!({"reason": "rude", "until": LATER})).await.expect(200);
    }
    for person in [&bob, &eve, &tom, &zoe] {
        ada.catch_up(person);
        person.catch_up(&ada);
    }
    let listed = async |query: &str| {
        let items = walk(&ada, &format!("{MEMBERS}?{query}"), 1).await;
        each(&items, "/account/username")
    };
    for sort in ["role", "name"] {
        let listed = async |query: &str| {
            let mut names = listed(&format!("sort={sort}&{query}")).await;
            names.sort_by_key(Value::to_string);
            names
        };
        assert_eq!(listed("status=joined").await, ["ada", "bob", "tom"]);
        assert_eq!(listed("status=invited").await, ["eve"]);
        assert_eq!(listed("status=banned").await, ["tom", "zoe"]);
        assert_eq!(listed("status=silenced").await, ["tom"]);
        assert_eq!(listed("role=moderator").await, ["bob"]);
        assert_eq!(listed("status=banned&role=member").await, ["tom"], "zoe is no member");
        assert_eq!(listed("role=admin").await, Vec::<Value>::new());
    }
    for status in ["invited", "banned", "silenced"] {
        let path = format!("{MEMBERS}?status={status}");
        bob.get(&path).await.expect(200);
        eve.refused(Method::GET, &path, Value::Null, (403, "role-required")).await;
        forum.guest().refused(Method::GET, &path, Value::Null, (401, "unauthenticated")).await;
    }
    eve.refused(Method::GET, &format!("{MEMBERS}?status=none"), Value::Null, (400, "malformed-request")).await;
    let shown = async |name: &str| {
        let shown = ada.get(&member(name)).await.expect(200);
        (shown["status"].clone(), shown["role"].clone())
    };
    assert_eq!(shown("eve").await, (json!("invited"), Value::Null));
    assert_eq!(shown("zoe").await, (json!("none"), Value::Null));
    assert_eq!(shown("tom").await, (json!("member"), json!("member")));
    forum.stop().await;
}

#[tokio::test]
async fn who_is_invited_to_a_private_community_learns_to_what() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let den = forum.community_with(&ada, "den", &json!({"visibility": "private", "description": "Quiet."})).await;
    let (thread, _) = ada.thread(&den, "Secret").await;
    let mine = "/v2/communities/den/members/me";
    bob.catch_up(&ada);
    bob.refused(Method::GET, mine, Value::Null, (404, "community-not-found")).await;
    ada.send(Method::PUT, "/v2/communities/den/members/bob/invitation", None, &[]).await.expect(200);
    bob.catch_up(&ada);
    eve.catch_up(&ada);
    let own = bob.get(mine).await.expect(200);
    assert_eq!((&own["status"], &own["role"]), (&json!("invited"), &Value::Null));
    let page = bob.get("/v2/communities/den").await.expect(200);
    assert_eq!((&page["name"], &page["description"]), (&json!("den"), &json!("Quiet.")));
    assert_eq!(page["mine"], json!({"role": null, "status": "invited"}));
    // Nothing of what is in it, and nothing for anybody else.
    for (path, problem) in [
        ("/v2/communities/den/members/ada".to_owned(), "community-not-found"),
        ("/v2/communities/den/members".to_owned(), "community-not-found"),
        ("/v2/communities/den/categories".to_owned(), "community-not-found"),
        ("/v2/communities/den/threads".to_owned(), "community-not-found"),
        (format!("/v2/threads/{thread}"), "thread-not-found"),
    ] {
        bob.refused(Method::GET, &path, Value::Null, (404, problem)).await;
    }
    for path in [mine, "/v2/communities/den", "/v2/communities/den/members/bob"] {
        eve.refused(Method::GET, path, Value::Null, (404, "community-not-found")).await;
    }
    bob.put(mine, &json!({})).await.expect(200);
    let page = bob.get("/v2/communities/den").await.expect(200);
    assert_eq!(page["mine"], json!({"role": "member", "status": "member"}));
    forum.stop().await;
}

#[tokio::test]
async fn a_sanction_that_is_over_is_not_shown_as_in_force() {
    let hour = Duration::from_secs(3_600);
    let forum = TestForum::start_with(|config| config.cache.time_to_live = hour).await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    join(&[&bob]).await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    ada.patch("/v2/communities/tea", &json!({"visibility": "private"})).await.expect(200);
    let threads = [format!("/v2/threads/{thread}"), format!("/v2/threads/{thread}/posts")];
    let over = Utc::now() + Duration::from_millis(1_500);
    for what in ["ban", "silence"] {
        let path = format!("{}/{what}", member("bob"));
        ada.put(&path, &json!({"reason": "rude", "until": over})).await.expect(200);
    }
    // Kept in the cache while it is in force; and so is what decides that he sees nothing.
    ada.get(&member("bob")).await.expect(200);
    bob.catch_up(&ada);
    for path in threads.iter().chain(&threads) {
        bob.get(path).await.expect_problem(404, "thread-not-found");
    }
    ada.get(&format!("{MEMBERS}?status=banned")).await.expect(200);
    tokio::time::sleep((over - Utc::now()).to_std().unwrap_or_default()).await;
    for path in &threads {
        bob.get(path).await.expect(200);
    }
    let none = json!({
        "banned": false, "banned_until": null, "ban_reason": null, "silenced_until": null, "silence_reason": null,
    });
    assert_eq!(ada.get(&member("bob")).await.expect(200)["sanctions"], none);
    for status in ["banned", "silenced"] {
        let path = format!("{MEMBERS}?status={status}");
        assert_eq!(ada.get(&path).await.expect(200)["items"], json!([]), "{status}");
    }
    forum.stop().await;
}

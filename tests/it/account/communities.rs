//! The communities that an account belongs to, and those that invited it: to itself, and to others.

use std::time::Duration;

use agora_tests::{
    forum::{Person, TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};

const MINE: &str = "/v2/accounts/me/communities";
const BOBS: &str = "/v2/accounts/bob/communities";

fn member(slug: &str, name: &str) -> String {
    format!("/v2/communities/{slug}/members/{name}")
}

async fn join(person: &Person<'_>, slug: &str) {
    person.put(&member(slug, "me"), &json!({})).await.expect(200);
}

/// Invites somebody, who knows of it from now on.
async fn invite(by: &Person<'_>, slug: &str, name: &str, who: &Person<'_>) {
    by.send(Method::PUT, &format!("{}/invitation", member(slug, name)), None, &[]).await.expect(200);
    who.catch_up(by);
}

/// Slugs and what the account is there, as this reader is shown them.
async fn shown(reader: &Person<'_>, path: &str) -> Vec<(String, String)> {
    let items = walk(reader, path, 2).await;
    items.iter().map(|item| (text(&item["community"]["slug"]), text(&item["status"]))).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(slug, status)| ((*slug).to_owned(), (*status).to_owned())).collect()
}

#[tokio::test]
async fn a_person_finds_its_communities_and_who_invited_it() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    assert_eq!(shown(&bob, MINE).await, []);
    forum.community(&ada, "tea").await;
    forum.community_with(&ada, "club", &json!({"visibility": "restricted"})).await;
    let den = forum.community_with(&ada, "den", &json!({"visibility": "private", "name": "The Den"})).await;
    join(&bob, "tea").await;
    for slug in ["club", "den"] {
        invite(&ada, slug, "bob", &bob).await;
    }
    let all = pairs(&[("club", "invited"), ("tea", "member"), ("den", "invited")]);
    for path in [MINE, BOBS, &format!("/v2/accounts/{}/communities", bob.id())] {
        assert_eq!(shown(&bob, path).await, all, "{path}");
    }
    assert_eq!(shown(&bob, &format!("{MINE}?status=member")).await, pairs(&[("tea", "member")]));
    let invitations = format!("{MINE}?status=invited");
    assert_eq!(shown(&bob, &invitations).await, pairs(&[("club", "invited"), ("den", "invited")]));
    let items = bob.get(&invitations).await.expect(200)["items"].take();
    let community = json!({"id": den.id, "slug": "den", "name": "The Den", "visibility": "private"});
    assert_eq!(items[1], json!({"community": community, "status": "invited", "role": null, "joined_at": null}));
    // What it is shown of there is at hand, too.
    assert_eq!(bob.get(&format!("/v2/communities/{}", den.id)).await.expect(200)["mine"]["status"], "invited");

    join(&bob, "den").await;
    bob.delete(&member("club", "me")).await.expect(200);
    assert_eq!(shown(&bob, MINE).await, pairs(&[("tea", "member"), ("den", "member")]));
    assert_eq!(shown(&bob, &invitations).await, []);
    ada.put(&format!("{}/role", member("tea", "bob")), &json!({"role": "moderator"})).await.expect(200);
    let items = bob.get_after(&ada, MINE).await.expect(200)["items"].take();
    assert_eq!((&items[0]["role"], &items[1]["role"]), (&json!("moderator"), &json!("member")));
    assert!(items[0]["joined_at"].is_string());
    let owned = ada.get(MINE).await.expect(200)["items"].take();
    assert_eq!(each(owned.as_array().expect("items"), "/role"), ["owner"; 3]);

    bob.delete(&member("tea", "me")).await.expect(200);
    assert_eq!(shown(&bob, MINE).await, pairs(&[("den", "member")]));
    invite(&ada, "tea", "bob", &bob).await;
    assert_eq!(shown(&bob, MINE).await, pairs(&[("tea", "invited"), ("den", "member")]));
    ada.delete(&member("tea", "bob")).await.expect(200);
    bob.catch_up(&ada);
    assert_eq!(shown(&bob, MINE).await, pairs(&[("den", "member")]), "the invitation was taken back");

    forum.guest().refused(Method::GET, MINE, Value::Null, (401, "unauthenticated")).await;
    bob.refused(Method::GET, "/v2/accounts/nobody/communities", Value::Null, (404, "account-not-found")).await;
    bob.refused(Method::GET, &format!("{MINE}?status=banned"), Value::Null, (400, "malformed-request")).await;
    forum.stop().await;
}

#[tokio::test]
async fn others_see_memberships_where_they_may_see_and_no_invitation() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let (operator, guest) = (forum.operator().await, forum.guest());
    for (slug, visibility) in [("tea", "public"), ("club", "restricted"), ("den", "private"), ("attic", "private")] {
        forum.community_with(&ada, slug, &json!({"visibility": visibility})).await;
    }
    join(&bob, "tea").await;
    for slug in ["den", "attic", "club"] {
        invite(&ada, slug, "bob", &bob).await;
    }
    join(&bob, "den").await;
    let readers = [&ada, &eve, &operator, &guest];
    for reader in readers {
        reader.catch_up(&bob);
    }
    let all = pairs(&[("attic", "invited"), ("club", "invited"), ("den", "member"), ("tea", "member")]);
    let (within, outside) = (pairs(&[("den", "member"), ("tea", "member")]), pairs(&[("tea", "member")]));
    // Whoever makes the answer that is kept, each is given its own.
    for _ in 0..2 {
        assert_eq!(shown(&bob, BOBS).await, all);
        for (reader, expected) in [(&ada, &within), (&eve, &outside), (&operator, &within), (&guest, &outside)] {
            assert_eq!(shown(reader, BOBS).await, *expected);
            assert_eq!(shown(reader, &format!("{BOBS}?status=member")).await, *expected);
        }
    }
    // Ada moderates where he is invited, and lists it there: that is the community's business, this is his.
    let invitations = format!("{BOBS}?status=invited");
    for reader in [&ada, &eve, &operator] {
        reader.refused(Method::GET, &invitations, Value::Null, (403, "not-yourself")).await;
    }
    guest.refused(Method::GET, &invitations, Value::Null, (401, "unauthenticated")).await;
    // Nor does the validator of one's own answer tell others anything.
    let etag = bob.get(BOBS).await.header("etag").expect("an ETag").to_owned();
    assert_eq!(eve.send(Method::GET, BOBS, None, &[("if-none-match", &etag)]).await.status, 200);

    let before = eve.get(BOBS).await.expect(200);
    for (slug, what) in [("tea", "ban"), ("tea", "silence"), ("den", "ban"), ("attic", "ban")] {
        let sanction = json!({"reason": "rude", "until": "2999-01-01T00:00:00Z"});
        ada.put(&format!("{}/{what}", member(slug, "bob")), &sanction).await.expect(200);
    }
    bob.catch_up(&ada);
    eve.catch_up(&ada);
    assert_eq!(eve.get(BOBS).await.expect(200), before, "a sanction is not everybody's business");
    assert_eq!(shown(&ada, BOBS).await, within, "who is banned has not left");
    let own = pairs(&[("club", "invited"), ("tea", "member")]);
    assert_eq!(shown(&bob, BOBS).await, own, "what is private is closed to who is banned, invited or not");
    for slug in ["den", "attic"] {
        ada.delete(&format!("{}/ban", member(slug, "bob"))).await.expect(200);
    }
    bob.catch_up(&ada);
    assert_eq!(shown(&bob, BOBS).await, all);
    forum.stop().await;
}

#[tokio::test]
async fn a_community_that_turns_private_stays_with_its_members_and_who_it_invited() {
    let hour = Duration::from_secs(3_600);
    let forum = TestForum::start_with(|config| config.cache.time_to_live = hour).await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let guest = forum.guest();
    forum.community(&ada, "tea").await;
    join(&bob, "tea").await;
    invite(&ada, "tea", "eve", &eve).await;
    ada.catch_up(&bob);
    let readers = [&bob, &eve, &guest];
    for (visibility, strangers) in [("public", true), ("private", false), ("restricted", true), ("private", false)] {
        ada.patch("/v2/communities/tea", &json!({"visibility": visibility})).await.expect(200);
        for reader in readers {
            reader.catch_up(&ada);
        }
        for (reader, path, status) in
            [(&bob, MINE, Some("member")), (&eve, MINE, Some("invited")), (&eve, BOBS, None), (&guest, BOBS, None)]
        {
            let items = reader.get(path).await.expect(200)["items"].take();
            if status.is_none() && !strangers {
                assert_eq!(items, json!([]), "{visibility}");
                continue;
            }
            let item = &items[0];
            assert_eq!(
                (&item["community"]["visibility"], &item["status"]),
                (&json!(visibility), &json!(status.unwrap_or("member")))
            );
        }
    }
    // With its invitation, eve's way to it is gone.
    ada.delete(&member("tea", "eve")).await.expect(200);
    eve.catch_up(&ada);
    assert_eq!(shown(&eve, MINE).await, []);
    forum.stop().await;
}

#[tokio::test]
async fn what_was_kept_goes_with_each_change_that_a_reader_has_seen() {
    let hour = Duration::from_secs(3_600);
    let forum = TestForum::start_with(|config| config.cache.time_to_live = hour).await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    for slug in ["tea", "mate"] {
        forum.community(&ada, slug).await;
    }
    for _ in 0..3 {
        join(&bob, "tea").await;
        assert_eq!(shown(&bob, MINE).await, pairs(&[("tea", "member")]));
        eve.catch_up(&bob);
        assert_eq!(shown(&eve, BOBS).await, pairs(&[("tea", "member")]));
        bob.delete(&member("tea", "me")).await.expect(200);
        assert_eq!(shown(&bob, MINE).await, []);
        eve.catch_up(&bob);
        assert_eq!(shown(&eve, BOBS).await, []);
    }
    join(&bob, "tea").await;
    join(&bob, "mate").await;
    assert_eq!(shown(&bob, MINE).await, pairs(&[("mate", "member"), ("tea", "member")]));
    ada.patch("/v2/communities/tea", &json!({"name": "Assam", "slug": "assam"})).await.expect(200);
    bob.catch_up(&ada);
    assert_eq!(shown(&bob, MINE).await, pairs(&[("assam", "member"), ("mate", "member")]));
    ada.send(Method::PUT, "/v2/communities/mate/owners/bob", None, &[]).await.expect(200);
    let items = eve.get_after(&ada, BOBS).await.expect(200)["items"].take();
    assert_eq!(items.as_array().map(|items| each(items, "/role")), Some(vec![json!("member"), json!("owner")]));
    // What it reflects is enough for another reader to be shown no less.
    let reflected = bob.get(MINE).await.header("agora-position").expect("what it reflects").to_owned();
    let headers = [("agora-position", &*reflected), ("prefer", "wait=20")];
    let again = eve.elsewhere().send(Method::GET, BOBS, None, &headers).await;
    assert_eq!(again.expect(200)["items"], items);
    forum.stop().await;
}

#[tokio::test]
async fn communities_of_an_account_are_listed_page_by_page_by_name() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let names = ["Zen", "assam", "Mate", "chai", "Assam"];
    for (n, name) in names.iter().enumerate() {
        let slug = format!("c{n}");
        forum.community_with(&ada, &slug, &json!({"name": name, "visibility": "private"})).await;
        invite(&ada, &slug, "bob", &bob).await;
        if n % 2 == 0 {
            join(&bob, &slug).await;
        }
    }
    ada.catch_up(&bob);
    let listed = async |reader: &Person<'_>, query: &str, limit: usize| {
        each(&walk(reader, &format!("{BOBS}{query}"), limit).await, "/community/name")
    };
    for limit in 1..=6 {
        assert_eq!(listed(&bob, "", limit).await, ["assam", "Assam", "chai", "Mate", "Zen"]);
        assert_eq!(listed(&bob, "?status=member", limit).await, ["Assam", "Mate", "Zen"]);
        assert_eq!(listed(&bob, "?status=invited", limit).await, ["assam", "chai"]);
        assert_eq!(listed(&ada, "", limit).await, ["Assam", "Mate", "Zen"]);
    }
    let page = bob.get(&format!("{MINE}?status=member&limit=1")).await;
    let link = page.header("link").expect("links").to_owned();
    let cursor = text(&page.expect(200)["next"]);
    let next = format!("</v2/accounts/{}/communities?status=member&limit=1&cursor={cursor}>; rel=\"next\"", bob.id());
    assert!(link.contains(&next), "{link}");
    let elsewhere = bob.get(&format!("{MINE}?status=invited&cursor={cursor}")).await;
    assert_eq!(elsewhere.expect_problem(400, "malformed-request")["errors"][0]["code"], "foreign_cursor");
    for limit in ["0", "101"] {
        bob.refused(Method::GET, &format!("{MINE}?limit={limit}"), Value::Null, (422, "invalid-value")).await;
    }
    forum.stop().await;
}

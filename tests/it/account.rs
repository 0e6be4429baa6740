//! Accounts: registering, importing, profiles, passwords, and what each of them did.

mod communities;

use agora_tests::{
    counts::assert_counts_hold,
    forum::{TestForum, text},
    pages::{each, walk},
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

fn registration(name: &str) -> Value {
    json!({"username": name, "email": format!("{name}@example.org"), "password": "correct horse"})
}

#[tokio::test]
async fn an_account_is_registered_under_the_id_it_chose() {
    let forum = TestForum::start().await;
    let guest = forum.guest();
    let id = Uuid::now_v7().to_string();
    let mut body = registration("Ada.L");
    body["id"] = json!(id);
    let answer = guest.post("/v2/accounts", &body).await;
    assert_eq!(answer.header("location"), Some(&*format!("/v2/accounts/{id}")));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.expect(201), json!({"id": id, "version": 1, "username": "Ada.L"}));
    for name in [&*id, "Ada.L", "ada.l"] {
        let shown = guest.get(&format!("/v2/accounts/{name}")).await.expect(200);
        assert_eq!(
            (&shown["id"], &shown["display_name"], &shown["imported"]),
            (&json!(id), &json!("Ada.L"), &json!(false))
        );
        assert!(!shown.to_string().contains("example.org"), "an address is shown to nobody");
    }
    guest.refused(Method::GET, "/v2/accounts/me", Value::Null, (401, "unauthenticated")).await;
    guest.refused(Method::GET, "/v2/accounts/bob", Value::Null, (404, "account-not-found")).await;
    let private: i64 = sqlx::query_scalar(
        "select count(*) from events where payload::text || metadata::text ~ 'example.org|correct horse|argon2'",
    )
    .fetch_one(&forum.pool)
    .await
    .expect("a count");
    assert_eq!(private, 0, "neither address nor password is in an event");
    forum.stop().await;
}

#[tokio::test]
async fn names_addresses_and_ids_are_given_once() {
    let forum = TestForum::start().await;
    let (ada, guest) = (forum.person("ada").await, forum.guest());
    let cases = [
        (json!({"username": "ADA"}), "#/username"),
        (json!({"email": "Ada@Example.org"}), "#/email"),
        (json!({"id": ada.id()}), "#/id"),
    ];
    for (same, pointer) in cases {
        let mut body = registration("eve");
        body.as_object_mut().expect("an object").extend(same.as_object().expect("an object").clone());
        let problem = guest.refused(Method::POST, "/v2/accounts", body, (409, "duplicate")).await;
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    guest.post("/v2/accounts", &registration("eve")).await.expect(201);
    forum.stop().await;
}

#[tokio::test]
async fn a_registration_is_repeated_under_its_key_for_who_knows_its_password() {
    let forum = TestForum::start().await;
    let guest = forum.guest();
    let keyed = [("idempotency-key", "1")];
    let post = async |body: &Value| guest.send(Method::POST, "/v2/accounts", Some(body), &keyed).await;
    let ada = registration("ada");
    let first = post(&ada).await.expect(201);
    let again = post(&ada).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(201), first);
    let mut other = ada.clone();
    other["password"] = json!("another horse");
    post(&other).await.expect_problem(422, "idempotency-key-reused");
    other = ada.clone();
    other["display_name"] = json!("Ada");
    post(&other).await.expect_problem(422, "idempotency-key-reused");
    // A stranger who took the same key is not told of ada, nor kept from registering.
    let bob = post(&registration("bob")).await;
    assert_eq!(bob.header("idempotency-replayed"), None);
    assert_ne!(bob.expect(201)["id"], first["id"]);
    // It is no way to guess a password.
    let mut statuses = Vec::new();
    for n in 0..11 {
        let mut guess = ada.clone();
        guess["password"] = json!(format!("guess number {n}"));
        statuses.push(post(&guess).await.status);
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    forum.stop().await;
}

#[tokio::test]
async fn what_breaks_a_rule_is_named_all_at_once() {
    let forum = TestForum::start().await;
    let body = json!({
        "id": Uuid::nil(), "username": "a b", "email": "nowhere", "password": "short", "display_name": "two\nlines",
    });
    let problem = forum.guest().refused(Method::POST, "/v2/accounts", body, (422, "invalid-value")).await;
    let mut errors: Vec<_> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|error| (text(&error["pointer"]), text(&error["code"])))
        .collect();
    errors.sort_unstable();
    let named = [
        ("#/display_name", "control_character"),
        ("#/email", "invalid_email"),
        ("#/id", "not_version_7"),
        ("#/password", "too_short"),
        ("#/username", "wrong_pattern"),
    ];
    assert_eq!(errors, named.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
    forum.stop().await;
}

#[tokio::test]
async fn a_profile_is_changed_by_its_account_and_shown_sanitised() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let patch = json!({
        "display_name": "Ada Lovelace", "about": "I *count* <script>alert(1)</script>", "location": "London",
        "website": "https://example.org",
    });
    let changed = ada.patch("/v2/accounts/me", &patch).await;
    assert_eq!(changed.header("etag"), Some("\"2\""));
    changed.expect(200);
    let again = ada.patch("/v2/accounts/ada", &patch).await;
    assert_eq!((again.status, again.header("agora-unchanged")), (200, Some("true")));
    let shown = ada.get("/v2/accounts/ada").await.expect(200);
    assert_eq!(
        (&shown["about"], &shown["location"], &shown["version"]),
        (&patch["about"], &patch["location"], &json!(2))
    );
    let html = text(&shown["about_html"]);
    assert!(html.contains("<em>count</em>") && !html.contains("<script"), "{html}");

    let cleared = json!({"about": null, "website": null});
    ada.patch("/v2/accounts/ada", &cleared).await.expect(200);
    let shown = ada.get("/v2/accounts/ada").await.expect(200);
    assert_eq!((&shown["about"], &shown["about_html"], &shown["website"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!(shown["location"], "London", "what is absent stays");

    let mine = json!({"display_name": "Bob"});
    bob.refused(Method::PATCH, "/v2/accounts/ada", mine.clone(), (403, "not-yourself")).await;
    bob.refused(Method::PATCH, "/v2/accounts/nobody", mine.clone(), (404, "account-not-found")).await;
    forum.guest().refused(Method::PATCH, "/v2/accounts/ada", mine, (401, "unauthenticated")).await;
    ada.refused(Method::PATCH, "/v2/accounts/ada", json!({"display_name": null}), (400, "malformed-request")).await;
    forum.operator().await.patch("/v2/accounts/ada", &json!({"location": "Paris"})).await.expect(200);
    forum.stop().await;
}

#[tokio::test]
async fn a_password_is_changed_with_the_old_one_and_ends_the_other_sessions() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let change = |current: &str| json!({"current_password": current, "new_password": "battery staple"});
    let path = "/v2/accounts/ada/password";
    let wrong = ada.refused(Method::PUT, path, change("wrong horse"), (422, "wrong-password")).await;
    assert_eq!(wrong["errors"][0]["pointer"], "#/current_password");
    bob.refused(Method::PUT, path, change("correct horse"), (403, "not-yourself")).await;
    let short = json!({"current_password": "correct horse", "new_password": "short"});
    ada.refused(Method::PUT, path, short, (422, "invalid-value")).await;

    let log_in = |password: &str| json!({"login": "ada", "password": password});
    let guest = forum.guest();
    let tokens = guest.post("/v2/sessions", &log_in("correct horse")).await.expect(201);
    let elsewhere = guest.with_token(&text(&tokens["access_token"]));
    let keyed = [("idempotency-key", "change")];
    let body = change("correct horse");
    let changed = ada.send(Method::PUT, path, Some(&body), &keyed).await.expect(200);
    let community = json!({"slug": "x", "name": "X"});
    elsewhere.refused(Method::POST, "/v2/communities", community.clone(), (401, "session-ended")).await;
    ada.post("/v2/communities", &community).await.expect(201);
    let kept = "select count(*) from private_data where kind = 'kept_session'";
    assert_eq!(sqlx::query_scalar::<_, i64>(kept).fetch_one(&forum.pool).await.expect("a count"), 0, "for once only");

    // The answer was lost: it is given again, and to nobody who means another password.
    let again = ada.send(Method::PUT, path, Some(&body), &keyed).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(200), changed);
    let other = json!({"current_password": "correct horse", "new_password": "another one"});
    let other = ada.send(Method::PUT, path, Some(&other), &keyed).await;
    other.expect_problem(422, "idempotency-key-reused");
    guest.refused(Method::POST, "/v2/sessions", log_in("correct horse"), (401, "credentials-refused")).await;
    guest.post("/v2/sessions", &log_in("battery staple")).await.expect(201);
    forum.stop().await;
}

#[tokio::test]
async fn an_operator_imports_accounts_and_acts_for_them_in_the_past() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let old = json!({"username": "old", "about": "From *before*.", "source": "elsewhere/7"});
    ada.refused(Method::POST, "/v2/accounts/import", old.clone(), (403, "operators-only")).await;
    let imported = text(&operator.post("/v2/accounts/import", &old).await.expect(201)["id"]);
    operator.refused(Method::POST, "/v2/accounts/import", old, (409, "duplicate")).await;
    let shown = operator.get("/v2/accounts/old").await.expect(200);
    assert_eq!((&shown["imported"], &shown["about_html"]), (&json!(true), &json!("<p>From <em>before</em>.</p>\n")));
    let log_in = json!({"login": "old", "password": "correct horse"});
    forum.guest().refused(Method::POST, "/v2/sessions", log_in, (401, "credentials-refused")).await;

    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Then").await;
    let path = format!("/v2/threads/{thread}/posts");
    let said = json!({"body": "I was here."});
    let past = "2011-08-17T20:18:56.507Z";
    for (behalf, author) in [(&*imported, json!("old")), ("deleted", Value::Null)] {
        let headers = [("agora-on-behalf-of", behalf), ("agora-occurred-at", past)];
        let written = operator.send(Method::POST, &path, Some(&said), &headers).await.expect(201);
        let post = operator.get(&format!("/v2/posts/{}", text(&written["id"]))).await.expect(200);
        assert_eq!(
            (&post["created_at"], post.pointer("/author/username").unwrap_or(&Value::Null)),
            (&json!(past), &author)
        );
        let refused = ada.send(Method::POST, &path, Some(&said), &headers).await;
        refused.expect_problem(403, "operators-only");
    }
    for (header, value) in [("agora-on-behalf-of", "ada"), ("agora-occurred-at", "2999-01-01T00:00:00Z")] {
        let refused = operator.send(Method::POST, &path, Some(&said), &[(header, value)]).await;
        assert_eq!(refused.expect_problem(400, "malformed-request")["errors"][0]["pointer"], header);
    }
    let nobody = [("agora-on-behalf-of", &*Uuid::now_v7().to_string())];
    operator.send(Method::POST, &path, Some(&said), &nobody).await.expect_problem(422, "unknown-account");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn what_an_account_did_is_listed_page_by_page_without_what_is_gone() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let mut threads = Vec::new();
    for n in 0..4 {
        threads.push(bob.thread(&tea, &format!("Thread {n}")).await);
    }
    let mut replies = Vec::new();
    for n in 0..5 {
        replies.push(bob.reply(&threads[0].0, &format!("Reply {n}")).await);
    }
    bob.delete(&format!("/v2/posts/{}", replies[1])).await.expect(200);
    ada.put(&format!("/v2/posts/{}/hide", replies[3]), &json!({})).await.expect(200);
    ada.delete(&format!("/v2/threads/{}", threads[2].0)).await.expect(200);
    ada.catch_up(&bob);

    let started = walk(&ada, "/v2/accounts/bob/threads", 2).await;
    assert_eq!(each(&started, "/id"), [3, 1, 0].map(|n: usize| json!(threads[n].0)));
    let written = walk(&ada, "/v2/accounts/bob/posts", 2).await;
    let openings = [3, 1, 0].map(|n: usize| &threads[n].1);
    let expected: Vec<_> =
        [4, 2, 0].map(|n: usize| &replies[n]).into_iter().chain(openings).map(|id| json!(id)).collect();
    assert_eq!(each(&written, "/id"), expected);
    assert_eq!(written[0]["community"]["slug"], "tea");
    let card = ada.get("/v2/accounts/bob").await.expect(200);
    assert_eq!((&card["threads"], &card["posts"]), (&json!(3), &json!(6)), "as many as are listed");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

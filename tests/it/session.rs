//! Sessions and the tokens that speak for them.

use std::time::{Duration, Instant};

use agora_tests::forum::{Person, TestForum, text};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode, jwk::JwkSet,
};
use reqwest::Method;
use serde_json::{Value, json};

/// Something that takes an account, and changes nothing.
const GUARDED: &str = "/v2/accounts/me";

async fn log_in(person: &Person<'_>, login: &str) -> Value {
    person.post("/v2/sessions", &json!({"login": login, "password": "correct horse"})).await.expect(201)
}

/// Whether the token is good for a command and for a read; else the problem's status and name.
async fn speaks(forum: &TestForum, token: &str) -> Result<(), (u16, String)> {
    let person = forum.guest().with_token(token);
    let answer = person.patch(GUARDED, &json!({})).await;
    if answer.status == 200 {
        return Ok(());
    }
    assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""), "{answer:?}");
    Err((answer.status, text(&answer.body["type"])))
}

fn refused(name: &str) -> Result<(), (u16, String)> {
    Err((401, format!("/problems/{name}")))
}

#[tokio::test]
async fn a_name_or_an_address_logs_in_and_nothing_tells_which_was_wrong() {
    let forum = TestForum::start().await;
    let (ada, guest) = (forum.person("ada").await, forum.guest());
    for login in ["ada", "ADA", "ada@example.org", "Ada@Example.org"] {
        let tokens = log_in(&guest, login).await;
        assert_eq!((&tokens["account"], &tokens["token_type"]), (&json!(ada.id()), &json!("Bearer")));
        assert_eq!(speaks(&forum, &text(&tokens["access_token"])).await, Ok(()));
    }
    let mut problems = Vec::new();
    for (login, password) in [("ada", "wrong horse"), ("nobody", "correct horse"), ("no@example.org", "correct horse")]
    {
        let body = json!({"login": login, "password": password});
        problems.push(guest.refused(Method::POST, "/v2/sessions", body, (401, "credentials-refused")).await);
    }
    assert!(problems.windows(2).all(|two| two[0] == two[1]), "{problems:#?}");
    let answer = guest.post("/v2/sessions", &json!({"login": "ada", "password": "correct horse"})).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    forum.stop().await;
}

#[tokio::test]
async fn who_guesses_is_stopped() {
    let forum = TestForum::start().await;
    let (_ada, guest) = (forum.person("ada").await, forum.guest());
    let log_in = |login: &str, password: &str| json!({"login": login, "password": password});
    for _ in 0..10 {
        let wrong = log_in("no@example.org", "wrong horse");
        guest.refused(Method::POST, "/v2/sessions", wrong, (401, "credentials-refused")).await;
    }
    let stopped = guest.post("/v2/sessions", &log_in("no@example.org", "correct horse")).await;
    assert!(stopped.header("retry-after").is_some());
    stopped.expect_problem(429, "too-many-attempts");

    // Many at once are not many chances.
    let guesses = (0..40).map(|n| {
        let (guest, wrong) = (&guest, log_in("ada@example.org", &format!("wrong horse {n}")));
        async move { guest.post("/v2/sessions", &wrong).await.status }
    });
    let statuses = futures::future::join_all(guesses).await;
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 30, "{statuses:?}");
    // Whose the address is, that does not tell.
    guest.refused(Method::POST, "/v2/sessions", log_in("ada", "wrong horse"), (401, "credentials-refused")).await;
    forum.stop().await;
}

#[tokio::test]
async fn what_was_refused_for_another_reason_is_no_guess() {
    let forum = TestForum::start().await;
    let (ada, _bob) = (forum.person("ada").await, forum.person("bob").await);
    let change = json!({"current_password": "correct horse", "new_password": "battery staple"});
    for _ in 0..10 {
        let stale = [("if-match", "\"9\"")];
        let answer = ada.send(Method::PUT, "/v2/accounts/ada/password", Some(&change), &stale).await;
        answer.expect_problem(412, "version-mismatch");
        ada.put("/v2/accounts/bob/password", &change).await.expect_status(403);
    }
    log_in(&ada, "ada").await;
    forum.stop().await;
}

#[tokio::test]
async fn a_refresh_token_is_renewed_and_an_answer_may_be_lost() {
    let forum = TestForum::start().await;
    let (_ada, guest) = (forum.person("ada").await, forum.guest());
    let tokens = log_in(&guest, "ada").await;
    let renew = async |token: &Value| guest.post("/v2/sessions/refresh", &json!({"refresh_token": token})).await;
    let first = renew(&tokens["refresh_token"]).await.expect(200);
    assert_ne!(first["refresh_token"], tokens["refresh_token"]);
    assert_eq!(first["session"], tokens["session"]);
    let again = renew(&tokens["refresh_token"]).await.expect(200);
    for good in [&tokens, &first, &again] {
        assert_eq!(speaks(&forum, &text(&good["access_token"])).await, Ok(()));
    }
    for bad in [json!(""), json!("x"), json!("A".repeat(43)), tokens["access_token"].clone()] {
        renew(&bad).await.expect_problem(401, "refresh-token-refused");
    }
    let stored: i64 = sqlx::query_scalar("select count(*) from refresh_tokens t where t::text like '%' || $1 || '%'")
        .bind(text(&first["refresh_token"]))
        .fetch_one(&forum.pool)
        .await
        .expect("a count");
    assert_eq!(stored, 0, "kept hashed only");
    forum.stop().await;
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_whole_family() {
    let forum = TestForum::start_with(|config| config.identity.refresh_reuse = Duration::ZERO).await;
    let (_ada, guest) = (forum.person("ada").await, forum.guest());
    let (tokens, other) = (log_in(&guest, "ada").await, log_in(&guest, "ada").await);
    let renew = async |token: &Value| guest.post("/v2/sessions/refresh", &json!({"refresh_token": token})).await;
    let renewed = renew(&tokens["refresh_token"]).await.expect(200);
    renew(&tokens["refresh_token"]).await.expect_problem(401, "refresh-token-reused");
    renew(&renewed["refresh_token"]).await.expect_problem(401, "refresh-token-refused");
    assert_eq!(speaks(&forum, &text(&renewed["access_token"])).await, refused("session-ended"));
    assert_eq!(speaks(&forum, &text(&other["access_token"])).await, Ok(()), "another log-in is another family");
    forum.stop().await;
}

#[tokio::test]
async fn logging_out_ends_this_session_at_once() {
    let forum = TestForum::start().await;
    let (ada, guest) = (forum.person("ada").await, forum.guest());
    let other = log_in(&guest, "ada").await;
    let here = log_in(&guest, "ada").await;
    let session = guest.with_token(&text(&here["access_token"]));
    let ended = session.delete("/v2/sessions/current").await.expect(200);
    assert_eq!(ended["id"], here["session"]);
    assert_eq!(speaks(&forum, session.token()).await, refused("session-ended"));
    session.refused(Method::DELETE, "/v2/sessions/current", Value::Null, (401, "session-ended")).await;
    let refresh = json!({"refresh_token": here["refresh_token"]});
    guest.refused(Method::POST, "/v2/sessions/refresh", refresh, (401, "refresh-token-refused")).await;
    for token in [ada.token(), &*text(&other["access_token"])] {
        assert_eq!(speaks(&forum, token).await, Ok(()), "the others go on");
    }
    guest.refused(Method::DELETE, "/v2/sessions/current", Value::Null, (401, "unauthenticated")).await;
    forum.stop().await;
}

#[tokio::test]
async fn forged_tokens_are_refused_by_commands_and_reads() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let (kid, seed): (String, Vec<u8>) =
        sqlx::query_as("select kid, seed from signing_keys").fetch_one(&forum.pool).await.expect("the key");
    let claims = claims(ada.token());
    let now = claims["iat"].as_i64().expect("a time");
    let with = |field: &str, value: Value| {
        let mut claims = claims.clone();
        claims[field] = value;
        claims
    };
    let sign = |claims: &Value, seed: &[u8]| signed(claims, &kid, "at+jwt", seed);
    assert_eq!(speaks(&forum, &sign(&claims, &seed)).await, Ok(()), "the forger's tools are good");

    let (head, signature) = (part(ada.token(), 0), part(ada.token(), 2));
    let none = |alg: &str| encoded(&json!({"alg": alg, "typ": "at+jwt", "kid": kid}));
    let expired = with("exp", json!(now - 60));
    let cases = [
        ("no signature at all", format!("{}.{}.", none("none"), encoded(&claims)), "token-refused"),
        ("alg none, signed", format!("{}.{}.{signature}", none("None"), encoded(&claims)), "token-refused"),
        ("alg HS256 by the public key", hmac(&forum, &claims, &kid).await, "token-refused"),
        ("more rights", format!("{head}.{}.{signature}", encoded(&with("operator", json!(true)))), "token-refused"),
        ("another key of that name", sign(&claims, &[7; 32]), "token-refused"),
        ("an unknown key", signed(&claims, "unknown", "at+jwt", &seed), "token-refused"),
        ("another kind of token", signed(&claims, &kid, "JWT", &seed), "token-refused"),
        ("another audience", sign(&with("aud", json!("elsewhere")), &seed), "token-refused"),
        ("another issuer", sign(&with("iss", json!("elsewhere")), &seed), "token-refused"),
        ("not yet", sign(&with("nbf", json!(now + 600)), &seed), "token-refused"),
        ("without an end", sign(&with("exp", Value::Null), &seed), "token-refused"),
        ("expired", sign(&expired, &seed), "token-expired"),
        ("no token", "hello".to_owned(), "token-refused"),
        ("too long", "x".repeat(5_000), "token-refused"),
    ];
    for (what, token, name) in cases {
        assert_eq!(speaks(&forum, &token).await, refused(name), "{what}");
        let reader = forum.guest().with_token(&token);
        reader.get("/v2/communities").await.expect_problem(401, name);
    }
    for header in ["Basic YTpi", "Bearer", ""] {
        let headers = [("authorization", header)];
        let answer = forum.guest().send(Method::GET, "/v2/communities", None, &headers).await;
        answer.expect_problem(401, "unauthenticated");
    }
    forum.stop().await;
}

#[tokio::test]
async fn who_checks_our_tokens_elsewhere_finds_the_public_keys() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let answer = forum.guest().get("/.well-known/jwks.json").await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"));
    let published = answer.expect(200);
    let (kid, public): (String, Vec<u8>) =
        sqlx::query_as("select kid, public_key from signing_keys").fetch_one(&forum.pool).await.expect("the key");
    let x = BASE64_URL_SAFE_NO_PAD.encode(public);
    // The whole of it: what signs, `d` (RFC 8037), is not there.
    let key = json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid, "x": x});
    assert_eq!(published, json!({"keys": [key]}));

    let keys: JwkSet = serde_json::from_value(published).expect("a set of keys");
    let named = decode_header(ada.token()).expect("a header").kid.expect("the key's name");
    let key = DecodingKey::from_jwk(keys.find(&named).expect("the key that signed")).expect("a key");
    let mut wanted = Validation::new(Algorithm::EdDSA);
    wanted.set_audience(&["agora"]);
    let claims = decode::<Value>(ada.token(), &key, &wanted).expect("a token of ours").claims;
    assert_eq!(claims["sub"], ada.id());
    forum.stop().await;
}

fn part(token: &str, index: usize) -> &str {
    token.split('.').nth(index).expect("three parts")
}

fn claims(token: &str) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part(token, 1)).expect("base64url");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn encoded(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// By an Ed25519 key, of which this is the seed.
fn signed(claims: &Value, kid: &str, typ: &str, seed: &[u8]) -> String {
    // What stands before the seed in PKCS#8 (RFC 8410, section 7).
    let mut der = vec![0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
    der.extend(seed);
    let header = Header { typ: Some(typ.to_owned()), kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
    encode(&header, claims, &EncodingKey::from_ed_der(&der)).expect("signs")
}

/// The old confusion: the public key taken for a shared secret.
async fn hmac(forum: &TestForum, claims: &Value, kid: &str) -> String {
    let public: Vec<u8> =
        sqlx::query_scalar("select public_key from signing_keys").fetch_one(&forum.pool).await.expect("the public key");
    let header = Header { typ: Some("at+jwt".to_owned()), kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(&public)).expect("signs")
}

#[tokio::test]
async fn who_logs_in_while_the_password_changes_is_out() {
    let forum = TestForum::start().await;
    let (_ada, guest) = (forum.person("ada").await, forum.guest());
    // A session can be begun only when the change is committed; the old password was found right before.
    let mut change = forum.pool.begin().await.expect("begins");
    sqlx::query("lock table sessions in exclusive mode").execute(&mut *change).await.expect("locked");
    let log_in = guest.refused(
        Method::POST,
        "/v2/sessions",
        json!({"login": "ada", "password": "correct horse"}),
        (401, "credentials-refused"),
    );
    let change = async {
        let waits = "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
            and query like '%insert into sessions%')";
        let deadline = Instant::now() + Duration::from_secs(30);
        while !sqlx::query_scalar::<_, bool>(waits).fetch_one(&forum.pool).await.expect("an answer") {
            assert!(Instant::now() < deadline, "the log-in does not begin its session");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let changed = sqlx::query("update private_data set value = value || 'x' where kind = 'password'");
        changed.execute(&mut *change).await.expect("changed");
        change.commit().await.expect("commits");
    };
    tokio::join!(log_in, change);
    let left = "select count(*) from sessions where ended_at is null";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&forum.pool).await.expect("a count"), 0);
    forum.stop().await;
}

#[tokio::test]
async fn a_log_out_stops_reads_at_once_too() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let me = format!("/v2/accounts/{}", ada.id());
    ada.get(&me).await.expect(200);
    ada.delete("/v2/sessions/current").await.expect(200);
    ada.get(&me).await.expect_problem(401, "session-ended");
    forum.stop().await;
}

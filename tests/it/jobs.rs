//! What the projector does at its time, as it is set up to.

use std::time::Duration;

use agora_tests::forum::TestForum;
use projector::jobs;
use reqwest::Method;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;

/// A cron expression: at each second.
const ALWAYS: &str = "* * * * * *";

/// And one: in years that are long past, never.
const NEVER: &str = "0 0 0 1 1 * 2020";

async fn left(pool: &PgPool, what: &str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.expect("it answers")
}

/// Until there is none: a condition, not a time.
async fn gone(pool: &PgPool, what: &str) {
    let gone = async {
        while left(pool, what).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap_or_else(|_| panic!("still there: {what}"));
}

#[tokio::test]
async fn old_receipts_are_deleted_at_their_time_and_newer_ones_kept() {
    let jobs = jobs::Config {
        expire_receipts: ALWAYS.to_owned(),
        receipts_kept: Duration::from_secs(3600),
        purge_sessions: NEVER.to_owned(),
    };
    let forum = TestForum::start_with(|config| config.jobs = jobs).await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let reply = async |key: &str| {
        let (path, body) = (format!("/v2/threads/{thread}/posts"), json!({"body": key}));
        let reply = ada.send(Method::POST, &path, Some(&body), &[("idempotency-key", key)]).await;
        (reply.header("idempotency-replayed").is_some(), reply.expect(201)["id"].clone())
    };
    let ((_, old), (_, new)) = (reply("old").await, reply("new").await);
    let age = "update receipts set recorded_at = recorded_at - interval '61 minutes' where key = 'old'";
    sqlx::query(age).execute(&forum.pool).await.expect("aged");
    gone(&forum.pool, "select count(*) from receipts where key = 'old'").await;

    assert_eq!(reply("new").await, (true, new), "within its time");
    let (replayed, again) = reply("old").await;
    assert!(!replayed && again != old, "after it, a new command");
    forum.stop().await;
}

#[tokio::test]
async fn what_is_over_of_sessions_is_deleted_at_its_time_and_the_rest_kept() {
    let jobs = jobs::Config {
        expire_receipts: NEVER.to_owned(),
        purge_sessions: ALWAYS.to_owned(),
        ..jobs::Config::default()
    };
    let forum = TestForum::start_with(|config| config.jobs = jobs).await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let (sessions, tokens) = ("select count(*) from sessions", "select count(*) from refresh_tokens");
    assert_eq!((left(&forum.pool, sessions).await, left(&forum.pool, tokens).await), (2, 2));
    let over = "update sessions set expires_at = now() - interval '1 s' where account = $1::uuid";
    sqlx::query(over).bind(bob.id()).execute(&forum.pool).await.expect("aged");
    gone(&forum.pool, "select count(*) from sessions where expires_at < now()").await;
    assert_eq!((left(&forum.pool, sessions).await, left(&forum.pool, tokens).await), (1, 1));
    ada.get(&format!("/v2/accounts/{}", ada.id())).await.expect(200);

    let key_over = "insert into signing_keys (kid, public_key, seed, created_at, retires_at, expires_at)
        select 'old', public_key, seed, now() - interval '3 days', now() - interval '2 days', now() - interval '1 s'
        from signing_keys limit 1";
    sqlx::query(key_over).execute(&forum.pool).await.expect("a key");
    let token_over = "insert into refresh_tokens (token_hash, session, expires_at)
        select sha256('old'), session, now() - interval '1 s' from sessions limit 1";
    sqlx::query(token_over).execute(&forum.pool).await.expect("a token");
    gone(&forum.pool, "select count(*) from signing_keys where kid = 'old'").await;
    gone(&forum.pool, "select count(*) from refresh_tokens where token_hash = sha256('old')").await;
    assert_eq!((left(&forum.pool, sessions).await, left(&forum.pool, tokens).await), (1, 1));
    forum.stop().await;
}

#[tokio::test]
async fn a_schedule_that_is_none_is_refused_by_its_key() {
    let forum = TestForum::start().await;
    for key in ["expire_receipts", "purge_sessions"] {
        let mut jobs = jobs::Config::default();
        match key {
            "expire_receipts" => jobs.expire_receipts = "hourly".to_owned(),
            _ => jobs.purge_sessions = "hourly".to_owned(),
        }
        let config = agora::config::Config { jobs, ..forum.config.clone() };
        let (health, shutdown, tasks) = Default::default();
        let started = agora::stack::start(&config, &forum.broker, &health, &shutdown, &tasks).await;
        let said = format!("{:#}", started.map(|_| ()).expect_err("refused"));
        assert!(said.contains(&format!("`jobs.{key}` is \"hourly\"")), "{said}");
        shutdown.cancel();
    }
    forum.stop().await;
}

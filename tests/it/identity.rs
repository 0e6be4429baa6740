//! Sessions, tokens and keys over a real database, as two instances of a service see them.

use std::{pin::pin, task::Poll, time::Duration};

use agora_tests::postgres;
use futures::poll;
use platform::{
    db::{self, DatabaseConfig},
    identity::{self, Authenticator, Identities, IdentityConfig, PasswordConfig, RefreshError, TokenError, Verifier},
    limits::REFRESH_TOKEN_USES,
};
use sqlx::PgPool;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

async fn fresh_store() -> PgPool {
    let config = DatabaseConfig { url: postgres::fresh_database().await.into(), ..DatabaseConfig::default() };
    db::connect(&config, "store", "test").await.expect("it answers")
}

/// What one process of a service has of identity; it ends with this.
struct Instance {
    identities: Identities,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Instance {
    async fn start(pool: &PgPool) -> Self {
        Self::start_with(pool, &config()).await
    }

    async fn start_with(pool: &PgPool, config: &IdentityConfig) -> Self {
        let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
        let identities = Identities::start(pool.clone(), config, shutdown.clone(), &tasks).await.expect("it starts");
        Self { identities, tasks, shutdown }
    }

    async fn check(&self, token: &str) -> Result<Uuid, TokenError> {
        self.identities.verifier().authenticate(token).await.map(|identity| identity.account)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.tasks.close();
    }
}

fn config() -> IdentityConfig {
    let password = PasswordConfig { memory_kib: 8, iterations: 1, ..PasswordConfig::default() };
    IdentityConfig { password, ..IdentityConfig::default() }
}

async fn count(pool: &PgPool, table: &str) -> i64 {
    sqlx::query_scalar(&format!("select count(*) from {table}")).fetch_one(pool).await.expect("counted")
}

#[tokio::test]
async fn what_one_instance_issues_the_others_take() {
    let pool = fresh_store().await;
    let (one, two) = tokio::join!(Instance::start(&pool), Instance::start(&pool));
    assert_eq!(count(&pool, "signing_keys").await, 1, "instances that start together make one key");
    let ada = Uuid::now_v7();
    let tokens = one.identities.issue(ada).await.expect("issued");
    assert_eq!(tokens.expires_in, 900);
    assert_eq!(one.check(&tokens.access_token).await, Ok(ada));
    assert_eq!(two.check(&tokens.access_token).await, Ok(ada));
}

#[tokio::test]
async fn a_key_made_meanwhile_is_looked_up() {
    let pool = fresh_store().await;
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    // It starts before there is any key, as a query service may.
    let early = Verifier::start(pool.clone(), &config(), shutdown.clone(), &tasks).await.expect("it starts");
    let instance = Instance::start(&pool).await;
    let ada = Uuid::now_v7();
    let tokens = instance.identities.issue(ada).await.expect("issued");
    assert_eq!(early.authenticate(&tokens.access_token).await.map(|who| who.account), Ok(ada));
    shutdown.cancel();
}

#[tokio::test]
async fn a_new_key_signs_and_the_old_one_still_verifies() {
    let pool = fresh_store().await;
    let before = Instance::start(&pool).await;
    let ada = Uuid::now_v7();
    let old = before.identities.issue(ada).await.expect("issued");
    sqlx::query(
        "update signing_keys set created_at = now() - interval '31 days', retires_at = now() - interval '1 day'",
    )
    .execute(&pool)
    .await
    .expect("aged");
    let after = Instance::start(&pool).await;
    assert_eq!(count(&pool, "signing_keys").await, 2);
    let new = after.identities.issue(ada).await.expect("issued");
    assert_eq!(after.check(&old.access_token).await, Ok(ada));
    assert_eq!(after.check(&new.access_token).await, Ok(ada));
}

#[tokio::test]
async fn a_refresh_token_may_be_used_again_while_its_answer_may_be_lost() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let ada = Uuid::now_v7();
    let first = instance.identities.issue(ada).await.expect("issued");
    let lost = instance.identities.refresh(&first.refresh_token).await.expect("renewed");
    let again = instance.identities.refresh(&first.refresh_token).await.expect("renewed again");
    assert_eq!((lost.session, again.session, again.account), (first.session, first.session, ada));
    for tokens in [&lost, &again] {
        assert_eq!(instance.check(&tokens.access_token).await, Ok(ada));
        instance.identities.refresh(&tokens.refresh_token).await.expect("both go on");
    }
}

#[tokio::test]
async fn a_refresh_token_used_twice_ends_its_family() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let ada = Uuid::now_v7();
    let (first, other) = (instance.identities.issue(ada).await, instance.identities.issue(ada).await);
    let (first, other) = (first.expect("issued"), other.expect("issued"));
    let second = instance.identities.refresh(&first.refresh_token).await.expect("renewed");
    sqlx::query("update refresh_tokens set used_at = now() - interval '11 s' where used_at is not null")
        .execute(&pool)
        .await
        .expect("aged");
    let stolen = instance.identities.refresh(&first.refresh_token).await;
    assert!(matches!(stolen, Err(RefreshError::Reused)));
    let thief = instance.identities.refresh(&second.refresh_token).await;
    assert!(matches!(thief, Err(RefreshError::Refused)));
    assert_eq!(instance.check(&second.access_token).await, Err(TokenError::SessionEnded));
    assert_eq!(instance.check(&other.access_token).await, Ok(ada), "another log-in goes on");
}

#[tokio::test]
async fn being_used_again_makes_a_token_no_younger_and_its_session_longer() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let first = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    let aged = "update sessions set expires_at = expires_at - interval '29 days'";
    sqlx::query(aged).execute(&pool).await.expect("aged");
    instance.identities.refresh(&first.refresh_token).await.expect("renewed");
    assert!(holds(&pool, "(select expires_at > now() + interval '29 days' from sessions)").await, "it goes on");
    let aged = "update refresh_tokens set used_at = now() - interval '6 s' where used_at is not null";
    sqlx::query(aged).execute(&pool).await.expect("aged");
    instance.identities.refresh(&first.refresh_token).await.expect("its answer may have been lost");
    let counted = "(select used_at < now() - interval '5 s' from refresh_tokens where uses = 2)";
    assert!(holds(&pool, counted).await, "from its first use");
}

#[tokio::test]
async fn a_refresh_token_used_too_often_ends_its_family() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let first = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    for _ in 0..REFRESH_TOKEN_USES {
        instance.identities.refresh(&first.refresh_token).await.expect("its answer may have been lost");
    }
    assert!(matches!(instance.identities.refresh(&first.refresh_token).await, Err(RefreshError::Reused)));
    assert_eq!(instance.check(&first.access_token).await, Err(TokenError::SessionEnded));
}

#[tokio::test]
async fn what_is_over_is_refused_and_ends_nothing() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let first = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    let second = instance.identities.refresh(&first.refresh_token).await.expect("renewed");
    let spent =
        "update refresh_tokens set used_at = now() - interval '11 s', expires_at = now() where used_at is not null";
    sqlx::query(spent).execute(&pool).await.expect("aged");
    assert!(matches!(instance.identities.refresh(&first.refresh_token).await, Err(RefreshError::Refused)));
    assert_eq!(count(&pool, "refresh_tokens").await, 2, "a refusal puts no token beside it");
    instance.identities.refresh(&second.refresh_token).await.expect("the session goes on");
}

/// A changed password ends sessions while every append waits: nobody may hold one for as long as a process likes.
#[tokio::test]
async fn a_refresh_that_freezes_anywhere_holds_no_lock() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let first = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    // Seen from a pool of its own: the server's sessions are another's, whatever ours are doing.
    let observer = PgPool::connect_with(pool.connect_options().as_ref().clone()).await.expect("connects");
    let mut refresh = pin!(instance.identities.refresh(&first.refresh_token));
    loop {
        // It goes on only here: in between it is frozen, and the server has answered all that it was sent.
        if let Poll::Ready(renewed) = poll!(refresh.as_mut()) {
            renewed.expect("renewed");
            return;
        }
        until(&observer, "not exists (select from pg_stat_activity where state = 'active' and {others})").await;
        let open = "exists (select from pg_stat_activity where state like 'idle in transaction%' and {others})";
        assert!(!holds(&observer, open).await, "it froze in a transaction");
    }
}

#[tokio::test]
async fn a_refresh_and_a_purge_of_one_session_do_not_lock_each_other_out() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let tokens = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    sqlx::query("update sessions set expires_at = now() - interval '1 s'").execute(&pool).await.expect("aged");
    // The refresh waits for the token with all that it locks before it; only then the purge begins.
    let mut holder = pool.begin().await.expect("begins");
    sqlx::query("select from refresh_tokens for update").execute(&mut *holder).await.expect("locked");
    let refresh = instance.identities.refresh(&tokens.refresh_token);
    let others = async {
        until(&pool, "exists (select from pg_stat_activity where wait_event_type = 'Lock' and {others})").await;
        let purge = tokio::spawn({
            let pool = pool.clone();
            async move { identity::purge_expired(&pool).await }
        });
        let waits = "2 = (select count(*) from pg_stat_activity where wait_event_type = 'Lock' and {others})";
        // Either is well: that it waits too, or that it is through.
        while !purge.is_finished() && !holds(&pool, waits).await {
            tokio::task::yield_now().await;
        }
        holder.commit().await.expect("commits");
        purge.await.expect("ends").expect("purged");
    };
    let (refreshed, ()) = tokio::join!(refresh, others);
    assert!(matches!(refreshed, Err(RefreshError::Refused)), "{:?}", refreshed.err());
    identity::purge_expired(&pool).await.expect("purged");
    assert_eq!((count(&pool, "sessions").await, count(&pool, "refresh_tokens").await), (0, 0));
}

/// Whether the condition holds; `{others}` are the server's other sessions in this database.
async fn holds(pool: &PgPool, condition: &str) -> bool {
    let condition = condition.replace("{others}", "datname = current_database() and pid <> pg_backend_pid()");
    sqlx::query_scalar(&format!("select {condition}")).fetch_one(pool).await.expect("an answer")
}

/// Until the condition holds.
async fn until(pool: &PgPool, condition: &str) {
    let reached = async {
        while !holds(pool, condition).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("within ten seconds");
}

#[tokio::test]
async fn two_who_refresh_at_once_both_get_working_tokens() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let first = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    let (one, two) = tokio::join!(
        instance.identities.refresh(&first.refresh_token),
        instance.identities.refresh(&first.refresh_token)
    );
    for tokens in [one, two] {
        instance.identities.refresh(&tokens.expect("renewed").refresh_token).await.expect("renewed once more");
    }
}

#[tokio::test]
async fn refresh_tokens_that_are_none_or_over_are_refused() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let tokens = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    sqlx::query("update refresh_tokens set expires_at = now()").execute(&pool).await.expect("aged");
    for token in ["", "hello", &"A".repeat(43), &tokens.refresh_token, &tokens.access_token] {
        assert!(matches!(instance.identities.refresh(token).await, Err(RefreshError::Refused)), "{token}");
    }
}

#[tokio::test]
async fn no_token_is_stored_as_it_is() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let tokens = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    let stored: Vec<String> =
        sqlx::query_scalar("select t::text from refresh_tokens t union all select s::text from sessions s")
            .fetch_all(&pool)
            .await
            .expect("read");
    assert_eq!(stored.len(), 2);
    assert!(!stored.join(" ").contains(&tokens.refresh_token));
}

#[tokio::test]
async fn an_ended_session_is_over_here_at_once_and_elsewhere_within_a_second() {
    let pool = fresh_store().await;
    let (here, elsewhere) = (Instance::start(&pool).await, Instance::start(&pool).await);
    let ada = Uuid::now_v7();
    let tokens = here.identities.issue(ada).await.expect("issued");
    assert_eq!(elsewhere.check(&tokens.access_token).await, Ok(ada), "remembered there");
    here.identities.end(tokens.session).await.expect("ended");
    assert_eq!(here.check(&tokens.access_token).await, Err(TokenError::SessionEnded));
    let learned = async {
        while elsewhere.check(&tokens.access_token).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), learned).await.expect("within a second");
    assert_eq!(elsewhere.check(&tokens.access_token).await, Err(TokenError::SessionEnded));
    let late = Instance::start(&pool).await;
    assert_eq!(late.check(&tokens.access_token).await, Err(TokenError::SessionEnded));
    assert!(matches!(here.identities.refresh(&tokens.refresh_token).await, Err(RefreshError::Refused)));
}

#[tokio::test]
async fn sessions_that_the_database_ended_are_learned_of_at_once() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let (ada, eve) = (Uuid::now_v7(), Uuid::now_v7());
    let mut tokens = Vec::new();
    for account in [ada, ada, eve] {
        tokens.push(instance.identities.issue(account).await.expect("issued"));
    }
    let ended = sqlx::query("update sessions set ended_at = clock_timestamp() where account = $1").bind(ada);
    assert_eq!(ended.execute(&pool).await.expect("ended").rows_affected(), 2);
    instance.identities.learn_of_endings().await.expect("learned");
    assert_eq!(instance.check(&tokens[1].access_token).await, Err(TokenError::SessionEnded));
    assert_eq!(instance.check(&tokens[2].access_token).await, Ok(eve));
}

#[tokio::test]
async fn an_operators_next_token_says_so() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let ada = Uuid::now_v7();
    let verifier = instance.identities.verifier();
    let tokens = instance.identities.issue(ada).await.expect("issued");
    assert!(!verifier.authenticate(&tokens.access_token).await.expect("good").operator);
    assert!(identity::add_operator(&pool, ada).await.expect("added"));
    assert!(!identity::add_operator(&pool, ada).await.expect("there already"));
    assert_eq!(identity::operators(&pool).await.expect("read"), [ada]);
    let tokens = instance.identities.refresh(&tokens.refresh_token).await.expect("renewed");
    assert!(verifier.authenticate(&tokens.access_token).await.expect("good").operator);
    assert!(identity::remove_operator(&pool, ada).await.expect("removed"));
    let tokens = instance.identities.refresh(&tokens.refresh_token).await.expect("renewed");
    assert!(!verifier.authenticate(&tokens.access_token).await.expect("good").operator);
}

#[tokio::test]
async fn a_local_command_mints_an_operators_token() {
    let pool = fresh_store().await;
    let ada = Uuid::now_v7();
    let token = identity::mint_operator(&pool, &config(), ada, Duration::from_secs(60)).await.expect("minted");
    let instance = Instance::start(&pool).await;
    let who = instance.identities.verifier().authenticate(&token).await.expect("good");
    assert_eq!((who.account, who.operator), (ada, true));
}

#[tokio::test]
async fn what_is_over_is_deleted() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    for _ in 0..3 {
        instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    }
    assert_eq!(identity::purge_expired(&pool).await.expect("purged"), 0);
    sqlx::query("update sessions set expires_at = now() - interval '1 s' where session in (select session from sessions limit 2)")
        .execute(&pool)
        .await
        .expect("aged");
    assert_eq!(identity::purge_expired(&pool).await.expect("purged"), 2);
    assert_eq!((count(&pool, "sessions").await, count(&pool, "refresh_tokens").await), (1, 1));
}

#[tokio::test]
async fn a_database_that_is_away_is_a_failure_not_a_refusal() {
    let pool = fresh_store().await;
    let instance = Instance::start(&pool).await;
    let tokens = instance.identities.issue(Uuid::now_v7()).await.expect("issued");
    pool.close().await;
    assert!(matches!(instance.identities.refresh(&tokens.refresh_token).await, Err(RefreshError::Failed(_))));
    assert!(instance.check(&tokens.access_token).await.is_ok(), "what is known needs no database");
}

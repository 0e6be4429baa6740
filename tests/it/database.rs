//! Bringing a database up to date, and refusing one that is not ours to change.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use agora::stack;
use agora_tests::{counts::assert_counts_hold, forum::TestForum, postgres::empty_database};
use platform::db::{self, Connections, DatabaseConfig, Lent};
use serde_json::{Value, json};
use sqlx::{
    PgPool,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};

fn migrator(statements: &[&'static str]) -> Migrator {
    let migrations = statements.iter().enumerate().map(|(index, &sql)| {
        let version = i64::try_from(index).expect("few") + 1;
        Migration::new(version, Cow::Borrowed("m"), MigrationType::Simple, Cow::Borrowed(sql), false)
    });
    Migrator { migrations: Cow::Owned(migrations.collect()), ..Migrator::DEFAULT }
}

fn config(url: String) -> DatabaseConfig {
    DatabaseConfig { url: url.into(), ..DatabaseConfig::default() }
}

const ONE: &str = "create table one (a int)";
const TWO: &str = "create table two (b int)";

#[tokio::test]
async fn a_schema_is_made_once_whoever_comes_first() {
    let config = config(empty_database().await);
    let pool = db::connect(&config, "store", "test").await.expect("connected");
    let all = migrator(&[ONE, TWO]);
    let (a, b, c) = tokio::join!(
        db::migrate(&pool, "store", &all),
        db::migrate(&pool, "store", &all),
        db::migrate(&pool, "store", &all)
    );
    for outcome in [a, b, c] {
        outcome.expect("migrated");
    }
    let count: i64 = sqlx::query_scalar("select count(*) from store.two").fetch_one(&pool).await.expect("it is there");
    assert_eq!(count, 0);
    db::migrate(&pool, "store", &all).await.expect("nothing to do");
}

#[tokio::test]
async fn two_schemas_of_one_database_go_their_own_ways() {
    let config = config(empty_database().await);
    for (schema, statements) in [("store", [ONE]), ("read", [TWO])] {
        let pool = db::connect(&config, schema, "test").await.expect("connected");
        db::migrate(&pool, schema, &migrator(&statements)).await.expect("migrated");
        let path: String = sqlx::query_scalar("select current_schema()::text").fetch_one(&pool).await.expect("set");
        assert_eq!(path, schema);
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let config = config(empty_database().await);
    let pool = db::connect(&config, "store", "test").await.expect("connected");
    db::migrate(&pool, "store", &migrator(&[ONE, TWO])).await.expect("migrated");
    let error = db::migrate(&pool, "store", &migrator(&[ONE])).await.expect_err("it is newer");
    assert!(
        error.to_string().contains("newer than this release: it has migration 2, the newest known here is 1"),
        "{error}"
    );
    let error = db::migrate(&pool, "store", &migrator(&[TWO, TWO])).await.expect_err("it is another");
    assert!(error.to_string().contains("made by another build: its migration 1"), "{error}");
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let config = config(empty_database().await);
    let pool = db::connect(&config, "store", "test").await.expect("connected");
    let broken = migrator(&[ONE, "create table half (a int); create table half (a int)"]);
    let error = db::migrate(&pool, "store", &broken).await.expect_err("it fails");
    assert!(format!("{error:#}").contains("cannot migrate the schema `store`"), "{error:#}");
    let half: Option<String> =
        sqlx::query_scalar("select to_regclass('store.half')::text").fetch_one(&pool).await.expect("asked");
    assert_eq!(half, None);
    db::migrate(&pool, "store", &migrator(&[ONE, TWO])).await.expect("the mended one goes on");
}

#[tokio::test]
async fn connections_are_set_up_so_that_none_holds_others_up() {
    let config = config(empty_database().await);
    let pool = db::connect_with(&config, "store", "test", &[("enable_seqscan", "off")]).await.expect("connected");
    let expected = [
        ("application_name", "test"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
        ("statement_timeout", "15s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("synchronous_commit", "on"),
        ("enable_seqscan", "off"),
        ("client_connection_check_interval", "2s"),
    ];
    for (parameter, value) in expected {
        let set: String =
            sqlx::query_scalar("select current_setting($1)").bind(parameter).fetch_one(&pool).await.expect("asked");
        assert_eq!(set, value, "{parameter}");
    }
}

#[tokio::test]
async fn a_service_starts_only_on_the_schema_that_it_knows() {
    let config = config(empty_database().await);
    let pool = db::connect(&config, "store", "test").await.expect("connected");
    let (one, both) = (migrator(&[ONE]), migrator(&[ONE, TWO]));
    let refused = async |migrator: &Migrator| {
        let refused = db::require(&pool, "store", migrator).await.expect_err("not as it is known");
        refused.to_string()
    };
    assert!(refused(&one).await.contains("0 of 1 migrations. Run `agora migrate`"));
    db::migrate(&pool, "store", &one).await.expect("migrated");
    db::require(&pool, "store", &one).await.expect("as it is known");
    assert!(refused(&both).await.contains("is older than this release: it has 1 of 2"));
    db::migrate(&pool, "store", &both).await.expect("migrated");
    assert!(refused(&one).await.contains("is newer than this release: it has migration 2"));
}

#[tokio::test]
async fn readiness_follows_the_database() {
    let forum = TestForum::start().await;
    let guest = forum.guest();
    guest.get("/health/ready").await.expect(200);
    let options: PgConnectOptions = forum.database_url.parse().expect("a URL");
    let name = options.get_database().expect("a name").to_owned();
    let server = PgPool::connect_with(options.database("postgres")).await.expect("connects");
    let ready = async |status: u16| {
        let patience = Instant::now() + Duration::from_secs(30);
        while guest.get("/health/ready").await.status != status {
            assert!(Instant::now() < patience, "it is not {status}");
        }
    };
    let accept = async |connections: bool| {
        let accept = format!("alter database \"{name}\" with allow_connections {connections}");
        sqlx::query(&accept).execute(&server).await.expect("altered");
    };
    accept(false).await;
    let cut = sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where datname = $1").bind(&name);
    cut.execute(&server).await.expect("cut");
    ready(503).await;
    accept(true).await;
    ready(200).await;
    forum.stop().await;
}

/// Read tables as an old release left them, in what `0003` and later ones change: columns away, counts as they were
/// counted then.
const AS_BEFORE_0003: &str = "
    alter table read.checkpoint drop column built, drop column version;
    drop table read.tag_count;
    drop index read.thread_answered, read.thread_unanswered, read.post_by_author, read.thread_by_author;
    create index post_by_author on read.post (author_id, created_at desc, post_id desc);
    create index thread_by_author on read.thread (author_id, created_at desc, thread_id desc);
    alter table read.post drop column children;
    alter table read.thread drop column accepted_id, drop column deleted_by;
    drop index read.thread_deleted, read.member_invited, read.member_banned, read.member_silenced;
    delete from read._sqlx_migrations where version >= 3;
    update read.post p set replies = (select count(*) from read.post c where c.parent_id = p.post_id);
    update read.thread t set answer_id = (select p.post_id from read.post p where p.deleted limit 1)";

#[tokio::test]
async fn read_tables_of_an_older_release_are_right_after_their_migration() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Question").await;
    let answer = ada.reply(&thread, "Answer").await;
    let path = format!("/v2/threads/{thread}/answer");
    ada.put(&path, &json!({"post_id": answer})).await.expect(200);
    ada.delete(&format!("/v2/posts/{answer}")).await.expect(200);
    assert_counts_hold(&forum).await;
    let (url, config) = (forum.database_url.clone(), forum.config.clone());
    let pool = forum.pool.clone();
    forum.stop().await;
    sqlx::raw_sql(AS_BEFORE_0003).execute(&pool).await.expect("as it was");
    stack::migrate(&config).await.expect("migrated");
    let forum = TestForum::start_on(url, |_| {}).await;
    assert_counts_hold(&forum).await;
    let guest = forum.guest();
    assert_eq!(guest.get(&format!("/v2/posts/{opening}")).await.expect(200)["replies"], 0);
    assert_eq!(guest.get(&format!("/v2/threads/{thread}")).await.expect(200)["answer_id"], Value::Null);
    forum.stop().await;
}

#[tokio::test]
async fn a_connection_comes_back_only_from_who_read_its_answer_and_no_more_are_made_than_allowed() {
    async fn backend(connection: &mut Lent<'_>) -> i32 {
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **connection).await.expect("answers")
    }
    let patience = Duration::from_millis(200);
    let config = DatabaseConfig { acquire_timeout: patience, ..config(empty_database().await) };
    let pool = db::connect(&config, "public", "test").await.expect("connected");
    let connections = Connections::like(&pool, 1);
    let mut connection = connections.take().await.expect("there is room");
    let first = backend(&mut connection).await;
    let began = Instant::now();
    assert!(matches!(connections.take().await, Err(sqlx::Error::PoolTimedOut)), "there is only one");
    assert!(began.elapsed() >= patience);
    connection.give_back();
    let mut connection = connections.take().await.expect("it came back");
    assert_eq!(backend(&mut connection).await, first);
    // Given up in the middle of an answer.
    let slow = sqlx::query("select pg_sleep(60)").execute(&mut *connection);
    assert!(tokio::time::timeout(Duration::from_millis(50), slow).await.is_err());
    drop(connection);
    let mut connection = connections.take().await.expect("there is room");
    let second = backend(&mut connection).await;
    assert_ne!(second, first);
    connection.give_back();
    // Its server ended it while it lay there.
    sqlx::query("select pg_terminate_backend($1)").bind(second).execute(&pool).await.expect("ended");
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut connection = connections.take().await.expect("another one");
    assert_ne!(backend(&mut connection).await, second);
}

//! Our streams as `cqrs-es` and `postgres-es` know streams, and the defects of their 0.5 releases that are not ours.

use std::collections::HashMap;

use agora_tests::{forum::TestForum, store::pool};
use command_service::{
    account::{Account, AccountCommand, ChangeProfile, Register},
    store::{AppenderConfig, Store, StoreError},
};
use cqrs_es::{
    Aggregate as _, AggregateContext as _, AggregateError, CqrsFramework, EventStore,
    persist::{EventUpcaster, PersistedEventRepository, SerializedEvent},
};
use events::{
    AccountEvent, AccountId,
    account::{Profile, ProfileChanged},
};
use postgres_es::PostgresEventRepository;
use serde_json::json;
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

/// A store on a database of its own.
async fn store() -> (Store, PgPool) {
    let pool = pool(10).await;
    (Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new()), pool)
}

fn named(display_name: &str) -> Profile {
    Profile { display_name: display_name.to_owned(), ..Profile::default() }
}

fn register() -> AccountCommand {
    Register { username: "ada".to_owned(), profile: named("Ada") }.into()
}

fn rename(display_name: &str) -> AccountCommand {
    ChangeProfile { profile: named(display_name) }.into()
}

/// The events of a stream as `postgres-es` reads them, in each of its ways, which agree.
async fn read(repository: &PostgresEventRepository, id: &str) -> Vec<SerializedEvent> {
    let all = repository.get_events::<Account>(id).await.expect("reads");
    let last = repository.get_last_events::<Account>(id, 1).await.expect("reads");
    assert_eq!(last, all[1..], "those after the first");
    all
}

/// Their events carry their name in the payload, ours beside it.
struct Tagged;

impl EventUpcaster for Tagged {
    fn can_upcast(&self, _: &str, _: &str) -> bool {
        true
    }

    fn upcast(&self, event: SerializedEvent) -> SerializedEvent {
        let payload = json!({ &event.event_type: event.payload });
        SerializedEvent { payload, ..event }
    }
}

#[tokio::test]
async fn a_stream_of_ours_is_one_of_theirs() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    ada.patch("/v2/accounts/me", &json!({"location": "London"})).await.expect(200);
    ada.patch("/v2/accounts/me", &json!({"location": "Paris"})).await.expect(200);
    let repository = PostgresEventRepository::new(forum.pool.clone());
    let events = read(&repository, ada.id()).await;
    let shown: Vec<_> =
        events.iter().map(|event| (event.sequence, &*event.event_type, &*event.event_version)).collect();
    assert_eq!(
        shown,
        [(1, "account.registered", "1"), (2, "account.profile_changed", "1"), (3, "account.profile_changed", "1")]
    );
    assert!(events.iter().all(|event| event.aggregate_type == Account::TYPE && event.aggregate_id == ada.id()));
    let metadata: Vec<HashMap<String, String>> =
        events.iter().map(|event| serde_json::from_value(event.metadata.clone()).expect("text by text")).collect();
    assert_eq!(metadata[0]["actor"], ada.id());

    let upcasters: [Box<dyn EventUpcaster>; 1] = [Box::new(Tagged)];
    let mut stream = repository.stream_events::<Account>(ada.id()).await.expect("a stream");
    let (mut account, mut streamed) = (Account::default(), 0);
    while let Some(event) = stream.next::<Account>(&upcasters).await {
        let event = event.expect("an event of accounts");
        streamed += 1;
        assert_eq!(event.sequence, streamed);
        account.apply(event.payload);
    }
    assert_eq!(account.profile.location.as_deref(), Some("Paris"));
    assert_eq!(streamed, 3);
    forum.stop().await;
}

#[tokio::test]
async fn the_framework_commits_through_our_store_and_applies_each_event_once() {
    let (store, pool) = store().await;
    let framework = CqrsFramework::<Account, _>::new(store.clone(), Vec::new(), ());
    let id = AccountId::new().to_string();
    framework.execute(&id, register()).await.expect("registers");
    framework.execute(&id, rename("Lovelace")).await.expect("renames");
    framework.execute(&id, rename("Lovelace")).await.expect("is no fact");
    let events = EventStore::<Account>::load_events(&store, &id).await.expect("loads");
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
    let mut once = Account::default();
    for event in events {
        once.apply(event.payload);
    }
    let mut context = EventStore::<Account>::load_aggregate(&store, &id).await.expect("loads");
    assert_eq!(*context.aggregate(), once);
    let refused = framework.execute(&id, register()).await.expect_err("it is there already");
    assert!(matches!(refused, AggregateError::UserError(_)), "{refused}");
    read(&PostgresEventRepository::new(pool), &id).await;
}

#[tokio::test]
async fn several_events_are_one_append_and_a_conflict_writes_none_of_them() {
    let (store, pool) = store().await;
    let id = AccountId::new().to_string();
    let context = async || EventStore::<Account>::load_aggregate(&store, &id).await.expect("loads");
    let facts = |count: usize| -> Vec<AccountEvent> {
        (0..count).map(|n| AccountEvent::ProfileChanged(ProfileChanged { profile: named(&n.to_string()) })).collect()
    };
    let (first, late) = (context().await, context().await);
    sqlx::raw_sql(
        "create sequence inserts;
        create function counted() returns trigger language plpgsql as 'begin perform nextval(''inserts''); return null; end';
        create trigger counted after insert on events for each statement execute function counted()",
    )
    .execute(&pool)
    .await
    .expect("they are counted");
    let committed = store.commit(facts(50), first, HashMap::new()).await.expect("commits");
    assert_eq!(committed.len(), 50);
    let inserts: i64 = sqlx::query_scalar("select last_value from inserts").fetch_one(&pool).await.expect("a count");
    assert_eq!(inserts, 1, "one statement for all of them");
    let transactions: i64 =
        sqlx::query_scalar("select count(distinct xmin::text) from events").fetch_one(&pool).await.expect("a count");
    assert_eq!(transactions, 1, "one append");
    let conflict = store.commit(facts(2), late, HashMap::new()).await.expect_err("others were first");
    assert!(matches!(conflict, AggregateError::AggregateConflict), "{conflict}");
    let all: i64 = sqlx::query_scalar("select count(*) from events").fetch_one(&pool).await.expect("a count");
    assert_eq!(all, 50);
}

#[tokio::test]
async fn another_constraint_is_no_version_conflict() {
    let (store, pool) = store().await;
    let (one, other) = (AccountId::new().to_string(), AccountId::new().to_string());
    let fact = || vec![AccountEvent::ProfileChanged(ProfileChanged { profile: named("x") })];
    let context = EventStore::<Account>::load_aggregate(&store, &one).await.expect("loads");
    store.commit(fact(), context, HashMap::new()).await.expect("commits");
    // Any unique index but the stream's key.
    sqlx::query("create unique index payload_once on events ((payload::text))").execute(&pool).await.expect("an index");
    let context = EventStore::<Account>::load_aggregate(&store, &other).await.expect("loads");
    let refused = store.commit(fact(), context, HashMap::new()).await.expect_err("refused");
    assert!(matches!(refused, AggregateError::UnexpectedError(_)), "{refused}");
    assert!(refused.to_string().contains("payload_once"), "{refused}");
}

#[tokio::test]
async fn an_event_that_does_not_decode_is_an_error_and_nothing_is_built_on_it() {
    let (store, pool) = store().await;
    for (name, version, payload) in [
        ("account.reborn", "1", json!({})),
        ("account.registered", "99", json!({})),
        ("account.profile_changed", "one", json!({})),
        ("account.profile_changed", "1", json!({"profile": 7})),
        ("thread.locked", "1", json!({})),
    ] {
        let id = AccountId::new().to_string();
        let framework = CqrsFramework::<Account, _>::new(store.clone(), Vec::new(), ());
        framework.execute(&id, register()).await.expect("registers");
        sqlx::query(
            "insert into events
             select aggregate_type, aggregate_id, 2, $2, $3, $4, metadata, position + 1000, shard, gen_random_uuid(),
                community_id, recorded_at
             from events where aggregate_id = $1",
        )
        .bind(&id)
        .bind(name)
        .bind(version)
        .bind(payload)
        .execute(&pool)
        .await
        .expect("inserts");
        // One that remembers nothing.
        let fresh = Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new());
        let framework = CqrsFramework::<Account, _>::new(fresh.clone(), Vec::new(), ());
        for failed in [
            EventStore::<Account>::load_events(&fresh, &id).await.map(|_| ()),
            EventStore::<Account>::load_aggregate(&fresh, &id).await.map(|_| ()),
            framework.execute(&id, rename("x")).await,
        ] {
            let Err(AggregateError::UnexpectedError(cause)) = failed else { panic!("{name} {version}: {failed:?}") };
            let cause = cause.downcast::<StoreError>().expect("ours");
            assert!(matches!(*cause, StoreError::Unreadable(_)), "{name} {version}: {cause}");
        }
    }
    let written: i64 = sqlx::query_scalar("select count(*) from events").fetch_one(&pool).await.expect("a count");
    assert_eq!(written, 10);
}

//! What must happen at a time: it happens once, also where two would do it or one was killed, and late rather than never.

mod check;

use std::{collections::HashMap, time::Duration};

use agora_tests::forum::{Community, Person, TestForum};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use command_service::{
    jobs::{self, Job, Jobs},
    store::{Append, AppenderConfig, NewEvent, Store, Verdict},
};
use events::{
    AccountId, CommunityId, Event, EventId, MembershipEvent, Metadata, Shard, Stream, ThreadEvent, ThreadId,
    membership::{Banned, Silenced},
    thread::Pinned,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// A cron expression: at each second.
const ALWAYS: &str = "* * * * * *";
/// And one that has not come yet.
const NEVER: &str = "0 0 0 1 1 * 2999";

/// How long what should happen soon may take on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// Each of these at each second, and no other.
fn only(always: &[Job]) -> jobs::Config {
    let when = |job: Job| if always.contains(&job) { ALWAYS } else { NEVER };
    let settings: HashMap<_, _> = Job::ALL.into_iter().map(|job| (job.name(), when(job))).collect();
    serde_json::from_value(json!(settings)).expect("settings")
}

/// A forum whose jobs are run by nobody but the test.
async fn by_hand() -> TestForum {
    TestForum::start_with(|config| config.jobs = only(&[])).await
}

/// A store beside the forum's, as another process has it.
struct Beside {
    pool: PgPool,
    store: Store,
    jobs: Jobs,
}

impl Beside {
    fn of(forum: &TestForum) -> Self {
        let pool = forum.pool.clone();
        let store = Store::start(pool.clone(), &AppenderConfig::default(), &TaskTracker::new());
        Self { jobs: Jobs::new(store.clone(), only(&[])), pool, store }
    }

    async fn now(&self) -> DateTime<Utc> {
        sqlx::query_scalar("select clock_timestamp()").fetch_one(&self.pool).await.expect("a time")
    }

    /// Appends an event that no endpoint would: one whose end has come already. Answers its id.
    async fn append(&self, community: CommunityId, stream: &Stream, event: impl Into<Event>) -> EventId {
        let version =
            number(&self.pool, &format!("select count(*) from events where aggregate_id = '{}'", stream.id)).await;
        let (event, event_id): (Event, _) = (event.into(), EventId::new());
        let metadata = Metadata {
            actor: None,
            correlation_id: Uuid::now_v7(),
            causation_id: None,
            traceparent: None,
            occurred_at: None,
        };
        let append = Append {
            shard: Shard::of_community(community),
            community: Some(community),
            checks: vec![(stream.clone(), version)],
            events: vec![NewEvent {
                stream: stream.clone(),
                sequence: version + 1,
                event_id,
                name: event.name(),
                version: event.version(),
                payload: event.payload().expect("JSON"),
            }],
            metadata: serde_json::to_string(&metadata).expect("JSON"),
            claims: Vec::new(),
            private: Vec::new(),
            receipt: None,
        };
        let verdict = self.store.append(append).await.expect("a verdict");
        assert!(matches!(verdict, Verdict::Appended { .. }), "{verdict:?}");
        event_id
    }

    async fn ban(&self, community: CommunityId, account: AccountId, until: DateTime<Utc>) -> EventId {
        let ban = Banned { account, until: Some(until), reason: "rude".to_owned() };
        self.append(community, &Stream::membership(community, account), MembershipEvent::Banned(ban)).await
    }

    /// What a job did, which may not fail.
    async fn work(&self, job: Job) -> u64 {
        let outcome = self.jobs.work(job, self.now().await).await;
        assert_eq!(outcome.failure, None, "{job}");
        outcome.done
    }
}

async fn number(pool: &PgPool, what: &str) -> i64 {
    sqlx::query_scalar(what).fetch_one(pool).await.unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// Until there is none: a condition, not a time.
async fn gone(pool: &PgPool, what: &str) {
    let gone = async {
        while number(pool, what).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("still there: {what}"));
}

/// What a stream's events were, each with who did it and what caused it.
async fn told(pool: &PgPool, stream: &Stream) -> Vec<(String, Option<String>, Option<String>)> {
    sqlx::query_as(
        "select event_type, metadata->>'actor', metadata->>'causation_id' from events
        where aggregate_type = $1 and aggregate_id = $2 order by sequence",
    )
    .bind(&stream.aggregate)
    .bind(&stream.id)
    .fetch_all(pool)
    .await
    .expect("its events")
}

/// Long enough ago for both the machine's clock and the database's.
fn past() -> DateTime<Utc> {
    (Utc::now() - TimeDelta::seconds(30)).trunc_subsecs(0)
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("an id")
}

/// Ada's community, which Bob joined.
async fn tea(forum: &TestForum) -> (Person<'_>, Person<'_>, Community) {
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    (ada, bob, tea)
}

#[tokio::test]
async fn a_ban_and_a_silence_end_by_the_platform_itself_and_name_what_they_end() {
    let forum = by_hand().await;
    let (ada, bob, tea) = tea(&forum).await;
    let beside = Beside::of(&forum);
    let (community, account) = (id(&tea.id), id(bob.id()));
    let stream = Stream::membership(community, account);
    let ban = beside.ban(community, account, past()).await;
    let silence = Silenced { account, until: past(), reason: "loud".to_owned() };
    let silence = beside.append(community, &stream, MembershipEvent::Silenced(silence)).await;
    // For decisions, it is over already.
    bob.thread(&tea, "Still here").await;

    assert_eq!((beside.work(Job::EndBans).await, beside.work(Job::EndSilences).await), (1, 1));
    let told = told(&forum.pool, &stream).await;
    let lifted = |name: &str, cause: EventId| (name.to_owned(), None, Some(cause.to_string()));
    assert_eq!(told[3..], [lifted("membership.ban_lifted", ban), lifted("membership.silence_lifted", silence)]);
    assert_eq!(number(&forum.pool, "select count(*) from endings").await, 0);

    assert_eq!((beside.work(Job::EndBans).await, beside.work(Job::EndSilences).await), (0, 0));
    // Once this is shown, all that was written before it is.
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "moderator"})).await.expect(200);
    let log = ada.get("/v2/communities/tea/moderation-log").await.expect(200);
    let lifted = log["items"].as_array().expect("acts").iter().find(|act| act["action"] == "membership.ban_lifted");
    assert_eq!(lifted.expect("it is logged")["actor"], Value::Null);
    forum.stop().await;
}

#[tokio::test]
async fn a_pin_ends_and_its_thread_stands_where_it_belongs() {
    let forum = by_hand().await;
    let (ada, _, tea) = tea(&forum).await;
    let (thread, _) = ada.thread(&tea, "News").await;
    ada.thread(&tea, "Newer").await;
    let beside = Beside::of(&forum);
    let (community, stream) = (id(&tea.id), Stream::thread(id::<ThreadId>(&thread)));
    let pin = beside.append(community, &stream, ThreadEvent::Pinned(Pinned { until: Some(past()) })).await;
    // Nobody works on it any more: its end was said with the pin.
    ada.delete(&format!("/v2/categories/{}", tea.category)).await.expect_status(200);
    let first = async || {
        let list = ada.get("/v2/communities/tea/threads?sort=new").await.expect(200);
        (list["items"][0]["title"].clone(), list["items"][0]["pinned"].clone())
    };
    assert_eq!(first().await, (json!("News"), json!(true)));

    assert_eq!(beside.work(Job::EndPins).await, 1);
    let unpinned = ("thread.unpinned".to_owned(), None, Some(pin.to_string()));
    assert_eq!(told(&forum.pool, &stream).await.last(), Some(&unpinned));
    ada.post(&format!("/v2/categories/{}/restore", tea.category), &json!({})).await.expect_status(200);
    assert_eq!(first().await, (json!("Newer"), json!(false)));
    forum.stop().await;
}

#[tokio::test]
async fn another_in_its_place_stays_also_when_nobody_remembers_the_receipt() {
    let forum = by_hand().await;
    let (ada, bob, tea) = tea(&forum).await;
    let beside = Beside::of(&forum);
    let (community, account): (CommunityId, AccountId) = (id(&tea.id), id(bob.id()));
    let stream = Stream::membership(community, account);
    beside.ban(community, account, past()).await;
    assert_eq!(beside.work(Job::EndBans).await, 1);
    assert_eq!(number(&forum.pool, "select count(*) from receipts where key like 'end-ban/%'").await, 1);
    sqlx::query("delete from receipts").execute(&forum.pool).await.expect("forgotten");

    let again = json!({"reason": "again", "until": "2999-01-01T00:00:00Z"});
    ada.put("/v2/communities/tea/members/bob/ban", &again).await.expect(200);
    assert_eq!(beside.work(Job::EndBans).await, 0);
    // A second one that is over too, of the same end: it is this one that ends, and it is said so.
    let late = past();
    beside.ban(community, account, late).await;
    let standing = beside.ban(community, account, late).await;
    assert_eq!(beside.work(Job::EndBans).await, 1);
    let lifted = ("membership.ban_lifted".to_owned(), None, Some(standing.to_string()));
    assert_eq!(told(&forum.pool, &stream).await.last(), Some(&lifted));
    for for_good in [json!({"reason": "enough"}), again] {
        ada.put("/v2/communities/tea/members/bob/ban", &for_good).await.expect(200);
        assert_eq!(beside.work(Job::EndBans).await, 0);
        bob.refused(Method::DELETE, "/v2/communities/tea/members/me/role", Value::Null, (403, "banned")).await;
    }
    forum.stop().await;
}

#[tokio::test]
async fn two_schedules_and_a_person_at_once_end_each_ban_once_in_bounded_batches() {
    const BANS: i64 = 1_200;
    let forum = by_hand().await;
    let (_, _, tea) = tea(&forum).await;
    let (one, other) = (Beside::of(&forum), Beside::of(&forum));
    let community = id(&tea.id);
    let bans = (0..BANS).map(|_| one.ban(community, AccountId::new(), past()));
    futures::future::join_all(bans).await;
    assert_eq!(number(&forum.pool, "select count(*) from endings").await, BANS);

    let (first, second, asked) =
        tokio::join!(one.work(Job::EndBans), other.work(Job::EndBans), one.jobs.run_by_hand(Job::EndBans));
    let asked = asked.expect("it runs");
    assert_eq!(asked.failure, None);
    assert_eq!(i64::try_from(first + second + asked.done).expect("some"), BANS, "each by one of them");
    let lifted = "select count(*) from events where event_type = 'membership.ban_lifted'";
    assert_eq!(number(&forum.pool, lifted).await, BANS);
    forum.stop().await;
}

#[tokio::test]
async fn one_that_cannot_be_ended_keeps_no_other_from_it() {
    let forum = by_hand().await;
    let (_, _, tea) = tea(&forum).await;
    let beside = Beside::of(&forum);
    let (community, broken) = (id(&tea.id), AccountId::new());
    let stream = Stream::membership(community, broken);
    beside.ban(community, broken, past() - TimeDelta::hours(1)).await;
    // An event of a release to come.
    sqlx::query(
        "insert into events select aggregate_type, aggregate_id, 2, 'membership.knighted', '1', '{}', metadata,
            position + 1000, shard, gen_random_uuid(), community_id, recorded_at
        from events where aggregate_id = $1",
    )
    .bind(&stream.id)
    .execute(&forum.pool)
    .await
    .expect("written");
    beside.ban(community, AccountId::new(), past()).await;
    let run = beside.jobs.run_by_hand(Job::EndBans).await.expect("it runs");
    let failure = run.failure.expect("one is left");
    assert_eq!(run.done, 1);
    assert!(failure.starts_with(&format!("1 not ended, the first because of {stream} (")), "{failure}");
    assert!(failure.contains("unknown event membership.knighted"), "{failure}");
    forum.stop().await;
}

#[tokio::test]
async fn what_came_due_while_nothing_ran_is_done_at_start_and_killed_work_is_done_again_without_effect() {
    let forum = by_hand().await;
    let (_, bob, tea) = tea(&forum).await;
    let (community, account) = (id(&tea.id), id(bob.id()));
    let beside = Beside::of(&forum);
    beside.ban(community, account, past()).await;
    beside.ban(community, AccountId::new(), past()).await;
    // A schedule that was worked off long ago; then somebody was killed between the command and the note of the run.
    let long_ago = "update jobs set done_through = now() - interval '2 years' where job = 'end_bans'";
    sqlx::query(long_ago).execute(&forum.pool).await.expect("set back");
    let ban = sqlx::query_scalar("select ends_at from endings order by event_id limit 1");
    let first: DateTime<Utc> = ban.fetch_one(&forum.pool).await.expect("a ban");
    let outcome = beside.jobs.work(Job::EndBans, first).await;
    assert_eq!((outcome.done > 0, outcome.failure), (true, None));
    assert_eq!(number(&forum.pool, "select count(*) from job_runs where job = 'end_bans'").await, 0);
    beside.ban(community, AccountId::new(), past()).await;
    let (database_url, pool) = (forum.database_url.clone(), forum.pool.clone());
    drop(beside);
    forum.stop().await;

    // Due at New Year only: of those that passed meanwhile, the last one is worked off at start.
    let forum = TestForum::start_on(database_url, |config| {
        config.jobs = serde_json::from_value(json!({"end_bans": "0 0 0 1 1 *"})).expect("settings");
    });
    let forum = forum.await;
    gone(&pool, "select count(*) from endings").await;
    let lifted = "select count(*) from events where event_type = 'membership.ban_lifted'";
    assert_eq!(number(&pool, lifted).await, 3);
    gone(&pool, "select 1 - count(*) from jobs where job = 'end_bans' and done_through = date_trunc('year', now())")
        .await;
    assert_eq!(number(&pool, "select count(*) from job_runs where job = 'end_bans'").await, 1);
    forum.stop().await;
}

#[tokio::test]
async fn one_leads_and_another_goes_on_when_it_is_gone() {
    let forum = TestForum::start_with(|config| config.jobs = only(&[Job::EndBans])).await;
    let (_, bob, tea) = tea(&forum).await;
    let (pool, config) = (forum.pool.clone(), forum.config.clone());
    let (community, account) = (id(&tea.id), id(bob.id()));
    gone(&pool, "select count(*) from jobs where job = 'end_bans' and done_through is null").await;
    let leader = async || jobs::status(&pool, &config.jobs).await.expect("a status").leader;
    assert_eq!(leader().await.map(|leader| leader.process), Some(std::process::id()));

    // Another one stands by, as it would on another machine.
    let beside = Beside::of(&forum);
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let options = pool.connect_options().as_ref().clone().application_name("agora-jobs 1@elsewhere");
    Jobs::new(beside.store.clone(), config.jobs.clone()).start(options, shutdown.clone(), &tasks);

    // The leader's connection is cut, as Postgres does with one that froze: it or the other one goes on.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
        where application_name like 'agora-jobs %' and application_name <> 'agora-jobs 1@elsewhere'
            and datname = current_database()";
    assert_eq!(number(&pool, cut).await, 1);
    beside.ban(community, account, past()).await;
    gone(&pool, "select count(*) from endings").await;

    // It ends in order: the other one leads at once.
    forum.stop().await;
    beside.ban(community, account, past()).await;
    gone(&pool, "select count(*) from endings").await;
    assert_eq!(leader().await.map(|leader| leader.host).as_deref(), Some("elsewhere"));
    shutdown.cancel();
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.expect("it ends");
    // Postgres ends a session a moment after it was told to.
    gone(&pool, "select count(*) from pg_stat_activity where application_name = 'agora-jobs 1@elsewhere'").await;
    assert_eq!(leader().await, None, "given back");
    let lifted = "select count(*) from events where event_type = 'membership.ban_lifted'";
    assert_eq!(number(&pool, lifted).await, 2);
}

/// The event store as the release before left it.
const AS_BEFORE_0008: &str = "
    drop view store.store_head;
    drop function store.leave_store_head;
    alter table store.history_line rename to store_head;
    alter table store.store_head add column position bigint not null default 0,
        add column recorded_at timestamptz not null default '-infinity';
    update store.store_head set position = h.position, recorded_at = h.recorded_at
        from (select position, recorded_at from store.events order by position desc limit 1) h;
    drop function store.append(
        boolean, store.append_check[], store.append_event[], store.append_confirmation[], store.append_claim[],
        store.append_private[], store.append_receipt[]
    );
    drop type store.append_check, store.append_event, store.append_confirmation, store.append_claim, store.append_private,
        store.append_receipt;
    drop trigger events_keep_endings on store.events;
    drop function store.keep_endings;
    drop table store.endings, store.jobs, store.job_runs, store.histories, store.instances, store.skips, store.repairs,
        store.snapshots, store.mended_streams;
    drop function store.stream_from_snapshot, store.note_mended_stream;
    drop trigger events_repaired_on_record on store.events;
    drop function store.refuse_edit_off_the_record, store.keep_ending_anew, store.ending_kind,
        store.refuse_false_record;
    delete from store._sqlx_migrations where version >= 8";

#[tokio::test]
async fn what_stood_before_this_release_ends_too() {
    let forum = by_hand().await;
    let (ada, bob, tea) = tea(&forum).await;
    let (community, account): (CommunityId, AccountId) = (id(&tea.id), id(bob.id()));
    let stream = Stream::membership(community, account);
    let beside = Beside::of(&forum);
    for until in [past() - TimeDelta::days(1), past()] {
        beside.ban(community, account, until).await;
    }
    let silence = Silenced { account, until: past(), reason: "loud".to_owned() };
    beside.append(community, &stream, MembershipEvent::Silenced(silence)).await;
    ada.delete("/v2/communities/tea/members/bob/silence").await.expect(200);
    let (pinned, for_good) = (ada.thread(&tea, "News").await.0, ada.thread(&tea, "Rules").await.0);
    for (thread, until) in [(&pinned, json!("2999-01-01T00:00:00Z")), (&for_good, Value::Null)] {
        ada.put(&format!("/v2/threads/{thread}/pin"), &json!({"until": until})).await.expect(200);
    }
    let endings = "select (kind, aggregate_id, community_id, event_id, ends_at)::text from endings order by 1";
    let kept: Vec<String> = sqlx::query_scalar(endings).fetch_all(&forum.pool).await.expect("endings");
    assert_eq!(kept.len(), 2, "{kept:?}");
    let (pool, config) = (forum.pool.clone(), forum.config.clone());
    drop(beside);
    forum.stop().await;

    sqlx::raw_sql(AS_BEFORE_0008).execute(&pool).await.expect("as it was");
    agora::stack::migrate(&config).await.expect("migrated");
    let found: Vec<String> = sqlx::query_scalar(endings).fetch_all(&pool).await.expect("endings");
    assert_eq!(found, kept);
}

#[tokio::test]
async fn of_runs_without_anything_to_do_the_last_one_is_kept_and_of_all_some() {
    let forum = TestForum::start_with(|config| config.jobs = only(&[Job::EndBans])).await;
    let pool = forum.pool.clone();
    gone(&pool, "select 3 - coalesce(max(run), 0) from job_runs where job = 'end_bans'").await;
    let beside = Beside::of(&forum);
    for _ in 0..105 {
        beside.jobs.run_by_hand(Job::PurgeSessions).await.expect("it runs");
    }
    assert_eq!(number(&pool, "select count(*) from job_runs where job = 'purge_sessions'").await, 100);
    forum.stop().await;
    let runs = jobs::history(&pool, Some(Job::EndBans)).await.expect("runs");
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!((runs[0].done, runs[0].by_hand, &runs[0].failure), (0, false, &None));
}

#[tokio::test]
async fn a_claim_that_is_kept_for_nobody_is_found_and_no_other() {
    let forum = by_hand().await;
    let (ada, _, tea) = tea(&forum).await;
    let beside = Beside::of(&forum);
    ada.patch("/v2/communities/tea", &json!({"slug": "coffee"})).await.expect(200);
    assert_eq!(beside.work(Job::ReportOrphanedClaims).await, 0, "all are held");
    for (kind, value, owner) in [
        ("slug", "tea", &*tea.id),
        ("username", "nobody", ada.id()),
        ("email", "nobody@example.org", ada.id()),
        ("category", &Uuid::now_v7().to_string(), &tea.id),
        ("slug", "odd", "no id"),
        ("of a release to come", "x", "y"),
    ] {
        let claim = sqlx::query("insert into claims (kind, value, owner) values ($1, $2, $3)");
        claim.bind(kind).bind(value).bind(owner).execute(&forum.pool).await.expect("a claim");
    }
    assert_eq!(beside.work(Job::ReportOrphanedClaims).await, 5);
    forum.stop().await;
}

#[tokio::test]
async fn old_receipts_are_deleted_at_their_time_and_newer_ones_kept() {
    let forum = TestForum::start_with(|config| {
        config.jobs = only(&[Job::ExpireReceipts]);
        config.jobs.receipts_kept = Duration::from_secs(3600);
    });
    let forum = forum.await;
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
    let forum = TestForum::start_with(|config| config.jobs = only(&[Job::PurgeSessions])).await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let (sessions, tokens) = ("select count(*) from sessions", "select count(*) from refresh_tokens");
    assert_eq!((number(&forum.pool, sessions).await, number(&forum.pool, tokens).await), (2, 2));
    let over = "update sessions set expires_at = now() - interval '1 s' where account = $1::uuid";
    sqlx::query(over).bind(bob.id()).execute(&forum.pool).await.expect("aged");
    gone(&forum.pool, "select count(*) from sessions where expires_at < now()").await;
    assert_eq!((number(&forum.pool, sessions).await, number(&forum.pool, tokens).await), (1, 1));
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
    assert_eq!((number(&forum.pool, sessions).await, number(&forum.pool, tokens).await), (1, 1));
    forum.stop().await;
}

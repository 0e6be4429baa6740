//! The daily check: what it looks at and when, and what becomes of one that fails.

use std::sync::Arc;

use agora::daily_check::DailyCheck;
use agora_tests::forum::TestForum;
use chrono::{DateTime, TimeDelta, Utc};
use command_service::jobs::{self, Check, Job, Jobs};
use events::{CommunityId, Shard};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Beside, PATIENCE, by_hand, gone, id, number, only, past, tea};

/// A check that is made up: one shard is broken, and one cannot be looked at.
struct MadeUp;

impl Check for MadeUp {
    fn shard(&self, shard: Shard) -> BoxFuture<'_, anyhow::Result<Vec<String>>> {
        let found = match shard.number() {
            7 => Ok(vec!["one thing".to_owned(), "another".to_owned()]),
            14 => Err(anyhow::anyhow!("another rebuild is running")),
            _ => Ok(vec![]),
        };
        std::future::ready(found).boxed()
    }
}

/// A moment of the first day on which it is this shard's turn.
fn day_of(shard: u8) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(i64::from(shard) % jobs::CHECKED_WITHIN_DAYS)
}

#[tokio::test]
async fn the_daily_check_counts_what_is_broken_and_says_what_it_could_not_look_at() {
    let forum = by_hand().await;
    let jobs = Beside::of(&forum).jobs.checking_by(Arc::new(MadeUp));
    let outcome = jobs.work(Job::Check, day_of(7)).await;
    assert_eq!((outcome.done, &*outcome.failure.expect("one is left")), (2, "shard 14: another rebuild is running"));
    let outcome = jobs.work(Job::Check, day_of(9)).await;
    assert_eq!((outcome.done, outcome.failure), (0, None));
    forum.stop().await;
}

#[tokio::test]
async fn a_job_that_panics_is_on_record_and_all_others_go_on() {
    let forum = by_hand().await;
    let (_, bob, tea) = tea(&forum).await;
    let beside = Beside::of(&forum);
    let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (pool, options) = (forum.pool.clone(), forum.pool.connect_options().as_ref().clone());
    // The forum's own leader ends with it.
    let store = beside.store.clone();
    let (community, account) = (id(&tea.id), id(bob.id()));
    forum.stop().await;
    let always = only(&[Job::Check, Job::EndBans]);
    let panics = Jobs::new(store, always).checking_by(Arc::new(Panics));
    panics.start(options.application_name("agora-jobs 1@elsewhere"), shutdown.clone(), &tasks);
    gone(&pool, "select 1 - count(*) from job_runs where job = 'check' and failure like 'it panicked%'").await;
    beside.ban(community, account, past()).await;
    gone(&pool, "select count(*) from endings").await;
    shutdown.cancel();
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.expect("it ends");
}

/// A check that is nothing but a defect.
struct Panics;

impl Check for Panics {
    fn shard(&self, _: Shard) -> BoxFuture<'_, anyhow::Result<Vec<String>>> {
        panic!("a defect")
    }
}

#[tokio::test]
async fn the_daily_check_finds_what_is_broken_of_its_shards_and_changes_nothing() {
    let forum = by_hand().await;
    let (ada, _, tea) = tea(&forum).await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    ada.reply(&thread, "Hello").await;
    ada.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
    let community: CommunityId = id(&tea.id);
    let turn = day_of(Shard::of_community(community).number());
    let jobs = Beside::of(&forum).jobs.checking_by(DailyCheck::of(&forum.config));
    let outcome = jobs.work(Job::Check, turn).await;
    assert_eq!((outcome.done, outcome.failure), (0, None), "all is as it should be");

    let broken = "update thread set replies = replies + 1";
    sqlx::query(broken).execute(&forum.pool).await.expect("broken");
    sqlx::query("update claims set owner = 'nobody' where kind = 'slug'").execute(&forum.pool).await.expect("broken");
    let outcome = jobs.work(Job::Check, turn).await;
    assert_eq!((outcome.done, outcome.failure), (2, None), "a row and a claim");
    let other = jobs.work(Job::Check, turn + TimeDelta::days(1)).await;
    assert_eq!((other.done, other.failure), (0, None), "not these shards' turn");
    assert_eq!(number(&forum.pool, "select replies::bigint from thread").await, 2, "it only looks");
    assert_eq!(number(&forum.pool, "select count(*) from pg_namespace where nspname = 'rebuild'").await, 0);
    forum.stop().await;
}

#[tokio::test]
async fn the_daily_check_is_first_due_at_its_time_and_then_runs_by_itself() {
    let forum = by_hand().await;
    // From when it was announced on, and not for what came before.
    gone(&forum.pool, "select 1 - count(*) from jobs where job = 'check' and done_through is not null").await;
    assert_eq!(number(&forum.pool, "select count(*) from job_runs where job = 'check'").await, 0);
    let (url, pool) = (forum.database_url.clone(), forum.pool.clone());
    forum.stop().await;
    let forum = TestForum::start_on(url, |config| config.jobs = only(&[Job::Check])).await;
    gone(&pool, "select 1 - count(*) from job_runs where job = 'check' and done = 0 and failure is null").await;
    forum.stop().await;
}

//! The event store over a real Postgres: order, exactly once, and that history stands.

use std::{
    collections::HashSet,
    iter,
    time::{Duration, Instant},
};

use command_service::store::{Append, Appender, AppenderConfig, Claim, Receipt, Replay, StoreError, Verdict, append};
use events::{
    AccountId, CommunityId, Event, MembershipEvent, PostId, Shard, Stream, ThreadEvent, ThreadId, membership::Joined,
    thread::Locked,
};
use futures::future::join_all;
use platform::problem::Problem;
use sqlx::{Connection as _, PgConnection, PgPool};
use store_reader::{StoreReader, Wake};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use agora_tests::store::{pool, write};

/// How long another may take to get to the append lock, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

async fn store() -> PgPool {
    pool(5).await
}

fn appender(pool: &PgPool) -> Appender {
    Appender::start(
        &AppenderConfig::default(),
        pool.connect_options().as_ref().clone(),
        Wake::default(),
        &TaskTracker::new(),
    )
}

fn community() -> CommunityId {
    CommunityId::new()
}

fn joined() -> Event {
    MembershipEvent::Joined(Joined { account: AccountId::new() }).into()
}

fn locked() -> Event {
    ThreadEvent::Locked(Locked { reason: None }).into()
}

fn join(community: CommunityId) -> Append {
    write(community, &Stream::membership(community, AccountId::new()), 0, &[joined()])
}

fn key() -> String {
    Uuid::now_v7().to_string()
}

fn receipt(owner: Uuid, key: &str, answer: Option<&str>) -> Receipt {
    let answer = answer.map(|body| (201, body.to_owned()));
    Receipt { owner, key: key.to_owned(), fingerprint: [7; 16], answer }
}

#[track_caller]
fn position(verdict: &Verdict) -> i64 {
    match verdict {
        Verdict::Appended { position, .. } => *position,
        other => panic!("appended, not {other:?}"),
    }
}

async fn count(pool: &PgPool) -> i64 {
    sqlx::query_scalar("select count(*) from events").fetch_one(pool).await.expect("a count")
}

#[tokio::test]
async fn positions_rise_in_commit_order_without_a_gap_through_several_appenders() {
    let pool = store().await;
    let appenders = [appender(&pool), appender(&pool), appender(&pool)];
    // A reader that asks for what is above the last position it saw misses nothing, whoever writes meanwhile.
    let reader = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut seen = Vec::new();
            while seen.len() < 900 {
                let last = seen.last().copied().unwrap_or(0);
                let next: Vec<i64> = sqlx::query_scalar("select position from events where position > $1 order by 1")
                    .bind(last)
                    .fetch_all(&pool)
                    .await
                    .expect("reads");
                seen.extend(next);
            }
            seen
        }
    });
    let communities = [community(), community(), community()];
    let commands = (0..300).flat_map(|n| appenders.iter().map(move |appender| (n, appender)));
    let appends = commands.map(|(n, appender)| appender.append(join(communities[n % 3])));
    let positions: HashSet<_> =
        join_all(appends).await.into_iter().map(|verdict| position(&verdict.expect("a verdict"))).collect();
    assert_eq!(positions, (1..=900).collect());
    assert_eq!(reader.await.expect("the reader ends"), (1..=900).collect::<Vec<_>>());
    let falls: i64 = sqlx::query_scalar(
        "select count(*) from (select recorded_at < lag(recorded_at) over (order by position) as fell from events) e
         where fell",
    )
    .fetch_one(&pool)
    .await
    .expect("a count");
    assert_eq!(falls, 0, "recorded_at never falls");
}

#[tokio::test]
async fn commands_of_one_flush_stand_or_fall_alone() {
    let pool = store().await;
    let (home, thread) = (community(), Stream::thread(ThreadId::new()));
    let mut connection = pool.acquire().await.expect("a connection");
    let stale = write(home, &thread, 3, &[locked()]);
    let mut claims = join(home);
    claims.claims.push(Claim { kind: "slug", value: "tea".into(), owner: "one".into(), release: false });
    let fine = join(home);
    let verdicts = append(&mut connection, false, &[&stale, &claims, &fine]).await.expect("verdicts");
    assert!(matches!(&verdicts[0], Verdict::Moved { stream, version: 0 } if *stream == thread.to_string()));
    assert_eq!([position(&verdicts[1]), position(&verdicts[2])], [1, 2], "a refused command takes no position");

    let mut taken = join(home);
    taken.claims.push(Claim { kind: "slug", value: "tea".into(), owner: "other".into(), release: false });
    let verdicts = append(&mut connection, false, &[&taken]).await.expect("verdicts");
    assert!(matches!(&verdicts[0], Verdict::Claimed { kind } if kind == "slug"));

    let mut moves = join(home);
    moves.claims.push(Claim { kind: "slug", value: "tea".into(), owner: "one".into(), release: true });
    moves.claims.push(Claim { kind: "slug", value: "green-tea".into(), owner: "one".into(), release: false });
    append(&mut connection, false, &[&moves]).await.expect("verdicts");
    let verdicts = append(&mut connection, false, &[&taken]).await.expect("verdicts");
    position(&verdicts[0]);
}

#[tokio::test]
async fn an_append_to_two_streams_writes_both_or_neither() {
    let pool = store().await;
    let mut connection = pool.acquire().await.expect("a connection");
    let (home, thread) = (community(), Stream::thread(ThreadId::new()));
    let both = |thread_version: i64| {
        let post = write(home, &Stream::post(PostId::new()), 0, &[joined()]);
        let mut both = write(home, &thread, thread_version, &[locked()]);
        both.checks.extend(post.checks);
        both.events.extend(post.events);
        both
    };
    let (fresh, stale, next) = (both(0), both(0), both(1));
    let verdicts = append(&mut connection, false, &[&fresh]).await.expect("verdicts");
    assert_eq!(position(&verdicts[0]), 2);
    for alone in [true, false] {
        let flush = if alone { vec![&stale] } else { vec![&stale, &next] };
        let verdicts = append(&mut connection, false, &flush).await.expect("verdicts");
        assert!(matches!(&verdicts[0], Verdict::Moved { stream, version: 1 } if *stream == thread.to_string()));
    }
    let streams: Vec<i64> =
        sqlx::query_scalar("select count(*) from events group by aggregate_type, aggregate_id order by 1")
            .fetch_all(&pool)
            .await
            .expect("counts");
    assert_eq!(streams, [1, 1, 2], "the thread twice, and a post with each");
}

#[tokio::test]
async fn a_key_gets_its_first_answer_again_and_a_refusal_leaves_none() {
    let pool = store().await;
    let appender = appender(&pool);
    let (home, owner, key) = (community(), Uuid::now_v7(), key());
    let confirm = || Append {
        events: Vec::new(),
        receipt: Some(receipt(owner, &key, None)),
        ..write(home, &Stream::thread(ThreadId::new()), 0, &[])
    };
    // A refusal looks for a receipt, and leaves none.
    for _ in 0..2 {
        assert_eq!(position(&appender.append(confirm()).await.expect("a verdict")), 0);
    }
    let first = Append { receipt: Some(receipt(owner, &key, Some("{}"))), ..join(home) };
    let written = position(&appender.append(first).await.expect("a verdict"));
    let again = Append { receipt: Some(receipt(owner, &key, Some(r#"{"other":1}"#))), ..join(home) };
    for append in [again, confirm()] {
        let Verdict::Replayed(replay) = appender.append(append).await.expect("a verdict") else {
            panic!("answered before")
        };
        assert_eq!((replay.position, replay.status, replay.answer.as_str()), (written, 201, "{}"));
        assert_eq!((replay.shard, replay.fingerprint), (Shard::of_community(home), vec![7; 16]));
        assert!(!replay.unchanged);
    }
    assert_eq!(count(&pool).await, 1);

    let nothing_to_do = || {
        let mut confirmed = confirm();
        confirmed.receipt = Some(receipt(owner, "no-op", Some("{}")));
        confirmed
    };
    position(&appender.append(nothing_to_do()).await.expect("a verdict"));
    let again = appender.append(nothing_to_do()).await;
    assert!(matches!(again, Ok(Verdict::Replayed(Replay { unchanged: true, .. }))));
}

#[tokio::test]
async fn a_flush_whose_answer_was_lost_is_recognised() {
    let pool = store().await;
    let mut connection = pool.acquire().await.expect("a connection");
    let home = community();
    let plain = join(home);
    let kept = Append { receipt: Some(receipt(home.0, "k", Some("{}"))), ..join(home) };
    let first = append(&mut connection, false, &[&plain, &kept]).await.expect("verdicts");
    let second = append(&mut connection, true, &[&plain, &kept]).await.expect("verdicts");
    assert_eq!(position(&first[0]), position(&second[0]));
    assert!(matches!(&second[1], Verdict::Replayed(replay) if replay.position == position(&first[1])));
    assert_eq!(count(&pool).await, 2);
}

#[tokio::test]
async fn cut_connections_lose_nothing_and_write_nothing_twice() {
    let pool = store().await;
    let appender = appender(&pool);
    let home = community();
    let cutter = tokio::spawn({
        let pool = pool.clone();
        async move {
            let mut cuts = 0;
            for _ in 0..40 {
                let cut = sqlx::query(
                    "select pg_terminate_backend(pid) from pg_stat_activity
                     where datname = current_database() and query ilike '%from append(%' and pid <> pg_backend_pid()",
                )
                .execute(&pool)
                .await
                .expect("cuts");
                cuts += cut.rows_affected();
                tokio::time::sleep(Duration::from_millis(7)).await;
            }
            cuts
        }
    });
    let mut written = 0;
    while !cutter.is_finished() {
        let appends = (0..50).map(|_| appender.append(join(home)));
        for verdict in join_all(appends).await {
            position(&verdict.expect("a verdict"));
            written += 1;
        }
    }
    assert_eq!(count(&pool).await, written);
    assert!(cutter.await.expect("the cutter ends") > 0, "nothing was cut");
}

#[tokio::test]
async fn a_value_that_the_database_refuses_stands_alone() {
    let pool = store().await;
    let appender = appender(&pool);
    let home = community();
    let mut bad = join(home);
    bad.claims.push(Claim { kind: "slug", value: "nul\0".into(), owner: "one".into(), release: false });
    let mut appends = vec![appender.append(bad)];
    appends.extend((0..20).map(|_| appender.append(join(home))));
    let verdicts = join_all(appends).await;
    assert!(matches!(&verdicts[0], Ok(Verdict::Rejected(_))));
    for verdict in &verdicts[1..] {
        position(verdict.as_ref().expect("a verdict"));
    }
    assert_eq!(count(&pool).await, 20);
}

#[tokio::test]
async fn a_reply_that_waits_for_the_append_lock_while_its_thread_is_locked_is_refused() {
    let pool = store().await;
    let appender = appender(&pool);
    let (home, thread) = (community(), Stream::thread(ThreadId::new()));
    let mut moderator = pool.begin().await.expect("begins");
    let lock = write(home, &thread, 0, &[locked()]);
    position(&append(&mut moderator, false, &[&lock]).await.expect("verdicts")[0]);

    let mut reply = write(home, &Stream::post(PostId::new()), 0, &[joined()]);
    reply.checks.push((thread.clone(), 0));
    let reply = tokio::spawn(async move { appender.append(reply).await });
    wait_for_lock(&pool).await;
    moderator.commit().await.expect("commits");
    let verdict = reply.await.expect("ends").expect("a verdict");
    assert!(matches!(verdict, Verdict::Moved { stream, version: 1 } if stream == thread.to_string()));
    assert_eq!(count(&pool).await, 1);
}

/// Until somebody waits for the append lock: a condition, not a time.
async fn wait_for_lock(pool: &PgPool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waits: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event = 'advisory')",
        )
        .fetch_one(pool)
        .await
        .expect("asks");
        if waits {
            return;
        }
        assert!(Instant::now() < deadline, "nobody waits for the append lock after {PATIENCE:?}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_lock_and_a_reply_in_the_same_flush_the_reply_is_refused() {
    let pool = store().await;
    let appender = appender(&pool);
    let (home, thread) = (community(), Stream::thread(ThreadId::new()));
    // While somebody else holds the append lock, both wait: in one flush, behind one that is on its way.
    let mut holder = pool.begin().await.expect("begins");
    position(&append(&mut holder, false, &[&join(home)]).await.expect("verdicts")[0]);
    let on_its_way = tokio::spawn({
        let (appender, append) = (appender.clone(), join(home));
        async move { appender.append(append).await }
    });
    wait_for_lock(&pool).await;
    let mut reply = write(home, &Stream::post(PostId::new()), 0, &[joined()]);
    reply.checks.push((thread.clone(), 0));
    let lock = appender.append(write(home, &thread, 0, &[locked()]));
    let both = async { tokio::join!(biased; lock, appender.append(reply)) };
    let (verdicts, committed) = tokio::join!(both, holder.commit());
    committed.expect("commits");
    position(&on_its_way.await.expect("ends").expect("a verdict"));
    position(&verdicts.0.expect("a verdict"));
    assert!(matches!(verdicts.1, Ok(Verdict::Moved { stream, version: 1 }) if stream == thread.to_string()));
}

#[tokio::test]
async fn a_unique_value_is_given_once_within_a_flush_and_across_flushes() {
    let pool = store().await;
    let appender = appender(&pool);
    let claiming = |owner: &str| {
        let claim = Claim { kind: "username", value: "ada".into(), owner: owner.into(), release: false };
        Append { claims: vec![claim], ..join(community()) }
    };
    let mut holder = pool.begin().await.expect("begins");
    position(&append(&mut holder, false, &[&join(community())]).await.expect("verdicts")[0]);
    let on_its_way = tokio::spawn({
        let appender = appender.clone();
        async move { appender.append(join(community())).await }
    });
    wait_for_lock(&pool).await;
    let both = async { tokio::join!(biased; appender.append(claiming("one")), appender.append(claiming("other"))) };
    let ((first, second), committed) = tokio::join!(both, holder.commit());
    committed.expect("commits");
    position(&on_its_way.await.expect("ends").expect("a verdict"));
    position(&first.expect("a verdict"));
    assert!(matches!(second, Ok(Verdict::Claimed { kind }) if kind == "username"));
    assert_eq!(count(&pool).await, 3, "who did not get the name has written nothing");

    // The store does not rely on it that the appender keeps them apart.
    let renamed = |owner: &str| {
        let mut append = claiming(owner);
        append.claims[0].value = "bea".into();
        append
    };
    let mut connection = pool.acquire().await.expect("a connection");
    let error = append(&mut connection, false, &[&renamed("one"), &renamed("other")]).await.expect_err("refused");
    assert!(error.to_string().contains("claims_unique"), "{error}");
    assert_eq!(count(&pool).await, 3);

    // Whose it is not cannot give it up.
    let mut release = claiming("other");
    release.claims[0].release = true;
    position(&appender.append(release).await.expect("a verdict"));
    assert!(matches!(appender.append(claiming("third")).await, Ok(Verdict::Claimed { .. })));
}

#[tokio::test]
async fn an_append_moves_no_row() {
    let pool = store().await;
    let mut transaction = pool.begin().await.expect("begun");
    append(&mut transaction, false, &[&join(community())]).await.expect("a verdict");
    // Its versions would pile up under somebody's snapshot, and every append pass all of them.
    let touched = "select sum(n_tup_ins)::bigint, sum(n_tup_upd + n_tup_del)::bigint from pg_stat_xact_user_tables";
    let (added, moved): (i64, i64) = sqlx::query_as(touched).fetch_one(&mut *transaction).await.expect("counted");
    assert!(added > 0 && moved == 0, "{added} rows were added, {moved} moved");
}

#[tokio::test]
async fn time_does_not_fall_with_the_clock() {
    let pool = store().await;
    let appender = appender(&pool);
    position(&appender.append(join(community())).await.expect("a verdict"));
    // Now the clock is put back by an hour.
    let put_back = "alter table events disable trigger user; update events set recorded_at = now() + interval '1 h';
        alter table events enable trigger user";
    sqlx::raw_sql(put_back).execute(&pool).await.expect("put back");
    position(&appender.append(join(community())).await.expect("a verdict"));
    let stands = "select recorded_at > now() + interval '50 min' from events where position = 2";
    assert!(sqlx::query_scalar::<_, bool>(stands).fetch_one(&pool).await.expect("an answer"));
}

#[tokio::test]
async fn who_finds_the_queue_full_is_told_so_at_once() {
    let pool = store().await;
    let config = AppenderConfig { queue: 1 };
    let appender =
        Appender::start(&config, pool.connect_options().as_ref().clone(), Wake::default(), &TaskTracker::new());
    let mut holder = pool.begin().await.expect("begins");
    position(&append(&mut holder, false, &[&join(community())]).await.expect("verdicts")[0]);
    let wait = |append| {
        let appender = appender.clone();
        tokio::spawn(async move { appender.append(append).await })
    };
    let on_its_way = wait(join(community()));
    wait_for_lock(&pool).await;
    let both = async { tokio::join!(biased; appender.append(join(community())), appender.append(join(community()))) };
    let ((waited, refused), committed) = tokio::join!(both, holder.commit());
    committed.expect("commits");
    assert!(matches!(refused, Err(StoreError::Busy)), "{refused:?}");
    for verdict in [on_its_way.await.expect("ends"), waited] {
        position(&verdict.expect("a verdict"));
    }
    let problem = Problem::from(StoreError::Busy);
    assert_eq!((problem.status().as_u16(), problem.name()), (503, "overloaded"));
    assert_eq!(count(&pool).await, 3);
}

#[tokio::test]
async fn history_is_not_edited_by_anybody() {
    let pool = store().await;
    position(&appender(&pool).append(join(community())).await.expect("a verdict"));
    for edit in [
        "update events set payload = '{}'",
        "delete from events",
        "truncate events",
        "insert into events select * from events on conflict (position) do update set payload = '{}'",
    ] {
        let refused = sqlx::query(edit).execute(&pool).await.expect_err(edit);
        let code = refused.as_database_error().and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("23001"), "{edit}");
    }
    assert_eq!(count(&pool).await, 1);
}

#[tokio::test]
async fn append_refuses_a_snapshot_older_than_its_lock() {
    let pool = store().await;
    let mut connection = PgConnection::connect_with(pool.connect_options().as_ref()).await.expect("connects");
    for level in ["repeatable read", "serializable"] {
        let begin = format!("begin isolation level {level}");
        sqlx::raw_sql(&begin).execute(&mut connection).await.expect("begins");
        let error = append(&mut connection, false, &[&join(community())]).await.expect_err("refused");
        assert!(error.to_string().contains("read committed"), "{error}");
        sqlx::raw_sql("rollback").execute(&mut connection).await.expect("rolls back");
    }
}

#[tokio::test]
async fn the_plan_looks_up_by_index_on_a_fresh_database() {
    let pool = store().await;
    let mut connection = pool.acquire().await.expect("a connection");
    for _ in 0..8 {
        let joins: Vec<_> = (0..300).map(|_| join(community())).collect();
        append(&mut connection, false, &joins.iter().collect::<Vec<_>>()).await.expect("verdicts");
    }
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut *connection).await.expect("flushes");
    let (scanned, looked_up): (i64, i64) =
        sqlx::query_as("select seq_scan, idx_scan from pg_stat_user_tables where relname = 'events'")
            .fetch_one(&mut *connection)
            .await
            .expect("statistics");
    assert_eq!(scanned, 0, "the event store was scanned");
    assert!(looked_up >= 8 * 300, "{looked_up} look-ups");
}

/// Where one shard has nearly everything, the statistics say that its events come soon on any way.
#[tokio::test]
async fn a_shard_is_looked_up_by_its_own_index_whatever_the_statistics_say() {
    // One connection: the server counts what others read a little later.
    let pool = pool(1).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let busy = community();
    for _ in 0..8 {
        let joins: Vec<_> = (0..500).map(|_| join(busy)).collect();
        append(&mut connection, false, &joins.iter().collect::<Vec<_>>()).await.expect("verdicts");
    }
    let quiet = iter::repeat_with(community)
        .find(|quiet| Shard::of_community(*quiet) != Shard::of_community(busy))
        .expect("another shard");
    sqlx::query("analyze events").execute(&mut *connection).await.expect("analyzes");
    let before = read_by_position(&mut connection).await;

    let nothing = Append { events: Vec::new(), ..join(quiet) };
    assert_eq!(position(&append(&mut connection, false, &[&nothing]).await.expect("verdicts")[0]), 0);
    drop(connection);
    let reader = StoreReader::new(pool.clone());
    assert_eq!(reader.heads().await.expect("heads").of(Shard::of_community(busy)), 4_000);
    let from = [(Shard::of_community(quiet), 1), (Shard::of_community(busy), 3_999)];
    assert_eq!(reader.by_shard(&from, 10).await.expect("events").events.len(), 2);
    let mut connection = pool.acquire().await.expect("a connection");
    // That one is the head.
    assert_eq!(read_by_position(&mut connection).await, before + 1);
}

/// How many entries were ever read of the index by position.
async fn read_by_position(connection: &mut PgConnection) -> i64 {
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut *connection).await.expect("flushes");
    sqlx::query_scalar("select idx_tup_read from pg_stat_user_indexes where indexrelname = 'events_position_unique'")
        .fetch_one(connection)
        .await
        .expect("statistics")
}

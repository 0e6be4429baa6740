//! Projections of another version than this release's: older rows are made anew beside, newer ones left alone.

use events::{CommunityId, EventId, Shard};
use uuid::Uuid;

use super::{
    impossible,
    lab::{Lab, Recorded},
    rebuild::Counted,
};

const VERSIONS: &str = "select json_object_agg(projection, versions) from (
    select projection, json_agg(distinct version) as versions from checkpoint group by projection) v";

#[tokio::test]
async fn rows_of_an_older_version_are_made_anew_by_the_next_projector_and_no_others() {
    let history = Recorded::history(31, 300);
    let lab = Lab::with(&history).await;
    let versions = lab.value(VERSIONS).await;
    // As an older release would have made them.
    lab.execute("update thread set replies = replies + 100").await;
    lab.execute("update checkpoint set version = version - 1 where projection = 'thread_list'").await;
    let running = lab.start().await;
    let more = Recorded::history(37, 100);
    lab.append(&more).await;
    lab.until("the new rows are live", "select min(built) = 1 from checkpoint where projection = 'thread_list'").await;
    lab.all_shown().await;
    let left = "select count(*) = 0 from pg_namespace where nspname = 'rebuild'";
    lab.until("nothing is left of the rebuild", left).await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&[history, more].concat()).await.rows().await);
    assert_eq!(lab.value(VERSIONS).await, versions);
    let others = "select max(built) from checkpoint where projection <> 'thread_list'";
    assert_eq!(lab.value(others).await, 0, "what is of this version stays");
}

#[tokio::test]
async fn rows_of_a_newer_version_are_left_alone_until_it_is_this_releases() {
    let history = Recorded::history(41, 200);
    let lab = Lab::with(&history).await;
    let stand = "select json_agg(c order by shard) from checkpoint c where projection = 'thread_list'";
    let newer = "update checkpoint set version = version + 1 where projection = 'thread_list'";
    lab.execute(newer).await;
    let before = lab.value(stand).await;
    let running = lab.start().await;
    let more = Recorded::history(43, 100);
    lab.append(&more).await;
    lab.until(
        "the other projections show everything",
        "select count(*) filter (where c.position = coalesce(h.position, 0)) = 6 * 64
        from checkpoint c
        left join (select shard, max(position) as position from events group by shard) h using (shard)
        where projection <> 'thread_list'",
    )
    .await;
    assert_eq!(lab.value(stand).await, before, "an older release does not write them");
    // The way back: the operator of the older release has its rows made again.
    let back = lab.rebuild(&["thread_list"], None).await.expect("it begins");
    back.swap(&Counted::default()).await.expect("swapped");
    let last = Recorded::history(44, 50);
    lab.append(&last).await;
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&[history, more, last].concat()).await.rows().await);
}

#[tokio::test]
async fn an_event_that_only_the_new_version_cannot_fold_is_passed_by_once_it_is_said() {
    let community = CommunityId::new();
    let lab = Lab::new().await;
    let impossible = impossible(community);
    lab.append(&[Recorded::created(community, "tea"), impossible.clone(), Recorded::renamed(community, "cha")]).await;
    // As a release would leave it that took no offence.
    let running = lab.start().await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    for projection in ["thread_list", "thread_page"] {
        projector::skip((&lab.pool, &lab.pool), projection, Shard::of_community(community), "for now", "ada")
            .await
            .expect("skipped");
    }
    lab.all_shown().await;
    running.stop().await;
    lab.execute("alter table skips disable trigger user").await;
    lab.execute("delete from skips").await;
    lab.execute("alter table skips enable trigger user").await;
    lab.execute("update checkpoint set version = version - 1 where projection in ('thread_list', 'thread_page')").await;
    let stopped = lab.rebuild(&["thread_list"], None).await.expect("it begins");
    let stopped = stopped.swap(&Counted::default()).await.expect_err("it cannot be folded").to_string();
    let id: Uuid =
        serde_json::from_value(lab.value("select event_id from events where position = 2").await).expect("an id");
    let command = format!("agora projections skip thread_list --event {id} --reason WHY");
    assert!(stopped.contains(&command), "{stopped}");
    let running = lab.start().await;
    for projection in ["thread_list", "thread_page"] {
        let skipped = projector::skip_event(&lab.pool, projection, EventId(id), "a test", "ada").await;
        assert_eq!(skipped.expect("skipped"), Some(2));
    }
    let none = projector::skip_event(&lab.pool, "thread_list", EventId::new(), "a test", "ada").await;
    assert_eq!(none.expect("asked"), None);
    lab.until("the new rows are live", "select min(built) = 1 from checkpoint where projection = 'thread_page'").await;
    lab.all_shown().await;
    running.stop().await;
}

#[tokio::test]
async fn rows_of_another_version_are_not_compared() {
    let lab = Lab::with(&Recorded::history(47, 50)).await;
    lab.execute("update checkpoint set version = version - 1 where projection = 'account'").await;
    let rebuild = lab.rebuild(&["account"], None).await.expect("it begins");
    let refused = rebuild.compare(10, &Counted::default()).await.expect_err("refused").to_string();
    assert!(refused.contains("account is at version 0 here and of version 1 in this release"), "{refused}");
}

/// From how many events on they are folded beside the live tables, and some more.
const LONG: usize = 10_100;

#[tokio::test]
async fn read_tables_of_a_long_history_begin_beside_the_live_ones() {
    let history = Recorded::history(53, LONG);
    let lab = Lab::with(&history).await;
    assert_eq!(lab.value("select min(built) from checkpoint").await, 1, "what was built took the place of nothing");
    let folded = Lab::with(&history[..LONG / 2]).await;
    let running = folded.start().await;
    folded.append(&history[LONG / 2..]).await;
    folded.all_shown().await;
    running.stop().await;
    assert_eq!(folded.value("select max(built) from checkpoint").await, 0, "it went on where it was");
    assert_eq!(lab.rows().await, folded.rows().await);
    assert_eq!(lab.value(VERSIONS).await, folded.value(VERSIONS).await);
}

#[tokio::test]
async fn one_event_of_a_long_history_that_cannot_be_folded_holds_up_one_shard() {
    let community = CommunityId::new();
    let wrong = [Recorded::created(community, "tea"), impossible(community), Recorded::renamed(community, "cha")];
    let lab = Lab::new().await;
    lab.append(&[&wrong, &Recorded::history(59, LONG)[..]].concat()).await;
    let running = lab.start().await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    lab.until(
        "all else is shown",
        "select count(*) filter (where c.position = coalesce(h.position, 0)) = 7 * 64 - 2
        from checkpoint c left join (select shard, max(position) as position from events group by shard) h using (shard)",
    )
    .await;
    let left = "select count(*) = 0 from pg_namespace where nspname = 'rebuild'";
    lab.until("nothing is left of what was built", left).await;
    running.stop().await;
}

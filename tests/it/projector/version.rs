//! Projections of another version than this release's: older rows are made anew beside, newer ones left alone.

use super::lab::{Lab, Recorded};

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
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&[history, more].concat()).await.rows().await);
    assert_eq!(lab.value(VERSIONS).await, versions);
    let others = "select max(built) from checkpoint where projection <> 'thread_list'";
    assert_eq!(lab.value(others).await, 0, "what is of this version stays");
    let left = lab.value("select count(*) from pg_namespace where nspname = 'rebuild'").await;
    assert_eq!(left, 0, "nothing is left of the rebuild");
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
    let refused = lab.rebuild(&["thread_list"], None).await.err().expect("refused").to_string();
    assert!(refused.contains("a newer release has made thread_list (version 2, here 1)"), "{refused}");
    lab.execute("update checkpoint set version = version - 1 where projection = 'thread_list'").await;
    lab.all_shown().await;
    running.stop().await;
    assert_eq!(lab.rows().await, Lab::with(&[history, more].concat()).await.rows().await);
}

#[tokio::test]
async fn rows_of_another_version_are_not_compared() {
    let lab = Lab::with(&Recorded::history(47, 50)).await;
    lab.execute("update checkpoint set version = version - 1 where projection = 'account'").await;
    let rebuild = lab.rebuild(&["account"], None).await.expect("it begins");
    let refused = rebuild.compare(10, &super::rebuild::Counted::default()).await.expect_err("refused").to_string();
    assert!(refused.contains("account is at version 0 here and of version 1 in this release"), "{refused}");
}

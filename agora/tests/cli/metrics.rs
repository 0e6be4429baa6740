//! What who scrapes learns of each projection in each shard.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Connection as _;

use crate::{
    agora::{Agora, Up},
    client::Client,
    postgres, tables,
};

/// The value that a projection's gauge has, with these labels beside its name.
async fn gauge(guest: &Client, up: &Up, name: &str, projection: &str, label: &str) -> Option<i64> {
    let (_, metrics) = guest.ask(&up.metrics).await;
    let projection = format!("projection=\"{projection}\"");
    let is_it = |line: &&str| {
        let its = line.strip_prefix(&format!("agora_projection_{name}"));
        its.is_some_and(|rest| rest.starts_with('{') && rest.contains(&projection) && rest.contains(label))
    };
    metrics.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
}

async fn until(guest: &Client, up: &Up, (name, label): (&str, &str), expected: i64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let found = gauge(guest, up, name, "community", label).await;
        if found == Some(expected) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} is {found:?}, not {expected}");
    }
}

#[tokio::test]
async fn position_lag_and_state_of_each_shard_are_scraped() {
    let agora = Agora::new();
    let url = postgres::fresh_database().await;
    let up = Up::start(agora.up_on(&url));
    let ada = Client::of(&up).register("ada").await;
    ada.post("/v2/communities", &json!({"slug": "tea", "name": "Tea", "description": ""})).await;
    let mut database = tables::caught_up(&url).await;
    let newest = sqlx::query_as("select shard, position from events order by position desc limit 1");
    let (shard, position): (i16, i64) = newest.fetch_one(&mut database).await.expect("an event");

    let guest = Client::of(&up);
    let label = format!("shard=\"{shard}\"");
    let until = async |name: &str, expected| until(&guest, &up, (&format!("shard_{name}"), &label), expected).await;
    until("position", position).await;
    until("lag", 0).await;
    until("state", 0).await;
    assert_eq!(
        gauge(&guest, &up, "shard_state", "thread_page", "shard=\"63\"").await,
        Some(0),
        "every shard of every projection"
    );

    // One of a release to come, which nobody here knows.
    sqlx::query(
        "insert into events select aggregate_type, aggregate_id, sequence + 1, 'tea.made', '1', '{}', metadata,
            position + 1, shard, gen_random_uuid(), community_id, recorded_at
        from events order by position desc limit 1",
    )
    .execute(&mut database)
    .await
    .expect("written");
    until("state", 3).await;
    until("lag", 1).await;
    until("position", position).await;
}

#[tokio::test]
async fn a_rebuild_is_scraped_while_it_is_on() {
    let agora = Agora::new();
    let url = postgres::fresh_database().await;
    let up = Up::start(agora.up_on(&url));
    let mut database = tables::caught_up(&url).await;
    let guest = Client::of(&up);
    until(&guest, &up, ("rebuilding", ""), 0).await;
    // It cannot take the place of what somebody reads.
    let mut held = database.begin().await.expect("begins");
    sqlx::query("lock table read.community in access share mode").execute(&mut *held).await.expect("locked");
    let mut rebuild =
        agora.command(&["projections", "rebuild", "community", "--database-url", &url]).spawn().expect("it runs");
    until(&guest, &up, ("rebuilding", ""), 1).await;
    held.rollback().await.expect("given back");
    assert!(rebuild.wait().expect("it ends").success());
    until(&guest, &up, ("rebuilding", ""), 0).await;
}

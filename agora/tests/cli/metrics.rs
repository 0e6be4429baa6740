//! What who scrapes learns of each projection in each shard.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    agora::{Agora, Up},
    client::Client,
    postgres, tables,
};

/// The value that a projection's gauge has in a shard.
async fn gauge(guest: &Client, up: &Up, name: &str, projection: &str, shard: i16) -> Option<i64> {
    let (_, metrics) = guest.ask(&up.metrics).await;
    let labels = [format!("projection=\"{projection}\""), format!("shard=\"{shard}\"")];
    let is_it = |line: &&str| {
        let its = line.strip_prefix(&format!("agora_projection_shard_{name}"));
        its.is_some_and(|rest| rest.starts_with('{') && labels.iter().all(|label| rest.contains(&**label)))
    };
    metrics.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
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
    let until = async |name: &str, expected: i64| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let found = gauge(&guest, &up, name, "community", shard).await;
            if found == Some(expected) {
                return;
            }
            assert!(Instant::now() < deadline, "{name} is {found:?}, not {expected}");
        }
    };
    until("position", position).await;
    until("lag", 0).await;
    until("state", 0).await;
    assert_eq!(gauge(&guest, &up, "state", "thread_page", 63).await, Some(0), "every shard of every projection");

    // One of a release to come, which nobody here knows.
    sqlx::query(
        "with head as (update store_head set position = position + 1 returning position)
        insert into events select aggregate_type, aggregate_id, sequence + 1, 'tea.made', '1', '{}', metadata,
            head.position, shard, gen_random_uuid(), community_id, recorded_at
        from events e, head where e.position = head.position - 1",
    )
    .execute(&mut database)
    .await
    .expect("written");
    until("state", 3).await;
    until("lag", 1).await;
    until("position", position).await;
}

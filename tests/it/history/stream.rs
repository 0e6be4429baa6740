//! The history as it goes on: nothing missing, nothing twice, and for nobody who may not read it.

use std::time::{Duration, Instant};

use agora_tests::{
    forum::{Person, TestForum},
    sse::{Event, EventSource},
};
use serde_json::{Value, json};

use super::{EVENTS, positions};

/// A stream ends within this time after its reader lost what it takes: it is looked every 5 s.
const LOST_WITHIN: Duration = Duration::from_secs(30);

async fn open(forum: &TestForum, reader: &Person<'_>, query: &str, headers: &[(&str, &str)]) -> EventSource {
    EventSource::open(&format!("{}{EVENTS}{query}", forum.url), reader.token(), headers).await
}

async fn refused(forum: &TestForum, reader: &Person<'_>, query: &str, headers: &[(&str, &str)]) -> (u16, Value) {
    let answer = EventSource::ask(&format!("{}{EVENTS}{query}", forum.url), reader.token(), headers).await;
    (answer.status().as_u16(), answer.json().await.expect("a problem"))
}

fn positions_of(events: &[Event]) -> Vec<Value> {
    events.iter().map(|event| event.data["position"].clone()).collect()
}

fn bodies(events: &[Event]) -> Vec<&Value> {
    events.iter().map(|event| &event.data["data"]["body"]).collect()
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens_and_after_an_interruption_goes_on_behind_the_last() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    let mut stream = open(&forum, &operator, "", &[("accept-encoding", "gzip, br")]).await;
    ada.reply(&thread, "one").await;
    let told = stream.take(1).await;
    assert_eq!((told[0].name.as_str(), bodies(&told)), ("post.written", vec![&json!("one")]));
    let paged = operator.get(&format!("{EVENTS}?type=post.written&limit=100")).await.expect(200);
    assert_eq!(paged["items"].as_array().and_then(|items| items.last()), Some(&told[0].data), "as a page has it");
    let last = told[0].id.clone();
    drop(stream);
    for body in ["two", "three"] {
        ada.reply(&thread, body).await;
    }
    let mut stream = open(&forum, &operator, "?from=0", &[("last-event-id", &last)]).await;
    ada.reply(&thread, "four").await;
    assert_eq!(bodies(&stream.take(3).await), ["two", "three", "four"], "the id goes before `from`");

    // From the beginning, across a restart: every event once.
    let mut all = open(&forum, &operator, "?from=0", &[]).await;
    let mut told = all.take(7).await;
    let (url, token) = (forum.database_url.clone(), operator.token().to_owned());
    let began = Instant::now();
    forum.stop().await;
    assert!(began.elapsed() < Duration::from_secs(8), "streams do not hold a stop up");
    while let Some(event) = all.next().await {
        told.push(event);
    }
    let forum = TestForum::start_on(url, |_| {}).await;
    let expected = positions(&forum.pool, "true").await;
    let resumed = format!("{}{EVENTS}", forum.url);
    let mut all = EventSource::open(&resumed, &token, &[("last-event-id", &all.last_id)]).await;
    told.extend(all.take(expected.len() - told.len()).await);
    assert_eq!(positions_of(&told), expected);
    forum.stop().await;
}

#[tokio::test]
async fn an_admin_hears_of_its_community_and_of_the_names_that_it_asks_for() {
    let forum = TestForum::start().await;
    let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
    let (tea, mug) = (forum.community(&ada, "tea").await, forum.community(&bob, "mug").await);
    ada.get("/v2/communities/tea").await.expect(200);
    let mut hers = open(&forum, &ada, "?community=tea", &[]).await;
    let mut locks = open(&forum, &operator, "?type=thread.locked,thread.unlocked", &[]).await;
    let begun = locks.last_id.clone();
    let (other, _) = bob.thread(&mug, "Other").await;
    let (thread, _) = ada.thread(&tea, "Talk").await;
    for path in [format!("/v2/threads/{other}/lock"), format!("/v2/threads/{thread}/lock")] {
        let by = if path.contains(&other) { &bob } else { &ada };
        by.put(&path, &json!({})).await.expect(200);
    }
    let names = |events: &[Event]| events.iter().map(|event| event.name.clone()).collect::<Vec<_>>();
    let told = hers.take(3).await;
    assert_eq!(names(&told), ["thread.started", "post.written", "thread.locked"]);
    assert!(told.iter().all(|event| event.data["community"] == json!(tea.id)));
    let told = locks.take(2).await;
    assert_eq!(names(&told), ["thread.locked", "thread.locked"]);
    assert_ne!(begun, told[0].id);
    for (query, status) in
        [("", 403), ("?community=mug", 403), ("?community=tea&limit=2", 422), ("?community=tea&to=1", 422)]
    {
        assert_eq!(refused(&forum, &ada, query, &[]).await.0, status, "{query}");
    }
    forum.stop().await;
}

#[tokio::test]
async fn who_may_not_read_any_more_hears_no_more() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    forum.community(&ada, "tea").await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "admin"})).await.expect(200);
    bob.get_after(&ada, "/v2/communities/tea").await.expect(200);
    let mut his = open(&forum, &bob, "?community=tea", &[]).await;
    let mut hers = open(&forum, &ada, "?community=tea", &[]).await;
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "member"})).await.expect(200);
    let began = Instant::now();
    // That it is so is the last that he hears, and what connecting again would be answered.
    assert_eq!(his.next().await.map(|event| event.name).as_deref(), Some("membership.role_revoked"));
    assert_eq!(problem(his.next().await), Some((403, "/problems/role-required".to_owned())));
    let (status, refusal) = refused(&forum, &bob, "?community=tea", &[("last-event-id", &his.last_id)]).await;
    assert_eq!((status, &refusal["type"]), (403, &json!("/problems/role-required")));
    assert_eq!((his.next().await, &*his.retry), (None, "60000"), "it will be no better in two seconds");
    assert!(began.elapsed() < LOST_WITHIN);
    assert_eq!(hers.take(1).await[0].name, "membership.role_revoked");
    // A ban takes it, too.
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "admin"})).await.expect(200);
    bob.get_after(&ada, "/v2/communities/tea").await.expect(200);
    let mut his = open(&forum, &bob, "?community=tea&type=membership.banned", &[]).await;
    ada.put("/v2/communities/tea/members/bob/ban", &json!({"reason": "rude"})).await.expect(200);
    assert_eq!(his.next().await.map(|event| event.name).as_deref(), Some("membership.banned"));
    assert_eq!(problem(his.next().await), Some((403, "/problems/role-required".to_owned())));
    assert_eq!(his.next().await, None);
    assert_eq!(
        (hers.take(1).await[0].name.as_str(), hers.take(1).await[0].name.as_str()),
        ("membership.role_assigned", "membership.banned")
    );
    ada.delete("/v2/sessions/current").await.expect(200);
    let began = Instant::now();
    assert_eq!(problem(hers.next().await), Some((401, "/problems/session-ended".to_owned())));
    assert_eq!(hers.next().await, None);
    assert!(began.elapsed() < LOST_WITHIN);
    forum.stop().await;
}

/// What a stream ended with.
fn problem(event: Option<Event>) -> Option<(u64, String)> {
    let event = event.filter(|event| event.name == "problem")?;
    Some((event.data["status"].as_u64()?, event.data["type"].as_str()?.to_owned()))
}

#[tokio::test]
async fn who_catches_up_hears_nothing_behind_a_change_of_its_role_either() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    forum.community(&ada, "tea").await;
    bob.put("/v2/communities/tea/members/me", &json!({})).await.expect(200);
    ada.put("/v2/communities/tea/members/bob/role", &json!({"role": "admin"})).await.expect(200);
    ada.patch("/v2/communities/tea", &json!({"name": "Teas"})).await.expect(200);
    bob.get_after(&ada, "/v2/communities/tea").await.expect(200);
    let (mut told, mut last) = (Vec::new(), String::new());
    for ends_with in ["membership.joined", "membership.role_assigned"] {
        let ids: &[_] = if last.is_empty() { &[] } else { &[("last-event-id", &*last)] };
        let mut his = open(&forum, &bob, "?community=tea&from=0", ids).await;
        while let Some(event) = his.next().await {
            told.push(event.name);
        }
        assert_eq!(told.last().map(String::as_str), Some(ends_with), "a new request looks at what he is now");
        last = his.last_id;
    }
    assert!(!told.iter().any(|name| name == "community.settings_changed"), "{told:?}");
    let mut his = open(&forum, &bob, "?community=tea", &[("last-event-id", &last)]).await;
    assert!(his.next().await.is_some_and(|event| event.name.starts_with("community.")), "he is an admin, and goes on");
    forum.stop().await;
}

#[tokio::test]
async fn an_account_has_so_many_streams_and_each_that_ends_makes_room() {
    let forum = TestForum::start().await;
    let operator = forum.operator().await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(open(&forum, &operator, "", &[]).await);
    }
    let (status, problem) = refused(&forum, &operator, "", &[]).await;
    assert_eq!((status, &problem["type"]), (429, &json!("/problems/too-many-streams")));
    streams.pop();
    let began = Instant::now();
    // The server hears of it when the connection ends.
    let url = format!("{}{EVENTS}", forum.url);
    while EventSource::ask(&url, operator.token(), &[]).await.status() != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "a stream that ended makes room");
    }
    forum.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_its_time_misses_nothing() {
    let forum = TestForum::start().await;
    let (ada, operator) = (forum.person("ada").await, forum.operator().await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Long").await;
    let mut stream = open(&forum, &operator, "?type=post.written", &[]).await;
    // More than its connection, and the batches that are kept for it, hold.
    let long = "long ".repeat(18_000);
    for n in 0..160 {
        ada.reply(&thread, &format!("{n} {long}")).await;
    }
    let told = stream.take(160).await;
    let numbers =
        bodies(&told).into_iter().map(|body| body.as_str().and_then(|body| body.split(' ').next()?.parse().ok()));
    assert_eq!(numbers.collect::<Option<Vec<i32>>>().expect("bodies"), (0..160).collect::<Vec<_>>());
    forum.stop().await;
}

#[tokio::test]
async fn of_a_store_that_was_restored_a_stream_ends_and_its_id_is_lost() {
    let forum = TestForum::start().await;
    let operator = forum.operator().await;
    let mut stream = open(&forum, &operator, "", &[]).await;
    let id = stream.last_id.clone();
    for bad in ["x", "1.2"] {
        let (status, problem) = refused(&forum, &operator, "", &[("last-event-id", bad)]).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (400, &json!("last-event-id")));
    }
    let (history, _) = id.split_once('.').expect("a history and a position");
    let (status, _) = refused(&forum, &operator, "", &[("last-event-id", &format!("{history}.999999"))]).await;
    assert_eq!(status, 410, "the store never was there");
    sqlx::query("update history_line set history = gen_random_uuid()").execute(&forum.pool).await.expect("restored");
    assert_eq!(problem(stream.next().await), Some((410, "/problems/history-lost".to_owned())));
    assert_eq!(stream.next().await, None);
    let (status, problem) = refused(&forum, &operator, "", &[("last-event-id", &id)]).await;
    assert_eq!((status, &problem["type"]), (410, &json!("/problems/history-lost")));
    forum.stop().await;
}

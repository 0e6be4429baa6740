//! `agora check`: a history as it should be passes, and each way of being broken is told.

use events::{CommunityId, EventId, Shard};
use projector::{
    LeaveOut, Refused, Said,
    check::{self, Checked},
};
use store_reader::StoreReader;

use super::{
    impossible,
    lab::{Lab, Recorded},
};

/// The promises that are broken.
async fn broken(lab: &Lab) -> Vec<Checked> {
    let store = StoreReader::new(lab.pool.clone());
    let mut all = check::store(&store, &|_| ()).await.expect("it is checked");
    all.extend(check::counts(&lab.pool).await.expect("it is checked"));
    all.retain(|checked| !checked.broken.is_empty());
    all
}

/// The same of each shard by itself.
async fn broken_in_a_shard(lab: &Lab) -> Vec<Checked> {
    let (store, mut all) = (StoreReader::new(lab.pool.clone()), Vec::new());
    for shard in Shard::all() {
        all.extend(check::shard(&store, shard).await.expect("it is checked"));
    }
    all.retain(|checked| !checked.broken.is_empty());
    all
}

/// Promises that take the events of all shards, or the read tables.
const NOT_OF_A_SHARD: [&str; 4] = ["positions go from 1", "no two accounts", "a thread counts", "a tag counts"];

/// A history that is as it should be, with the claims of its names.
async fn whole() -> Lab {
    let lab = Lab::with(&Recorded::history(43, 300)).await;
    lab.execute(
        "insert into claims select 'username', lower(payload->>'username'), aggregate_id from events
         where event_type in ('account.registered', 'account.imported')",
    )
    .await;
    lab.execute("insert into claims select 'slug', slug, community_id::text from community").await;
    lab.execute("alter table events disable trigger user").await;
    lab
}

#[tokio::test]
async fn what_is_as_it_should_be_passes() {
    let lab = whole().await;
    let broken = broken(&lab).await;
    assert!(broken.is_empty(), "{broken:#?}");
    let broken = broken_in_a_shard(&lab).await;
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn what_two_projections_say_is_not_compared_where_one_of_them_has_stopped() {
    let (lab, community) = (whole().await, CommunityId::new());
    let running = lab.start().await;
    lab.append(&[Recorded::created(community, "stopped"), impossible(community)]).await;
    lab.until("both stop", "select count(*) = 2 from parked").await;
    let shard = Shard::of_community(community);
    projector::skip((&lab.pool, &lab.pool), "thread_list", shard, "a test", "ada").await.expect("skipped");
    lab.until("one goes on", "select count(*) = 1 from parked").await;
    lab.until(
        "it does",
        "select max(position) > min(position) from checkpoint where projection like 'thread%' and shard =
        (select shard from parked)",
    )
    .await;
    let found = check::counts(&lab.pool).await.expect("it is checked");
    let unknown: Vec<_> = found.iter().filter_map(|checked| checked.unknown.as_deref()).collect();
    assert!(
        unknown.len() == 2 && unknown.iter().all(|why| why.contains("thread_list and thread_page stand at")),
        "{unknown:?}"
    );
    assert!(found.iter().all(|checked| checked.broken.is_empty()), "{found:#?}");
    running.stop().await;
}

#[tokio::test]
async fn each_broken_promise_is_told_with_its_place() {
    let cases = [
        ("delete from events where position = 150", "positions go from 1 to the head"),
        ("update events set recorded_at = recorded_at - interval '1 s' where position = 150", "time never falls"),
        (
            "update events set sequence = sequence + 1 where position = (
                select max(position) from events where sequence > 1)",
            "no stream has a hole",
        ),
        ("update events set shard = (shard + 1) % 64 where position = 150", "every event is of its community's shard"),
        ("update events set event_version = '99' where position = 150", "every event can be read"),
        ("update claims set owner = 'nobody' where value = (select min(value) from claims)", "a name is claimed"),
        ("insert into claims values ('username', 'ghost', 'nobody')", "a name is claimed"),
        (
            "update events set payload = jsonb_set(payload::jsonb, '{username}', to_jsonb((
                select payload->>'username' from events where event_type = 'account.registered' order by position limit 1)))
             where position = (select max(position) from events where event_type = 'account.registered')",
            "no two accounts",
        ),
        (
            "update events set payload = jsonb_set(payload::jsonb, '{revision}', '7')
             where position = (select max(position) from events where event_type = 'post.edited')",
            "the revisions of a post",
        ),
        (
            "update events set payload = jsonb_set(payload::jsonb, '{depth}', '9')
             where position = (select max(position) from events where event_type = 'post.written')",
            "a reply is below a post",
        ),
        (
            "update events set payload = jsonb_set(payload::jsonb, '{replaced}', '\"down\"')
             where position = (select min(position) from events where event_type = 'reaction.set')",
            "a reaction replaces",
        ),
        ("update thread set replies = replies + 1 where true", "a thread counts its replies"),
        ("update tag_count set threads = threads + 1", "a tag counts its threads"),
    ];
    for (breaking, promise) in cases {
        let lab = whole().await;
        assert!(lab.execute(breaking).await > 0, "{breaking}");
        let broken = broken(&lab).await;
        let told = broken.iter().find(|checked| checked.promise.starts_with(promise));
        assert!(told.is_some_and(|checked| !checked.broken[0].is_empty()), "{breaking}: {broken:#?}");
        // Nobody who has a name is to be found for one that a stranger claims: a job reports these.
        if NOT_OF_A_SHARD.iter().any(|all| promise.starts_with(all)) || breaking.starts_with("insert into claims") {
            continue;
        }
        let broken = broken_in_a_shard(&lab).await;
        assert!(broken.iter().any(|checked| checked.promise.starts_with(promise)), "{breaking}: {broken:#?}");
    }
}

#[tokio::test]
async fn what_rests_on_an_event_that_is_left_out_is_not_judged_and_all_is_where_one_is_repaired() {
    let names = ["account.registered", "community.created", "post.written", "post.edited", "reaction.set"];
    let lab = whole().await;
    for name in names {
        let damage = format!(
            "update events set event_version = '99' where position = (
                select position from events e where event_type = '{name}' and event_version = '1'
                order by (select count(*) from events f where f.aggregate_id = e.aggregate_id) desc limit 1)"
        );
        assert_eq!(lab.execute(&damage).await, 1, "{name}");
        let told = broken(&lab).await;
        assert!(told.len() == 1 && told[0].promise == "every event can be read", "{name}: {told:#?}");
        let id = lab.value("select event_id from events where event_version = '99' order by position limit 1").await;
        let id = EventId(serde_json::from_value(id).expect("an id"));
        let store = StoreReader::new(lab.pool.clone());
        let what = LeaveOut { event: id, reason: "a test", by: "ada", unknown: true };
        match projector::leave_out(&store, what).await {
            Ok(_) => {}
            Err(Refused::Begins { .. }) => {
                let said = Said { version: Some(1), ..Said::default() };
                projector::repair(&store, &lab.pool, id, said, ("a test", "ada")).await.expect("repaired");
            }
            Err(refused) => panic!("{name}: {refused}"),
        }
        assert!(broken(&lab).await.is_empty() && broken_in_a_shard(&lab).await.is_empty(), "{name}");
        lab.execute("update events set event_version = '1' where event_version = '99'").await;
        lab.execute("delete from skips").await;
    }
}

#[tokio::test]
async fn of_much_that_is_broken_the_first_places_are_told() {
    let lab = whole().await;
    lab.execute("update events set shard = (shard + 1) % 64").await;
    let broken = broken(&lab).await;
    let shards = broken.iter().find(|checked| checked.promise.starts_with("every event is of")).expect("broken");
    assert!(shards.broken.len() == 10 && shards.more, "{shards:?}");
}

#[tokio::test]
async fn a_count_that_is_wrong_is_told_in_words_with_what_was_counted() {
    let lab = whole().await;
    lab.execute("update member_count set members = 977").await;
    let broken = broken(&lab).await;
    let members = broken.iter().find(|checked| checked.promise == "a community counts its members").expect("broken");
    let (place, counted) = members.broken[0].rsplit_once(' ').expect("words");
    assert!(place.starts_with("community_id ") && place.ends_with(", members 977, counted_members"), "{place}");
    assert!(counted.parse::<i64>().is_ok_and(|counted| counted < 977), "{counted}");
}

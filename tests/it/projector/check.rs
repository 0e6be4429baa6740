//! `agora check`: a history as it should be passes, and each way of being broken is told.

use events::{CommunityId, EventId, PostId, Shard, Stream};
use projector::{
    LeaveOut, Refused, RepairWith, Said,
    check::{self, Checked},
    rebuild::Silent,
};
use serde_json::json;
use store_reader::StoreReader;

use super::{
    impossible,
    lab::{Lab, Recorded},
};

/// The promises that are broken.
async fn broken(lab: &Lab) -> Vec<Checked> {
    let store = StoreReader::new(lab.pool.clone());
    let mut all = check::store(&store, &|_| ()).await.expect("it is checked");
    all.extend(check::counts(&lab.pool, &lab.pool).await.expect("it is checked"));
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
    let found = check::counts(&lab.pool, &lab.pool).await.expect("it is checked");
    let unknown: Vec<_> = found.iter().filter_map(|checked| checked.unknown.as_deref()).collect();
    assert!(
        unknown.len() == 2 && unknown.iter().all(|why| why.contains("thread_list and thread_page stand at")),
        "{unknown:?}"
    );
    assert!(found.iter().all(|checked| checked.broken.is_empty()), "{found:#?}");
    running.stop().await;
}

/// Lets a projection pass by the event at which it stopped.
async fn pass_by(lab: &Lab, projection: &str) {
    lab.until("it stops", "select count(*) = 1 from parked").await;
    let shard = serde_json::from_value(lab.value("select shard from parked").await).expect("a shard");
    projector::skip((&lab.pool, &lab.pool), projection, shard, "a test", "ada").await.expect("skipped");
    lab.all_shown().await;
}

#[tokio::test]
async fn what_a_projection_was_told_to_do_without_breaks_no_promise_and_hides_no_other() {
    let lab = whole().await;
    let running = lab.start().await;
    let post = lab.value("select min(post_id::text) from thread_post where not deleted and not hidden").await;
    let post = post.as_str().expect("a post").to_owned();
    let found = "select json_build_array(thread_id, community_id) from post where post_id = ";
    let ids = lab.value(&format!("{found} '{post}'")).await;
    let community = serde_json::from_value(ids[1].clone()).expect("an id");
    let stream = Stream::post(post.parse().map(PostId).expect("an id"));
    // Damage by hand, and a change of what is not there: the list stops, the page goes on.
    lab.execute(&format!("delete from thread_post where post_id = '{post}'")).await;
    lab.append(&[Recorded::raw(community, stream, "post.deleted", &json!({"thread": ids[0]}))]).await;
    pass_by(&lab, "thread_list").await;
    let rebuild = lab.rebuild(&["thread_list"], None).await.expect("it begins");
    rebuild.swap(&Silent).await.expect("swapped");
    let found = check::counts(&lab.pool, &lab.pool).await.expect("it is checked");
    assert!(found.iter().all(|checked| checked.broken.is_empty()), "{found:#?}");
    let passed_by: Vec<_> = found.iter().filter(|it| it.passed_by > 0).map(|it| (it.promise, it.passed_by)).collect();
    assert_eq!(passed_by, [("lists and pages know the same posts", 1)]);

    // Of any other post it is told, in the same shard, too; and of this one what is none of that projection's.
    let other = format!("post_id = (select max(post_id::text)::uuid from thread_post where post_id <> '{post}')");
    assert_eq!(lab.execute(&format!("update thread_post set author_id = gen_random_uuid() where {other}")).await, 1);
    lab.execute(&format!("update post set score = score + 1 where post_id = '{post}'")).await;
    let broken = broken(&lab).await;
    let of =
        |promise| broken.iter().find(|checked| checked.promise == promise).map(|it| (it.broken.len(), it.passed_by));
    assert_eq!(of("lists and pages know the same posts"), Some((1, 1)), "{broken:#?}");
    assert_eq!(of("a post counts its reactions"), Some((1, 0)), "{broken:#?}");
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
        (
            "update events set payload = jsonb_set(payload::jsonb, '{account}', to_jsonb(gen_random_uuid())) where position = (
                select min(position) from events where event_type = 'membership.joined')",
            "every event is of the stream",
        ),
        (
            "update events set payload = jsonb_set(payload::jsonb, '{category}', to_jsonb(gen_random_uuid())) where position = (
                select min(position) from events where event_type = 'thread.started')",
            "posts, threads and categories that belong together",
        ),
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
                let with = RepairWith { event: id, said, reason: "a test", by: "ada", unknown: true };
                projector::repair(&store, with).await.expect("repaired");
            }
            Err(refused) => panic!("{name}: {refused}"),
        }
        assert!(broken(&lab).await.is_empty() && broken_in_a_shard(&lab).await.is_empty(), "{name}");
        lab.execute("update events set event_version = '1' where event_version = '99'").await;
        lab.execute("alter table skips disable trigger user").await;
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

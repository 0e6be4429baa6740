//! An event that nobody can read stops every reader, each with its words; once it is left out, on record, all of them go on.

use agora_tests::{
    forum::{Community, Person, TestForum, text},
    sse::EventSource,
};
use events::EventId;
use projector::{
    LeaveOut, Refused, RepairWith, Repaired, Said,
    check::{self, Checked},
    rebuild::{Purpose, Rebuild, Silent, What},
};
use reqwest::Method;
use serde_json::{Value, json};
use store_reader::StoreReader;
use uuid::Uuid;

const EVENTS: &str = "/v2/events";
/// As events have it.
const METADATA: &str = r#"{"correlation_id": "00000000-0000-0000-0000-000000000000"}"#;
/// A name that no release has; half a character, which Postgres takes for JSON and nobody else; who caused it, in another
/// shape: that one the relay cannot read either.
const DAMAGED: [(&str, &str, &str); 3] = [
    ("tea.made", "{}", METADATA),
    ("thread.locked", r#"{"reason": "\ud800"}"#, METADATA),
    ("thread.locked", "{}", r#"{"correlation_id": 7}"#),
];

/// A forum with a thread, its posts, and a like.
struct Talk<'f> {
    forum: &'f TestForum,
    ada: Person<'f>,
    bob: Person<'f>,
    operator: Person<'f>,
    tea: Community,
    thread: String,
    reply: String,
}

impl<'f> Talk<'f> {
    async fn begin(forum: &'f TestForum) -> Self {
        let (ada, bob, operator) = (forum.person("ada").await, forum.person("bob").await, forum.operator().await);
        let tea = forum.community(&ada, "tea").await;
        let (thread, _) = ada.thread(&tea, "Talk").await;
        let reply = ada.reply(&thread, "one").await;
        bob.put(&format!("/v2/posts/{reply}/reaction"), &json!({"kind": "like"})).await.expect(200);
        Self { forum, ada, bob, operator, tea, thread, reply }
    }

    fn store(&self) -> StoreReader {
        StoreReader::new(self.forum.pool.clone())
    }

    /// What each stream is called, and a command on it that succeeds whatever else happened.
    fn commands(&self, nth: usize) -> [(String, &Person<'f>, Method, String, Value); 3] {
        let Self { ada, bob, thread, reply, .. } = self;
        let (post, kind) = (format!("/v2/posts/{reply}"), ["up", "down", "like"][nth]);
        [
            (
                thread.clone(),
                ada,
                Method::PATCH,
                format!("/v2/threads/{thread}"),
                json!({"title": format!("Talk {nth}")}),
            ),
            (
                reply.clone(),
                ada,
                Method::PATCH,
                post.clone(),
                json!({"body": format!("better {nth}"), "base_revision": nth + 1}),
            ),
            (format!("{reply}.{}", bob.id()), bob, Method::PUT, format!("{post}/reaction"), json!({"kind": kind})),
        ]
    }

    /// Writes the next event of a stream, as it should never have been written.
    async fn damage(&self, stream: &str, (name, payload, metadata): (&str, &str, &str)) -> (EventId, i64) {
        let damaged =
            "insert into events (aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                position, shard, event_id, community_id, recorded_at)
            select aggregate_type, aggregate_id, sequence + 1, $2, '1', $3::json, $4::json, head.position + 1, shard,
                gen_random_uuid(), community_id, head.recorded_at
            from events e, store_head head where aggregate_id = $1 order by sequence desc limit 1
            returning event_id, position";
        let damaged = sqlx::query_as(damaged).bind(stream).bind(name).bind(payload).bind(metadata);
        let (id, position): (Uuid, i64) = damaged.fetch_one(&self.forum.pool).await.expect("written");
        (EventId(id), position)
    }

    /// Changes events as only who disables the trigger can.
    async fn overwrite(&self, update: &str) {
        let trigger = "trigger events_repaired_on_record";
        let [off, on] = ["disable", "enable"].map(|word| format!("alter table events {word} {trigger}"));
        for sql in [&*off, update, &*on] {
            sqlx::query(sql).execute(&self.forum.pool).await.expect("written");
        }
    }

    /// Waits until a query answers true.
    async fn until(&self, what: &str) {
        let until = async {
            while !sqlx::query_scalar::<_, bool>(what).fetch_one(&self.forum.pool).await.expect("an answer") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), until)
            .await
            .unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn broken(&self) -> Vec<Checked> {
        let mut all = check::store(&self.store(), &|_| ()).await.expect("it is checked");
        all.retain(|checked| !checked.broken.is_empty());
        all
    }

    /// What the read tables differ in from what the events say.
    async fn differences(&self) -> usize {
        let config = &self.forum.config;
        let rebuild = Rebuild::begin(&config.database, config.read_tables(), What::everything(Purpose::Look)).await;
        let rebuild = rebuild.expect("it begins");
        let compared = rebuild.compare(10, &Silent).await.expect("compared");
        rebuild.discard().await.expect("discarded");
        assert!(compared.rows > 0);
        compared.differences.len()
    }

    fn as_of(&self, position: i64) -> String {
        format!("/v2/threads/{}/posts?limit=100&as_of={position}", self.thread)
    }

    /// Everybody who meets it stops there.
    async fn all_stop_at(&self, (id, position): (EventId, i64), told: &mut EventSource) {
        let refused = (500, "unreadable-event");
        let page = format!("{EVENTS}?from={}", position - 1);
        let problem = self.operator.elsewhere().refused(Method::GET, &page, Value::Null, refused).await;
        assert!(text(&problem["detail"]).contains(&format!("{id} at position {position}")), "{problem}");
        let end = told.next().await.expect("a last word");
        assert_eq!((&*end.name, &end.data["type"]), ("problem", &json!("/problems/unreadable-event")));
        self.until("select count(*) = 7 from parked").await;
        let broken = self.broken().await;
        let [Checked { promise: "every event can be read", broken, .. }] = &broken[..] else { panic!("{broken:#?}") };
        assert!(broken[0].contains(&format!("agora events skip {id} --reason")), "{broken:?}");
    }

    /// Once it is left out.
    async fn all_go_on_behind(&self, position: i64) {
        self.until("select count(*) = 0 from parked").await;
        let at = format!("{EVENTS}?from={}", position - 1);
        let page = self.operator.get(&at).await.expect(200);
        assert_eq!((&page["items"], page["next"].is_string()), (&json!([]), true), "it is a page of its own");
        let page = self.operator.get(&format!("{at}&cursor={}", text(&page["next"]))).await.expect(200);
        assert_eq!(page["items"][0]["position"], json!((position + 1).to_string()));
        let back = format!("{at}&cursor={}", text(&page["previous"]));
        assert_eq!(self.operator.get(&back).await.expect(200)["items"], json!([]), "and so it is backwards");
        assert!(self.broken().await.is_empty());
        assert_eq!(self.differences().await, 0);
        self.until("select r.position = h.position from relay r, store_head h").await;
    }
}

async fn skip(store: &StoreReader, event: EventId) -> Result<i64, Refused> {
    leave_out(store, event, true).await
}

async fn leave_out(store: &StoreReader, event: EventId, unknown: bool) -> Result<i64, Refused> {
    let what = LeaveOut { event, reason: "a test", by: "ada@here", unknown };
    projector::leave_out(store, what).await.map(|left_out| left_out.position)
}

async fn repair(store: &StoreReader, event: EventId, said: Said) -> Result<Repaired, Refused> {
    let with = RepairWith { event, said, reason: "a test", by: "ada@here", unknown: true };
    projector::repair(store, with).await
}

#[tokio::test]
async fn what_nobody_can_read_stops_every_reader_until_it_is_left_out_once() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    for (nth, damage) in DAMAGED.into_iter().enumerate() {
        for (stream, by, method, path, body) in talk.commands(nth) {
            let head: i64 =
                sqlx::query_scalar("select position from store_head").fetch_one(&forum.pool).await.expect("one");
            let url = format!("{}{EVENTS}?from={head}", forum.url);
            let mut told = EventSource::open(&url, talk.operator.token(), &[]).await;
            let (id, position) = talk.damage(&stream, damage).await;

            let problem = by.refused(method.clone(), &path, body.clone(), (500, "unreadable-event")).await;
            assert!(text(&problem["detail"]).ends_with("Nothing was written."), "{problem}");
            assert!(!problem.to_string().contains(damage.0), "no cause is shown: {problem}");
            talk.all_stop_at((id, position), &mut told).await;
            if stream == talk.thread {
                let then = talk.as_of(position);
                let problem =
                    talk.ada.elsewhere().refused(Method::GET, &then, Value::Null, (500, "unreadable-event")).await;
                // What it says to do instead is done.
                let before = position - 1;
                assert!(text(&problem["detail"]).ends_with(&format!(" before it: as_of={before}.")), "{problem}");
                talk.ada.elsewhere().get(&talk.as_of(before)).await.expect(200);
            }

            assert_eq!(skip(&talk.store(), id).await.expect("left out"), position);
            // What is behind it shows that everybody came to it.
            let mut told = EventSource::open(&url, talk.operator.token(), &[]).await;
            let done = by.send(method, &path, Some(&body), &[]).await.expect(200);
            assert!(!done["version"].is_null(), "{done}");
            assert_eq!(told.next().await.expect("what follows it").data["position"], json!((position + 1).to_string()));
            talk.all_go_on_behind(position).await;
            let now = talk.ada.get_after(by, &format!("/v2/threads/{}/posts?limit=100", talk.thread)).await.expect(200);
            let then = talk.ada.get(&talk.as_of(position + 1)).await.expect(200);
            assert_eq!(then["items"], now["items"], "as the page shows it");
        }
    }
    let on_record = projector::skips(&forum.pool).await.expect("the record");
    assert_eq!(on_record.len(), 9);
    assert!(on_record.iter().all(|skip| skip.projection == store_reader::EVERY_READER && skip.reason == "a test"));
    forum.stop().await;
}

#[tokio::test]
async fn what_an_unread_event_would_have_changed_is_as_it_was_before_it() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    // The last event of a reaction's stream, whose state is shown from that alone elsewhere.
    let stream = format!("{}.{}", talk.reply, talk.bob.id());
    let (id, position) = talk.damage(&stream, ("reaction.cleared", r#"{"thread": 7}"#, METADATA)).await;
    talk.until("select count(*) = 7 from parked").await;
    skip(&talk.store(), id).await.expect("left out");
    talk.until("select count(*) = 0 from parked").await;
    let (other, _) = talk.bob.thread(&talk.tea, "Other").await;
    talk.ada.get_after(&talk.bob, &format!("/v2/threads/{other}")).await.expect(200);
    let then = talk.ada.get(&talk.as_of(position)).await.expect(200);
    assert_eq!(then["items"][1]["reactions"], json!({"like": 1}), "{then}");
    // Whoever liked it knows so: it is no fact that it is liked again.
    let liked = json!({"kind": "like"});
    let again = talk.bob.send(Method::PUT, &format!("/v2/posts/{}/reaction", talk.reply), Some(&liked), &[]).await;
    assert_eq!(again.header("agora-unchanged"), Some("true"), "{again:?}");
    forum.stop().await;
}

#[tokio::test]
async fn what_can_be_read_stays_and_what_is_not_there_is_said() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    let first: Uuid =
        sqlx::query_scalar("select event_id from events where position = 1").fetch_one(&forum.pool).await.expect("one");
    let refused = skip(&talk.store(), EventId(first)).await.expect_err("it can be read");
    assert!(matches!(refused, Refused::Readable { position: 1, .. }), "{refused}");
    assert!(refused.to_string().contains("can be read: it is account.registered version 1"), "{refused}");
    let nothing = EventId::new();
    let refused = skip(&talk.store(), nothing).await.expect_err("there is none").to_string();
    assert_eq!(refused, format!("there is no event {nothing}"));
    // Another release that runs knows it.
    let (id, _) = talk.damage(&talk.thread, DAMAGED[0]).await;
    let knows = "update instances set reads = reads || 'tea.made version 1'::text where service = 'projector'";
    sqlx::query(knows).execute(&forum.pool).await.expect("known");
    let refused = skip(&talk.store(), id).await.expect_err("another reads it").to_string();
    assert!(refused.contains("tea.made version 1, which this release does not know, but projector "), "{refused}");
    sqlx::query("update instances set reads = '{}'").execute(&forum.pool).await.expect("unknown");
    let refused = leave_out(&talk.store(), id, false).await.expect_err("a newer one did").to_string();
    assert!(
        refused.contains("tea.made version 1, which this release does not know: a newer one wrote it"),
        "{refused}"
    );
    assert!(projector::skips(&forum.pool).await.expect("the record").is_empty());
    forum.stop().await;
}

#[tokio::test]
async fn what_begins_a_thing_is_not_left_out_and_a_repair_brings_all_of_it_back() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    let (store, pool) = (talk.store(), &forum.pool);
    talk.ada.get(&format!("/v2/threads/{}", talk.thread)).await.expect(200);
    let begins = "select event_id, payload::text from events where aggregate_id = $1 and sequence = 1";
    let (id, said): (Uuid, String) = sqlx::query_as(begins).bind(&talk.thread).fetch_one(pool).await.expect("one");
    let id = EventId(id);
    // It was read, and is damaged only now.
    talk.overwrite(&format!(
        "update events set payload = '{{\"broken\": 1}}', metadata = '[]' where event_id = '{id}'"
    ))
    .await;
    let refused = skip(&store, id).await.expect_err("all rests on it");
    assert!(matches!(&refused, Refused::Begins { stream, .. } if stream.id == talk.thread), "{refused}");

    let repair = async |said| repair(&store, id, said).await;
    let payload = |text: &str| serde_json::from_str(text).map(Some).expect("JSON");
    let metadata = || serde_json::from_str(METADATA).map(Some).expect("metadata");
    let other = "{\"reason\": \"of a post\"}";
    for (said, why) in [
        (Said { payload: payload(&said), ..Said::default() }, "its metadata: "),
        (Said { metadata: metadata(), ..Said::default() }, "does not decode: "),
        (
            Said {
                name: Some("category.restored".into()),
                payload: payload("{\"category\": \"00000000-0000-0000-0000-000000000000\"}"),
                metadata: metadata(),
                ..Said::default()
            },
            "is no event of thread/",
        ),
        (
            Said {
                name: Some("thread.locked".into()),
                payload: payload(other),
                metadata: metadata(),
                ..Said::default()
            },
            "thread.locked is not what event 1 of thread/",
        ),
        (Said { version: Some(99), payload: payload(other), metadata: metadata(), ..Said::default() }, "unknown event"),
    ] {
        let refused = repair(said).await.expect_err("no better");
        assert!(matches!(refused, Refused::StillUnreadable { .. }) && refused.to_string().contains(why), "{refused}");
    }
    let edit = sqlx::query("update events set payload = '{}' where event_id = $1").bind(id.0).execute(pool).await;
    assert!(edit.expect_err("off the record").to_string().contains("append-only: UPDATE is refused"));
    assert!(projector::repairs(pool).await.expect("the record").is_empty());

    let whole = || Said { payload: payload(&said), metadata: metadata(), ..Said::default() };
    let Repaired { what, .. } = repair(whole()).await.expect("repaired");
    assert_eq!(what, "thread.started version 1");
    // Who repaired it wrongly may do so again, and nobody else is to.
    repair(Said { payload: payload(&said.replace("Talk", "Walk")), ..Said::default() }).await.expect("again");
    repair(whole()).await.expect("and again");
    let repairs = projector::repairs(pool).await.expect("the record");
    let [.., before] = &repairs[..] else { panic!("{repairs:?}") };
    assert!(repairs.len() == 3 && repairs[0].payload.contains("Walk"), "{repairs:?}");
    for edit in ["delete from repairs", "update repairs set reason = ''", "delete from skips"] {
        let edited = sqlx::query(edit).execute(pool).await.expect_err("it is the record").to_string();
        assert!(edited.contains("append-only"), "{edited}");
    }
    let lie =
        "with lie as (insert into repairs (event_id, position, event_type, event_version, payload, metadata, reason,
            repaired_by) select event_id, position, 'lie', event_version, payload, metadata, 'x', 'y' from events
            where position = 1) select";
    let lie = sqlx::query(lie).execute(pool).await.expect_err("it is not what stands there").to_string();
    assert!(lie.contains("a repair is recorded with what stands there"), "{lie}");
    assert_eq!((&*before.payload, &*before.metadata, &*before.by), ("{\"broken\": 1}", "[]", "ada@here"));
    assert!(talk.broken().await.is_empty());
    assert_eq!(talk.differences().await, 0);
    talk.ada.reply(&talk.thread, "it goes on").await;
    forum.stop().await;
}

#[tokio::test]
async fn projections_and_commands_go_on_with_what_a_repair_says() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    let (id, _) = talk.damage(&talk.thread, ("thread.retitled", r#"{"title": 7}"#, METADATA)).await;
    talk.until("select count(*) = 7 from parked").await;
    let said = Said { payload: serde_json::from_str(r#"{"title": "Retitled"}"#).expect("JSON"), ..Said::default() };
    repair(&talk.store(), id, said).await.expect("repaired");
    talk.until("select count(*) = 0 from parked").await;
    let again = json!({"title": "Retitled"});
    let path = format!("/v2/threads/{}", talk.thread);
    let again = talk.ada.send(Method::PATCH, &path, Some(&again), &[]).await;
    assert_eq!(again.header("agora-unchanged"), Some("true"), "commands know: {again:?}");
    talk.ada.reply(&talk.thread, "and on").await;
    let now = talk.ada.get(&path).await.expect(200);
    assert_eq!(now["title"], "Retitled");
    forum.stop().await;
}

#[tokio::test]
async fn what_a_repair_would_break_is_refused_and_what_was_left_out_stays_so() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    let store = talk.store();
    let (id, _) = talk.damage(&talk.reply, ("post.edited", r#"{"broken": 1}"#, METADATA)).await;
    let edited = |revision: u32| Said {
        payload: serde_json::from_value(
            json!({"thread": talk.thread, "revision": revision, "body": "better", "format": "markdown"}),
        )
        .map(Some)
        .expect("JSON"),
        ..Said::default()
    };
    let refused = repair(&store, id, edited(77)).await.expect_err("there is no 76th");
    let Refused::Breaks { breaks, .. } = &refused else { panic!("{refused}") };
    assert!(breaks.starts_with("the revisions of a post are numbered without a gap ("), "{refused}");
    for (said, why) in [
        (Said { stream: Some(format!("post/{}", talk.thread)), ..edited(2) }, "is of post/"),
        (Said { position: Some(1), ..edited(2) }, ", and what is to be put there at 1"),
    ] {
        let refused = repair(&store, id, said).await.expect_err("it is of another").to_string();
        assert!(refused.contains(why), "{refused}");
    }
    repair(&store, id, edited(2)).await.expect("repaired");
    assert!(talk.broken().await.is_empty());

    // A reply of another community, and what somebody else did.
    let oolong = forum.community(&talk.ada, "oolong").await;
    let (elsewhere, _) = talk.ada.thread(&oolong, "Elsewhere").await;
    let written = "select event_id from events where aggregate_id = $1 and sequence = 1";
    let written: Uuid = sqlx::query_scalar(written).bind(&talk.reply).fetch_one(&forum.pool).await.expect("one");
    for (stream, name) in
        [(&talk.reply, "post.written"), (&format!("{}.{}", talk.reply, talk.bob.id()), "reaction.set")]
    {
        talk.overwrite(&format!(
            "update events set payload = jsonb_set(payload::jsonb, '{{thread}}', '7')
                where aggregate_id = '{stream}' and event_type = '{name}'"
        ))
        .await;
    }
    let payload = |of: Value| Said { payload: serde_json::from_value(of).map(Some).expect("JSON"), ..Said::default() };
    let reply = |thread: &str| {
        payload(json!({"thread": thread, "parent": null, "depth": 0, "body": "one", "format": "markdown",
        "author": talk.ada.id()}))
    };
    let refused = repair(&store, EventId(written), reply(&elsewhere)).await.expect_err("it is another community's");
    assert!(refused.to_string().contains("are of one community ("), "{refused}");
    repair(&store, EventId(written), reply(&talk.thread)).await.expect("repaired");
    let liked = "select event_id from events where event_type = 'reaction.set' limit 1";
    let liked: Uuid = sqlx::query_scalar(liked).fetch_one(&forum.pool).await.expect("one");
    let like =
        |account: &str| payload(json!({"thread": talk.thread, "post": talk.reply, "account": account, "kind": "like"}));
    let refused = repair(&store, EventId(liked), like(talk.ada.id())).await.expect_err("it was bob").to_string();
    assert!(refused.contains("reaction.set is no event of reaction/"), "{refused}");
    repair(&store, EventId(liked), like(talk.bob.id())).await.expect("repaired");
    assert!(talk.broken().await.is_empty());

    let (newer, _) = talk.damage(&talk.thread, ("tea.made", "{}", r#"{"correlation_id": 7}"#)).await;
    let said = || Said { name: Some("thread.locked".into()), ..Said::default() };
    let with = RepairWith { event: newer, said: said(), reason: "a test", by: "ada", unknown: false };
    let refused = projector::repair(&store, with).await.expect_err("a newer one wrote it");
    assert!(matches!(refused, Refused::Newer { .. }), "{refused}");
    skip(&store, newer).await.expect("left out");
    let refused = repair(&store, newer, said()).await.expect_err("for good");
    assert!(matches!(refused, Refused::LeftOut(_)), "{refused}");
    forum.stop().await;
}

#[tokio::test]
async fn what_ends_at_its_time_ends_when_a_repair_says_so_and_goes_on_where_its_end_is_left_out() {
    let forum = TestForum::start().await;
    let talk = Talk::begin(&forum).await;
    let store = talk.store();
    let ends = async || -> Vec<String> {
        let ends = sqlx::query_scalar("select kind || ' ' || extract(year from ends_at) from endings order by 1");
        ends.fetch_all(&forum.pool).await.expect("endings")
    };
    let pin = format!("/v2/threads/{}/pin", talk.thread);
    talk.ada.put(&pin, &json!({"until": "2998-06-01T00:00:00Z"})).await.expect(200);
    let (id, _) =
        talk.damage(&talk.thread, ("thread.pinned", r#"{"until": "2997-06-01T00:00:00Z", "broken": 1}"#, "{}")).await;
    assert_eq!(ends().await, ["pin 2997"]);
    let until = |year: u32| Said {
        payload: serde_json::from_value(json!({"until": format!("{year}-06-01T00:00:00Z")})).map(Some).expect("JSON"),
        metadata: serde_json::from_str(METADATA).map(Some).expect("metadata"),
        ..Said::default()
    };
    repair(&store, id, until(2999)).await.expect("repaired");
    assert_eq!(ends().await, ["pin 2999"]);
    let (unpinned, _) = talk.damage(&talk.thread, ("thread.unpinned", "{}", "{}")).await;
    assert!(ends().await.is_empty());
    skip(&store, unpinned).await.expect("left out");
    assert_eq!(ends().await, ["pin 2999"], "it stands again");

    // What a newer release says of an end stays as it was noted, whatever else is repaired in its stream.
    let (locked, _) = talk.damage(&talk.thread, ("thread.locked", "[]", METADATA)).await;
    talk.overwrite("update events set event_version = '2', payload = '{\"ends\": 7}' where event_type = 'thread.pinned' and payload->>'until' like '2999%'").await;
    let said = Said { payload: serde_json::from_str("{}").map(Some).expect("JSON"), ..Said::default() };
    repair(&store, locked, said).await.expect("repaired");
    let (lost, _) = talk.damage(&talk.thread, ("thread.unpinned", "[]", METADATA)).await;
    assert!(ends().await.is_empty());
    skip(&store, lost).await.expect("left out");
    assert!(ends().await.is_empty(), "what stood before it is not known");
    forum.stop().await;
}

//! The whole way: commands over HTTP, the event store, Kafka, read tables, caches, reads. On both brokers.

use std::{collections::BTreeMap, time::Duration};

use agora::history::{
    Asked, Blocks, Part,
    topic::{Arrived, Messages, Topic},
};
use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, TestForum},
    kafka, telemetry,
};
use events::{Delivered, HistoryId};
use futures::{StreamExt, stream};
use platform::kafka::{Broker, KafkaConfig};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use store_reader::StoreReader;

#[tokio::test]
async fn the_tour_on_the_in_process_broker() {
    let forum = TestForum::start().await;
    tour(&forum).await;
    forum.stop().await;
}

#[tokio::test]
async fn the_tour_on_apache_kafka() {
    let forum = TestForum::start_on_kafka(kafka::shared().await.brokers()).await;
    tour(&forum).await;
    messages_are_the_rows(&forum.pool, &forum.broker).await;
    replayed_they_are_the_same(&forum).await;
    forum.stop().await;
}

/// `agora events replay --kafka-topic`: a topic of somebody's own gets what the relay sent.
async fn replayed_they_are_the_same(forum: &TestForum) {
    let store = StoreReader::new(forum.pool.clone());
    let part = Asked::default().look_up(&store).await.expect("everything");
    let own = format!("replayed-{}", uuid::Uuid::now_v7().simple());
    stopped_it_says_what_arrived(forum, &store, &part).await;
    let mut topic = Topic::open(forum.broker.config(), &own, &part, &store).await.expect("it is made");
    let mut blocks = Blocks::<Messages>::of(store, part.clone());
    while let Some(block) = blocks.next().await.expect("events") {
        topic.send(block.gathered).await.expect("Kafka takes them");
    }
    topic.finish().await.expect("they arrive");
    assert_eq!(topic.arrived().through, part.through);
    let config = KafkaConfig { events_topic: own, ..forum.broker.config().clone() };
    messages_are_the_rows(&forum.pool, &Broker::start(&config).expect("a handle")).await;
}

/// Told to end in the middle, it names the last event that it sent: Kafka answers later than it takes them.
async fn stopped_it_says_what_arrived(forum: &TestForum, store: &StoreReader, part: &Part) {
    let own = format!("stopped-{}", uuid::Uuid::now_v7().simple());
    let mut topic = Topic::open(forum.broker.config(), &own, part, store).await.expect("it is made");
    let half = Part { through: part.through / 2, ..part.clone() };
    let mut blocks = Blocks::<Messages>::of(store.clone(), half.clone());
    let mut sent = 0;
    while let Some(block) = blocks.next().await.expect("events") {
        sent += block.events;
        topic.send(block.gathered).await.expect("Kafka takes them");
    }
    assert!(topic.settle().await, "Kafka answers");
    assert_eq!(topic.arrived(), Arrived { events: sent, through: half.through });
}

/// What the README shows: everything that was written is read at once with the position token.
async fn tour(forum: &TestForum) {
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "First flush").await;
    let reply = bob.reply(&thread, "Two *minutes*.").await;
    ada.put(&format!("/v2/posts/{reply}/reaction"), &json!({"kind": "like"})).await.expect(200);
    ada.put(&format!("/v2/threads/{thread}/answer"), &json!({"post_id": reply})).await.expect(200);
    ada.catch_up(&bob);

    let page = ada.get(&format!("/v2/threads/{thread}/posts")).await.expect(200);
    let posts = page["items"].as_array().expect("posts");
    let shown: Vec<_> = posts.iter().map(|post| (&post["id"], &post["number"], &post["author"]["username"])).collect();
    assert_eq!(shown, [(&json!(opening), &json!(1), &json!("ada")), (&json!(reply), &json!(2), &json!("bob"))]);
    assert_eq!(posts[1]["body_html"], "<p>Two <em>minutes</em>.</p>\n");
    assert_eq!(posts[1]["reactions"], json!({"like": 1}));

    let head = ada.get(&format!("/v2/threads/{thread}")).await.expect(200);
    assert_eq!((&head["replies"], &head["answer_id"]), (&json!(1), &json!(reply)));
    let list = ada.get("/v2/communities/tea/threads?sort=active").await.expect(200);
    assert_eq!(list["items"][0]["id"], json!(thread));
    let communities = forum.guest().get_after(&ada, "/v2/communities").await.expect(200);
    assert_eq!(communities["items"][0]["slug"], "tea");
    let tree = ada.get("/v2/communities/tea/categories").await.expect(200);
    assert_eq!((&tree["items"][0]["threads"], &tree["items"][0]["posts"]), (&json!(1), &json!(2)));
    let card = ada.get("/v2/accounts/bob").await.expect(200);
    assert_eq!((&card["username"], &card["posts"]), (&json!("bob"), &json!(1)));
    assert_counts_hold(forum).await;
}

/// Reads the topic as any consumer would, and compares each message with the store's row.
pub(crate) async fn messages_are_the_rows(store: &PgPool, broker: &Broker) {
    let rows = rows(store).await;
    let messages = {
        let broker = broker.clone();
        let many = rows.len();
        tokio::task::spawn_blocking(move || consume(&broker, many)).await.expect("consumes")
    };
    let mut by_position = BTreeMap::new();
    for message in messages {
        by_position.insert(message.envelope.position, message);
    }
    assert_eq!(by_position.len(), rows.len(), "every event is in Kafka");
    let mut last = BTreeMap::new();
    for row in rows {
        let message = &by_position[&row.position];
        assert_eq!(message.envelope, row, "the same envelope, the payload byte for byte");
        let previous = last.insert(row.shard, row.position).unwrap_or(0);
        assert_eq!(message.previous, previous, "each names the one before it in its shard");
    }
    let history: uuid::Uuid =
        sqlx::query_scalar("select history from store_head").fetch_one(store).await.expect("the history");
    assert!(by_position.values().all(|message| message.history == HistoryId(history)));
}

async fn rows(store: &PgPool) -> Vec<events::Envelope> {
    let reader = StoreReader::new(store.clone());
    let read = reader.after(0, 10_000).await.expect("reads the store");
    read.events.into_iter().map(|event| event.unwrap_or_else(|it| panic!("{}", it.reason))).collect()
}

fn consume(broker: &Broker, many: usize) -> Vec<Delivered> {
    let consumer: BaseConsumer = broker.consumer().set("group.id", "test-reader").create().expect("a consumer");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..broker.config().partitions {
        partitions
            .add_partition_offset(&broker.config().events_topic, partition, Offset::Beginning)
            .expect("a partition");
    }
    consumer.assign(&partitions).expect("assigns");
    let mut found: BTreeMap<i64, Delivered> = BTreeMap::new();
    while found.len() < many {
        let message = consumer.poll(std::time::Duration::from_secs(20)).expect("a message in time").expect("a message");
        let headers = message.headers().expect("headers");
        let headers = headers.iter().filter_map(|header| Some((header.key, header.value?)));
        let event = events::kafka::decode(headers, message.payload().expect("a value")).expect("one of ours");
        assert_eq!(message.key(), Some(events::kafka::encode(&event).key.as_bytes()));
        assert_eq!(message.partition(), event.envelope.shard.partition(broker.config().partitions));
        found.insert(event.envelope.position, event);
    }
    found.into_values().collect()
}

#[tokio::test]
async fn two_hundred_who_write_and_read_at_once_see_what_they_wrote() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Busy").await;
    let pairs = (0..200).map(|n| {
        let (ada, thread) = (&ada, &thread);
        async move {
            let reply = ada.elsewhere();
            let id = reply.reply(thread, &format!("reply {n}")).await;
            let post = reply.get(&format!("/v2/posts/{id}")).await.expect(200);
            assert_eq!(post["body"], format!("reply {n}"));
            let number = post["number"].as_i64().expect("a number");
            let page = reply.get(&format!("/v2/threads/{thread}/posts?from={number}&limit=1")).await.expect(200);
            assert_eq!(page["items"][0]["id"], json!(id), "the page has it too");
            let head = reply.get(&format!("/v2/threads/{thread}")).await.expect(200);
            assert!(head["replies"].as_i64() >= Some(number - 1), "{head} after reply {number}");
            number
        }
    });
    let mut numbers: Vec<_> = stream::iter(pairs).buffer_unordered(200).collect().await;
    numbers.sort_unstable();
    assert_eq!(numbers, (2..202).collect::<Vec<_>>());
    forum.stop().await;
}

#[tokio::test]
async fn a_key_takes_effect_once_and_is_answered_alike() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Once").await;
    let path = format!("/v2/threads/{thread}/posts");
    let body = json!({"body": "once"});
    let send =
        async |body: &Value| ada.send(reqwest::Method::POST, &path, Some(body), &[("idempotency-key", "k1")]).await;
    let all: Vec<_> = stream::iter(0..20).map(|_| send(&body)).buffer_unordered(20).collect().await;
    let first = all[0].body.clone();
    for answer in &all {
        assert_eq!((answer.status, &answer.body), (201, &first), "{answer:?}");
        assert_eq!(answer.header("location"), all[0].header("location"));
        assert_eq!(answer.header("agora-position"), all[0].header("agora-position"));
    }
    let fresh = all.iter().filter(|answer| answer.header("idempotency-replayed").is_none()).count();
    assert_eq!(fresh, 1, "one took effect, the others are told so");
    send(&json!({"body": "something else"})).await.expect_problem(422, "idempotency-key-reused");
    let head = ada.get(&format!("/v2/threads/{thread}")).await.expect(200);
    assert_eq!(head["replies"], 1);
    forum.stop().await;
}

#[tokio::test]
async fn a_thread_is_locked_while_replies_come_in() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Soon locked").await;
    let path = format!("/v2/threads/{thread}/posts");
    let replies = stream::iter(0..100).map(|n| {
        let (bob, path) = (&bob, &path);
        async move { bob.post(path, &json!({"body": format!("reply {n}")})).await }
    });
    let lock = async { ada.put(&format!("/v2/threads/{thread}/lock"), &json!({})).await.expect(200) };
    let (answers, _) = tokio::join!(replies.buffer_unordered(25).collect::<Vec<_>>(), lock);
    let written = answers.iter().filter(|answer| answer.status == 201).count();
    for refused in answers.into_iter().filter(|answer| answer.status != 201) {
        refused.expect_problem(422, "thread-locked");
    }
    assert!(written < 100, "the lock came in between");
    // Commit order is position order: nothing stands behind the lock.
    let behind: i64 = sqlx::query_scalar(
        "select count(*) from events reply, events lock
         where reply.event_type = 'post.written' and lock.event_type = 'thread.locked'
           and reply.position > lock.position",
    )
    .fetch_one(&forum.pool)
    .await
    .expect("a count");
    assert_eq!(behind, 0);
    let head = bob.get_after(&ada, &format!("/v2/threads/{thread}")).await.expect(200);
    assert_eq!(head["replies"], written);
    forum.stop().await;
}

#[tokio::test]
async fn nothing_of_a_private_community_shows_to_a_stranger() {
    let forum = TestForum::start().await;
    let (ada, bob, eve) = (forum.person("ada").await, forum.person("bob").await, forum.person("eve").await);
    let den = forum.community_with(&ada, "den", &json!({"visibility": "public"})).await;
    let (thread, opening) = ada.thread(&den, "Whispers").await;
    let reply = bob.reply(&thread, "a secret").await;
    let paths = [
        "/v2/communities/den".to_owned(),
        format!("/v2/communities/{}", den.id),
        "/v2/communities/den/categories".to_owned(),
        "/v2/communities/den/members".to_owned(),
        "/v2/communities/den/threads".to_owned(),
        "/v2/communities/den/threads?sort=hot".to_owned(),
        "/v2/communities/den/threads?sort=top&period=year".to_owned(),
        "/v2/communities/den/threads?unanswered=true".to_owned(),
        "/v2/communities/den/tags".to_owned(),
        format!("/v2/communities/den/members/{}", ada.id()),
        format!("/v2/threads/{thread}"),
        format!("/v2/threads/{thread}/posts"),
        format!("/v2/threads/{thread}/posts?view=tree"),
        format!("/v2/threads/{thread}/posts?view=tree&sort=best"),
        format!("/v2/posts/{opening}"),
        format!("/v2/posts/{opening}/replies"),
        format!("/v2/posts/{reply}/revisions"),
        format!("/v2/categories/{}", den.category),
    ];
    let lists = [
        "/v2/communities",
        "/v2/communities?sort=new",
        "/v2/accounts/bob",
        "/v2/accounts/bob/posts",
        "/v2/accounts/ada/threads",
        "/v2/accounts/ada/communities",
    ];
    eve.catch_up(&ada);
    eve.catch_up(&bob);
    // While it is public all of it shows, and is cached.
    let mut tags = Vec::new();
    for path in &paths {
        let shown = eve.get(path).await;
        tags.push(shown.header("etag").expect("an ETag").to_owned());
        shown.expect(200);
        forum.guest().get_after(&eve, path).await.expect(200);
    }
    assert_eq!(eve.get("/v2/accounts/bob").await.expect(200)["posts"], 1);
    for path in lists {
        eve.get(path).await.expect(200);
    }

    ada.patch("/v2/communities/den", &json!({"visibility": "private"})).await.expect(200);
    eve.catch_up(&ada);
    for stranger in [&eve, &forum.guest()] {
        stranger.catch_up(&eve);
        for path in &paths {
            stranger.get(path).await.expect_problem(404, problem_of(path));
        }
        for (path, tag) in paths.iter().zip(&tags) {
            // Not even that it is still as it was.
            let known = [("if-none-match", &**tag)];
            stranger.send(reqwest::Method::GET, path, None, &known).await.expect_problem(404, problem_of(path));
        }
        stranger.get("/v2/communities/den/moderation-log").await.expect_problem(404, "community-not-found");
        for path in lists {
            let shown = stranger.get(path).await.expect(200).to_string();
            for secret in ["den", "Whispers", "a secret", &thread, &reply, &den.id] {
                assert!(!shown.contains(secret), "{path} shows {secret}: {shown}");
            }
        }
        assert_eq!(stranger.get("/v2/accounts/bob").await.expect(200)["posts"], 0, "not even as a count");
    }
    eve.put(&format!("/v2/posts/{reply}/reaction"), &json!({"kind": "like"})).await.expect_status(404);
    eve.put(&format!("/v2/communities/den/members/{}", eve.id()), &json!({})).await.expect_status(404);
    for path in &paths {
        ada.get(path).await.expect(200);
    }
    forum.stop().await;
}

/// Each kind of thing that is not there has a name.
fn problem_of(path: &str) -> &'static str {
    match path.split('/').nth(2) {
        Some("communities") => "community-not-found",
        Some("threads") => "thread-not-found",
        Some("posts") => "post-not-found",
        _ => "category-not-found",
    }
}

#[tokio::test]
async fn a_trace_that_a_client_began_goes_on_in_the_event_and_in_the_projector() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    let body = json!({"slug": "traced", "name": "Traced", "description": ""});
    let headers = [("traceparent", traceparent.as_str())];
    ada.send(reqwest::Method::POST, "/v2/communities", Some(&body), &headers).await.expect(201);
    let recorded: Vec<Option<String>> =
        sqlx::query_scalar("select metadata->>'traceparent' from events where event_type = 'community.created'")
            .fetch_all(&forum.pool)
            .await
            .expect("the event");
    assert!(matches!(&recorded[..], [Some(parent)] if parent.contains(trace)), "{recorded:?}");
    ada.get("/v2/communities/traced").await.expect(200);
    // With the forum, the spans of what it did have ended.
    forum.stop().await;
    let spans = telemetry::exported(trace).await;
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert!(names.contains(&"project"), "it went on in the projector: {names:?}");
}

#[tokio::test]
async fn a_person_reads_what_they_wrote_in_every_view() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    every_view(&ada, &tea.slug).await;
    forum.stop().await;
}

async fn every_view(ada: &Person<'_>, slug: &str) {
    for path in ["", "/categories", "/members", "/threads", "/tags", "/moderation-log"] {
        let answer = ada.get(&format!("/v2/communities/{slug}{path}")).await;
        assert!(answer.header("agora-position").is_some(), "{path} says what it reflects");
        let etag = answer.header("etag").expect("an ETag").to_owned();
        answer.expect(200);
        let again = ada
            .send(reqwest::Method::GET, &format!("/v2/communities/{slug}{path}"), None, &[("if-none-match", &etag)])
            .await;
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
    }
}

/// A transaction that lies idle while bodies are rendered would be ended by Postgres, again with each try, for good.
#[tokio::test]
async fn bodies_that_take_long_to_render_hold_up_nobody() {
    let forum = TestForum::start_with(|config| {
        config.database.idle_in_transaction_timeout = Duration::from_millis(300);
    })
    .await;
    let ada = forum.person("ada").await;
    let (tea, coffee) = (forum.community(&ada, "tea").await, forum.community(&ada, "coffee").await);
    let (thread, _) = ada.thread(&tea, "Long").await;
    let long = "*a* **b** `c` [d](https://e.example) ".repeat(2_500);
    let replies = (0..24).map(|_| ada.reply(&thread, &long));
    let replies = futures::future::join_all(replies).await;
    let (other, _) = ada.thread(&coffee, "Short").await;
    assert_eq!(ada.get(&format!("/v2/threads/{other}")).await.expect(200)["title"], "Short");
    assert_eq!(ada.get(&format!("/v2/threads/{thread}")).await.expect(200)["replies"], replies.len());
    forum.stop().await;
}

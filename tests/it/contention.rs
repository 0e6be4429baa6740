//! Many who write the same thing at once: they wait for one another, and none is turned away.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use agora::daily_check::DailyCheck;
use agora_tests::{
    counts::assert_counts_hold,
    forum::{Person, Reply, TestForum},
};
use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use futures::future::join_all;
use platform::health::Health;
use reqwest::Method;
use serde_json::{Value, json};
use store_reader::Wake;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use uuid::Uuid;

/// A command's answer in the middle of it all.
async fn timed(command: impl Future<Output = Reply>) -> (u16, f64) {
    let started = Instant::now();
    (command.await.status, started.elapsed().as_secs_f64())
}

/// That all were taken.
#[track_caller]
fn assert_taken(what: &str, answers: &[(u16, f64)]) {
    let mut times: Vec<_> = answers.iter().map(|(_, time)| *time).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)] * 1_000.0;
    println!("{what}: {} commands, p50 {:.0} ms, p99 {:.0} ms", times.len(), at(50), at(99));
    let refused = answers.iter().filter(|(status, _)| !(200..300).contains(status));
    assert_eq!(refused.count(), 0, "{what}, of {}", answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_go_on_while_the_thread_is_retitled() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Busy").await;
    let (path, posts) = (format!("/v2/threads/{thread}"), format!("/v2/threads/{thread}/posts"));
    let names: Vec<_> = (0..12).map(|n| format!("writer-{n}")).collect();
    let people = join_all(names.iter().map(|name| forum.person(name))).await;
    let done = AtomicBool::new(false);
    let writers = (0..24).map(|n| {
        let (person, posts) = (people[n % 12].elsewhere(), &posts);
        async move {
            let mut answers = Vec::new();
            for _ in 0..15 {
                answers.push(timed(person.post(posts, &json!({"body": "quick"}))).await);
            }
            answers
        }
    });
    let editors = (0..4).map(|editor| {
        let (ada, path, done) = (ada.elsewhere(), &path, &done);
        async move {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let title = format!("Title {editor}/{}", answers.len());
                answers.push(timed(ada.patch(path, &json!({"title": title}))).await);
            }
            answers
        }
    });
    let writing = async {
        let answers = join_all(writers).await;
        done.store(true, Ordering::Relaxed);
        answers.concat()
    };
    let (replies, titles) = tokio::join!(writing, join_all(editors));
    assert_taken("retitles", &titles.concat());
    assert_taken("replies", &replies);
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_stream_takes_from_all_sides_is_taken_one_by_one() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Busy").await;
    let reaction = format!("/v2/posts/{opening}/reaction");
    let bodies: Vec<_> = ["up", "down", "like"].repeat(20).into_iter().map(|kind| json!({"kind": kind})).collect();
    assert_taken("reactions", &join_all(bodies.iter().map(|body| timed(bob.put(&reaction, body)))).await);

    let bodies: Vec<_> = (0..40).map(|n| json!({"slug": format!("c{n}"), "name": "C"})).collect();
    let path = "/v2/communities/tea/categories";
    assert_taken("categories", &join_all(bodies.iter().map(|body| timed(ada.post(path, body)))).await);
    let tree = ada.get(path).await.expect(200);
    assert_eq!(tree["items"].as_array().map(Vec::len), Some(41));

    let path = format!("/v2/threads/{thread}");
    let bodies: Vec<_> = (0..20).map(|n| json!({"title": format!("Title {n}")})).collect();
    assert_taken("retitles", &join_all(bodies.iter().map(|body| timed(ada.patch(&path, body)))).await);
    assert_eq!(ada.get(&path).await.expect(200)["version"], 21, "each of them once");
    assert_counts_hold(&forum).await;
    forum.stop().await;
}

/// A second command-service on the same store.
struct Other {
    service: Router,
    shutdown: CancellationToken,
}

impl Other {
    async fn of(forum: &TestForum) -> Self {
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let config = forum.config.command_service();
        let started = command_service::start(
            &config,
            &Health::new(),
            shutdown.clone(),
            &tasks,
            DailyCheck::of(&forum.config),
            Wake::default(),
        )
        .await;
        Self { service: Router::from(started.expect("it starts").0), shutdown }
    }

    /// What it answers to ada: the status, and the position.
    async fn send(&self, ada: &Person<'_>, method: Method, path: &str, body: &Value) -> (u16, String) {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", ada.token()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .expect("a request");
        let answer = self.service.clone().oneshot(request).await.expect("an answer");
        let position = answer.headers().get("agora-position").map(|it| it.to_str().expect("ASCII").to_owned());
        (answer.status().as_u16(), position.unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_command_services_come_to_an_end_with_one_stream() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, _) = ada.thread(&tea, "Busy").await;
    let path = format!("/v2/threads/{thread}");
    let other = Other::of(&forum).await;
    let here: Vec<_> = (0..20).map(|n| json!({"title": format!("Here {n}")})).collect();
    let there: Vec<_> = (0..20).map(|n| json!({"title": format!("There {n}")})).collect();
    let timed_there = async |body| {
        let started = Instant::now();
        let (status, position) = other.send(&ada, Method::PATCH, &path, body).await;
        ((status, started.elapsed().as_secs_f64()), position)
    };
    let (here, there) = tokio::join!(
        join_all(here.iter().map(|body| timed(ada.patch(&path, body)))),
        join_all(there.iter().map(timed_there)),
    );
    let (there, positions): (Vec<_>, Vec<_>) = there.into_iter().unzip();
    assert_taken("here", &here);
    assert_taken("there", &there);
    let seen = [("agora-position", &*positions.join(", "))];
    let shown = ada.send(Method::GET, &path, None, &seen).await.expect(200);
    assert_eq!(shown["version"], 41, "each of them once");
    other.shutdown.cancel();
    forum.stop().await;
}

/// What is cached here may be of a past that the other has changed: nothing is refused for it, and nothing taken for done.
#[tokio::test]
async fn what_another_command_service_undid_is_neither_a_reason_to_refuse_nor_done_already() {
    let forum = TestForum::start().await;
    let (ada, bob) = (forum.person("ada").await, forum.person("bob").await);
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening) = ada.thread(&tea, "Talk").await;
    let other = Other::of(&forum).await;
    let (posts, lock) = (format!("/v2/threads/{thread}/posts"), format!("/v2/threads/{thread}/lock"));
    ada.put(&lock, &json!({})).await.expect(200);
    bob.post(&posts, &json!({"body": "Locked?"})).await.expect_problem(422, "thread-locked");
    assert_eq!(other.send(&ada, Method::DELETE, &lock, &Value::Null).await.0, 200);
    bob.post(&posts, &json!({"body": "Not any more."})).await.expect(201);

    let (reaction, like) = (format!("/v2/posts/{opening}/reaction"), json!({"kind": "like"}));
    bob.put(&reaction, &like).await.expect(200);
    assert_eq!(other.send(&bob, Method::DELETE, &reaction, &Value::Null).await.0, 200);
    bob.put(&reaction, &like).await.expect(200);
    let shown = bob.get(&format!("/v2/posts/{opening}")).await.expect(200);
    assert_eq!(shown["reactions"], json!({"like": 1}), "it was acknowledged");
    other.shutdown.cancel();
    forum.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_was_given_out_elsewhere_is_taken() {
    let forum = TestForum::start().await;
    let ada = forum.person("ada").await;
    let tea = forum.community(&ada, "tea").await;
    let (thread, opening_post) = ada.thread(&tea, "Here").await;
    let (threads, posts) = ("/v2/communities/tea/threads", format!("/v2/threads/{thread}/posts"));
    let reply = json!({"id": Uuid::now_v7(), "body": "Mine."});
    ada.post(&posts, &reply).await.expect(201);
    let new = json!({"category_id": tea.category, "title": "There", "body": "Hello."});
    let with = |field: &str, id: &str| {
        let mut new = new.clone();
        new[field] = json!(id);
        new
    };
    let (same_thread, same_post) = (with("id", &thread), with("opening_post_id", &opening_post));
    let other = Other::of(&forum).await;
    // First it finds out, then it knows.
    for _ in 0..2 {
        for (path, body) in [(&*posts, &reply), (threads, &same_thread), (threads, &same_post)] {
            assert_eq!(other.send(&ada, Method::POST, path, body).await.0, 409, "{path} {body}");
        }
    }
    assert_eq!(other.send(&ada, Method::POST, threads, &new).await.0, 201);
    other.shutdown.cancel();
    forum.stop().await;
}

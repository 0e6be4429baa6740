//! What each event and each command passes, one step at a time, without I/O: nanoseconds and allocations (divan); with
//! `--instructions` how many instructions each takes (callgrind), as these repeat where nanoseconds do not.

use std::{
    env,
    process::{Command, ExitCode},
};

use divan::{AllocProfiler, Bencher};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const STEPS: [&str; 8] = ["decide", "fold", "decode", "upcast", "encode", "receive", "html", "hit"];

fn main() -> ExitCode {
    if env::args().all(|argument| argument != "--instructions") {
        divan::main();
        return ExitCode::SUCCESS;
    }
    for step in STEPS {
        let Some(count) = instructions(step) else {
            eprintln!("{step}: callgrind counted nothing. Is valgrind installed?");
            return ExitCode::FAILURE;
        };
        println!("{step} · {count} instructions");
    }
    ExitCode::SUCCESS
}

/// Of one call, in a process of its own.
fn instructions(step: &str) -> Option<u64> {
    let program = env::current_exe().ok()?;
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect=micro::step::{step}*"))
        .arg(program)
        .args(["--test", "--exact"])
        .arg(format!("micro::{step}"))
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&counted.stderr);
    said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok()).filter(|count| *count > 0)
}

/// A reply is allowed, and says what happened.
#[divan::bench]
fn decide(bencher: Bencher) {
    let (post, around) = given::reply();
    bencher.with_inputs(given::write).bench_values(|write| step::decide(write, &post, &around));
}

/// A stream of 1,000 events becomes its state.
#[divan::bench]
fn fold(bencher: Bencher) {
    let events = given::history(1_000);
    bencher.with_inputs(|| events.clone()).bench_values(step::fold);
}

/// A payload becomes an event.
#[divan::bench]
fn decode(bencher: Bencher) {
    let event = given::written();
    bencher.bench(|| step::decode(&event.envelope));
}

/// The same, of a version before.
#[divan::bench]
fn upcast(bencher: Bencher) {
    let event = given::written();
    bencher.bench(|| step::upcast(&event.envelope));
}

/// An event becomes a message of Kafka's.
#[divan::bench]
fn encode(bencher: Bencher) {
    let event = given::written();
    bencher.bench(|| step::encode(&event));
}

/// A message of Kafka's becomes an envelope; its payload is read by [`decode`].
#[divan::bench]
fn receive(bencher: Bencher) {
    let message = events::kafka::encode(&given::written());
    bencher.bench(|| step::receive(&message));
}

/// A post's text becomes HTML.
#[divan::bench]
fn html(bencher: Bencher) {
    bencher.bench(|| step::html(given::BODY));
}

/// A finished answer is found, and found to be good. What decides who may see it is not here: it asks the rows.
#[divan::bench]
fn hit(bencher: Bencher) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let hit = runtime.block_on(given::hit());
    bencher.bench(|| step::hit(&hit));
}

/// The steps themselves, never inlined: callgrind counts what is between their first instruction and their last.
mod step {
    use axum::response::Response;
    use command_service::{
        post::{Post, Surroundings, WriteReply},
        thread::Thread,
    };
    use cqrs_es::Aggregate as _;
    use events::{
        Delivered, Envelope, Event, PostEvent, ThreadEvent,
        kafka::Message,
        post::Format,
        upcast::{Step, Upcasters, Versioned},
    };
    use query_service::Hit;

    /// As if a post had been written in another version once.
    static BEFORE: Upcasters = Upcasters {
        steps: &[Step {
            name: "post.written",
            from: 1,
            run: |payload| Ok(vec![Versioned { name: "post.written", version: 2, payload }]),
        }],
        newest: |_| Some(2),
    };

    #[inline(never)]
    pub(super) fn decide(write: WriteReply, post: &Post, around: &Surroundings) -> Option<PostEvent> {
        write.decide(post, around).expect("it is allowed")
    }

    #[inline(never)]
    pub(super) fn fold(events: Vec<ThreadEvent>) -> Thread {
        let mut thread = Thread::default();
        for event in events {
            thread.apply(event);
        }
        thread
    }

    #[inline(never)]
    pub(super) fn decode(envelope: &Envelope) -> Vec<Event> {
        envelope.decode().expect("it decodes")
    }

    #[inline(never)]
    pub(super) fn upcast(envelope: &Envelope) -> Vec<Versioned> {
        BEFORE.upcast("post.written", 1, &envelope.payload).expect("it goes on")
    }

    #[inline(never)]
    pub(super) fn encode(event: &Delivered) -> Message {
        events::kafka::encode(event)
    }

    #[inline(never)]
    pub(super) fn receive(message: &Message) -> Delivered {
        let headers = message.headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        events::kafka::decode(headers, message.value.as_bytes()).expect("it is ours")
    }

    #[inline(never)]
    pub(super) fn hit(hit: &Hit) -> Response {
        hit.answer()
    }

    #[inline(never)]
    pub(super) fn html(body: &str) -> String {
        rendering::html(body, Format::Markdown)
    }
}

/// What they are given.
mod given {
    use command_service::{
        access::{Actor, Standing},
        community::Community,
        membership::Membership,
        post::{Post, Surroundings, Text, WriteReply},
    };
    use cqrs_es::Aggregate as _;
    use events::{
        AccountId, CategoryId, CommunityEvent, CommunityId, Delivered, Envelope, EventId, HistoryId, MembershipEvent,
        Metadata, PostId, Shard, Stream, ThreadEvent, ThreadId,
        community::{Created, Settings},
        membership::Joined,
        post::{Format, Written},
        thread::{Retitled, Started},
    };
    use serde_json::value::to_raw_value;
    use uuid::Uuid;

    /// As long as a post of the demo's is in the middle.
    pub(super) const BODY: &str = "I *always* warm the pot first, with water off the boil; then two spoons of leaves, \
        and **four minutes**, no more.\n\n> How long for green tea?\n\nTwo, at [80 °C](https://tea.example/green). \
        See also:\n\n1. the kettle\n2. the water\n3. `patience`\n";

    const ADA: AccountId = AccountId(Uuid::from_u128(0xada));
    const THREAD: ThreadId = ThreadId(Uuid::from_u128(10));
    const OPENING: PostId = PostId(Uuid::from_u128(100));

    /// A post that is not there yet, and an open thread around it.
    pub(super) fn reply() -> (Post, Surroundings) {
        (Post::default(), Surroundings::of_new(THREAD, OPENING))
    }

    pub(super) fn write() -> WriteReply {
        let mut community = Community::default();
        let settings = Settings { slug: "tea".into(), name: "Tea".into(), ..Settings::default() };
        community.apply(CommunityEvent::Created(Created { settings, owner: ADA }));
        let mut membership = Membership::default();
        membership.apply(MembershipEvent::Joined(Joined { account: ADA }));
        let actor = Actor { account: Some(ADA), operator: false };
        let standing = Standing::of(actor, &community, &membership, chrono::DateTime::UNIX_EPOCH);
        let by = standing.participant().expect("a member");
        WriteReply { by, text: Text { body: BODY.into(), format: Format::Markdown } }
    }

    /// A thread is started, and then given ever other titles.
    pub(super) fn history(events: usize) -> Vec<ThreadEvent> {
        let category = CategoryId(Uuid::from_u128(1));
        let (tags, author) = (vec!["green".to_owned()], Some(ADA));
        let title = "Which kettle?".to_owned();
        let started = ThreadEvent::Started(Started { category, title, tags, author, opening_post: OPENING });
        let retitled =
            |nth| ThreadEvent::Retitled(Retitled { title: format!("Which kettle, {nth}?"), moderated: false });
        std::iter::once(started).chain((1..events).map(retitled)).collect()
    }

    /// A page as long as most.
    pub(super) async fn hit() -> query_service::Hit {
        query_service::Hit::of(vec![b' '; 8 * 1024].into()).await.expect("it needs nothing")
    }

    /// A reply, as it comes out of the store.
    pub(super) fn written() -> Delivered {
        let (parent, body) = (Some(OPENING), BODY.to_owned());
        let written = Written { thread: THREAD, parent, depth: 1, author: Some(ADA), body, format: Format::Markdown };
        let community = CommunityId(Uuid::from_u128(2));
        let envelope = Envelope {
            event_id: EventId::new(),
            stream: Stream::post(PostId::new()),
            sequence: 1,
            position: 1_234_567,
            shard: Shard::of_community(community),
            community: Some(community),
            name: "post.written".to_owned(),
            version: 1,
            recorded_at: chrono::DateTime::UNIX_EPOCH,
            metadata: Metadata {
                actor: Some(ADA),
                correlation_id: Uuid::now_v7(),
                causation_id: None,
                traceparent: None,
                occurred_at: None,
            },
            payload: to_raw_value(&written).expect("JSON"),
        };
        Delivered { envelope, previous: 1_234_500, history: HistoryId::new() }
    }
}

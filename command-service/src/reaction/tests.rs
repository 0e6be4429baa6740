use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use events::{
    PostEvent, ThreadEvent, ThreadId,
    community::Visibility,
    membership::Role,
    post::{self, Format},
    thread,
};
use uuid::Uuid;

use super::*;
use crate::{
    Refusal,
    fixture::{self, ADA, BOB, category, community, operator, standing},
    thread::{Ground, Thread},
};

const THREAD: ThreadId = ThreadId(Uuid::from_u128(10));
const POST: PostId = PostId(Uuid::from_u128(100));

/// A post to which this happened, in a thread to which that happened, in a category that may be archived.
fn target(author: AccountId, events: Vec<PostEvent>, thread: Vec<ThreadEvent>, archived: bool) -> Target {
    let started = thread::Started {
        category: category(1),
        title: String::new(),
        tags: Vec::new(),
        author: Some(author),
        opening_post: POST,
    };
    let thread: Thread = fixture::given(std::iter::once(ThreadEvent::Started(started)).chain(thread));
    let around = Surroundings::of(THREAD, &thread, Ground { archived }).expect("a thread");
    let (author, body, format) = (Some(author), String::new(), Format::Markdown);
    let written = post::Written { thread: THREAD, parent: None, depth: 0, author, body, format };
    let post = fixture::given(std::iter::once(PostEvent::Written(written)).chain(events));
    Target::of(POST, &post, around)
}

fn bobs() -> Target {
    target(BOB, vec![], vec![], false)
}

fn given(target: Target, events: Vec<ReactionEvent>) -> AggregateTestExecutor<Reaction> {
    TestFramework::with(target).given(events)
}

fn voter() -> Voter {
    standing(Role::Member).participant().and_then(crate::access::Participant::voter).expect("Ada")
}

fn react(kind: &str) -> ReactionCommand {
    let kind = Kind::of(&community(Visibility::Public), kind.into()).expect("a kind");
    SetReaction { by: voter(), kind }.into()
}

fn clear() -> ReactionCommand {
    ClearReaction { by: voter() }.into()
}

fn set(kind: &str, replaced: Option<&str>) -> ReactionEvent {
    let replaced = replaced.map(str::to_owned);
    ReactionEvent::Set(Set { thread: THREAD, post: POST, account: ADA, kind: kind.into(), replaced })
}

fn cleared(kind: &str) -> ReactionEvent {
    ReactionEvent::Cleared(Cleared { thread: THREAD, post: POST, account: ADA, kind: kind.into() })
}

fn refused(refusal: impl Into<Refusal>) -> Refusal {
    refusal.into()
}

#[test]
fn one_reaction_each_and_another_kind_takes_its_place() {
    given(bobs(), vec![]).when(react("like")).then_expect_events(vec![set("like", None)]);
    given(bobs(), vec![set("like", None)]).when(react("like")).then_expect_events(vec![]);
    given(bobs(), vec![set("like", None)]).when(react("down")).then_expect_events(vec![set("down", Some("like"))]);
    given(bobs(), vec![set("like", None), cleared("like")]).when(react("up")).then_expect_events(vec![set("up", None)]);
}

#[test]
fn nobody_reacts_to_itself() {
    let own = target(ADA, vec![], vec![], false);
    given(own, vec![]).when(react("like")).then_expect_error(refused(ReactionRefusal::OwnPost));
}

#[test]
fn nobody_reacts_to_what_is_gone_or_in_a_closed_place() {
    let deleted = PostEvent::Deleted(post::Deleted { thread: THREAD, reason: None, moderated: false });
    let hidden = PostEvent::Hidden(post::Hidden { thread: THREAD, reason: None });
    let thread_deleted = ThreadEvent::Deleted(thread::Deleted { reason: None, moderated: true });
    for (target, refusal) in [
        (target(BOB, vec![deleted], vec![], false), PostRefusal::Deleted),
        (target(BOB, vec![hidden], vec![], false), PostRefusal::Hidden),
        (target(BOB, vec![], vec![thread_deleted], false), PostRefusal::ThreadDeleted),
        (target(BOB, vec![], vec![], true), PostRefusal::CategoryArchived),
    ] {
        given(target, vec![]).when(react("like")).then_expect_error(refused(refusal));
    }
}

#[test]
fn a_reaction_is_taken_back_once_also_from_a_deleted_post() {
    given(bobs(), vec![set("like", None)]).when(clear()).then_expect_events(vec![cleared("like")]);
    given(bobs(), vec![]).when(clear()).then_expect_events(vec![]);
    let deleted = PostEvent::Deleted(post::Deleted { thread: THREAD, reason: None, moderated: false });
    let gone = target(BOB, vec![deleted], vec![], false);
    given(gone, vec![set("like", None)]).when(clear()).then_expect_events(vec![cleared("like")]);
}

#[test]
fn kinds_are_everybodys_and_the_communitys() {
    let mut community = community(Visibility::Public);
    let allows = |community: &Community, kind: &str| Kind::of(community, kind.to_owned()).is_ok();
    for kind in KINDS {
        assert!(allows(&community, kind));
    }
    assert!(!allows(&community, "tea"));
    community.settings.reactions.push("tea".into());
    assert!(allows(&community, "tea"));
}

#[test]
fn an_imported_score_is_stated_again_where_it_differs() {
    let by = operator().as_operator().expect("an operator");
    let import = |up| ImportScore { by, score: Score { up, down: 1 } }.into();
    let imported = |up| ReactionEvent::ScoreImported(ScoreImported { thread: THREAD, post: POST, up, down: 1 });
    given(bobs(), vec![]).when(import(7)).then_expect_events(vec![imported(7)]);
    given(bobs(), vec![imported(7)]).when(import(7)).then_expect_events(vec![]);
    given(bobs(), vec![imported(7)]).when(import(8)).then_expect_events(vec![imported(8)]);
}

use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use events::{PostEvent, membership::Role, post};
use uuid::Uuid;

use super::*;
use crate::{
    Refusal,
    fixture::{self, ADA, BOB, before, category, later, now, standing, tree},
};

const OPENING: PostId = PostId(Uuid::from_u128(100));
const REPLY: PostId = PostId(Uuid::from_u128(101));
const THREAD: ThreadId = ThreadId(Uuid::from_u128(10));

const OPEN: Ground = Ground { archived: false };
const ARCHIVED: Ground = Ground { archived: true };

fn given(ground: Ground, events: Vec<ThreadEvent>) -> AggregateTestExecutor<Thread> {
    TestFramework::with(ground).given(events)
}

fn open(n: u128) -> OpenCategory {
    tree().open(category(n)).expect("an open category")
}

/// Started by Ada.
fn started() -> ThreadEvent {
    let (title, tags) = ("Which kettle?".into(), vec!["kettles".into()]);
    ThreadEvent::Started(Started { category: category(1), title, tags, author: Some(ADA), opening_post: OPENING })
}

fn author() -> Curator {
    standing(Role::Member).curator(Some(ADA)).expect("its author")
}

/// A moderator, of what Bob wrote.
fn curator() -> Curator {
    standing(Role::Moderator).curator(Some(BOB)).expect("a moderator")
}

/// A moderator, of what it wrote itself.
fn moderating_author() -> Curator {
    standing(Role::Moderator).curator(Some(ADA)).expect("a moderator")
}

fn moderator() -> Moderator {
    standing(Role::Moderator).moderator().expect("a moderator")
}

fn start() -> ThreadCommand {
    let by = standing(Role::Member).participant().expect("a member");
    let (title, tags) = ("Which kettle?".into(), vec!["kettles".into()]);
    StartThread { by, category: open(1), title, tags, opening_post: OPENING }.into()
}

fn retitle(by: Curator) -> ThreadCommand {
    Retitle { by, title: "Which pot?".into() }.into()
}

fn set_tags(by: Curator) -> ThreadCommand {
    SetTags { by, tags: vec!["pots".into()] }.into()
}

fn delete(by: Curator) -> ThreadCommand {
    DeleteThread { by, reason: None }.into()
}

fn pin(until: Option<DateTime<Utc>>) -> ThreadCommand {
    PinThread { by: moderator(), pin: Pin { until }, now: now() }.into()
}

fn accept(by: Curator) -> ThreadCommand {
    AcceptAnswer { by, answer: Answer(REPLY) }.into()
}

fn pinned(until: Option<DateTime<Utc>>) -> ThreadEvent {
    ThreadEvent::Pinned(Pinned { until })
}

fn accepted(moderated: bool) -> ThreadEvent {
    ThreadEvent::AnswerAccepted(AnswerAccepted { post: REPLY, moderated })
}

fn deleted(moderated: bool) -> ThreadEvent {
    ThreadEvent::Deleted(Deleted { reason: None, moderated })
}

fn restored(moderated: bool) -> ThreadEvent {
    ThreadEvent::Restored(Restored { moderated })
}

fn refused(refusal: ThreadRefusal) -> Refusal {
    refusal.into()
}

#[test]
fn a_thread_is_started_once() {
    given(OPEN, vec![]).when(start()).then_expect_events(vec![started()]);
    given(OPEN, vec![started()]).when(start()).then_expect_error(refused(ThreadRefusal::DuplicateId));
}

#[test]
fn its_author_and_moderators_retitle_and_tag_it() {
    for (by, moderated) in [(author(), false), (curator(), true)] {
        let retitled = ThreadEvent::Retitled(Retitled { title: "Which pot?".into(), moderated });
        given(OPEN, vec![started()]).when(retitle(by)).then_expect_events(vec![retitled.clone()]);
        given(OPEN, vec![started(), retitled]).when(retitle(by)).then_expect_events(vec![]);
        let tagged = ThreadEvent::TagsSet(TagsSet { tags: vec!["pots".into()], moderated });
        given(OPEN, vec![started()]).when(set_tags(by)).then_expect_events(vec![tagged.clone()]);
        given(OPEN, vec![started(), tagged]).when(set_tags(by)).then_expect_events(vec![]);
    }
}

#[test]
fn what_is_deleted_or_in_an_archived_category_is_not_worked_on() {
    let clear = || ClearAnswer { by: author() }.into();
    for command in [|| retitle(author()), || set_tags(author()), || accept(author()), clear] {
        given(ARCHIVED, vec![started()]).when(command()).then_expect_error(refused(ThreadRefusal::CategoryArchived));
        given(OPEN, vec![started(), deleted(false)]).when(command()).then_expect_error(refused(ThreadRefusal::Deleted));
    }
}

#[test]
fn moderators_move_it_also_out_of_an_archived_category() {
    let put = |n| MoveThread { by: moderator(), to: open(n) }.into();
    let moved = || vec![ThreadEvent::Moved(Moved { from: category(1), to: category(2) })];
    given(OPEN, vec![started()]).when(put(2)).then_expect_events(moved());
    given(ARCHIVED, vec![started()]).when(put(2)).then_expect_events(moved());
    given(OPEN, vec![started()]).when(put(1)).then_expect_events(vec![]);
}

#[test]
fn it_is_locked_and_unlocked_once() {
    let lock = || Lock { by: moderator(), reason: Some("settled".into()) }.into();
    let unlock = || Unlock { by: moderator() }.into();
    let locked = || ThreadEvent::Locked(Locked { reason: Some("settled".into()) });
    given(OPEN, vec![started()]).when(lock()).then_expect_events(vec![locked()]);
    given(OPEN, vec![started(), locked()]).when(lock()).then_expect_events(vec![]);
    given(OPEN, vec![started(), locked()]).when(unlock()).then_expect_events(vec![ThreadEvent::Unlocked(Unlocked {})]);
    given(OPEN, vec![started()]).when(unlock()).then_expect_events(vec![]);
    for (command, before) in [(lock(), vec![]), (unlock(), vec![locked()])] {
        let archived = given(ARCHIVED, [vec![started()], before].concat()).when(command);
        archived.then_expect_error(refused(ThreadRefusal::CategoryArchived));
    }
}

#[test]
fn it_is_pinned_with_or_without_an_end() {
    let unpin = || Unpin { by: moderator() }.into();
    given(OPEN, vec![started()]).when(pin(None)).then_expect_events(vec![pinned(None)]);
    given(OPEN, vec![started(), pinned(None)]).when(pin(None)).then_expect_events(vec![]);
    given(OPEN, vec![started(), pinned(None)]).when(pin(Some(later()))).then_expect_events(vec![pinned(Some(later()))]);
    given(OPEN, vec![started()]).when(pin(Some(before()))).then_expect_error(refused(ThreadRefusal::UntilPast));
    given(OPEN, vec![started(), deleted(true)]).when(pin(None)).then_expect_error(refused(ThreadRefusal::Deleted));
    given(OPEN, vec![started(), pinned(None)])
        .when(unpin())
        .then_expect_events(vec![ThreadEvent::Unpinned(Unpinned {})]);
    given(OPEN, vec![started()]).when(unpin()).then_expect_events(vec![]);
    for (command, before) in [(pin(None), vec![]), (unpin(), vec![pinned(None)])] {
        let archived = given(ARCHIVED, [vec![started()], before].concat()).when(command);
        archived.then_expect_error(refused(ThreadRefusal::CategoryArchived));
    }
}

#[test]
fn the_pin_that_is_over_ends_wherever_the_thread_is_and_another_stays() {
    let end = || EndPin { over: Over::at(now(), later()).expect("its end has come") }.into();
    let unpinned = || vec![ThreadEvent::Unpinned(Unpinned {})];
    given(OPEN, vec![started(), pinned(Some(now()))]).when(end()).then_expect_events(unpinned());
    given(ARCHIVED, vec![started(), pinned(Some(now())), deleted(true)]).when(end()).then_expect_events(unpinned());
    for another in [pinned(None), pinned(Some(later()))] {
        given(OPEN, vec![started(), pinned(Some(now())), another]).when(end()).then_expect_events(vec![]);
    }
    given(OPEN, vec![started()]).when(end()).then_expect_events(vec![]);
}

#[test]
fn it_has_one_accepted_answer_at_most() {
    let other = ThreadEvent::AnswerAccepted(AnswerAccepted { post: PostId(Uuid::from_u128(102)), moderated: false });
    given(OPEN, vec![started()]).when(accept(author())).then_expect_events(vec![accepted(false)]);
    given(OPEN, vec![started()]).when(accept(curator())).then_expect_events(vec![accepted(true)]);
    given(OPEN, vec![started(), other]).when(accept(author())).then_expect_events(vec![accepted(false)]);
    given(OPEN, vec![started(), accepted(false)]).when(accept(author())).then_expect_events(vec![]);
    let clear = || ClearAnswer { by: author() }.into();
    let cleared = ThreadEvent::AnswerCleared(AnswerCleared { post: REPLY, moderated: false });
    given(OPEN, vec![started(), accepted(true)]).when(clear()).then_expect_events(vec![cleared]);
    given(OPEN, vec![started()]).when(clear()).then_expect_events(vec![]);
}

#[test]
fn an_answer_is_a_reply_of_the_thread_that_can_be_seen() {
    let written = |thread, parent| {
        let (author, body) = (Some(BOB), "The red one.".to_owned());
        PostEvent::Written(post::Written { thread, parent, depth: 1, author, body, format: post::Format::Markdown })
    };
    let reply = || written(THREAD, Some(OPENING));
    let answer = |events: Vec<PostEvent>| Answer::of(THREAD, REPLY, &fixture::given(events)).err();
    assert_eq!(answer(vec![reply()]), None);
    let hidden = PostEvent::Hidden(post::Hidden { thread: THREAD, reason: None });
    let deleted = PostEvent::Deleted(post::Deleted { thread: THREAD, reason: None, moderated: false });
    let elsewhere = written(ThreadId(Uuid::from_u128(11)), Some(OPENING));
    for none in [vec![], vec![written(THREAD, None)], vec![elsewhere], vec![reply(), hidden], vec![reply(), deleted]] {
        assert_eq!(answer(none), Some(ThreadRefusal::NoAnswer));
    }
}

#[test]
fn its_author_and_moderators_delete_it_once() {
    given(OPEN, vec![started()]).when(delete(author())).then_expect_events(vec![deleted(false)]);
    given(OPEN, vec![started()]).when(delete(curator())).then_expect_events(vec![deleted(true)]);
    given(OPEN, vec![started(), deleted(true)]).when(delete(author())).then_expect_events(vec![]);
    given(OPEN, vec![started(), deleted(true)]).when(delete(curator())).then_expect_events(vec![]);
    // Who deletes first does not keep the right to undo it.
    given(OPEN, vec![started(), deleted(false)]).when(delete(curator())).then_expect_events(vec![deleted(true)]);
    given(ARCHIVED, vec![started()]).when(delete(author())).then_expect_error(refused(ThreadRefusal::CategoryArchived));
    given(ARCHIVED, vec![started()]).when(delete(curator())).then_expect_events(vec![deleted(true)]);
}

#[test]
fn an_author_restores_what_it_deleted_itself_and_moderators_everything() {
    let restore = |by| RestoreThread { by }.into();
    let own = || vec![started(), deleted(false)];
    let moderated = || vec![started(), deleted(true)];
    given(OPEN, own()).when(restore(author())).then_expect_events(vec![restored(false)]);
    given(OPEN, own()).when(restore(curator())).then_expect_events(vec![restored(true)]);
    given(OPEN, moderated()).when(restore(curator())).then_expect_events(vec![restored(true)]);
    given(OPEN, moderated()).when(restore(moderating_author())).then_expect_events(vec![restored(true)]);
    given(OPEN, moderated()).when(restore(author())).then_expect_error(refused(ThreadRefusal::DeletedByModerator));
    given(ARCHIVED, own()).when(restore(author())).then_expect_error(refused(ThreadRefusal::CategoryArchived));
    given(OPEN, vec![started()]).when(restore(author())).then_expect_events(vec![]);
}

use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use events::{CategoryId, ThreadEvent, membership::Role, thread};
use uuid::Uuid;

use super::*;
use crate::{
    Refusal,
    access::Curator,
    fixture::{self, ADA, BOB, standing},
};

const THREAD: ThreadId = ThreadId(Uuid::from_u128(10));
const OPENING: PostId = PostId(Uuid::from_u128(100));
const PARENT: PostId = PostId(Uuid::from_u128(101));

fn text(body: &str) -> Text {
    Text { body: body.into(), format: Format::Markdown }
}

fn written(parent: Option<PostId>, depth: u8, body: &str) -> PostEvent {
    let (author, body, format) = (Some(ADA), body.to_owned(), Format::Markdown);
    PostEvent::Written(Written { thread: THREAD, parent, depth, author, body, format })
}

fn edited(revision: u32, body: &str, moderated: bool) -> PostEvent {
    let (body, format) = (body.to_owned(), Format::Markdown);
    PostEvent::Edited(Edited { thread: THREAD, revision, body, format, reason: None, moderated })
}

fn deleted(moderated: bool) -> PostEvent {
    PostEvent::Deleted(Deleted { thread: THREAD, reason: None, moderated })
}

fn hidden() -> PostEvent {
    PostEvent::Hidden(Hidden { thread: THREAD, reason: None })
}

fn restored(moderated: bool) -> PostEvent {
    PostEvent::Restored(Restored { thread: THREAD, moderated })
}

/// Around a post of a thread that was started, and to which this happened; its category may be archived.
fn around(events: Vec<ThreadEvent>, archived: bool) -> Surroundings {
    let (category, title) = (CategoryId(Uuid::from_u128(1)), "Which kettle?".to_owned());
    let (tags, author) = (Vec::new(), Some(ADA));
    let started = thread::Started { category, title, tags, author, opening_post: OPENING };
    let thread: Thread = fixture::given(std::iter::once(ThreadEvent::Started(started)).chain(events));
    Surroundings::of(THREAD, &thread, Ground { archived }).expect("a thread")
}

fn open() -> Surroundings {
    around(vec![], false)
}

fn locked() -> Surroundings {
    around(vec![ThreadEvent::Locked(thread::Locked { reason: None })], false)
}

fn thread_deleted() -> Surroundings {
    around(vec![ThreadEvent::Deleted(thread::Deleted { reason: None, moderated: false })], false)
}

fn archived() -> Surroundings {
    around(vec![], true)
}

/// Below a post to which this happened.
fn below(events: Vec<PostEvent>) -> Surroundings {
    open().below(PARENT, &fixture::given(events))
}

fn given(around: Surroundings, events: Vec<PostEvent>) -> AggregateTestExecutor<Post> {
    TestFramework::with(around).given(events)
}

fn reply(role: Role) -> PostCommand {
    let by = standing(role).participant().expect("a member");
    WriteReply { by, text: text("The red one.") }.into()
}

fn author() -> Curator {
    standing(Role::Member).curator(Some(ADA)).expect("its author")
}

/// A moderator, of what Bob wrote.
fn curator() -> Curator {
    standing(Role::Moderator).curator(Some(BOB)).expect("a moderator")
}

fn moderator() -> Moderator {
    standing(Role::Moderator).moderator().expect("a moderator")
}

fn edit(by: Curator, base: Option<u32>, body: &str) -> PostCommand {
    EditPost { by, base, text: text(body), reason: None }.into()
}

fn delete(by: Curator) -> PostCommand {
    DeletePost { by, reason: None }.into()
}

fn restore(by: Curator) -> PostCommand {
    RestorePost { by }.into()
}

fn refused(refusal: PostRefusal) -> Refusal {
    refusal.into()
}

#[test]
fn an_opening_post_answers_nothing_and_has_depth_0() {
    let by = || standing(Role::Member).participant().expect("a member");
    let write = || WriteOpening { by: by(), text: text("Which?") }.into();
    let around = Surroundings::of_new(THREAD, OPENING);
    given(around, vec![]).when(write()).then_expect_events(vec![written(None, 0, "Which?")]);
    given(around, vec![written(None, 0, "Which?")]).when(write()).then_expect_error(refused(PostRefusal::DuplicateId));
}

#[test]
fn a_reply_to_the_thread_answers_its_opening_post_at_depth_1() {
    let replied = vec![written(Some(OPENING), 1, "The red one.")];
    given(open(), vec![]).when(reply(Role::Member)).then_expect_events(replied.clone());
    given(open(), replied).when(reply(Role::Member)).then_expect_error(refused(PostRefusal::DuplicateId));
}

#[test]
fn a_reply_is_one_deeper_than_what_it_answers_down_to_12() {
    let replied = vec![written(Some(PARENT), 12, "The red one.")];
    let parent = |depth| below(vec![written(Some(OPENING), depth, "Why?")]);
    given(parent(11), vec![]).when(reply(Role::Member)).then_expect_events(replied);
    given(parent(12), vec![]).when(reply(Role::Member)).then_expect_error(refused(PostRefusal::TooDeep));
}

#[test]
fn a_reply_answers_a_post_of_its_thread_that_can_be_seen() {
    let parent = || written(Some(OPENING), 1, "Why?");
    let PostEvent::Written(elsewhere) = parent() else { unreachable!() };
    let elsewhere = PostEvent::Written(Written { thread: ThreadId(Uuid::from_u128(11)), ..elsewhere });
    for (events, refusal) in [
        (vec![elsewhere], PostRefusal::ParentElsewhere),
        (vec![], PostRefusal::ParentElsewhere),
        (vec![parent(), deleted(false)], PostRefusal::ParentGone),
        (vec![parent(), hidden()], PostRefusal::ParentGone),
    ] {
        given(below(events), vec![]).when(reply(Role::Member)).then_expect_error(refused(refusal));
    }
    let replied = vec![written(Some(PARENT), 2, "The red one.")];
    given(below(vec![parent(), hidden()]), vec![]).when(reply(Role::Moderator)).then_expect_events(replied);
}

#[test]
fn only_moderators_reply_in_a_locked_thread_and_nobody_in_a_deleted_or_archived_place() {
    given(locked(), vec![]).when(reply(Role::Member)).then_expect_error(refused(PostRefusal::ThreadLocked));
    let replied = vec![written(Some(OPENING), 1, "The red one.")];
    given(locked(), vec![]).when(reply(Role::Moderator)).then_expect_events(replied);
    for role in [Role::Member, Role::Moderator, Role::Owner] {
        given(thread_deleted(), vec![]).when(reply(role)).then_expect_error(refused(PostRefusal::ThreadDeleted));
        given(archived(), vec![]).when(reply(role)).then_expect_error(refused(PostRefusal::CategoryArchived));
    }
}

#[test]
fn an_edit_makes_a_revision_of_the_one_that_it_names() {
    let post = || vec![written(Some(OPENING), 1, "one")];
    given(open(), post()).when(edit(author(), Some(1), "two")).then_expect_events(vec![edited(2, "two", false)]);
    given(open(), post()).when(edit(curator(), None, "two")).then_expect_events(vec![edited(2, "two", true)]);
    let twice = || vec![written(Some(OPENING), 1, "one"), edited(2, "two", false)];
    given(open(), twice()).when(edit(author(), Some(2), "three")).then_expect_events(vec![edited(3, "three", false)]);
    given(open(), twice())
        .when(edit(author(), Some(1), "three"))
        .then_expect_error(refused(PostRefusal::Moved { current: 2 }));
}

#[test]
fn the_same_text_is_no_revision_but_the_same_in_another_format_is() {
    let twice = || vec![written(Some(OPENING), 1, "one"), edited(2, "two", false)];
    given(open(), twice()).when(edit(author(), Some(2), "two")).then_expect_events(vec![]);
    let html = Text { body: "two".into(), format: Format::Html };
    let edit = EditPost { by: author(), base: Some(2), text: html, reason: None };
    let PostEvent::Edited(event) = edited(3, "two", false) else { unreachable!() };
    let event = PostEvent::Edited(Edited { format: Format::Html, ..event });
    given(open(), twice()).when(edit.into()).then_expect_events(vec![event]);
}

#[test]
fn nothing_is_edited_in_a_deleted_or_archived_place() {
    let post = || vec![written(Some(OPENING), 1, "one")];
    for (around, refusal) in
        [(thread_deleted(), PostRefusal::ThreadDeleted), (archived(), PostRefusal::CategoryArchived)]
    {
        given(around, post()).when(edit(curator(), Some(1), "two")).then_expect_error(refused(refusal));
    }
    let gone = [post(), vec![deleted(false)]].concat();
    given(open(), gone).when(edit(author(), Some(1), "two")).then_expect_error(refused(PostRefusal::Deleted));
}

#[test]
fn its_author_and_moderators_delete_it_once() {
    let post = || vec![written(Some(OPENING), 1, "one")];
    given(open(), post()).when(delete(author())).then_expect_events(vec![deleted(false)]);
    given(open(), post()).when(delete(curator())).then_expect_events(vec![deleted(true)]);
    given(open(), [post(), vec![deleted(true)]].concat()).when(delete(author())).then_expect_events(vec![]);
    given(open(), [post(), vec![deleted(true)]].concat()).when(delete(curator())).then_expect_events(vec![]);
    // Who deletes first does not keep the right to undo it.
    let by_author = [post(), vec![deleted(false)]].concat();
    given(open(), by_author).when(delete(curator())).then_expect_events(vec![deleted(true)]);
    given(archived(), post()).when(delete(author())).then_expect_error(refused(PostRefusal::CategoryArchived));
    given(archived(), post()).when(delete(curator())).then_expect_events(vec![deleted(true)]);
}

#[test]
fn an_author_restores_what_it_deleted_itself_and_moderators_everything() {
    let gone = |moderated| vec![written(Some(OPENING), 1, "one"), deleted(moderated)];
    given(open(), gone(false)).when(restore(author())).then_expect_events(vec![restored(false)]);
    given(open(), gone(true)).when(restore(curator())).then_expect_events(vec![restored(true)]);
    given(open(), gone(true)).when(restore(author())).then_expect_error(refused(PostRefusal::DeletedByModerator));
    given(archived(), gone(false)).when(restore(author())).then_expect_error(refused(PostRefusal::CategoryArchived));
    given(open(), vec![written(None, 0, "one")]).when(restore(author())).then_expect_events(vec![]);
}

#[test]
fn moderators_hide_and_unhide_it_once() {
    let post = || vec![written(Some(OPENING), 1, "one")];
    let hide = || Hide { by: moderator(), reason: None }.into();
    let unhide = || Unhide { by: moderator() }.into();
    let hidden_post = || [post(), vec![hidden()]].concat();
    given(archived(), post()).when(hide()).then_expect_events(vec![hidden()]);
    given(open(), hidden_post()).when(hide()).then_expect_events(vec![]);
    given(open(), hidden_post())
        .when(unhide())
        .then_expect_events(vec![PostEvent::Unhidden(Unhidden { thread: THREAD })]);
    given(open(), post()).when(unhide()).then_expect_events(vec![]);
}

//! Given a history, then these rows.

use events::{AccountId, CategoryId, CommunityId, PostId, Stream, ThreadId, post, thread};

use super::*;
use crate::fixture::{History, at};

struct Given {
    history: History,
    thread: ThreadId,
    opening: PostId,
    category: CategoryId,
    ada: AccountId,
    bob: AccountId,
}

/// A thread that ada started: positions 1 and 2.
fn given() -> Given {
    let (thread, opening, category) = (ThreadId::new(), PostId::new(), CategoryId::new());
    let (ada, bob) = (AccountId::new(), AccountId::new());
    let mut given = Given { history: History::new(), thread, opening, category, ada, bob };
    let started =
        Started { category, title: "Hello".to_owned(), tags: Vec::new(), author: Some(ada), opening_post: opening };
    given.history.then(&Stream::thread(thread), ThreadEvent::Started(started));
    given.written(opening, None, ada);
    given
}

impl Given {
    fn written(&mut self, post: PostId, parent: Option<PostId>, author: AccountId) {
        let written = Written {
            thread: self.thread,
            parent,
            depth: 0,
            author: Some(author),
            body: String::new(),
            format: post::Format::Markdown,
        };
        self.history.then(&Stream::post(post), PostEvent::Written(written));
    }

    fn reply(&mut self, author: AccountId) -> PostId {
        let post = PostId::new();
        self.written(post, Some(self.opening), author);
        post
    }

    fn post(&mut self, post: PostId, event: PostEvent) {
        self.history.then(&Stream::post(post), event);
    }

    fn delete(&mut self, post: PostId) {
        self.post(post, PostEvent::Deleted(post::Deleted { thread: self.thread, reason: None, moderated: false }));
    }

    fn hide(&mut self, post: PostId) {
        self.post(post, PostEvent::Hidden(post::Hidden { thread: self.thread, reason: None }));
    }

    fn thread(&mut self, event: ThreadEvent) {
        self.history.then(&Stream::thread(self.thread), event);
    }

    fn react(&mut self, post: PostId, kind: &str, replaced: Option<&str>) {
        let set = Set {
            thread: self.thread,
            post,
            account: self.bob,
            kind: kind.to_owned(),
            replaced: replaced.map(str::to_owned),
        };
        self.history.then(&Stream::reaction(post, self.bob), ReactionEvent::Set(set));
    }

    fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        self.history.fold::<ThreadList>(&mut rows).expect("it folds");
        rows
    }

    fn row(&self) -> Thread {
        self.rows().threads.get(self.thread.0).expect("the thread").clone()
    }

    /// Threads and posts, of the category, the community, ada and bob.
    fn counts(&self) -> [(i64, i64); 4] {
        let (rows, CommunityId(community)) = (self.rows(), self.history.community);
        let account = |id: AccountId| {
            let count = rows.accounts.get((id.0, community));
            count.map_or((0, 0), |count| (count.threads, count.posts))
        };
        let category = rows.categories.get(self.category.0).expect("a count");
        let whole = rows.communities.get(community).expect("a count");
        let (ada, bob) = (account(self.ada), account(self.bob));
        [(category.threads, category.posts), (whole.threads, whole.posts), ada, bob]
    }
}

#[test]
fn a_thread_ends_with_its_newest_reply() {
    let mut given = given();
    let reply = given.reply(given.bob);
    let row = given.row();
    assert_eq!((row.replies, row.last_post_id, row.last_author_id), (1, reply.0, Some(given.bob.0)));
    assert_eq!((row.created_at, row.last_post_at, row.version, row.position), (at(1), at(3), 1, 3));
    assert_eq!(given.counts(), [(1, 2), (1, 2), (1, 1), (0, 1)]);
}

#[test]
fn what_cannot_be_seen_does_not_count_and_the_one_before_is_last() {
    let mut given = given();
    let (first, second) = (given.reply(given.bob), given.reply(given.ada));
    given.delete(second);
    assert_eq!((given.row().replies, given.row().last_post_id), (1, first.0));
    given.hide(first);
    assert_eq!((given.row().replies, given.row().last_post_id), (0, given.opening.0));
    assert_eq!(given.counts(), [(1, 1), (1, 1), (1, 1), (0, 0)]);
    given.post(second, PostEvent::Restored(post::Restored { thread: given.thread, moderated: false }));
    assert_eq!((given.row().replies, given.row().last_post_id), (1, second.0));
}

#[test]
fn a_post_deleted_and_hidden_counts_out_once() {
    let mut given = given();
    let reply = given.reply(given.bob);
    given.delete(reply);
    given.hide(reply);
    assert_eq!((given.row().replies, given.counts()[1]), (0, (1, 1)));
    given.post(reply, PostEvent::Unhidden(post::Unhidden { thread: given.thread }));
    assert_eq!((given.row().replies, given.counts()[1]), (0, (1, 1)));
}

#[test]
fn a_hidden_opening_post_is_still_where_a_thread_without_replies_ends() {
    let mut given = given();
    given.hide(given.opening);
    assert_eq!((given.row().replies, given.row().last_post_id), (0, given.opening.0));
    assert_eq!(given.counts(), [(1, 0), (1, 0), (1, 0), (0, 0)]);
}

#[test]
fn a_deleted_thread_takes_everybodys_posts_with_it_and_brings_them_back() {
    let mut given = given();
    let reply = given.reply(given.bob);
    given.thread(ThreadEvent::Deleted(thread::Deleted { reason: None, moderated: true }));
    assert_eq!(given.counts(), [(0, 0), (0, 0), (0, 0), (0, 0)]);
    // What happens in it meanwhile counts when it is back.
    given.hide(reply);
    assert_eq!(given.counts(), [(0, 0), (0, 0), (0, 0), (0, 0)]);
    given.thread(ThreadEvent::Restored(thread::Restored { moderated: true }));
    assert_eq!(given.counts(), [(1, 1), (1, 1), (1, 1), (0, 0)]);
}

#[test]
fn an_answer_is_shown_while_it_can_be_seen() {
    let mut given = given();
    let answer = given.reply(given.bob);
    given.thread(ThreadEvent::AnswerAccepted(AnswerAccepted { post: answer, moderated: false }));
    assert_eq!(given.row().answer_id, Some(answer.0));
    given.hide(answer);
    assert_eq!((given.row().accepted_id, given.row().answer_id), (Some(answer.0), None));
    given.post(answer, PostEvent::Unhidden(post::Unhidden { thread: given.thread }));
    assert_eq!(given.row().answer_id, Some(answer.0));
    given.delete(answer);
    let better = given.reply(given.ada);
    given.thread(ThreadEvent::AnswerAccepted(AnswerAccepted { post: better, moderated: false }));
    given.post(answer, PostEvent::Restored(post::Restored { thread: given.thread, moderated: false }));
    assert_eq!(given.row().answer_id, Some(better.0), "the other is none any more");
    given.thread(ThreadEvent::AnswerCleared(thread::AnswerCleared { post: better, moderated: false }));
    assert_eq!((given.row().accepted_id, given.row().answer_id), (None, None));
}

#[test]
fn who_deleted_a_thread_is_known_until_it_is_restored() {
    let mut given = given();
    for (moderated, by) in [(false, "author"), (true, "moderator")] {
        given.thread(ThreadEvent::Deleted(Deleted { reason: None, moderated }));
        assert_eq!((given.row().deleted, given.row().deleted_by.as_deref()), (true, Some(by)));
        given.thread(ThreadEvent::Restored(thread::Restored { moderated }));
        assert_eq!((given.row().deleted, given.row().deleted_by.as_deref()), (false, None));
    }
}

#[test]
fn a_moved_thread_counts_where_it_is() {
    let mut given = given();
    given.reply(given.bob);
    let to = CategoryId::new();
    given.thread(ThreadEvent::Moved(Moved { from: given.category, to }));
    assert_eq!(given.counts(), [(0, 0), (1, 2), (1, 1), (0, 1)]);
    let rows = given.rows();
    let there = rows.categories.get(to.0).expect("a count");
    assert_eq!((there.threads, there.posts), (1, 2));
}

#[test]
fn the_opening_posts_score_is_the_threads() {
    let mut given = given();
    let reply = given.reply(given.ada);
    given.react(reply, "up", None);
    assert_eq!(given.row().score, 0);
    given.react(given.opening, "up", None);
    given.react(given.opening, "down", Some("up"));
    assert_eq!((given.row().score, given.row().hot), (-1, score::hot(-1, at(1))));
    for (up, down) in [(10, 3), (12, 3)] {
        let imported = ScoreImported { thread: given.thread, post: given.opening, up, down };
        given.history.then(&Stream::imported_score(given.opening), ReactionEvent::ScoreImported(imported));
    }
    assert_eq!((given.row().score, given.row().version), (8, 1));
}

#[test]
fn an_event_of_a_thread_that_is_not_there_is_a_fault() {
    let mut given = given();
    given.reply(given.bob);
    given.history.recorded.drain(..2);
    let fault = given.history.fold::<ThreadList>(&mut Rows::default()).expect_err("no thread");
    assert!(matches!(fault, Fault::NoRow { table: "thread", .. }));
}

#[test]
fn who_reads_what_is_told() {
    let mut given = given();
    given.history.recorded.truncate(2);
    let changed = given.history.fold::<ThreadList>(&mut Rows::default()).expect("it folds");
    let told: Vec<String> = changed.iter().map(ToString::to_string).collect();
    let community = given.history.community;
    assert_eq!(
        told,
        [format!("account:{}", given.ada), format!("community:{community}"), format!("thread:{}", given.thread),]
    );
}

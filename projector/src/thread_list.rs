//! Projection: the lists of threads, and what there is how many of: threads and posts by category, community and
//! account.
//!
//! A post can be seen while it is neither deleted nor hidden. What counts outside its thread are the posts that can be
//! seen in threads that are not deleted.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use events::{
    Event, PostEvent, ReactionEvent, ThreadEvent,
    post::{self, Written},
    reaction::{Cleared, ScoreImported, Set},
    thread::{AnswerAccepted, Moved, Pinned, Retitled, Started, TagsSet},
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Projection, Recorded},
    score,
    table::{self, Table, read_table},
};

pub(crate) struct ThreadList;

read_table! {
    /// A thread, as a list shows it.
    Thread in "thread" {
        key { thread_id: Uuid }
        community_id: Uuid,
        category_id: Uuid,
        title: String,
        tags: Json<Vec<String>>,
        author_id: Option<Uuid>,
        opening_post_id: Uuid,
        created_at: DateTime<Utc>,
        last_post_id: Uuid,
        last_post_at: DateTime<Utc>,
        last_author_id: Option<Uuid>,
        replies: i32,
        score: i32,
        imported_score: i32,
        hot: f64,
        pinned: bool,
        pinned_until: Option<DateTime<Utc>>,
        locked: bool,
        deleted: bool,
        answer_id: Option<Uuid>,
        version: i64,
        position: i64,
    }

    /// A post, no wider than the counts and the last post need.
    ThreadPost in "thread_post" {
        key { post_id: Uuid }
        thread_id: Uuid,
        author_id: Option<Uuid>,
        written_at: DateTime<Utc>,
        written_position: i64,
        deleted: bool,
        hidden: bool,
    }

    /// What can be seen in a category.
    CategoryCount in "category_count" {
        key { category_id: Uuid }
        community_id: Uuid,
        threads: i64 => Add,
        posts: i64 => Add,
    }

    /// What can be seen in a community.
    CommunityCount in "community_count" {
        key { community_id: Uuid }
        threads: i64 => Add,
        posts: i64 => Add,
        last_activity_at: Option<DateTime<Utc>> => Greatest,
    }

    /// What can be seen in a community of an account's.
    AccountCount in "account_count" {
        key { account_id: Uuid, community_id: Uuid }
        threads: i64 => Add,
        posts: i64 => Add,
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    threads: Table<Thread>,
    posts: Table<ThreadPost>,
    /// The posts in memory, by thread and in order of position.
    order: HashMap<Uuid, BTreeMap<i64, Uuid>>,
    categories: Table<CategoryCount>,
    communities: Table<CommunityCount>,
    accounts: Table<AccountCount>,
}

impl Projection for ThreadList {
    const NAME: &'static str = "thread_list";
    const TABLES: &'static [&'static str] =
        &["thread", "thread_post", "category_count", "community_count", "account_count"];
    type Rows = Rows;

    fn concerns(event: &Event) -> bool {
        match event {
            Event::Thread(_) | Event::Reaction(_) => true,
            Event::Post(event) => !matches!(event, PostEvent::Edited(_)),
            _ => false,
        }
    }

    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Rows> {
        let need = Need::of(events);
        let mut rows = Rows { threads: Table::load(need.threads, from).await?, ..Rows::default() };
        rows.posts = Table::load(need.posts, from).await?;
        rows.posts.add_where("thread_id", &need.whole, from).await?;
        add_newest(&mut rows.posts, need.newest, from).await?;
        for post in rows.posts.iter() {
            rows.order.entry(post.thread_id).or_default().insert(post.written_position, post.post_id);
        }
        Ok(rows)
    }

    fn fold(rows: &mut Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        match recorded.event {
            Event::Thread(event) => rows.thread(event, recorded, changed),
            Event::Post(PostEvent::Written(written)) => rows.written(written, recorded, changed),
            Event::Post(event) => rows.post(event, recorded, changed),
            Event::Reaction(event) => rows.reaction(event, recorded, changed),
            _ => Ok(()),
        }
    }

    async fn write(rows: Rows, to: &mut PgConnection) -> sqlx::Result<()> {
        rows.threads.write(to).await?;
        rows.posts.write(to).await?;
        rows.categories.write(to).await?;
        rows.communities.write(to).await?;
        rows.accounts.write(to).await
    }
}

/// The rows that a batch needs.
#[derive(Default)]
struct Need {
    threads: Vec<Uuid>,
    posts: Vec<Uuid>,
    /// Threads of which every post counts: they move, go or come back as a whole.
    whole: Vec<Uuid>,
    /// Threads whose last post may be another one afterwards, with how many posts go or come back: the newest that can
    /// be seen then is among that many and one of those that can be seen now, or in the batch.
    newest: HashMap<Uuid, i32>,
}

impl Need {
    fn of(events: &[Recorded<'_>]) -> Self {
        let mut need = Self::default();
        for recorded in events {
            match recorded.event {
                Event::Thread(event) => {
                    let id = recorded.id().ok();
                    need.threads.extend(id);
                    if matches!(event, ThreadEvent::Moved(_) | ThreadEvent::Deleted(_) | ThreadEvent::Restored(_)) {
                        need.whole.extend(id);
                    }
                }
                Event::Post(event) if !matches!(event, PostEvent::Written(_)) => {
                    let thread = thread_of(event);
                    need.threads.push(thread);
                    need.posts.extend(recorded.id().ok());
                    *need.newest.entry(thread).or_insert(1) += 1;
                }
                Event::Post(PostEvent::Written(Written { thread, .. }))
                | Event::Reaction(
                    ReactionEvent::Set(Set { thread, .. })
                    | ReactionEvent::Cleared(Cleared { thread, .. })
                    | ReactionEvent::ScoreImported(ScoreImported { thread, .. }),
                ) => need.threads.push(thread.0),
                _ => {}
            }
        }
        need
    }
}

/// The newest posts that can be seen, as many of each thread as it says.
async fn add_newest(
    posts: &mut Table<ThreadPost>,
    newest: HashMap<Uuid, i32>,
    from: &mut PgConnection,
) -> sqlx::Result<()> {
    if newest.is_empty() {
        return Ok(());
    }
    let (threads, numbers): (Vec<Uuid>, Vec<i32>) = newest.into_iter().unzip();
    let sql = format!(
        "select p.* from unnest($1::uuid[], $2::integer[]) t (id, number) cross join lateral (
             select {} from thread_post where thread_id = t.id and not deleted and not hidden
             order by written_position desc limit t.number
         ) p",
        table::columns::<ThreadPost>()
    );
    posts.add(sqlx::query(&sql).bind(threads).bind(numbers), from).await
}

impl Rows {
    fn thread(&mut self, event: &ThreadEvent, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let id = recorded.id()?;
        if let ThreadEvent::Started(started) = event {
            self.threads.put(begun(id, started, recorded)?);
            self.count_thread(id, 1, changed)?;
        }
        let thread = self.threads.change(id)?;
        match event {
            ThreadEvent::Started(_) => {}
            ThreadEvent::Retitled(Retitled { title, .. }) => thread.title.clone_from(title),
            ThreadEvent::Moved(Moved { to, from: _ }) => {
                self.count_thread(id, -1, changed)?;
                self.threads.change(id)?.category_id = to.0;
                self.count_thread(id, 1, changed)?;
            }
            ThreadEvent::TagsSet(TagsSet { tags, .. }) => thread.tags = Json(tags.clone()),
            ThreadEvent::Locked(_) => thread.locked = true,
            ThreadEvent::Unlocked(_) => thread.locked = false,
            ThreadEvent::Pinned(Pinned { until }) => (thread.pinned, thread.pinned_until) = (true, *until),
            ThreadEvent::Unpinned(_) => (thread.pinned, thread.pinned_until) = (false, None),
            ThreadEvent::AnswerAccepted(AnswerAccepted { post, .. }) => thread.answer_id = Some(post.0),
            ThreadEvent::AnswerCleared(_) => thread.answer_id = None,
            ThreadEvent::Deleted(_) => {
                self.count_thread(id, -1, changed)?;
                self.threads.change(id)?.deleted = true;
            }
            ThreadEvent::Restored(_) => {
                self.threads.change(id)?.deleted = false;
                self.count_thread(id, 1, changed)?;
            }
        }
        let thread = self.threads.change(id)?;
        thread.version = recorded.version();
        touch(thread, recorded, changed);
        Ok(())
    }

    fn written(&mut self, written: &Written, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let post = ThreadPost {
            post_id: recorded.id()?,
            thread_id: written.thread.0,
            author_id: written.author.map(Uuid::from),
            written_at: recorded.at(),
            written_position: recorded.position(),
            deleted: false,
            hidden: false,
        };
        self.order.entry(post.thread_id).or_default().insert(post.written_position, post.post_id);
        self.posts.put(post.clone());
        self.count_post(&post, 1, changed)?;
        let thread = self.threads.change(post.thread_id)?;
        if post.post_id != thread.opening_post_id {
            thread.replies += 1;
            ends_with(thread, &post);
        }
        touch(thread, recorded, changed);
        Ok(())
    }

    /// A post went or came back.
    fn post(&mut self, event: &PostEvent, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let post = self.posts.change(recorded.id()?)?;
        let was_seen = can_be_seen(post);
        match event {
            PostEvent::Deleted(_) => post.deleted = true,
            PostEvent::Restored(_) => post.deleted = false,
            PostEvent::Hidden(_) => post.hidden = true,
            PostEvent::Unhidden(_) => post.hidden = false,
            PostEvent::Written(_) | PostEvent::Edited(_) => {}
        }
        let post = post.clone();
        let difference = i32::from(can_be_seen(&post)) - i32::from(was_seen);
        self.count_post(&post, difference, changed)?;
        let newest = self.newest(post.thread_id).cloned();
        let thread = self.threads.change(post.thread_id)?;
        if post.post_id != thread.opening_post_id {
            thread.replies += difference;
        }
        match newest {
            Some(newest) => ends_with(thread, &newest),
            None => ends_with_its_opening(thread),
        }
        touch(thread, recorded, changed);
        Ok(())
    }

    /// Only the opening post's score is the thread's.
    fn reaction(&mut self, event: &ReactionEvent, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let (ReactionEvent::Set(Set { thread, post, .. })
        | ReactionEvent::Cleared(Cleared { thread, post, .. })
        | ReactionEvent::ScoreImported(ScoreImported { thread, post, .. })) = event;
        if self.threads.get(thread.0).is_some_and(|thread| thread.opening_post_id != post.0) {
            return Ok(());
        }
        let thread = self.threads.change(thread.0)?;
        match event {
            ReactionEvent::Set(Set { kind, replaced, .. }) => {
                thread.score += score::weight(kind) - replaced.as_deref().map_or(0, score::weight);
            }
            ReactionEvent::Cleared(Cleared { kind, .. }) => thread.score -= score::weight(kind),
            ReactionEvent::ScoreImported(ScoreImported { up, down, .. }) => {
                let imported = score::votes(*up) - score::votes(*down);
                thread.score += imported - thread.imported_score;
                thread.imported_score = imported;
            }
        }
        thread.hot = score::hot(thread.score, thread.created_at);
        touch(thread, recorded, changed);
        Ok(())
    }

    /// Counts a thread in or out, with all of its posts that can be seen.
    fn count_thread(&mut self, id: Uuid, sign: i64, changed: &mut Changed) -> Result<(), Fault> {
        let thread = self.threads.change(id)?.clone();
        if thread.deleted {
            return Ok(());
        }
        self.category(&thread).threads += sign;
        self.community(&thread).threads += sign;
        if let Some(author) = thread.author_id {
            self.account(author, &thread).threads += sign;
            changed.account(author);
        }
        let posts: Vec<ThreadPost> = self.posts_of(id).filter(|post| can_be_seen(post)).cloned().collect();
        for post in posts {
            self.count_in(&thread, &post, sign, changed);
        }
        Ok(())
    }

    /// Counts a post in (1), out (-1) or not at all (0), where its thread is not deleted.
    fn count_post(&mut self, post: &ThreadPost, difference: i32, changed: &mut Changed) -> Result<(), Fault> {
        let thread = self.threads.change(post.thread_id)?.clone();
        if !thread.deleted {
            self.count_in(&thread, post, difference.into(), changed);
        }
        Ok(())
    }

    fn count_in(&mut self, thread: &Thread, post: &ThreadPost, difference: i64, changed: &mut Changed) {
        self.category(thread).posts += difference;
        let community = self.community(thread);
        community.posts += difference;
        community.last_activity_at = community.last_activity_at.max(Some(post.written_at));
        if let Some(author) = post.author_id {
            self.account(author, thread).posts += difference;
            changed.account(author);
        }
    }

    fn category(&mut self, thread: &Thread) -> &mut CategoryCount {
        let (category_id, community_id) = (thread.category_id, thread.community_id);
        let none = || CategoryCount { category_id, community_id, threads: 0, posts: 0 };
        self.categories.change_or(category_id, none)
    }

    fn community(&mut self, thread: &Thread) -> &mut CommunityCount {
        let community_id = thread.community_id;
        let none = || CommunityCount { community_id, threads: 0, posts: 0, last_activity_at: None };
        self.communities.change_or(community_id, none)
    }

    fn account(&mut self, account_id: Uuid, thread: &Thread) -> &mut AccountCount {
        let community_id = thread.community_id;
        let none = || AccountCount { account_id, community_id, threads: 0, posts: 0 };
        self.accounts.change_or((account_id, community_id), none)
    }

    /// The posts of a thread that are in memory, oldest first.
    fn posts_of(&self, thread: Uuid) -> impl DoubleEndedIterator<Item = &ThreadPost> {
        let order = self.order.get(&thread).into_iter().flat_map(BTreeMap::values);
        order.filter_map(|post| self.posts.get(*post))
    }

    fn newest(&self, thread: Uuid) -> Option<&ThreadPost> {
        self.posts_of(thread).rev().find(|post| can_be_seen(post))
    }
}

fn begun(id: Uuid, started: &Started, recorded: &Recorded<'_>) -> Result<Thread, Fault> {
    let Started { category, title, tags, author, opening_post } = started;
    let author = author.map(Uuid::from);
    Ok(Thread {
        thread_id: id,
        community_id: recorded.community()?,
        category_id: category.0,
        title: title.clone(),
        tags: Json(tags.clone()),
        author_id: author,
        opening_post_id: opening_post.0,
        created_at: recorded.at(),
        last_post_id: opening_post.0,
        last_post_at: recorded.at(),
        last_author_id: author,
        replies: 0,
        score: 0,
        imported_score: 0,
        hot: score::hot(0, recorded.at()),
        pinned: false,
        pinned_until: None,
        locked: false,
        deleted: false,
        answer_id: None,
        version: 0,
        position: 0,
    })
}

fn touch(thread: &mut Thread, recorded: &Recorded<'_>, changed: &mut Changed) {
    thread.position = recorded.position();
    changed.thread(thread.thread_id);
    changed.community(thread.community_id);
}

fn ends_with(thread: &mut Thread, post: &ThreadPost) {
    (thread.last_post_id, thread.last_post_at, thread.last_author_id) = (post.post_id, post.written_at, post.author_id);
}

fn ends_with_its_opening(thread: &mut Thread) {
    (thread.last_post_id, thread.last_post_at) = (thread.opening_post_id, thread.created_at);
    thread.last_author_id = thread.author_id;
}

fn can_be_seen(post: &ThreadPost) -> bool {
    !post.deleted && !post.hidden
}

fn thread_of(event: &PostEvent) -> Uuid {
    match event {
        PostEvent::Written(Written { thread, .. })
        | PostEvent::Edited(post::Edited { thread, .. })
        | PostEvent::Deleted(post::Deleted { thread, .. })
        | PostEvent::Restored(post::Restored { thread, .. })
        | PostEvent::Hidden(post::Hidden { thread, .. })
        | PostEvent::Unhidden(post::Unhidden { thread, .. }) => thread.0,
    }
}

#[cfg(test)]
mod tests {
    use events::{AccountId, CategoryId, CommunityId, PostId, Stream, ThreadId, thread};

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
}

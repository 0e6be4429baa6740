//! Projection: the lists of threads, and what there is how many of: threads and posts by category, community and
//! account.
//!
//! A post can be seen while it is neither deleted nor hidden. What counts outside its thread are the posts that can be
//! seen in threads that are not deleted.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use events::{
    Event, PostEvent, ReactionEvent, ThreadEvent,
    post::Written,
    reaction::{Cleared, ScoreImported, Set},
    thread::{AnswerAccepted, Deleted, Moved, Pinned, Retitled, Started, TagsSet},
};
use rendering::score;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Word, Writes, read_table},
};

use need::{Need, add_newest};

mod count;
mod need;
#[cfg(test)]
mod tests;

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
        deleted_by: Option<Word>,
        accepted_id: Option<Uuid>,
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

    /// How many threads that are not deleted bear a tag.
    TagCount in "tag_count" {
        key { community_id: Uuid, tag: String }
        threads: i64 => Add,
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
    tags: Table<TagCount>,
}

impl Projection for ThreadList {
    const NAME: &'static str = "thread_list";
    const TABLES: &'static [Kept] = &[
        Kept::new("thread_post", "thread_id in (select thread_id from thread where community_id = any($1))"),
        Kept::of_community("thread"),
        Kept::of_community("category_count"),
        Kept::of_community("community_count"),
        Kept::of_community("account_count"),
        Kept::of_community("tag_count"),
    ];
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

    fn write(rows: Rows, to: &mut Writes) {
        rows.threads.write(to);
        rows.posts.write(to);
        rows.categories.write(to);
        rows.communities.write(to);
        rows.accounts.write(to);
        rows.tags.write(to);
    }
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
            ThreadEvent::TagsSet(TagsSet { tags, .. }) => {
                self.count_tags(id, -1)?;
                self.threads.change(id)?.tags = Json(tags.clone());
                self.count_tags(id, 1)?;
            }
            ThreadEvent::Locked(_) => thread.locked = true,
            ThreadEvent::Unlocked(_) => thread.locked = false,
            ThreadEvent::Pinned(Pinned { until }) => (thread.pinned, thread.pinned_until) = (true, *until),
            ThreadEvent::Unpinned(_) => (thread.pinned, thread.pinned_until) = (false, None),
            // It can be seen: no other is accepted.
            ThreadEvent::AnswerAccepted(AnswerAccepted { post, .. }) => {
                (thread.accepted_id, thread.answer_id) = (Some(post.0), Some(post.0));
            }
            ThreadEvent::AnswerCleared(_) => (thread.accepted_id, thread.answer_id) = (None, None),
            ThreadEvent::Deleted(Deleted { moderated, .. }) => {
                self.count_thread(id, -1, changed)?;
                let thread = self.threads.change(id)?;
                let by = if *moderated { "moderator" } else { "author" };
                (thread.deleted, thread.deleted_by) = (true, Some(by.into()));
            }
            ThreadEvent::Restored(_) => {
                (thread.deleted, thread.deleted_by) = (false, None);
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
        if thread.accepted_id == Some(post.post_id) {
            thread.answer_id = can_be_seen(&post).then_some(post.post_id);
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
        deleted_by: None,
        accepted_id: None,
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

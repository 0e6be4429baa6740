//! Projection: the posts of each thread, flat by number and as a tree.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use events::{
    Event, PostEvent, ReactionEvent,
    post::{Deleted, Edited, Format, Hidden, Restored, Unhidden, Written},
    reaction::{Cleared, ScoreImported, Set},
};
use rendering::score;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Path, Table, Word, Writes, read_table},
};

pub(crate) struct ThreadPage;

read_table! {
    /// A post, without its texts.
    Post in "post" {
        key { post_id: Uuid }
        thread_id: Uuid,
        community_id: Uuid,
        number: i32,
        parent_id: Option<Uuid>,
        depth: i16,
        path: Path,
        author_id: Option<Uuid>,
        created_at: DateTime<Utc>,
        revision: i32,
        edited_at: Option<DateTime<Utc>>,
        children: i32,
        replies: i32,
        reactions: Json<BTreeMap<String, i32>>,
        imported_up: i32,
        imported_down: i32,
        score: i32,
        deleted: bool,
        hidden: bool,
        version: i64,
        position: i64,
    }

    /// One of the texts that a post had.
    PostRevision in "post_revision" {
        key { post_id: Uuid, revision: i32 }
        body: String,
        body_html: String,
        format: Word,
        editor_id: Option<Uuid>,
        written_at: DateTime<Utc>,
        reason: Option<String>,
    }

    /// How many numbers a thread has given out.
    ThreadNumbers in "thread_numbers" {
        key { thread_id: Uuid }
        posts: i32,
    }

    /// What an account says to a post.
    Reaction in "reaction" {
        key { post_id: Uuid, account_id: Uuid }
        kind: String,
        set_at: DateTime<Utc>,
    }
}

#[derive(Default)]
pub(crate) struct Rows {
    posts: Table<Post>,
    revisions: Table<PostRevision>,
    numbers: Table<ThreadNumbers>,
    reactions: Table<Reaction>,
}

impl Projection for ThreadPage {
    const NAME: &'static str = "thread_page";
    const TABLES: &'static [Kept] = &[
        Kept::new("post_revision", "post_id in (select post_id from post where community_id = any($1))"),
        Kept::new("reaction", "post_id in (select post_id from post where community_id = any($1))"),
        Kept::new("thread_numbers", "thread_id in (select thread_id from post where community_id = any($1))"),
        Kept::of_community("post"),
    ];
    type Rows = Rows;

    fn concerns(event: &Event) -> bool {
        matches!(event, Event::Post(_) | Event::Reaction(_))
    }

    /// Posts that change, and those that are answered: by new posts, and by those that come and go.
    async fn load(events: &[Recorded<'_>], from: &mut PgConnection) -> sqlx::Result<Rows> {
        let (mut posts, mut threads, mut seen) = (Vec::new(), Vec::new(), Vec::new());
        for recorded in events {
            match recorded.event {
                Event::Post(PostEvent::Written(Written { thread, parent, .. })) => {
                    threads.push(thread.0);
                    posts.extend(parent.map(Uuid::from));
                }
                Event::Reaction(event) => posts.push(reacted_to(event)),
                Event::Post(PostEvent::Edited(_)) => posts.extend(recorded.id().ok()),
                _ => seen.extend(recorded.id().ok()),
            }
        }
        posts.extend(&seen);
        let mut posts: Table<Post> = Table::load(posts, from).await?;
        let answered: Vec<Uuid> = seen.into_iter().filter_map(|post| posts.get(post)?.parent_id).collect();
        posts.add_where("post_id", &answered, from).await?;
        Ok(Rows { posts, numbers: Table::load(threads, from).await?, ..Rows::default() })
    }

    fn fold(rows: &mut Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        match recorded.event {
            Event::Post(event) => rows.post(event, recorded, changed),
            Event::Reaction(event) => rows.reaction(event, recorded, changed),
            _ => Ok(()),
        }
    }

    fn write(rows: Rows, to: &mut Writes) {
        rows.posts.write(to);
        rows.revisions.write(to);
        rows.numbers.write(to);
        rows.reactions.write(to);
    }
}

impl Rows {
    fn post(&mut self, event: &PostEvent, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let id = recorded.id()?;
        if let PostEvent::Written(written) = event {
            self.written(id, written, recorded, changed)?;
        }
        let post = self.posts.change(id)?;
        let was_seen = can_be_seen(post);
        match event {
            PostEvent::Written(_) => {}
            PostEvent::Edited(Edited { revision, body, format, reason, .. }) => {
                post.revision = i32::try_from(*revision).unwrap_or(i32::MAX);
                post.edited_at = Some(recorded.at());
                let text = text(id, post.revision, body, *format, recorded);
                self.revisions.put(PostRevision { reason: reason.clone(), ..text });
            }
            PostEvent::Deleted(Deleted { .. }) => post.deleted = true,
            PostEvent::Restored(Restored { .. }) => post.deleted = false,
            PostEvent::Hidden(Hidden { .. }) => post.hidden = true,
            PostEvent::Unhidden(Unhidden { .. }) => post.hidden = false,
        }
        post.version = recorded.version();
        post.position = recorded.position();
        changed.thread(post.thread_id);
        changed.post(id);
        // The list of its author's posts: thread_list tells of it too, but may be ahead or behind.
        if let Some(author) = post.author_id {
            changed.account(author);
        }
        let difference = i32::from(can_be_seen(post)) - i32::from(was_seen);
        if difference != 0
            && let Some(parent) = post.parent_id
        {
            self.posts.change(parent)?.replies += difference;
            changed.post(parent);
        }
        Ok(())
    }

    /// The next number of its thread; below the post it answers.
    fn written(
        &mut self,
        id: Uuid,
        written: &Written,
        recorded: &Recorded<'_>,
        changed: &mut Changed,
    ) -> Result<(), Fault> {
        let Written { thread, parent, depth, author, body, format } = written;
        let thread_id = thread.0;
        let numbers = self.numbers.change_or(thread_id, || ThreadNumbers { thread_id, posts: 0 });
        numbers.posts += 1;
        let number = numbers.posts;
        let path = match parent {
            None => Path::default(),
            Some(parent) => {
                let parent = self.posts.change(parent.0)?;
                parent.children += 1;
                parent.replies += 1;
                changed.post(parent.post_id);
                parent.path.below(number)
            }
        };
        self.posts.put(Post {
            post_id: id,
            thread_id,
            community_id: recorded.community()?,
            number,
            parent_id: parent.map(Uuid::from),
            depth: i16::from(*depth),
            path,
            author_id: author.map(Uuid::from),
            created_at: recorded.at(),
            revision: FIRST_REVISION,
            edited_at: None,
            children: 0,
            replies: 0,
            reactions: Json(BTreeMap::new()),
            imported_up: 0,
            imported_down: 0,
            score: 0,
            deleted: false,
            hidden: false,
            version: 0,
            position: 0,
        });
        let first = text(id, FIRST_REVISION, body, *format, recorded);
        self.revisions.put(PostRevision { editor_id: author.map(Uuid::from), ..first });
        Ok(())
    }

    /// A reaction changes its post's counts, not its version.
    fn reaction(&mut self, event: &ReactionEvent, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let post = self.posts.change(reacted_to(event))?;
        match event {
            ReactionEvent::Set(Set { post: _, account, kind, replaced, thread: _ }) => {
                if let Some(replaced) = replaced {
                    count(post, replaced, -1);
                }
                count(post, kind, 1);
                let (post_id, account_id, kind) = (post.post_id, account.0, kind.clone());
                let reaction = Reaction { post_id, account_id, kind, set_at: recorded.at() };
                match replaced {
                    None => self.reactions.put(reaction),
                    Some(_) => self.reactions.replace(reaction),
                }
            }
            ReactionEvent::Cleared(Cleared { post: _, account, kind, thread: _ }) => {
                count(post, kind, -1);
                self.reactions.remove((post.post_id, account.0));
            }
            ReactionEvent::ScoreImported(ScoreImported { post: _, up, down, thread: _ }) => {
                let (up, down) = (score::votes(*up), score::votes(*down));
                post.score += (up - down) - (post.imported_up - post.imported_down);
                (post.imported_up, post.imported_down) = (up, down);
            }
        }
        post.position = recorded.position();
        changed.thread(post.thread_id);
        changed.post(post.post_id);
        Ok(())
    }
}

fn can_be_seen(post: &Post) -> bool {
    !post.deleted && !post.hidden
}

/// What a post was written as.
const FIRST_REVISION: i32 = 1;

fn reacted_to(event: &ReactionEvent) -> Uuid {
    match event {
        ReactionEvent::Set(Set { post, .. })
        | ReactionEvent::Cleared(Cleared { post, .. })
        | ReactionEvent::ScoreImported(ScoreImported { post, .. }) => post.0,
    }
}

/// A kind that nobody has reacted with any more is not shown.
fn count(post: &mut Post, kind: &str, difference: i32) {
    let left = post.reactions.get(kind).copied().unwrap_or_default() + difference;
    if left == 0 {
        post.reactions.remove(kind);
    } else {
        post.reactions.insert(kind.to_owned(), left);
    }
    post.score += difference * score::weight(kind);
}

fn text(post_id: Uuid, revision: i32, body: &str, format: Format, recorded: &Recorded<'_>) -> PostRevision {
    PostRevision {
        post_id,
        revision,
        body: body.to_owned(),
        body_html: rendering::html(body, format),
        format: match format {
            Format::Markdown => "markdown".into(),
            Format::Html => "html".into(),
        },
        editor_id: recorded.actor(),
        written_at: recorded.at(),
        reason: None,
    }
}

#[cfg(test)]
mod tests {
    use events::{AccountId, PostId, Stream, ThreadId};

    use super::*;
    use crate::fixture::{History, at};

    struct Given {
        history: History,
        thread: ThreadId,
    }

    impl Given {
        fn new() -> Self {
            Self { history: History::new(), thread: ThreadId::new() }
        }

        fn written(&mut self, parent: Option<PostId>, depth: u8, body: &str) -> PostId {
            let (post, thread) = (PostId::new(), self.thread);
            let (body, format) = (body.to_owned(), Format::Markdown);
            let written = Written { thread, parent, depth, author: None, body, format };
            self.history.then(&Stream::post(post), PostEvent::Written(written));
            post
        }

        fn react(&mut self, post: PostId, account: AccountId, kind: &str, replaced: Option<&str>) {
            let (kind, replaced) = (kind.to_owned(), replaced.map(str::to_owned));
            let set = Set { thread: self.thread, post, account, kind, replaced };
            self.history.then(&Stream::reaction(post, account), ReactionEvent::Set(set));
        }

        fn rows(&self) -> Rows {
            let mut rows = Rows::default();
            self.history.fold::<ThreadPage>(&mut rows).expect("it folds");
            rows
        }

        fn post(&self, post: PostId) -> Post {
            self.rows().posts.get(post.0).expect("the post").clone()
        }
    }

    #[test]
    fn posts_are_numbered_in_order_and_know_their_way_down() {
        let mut given = Given::new();
        let opening = given.written(None, 0, "");
        let first = given.written(Some(opening), 1, "");
        let second = given.written(Some(opening), 1, "");
        let below = given.written(Some(first), 2, "");
        let shown = [opening, first, second, below].map(|post| given.post(post));
        assert_eq!(shown.each_ref().map(|post| post.number), [1, 2, 3, 4]);
        assert_eq!(shown.each_ref().map(|post| post.path.0.clone()), [vec![], vec![2], vec![3], vec![2, 4]]);
        assert_eq!(shown.each_ref().map(|post| post.replies), [2, 1, 0, 0]);
        assert_eq!(given.rows().numbers.get(given.thread.0).expect("a count").posts, 4);
    }

    #[test]
    fn replies_count_while_they_can_be_seen_and_children_for_good() {
        let mut given = Given::new();
        let opening = given.written(None, 0, "");
        let reply = given.written(Some(opening), 1, "");
        given.written(Some(opening), 1, "");
        let thread = given.thread;
        let deleted = PostEvent::Deleted(Deleted { thread, reason: None, moderated: false });
        let restored = PostEvent::Restored(Restored { thread, moderated: false });
        for (event, replies) in [
            (PostEvent::Hidden(Hidden { thread, reason: None }), 1),
            (deleted, 1),
            (PostEvent::Unhidden(Unhidden { thread }), 1),
            (restored, 2),
        ] {
            given.history.then(&Stream::post(reply), event);
            let shown = given.post(opening);
            assert_eq!((shown.replies, shown.children), (replies, 2));
        }
    }

    #[test]
    fn every_text_is_kept_and_the_newest_shown() {
        let mut given = Given::new();
        let post = given.written(None, 0, "*first*");
        let edited = Edited {
            thread: given.thread,
            revision: 2,
            body: "second".to_owned(),
            format: Format::Markdown,
            reason: Some("a typo".to_owned()),
            moderated: false,
        };
        given.history.then(&Stream::post(post), PostEvent::Edited(edited));
        let shown = given.post(post);
        assert_eq!((shown.revision, shown.edited_at, shown.version), (2, Some(at(2)), 2));
        let rows = given.rows();
        let html = |revision| rows.revisions.get((post.0, revision)).expect("a text").body_html.clone();
        assert_eq!((html(1), html(2)), ("<p><em>first</em></p>\n".to_owned(), "<p>second</p>\n".to_owned()));
    }

    #[test]
    fn reactions_count_by_kind_and_for_the_score() {
        let mut given = Given::new();
        let post = given.written(None, 0, "");
        let (ada, bob) = (AccountId::new(), AccountId::new());
        given.react(post, ada, "like", None);
        given.react(post, bob, "heart", None);
        given.react(post, bob, "down", Some("heart"));
        assert_eq!(given.post(post).reactions.0, BTreeMap::from([("down".to_owned(), 1), ("like".to_owned(), 1)]));
        assert_eq!(given.post(post).score, 0);
        let cleared = Cleared { thread: given.thread, post, account: bob, kind: "down".to_owned() };
        given.history.then(&Stream::reaction(post, bob), ReactionEvent::Cleared(cleared));
        assert_eq!(given.post(post).reactions.0, BTreeMap::from([("like".to_owned(), 1)]));
        // A reaction is not the post's own change.
        assert_eq!((given.post(post).score, given.post(post).version, given.post(post).position), (1, 1, 5));
        assert!(given.rows().reactions.get((post.0, bob.0)).is_none());
        assert_eq!(given.rows().reactions.get((post.0, ada.0)).expect("hers").kind, "like");
    }

    #[test]
    fn imported_votes_stand_beside_and_may_be_stated_again() {
        let mut given = Given::new();
        let post = given.written(None, 0, "");
        given.react(post, AccountId::new(), "up", None);
        for (up, down) in [(5, 1), (7, 1), (u32::MAX, 0), (0, u32::MAX), (2, 1)] {
            let imported = ScoreImported { thread: given.thread, post, up, down };
            given.history.then(&Stream::imported_score(post), ReactionEvent::ScoreImported(imported));
        }
        let shown = given.post(post);
        assert_eq!((shown.score, shown.imported_up, shown.imported_down), (2, 2, 1));
    }
}

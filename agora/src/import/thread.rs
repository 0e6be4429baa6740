//! One thread of a dump: from its rows to commands, in order of time.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use events::{AccountId, CategoryId, CommunityId, PostId, ThreadId, limits, post::Format, visible::without_hidden};
use serde::{Deserialize, Serialize};

use super::{
    origin::Origin,
    report::{At, Skip},
};
use crate::client::command::{Command, NewPost, NewThread, Text};

/// A row that belongs to a thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Record {
    /// Opens it.
    Question {
        /// What was written.
        written: Written,
        /// The thread's title.
        title: String,
        /// The thread's tags.
        tags: Vec<String>,
        /// The answer accepted.
        accepted: Option<i64>,
    },
    /// A reply to it.
    Answer(Written),
    /// A reply to one of its posts.
    Comment {
        /// What was written.
        written: Written,
        /// Under which post.
        post: i64,
        /// Votes up.
        score: u32,
    },
    /// A vote on one of its posts.
    Vote {
        /// The row.
        at: At,
        /// Which post.
        post: i64,
        /// 1 accepted, 2 up, 3 down.
        kind: i64,
        /// The day.
        created: DateTime<Utc>,
    },
}

/// What posts of all kinds have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// The row.
    pub at: At,
    /// Its id in its table.
    pub id: i64,
    /// When.
    pub created: DateTime<Utc>,
    /// By whom; none where the account was deleted.
    pub author: Option<AccountId>,
    /// The text.
    pub body: String,
}

/// A thread as commands.
#[derive(Debug, Default)]
pub struct Thread {
    /// In the order in which they are to be sent, each after the answer to the one before.
    pub steps: Vec<Step>,
    /// Rows that cannot be sent.
    pub skipped: Vec<(At, Skip)>,
}

/// One command of a thread.
#[derive(Debug)]
pub struct Step {
    /// The row that it comes from.
    pub at: At,
    /// The post that has to be there before.
    pub needs: Option<PostId>,
    /// The post that is there after it.
    pub makes: Option<PostId>,
    /// What to send.
    pub command: Command,
}

/// Where the threads of a dump go.
#[derive(Clone, Debug)]
pub struct Place {
    /// What rows become.
    pub origin: Origin,
    /// The community.
    pub community: CommunityId,
    /// Its one category.
    pub category: CategoryId,
}

/// The rows of one thread, sorted out.
#[derive(Default)]
struct Rows {
    posts: Vec<Draft>,
    accepted: Option<(At, i64)>,
    votes: HashMap<i64, Votes>,
}

/// A post, before what it replies to is known.
struct Draft {
    written: Written,
    what: What,
}

enum What {
    Opening { title: String, tags: Vec<String> },
    Answer,
    Comment { post: i64, score: u32 },
}

/// The votes on one post.
#[derive(Default)]
struct Votes {
    up: u32,
    down: u32,
    last: DateTime<Utc>,
    accepted: Option<DateTime<Utc>>,
    rows: Vec<At>,
}

/// A thread in the making.
struct Build<'a> {
    place: &'a Place,
    question: i64,
    opening: Option<Opening>,
    /// Questions and answers that are carried over: what may be replied to.
    posts: HashMap<i64, PostId>,
    thread: Thread,
}

#[derive(Clone, Copy)]
struct Opening {
    thread: ThreadId,
    author: Option<AccountId>,
}

impl Place {
    /// Orders the rows of the thread of `question`, and says what is to be sent for them.
    pub fn thread(&self, question: i64, records: Vec<Record>) -> Thread {
        let mut rows = Rows::default();
        for record in records {
            rows.add(record);
        }
        rows.order();
        let Rows { posts, accepted, mut votes } = rows;
        let (place, thread) = (self, Thread::default());
        let mut build = Build { place, question, opening: None, posts: HashMap::new(), thread };
        for Draft { written, what } in posts {
            let at = written.at;
            let added = match what {
                What::Opening { title, tags } => build.open(written, &title, tags),
                What::Answer => build.answer(written),
                What::Comment { post, score } => build.comment(written, post, score),
            };
            match added {
                Ok(Some(post)) => build.score(post, at, votes.get(&post.id)),
                Ok(None) => {}
                Err(skip) => build.thread.skipped.push((at, skip)),
            }
        }
        if let Some((at, answer)) = accepted
            && let Err(skip) = build.accept(at, answer, votes.get(&answer))
        {
            build.thread.skipped.push((at, skip));
        }
        votes.retain(|post, _| !build.posts.contains_key(post));
        let gone = || Skip::quietly("it is about a post that is not carried over");
        build.thread.skipped.extend(votes.into_values().flat_map(|votes| votes.rows).map(|at| (at, gone())));
        build.thread
    }
}

/// A post that was just added, for the score below it.
#[derive(Clone, Copy)]
struct Added {
    id: i64,
    post: PostId,
    created: DateTime<Utc>,
}

impl Rows {
    fn add(&mut self, record: Record) {
        match record {
            Record::Question { written, title, tags, accepted } => {
                self.accepted = accepted.map(|answer| (written.at, answer));
                self.posts.push(Draft { written, what: What::Opening { title, tags } });
            }
            Record::Answer(written) => self.posts.push(Draft { written, what: What::Answer }),
            Record::Comment { written, post, score } => {
                self.posts.push(Draft { written, what: What::Comment { post, score } });
            }
            Record::Vote { at, post, kind, created } => {
                let votes = self.votes.entry(post).or_default();
                votes.rows.push(at);
                match kind {
                    1 => votes.accepted = Some(created),
                    2 => votes.up += 1,
                    _ => votes.down += 1,
                }
                votes.last = votes.last.max(created);
            }
        }
    }

    /// By time, but never before what it replies to, whatever the clocks said.
    fn order(&mut self) {
        let opened = self.posts.iter().find(|draft| draft.what.level() == 0).map(|draft| draft.written.created);
        let after = |draft: &Draft| draft.written.created.max(opened.unwrap_or_default());
        let answers = self.posts.iter().filter(|draft| matches!(draft.what, What::Answer));
        let answered: HashMap<i64, DateTime<Utc>> = answers.map(|draft| (draft.written.id, after(draft))).collect();
        self.posts.sort_by_cached_key(|draft| {
            let parent = match draft.what {
                What::Comment { post, .. } => answered.get(&post).copied(),
                _ => None,
            };
            (after(draft).max(parent.unwrap_or_default()), draft.what.level(), draft.written.id)
        });
    }
}

impl What {
    /// Of several posts at one moment, what is replied to comes first.
    fn level(&self) -> u8 {
        match self {
            Self::Opening { .. } => 0,
            Self::Answer => 1,
            Self::Comment { .. } => 2,
        }
    }
}

impl Build<'_> {
    fn open(&mut self, written: Written, title: &str, mut tags: Vec<String>) -> Result<Option<Added>, Skip> {
        let Written { at, id, created, author, body } = written;
        let title = one_line(title);
        if title.chars().count() > limits::TITLE_CHARS {
            return Err(Skip::because(
                "its title is too long",
                format_args!("more than {} characters", limits::TITLE_CHARS),
            ));
        }
        let mut seen = HashSet::new();
        tags.retain(|tag| tag.chars().count() <= limits::TAG_CHARS && seen.insert(tag.to_lowercase()));
        tags.truncate(limits::TAGS);
        let (thread, post) = (self.place.origin.thread(id, created), self.place.origin.post(id, created));
        let text = text(body, Format::Html)?;
        let new = NewThread { id: thread, category_id: self.place.category, title, tags, opening_post_id: post, text };
        let context = self.place.origin.context("thread", id, author.into(), created);
        let command = Command::start_thread(self.place.community, &new, context);
        self.opening = Some(Opening { thread, author });
        self.posts.insert(id, post);
        self.thread.steps.push(Step { at, needs: None, makes: Some(post), command });
        Ok(Some(Added { id, post, created }))
    }

    fn answer(&mut self, written: Written) -> Result<Option<Added>, Skip> {
        let Written { at, id, created, author, body } = written;
        let opening = self.opening.ok_or_else(no_thread)?;
        let post = self.place.origin.post(id, created);
        let new = NewPost { id: post, text: text(body, Format::Html)? };
        let context = self.place.origin.context("post", id, author.into(), created);
        let command = Command::answer(opening.thread, &new, context);
        let needs = self.posts.get(&self.question).copied();
        self.posts.insert(id, post);
        self.thread.steps.push(Step { at, needs, makes: Some(post), command });
        Ok(Some(Added { id, post, created }))
    }

    /// A comment has its score in its own row.
    fn comment(&mut self, written: Written, parent: i64, score: u32) -> Result<Option<Added>, Skip> {
        let Written { at, id, created, author, body } = written;
        let parent = *self.posts.get(&parent).ok_or_else(|| Skip::quietly("its post is not carried over"))?;
        let post = self.place.origin.comment(id, created);
        let new = NewPost { id: post, text: text(body, Format::Markdown)? };
        let context = self.place.origin.context("comment", id, author.into(), created);
        let command = Command::comment(parent, &new, context);
        self.thread.steps.push(Step { at, needs: Some(parent), makes: Some(post), command });
        if score > 0 {
            let context = self.place.origin.context("comment-score", id, None.into(), created);
            let command = Command::import_score(post, score, 0, context);
            self.thread.steps.push(Step { at, needs: Some(post), makes: None, command });
        }
        Ok(None)
    }

    fn score(&mut self, added: Added, at: At, votes: Option<&Votes>) {
        let Some(Votes { up, down, last, .. }) = votes.filter(|votes| votes.up + votes.down > 0) else { return };
        let context = self.place.origin.context("score", added.id, None.into(), added.created.max(*last));
        let command = Command::import_score(added.post, *up, *down, context);
        self.thread.steps.push(Step { at, needs: Some(added.post), makes: None, command });
    }

    /// By who asked, when the vote says, which knows the day only: never before the answer.
    fn accept(&mut self, at: At, answer: i64, votes: Option<&Votes>) -> Result<(), Skip> {
        let opening = self.opening.ok_or_else(no_thread)?;
        let missing = || Skip::quietly("its accepted answer is not in the dump");
        let post = *self.posts.get(&answer).filter(|_| answer != self.question).ok_or_else(missing)?;
        let written = self.thread.steps.iter().find(|step| step.makes == Some(post)).map(|step| step.command.at());
        let day = votes.and_then(|votes| votes.accepted);
        let when = written.max(day).unwrap_or_default();
        let context = self.place.origin.context("accepted", self.question, opening.author.into(), when);
        let command = Command::accept(opening.thread, post, context);
        self.thread.steps.push(Step { at, needs: Some(post), makes: None, command });
        Ok(())
    }
}

/// Where a line is asked for, a control character is a blank, and what shows nothing is left out.
pub(super) fn one_line(text: &str) -> String {
    let blank = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    without_hidden(&text.replace(blank, " ")).trim().to_owned()
}

fn text(body: String, format: Format) -> Result<Text, Skip> {
    if body.len() > limits::BODY_BYTES {
        let detail = format!("{} bytes, of {} at most", body.len(), limits::BODY_BYTES);
        return Err(Skip::because("its text is too long", detail));
    }
    Ok(Text { body, format })
}

fn no_thread() -> Skip {
    Skip::quietly("its question is not in the dump, or not carried over")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::import::report::Table;

    fn place() -> Place {
        let origin = Origin::new("site", "site");
        let since = time("2011-01-01T00:00:00Z");
        Place { community: origin.community(since), category: origin.category(since), origin }
    }

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    fn written(table: Table, id: i64, minute: u32, author: Option<AccountId>) -> Written {
        let created = time(&format!("2011-08-17T20:{minute:02}:00Z"));
        Written { at: At { table, row: id.unsigned_abs() }, id, created, author, body: format!("text {id}") }
    }

    fn question(id: i64, minute: u32) -> Record {
        let written = written(Table::Posts, id, minute, None);
        Record::Question { written, title: "Why?".into(), tags: vec!["faq".into()], accepted: None }
    }

    fn answer(id: i64, minute: u32) -> Record {
        Record::Answer(written(Table::Posts, id, minute, None))
    }

    fn comment(id: i64, post: i64, minute: u32, score: u32) -> Record {
        Record::Comment { written: written(Table::Comments, id, minute, None), post, score }
    }

    fn vote(post: i64, kind: i64) -> Record {
        let at = At { table: Table::Votes, row: 1 };
        Record::Vote { at, post, kind, created: time("2011-08-18T00:00:00Z") }
    }

    /// The text of each post in the order of sending, other commands by their path's end.
    fn order(thread: &Thread) -> Vec<String> {
        let shown = |step: &Step| match step.command.body().get("body").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => step.command.path().rsplit('/').next().unwrap_or_default().to_owned(),
        };
        thread.steps.iter().map(shown).collect()
    }

    #[test]
    fn posts_come_by_time_whatever_the_order_of_rows() {
        let records = vec![comment(7, 1, 5, 0), answer(3, 9), comment(8, 2, 4, 0), answer(2, 3), question(1, 0)];
        let thread = place().thread(1, records);
        assert_eq!(order(&thread), ["text 1", "text 2", "text 8", "text 7", "text 3"]);
        assert!(thread.skipped.is_empty());
    }

    #[test]
    fn nothing_comes_before_what_it_replies_to() {
        // Clocks that went wrong: the answer is older than its question, its comment older than both.
        let thread = place().thread(1, vec![comment(5, 2, 1, 0), answer(2, 2), question(1, 30), answer(3, 31)]);
        assert_eq!(order(&thread), ["text 1", "text 2", "text 5", "text 3"]);
        let first = |step: &Step| step.makes.or(step.needs);
        for (nth, step) in thread.steps.iter().enumerate().skip(1) {
            assert!(thread.steps[..nth].iter().any(|before| first(before) == step.needs), "step {nth}");
        }
    }

    #[test]
    fn votes_and_comment_scores_are_imported_scores_beside_their_posts() {
        let records =
            vec![vote(1, 2), vote(1, 2), vote(1, 3), vote(2, 1), question(1, 0), answer(2, 1), comment(3, 2, 2, 4)];
        let thread = place().thread(1, records);
        assert_eq!(order(&thread), ["text 1", "imported-score", "text 2", "text 3", "imported-score"]);
        assert_eq!(*thread.steps[1].command.body(), serde_json::json!({"up": 2, "down": 1}));
        assert_eq!(*thread.steps[4].command.body(), serde_json::json!({"up": 4, "down": 0}));
    }

    #[test]
    fn the_accepted_answer_comes_last_and_must_be_of_the_thread() {
        let asked = |accepted| {
            let written = written(Table::Posts, 1, 0, None);
            Record::Question { written, title: "Why?".into(), tags: vec![], accepted: Some(accepted) }
        };
        let thread = place().thread(1, vec![asked(2), answer(2, 1), vote(2, 1)]);
        assert_eq!(order(&thread), ["text 1", "text 2", "answer"]);
        assert_eq!(thread.steps[2].command.at(), time("2011-08-18T00:00:00Z"));
        for stranger in [1, 99] {
            let thread = place().thread(1, vec![asked(stranger), answer(2, 1)]);
            assert_eq!(order(&thread), ["text 1", "text 2"]);
            assert_eq!(thread.skipped[0].1.reason, "its accepted answer is not in the dump");
        }
    }

    #[test]
    fn without_its_question_nothing_is_carried_over() {
        let thread = place().thread(1, vec![answer(2, 1), comment(3, 2, 2, 0), vote(2, 2)]);
        assert!(thread.steps.is_empty());
        assert_eq!(thread.skipped.len(), 3);
    }

    #[test]
    fn what_is_too_long_is_skipped_with_what_hangs_on_it() {
        let mut long = written(Table::Posts, 2, 1, None);
        long.body = "x".repeat(limits::BODY_BYTES + 1);
        let records = vec![question(1, 0), Record::Answer(long), comment(3, 2, 2, 0), comment(4, 1, 3, 0), vote(2, 2)];
        let thread = place().thread(1, records);
        assert_eq!(order(&thread), ["text 1", "text 4"]);
        assert_eq!(thread.skipped[0].1.reason, "its text is too long");
        assert_eq!(thread.skipped.len(), 3);
    }

    #[test]
    fn the_same_rows_give_the_same_commands() {
        let records = || vec![question(1, 0), answer(2, 1), comment(3, 2, 2, 1)];
        let [one, other] = [records(), records().into_iter().rev().collect()]
            .map(|records| place().thread(1, records).steps.into_iter().map(|step| step.command).collect::<Vec<_>>());
        assert_eq!(one, other);
    }
}

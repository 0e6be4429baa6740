//! What a dump must come to, worked out from its XML, and the same read back from the read tables. DOMAIN.md says how
//! rows are carried over; here it is said once more, in another way than the importer's.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use ::agora::import::origin::Origin;
use chrono::{DateTime, Utc};
use sqlx::FromRow;
use uuid::Uuid;

use super::dump::{Row, rows};

/// Everything that has a row of its own, by its id.
#[derive(Debug, Default)]
pub(crate) struct Forum {
    pub(crate) accounts: BTreeMap<Uuid, Account>,
    pub(crate) threads: BTreeMap<Uuid, Thread>,
    pub(crate) posts: BTreeMap<Uuid, Post>,
}

#[derive(Clone, Debug, PartialEq, FromRow)]
pub(crate) struct Account {
    pub(crate) id: Uuid,
    pub(crate) display_name: String,
    pub(crate) created_at: DateTime<Utc>,
    /// The first user of the dump owns the community; everyone is a member.
    pub(crate) role: String,
    pub(crate) threads: i64,
    /// Opening posts included.
    pub(crate) posts: i64,
}

#[derive(Clone, Debug, PartialEq, FromRow)]
pub(crate) struct Thread {
    pub(crate) id: Uuid,
    pub(crate) title: String,
    pub(crate) tags: Vec<String>,
    pub(crate) author: Option<Uuid>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) opening_post: Uuid,
    pub(crate) last_post: Uuid,
    pub(crate) last_post_at: DateTime<Utc>,
    /// Answers, and comments on all of it.
    pub(crate) replies: i32,
    /// Votes up less votes down of the question.
    pub(crate) score: i32,
    pub(crate) answer: Option<Uuid>,
}

#[derive(Clone, Debug, PartialEq, FromRow)]
pub(crate) struct Post {
    pub(crate) id: Uuid,
    pub(crate) thread: Uuid,
    pub(crate) number: i32,
    pub(crate) parent: Option<Uuid>,
    pub(crate) depth: i16,
    pub(crate) author: Option<Uuid>,
    pub(crate) created_at: DateTime<Utc>,
    /// Votes of kind 2 and 3; of a comment, its own `Score`.
    pub(crate) up: i32,
    pub(crate) down: i32,
    pub(crate) score: i32,
    /// Direct ones.
    pub(crate) replies: i32,
    /// Questions and answers are HTML, comments Markdown.
    pub(crate) format: String,
    pub(crate) body: String,
}

impl Forum {
    /// What `dump` must come to.
    pub(crate) fn of(dump: &Path) -> Self {
        let name = dump.file_name().expect("a name").to_string_lossy().into_owned();
        let (mut forum, mut drafts) = (Self::default(), Drafts::new(&name, Votes::of(dump)));
        for user in rows(dump, "Users") {
            let account = drafts.account(&user);
            forum.accounts.insert(account.id, account);
        }
        let posts = rows(dump, "Posts");
        let of_kind = |kind| posts.iter().filter(move |post| post.id("PostTypeId") == Some(kind));
        of_kind(1).for_each(|row| drafts.question(row));
        of_kind(2).for_each(|row| drafts.answer(row));
        for row in rows(dump, "Comments") {
            drafts.comment(&row);
        }
        for row in of_kind(1) {
            let thread = drafts.threads.remove(&row.number("Id")).expect("it was opened");
            forum.add(row, thread);
        }
        forum
    }

    fn add(&mut self, question: &Row, mut thread: Vec<Draft>) {
        let accepted = question.id("AcceptedAnswerId");
        let answer = thread.iter().find(|draft| draft.place.1 == 1 && Some(draft.place.2) == accepted);
        let answer = answer.map(|draft| draft.post.id);
        thread.sort_by_key(|draft| draft.place);
        let mut posts: Vec<Post> = thread.into_iter().map(|draft| draft.post).collect();
        let parents: Vec<Uuid> = posts.iter().filter_map(|post| post.parent).collect();
        for (number, post) in (1..).zip(&mut posts) {
            post.number = number;
            post.replies = count(parents.iter().filter(|parent| **parent == post.id));
        }
        let (opening, last) = (&posts[0], &posts[posts.len() - 1]);
        let tags = question.text("Tags").unwrap_or_default();
        let thread = Thread {
            id: opening.thread,
            title: question.must("Title").trim().to_owned(),
            tags: tags.split(['<', '>', '|']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
            author: opening.author,
            created_at: opening.created_at,
            opening_post: opening.id,
            last_post: last.id,
            last_post_at: last.created_at,
            replies: count(&posts[1..]),
            score: opening.score,
            answer,
        };
        for author in posts.iter().filter_map(|post| post.author) {
            self.accounts.get_mut(&author).expect("an author is an account").posts += 1;
        }
        if let Some(author) = thread.author {
            self.accounts.get_mut(&author).expect("an author is an account").threads += 1;
        }
        self.threads.insert(thread.id, thread);
        self.posts.extend(posts.into_iter().map(|post| (post.id, post)));
    }
}

/// A post of a thread in the making.
struct Draft {
    post: Post,
    /// Its place: by time, never before what it replies to; at one moment, questions before answers before comments.
    place: (DateTime<Utc>, u8, i64),
}

/// The threads in the making, by their questions.
struct Drafts {
    origin: Origin,
    votes: Votes,
    accounts: HashMap<i64, Uuid>,
    threads: HashMap<i64, Vec<Draft>>,
    /// Of each question and answer, the question.
    questions: HashMap<i64, i64>,
}

impl Drafts {
    fn new(name: &str, votes: Votes) -> Self {
        let (accounts, threads, questions) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { origin: Origin::new(name, name), votes, accounts, threads, questions }
    }

    fn account(&mut self, row: &Row) -> Account {
        let (id, created_at) = (row.number("Id"), row.created());
        let role = if self.accounts.is_empty() { "owner" } else { "member" }.to_owned();
        // Who has no name goes by the one that is made up.
        let display_name = row.text("DisplayName").map_or(format!("user_{id}"), |name| name.trim().to_owned());
        let account = self.origin.account(id, created_at).into();
        self.accounts.insert(id, account);
        Account { id: account, display_name, created_at, role, threads: 0, posts: 0 }
    }

    fn question(&mut self, row: &Row) {
        let id = row.number("Id");
        self.questions.insert(id, id);
        let thread = self.origin.thread(id, row.created()).into();
        let opening = self.draft(row, self.origin.post(id, row.created()).into(), thread, None);
        self.threads.insert(id, vec![opening]);
    }

    /// One whose question is not there is not carried over.
    fn answer(&mut self, row: &Row) {
        let (id, question) = (row.number("Id"), row.number("ParentId"));
        let Some([opening, ..]) = self.threads.get(&question).map(Vec::as_slice) else { return };
        let post = self.origin.post(id, row.created()).into();
        let answer = self.draft(row, post, opening.post.thread, Some(opening));
        self.questions.insert(id, question);
        self.threads.get_mut(&question).expect("it is there").push(answer);
    }

    /// One whose question or answer is not there is not carried over.
    fn comment(&mut self, row: &Row) {
        let (id, on) = (row.number("Id"), row.number("PostId"));
        let Some(question) = self.questions.get(&on).copied() else { return };
        let parent = self.threads[&question].iter().find(|it| it.place.2 == on && it.post.format == "html");
        let parent = parent.expect("it is there");
        let post = self.origin.comment(id, row.created()).into();
        let comment = self.draft(row, post, parent.post.thread, Some(parent));
        self.threads.get_mut(&question).expect("it is there").push(comment);
    }

    fn draft(&self, row: &Row, id: Uuid, thread: Uuid, parent: Option<&Draft>) -> Draft {
        let comment = row.text("Text");
        let author = row.id(if comment.is_some() { "UserId" } else { "OwnerUserId" });
        let (up, down) = match comment {
            Some(_) => (row.text("Score").map_or(0, |score| score.parse().expect("a number")), 0),
            None => self.votes.on(row.number("Id")),
        };
        let after = parent.map(|parent| parent.place.0).unwrap_or_default();
        let level = if comment.is_some() { 2 } else { u8::from(parent.is_some()) };
        let post = Post {
            id,
            thread,
            number: 0,
            parent: parent.map(|parent| parent.post.id),
            depth: parent.map_or(0, |parent| parent.post.depth + 1),
            author: author.and_then(|user| self.accounts.get(&user)).copied(),
            created_at: row.created(),
            up,
            down,
            score: up - down,
            replies: 0,
            format: if comment.is_some() { "markdown" } else { "html" }.to_owned(),
            body: comment.unwrap_or_else(|| row.must("Body")).to_owned(),
        };
        Draft { place: (after.max(row.created()), level, row.number("Id")), post }
    }
}

/// Votes up and down, by post.
struct Votes(HashMap<i64, (i32, i32)>);

impl Votes {
    fn of(dump: &Path) -> Self {
        let mut votes: HashMap<i64, (i32, i32)> = HashMap::new();
        for vote in rows(dump, "Votes") {
            let (up, down) = votes.entry(vote.number("PostId")).or_default();
            match vote.id("VoteTypeId") {
                Some(2) => *up += 1,
                Some(3) => *down += 1,
                _ => {}
            }
        }
        Self(votes)
    }

    fn on(&self, post: i64) -> (i32, i32) {
        self.0.get(&post).copied().unwrap_or_default()
    }
}

fn count(things: impl IntoIterator) -> i32 {
    i32::try_from(things.into_iter().count()).expect("not so many")
}

//! The first pass: every table is read once, in the order in which they refer to one another, and what belongs
//! together is brought together on disk.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use events::AccountId;
use tokio_util::sync::CancellationToken;

use super::{
    index::Index,
    origin::Origin,
    report::{self, At, BROKEN, Skip, Table},
    rows::{BadRow, Row, Rows},
    spill::{Buckets, Spill},
    tables::{self, Kind, User},
    thread::{Record, Written},
};
use crate::{slug::slug, terminal::Progress};

/// Characters of a name that go into a username: leaves room for what makes it unique.
pub const NAME_CHARS: usize = 40;

/// A pass over a dump.
pub struct Scan<'a> {
    /// The dump's directory.
    pub dump: &'a Path,
    /// What its rows become.
    pub origin: &'a Origin,
    /// Counts the rows.
    pub report: &'a report::Rows,
    /// Shows the bytes read.
    pub progress: &'a Progress,
    /// Ends the pass early.
    pub stop: &'a CancellationToken,
}

/// What the pass found.
pub struct Scanned {
    /// The first account of the dump: Stack Exchange's own, which owns the place.
    pub first: (At, User),
    /// When the first account was made: the community is as old.
    pub since: DateTime<Utc>,
    /// Users by the slug of their name, as `(At, User)`.
    pub users: Buckets,
    /// All that makes up threads, by question, as `(i64, Record)`.
    pub threads: Buckets,
    /// Commands that it will take, about.
    pub commands: u64,
}

/// What is known of a post when its comments and votes are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    Question(i64),
    Answer(i64),
    Other,
}

impl Scan<'_> {
    /// Reads the whole dump; working files go to `dir`.
    ///
    /// # Errors
    /// Where it is no dump, or a file cannot be read or written.
    pub fn run(&self, dir: &Path) -> anyhow::Result<Scanned> {
        let accounts = Index::create(&dir.join("accounts"))?;
        let posts = Index::create(&dir.join("posts"))?;
        let voted = Index::create(&dir.join("voted"))?;
        let mut users = Spill::create(&dir.join("users"))?;
        let mut threads = Spill::create(&dir.join("threads"))?;
        let mut commands = 0;

        let mut first = None;
        self.table(Table::Users, User::read, |at, user| {
            if !accounts.insert(user.id, millis(user.created))? {
                return Ok(Some(twice(user.id)));
            }
            commands += 2;
            users.write(&slug(&user.name, NAME_CHARS), &(at, &user))?;
            first.get_or_insert((at, user));
            Ok(None)
        })?;
        let first = first.with_context(|| format!("{} holds no user", self.path(Table::Users).display()))?;

        let author = |owner: Option<i64>| self.author(&accounts, owner);
        self.table(Table::Posts, tables::Post::read, |at, post| {
            let known = match &post.kind {
                Kind::Question { .. } => Known::Question(post.id),
                Kind::Answer { question } => Known::Answer(*question),
                Kind::Other(_) => Known::Other,
            };
            if !posts.insert(post.id, known.into())? {
                return Ok(Some(twice(post.id)));
            }
            let (id, created, author) = (post.id, post.created, author(post.owner)?);
            let written = Written { at, id, created, author, body: post.body };
            match post.kind {
                Kind::Question { title, tags, accepted } => {
                    commands += 1 + u64::from(accepted.is_some());
                    threads.write(&id.to_string(), &(id, Record::Question { written, title, tags, accepted }))?;
                }
                Kind::Answer { question } => {
                    commands += 1;
                    threads.write(&question.to_string(), &(question, Record::Answer(written)))?;
                }
                Kind::Other(kind) => return Ok(Some(Skip::quietly(other_post(kind)))),
            }
            Ok(None)
        })?;

        self.table(Table::Comments, tables::Comment::read, |at, comment| {
            let question = match question_of(&posts, comment.post)? {
                Ok(question) => question,
                Err(skip) => return Ok(Some(skip)),
            };
            commands += 1 + u64::from(comment.score > 0);
            let tables::Comment { id, post, created, owner, text, score } = comment;
            let written = Written { at, id, created, author: author(owner)?, body: text };
            threads.write(&question.to_string(), &(question, Record::Comment { written, post, score }))?;
            Ok(None)
        })?;

        self.table(Table::Votes, tables::Vote::read, |at, vote| {
            if !matches!(vote.kind, 1..=3) {
                return Ok(Some(Skip::quietly(other_vote(vote.kind))));
            }
            let question = match question_of(&posts, vote.post)? {
                Ok(question) => question,
                Err(skip) => return Ok(Some(skip)),
            };
            let tables::Vote { post, kind, created } = vote;
            if kind != 1 && voted.insert(post, 0)? {
                commands += 1;
            }
            threads.write(&question.to_string(), &(question, Record::Vote { at, post, kind, created }))?;
            Ok(None)
        })?;

        Ok(Scanned { since: first.1.created, first, users: users.finish()?, threads: threads.finish()?, commands })
    }

    /// Reads one table: each row is taken by `take`, or skipped with a reason, by `read` or by `take`.
    fn table<T>(
        &self,
        table: Table,
        read: impl Fn(&Row<'_>) -> Result<T, BadRow>,
        mut take: impl FnMut(At, T) -> anyhow::Result<Option<Skip>>,
    ) -> anyhow::Result<()> {
        let cannot = || format!("cannot read {}", self.path(table).display());
        let mut rows = Rows::open(self.dump, table.file(), table.root())?;
        let mut shown = 0;
        while let Some(row) = rows.next(&read).with_context(cannot)? {
            anyhow::ensure!(!self.stop.is_cancelled(), "stopped");
            let at = At { table, row: rows.number() };
            self.report.read(table);
            let skip = match row {
                Ok(row) => take(at, row).context("cannot write a working file")?,
                Err(BadRow(reason)) => Some(Skip::because(BROKEN, reason)),
            };
            if let Some(line) = skip.and_then(|skip| self.report.skip(at, skip)) {
                self.progress.say(line);
            }
            if rows.bytes() - shown > 1 << 16 {
                self.progress.add(rows.bytes() - shown);
                shown = rows.bytes();
            }
        }
        self.progress.add(rows.bytes() - shown);
        Ok(())
    }

    /// None for an account that was deleted, whether or not a post still names it.
    fn author(&self, accounts: &Index, owner: Option<i64>) -> anyhow::Result<Option<AccountId>> {
        let Some(user) = owner else { return Ok(None) };
        let created =
            accounts.get(user)?.and_then(|millis| DateTime::from_timestamp_millis(i64::try_from(millis).ok()?));
        Ok(created.map(|created| self.origin.account(user, created)))
    }

    fn path(&self, table: Table) -> PathBuf {
        self.dump.join(table.file())
    }
}

/// The question that a post belongs to, or why what refers to the post is not carried over.
fn question_of(posts: &Index, post: i64) -> anyhow::Result<Result<i64, Skip>> {
    Ok(match posts.get(post)?.map(Known::from) {
        Some(Known::Question(question) | Known::Answer(question)) => Ok(question),
        Some(Known::Other) => Err(Skip::quietly("it is about a post that is not carried over")),
        None => Err(Skip::quietly("its post is not in the dump")),
    })
}

fn twice(id: i64) -> Skip {
    Skip::because(BROKEN, format_args!("its Id {id} stood in a row before"))
}

fn other_post(kind: i64) -> String {
    match kind {
        4 | 5 => "a tag's wiki".to_owned(),
        6 => "a nomination in an election".to_owned(),
        7 | 8 => "a note of a moderator's".to_owned(),
        kind => format!("a post of kind {kind}"),
    }
}

fn other_vote(kind: i64) -> String {
    let name = match kind {
        4 | 12 | 13 | 14 => "a flag",
        5 => "a favourite, which is no score",
        6 | 7 => "a vote to close or reopen",
        8 | 9 => "a bounty",
        10 | 11 => "a vote to delete or undelete",
        15 => "a moderator's review",
        16 => "an approved edit",
        kind => return format!("a vote of kind {kind}"),
    };
    name.to_owned()
}

fn millis(at: DateTime<Utc>) -> u64 {
    u64::try_from(at.timestamp_millis()).unwrap_or(0)
}

impl From<Known> for u64 {
    /// The question's id, which may be negative, above two bits.
    fn from(known: Known) -> Self {
        let (question, tag) = match known {
            Known::Question(question) => (question, 1),
            Known::Answer(question) => (question, 2),
            Known::Other => (0, 3),
        };
        (question << 2).cast_unsigned() | tag
    }
}

impl From<u64> for Known {
    fn from(number: u64) -> Self {
        let question = number.cast_signed() >> 2;
        match number & 3 {
            1 => Self::Question(question),
            2 => Self::Answer(question),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_post_fits_into_a_number() {
        for id in [0, 1, -1, i64::from(i32::MAX), -i64::from(i32::MAX)] {
            for known in [Known::Question(id), Known::Answer(id)] {
                assert!(Known::from(u64::from(known)) == known);
            }
        }
        assert!(Known::from(u64::from(Known::Other)) == Known::Other);
    }
}

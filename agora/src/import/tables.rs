//! The tables of a Stack Exchange dump that are read, row by row: which columns count, and what they must hold.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Serialize};

use super::rows::{BadRow, Row};

/// The largest id, either way: Stack Exchange's are 32 bits wide.
const LARGEST_ID: i64 = i32::MAX as i64;

/// A row of `Users.xml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its own, negative for Stack Exchange's own accounts.
    pub id: i64,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// The name shown; empty where there is none.
    pub name: String,
    /// About itself, in HTML.
    pub about: Option<String>,
    /// Where it says it is.
    pub location: Option<String>,
    /// Its website.
    pub website: Option<String>,
}

/// A row of `Posts.xml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Its own.
    pub id: i64,
    /// What kind of post.
    pub kind: Kind,
    /// When it was written.
    pub created: DateTime<Utc>,
    /// By whom; none where the account was deleted.
    pub owner: Option<i64>,
    /// The text, in HTML.
    pub body: String,
}

/// What a post is (`PostTypeId`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 1: a thread's opening post.
    Question {
        /// The thread's title.
        title: String,
        /// Its tags.
        tags: Vec<String>,
        /// The answer accepted.
        accepted: Option<i64>,
    },
    /// 2: a reply.
    Answer {
        /// The question.
        question: i64,
    },
    /// Anything else: a tag's wiki (4 and 5), an election's nomination (6), ….
    Other(i64),
}

/// A row of `Comments.xml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Its own.
    pub id: i64,
    /// The post that it stands under.
    pub post: i64,
    /// When it was written.
    pub created: DateTime<Utc>,
    /// By whom; none where the account was deleted.
    pub owner: Option<i64>,
    /// The text, in what is close to Markdown.
    pub text: String,
    /// Votes up.
    pub score: u32,
}

/// A row of `Votes.xml`. Voters are anonymous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vote {
    /// On which post.
    pub post: i64,
    /// `VoteTypeId`: 1 accepted, 2 up, 3 down, ….
    pub kind: i64,
    /// The day.
    pub created: DateTime<Utc>,
}

impl User {
    /// Reads a row.
    pub fn read(row: &Row<'_>) -> Result<Self, BadRow> {
        Ok(Self {
            id: id(row, "Id")?,
            created: time(row, "CreationDate")?,
            name: row.text("DisplayName")?.unwrap_or_default().trim().to_owned(),
            about: filled(row, "AboutMe")?,
            location: filled(row, "Location")?,
            website: filled(row, "WebsiteUrl")?,
        })
    }
}

impl Post {
    /// Reads a row.
    pub fn read(row: &Row<'_>) -> Result<Self, BadRow> {
        let kind = match id(row, "PostTypeId")? {
            1 => Kind::Question {
                title: filled(row, "Title")?.ok_or_else(|| missing("Title"))?,
                tags: tags(&row.text("Tags")?.unwrap_or_default()),
                accepted: optional_id(row, "AcceptedAnswerId")?,
            },
            2 => Kind::Answer { question: id(row, "ParentId")? },
            other => Kind::Other(other),
        };
        let body = match &kind {
            // Not carried over, and often empty.
            Kind::Other(_) => String::new(),
            _ => filled(row, "Body")?.ok_or_else(|| missing("Body"))?,
        };
        let owner = optional_id(row, "OwnerUserId")?;
        Ok(Self { id: id(row, "Id")?, kind, created: time(row, "CreationDate")?, owner, body })
    }
}

impl Comment {
    /// Reads a row.
    pub fn read(row: &Row<'_>) -> Result<Self, BadRow> {
        Ok(Self {
            id: id(row, "Id")?,
            post: id(row, "PostId")?,
            created: time(row, "CreationDate")?,
            owner: optional_id(row, "UserId")?,
            text: filled(row, "Text")?.ok_or_else(|| missing("Text"))?,
            score: optional_id(row, "Score")?.and_then(|score| u32::try_from(score).ok()).unwrap_or(0),
        })
    }
}

impl Vote {
    /// Reads a row.
    pub fn read(row: &Row<'_>) -> Result<Self, BadRow> {
        Ok(Self { post: id(row, "PostId")?, kind: id(row, "VoteTypeId")?, created: time(row, "CreationDate")? })
    }
}

fn missing(name: &str) -> BadRow {
    BadRow(format!("it has no {name}"))
}

fn filled(row: &Row<'_>, name: &str) -> Result<Option<String>, BadRow> {
    Ok(row.text(name)?.filter(|text| !text.trim().is_empty()))
}

fn id(row: &Row<'_>, name: &str) -> Result<i64, BadRow> {
    optional_id(row, name)?.ok_or_else(|| missing(name))
}

fn optional_id(row: &Row<'_>, name: &str) -> Result<Option<i64>, BadRow> {
    let Some(text) = row.text(name)? else { return Ok(None) };
    let number = text.parse().ok().filter(|id| (-LARGEST_ID..=LARGEST_ID).contains(id));
    number.map(Some).ok_or_else(|| BadRow(format!("{name} is `{}`, which is no id", shortened(&text))))
}

/// Dates are UTC without a zone.
fn time(row: &Row<'_>, name: &str) -> Result<DateTime<Utc>, BadRow> {
    let text = row.text(name)?.ok_or_else(|| missing(name))?;
    let time = NaiveDateTime::parse_from_str(&text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc());
    time.ok()
        .filter(|time| time.timestamp() > 0)
        .ok_or_else(|| BadRow(format!("{name} is `{}`, which is no time since 1970", shortened(&text))))
}

/// `<one><two>`, or `|one|two|` in newer dumps.
fn tags(text: &str) -> Vec<String> {
    text.split(['<', '>', '|']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

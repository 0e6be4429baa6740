//! The commands that bulk work sends: the endpoint and the body of each.

use std::fmt;

use chrono::{DateTime, Utc};
use events::{AccountId, CategoryId, CommunityId, PostId, ThreadId, community::Visibility, post::Format};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::Refusal;

/// One command, to be sent as often as it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// What it is counted as.
    pub kind: Kind,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Value,
    /// Under which it takes effect once.
    pub(super) key: String,
    pub(super) on_behalf_of: Option<Behalf>,
    pub(super) occurred_at: DateTime<Utc>,
}

/// Kinds of commands, in the order in which they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Communities and categories.
    Place,
    /// Accounts.
    Account,
    /// Memberships, with their roles and sanctions.
    Member,
    /// Threads, with their opening posts.
    Thread,
    /// Replies to a thread.
    Answer,
    /// Replies to a post.
    Comment,
    /// Imported votes.
    Score,
    /// Reactions.
    Reaction,
    /// Accepted answers.
    Accepted,
    /// What is done to a thread or a post later: edits, locks, pins, deletions.
    Change,
}

/// For whom an operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behalf {
    /// An account.
    Account(AccountId),
    /// One that was deleted before the import.
    Deleted,
}

impl Kind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Place => "places",
            Self::Account => "accounts",
            Self::Member => "memberships",
            Self::Thread => "threads",
            Self::Answer => "answers",
            Self::Comment => "comments",
            Self::Score => "imported scores",
            Self::Reaction => "reactions",
            Self::Accepted => "accepted answers",
            Self::Change => "changes",
        }
    }
}

impl fmt::Display for Behalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account(id) => id.fmt(f),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}

impl From<Option<AccountId>> for Behalf {
    fn from(account: Option<AccountId>) -> Self {
        account.map_or(Self::Deleted, Self::Account)
    }
}

/// An account to be brought over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewAccount {
    /// Its id.
    pub id: AccountId,
    /// Unique on the platform.
    pub username: String,
    /// The name shown.
    pub display_name: String,
    /// About itself, in Markdown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// Where it says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// Its website.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub website: Option<String>,
    /// Where it comes from.
    pub source: String,
}

/// A community to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewCommunity {
    /// Its id.
    pub id: CommunityId,
    /// Its name in addresses.
    pub slug: String,
    /// Its name as shown.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Who reads and writes.
    pub visibility: Visibility,
}

/// A category to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewCategory {
    /// Its id.
    pub id: CategoryId,
    /// Below which; none for the top.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<CategoryId>,
    /// Its name in addresses.
    pub slug: String,
    /// Its name as shown.
    pub name: String,
    /// What belongs there.
    pub description: String,
}

/// A thread to be started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewThread {
    /// Its id.
    pub id: ThreadId,
    /// Where.
    pub category_id: CategoryId,
    /// Its title.
    pub title: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its opening post.
    pub opening_post_id: PostId,
    /// What that says.
    #[serde(flatten)]
    pub text: Text,
}

/// A reply to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NewPost {
    /// Its id.
    pub id: PostId,
    /// What it says.
    #[serde(flatten)]
    pub text: Text,
}

/// A text, and what it is written in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// As written.
    pub body: String,
    /// In which language.
    pub format: Format,
}

/// What all commands have in common: the key, who acts, and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Under which the command takes effect once.
    pub key: String,
    /// For whom; none for the operator itself.
    pub behalf: Option<Behalf>,
    /// When it happened.
    pub at: DateTime<Utc>,
}

impl Command {
    fn new(kind: Kind, method: Method, path: String, body: impl Serialize, context: Context) -> Self {
        let Context { key, behalf, at } = context;
        let body = serde_json::to_value(body).expect("strings and numbers serialise");
        Self { kind, method, path, body, key, on_behalf_of: behalf, occurred_at: at }
    }

    /// Brings an account over.
    pub fn import_account(account: &NewAccount, context: Context) -> Self {
        Self::new(Kind::Account, Method::POST, "/v2/accounts/import".into(), account, context)
    }

    /// Makes a community.
    pub fn create_community(community: &NewCommunity, context: Context) -> Self {
        Self::new(Kind::Place, Method::POST, "/v2/communities".into(), community, context)
    }

    /// Makes a category.
    pub fn create_category(community: CommunityId, category: &NewCategory, context: Context) -> Self {
        Self::new(Kind::Place, Method::POST, format!("/v2/communities/{community}/categories"), category, context)
    }

    /// Makes an account a member.
    pub fn join(community: CommunityId, account: AccountId, context: Context) -> Self {
        Self::member(community, account, "", Value::Null, context)
    }

    /// Lets an account join where that takes an invitation.
    pub fn invite(community: CommunityId, account: AccountId, context: Context) -> Self {
        Self::member(community, account, "/invitation", Value::Null, context)
    }

    /// Something between an account and a community: `/role`, `/ban`, …; null for no body.
    pub fn member(community: CommunityId, account: AccountId, below: &str, body: Value, context: Context) -> Self {
        Self::new(
            Kind::Member,
            Method::PUT,
            format!("/v2/communities/{community}/members/{account}{below}"),
            body,
            context,
        )
    }

    /// Starts a thread.
    pub fn start_thread(community: CommunityId, thread: &NewThread, context: Context) -> Self {
        Self::new(Kind::Thread, Method::POST, format!("/v2/communities/{community}/threads"), thread, context)
    }

    /// Replies to a thread.
    pub fn answer(thread: ThreadId, post: &NewPost, context: Context) -> Self {
        Self::new(Kind::Answer, Method::POST, format!("/v2/threads/{thread}/posts"), post, context)
    }

    /// Replies to a post, whatever its thread.
    pub fn comment(parent: PostId, post: &NewPost, context: Context) -> Self {
        Self::new(Kind::Comment, Method::POST, format!("/v2/posts/{parent}/replies"), post, context)
    }

    /// States the votes that a post came with.
    pub fn import_score(post: PostId, up: u32, down: u32, context: Context) -> Self {
        let body = json!({"up": up, "down": down});
        Self::new(Kind::Score, Method::PUT, format!("/v2/posts/{post}/imported-score"), body, context)
    }

    /// Reacts to a post.
    pub fn react(post: PostId, kind: &str, context: Context) -> Self {
        Self::new(Kind::Reaction, Method::PUT, format!("/v2/posts/{post}/reaction"), json!({"kind": kind}), context)
    }

    /// Accepts an answer.
    pub fn accept(thread: ThreadId, post: PostId, context: Context) -> Self {
        let body = json!({"post_id": post});
        Self::new(Kind::Accepted, Method::PUT, format!("/v2/threads/{thread}/answer"), body, context)
    }

    /// Something done to a thread or a post later; null for no body.
    pub fn change(method: Method, path: String, body: Value, context: Context) -> Self {
        Self::new(Kind::Change, method, path, body, context)
    }

    /// How it is sent.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Under which key it takes effect once.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// For whom an operator sends it.
    pub fn behalf(&self) -> Option<Behalf> {
        self.on_behalf_of
    }

    /// Where it is sent to.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What is sent.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// When it happened.
    pub fn at(&self) -> DateTime<Utc> {
        self.occurred_at
    }

    /// Where the post is found that it makes, where it makes one.
    pub(super) fn makes(&self) -> Option<String> {
        let id = match self.kind {
            Kind::Thread => self.body.get("opening_post_id"),
            Kind::Answer | Kind::Comment => self.body.get("id"),
            _ => None,
        };
        Some(format!("/v2/posts/{}", id?.as_str()?))
    }

    /// Whether a refusal says that what this command makes is there already: an id of ours is nobody else's.
    pub(super) fn says_it_is_there(&self, refusal: &Refusal) -> bool {
        match refusal.name.as_str() {
            "duplicate" => refusal.pointer == "#/id",
            // An edit that was made before: the revision that it names is no longer the newest.
            "edit-conflict" => self.kind == Kind::Change,
            // Closed since, by what came later in the same work: nothing of that kind comes before.
            "category-archived" | "thread-deleted" | "post-deleted" | "post-hidden" => {
                matches!(self.kind, Kind::Reaction | Kind::Score | Kind::Accepted | Kind::Change)
            }
            _ => false,
        }
    }
}

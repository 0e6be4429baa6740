//! What a dump's rows become here: ids and idempotency keys, the same each time they are made.

use chrono::{DateTime, Utc};
use events::{AccountId, CategoryId, CommunityId, PostId, ThreadId};

use crate::{
    client::command::{Behalf, Context},
    derive,
};

/// A dump's site, and the community that it goes into. An account is the same in whatever community its site's dump is
/// brought into; all else belongs to one.
#[derive(Clone, Debug)]
pub struct Origin {
    site: String,
    community: String,
}

impl Origin {
    /// Of the site, into the community, both as slugs.
    pub fn new(site: &str, community: &str) -> Self {
        Self { site: site.to_owned(), community: community.to_owned() }
    }

    /// Where an account comes from, as its event says: `stackexchange/french-meta/42`.
    pub fn source(&self, user: i64) -> String {
        format!("stackexchange/{}/{user}", self.site)
    }

    /// The account of a user.
    pub fn account(&self, user: i64, created: DateTime<Utc>) -> AccountId {
        derive::id(created, &self.account_name("user", user)).into()
    }

    /// The community itself.
    pub fn community(&self, since: DateTime<Utc>) -> CommunityId {
        derive::id(since, &self.name("community", 0)).into()
    }

    /// Its one category.
    pub fn category(&self, since: DateTime<Utc>) -> CategoryId {
        derive::id(since, &self.name("category", 0)).into()
    }

    /// The thread that a question opens.
    pub fn thread(&self, question: i64, created: DateTime<Utc>) -> ThreadId {
        derive::id(created, &self.name("thread", question)).into()
    }

    /// A question's or an answer's post.
    pub fn post(&self, post: i64, created: DateTime<Utc>) -> PostId {
        derive::id(created, &self.name("post", post)).into()
    }

    /// A comment's post.
    pub fn comment(&self, comment: i64, created: DateTime<Utc>) -> PostId {
        derive::id(created, &self.name("comment", comment)).into()
    }

    /// A command about an account as such.
    pub fn account_context(&self, what: &str, user: i64, at: DateTime<Utc>) -> Context {
        Context { key: self.account_name(what, user), behalf: None, at }
    }

    /// A command about what is in the community: what it does to which row, for whom.
    pub fn context(&self, what: &str, row: i64, behalf: Behalf, at: DateTime<Utc>) -> Context {
        Context { key: self.name(what, row), behalf: Some(behalf), at }
    }

    fn account_name(&self, what: &str, row: i64) -> String {
        format!("stackexchange/{}/{what}/{row}", self.site)
    }

    fn name(&self, what: &str, row: i64) -> String {
        format!("stackexchange/{}/{}/{what}/{row}", self.site, self.community)
    }
}

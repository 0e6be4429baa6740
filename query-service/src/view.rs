//! What a view is: which rows it reads, and what it makes of them.

use std::future::Future;

use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId, Position, PostId, Shard};
use platform::problem::Problem;
use serde::Serialize;
use sqlx::{Executor as _, PgConnection};
use uuid::Uuid;

use crate::{
    account::{AccountCommunities, AccountPage, AccountPosts, AccountThreads},
    cache::Tag,
    category_tree::{CategoryPage, Tree},
    community::{CommunityList, CommunityPage},
    failure::Failure,
    listing::Links,
    membership::{MembersByName, MembersByRole, Membership},
    moderation_log::ModerationLog,
    projection::Projection,
    reaction::OwnReactions,
    thread_list::{TagList, ThreadHead, ThreadList},
    thread_page::{BestFirst, Flat, OldestFirst, PostPage, Replies, RevisionList},
    visibility::{Audience, Belonging, Horizon},
};

/// A page of the read side. The value says which one; together with who sees the same it is a cache key.
pub(crate) trait View: Clone + Into<AnyView> + Send + Sync + 'static {
    /// Its name in metrics.
    const NAME: &'static str;
    /// The projections whose tables it joins: a read waits for all of them, and none else.
    const JOINS: &'static [Projection];
    /// Who sees the same.
    type Sight: Clone + Into<Sight> + Send + Sync + 'static;
    /// A row as it is read.
    type Row: Reflects + Send;

    /// Whether it takes several statements: they are then given one snapshot by a transaction. A single statement is
    /// one by itself, and three round trips shorter.
    fn in_steps(&self) -> bool {
        false
    }

    /// Reads the rows. They, and what they say they reflect, are of one snapshot.
    fn fetch(
        &self,
        sight: &Self::Sight,
        snapshot: &mut Snapshot<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Row>, Failure>> + Send;

    /// Makes the page. Pure.
    ///
    /// # Errors
    /// 404 where there is nothing to show.
    fn page(&self, sight: &Self::Sight, rows: Vec<Self::Row>) -> Result<Page, Problem>;
}

macro_rules! views {
    ($($view:ident),+ $(,)?) => {
        /// Any view: the part of a cache key that says what is shown.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum AnyView {
            $($view($view),)+
        }

        impl AnyView {
            /// The names of all, each at its [index](Self::index).
            pub(crate) const NAMES: [&'static str; [$($view::NAME),+].len()] = [$($view::NAME),+];

            /// Its place in [`Self::NAMES`].
            pub(crate) const fn index(&self) -> usize {
                enum Place { $($view),+ }
                match self { $(Self::$view(_) => Place::$view as usize,)+ }
            }

            /// Its name in metrics.
            pub(crate) const fn name(&self) -> &'static str {
                match self { $(Self::$view(_) => $view::NAME,)+ }
            }
        }

        $(impl From<$view> for AnyView {
            fn from(view: $view) -> Self {
                Self::$view(view)
            }
        })+
    };
}

views! {
    AccountCommunities, AccountPage, AccountPosts, AccountThreads, BestFirst, CategoryPage, CommunityList,
    CommunityPage, Flat, MembersByName, MembersByRole, Membership, ModerationLog, OldestFirst, OwnReactions, PostPage,
    Replies, RevisionList, TagList, ThreadHead, ThreadList, Tree,
}

/// Who sees the same: the part of a cache key that keeps them apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sight {
    /// Of one community.
    Within(Audience),
    /// Of several.
    Across(Horizon),
    /// Of those that an account belongs to.
    Belonging(Belonging),
}

impl Sight {
    /// Which communities are told of, where that is not one.
    pub(crate) fn horizon(&self) -> Option<&Horizon> {
        match self {
            Self::Within(_) => None,
            Self::Across(horizon) => Some(horizon),
            Self::Belonging(belonging) => Some(belonging.horizon()),
        }
    }
}

impl From<Audience> for Sight {
    fn from(audience: Audience) -> Self {
        Self::Within(audience)
    }
}

impl From<Horizon> for Sight {
    fn from(horizon: Horizon) -> Self {
        Self::Across(horizon)
    }
}

impl From<Belonging> for Sight {
    fn from(belonging: Belonging) -> Self {
        Self::Belonging(belonging)
    }
}

/// A row that tells what it reflects.
pub(crate) trait Reflects {
    /// For each shard asked about, in that order, up to where its statement saw everything.
    fn positions(&self) -> &[Position];

    /// Bytes of text that it brings to its page, where they may be many.
    fn bytes(&self) -> usize {
        0
    }
}

/// Where rows are read, and what their statement says besides: `reflected($1, $2, $3)` takes the three parts.
pub(crate) struct Snapshot<'c> {
    pub(crate) connection: &'c mut PgConnection,
    /// $1: the projections joined.
    pub(crate) joins: &'c [String],
    /// $2: the shards asked about.
    pub(crate) shards: &'c [i16],
    /// $3: the history that positions are of.
    pub(crate) line: Uuid,
}

impl Snapshot<'_> {
    /// Has each further statement of a view [in steps](View::in_steps) planned by the values that it is given: how much a
    /// filter leaves out, the planner learns from its value only. All others are [planned once](platform::db::BY_KEY).
    pub(crate) async fn plan_by_value(&mut self) -> sqlx::Result<()> {
        let set = "set local plan_cache_mode = force_custom_plan; set local enable_bitmapscan = on";
        self.connection.execute(set).await?;
        Ok(())
    }
}

/// A finished page.
#[derive(Debug)]
pub(crate) struct Page {
    /// The version of the stream that it shows; 0 where it shows several.
    pub(crate) version: i64,
    /// JSON.
    pub(crate) body: Vec<u8>,
    pub(crate) links: Links,
    pub(crate) shows: Shows,
}

impl Page {
    pub(crate) fn new<B: Serialize>(version: i64, body: &B, shows: Shows) -> Self {
        let body = serde_json::to_vec(body).expect("bodies are numbers, text and lists of them");
        Self { version, body, links: Links::default(), shows }
    }

    pub(crate) fn with_links(self, links: Links) -> Self {
        Self { links, ..self }
    }
}

/// What a page shows: it is good until some of this changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shows {
    pub(crate) tags: Vec<Tag>,
    /// For pages across communities: the communities they tell of, which must all be in sight of who is shown them.
    pub(crate) communities: Vec<CommunityId>,
    /// The posts that a reader's own reactions may stand beside.
    pub(crate) posts: Vec<PostId>,
    /// When it changes by itself: something that it shows is over then.
    pub(crate) until: Option<DateTime<Utc>>,
}

impl Shows {
    /// Something that a projection keeps.
    pub(crate) fn of(projection: Projection, thing: impl Into<Uuid>) -> Self {
        Self::default().and(projection, thing)
    }

    /// The same, and one thing more.
    pub(crate) fn and(mut self, projection: Projection, thing: impl Into<Uuid>) -> Self {
        self.tags.push(Tag::Thing(projection, thing.into()));
        self
    }

    /// The same, and everything that a projection keeps, wherever.
    pub(crate) fn and_any(mut self, projection: Projection) -> Self {
        self.tags.push(Tag::Any(projection));
        self
    }

    /// Something that it shows is over at a time, if that is set.
    pub(crate) fn over(&mut self, at: Option<DateTime<Utc>>) {
        self.until = self.until.into_iter().chain(at).min();
    }

    /// Adds an account's name, which belongs to the account's own shard.
    pub(crate) fn account(&mut self, account: Option<Uuid>) {
        if let Some(id) = account {
            let shard = Shard::of_account(AccountId(id));
            self.tags.extend([Tag::Thing(Projection::Account, id), Tag::Shard(Projection::Account, shard)]);
        }
    }
}

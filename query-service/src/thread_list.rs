//! Threads: the lists of a community, and one by itself. An account's threads are in [`account`](crate::account).

pub(crate) mod list;
pub(crate) mod tags;

pub(crate) use list::ThreadList;
pub(crate) use tags::TagList;

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{Position, ThreadId};
use platform::problem::Problem;
use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder, types::Json};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    card::{AccountCard, CategoryCard, CommunityCard},
    failure::Failure,
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Audience, DeletedBy, InThread, Refusal},
};

/// A thread.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Thread {
    id: Uuid,
    community: CommunityCard,
    category: CategoryCard,
    #[schema(example = "What does everybody read?")]
    title: String,
    /// In the author's order.
    tags: Vec<String>,
    /// Null for a deleted account.
    author: Option<AccountCard>,
    created_at: DateTime<Utc>,
    opening_post_id: Uuid,
    /// The newest post that can be seen: the opening post where there is no other.
    last_post: LastPost,
    /// Posts that can be seen, which are neither deleted nor hidden, without the opening post. The thread's page shows the
    /// others too, as place-holders that say so.
    replies: i32,
    /// The opening post's: `up` and `like` count 1, `down` -1.
    score: i32,
    /// Stands before others in lists.
    pinned: bool,
    /// Null where it is not pinned, or until it is unpinned.
    pinned_until: Option<DateTime<Utc>>,
    /// Takes no replies but moderators'.
    locked: bool,
    /// Shown to those who may restore it: moderators, and its author where it deleted it itself.
    deleted: bool,
    /// Null where it is not deleted.
    deleted_by: Option<DeletedBy>,
    /// The accepted answer; null where there is none that can be seen.
    answer_id: Option<Uuid>,
    /// For `If-Match` of commands to it.
    version: i64,
}

/// The newest post of a thread.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastPostOfThread)]
pub(crate) struct LastPost {
    id: Uuid,
    /// Null for a deleted account.
    author: Option<AccountCard>,
    at: DateTime<Utc>,
}

/// A thread by itself
///
/// Its posts are at `/v2/threads/{id}/posts`. A deleted one, with its posts, is there for those who may restore it:
/// moderators, and its author where it deleted it itself.
#[utoipa::path(
    get, path = "/v2/threads/{id}", tag = "threads", operation_id = "threads_show",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The thread.", body = Thread)),
)]
pub(crate) async fn show(InThread { thread, reading, .. }: InThread) -> Result<Response, Problem> {
    reading.show(ThreadHead { thread }).await
}

/// One thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ThreadHead {
    pub(crate) thread: ThreadId,
}

/// What a thread shows. Statements begin with [`select`], go on with a subquery that picks threads, and with [`JOIN`].
#[derive(FromRow)]
pub(crate) struct Row {
    positions: Vec<Position>,
    thread_id: Uuid,
    community_id: Uuid,
    community_slug: String,
    community_name: String,
    category_id: Uuid,
    category_slug: Option<String>,
    category_name: Option<String>,
    title: String,
    tags: Json<Vec<String>>,
    author_id: Option<Uuid>,
    author_username: Option<String>,
    author_display_name: Option<String>,
    opening_post_id: Uuid,
    pub(crate) created_at: DateTime<Utc>,
    last_post_id: Uuid,
    pub(crate) last_post_at: DateTime<Utc>,
    last_author_id: Option<Uuid>,
    last_author_username: Option<String>,
    last_author_display_name: Option<String>,
    pub(crate) replies: i32,
    pub(crate) score: i32,
    pub(crate) hot: f64,
    pub(crate) pinned: bool,
    pinned_until: Option<DateTime<Utc>>,
    locked: bool,
    deleted: bool,
    deleted_by: Option<String>,
    answer_id: Option<Uuid>,
    version: i64,
}

const SELECT: &str = "select r.positions, t.thread_id, t.community_id, c.slug as community_slug,
    c.name as community_name, t.category_id, k.slug as category_slug, k.name as category_name, t.title, t.tags,
    t.author_id, a.username as author_username, a.display_name as author_display_name, t.opening_post_id, t.created_at,
    t.last_post_id, t.last_post_at, t.last_author_id, l.username as last_author_username,
    l.display_name as last_author_display_name, t.replies, t.score, t.hot, t.pinned, t.pinned_until, t.locked,
    t.deleted, t.deleted_by, t.answer_id, t.version
from reflected(";

/// What names the things that a thread shows.
pub(crate) const JOIN: &str = "t
join community c on c.community_id = t.community_id
left join category k on k.category_id = t.category_id
left join account a on a.account_id = t.author_id
left join account l on l.account_id = t.last_author_id";

/// The projections that this joins.
pub(crate) const JOINS: &[Projection] =
    &[Projection::Account, Projection::CategoryTree, Projection::Community, Projection::ThreadList];

/// Begins a statement of [`Row`]s.
pub(crate) fn select<'c>(at: &Snapshot<'c>) -> QueryBuilder<'c, Postgres> {
    let mut sql = QueryBuilder::new(SELECT);
    sql.push_bind(at.joins).push(", ").push_bind(at.shards).push(", ").push_bind(at.line);
    sql.push(") r cross join lateral ");
    sql
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

impl View for ThreadHead {
    const NAME: &'static str = "thread";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let mut sql = select(at);
        sql.push("(select * from thread t where t.thread_id = ").push_bind(self.thread.0).push(" limit 1) ").push(JOIN);
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let row = rows.into_iter().next().ok_or(Refusal::ThreadNotFound)?;
        let shows = row.show(Shows::of(Projection::ThreadList, self.thread));
        Ok(Page::new(row.version, &row.into_body(), shows))
    }
}

impl Row {
    /// Adds what is shown of other projections.
    pub(crate) fn show(&self, mut shows: Shows) -> Shows {
        shows.account(self.author_id);
        shows.account(self.last_author_id);
        shows.and(Projection::Community, self.community_id).and(Projection::CategoryTree, self.community_id)
    }

    pub(crate) fn community_id(&self) -> Uuid {
        self.community_id
    }

    pub(crate) fn thread_id(&self) -> Uuid {
        self.thread_id
    }

    pub(crate) fn into_body(self) -> Thread {
        Thread {
            id: self.thread_id,
            community: CommunityCard { id: self.community_id, slug: self.community_slug, name: self.community_name },
            category: CategoryCard { id: self.category_id, slug: self.category_slug, name: self.category_name },
            title: self.title,
            tags: self.tags.0,
            author: AccountCard::new(self.author_id, self.author_username, self.author_display_name),
            created_at: self.created_at,
            opening_post_id: self.opening_post_id,
            last_post: LastPost {
                id: self.last_post_id,
                author: AccountCard::new(self.last_author_id, self.last_author_username, self.last_author_display_name),
                at: self.last_post_at,
            },
            replies: self.replies,
            score: self.score,
            pinned: self.pinned,
            pinned_until: self.pinned_until,
            locked: self.locked,
            deleted: self.deleted,
            deleted_by: DeletedBy::of(self.deleted, self.deleted_by.as_deref()),
            answer_id: self.answer_id,
            version: self.version,
        }
    }
}

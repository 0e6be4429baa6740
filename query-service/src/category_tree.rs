//! Categories: a community's tree of them, and one by itself; each with its counts and its last post.

use std::collections::HashMap;

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{CategoryId, CommunityId, Position};
use platform::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    card::{AccountCard, ThreadCard},
    failure::Failure,
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Audience, InCategory, InCommunity, Refusal},
};

/// A category.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Category {
    id: Uuid,
    community_id: Uuid,
    /// The category that it is below; null at the top.
    parent_id: Option<Uuid>,
    /// Its name in addresses, unique among its siblings.
    #[schema(example = "general")]
    slug: String,
    #[schema(example = "General")]
    name: String,
    description: String,
    /// Its place among its siblings, from 0.
    place: i32,
    /// Archived itself.
    archived: bool,
    /// It, or one above it, is archived: its threads stay readable, and nothing is written in it.
    read_only: bool,
    created_at: DateTime<Utc>,
    /// Threads that are not deleted, in this category itself.
    threads: i64,
    /// Posts in them that are neither deleted nor hidden, opening posts included.
    posts: i64,
    /// The newest post of those threads; null before the first.
    last_post: Option<LastPost>,
    /// For `If-Match` of commands to it: the version of the whole tree.
    version: i64,
    /// The categories below it, in order; in the tree only.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(no_recursion)]
    children: Option<Vec<Category>>,
}

/// The newest post of a category.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LastPostOfCategory)]
pub(crate) struct LastPost {
    id: Uuid,
    thread: ThreadCard,
    /// Null for a deleted account.
    author: Option<AccountCard>,
    at: DateTime<Utc>,
}

/// A community's categories.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CategoryTree {
    /// Those at the top, in order, with those below them.
    items: Vec<Category>,
    /// For `If-Match` of commands to any of them.
    version: i64,
}

/// The categories of a community, as a tree
#[utoipa::path(
    get, path = "/v2/communities/{c}/categories", tag = "categories", operation_id = "categories_tree",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta")),
    responses((status = 200, description = "All of them.", body = CategoryTree)),
)]
pub(crate) async fn tree(InCommunity { community, reading, .. }: InCommunity) -> Result<Response, Problem> {
    reading.show(Tree { community }).await
}

/// A category by itself
#[utoipa::path(
    get, path = "/v2/categories/{id}", tag = "categories", operation_id = "categories_show",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The category.", body = Category)),
)]
pub(crate) async fn show(InCategory { category, community, reading }: InCategory) -> Result<Response, Problem> {
    reading.show(CategoryPage { category, community }).await
}

/// The whole tree of a community.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tree {
    community: CommunityId,
}

/// One category.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CategoryPage {
    category: CategoryId,
    community: CommunityId,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    category_id: Uuid,
    community_id: Uuid,
    parent_id: Option<Uuid>,
    slug: String,
    name: String,
    description: String,
    place: i32,
    archived: bool,
    read_only: bool,
    created_at: DateTime<Utc>,
    tree_version: i64,
    threads: i64,
    posts: i64,
    last_post_id: Option<Uuid>,
    last_post_at: Option<DateTime<Utc>>,
    last_thread_id: Option<Uuid>,
    last_thread_title: Option<String>,
    last_author_id: Option<Uuid>,
    last_author_username: Option<String>,
    last_author_display_name: Option<String>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// The categories of community $4 that `$which` tells, siblings in order. The tree's version is the greatest of its
/// rows.
macro_rules! categories {
    ($at:expr, $which:literal; $community:expr $(, $more:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", k.category_id, k.community_id, k.parent_id, k.slug, k.name,
                k.description, k.place, k.archived,
                exists (
                    with recursive above (category_id, parent_id, archived) as (
                        select k.category_id, k.parent_id, k.archived
                        union
                        select p.category_id, p.parent_id, p.archived
                        from above a join category p on p.category_id = a.parent_id
                    )
                    select from above where above.archived
                ) as "read_only!",
                k.created_at,
                (select max(v.version) from category v where v.community_id = $4) as "tree_version!",
                coalesce(n.threads, 0) as "threads!", coalesce(n.posts, 0) as "posts!",
                t.last_post_id as "last_post_id?", t.last_post_at as "last_post_at?",
                t.thread_id as "last_thread_id?", t.title as "last_thread_title?",
                t.last_author_id as "last_author_id?", a.username as "last_author_username?",
                a.display_name as "last_author_display_name?"
            from reflected($1, $2, $3) r
            cross join category k
            left join category_count n on n.category_id = k.category_id
            left join lateral (
                select t.* from thread t
                where t.category_id = k.category_id and not t.deleted
                order by t.last_post_at desc, t.thread_id desc
                limit 1
            ) t on true
            left join account a on a.account_id = t.last_author_id
            where k.community_id = $4 "# + $which + r#"
            order by k.place, k.category_id"#,
            $at.joins, $at.shards, $at.line, $community.0 $(, $more)*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

/// What both show.
const JOINS: &[Projection] = &[Projection::Account, Projection::CategoryTree, Projection::ThreadList];

impl View for Tree {
    const NAME: &'static str = "category_tree";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        Ok(categories!(at, ""; self.community)?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let shows = shows(self.community, &rows);
        let version = rows.first().map_or(0, |row| row.tree_version);
        let mut below: HashMap<Option<Uuid>, Vec<Category>> = HashMap::new();
        for row in rows {
            below.entry(row.parent_id).or_default().push(row.into_body());
        }
        Ok(Page::new(version, &CategoryTree { items: subtree(&mut below, None), version }, shows))
    }
}

impl View for CategoryPage {
    const NAME: &'static str = "category";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        Ok(categories!(at, "and k.category_id = $5"; self.community, self.category.0)?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let shows = shows(self.community, &rows);
        let row = rows.into_iter().next().ok_or(Refusal::CategoryNotFound)?;
        Ok(Page::new(row.tree_version, &row.into_body(), shows))
    }
}

fn shows(community: CommunityId, rows: &[Row]) -> Shows {
    let mut shows = Shows::of(Projection::CategoryTree, community).and(Projection::ThreadList, community);
    for row in rows {
        shows.account(row.last_author_id);
    }
    shows
}

/// Takes out what is below a category. Each is taken out once, so that even rows that went in circles would end it.
fn subtree(below: &mut HashMap<Option<Uuid>, Vec<Category>>, parent: Option<Uuid>) -> Vec<Category> {
    let mut categories = below.remove(&parent).unwrap_or_default();
    for category in &mut categories {
        category.children = Some(subtree(below, Some(category.id)));
    }
    categories
}

impl Row {
    fn into_body(self) -> Category {
        let last_post = match (self.last_post_id, self.last_thread_id, self.last_thread_title, self.last_post_at) {
            (Some(id), Some(thread), Some(title), Some(at)) => Some(LastPost {
                id,
                thread: ThreadCard { id: thread, title },
                author: AccountCard::new(self.last_author_id, self.last_author_username, self.last_author_display_name),
                at,
            }),
            _ => None,
        };
        Category {
            id: self.category_id,
            community_id: self.community_id,
            parent_id: self.parent_id,
            slug: self.slug,
            name: self.name,
            description: self.description,
            place: self.place,
            archived: self.archived,
            read_only: self.read_only,
            created_at: self.created_at,
            threads: self.threads,
            posts: self.posts,
            last_post,
            version: self.tree_version,
            children: None,
        }
    }
}

//! A thread's posts as a tree, the best first: of each post so many children, and how many more there are.

use std::{cmp::Reverse, collections::HashMap};

use events::ThreadId;
use platform::problem::Problem;
use uuid::Uuid;

use super::{
    PostRow, Posts,
    post::{JOINS, More, Post, shows},
    select_posts,
};
use crate::{
    cursor::{Direction, Place},
    failure::Failure,
    listing::{Links, Listing, fitting},
    projection::Projection,
    view::{Page, Snapshot, View},
    visibility::{Audience, Refusal},
};

/// Children shown of a post, unless asked otherwise.
pub(super) const CHILDREN: u32 = 3;
/// Children shown of a post at most, below the first level.
pub(super) const MOST_CHILDREN: u32 = 20;
/// Levels shown, unless asked otherwise.
pub(super) const LEVELS: u32 = 3;
/// Levels shown at most: as deep as posts go.
pub(super) const MOST_LEVELS: u32 = events::limits::POST_DEPTH as u32;
/// Posts on a page at most, whatever its shape: upper levels come first, and the rest is told as `more`. So is what has
/// no room for its text.
const MOST_POSTS: i64 = 200;

/// How much of the tree a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// Children of each post below the first level.
    pub(super) children: u32,
    pub(super) levels: u32,
}

/// One page of a tree, the best first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BestFirst {
    thread: ThreadId,
    /// What is below this post; below the opening post, with it, where none is named.
    parent: Option<Uuid>,
    shape: Shape,
    listing: Listing<Key>,
}

/// Score and number of the last child shown.
type Key = (i32, i32);

/// Posts by the one that they answer.
type Below = HashMap<Uuid, Vec<PostRow>>;

/// Before every child.
const BEGINNING: Key = (i32::MAX, 0);

fn listing(thread: ThreadId, parent: Option<Uuid>, limit: u32, cursor: Option<&str>) -> Result<Listing<Key>, Problem> {
    let below = parent.map(|parent| parent.to_string());
    let filters = [("view", Some("tree")), ("sort", Some("best")), ("parent", below.as_deref())];
    let listing = Listing::new(format!("/v2/threads/{thread}/posts"), &filters, limit, cursor)?;
    listing.of_keys(|(_, number)| *number >= 0)
}

impl BestFirst {
    pub(super) fn new(
        thread: ThreadId,
        parent: Option<Uuid>,
        shape: Shape,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Self, Problem> {
        Ok(Self { thread, parent, shape, listing: listing(thread, parent, limit, cursor)? })
    }

    /// The child that the page begins after.
    fn from(&self) -> Key {
        self.listing.from().copied().unwrap_or(BEGINNING)
    }

    /// Adds a post and, after it, what of `below` is below it.
    fn lay_out(&self, post: PostRow, below: &mut Below, items: &mut Vec<Post>) {
        let children = best(below.remove(&post.post_id));
        items.push(Post { more: self.more(&post, &children), ..post.into_body() });
        for child in children {
            self.lay_out(child, below, items);
        }
    }

    /// How many children there are behind the first ones.
    fn more(&self, post: &PostRow, first: &[PostRow]) -> Option<More> {
        let many = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        if post.children <= many(first.len()) {
            return None;
        }
        let seen = many(first.iter().filter(|child| child.can_be_seen()).count());
        let children = listing(self.thread, Some(post.post_id), self.listing.limit(), None).ok()?;
        Some(More { count: post.replies.saturating_sub(seen).max(0), cursor: children.cursor(&behind(first)) })
    }
}

/// The best first; of the same score, the oldest.
fn best(children: Option<Vec<PostRow>>) -> Vec<PostRow> {
    let mut children = children.unwrap_or_default();
    children.sort_by_key(|child| (Reverse(child.score), child.number));
    children
}

/// Where what is behind these children begins.
fn behind(children: &[PostRow]) -> Place<Key> {
    let key = children.last().map_or(BEGINNING, |it| (it.score, it.number));
    Place { key, direction: Direction::Forward }
}

impl View for BestFirst {
    const NAME: &'static str = "thread_page_best";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = PostRow;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<PostRow>, Failure> {
        let (score, number) = self.from();
        // One more than the page holds tells whether there is another. Breadth first, and read no further than the
        // limit: `tree` stops with who reads it. Below the first post, those of the same score as the one to go on from,
        // then those of a lower one; `between` keeps the planner on the index that has them in order.
        let fetched = select_posts!(
            at, audience.sees_withheld(),
            with "with recursive top as (
                select p.post_id from post p
                where p.thread_id = $5
                    and p.post_id
                        = coalesce($6, (select o.post_id from post o where o.thread_id = $5 and o.number = 1))
            ), first as (
                select c.post_id from top cross join lateral (
                    (select p.post_id from post p
                     where p.parent_id = top.post_id and p.score between $7 and $7 and p.number > $8
                     order by p.score desc, p.number limit $9)
                    union all
                    (select p.post_id from post p
                     where p.parent_id = top.post_id and p.score < $7
                     order by p.score desc, p.number limit $9)
                    limit $9
                ) c
            ), tree (post_id, level) as (
                select first.post_id, 1 from first
                union all
                select c.post_id, tree.level + 1
                from tree
                cross join lateral (
                    select p.post_id from post p where p.parent_id = tree.post_id
                    order by p.score desc, p.number limit $10
                ) c
                where tree.level < $11
            ), picked as (
                select top.post_id, 0 as level from top
                union all
                (select tree.post_id, tree.level from tree limit $12)
            )",
            "join picked on picked.post_id = p.post_id order by picked.level, p.score desc, p.number";
            self.thread.0, self.parent, score, number, i64::from(self.listing.limit()) + 1, i64::from(self.shape.children), self.shape.levels.cast_signed(), MOST_POSTS
        );
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, mut rows: Vec<PostRow>) -> Result<Page, Problem> {
        // The first one may be shown already, and one behind it is to be: it would not go on otherwise.
        let cut = rows.split_off(fitting(&rows, 2).min(rows.len()));
        let mut shows = shows(self.thread, &rows);
        let version = rows.first().map_or(0, |row| row.thread_version);
        let mut top = None;
        let mut below = Below::new();
        for row in rows {
            match row.parent_id {
                _ if self.parent.map_or(row.number == 1, |parent| row.post_id == parent) => top = Some(row),
                Some(parent) => below.entry(parent).or_default().push(row),
                None => {}
            }
        }
        let top = top.ok_or(Refusal::PostNotFound)?;
        let mut children = best(below.remove(&top.post_id));
        let longest = usize::try_from(self.listing.limit()).unwrap_or(usize::MAX);
        let is_cut = cut.iter().any(|row| row.parent_id == Some(top.post_id));
        let rest = (is_cut || children.len() > longest).then(|| {
            children.truncate(longest);
            behind(&children)
        });
        below.insert(top.post_id, children);
        let mut items = Vec::new();
        self.lay_out(top, &mut below, &mut items);
        if self.parent.is_some() || self.listing.from().is_some() {
            // The client has it: it came from there.
            items.remove(0);
            shows.posts.retain(|post| items.iter().any(|item| item.id == post.0));
        }
        let next = rest.map(|place| self.listing.cursor(&place));
        let mut links = Links::default();
        links.add("first", &self.listing.target(None));
        if let Some(cursor) = &next {
            links.add("next", &self.listing.target(Some(("cursor", cursor))));
        }
        Ok(Page::new(version, &Posts::new(items, next, None), shows).with_links(links))
    }
}

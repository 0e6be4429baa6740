//! A thread's posts as a tree, the oldest first: every post is followed by all that is below it.

use events::ThreadId;
use platform::problem::Problem;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    PostRow, Posts,
    post::{JOINS, shows},
    select_posts,
};
use crate::{
    cursor::Direction,
    failure::Failure,
    listing::Listing,
    projection::Projection,
    view::{Page, Snapshot, View},
    visibility::{Audience, Refusal},
};

/// One page of a tree in preorder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OldestFirst {
    thread: ThreadId,
    /// Only what is below this post.
    parent: Option<Uuid>,
    listing: Listing<Key>,
}

/// The path, which sorts in preorder, and the number.
type Key = (Vec<i32>, i32);

impl OldestFirst {
    pub(super) fn new(
        thread: ThreadId,
        parent: Option<Uuid>,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Self, Problem> {
        let below = parent.map(|parent| parent.to_string());
        let filters = [("view", Some("tree")), ("sort", Some("oldest")), ("parent", below.as_deref())];
        let listing = Listing::new(format!("/v2/threads/{thread}/posts"), &filters, limit, cursor)?;
        Ok(Self { thread, parent, listing })
    }

    /// The paths that a page may show: those after the first and before the last.
    async fn bounds(&self, connection: &mut PgConnection) -> Result<(Key, Vec<i32>), Failure> {
        let everything = ((vec![], 0), vec![i32::MAX]);
        let Some(parent) = self.parent else { return Ok(everything) };
        let found =
            sqlx::query!("select path, number from post where post_id = $1 and thread_id = $2", parent, self.thread.0);
        let found = found.fetch_optional(connection).await?.ok_or(Problem::from(Refusal::PostNotFound))?;
        let mut end = found.path.clone();
        match end.last_mut() {
            Some(last) => *last += 1,
            // All is below the opening post.
            None => end.push(i32::MAX),
        }
        Ok(((found.path, found.number), end))
    }
}

impl View for OldestFirst {
    const NAME: &'static str = "thread_page_oldest";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = PostRow;

    fn in_steps(&self) -> bool {
        self.parent.is_some()
    }

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<PostRow>, Failure> {
        let ((first_path, first_number), end) = self.bounds(at.connection).await?;
        let (withheld, thread, rows) = (audience.sees_withheld(), self.thread.0, self.listing.rows());
        let (path, number) = self.listing.from().map(|(path, number)| (path.as_slice(), *number)).unzip();
        let fetched = match self.listing.direction() {
            Direction::Forward => select_posts!(
                at, withheld,
                "where p.thread_id = $5 and p.path < $6 and (p.path, p.number) > ($7, $8)
                order by p.path limit $9";
                thread, &end, path.unwrap_or(&first_path), number.unwrap_or(first_number), rows
            ),
            Direction::Backward => select_posts!(
                at, withheld,
                "where p.thread_id = $5 and (p.path, p.number) > ($6, $7) and p.path < $8
                order by p.path desc limit $9";
                thread, &first_path, first_number, path.unwrap_or(&end), rows
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<PostRow>) -> Result<Page, Problem> {
        let version = rows.first().map_or(0, |row| row.thread_version);
        let paged = self.listing.page(rows, |row| (row.path.clone(), row.number));
        let shows = shows(self.thread, &paged.rows);
        let items = paged.rows.into_iter().map(PostRow::into_body).collect();
        Ok(Page::new(version, &Posts::new(items, paged.next, paged.previous), shows).with_links(paged.links))
    }
}

//! A thread's posts by number.

use events::ThreadId;
use platform::problem::Problem;

use super::{
    PostRow, Posts,
    post::{JOINS, shows},
    select_posts,
};
use crate::{
    cursor::{Direction, Place},
    failure::Failure,
    listing::Listing,
    projection::Projection,
    view::{Page, Snapshot, View},
    visibility::Audience,
};

/// One page of a thread, by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flat {
    thread: ThreadId,
    listing: Listing<i32>,
}

impl Flat {
    /// From a number on, or where a cursor leads.
    pub(super) fn new(thread: ThreadId, from: Option<i32>, limit: u32, cursor: Option<&str>) -> Result<Self, Problem> {
        let mut listing = Listing::new(format!("/v2/threads/{thread}/posts"), &[], limit, cursor)?;
        if let Some(from) = from.filter(|from| *from > 1) {
            listing = listing.starting(Place { key: from - 1, direction: Direction::Forward });
        }
        Ok(Self { thread, listing })
    }
}

impl View for Flat {
    const NAME: &'static str = "thread_page_flat";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = PostRow;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<PostRow>, Failure> {
        let (withheld, thread) = (audience.sees_withheld(), self.thread.0);
        let (from, rows) = (self.listing.from().copied(), self.listing.rows());
        let fetched = match self.listing.direction() {
            Direction::Forward => select_posts!(
                at, withheld,
                "where p.thread_id = $5 and p.number > coalesce($6, 0) order by p.number limit $7";
                thread, from, rows
            ),
            Direction::Backward => select_posts!(
                at, withheld,
                "where p.thread_id = $5 and p.number < $6 order by p.number desc limit $7";
                thread, from, rows
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<PostRow>) -> Result<Page, Problem> {
        let version = rows.first().map_or(0, |row| row.thread_version);
        let mut paged = self.listing.page(rows, |row| row.number);
        // From behind the last number, backwards: no count is needed to get there.
        let last = self.listing.cursor(&Place { key: i32::MAX, direction: Direction::Backward });
        paged.links.add("last", &self.listing.target(Some(("cursor", &last))));
        let shows = shows(self.thread, &paged.rows);
        let items = paged.rows.into_iter().map(PostRow::into_body).collect();
        Ok(Page::new(version, &Posts::new(items, paged.next, paged.previous), shows).with_links(paged.links))
    }
}

//! The direct replies to a post.

use axum::response::Response;
use events::{PostId, ThreadId};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    PostRow, Posts, Sort,
    post::{JOINS, shows},
    select_posts,
};
use crate::{
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, Listing, PAGE},
    projection::Projection,
    view::{Page, Snapshot, View},
    visibility::{Audience, BelowPost},
};

/// Which page of the replies.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct RepliesQuery {
    /// How they are sorted.
    #[garde(skip)]
    #[param(inline)]
    sort: Sort,
    /// Replies on a page, 1 to 100. Fewer where their texts are long.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for RepliesQuery {
    fn default() -> Self {
        Self { sort: Sort::default(), limit: PAGE, cursor: None }
    }
}

/// The direct replies to a post
#[utoipa::path(
    get, path = "/v2/posts/{id}/replies", tag = "posts", operation_id = "posts_replies",
    params(("id" = Uuid, Path, description = "The post's id."), RepliesQuery),
    responses((status = 200, description = "A page of them.", body = Posts)),
)]
pub(crate) async fn list(
    BelowPost { post, thread, reading }: BelowPost,
    Query(query): Query<RepliesQuery>,
) -> Result<Response, Problem> {
    let sort = match query.sort {
        Sort::Oldest => "oldest",
        Sort::Best => "best",
    };
    let path = format!("/v2/posts/{post}/replies");
    let listing = Listing::new(path, &[("sort", Some(sort))], query.limit, query.cursor.as_deref())?;
    reading.show_posts(thread, Replies { post, thread, sort: query.sort, listing }).await
}

/// One page of the replies to a post.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Replies {
    post: PostId,
    thread: ThreadId,
    sort: Sort,
    /// By score, 0 where that does not count, and number.
    listing: Listing<(i32, i32)>,
}

impl View for Replies {
    const NAME: &'static str = "replies";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = PostRow;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<PostRow>, Failure> {
        let (withheld, post, rows) = (audience.sees_withheld(), self.post.0, self.listing.rows());
        let (score, number) = self.listing.from().copied().unzip();
        let fetched = match (self.sort, self.listing.direction()) {
            (Sort::Oldest, Direction::Forward) => select_posts!(
                at, withheld,
                "where p.parent_id = $5 and p.number > coalesce($6, 0) order by p.number limit $7";
                post, number, rows
            ),
            (Sort::Oldest, Direction::Backward) => select_posts!(
                at, withheld,
                "where p.parent_id = $5 and p.number < $6 order by p.number desc limit $7";
                post, number, rows
            ),
            // The score falls while the number rises: those of the same score, then those of a lower one. `between` keeps
            // the planner on the index that has them in order.
            (Sort::Best, Direction::Forward) => select_posts!(
                at, withheld,
                "join (
                    (select post_id from post where parent_id = $5 and score between $6 and $6 and number > $7
                     order by score desc, number limit $8)
                    union all
                    (select post_id from post where parent_id = $5 and score < coalesce($6, 2147483647)
                     order by score desc, number limit $8)
                    limit $8
                ) picked on picked.post_id = p.post_id
                order by p.score desc, p.number";
                post, score, number, rows
            ),
            (Sort::Best, Direction::Backward) => select_posts!(
                at, withheld,
                "join (
                    (select post_id from post where parent_id = $5 and score between $6 and $6 and number < $7
                     order by score, number desc limit $8)
                    union all
                    (select post_id from post where parent_id = $5 and score > $6
                     order by score, number desc limit $8)
                    limit $8
                ) picked on picked.post_id = p.post_id
                order by p.score, p.number desc";
                post, score, number, rows
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<PostRow>) -> Result<Page, Problem> {
        let score = |row: &PostRow| if self.sort == Sort::Best { row.score } else { 0 };
        let paged = self.listing.page(rows, |row| (score(row), row.number));
        let shows = shows(self.thread, &paged.rows);
        let items = paged.rows.into_iter().map(PostRow::into_body).collect();
        Ok(Page::new(0, &Posts::new(items, paged.next, paged.previous), shows).with_links(paged.links))
    }
}

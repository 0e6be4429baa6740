//! The tags of a community's threads, the most used first.

use axum::response::Response;
use events::{CommunityId, Position};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, List, Listing, PAGE},
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Audience, InCommunity},
};

/// A tag.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tag {
    #[schema(example = "grammar")]
    tag: String,
    /// Threads that bear it and are not deleted.
    threads: i64,
}

/// Which page of the tags.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Tags {
    /// Tags on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Tags {
    fn default() -> Self {
        Self { limit: PAGE, cursor: None }
    }
}

/// The tags of a community's threads, the most used first
#[utoipa::path(
    get, path = "/v2/communities/{c}/tags", tag = "threads", operation_id = "threads_tags",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta"), Tags),
    responses((status = 200, description = "A page of them.", body = List<Tag>)),
)]
pub(crate) async fn list(
    InCommunity { community, reading, .. }: InCommunity,
    Query(query): Query<Tags>,
) -> Result<Response, Problem> {
    let path = format!("/v2/communities/{community}/tags");
    let listing = Listing::new(path, &[], query.limit, query.cursor.as_deref())?;
    reading.show(TagList { community, listing }).await
}

/// One page of the tags: by how many threads bear them, then by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TagList {
    community: CommunityId,
    listing: Listing<(i64, String)>,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    tag: String,
    threads: i64,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// The tags of community $4 that `$which` tells, in its order.
macro_rules! tags {
    ($at:expr, $which:literal; $($more:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", g.tag, g.threads
            from reflected($1, $2, $3) r
            cross join tag_count g
            where g.community_id = $4 and g.threads > 0 and "# + $which,
            $at.joins, $at.shards, $at.line, $($more),*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

impl View for TagList {
    const NAME: &'static str = "tags";
    const JOINS: &'static [Projection] = &[Projection::ThreadList];
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (community, rows) = (self.community.0, self.listing.rows());
        let (threads, tag) = self.listing.from().map(|(threads, tag)| (*threads, tag.as_str())).unzip();
        let fetched = match self.listing.direction() {
            Direction::Forward => tags!(
                at,
                "($5::bigint is null or g.threads <= $5 and (g.threads < $5 or g.tag > $6))
                order by g.threads desc, g.tag limit $7";
                community, threads, tag, rows
            ),
            Direction::Backward => tags!(
                at,
                "g.threads >= $5 and (g.threads > $5 or g.tag < $6) order by g.threads, g.tag desc limit $7";
                community, threads, tag, rows
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.threads, row.tag.clone()));
        let (list, links) = paged.list(|Row { tag, threads, .. }| Tag { tag, threads });
        Ok(Page::new(0, &list, Shows::of(Projection::ThreadList, self.community)).with_links(links))
    }
}

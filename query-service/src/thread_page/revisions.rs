//! Every text that a post ever had.

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{Position, PostId, ThreadId, post::Format};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    card::AccountCard,
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, List, Listing, PAGE},
    projection::{Projection, named},
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{AtPost, Audience},
};

/// A text of a post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Revision {
    /// From 1.
    #[serde(rename = "revision")]
    number: i32,
    format: Format,
    /// As written; null where it is withheld.
    body: Option<String>,
    /// To be shown: sanitised; null where it is withheld.
    body_html: Option<String>,
    /// Who wrote it; null for a deleted account.
    editor: Option<AccountCard>,
    written_at: DateTime<Utc>,
    /// Why it was edited, where that was said.
    reason: Option<String>,
}

/// Which page of the revisions.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Revisions {
    /// Revisions on a page, 1 to 100. Fewer where their texts are long.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Revisions {
    fn default() -> Self {
        Self { limit: PAGE, cursor: None }
    }
}

/// Every text that a post ever had, the newest first
///
/// Texts of a deleted post are shown to moderators only, those of a hidden one to its author too.
#[utoipa::path(
    get, path = "/v2/posts/{id}/revisions", tag = "posts", operation_id = "posts_revisions",
    params(("id" = Uuid, Path, description = "The post's id."), Revisions),
    responses((status = 200, description = "A page of them.", body = List<Revision>)),
)]
pub(crate) async fn list(
    AtPost { post, thread, reading }: AtPost,
    Query(query): Query<Revisions>,
) -> Result<Response, Problem> {
    let path = format!("/v2/posts/{post}/revisions");
    let listing = Listing::new(path, &[], query.limit, query.cursor.as_deref())?;
    reading.show(RevisionList { post, thread, listing }).await
}

/// One page of a post's texts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RevisionList {
    post: PostId,
    thread: ThreadId,
    listing: Listing<i32>,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    post_version: i64,
    revision: i32,
    format: String,
    body: Option<String>,
    body_html: Option<String>,
    editor_id: Option<Uuid>,
    editor_username: Option<String>,
    editor_display_name: Option<String>,
    written_at: DateTime<Utc>,
    reason: Option<String>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }

    fn bytes(&self) -> usize {
        [&self.body, &self.body_html].into_iter().flatten().map(String::len).sum()
    }
}

/// The texts of post $4 that `$which` tells, in its order: of a deleted one where $5 says so, of a hidden one where $6
/// does.
macro_rules! revisions {
    ($at:expr, $which:literal; $($more:expr),*) => {{
        let rows = sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", p.version as post_version, v.revision, v.format,
                case when (not p.deleted or $5) and (not p.hidden or $6) then v.body end as "body?",
                case when (not p.deleted or $5) and (not p.hidden or $6) then v.body_html end as "body_html?",
                v.editor_id, a.username as "editor_username?", a.display_name as "editor_display_name?",
                v.written_at, v.reason
            from reflected($1, $2, $3) r
            cross join post p
            join post_revision v on v.post_id = p.post_id
            left join account a on a.account_id = v.editor_id
            where p.post_id = $4 "# + $which,
            $at.joins, $at.shards, $at.line, $($more),*
        )
        .fetch(&mut *$at.connection);
        crate::listing::read(rows).await
    }};
}

impl View for RevisionList {
    const NAME: &'static str = "revisions";
    const JOINS: &'static [Projection] = &[Projection::Account, Projection::ThreadPage];
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (deleted, hidden) = (audience.moderates(), audience.sees_withheld());
        let (post, from, rows) = (self.post.0, self.listing.from().copied(), self.listing.rows());
        let fetched = match self.listing.direction() {
            Direction::Forward => revisions!(
                at,
                "and v.revision < coalesce($7, 2147483647) order by v.revision desc limit $8";
                post, deleted, hidden, from, rows
            ),
            Direction::Backward => {
                revisions!(
                    at,
                    "and v.revision > $7 order by v.revision limit $8";
                    post, deleted, hidden, from, rows
                )
            }
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let version = rows.first().map_or(0, |row| row.post_version);
        let paged = self.listing.page(rows, |row| row.revision);
        let mut shows = Shows::of(Projection::ThreadPage, self.post).and(Projection::ThreadPage, self.thread);
        paged.rows.iter().for_each(|row| shows.account(row.editor_id));
        let (list, links) = paged.list(Row::into_body);
        Ok(Page::new(version, &list, shows).with_links(links))
    }
}

impl Row {
    fn into_body(self) -> Revision {
        Revision {
            number: self.revision,
            format: named(&self.format).unwrap_or_default(),
            body: self.body,
            body_html: self.body_html,
            editor: AccountCard::new(self.editor_id, self.editor_username, self.editor_display_name),
            written_at: self.written_at,
            reason: self.reason,
        }
    }
}

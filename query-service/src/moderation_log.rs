//! What moderators did, the newest first.

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{CommunityId, Position};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    card::{AccountCard, ThreadCard},
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, List, Listing, PAGE},
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Audience, InModeration},
};

/// An act of a moderator, or of the community's owners.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Act {
    /// The event's name.
    #[schema(example = "thread.locked")]
    action: String,
    /// Who did it; null for a job, or a deleted account.
    actor: Option<AccountCard>,
    at: DateTime<Utc>,
    /// The thread that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<ThreadCard>,
    /// The post that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    post_id: Option<Uuid>,
    /// The account that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountCard>,
    /// The category that it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    category_id: Option<Uuid>,
    /// What the event said besides: `reason`, `until`, `role`, `title`, ….
    #[schema(value_type = Object, example = json!({"reason": "off topic"}))]
    detail: serde_json::Value,
}

/// Which page of the log.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Acts {
    /// Entries on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Acts {
    fn default() -> Self {
        Self { limit: PAGE, cursor: None }
    }
}

/// What moderators did, the newest first
///
/// For moderators and above.
#[utoipa::path(
    get, path = "/v2/communities/{c}/moderation-log", tag = "moderation", operation_id = "moderation_log",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta"), Acts),
    responses(
        (status = 200, description = "A page of it.", body = List<Act>),
        (status = 403, description = "It is for moderators."),
    ),
)]
pub(crate) async fn list(
    InModeration { community, reading }: InModeration,
    Query(query): Query<Acts>,
) -> Result<Response, Problem> {
    let path = format!("/v2/communities/{community}/moderation-log");
    let listing = Listing::new(path, &[], query.limit, query.cursor.as_deref())?;
    reading.show(ModerationLog { community, listing }).await
}

/// One page of the log, by position.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModerationLog {
    community: CommunityId,
    listing: Listing<Position>,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    position: Position,
    action: String,
    at: DateTime<Utc>,
    actor_id: Option<Uuid>,
    actor_username: Option<String>,
    actor_display_name: Option<String>,
    thread_id: Option<Uuid>,
    thread_title: Option<String>,
    post_id: Option<Uuid>,
    account_id: Option<Uuid>,
    account_username: Option<String>,
    account_display_name: Option<String>,
    category_id: Option<Uuid>,
    detail: Json<serde_json::Value>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// The log of community $4 from $5 on, $6 entries, in the direction given.
macro_rules! log {
    ($at:expr, $which:literal; $($more:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", l.position, l.action, l.at, l.actor_id,
                a.username as "actor_username?", a.display_name as "actor_display_name?",
                l.thread_id, t.title as "thread_title?", l.post_id, l.account_id,
                b.username as "account_username?", b.display_name as "account_display_name?", l.category_id,
                l.detail as "detail: Json<serde_json::Value>"
            from reflected($1, $2, $3) r
            cross join moderation_log l
            left join account a on a.account_id = l.actor_id
            left join account b on b.account_id = l.account_id
            left join thread t on t.thread_id = l.thread_id
            where l.community_id = $4 "# + $which,
            $at.joins, $at.shards, $at.line, $($more),*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

impl View for ModerationLog {
    const NAME: &'static str = "moderation_log";
    const JOINS: &'static [Projection] = &[Projection::Account, Projection::ModerationLog, Projection::ThreadList];
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (community, from, rows) = (self.community.0, self.listing.from().copied(), self.listing.rows());
        let fetched = match self.listing.direction() {
            Direction::Forward => log!(
                at,
                "and l.position < coalesce($5, 9223372036854775807) order by l.position desc limit $6";
                community, from, rows
            ),
            Direction::Backward => {
                log!(at, "and l.position > $5 order by l.position limit $6"; community, from, rows)
            }
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| row.position);
        let mut shows = Shows::of(Projection::ModerationLog, self.community);
        for row in &paged.rows {
            shows.account(row.actor_id);
            shows.account(row.account_id);
            // A thread's title.
            shows = row.thread_id.into_iter().fold(shows, |shows, thread| shows.and(Projection::ThreadList, thread));
        }
        let (list, links) = paged.list(Row::into_body);
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl Row {
    fn into_body(self) -> Act {
        let thread = self.thread_id.map(|id| ThreadCard { id, title: self.thread_title.unwrap_or_default() });
        Act {
            action: self.action,
            actor: AccountCard::new(self.actor_id, self.actor_username, self.actor_display_name),
            at: self.at,
            thread,
            post_id: self.post_id,
            account: AccountCard::new(self.account_id, self.account_username, self.account_display_name),
            category_id: self.category_id,
            detail: self.detail.0,
        }
    }
}

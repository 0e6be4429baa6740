//! Accounts: the page of one, where it belongs, and what it wrote and started, as far as the reader sees where.

pub(crate) mod communities;
pub(crate) mod posts;
pub(crate) mod threads;

pub(crate) use communities::AccountCommunities;
pub(crate) use posts::AccountPosts;
pub(crate) use threads::AccountThreads;

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId, Position};
use garde::Validate;
use platform::problem::Problem;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    failure::Failure,
    listing::{LONGEST_PAGE, PAGE},
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Horizon, OfAccount, Refusal},
};

/// An account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    id: Uuid,
    #[schema(example = "ada")]
    username: String,
    /// The name shown.
    #[schema(example = "Ada Lovelace")]
    display_name: String,
    /// What it says about itself, in Markdown.
    about: Option<String>,
    /// The same, to be shown: sanitised.
    about_html: Option<String>,
    location: Option<String>,
    website: Option<String>,
    /// Brought over from elsewhere: nobody can log in to it yet.
    imported: bool,
    created_at: DateTime<Utc>,
    /// Threads it started that are not deleted, in communities that the reader sees.
    threads: i64,
    /// Posts it wrote in such threads that are neither deleted nor hidden, opening posts included.
    posts: i64,
    /// For `If-Match` of commands to it.
    version: i64,
}

/// Which page of what an account did.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Newest {
    /// Items on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Newest {
    fn default() -> Self {
        Self { limit: PAGE, cursor: None }
    }
}

/// An account by itself
#[utoipa::path(
    get, path = "/v2/accounts/{account}", tag = "accounts", operation_id = "accounts_show",
    params(("account" = String, Path, description = "Its id or username, or `me`.", example = "ada")),
    responses((status = 200, description = "The account.", body = Account)),
)]
pub(crate) async fn show(OfAccount { account, reading }: OfAccount) -> Result<Response, Problem> {
    reading.show(AccountPage { account }).await
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AccountPage {
    account: AccountId,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    account_id: Uuid,
    username: String,
    display_name: String,
    about: Option<String>,
    about_html: Option<String>,
    location: Option<String>,
    website: Option<String>,
    imported: bool,
    created_at: DateTime<Utc>,
    version: i64,
    threads: i64,
    posts: i64,
    communities: Vec<Uuid>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

impl View for AccountPage {
    const NAME: &'static str = "account";
    const JOINS: &'static [Projection] = &[Projection::Account, Projection::Community, Projection::ThreadList];
    type Sight = Horizon;
    type Row = Row;

    async fn fetch(&self, horizon: &Horizon, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let rows = sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", a.account_id, a.username, a.display_name, a.about, a.about_html,
                a.location, a.website, a.imported, a.created_at, a.version, coalesce(n.threads, 0) as "threads!",
                coalesce(n.posts, 0) as "posts!", coalesce(n.communities, '{}') as "communities!"
            from reflected($1, $2, $3) r
            cross join account a
            cross join lateral (
                select sum(n.threads)::bigint as threads, sum(n.posts)::bigint as posts,
                    array_agg(n.community_id) as communities
                from account_count n
                join community c on c.community_id = n.community_id
                where n.account_id = a.account_id
                    and in_sight(c.community_id, c.visibility, $5, $6)
            ) n
            where a.account_id = $4"#,
            at.joins,
            at.shards,
            at.line,
            self.account.0,
            horizon.unbounded(),
            horizon.private()
        );
        Ok(rows.fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, _: &Horizon, rows: Vec<Row>) -> Result<Page, Problem> {
        let row = rows.into_iter().next().ok_or(Refusal::AccountNotFound)?;
        // Any community may begin to show itself.
        let mut shows = Shows::of(Projection::ThreadList, row.account_id).and_any(Projection::Community);
        shows.account(Some(row.account_id));
        shows.communities = row.communities.iter().copied().map(CommunityId).collect();
        Ok(Page::new(row.version, &row.into_body(), shows))
    }
}

impl Row {
    fn into_body(self) -> Account {
        Account {
            id: self.account_id,
            username: self.username,
            display_name: self.display_name,
            about: self.about,
            about_html: self.about_html,
            location: self.location,
            website: self.website,
            imported: self.imported,
            created_at: self.created_at,
            threads: self.threads,
            posts: self.posts,
            version: self.version,
        }
    }
}

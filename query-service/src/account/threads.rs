//! The threads that an account started, the newest first.

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId};
use platform::{extract::Query, problem::Problem};
use uuid::Uuid;

use super::Newest;
use crate::{
    cursor::Direction,
    failure::Failure,
    listing::{List, Listing},
    projection::Projection,
    thread_list::{self, Thread},
    view::{Page, Shows, Snapshot, View},
    visibility::{Horizon, OfAccount},
};

/// The threads that an account started, the newest first
///
/// Those that are deleted, or in communities that the reader does not see, are left out.
#[utoipa::path(
    get, path = "/v2/accounts/{account}/threads", tag = "accounts", operation_id = "accounts_threads",
    params(("account" = String, Path, description = "Its id or username, or `me`.", example = "ada"), Newest),
    responses((status = 200, description = "A page of its threads.", body = List<Thread>)),
)]
pub(crate) async fn list(
    OfAccount { account, reading }: OfAccount,
    Query(query): Query<Newest>,
) -> Result<Response, Problem> {
    let path = format!("/v2/accounts/{account}/threads");
    let listing = Listing::new(path, &[], query.limit, query.cursor.as_deref())?;
    reading.show(AccountThreads { account, listing }).await
}

/// One page of an account's threads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AccountThreads {
    account: AccountId,
    listing: Listing<(DateTime<Utc>, Uuid)>,
}

impl View for AccountThreads {
    const NAME: &'static str = "account_threads";
    const JOINS: &'static [Projection] = thread_list::JOINS;
    type Sight = Horizon;
    type Row = thread_list::Row;

    async fn fetch(&self, horizon: &Horizon, at: &mut Snapshot<'_>) -> Result<Vec<thread_list::Row>, Failure> {
        let (beyond, order) = match self.listing.direction() {
            Direction::Forward => ("<", "t.created_at desc, t.thread_id desc"),
            Direction::Backward => (">", "t.created_at, t.thread_id"),
        };
        let mut sql = thread_list::select(at);
        // Community by community: what is not seen is not read.
        sql.push("(select t.* from account_count n join community c on c.community_id = n.community_id");
        sql.push(" and in_sight(c.community_id, c.visibility, ").push_bind(horizon.unbounded());
        sql.push(", ").push_bind(horizon.private()).push(")");
        sql.push(" cross join lateral (select * from thread t where t.author_id = n.account_id");
        sql.push(" and t.community_id = n.community_id and not t.deleted");
        if let Some((time, id)) = self.listing.from() {
            sql.push(format_args!(" and (t.created_at, t.thread_id) {beyond} (")).push_bind(*time);
            sql.push(", ").push_bind(*id).push(")");
        }
        sql.push(format_args!(" order by {order} limit ")).push_bind(self.listing.rows()).push(") t");
        sql.push(" where n.account_id = ").push_bind(self.account.0);
        sql.push(format_args!(" order by {order} limit ")).push_bind(self.listing.rows()).push(") ");
        sql.push(thread_list::JOIN).push(format_args!(" order by {order}"));
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, _: &Horizon, rows: Vec<thread_list::Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.created_at, row.thread_id()));
        // Any community may begin to show itself.
        let mut shows = Shows::of(Projection::ThreadList, self.account).and_any(Projection::Community);
        for row in &paged.rows {
            shows = row.show(shows).and(Projection::ThreadList, row.thread_id());
            shows.communities.push(CommunityId(row.community_id()));
        }
        let (list, links) = paged.list(thread_list::Row::into_body);
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

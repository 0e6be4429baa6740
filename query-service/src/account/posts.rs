//! What an account wrote, the newest first.

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
    thread_page::{Post, PostRow, select_posts},
    view::{Page, Shows, Snapshot, View},
    visibility::{Horizon, OfAccount},
};

/// What an account wrote, the newest first
///
/// Posts that are deleted or hidden, in deleted threads, or in communities that the reader does not see are left out.
#[utoipa::path(
    get, path = "/v2/accounts/{account}/posts", tag = "accounts", operation_id = "accounts_posts",
    params(("account" = String, Path, description = "Its id or username, or `me`.", example = "ada"), Newest),
    responses((status = 200, description = "A page of its posts.", body = List<Post>)),
)]
pub(crate) async fn list(
    OfAccount { account, reading }: OfAccount,
    Query(query): Query<Newest>,
) -> Result<Response, Problem> {
    let path = format!("/v2/accounts/{account}/posts");
    let listing = Listing::new(path, &[], query.limit, query.cursor.as_deref())?;
    reading.show(AccountPosts { account, listing }).await
}

/// One page of an account's posts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AccountPosts {
    account: AccountId,
    listing: Listing<(DateTime<Utc>, Uuid)>,
}

impl View for AccountPosts {
    const NAME: &'static str = "account_posts";
    const JOINS: &'static [Projection] =
        &[Projection::Account, Projection::Community, Projection::ThreadList, Projection::ThreadPage];
    type Sight = Horizon;
    type Row = PostRow;

    async fn fetch(&self, horizon: &Horizon, at: &mut Snapshot<'_>) -> Result<Vec<PostRow>, Failure> {
        let (account, all, private) = (self.account.0, horizon.unbounded(), horizon.private());
        let (time, id) = self.listing.from().copied().unzip();
        // Community by community, as what is not seen is not read then; and a thread is looked up post by post, as a join
        // would read all that an account wrote where the planner takes that for little.
        let fetched = match self.listing.direction() {
            Direction::Forward => select_posts!(
                at, false, in_community,
                "join (
                    select w.post_id from account_count n
                    join community s on s.community_id = n.community_id and in_sight(s.community_id, s.visibility, $6, $7)
                    cross join lateral (
                        select p.post_id, p.created_at from post p
                        where p.author_id = n.account_id and p.community_id = n.community_id
                            and not p.deleted and not p.hidden
                            and not (select t.deleted from thread t where t.thread_id = p.thread_id)
                            and (p.created_at, p.post_id) < (
                                coalesce($8, 'infinity'::timestamptz),
                                coalesce($9, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
                            )
                        order by p.created_at desc, p.post_id desc limit $10
                    ) w
                    where n.account_id = $5
                    order by w.created_at desc, w.post_id desc limit $10
                ) picked on picked.post_id = p.post_id
                order by p.created_at desc, p.post_id desc";
                account, all, private, time, id, self.listing.rows()
            ),
            Direction::Backward => select_posts!(
                at, false, in_community,
                "join (
                    select w.post_id from account_count n
                    join community s on s.community_id = n.community_id and in_sight(s.community_id, s.visibility, $6, $7)
                    cross join lateral (
                        select p.post_id, p.created_at from post p
                        where p.author_id = n.account_id and p.community_id = n.community_id
                            and not p.deleted and not p.hidden
                            and not (select t.deleted from thread t where t.thread_id = p.thread_id)
                            and (p.created_at, p.post_id) > ($8, $9)
                        order by p.created_at, p.post_id limit $10
                    ) w
                    where n.account_id = $5
                    order by w.created_at, w.post_id limit $10
                ) picked on picked.post_id = p.post_id
                order by p.created_at, p.post_id";
                account, all, private, time, id, self.listing.rows()
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Horizon, rows: Vec<PostRow>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.created_at, row.post_id));
        let account = self.account;
        // Any community may begin to show itself.
        let mut shows = Shows::of(Projection::ThreadPage, account)
            .and(Projection::ThreadList, account)
            .and_any(Projection::Community);
        shows.account(Some(account.0));
        for row in &paged.rows {
            shows = shows.and(Projection::ThreadList, row.thread_id).and(Projection::ThreadPage, row.post_id);
            shows.communities.push(CommunityId(row.community_id));
        }
        let (list, links) = paged.list(PostRow::into_body);
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

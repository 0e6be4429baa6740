//! Who belongs to a community.

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId, Position, membership::Role};
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
    visibility::{AtMember, Audience, InCommunity},
};

/// What is between an account and a community.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Member {
    account: AccountCard,
    /// `member`, `invited` or `none`; the latter two are shown to moderators and to the account itself only.
    #[schema(example = "member")]
    status: String,
    /// What it may do, ownership included.
    role: Role,
    /// Null where it is no member.
    joined_at: Option<DateTime<Utc>>,
    /// For `If-Match` of commands to it.
    version: i64,
    /// Shown to moderators and to the account itself only.
    #[serde(skip_serializing_if = "Option::is_none")]
    sanctions: Option<Sanctions>,
}

/// What a member may not.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sanctions {
    /// May not take part.
    banned: bool,
    /// Null where it is not banned, or for good.
    banned_until: Option<DateTime<Utc>>,
    ban_reason: Option<String>,
    /// May read but not write until then; null where it is not silenced.
    silenced_until: Option<DateTime<Utc>>,
    silence_reason: Option<String>,
}

/// How members are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// The highest role first, then the newest account.
    #[default]
    Role,
    /// By username, ignoring case. An account whose name is not in the read tables yet is left out until it is.
    Name,
}

/// Which page of the members.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Members {
    /// How they are sorted.
    #[garde(skip)]
    #[param(inline)]
    sort: Sort,
    /// Members on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Members {
    fn default() -> Self {
        Self { sort: Sort::default(), limit: PAGE, cursor: None }
    }
}

/// The members of a community
#[utoipa::path(
    get, path = "/v2/communities/{c}/members", tag = "members", operation_id = "members_list",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta"), Members),
    responses((status = 200, description = "A page of them.", body = List<Member>)),
)]
pub(crate) async fn list(
    InCommunity { community, reading, .. }: InCommunity,
    Query(query): Query<Members>,
) -> Result<Response, Problem> {
    let path = format!("/v2/communities/{community}/members");
    let cursor = query.cursor.as_deref();
    match query.sort {
        Sort::Role => {
            let listing = Listing::new(path, &[("sort", Some("role"))], query.limit, cursor)?;
            reading.show(MembersByRole { community, listing }).await
        }
        Sort::Name => {
            let listing = Listing::new(path, &[("sort", Some("name"))], query.limit, cursor)?;
            reading.show(MembersByName { community, listing }).await
        }
    }
}

/// What is between an account and a community
///
/// Of an account that is no member, moderators and the account itself are told; to others it is not found.
#[utoipa::path(
    get, path = "/v2/communities/{c}/members/{account}", tag = "members", operation_id = "members_show",
    params(
        ("c" = String, Path, description = "The community's id or slug.", example = "french-meta"),
        ("account" = String, Path, description = "The account's id or username, or `me`.", example = "ada"),
    ),
    responses((status = 200, description = "The membership.", body = Member)),
)]
pub(crate) async fn show(AtMember { community, account, reading }: AtMember) -> Result<Response, Problem> {
    reading.show(Membership { community, account }).await
}

/// One page of the members, the highest role first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembersByRole {
    community: CommunityId,
    listing: Listing<(i16, Uuid)>,
}

/// One page of the members, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembersByName {
    community: CommunityId,
    listing: Listing<(String, Uuid)>,
}

/// One membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    community: CommunityId,
    account: AccountId,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    account_id: Uuid,
    username: Option<String>,
    display_name: Option<String>,
    folded_username: Option<String>,
    status: String,
    role: String,
    rank: i16,
    joined_at: Option<DateTime<Utc>>,
    banned: bool,
    banned_until: Option<DateTime<Utc>>,
    ban_reason: Option<String>,
    silenced_until: Option<DateTime<Utc>>,
    silence_reason: Option<String>,
    version: i64,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// The members of community $4 that `$which` tells, in its order.
macro_rules! members {
    ($at:expr, $which:literal; $community:expr $(, $more:expr)*) => {
        sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", m.account_id, a.username as "username?",
                a.display_name as "display_name?", lower(a.username) as "folded_username?", m.status, m.role, m.rank,
                m.joined_at, m.banned, m.banned_until, m.ban_reason, m.silenced_until, m.silence_reason, m.version
            from reflected($1, $2, $3) r
            cross join member m
            left join account a on a.account_id = m.account_id
            where m.community_id = $4 "# + $which,
            $at.joins, $at.shards, $at.line, $community.0 $(, $more)*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

const JOINS: &[Projection] = &[Projection::Account, Projection::Membership];

impl View for MembersByRole {
    const NAME: &'static str = "members_by_role";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (rank, id) = self.listing.from().copied().unzip();
        let fetched = match self.listing.direction() {
            Direction::Forward => members!(
                at,
                "and m.status = 'member'
                    and (m.rank, m.account_id)
                        < (coalesce($5, 32767::smallint), coalesce($6, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
                order by m.rank desc, m.account_id desc limit $7";
                self.community, rank, id, self.listing.rows()
            ),
            Direction::Backward => members!(
                at,
                "and m.status = 'member' and (m.rank, m.account_id) > ($5, $6)
                order by m.rank, m.account_id limit $7";
                self.community, rank, id, self.listing.rows()
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, audience: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.rank, row.account_id));
        let shows = shows(self.community, &paged.rows);
        let (list, links) = paged.list(|row| row.into_body(*audience));
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl View for MembersByName {
    const NAME: &'static str = "members_by_name";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (name, id) = self.listing.from().map(|(name, id)| (name.as_str(), *id)).unzip();
        let fetched = match self.listing.direction() {
            Direction::Forward => members!(
                at,
                "and m.status = 'member' and lower(a.username) >= coalesce($5, '')
                    and (lower(a.username), m.account_id)
                        > (coalesce($5, ''), coalesce($6, '00000000-0000-0000-0000-000000000000'::uuid))
                order by lower(a.username), m.account_id limit $7";
                self.community, name, id, self.listing.rows()
            ),
            Direction::Backward => members!(
                at,
                "and m.status = 'member' and lower(a.username) <= $5
                    and (lower(a.username), m.account_id) < ($5, $6)
                order by lower(a.username) desc, m.account_id desc limit $7";
                self.community, name, id, self.listing.rows()
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, audience: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.folded_username.clone().unwrap_or_default(), row.account_id));
        // Any account's new name may bring it to this page.
        let shows = shows(self.community, &paged.rows).and_any(Projection::Account);
        let (list, links) = paged.list(|row| row.into_body(*audience));
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl View for Membership {
    const NAME: &'static str = "membership";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let fetched = members!(
            at,
            "and m.account_id = $5 and (m.status = 'member' or $6)";
            self.community, self.account.0, audience.sees_withheld()
        );
        Ok(fetched?)
    }

    fn page(&self, audience: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let shows = shows(self.community, &rows);
        let row = rows.into_iter().next().ok_or_else(member_not_found)?;
        Ok(Page::new(row.version, &row.into_body(*audience), shows))
    }
}

fn member_not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "member-not-found", "The account is no member of this community.")
}

fn shows(community: CommunityId, rows: &[Row]) -> Shows {
    let mut shows = Shows::of(Projection::Membership, community);
    for row in rows {
        shows.account(Some(row.account_id));
    }
    shows
}

impl Row {
    fn into_body(self, audience: Audience) -> Member {
        let sanctions = audience.sees_withheld().then_some(Sanctions {
            banned: self.banned,
            banned_until: self.banned_until,
            ban_reason: self.ban_reason,
            silenced_until: self.silenced_until,
            silence_reason: self.silence_reason,
        });
        Member {
            account: AccountCard { id: self.account_id, username: self.username, display_name: self.display_name },
            status: self.status,
            role: named(&self.role).unwrap_or_default(),
            joined_at: self.joined_at,
            version: self.version,
            sanctions,
        }
    }
}

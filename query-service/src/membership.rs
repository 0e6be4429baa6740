//! Who belongs to a community.

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId, Position, membership::Role};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Postgres, QueryBuilder};
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
    /// What it may do, ownership included; null where it is no member.
    role: Option<Role>,
    /// Null where it is no member.
    joined_at: Option<DateTime<Utc>>,
    /// For `If-Match` of commands to it.
    version: i64,
    /// Shown to moderators and to the account itself only.
    #[serde(skip_serializing_if = "Option::is_none")]
    sanctions: Option<Sanctions>,
}

/// What an account may not, now: what is over is not shown.
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

/// Which accounts are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// The members.
    #[default]
    Joined,
    /// Who was invited, and has not joined.
    Invited,
    /// Who may not take part, member or not.
    Banned,
    /// Who may read but not write.
    Silenced,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Invited => "invited",
            Self::Banned => "banned",
            Self::Silenced => "silenced",
        }
    }

    /// In SQL, as an index has it.
    const fn condition(self) -> &'static str {
        match self {
            Self::Joined => " and m.status = 'member'",
            Self::Invited => " and m.status = 'invited'",
            Self::Banned => " and m.banned and (m.banned_until is null or m.banned_until > now())",
            Self::Silenced => " and m.silenced_until > now()",
        }
    }
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

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::Name => "name",
        }
    }
}

/// A role's name, and its rank in the read tables.
const fn ranked(role: Role) -> (&'static str, i16) {
    match role {
        Role::Member => ("member", 0),
        Role::Moderator => ("moderator", 1),
        Role::Admin => ("admin", 2),
        Role::Owner => ("owner", 3),
    }
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
    /// Which accounts: all but `joined`, which stands unless told, for moderators.
    #[garde(skip)]
    #[param(inline)]
    status: Status,
    /// Only members of this role.
    #[garde(skip)]
    #[param(inline)]
    role: Option<Role>,
    /// Members on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Members {
    fn default() -> Self {
        Self { sort: Sort::default(), status: Status::default(), role: None, limit: PAGE, cursor: None }
    }
}

/// The members of a community
///
/// Moderators list who was invited, is banned or is silenced, too.
#[utoipa::path(
    get, path = "/v2/communities/{c}/members", tag = "members", operation_id = "members_list",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta"), Members),
    responses(
        (status = 200, description = "A page of them.", body = List<Member>),
        (status = 403, description = "All but those who joined are listed for moderators."),
    ),
)]
pub(crate) async fn list(place: InCommunity, Query(query): Query<Members>) -> Result<Response, Problem> {
    let Members { sort, status, role, limit, cursor } = query;
    let InCommunity { community, reading, .. } = if status == Status::Joined { place } else { place.moderated()? };
    let path = format!("/v2/communities/{community}/members");
    let filters = [
        ("sort", Some(sort.name())),
        ("status", (status != Status::Joined).then(|| status.name())),
        ("role", role.map(|role| ranked(role).0)),
    ];
    let of = Listed { community, status, role };
    match sort {
        Sort::Role => {
            let listing = Listing::new(path, &filters, limit, cursor.as_deref())?;
            reading.show(MembersByRole { of, listing }).await
        }
        Sort::Name => {
            let listing = Listing::new(path, &filters, limit, cursor.as_deref())?;
            reading.show(MembersByName { of, listing }).await
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

/// Whom a list is of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Listed {
    community: CommunityId,
    status: Status,
    role: Option<Role>,
}

/// One page of the members, the highest role first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembersByRole {
    of: Listed,
    listing: Listing<(i16, Uuid)>,
}

/// One page of the members, by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MembersByName {
    of: Listed,
    listing: Listing<(String, Uuid)>,
}

/// One membership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    community: CommunityId,
    account: AccountId,
}

/// Sanctions as they are in force now.
#[derive(FromRow)]
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

const SELECT: &str = "select r.positions, m.account_id, a.username, a.display_name, lower(a.username) as folded_username,
    m.status, m.role, m.rank, m.joined_at, b.banned, case when b.banned then m.banned_until end as banned_until,
    case when b.banned then m.ban_reason end as ban_reason, case when b.silenced then m.silenced_until end as silenced_until,
    case when b.silenced then m.silence_reason end as silence_reason, m.version
from reflected(";

const FROM: &str = ") r
cross join member m
cross join lateral (
    select m.banned and (m.banned_until is null or m.banned_until > now()) as banned, m.silenced_until > now() as silenced
) b
left join account a on a.account_id = m.account_id
where m.community_id = ";

/// Begins a statement of [`Row`]s of one community.
fn select<'c>(at: &Snapshot<'c>, community: CommunityId) -> QueryBuilder<'c, Postgres> {
    let mut sql = QueryBuilder::new(SELECT);
    sql.push_bind(at.joins).push(", ").push_bind(at.shards).push(", ").push_bind(at.line);
    sql.push(FROM).push_bind(community.0);
    sql
}

impl Listed {
    fn select<'c>(&self, at: &Snapshot<'c>) -> QueryBuilder<'c, Postgres> {
        let mut sql = select(at, self.community);
        sql.push(self.status.condition());
        if let Some(role) = self.role {
            // Of who is no member a role is kept, and not shown.
            sql.push(" and m.status = 'member' and m.rank = ").push_bind(ranked(role).1);
        }
        sql
    }
}

const JOINS: &[Projection] = &[Projection::Account, Projection::Membership];

impl View for MembersByRole {
    const NAME: &'static str = "members_by_role";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (beyond, order) = match self.listing.direction() {
            Direction::Forward => ("<", "m.rank desc, m.account_id desc"),
            Direction::Backward => (">", "m.rank, m.account_id"),
        };
        let mut sql = self.of.select(at);
        if let Some((rank, id)) = self.listing.from() {
            sql.push(format_args!(" and (m.rank, m.account_id) {beyond} (")).push_bind(*rank);
            sql.push(", ").push_bind(*id).push(")");
        }
        sql.push(format_args!(" order by {order} limit ")).push_bind(self.listing.rows());
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, audience: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.rank, row.account_id));
        let shows = shows(self.of.community, &paged.rows);
        let (list, links) = paged.list(|row| row.into_body(*audience));
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl View for MembersByName {
    const NAME: &'static str = "members_by_name";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    fn in_steps(&self) -> bool {
        self.of.role.is_some()
    }

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (beyond, order) = match self.listing.direction() {
            Direction::Forward => (">", "lower(a.username), m.account_id"),
            Direction::Backward => ("<", "lower(a.username) desc, m.account_id desc"),
        };
        if self.in_steps() {
            at.plan_by_value().await?;
        }
        let mut sql = self.of.select(at);
        sql.push(" and a.username is not null");
        if let Some((name, id)) = self.listing.from() {
            // By itself the first part leads to the index.
            sql.push(format_args!(" and lower(a.username) {beyond}= ")).push_bind(name.clone());
            sql.push(format_args!(" and (lower(a.username), m.account_id) {beyond} (")).push_bind(name.clone());
            sql.push(", ").push_bind(*id).push(")");
        }
        sql.push(format_args!(" order by {order} limit ")).push_bind(self.listing.rows());
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, audience: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.folded_username.clone().unwrap_or_default(), row.account_id));
        // Any account's new name may bring it to this page.
        let shows = shows(self.of.community, &paged.rows).and_any(Projection::Account);
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
        let mut sql = select(at, self.community);
        sql.push(" and m.account_id = ").push_bind(self.account.0);
        if !audience.sees_withheld() {
            sql.push(Status::Joined.condition());
        }
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
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
        shows.over(row.banned_until);
        shows.over(row.silenced_until);
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
            role: (self.status == "member").then(|| named(&self.role).unwrap_or_default()),
            status: self.status,
            joined_at: self.joined_at,
            version: self.version,
            sanctions,
        }
    }
}

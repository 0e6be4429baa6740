//! The communities that an account belongs to, by name.

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{AccountId, CommunityId, Position, community::Visibility, membership::Role};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, List, Listing, PAGE},
    projection::{Projection, named},
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{Belonging, BelongingOf},
};

/// A community that an account belongs to or is invited to, and what it is there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommunityOfAccount {
    community: BelongingTo,
    /// Invitations are shown to the account itself only.
    status: Status,
    /// What it may do, ownership included; null where it is no member.
    role: Option<Role>,
    /// Null where it is no member; and for an owner who never joined, as who made the community.
    joined_at: Option<DateTime<Utc>>,
}

/// A community, as it stands beside what an account is there.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BelongingTo {
    id: Uuid,
    /// Its name in addresses.
    #[schema(example = "french-meta")]
    slug: String,
    #[schema(example = "French Language Meta")]
    name: String,
    /// Who reads and who posts.
    visibility: Visibility,
}

/// What an account is to a community that it has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BelongingStatus)]
pub(crate) enum Status {
    /// Belongs to it.
    Member,
    /// Was invited, and has not joined.
    Invited,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Invited => "invited",
        }
    }
}

/// Which page of the communities of an account.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Communities {
    /// Only where it is that. Unless told, the account itself is shown both, and others where it is a member.
    #[garde(skip)]
    #[param(inline)]
    status: Option<Status>,
    /// Items on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Communities {
    fn default() -> Self {
        Self { status: None, limit: PAGE, cursor: None }
    }
}

/// The communities that an account belongs to, by name
///
/// Those that the reader does not see are left out. The account itself is shown its invitations too, those of private
/// communities included.
#[utoipa::path(
    get, path = "/v2/accounts/{account}/communities", tag = "accounts", operation_id = "accounts_communities",
    params(("account" = String, Path, description = "Its id or username, or `me`.", example = "ada"), Communities),
    responses(
        (status = 200, description = "A page of them.", body = List<CommunityOfAccount>),
        (
            status = 403, description = "Invitations are shown to the account itself.", body = Problem,
            content_type = "application/problem+json",
            example = json!({
                "type": "/problems/not-yourself", "title": "Not yourself", "status": 403,
                "detail": "Invitations are shown to the account itself.",
            }),
        ),
    ),
)]
pub(crate) async fn list(belonging: BelongingOf, Query(query): Query<Communities>) -> Result<Response, Problem> {
    let Communities { status, limit, cursor } = query;
    let invitations = status == Some(Status::Invited);
    let BelongingOf { account, reading, .. } = if invitations { belonging.with_invitations()? } else { belonging };
    let path = format!("/v2/accounts/{account}/communities");
    let listing = Listing::new(path, &[("status", status.map(Status::name))], limit, cursor.as_deref())?;
    reading.show(AccountCommunities { account, status, listing }).await
}

/// One page of an account's communities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AccountCommunities {
    account: AccountId,
    status: Option<Status>,
    listing: Listing<(String, Uuid)>,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    community_id: Uuid,
    slug: String,
    name: String,
    folded_name: String,
    visibility: String,
    status: String,
    role: String,
    joined_at: Option<DateTime<Utc>>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// The communities of account $4 where it is $5, of those in sight, which and in which order `$page` says. Materialized:
/// they are few beside all communities, through which the planner would else go by name.
macro_rules! communities {
    ($at:expr, $page:literal; $($more:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"with belonging as materialized (
                select c.community_id, c.slug, c.name, lower(c.name) as folded_name, c.visibility, m.status, m.role,
                    m.joined_at
                from member m
                join community c on c.community_id = m.community_id
                where m.account_id = $4 and ($5::text is null or m.status = $5)
                    and (m.status = 'member' or m.status = 'invited' and m.community_id = any ($6))
                    and in_sight(c.community_id, c.visibility, $7, $8)
            )
            select r.positions as "positions!", b.community_id as "community_id!", b.slug as "slug!",
                b.name as "name!", b.folded_name as "folded_name!", b.visibility as "visibility!",
                b.status as "status!", b.role as "role!", b.joined_at
            from reflected($1, $2, $3) r
            cross join belonging b
            where "# + $page,
            $at.joins, $at.shards, $at.line, $($more),*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

impl View for AccountCommunities {
    const NAME: &'static str = "account_communities";
    const JOINS: &'static [Projection] = &[Projection::Community, Projection::Membership];
    type Sight = Belonging;
    type Row = Row;

    async fn fetch(&self, belonging: &Belonging, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (account, status) = (self.account.0, self.status.map(Status::name));
        let (all, private) = (belonging.horizon().unbounded(), belonging.horizon().private());
        let (name, id) = self.listing.from().map(|(name, id)| (&**name, *id)).unzip();
        let rows = self.listing.rows();
        let fetched = match self.listing.direction() {
            Direction::Forward => communities!(
                at,
                "(b.folded_name, b.community_id)
                    > (coalesce($9, ''), coalesce($10, '00000000-0000-0000-0000-000000000000'::uuid))
                order by b.folded_name, b.community_id limit $11";
                account, status, belonging.invitations(), all, private, name, id, rows
            ),
            Direction::Backward => communities!(
                at,
                "(b.folded_name, b.community_id) < ($9, $10)
                order by b.folded_name desc, b.community_id desc limit $11";
                account, status, belonging.invitations(), all, private, name, id, rows
            ),
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Belonging, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.folded_name.clone(), row.community_id));
        // Any community may begin to show itself, or come to this page by a new name.
        let mut shows = Shows::of(Projection::Membership, self.account).and_any(Projection::Community);
        shows.communities = paged.rows.iter().map(|row| CommunityId(row.community_id)).collect();
        let (list, links) = paged.list(Row::into_body);
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl Row {
    fn into_body(self) -> CommunityOfAccount {
        let member = self.status == Status::Member.name();
        CommunityOfAccount {
            community: BelongingTo {
                id: self.community_id,
                slug: self.slug,
                name: self.name,
                visibility: named(&self.visibility).unwrap_or(Visibility::Private),
            },
            status: if member { Status::Member } else { Status::Invited },
            role: member.then(|| named(&self.role).unwrap_or_default()),
            joined_at: self.joined_at,
        }
    }
}

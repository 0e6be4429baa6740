//! Communities: the list of them, and one by itself.

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{CommunityId, Position, community::Visibility, membership::Role};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    card::AccountCard,
    cursor::Direction,
    failure::Failure,
    listing::{LONGEST_PAGE, List, Listing, PAGE},
    projection::{Projection, named},
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{AtCommunity, Audience, Everywhere, Horizon, Refusal, Standing},
};

/// A community.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Community {
    id: Uuid,
    /// Its name in addresses.
    #[schema(example = "french-meta")]
    slug: String,
    #[schema(example = "French Language Meta")]
    name: String,
    description: String,
    /// Who reads and who posts.
    visibility: Visibility,
    /// `active`, or read-only: `suspended` or `archived`.
    #[schema(example = "active")]
    status: String,
    /// The kinds of reaction it allows besides `up`, `down` and `like`.
    reactions: Vec<String>,
    created_at: DateTime<Utc>,
    /// Who belongs to it; those who are banned have not left.
    members: i64,
    /// Threads that are not deleted.
    threads: i64,
    /// Posts in them that are neither deleted nor hidden, opening posts included.
    posts: i64,
    /// When the newest post was written; null before the first.
    last_activity_at: Option<DateTime<Utc>>,
    /// For `If-Match` of commands to it.
    version: i64,
    /// Who answers for it; in the community's own page only.
    #[serde(skip_serializing_if = "Option::is_none")]
    owners: Option<Vec<AccountCard>>,
    /// What the reader is here; in the community's own page, and missing for a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    mine: Option<OwnStanding>,
}

/// What a reader is in a community.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnStanding {
    /// Null where the reader is no member, or banned.
    role: Option<Role>,
    /// Who is `invited` to a private community sees this page before it joins, and nothing of what is in it.
    status: Standing,
}

/// How communities are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// The newest post first; communities without one last.
    #[default]
    Activity,
    /// The newest community first.
    New,
    /// By name, ignoring case.
    Name,
}

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::New => "new",
            Self::Name => "name",
        }
    }
}

/// Which page of the communities.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Communities {
    /// How they are sorted.
    #[garde(skip)]
    #[param(inline)]
    sort: Sort,
    /// Communities on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Communities {
    fn default() -> Self {
        Self { sort: Sort::default(), limit: PAGE, cursor: None }
    }
}

/// The communities that the reader sees
#[utoipa::path(
    get, path = "/v2/communities", tag = "communities", operation_id = "communities_list", params(Communities),
    responses((status = 200, description = "A page of them.", body = List<Community>)),
)]
pub(crate) async fn list(
    Everywhere { reading }: Everywhere,
    Query(query): Query<Communities>,
) -> Result<Response, Problem> {
    let filters = [("sort", Some(query.sort.name()))];
    let listing = Listing::new("/v2/communities".to_owned(), &filters, query.limit, query.cursor.as_deref())?;
    let listing = listing.of_keys(|(time, name, _): &Key| match query.sort {
        Sort::Activity => name.is_none(),
        Sort::New => time.is_some() && name.is_none(),
        Sort::Name => time.is_none() && name.is_some(),
    })?;
    reading.show(CommunityList { sort: query.sort, listing }).await
}

/// A community by itself
///
/// `mine` tells a reader who is logged in what it is here.
#[utoipa::path(
    get, path = "/v2/communities/{c}", tag = "communities", operation_id = "communities_show",
    params(("c" = String, Path, description = "Its id or slug.", example = "french-meta")),
    responses((status = 200, description = "The community.", body = Community)),
)]
pub(crate) async fn show(AtCommunity { community, role, standing, reading }: AtCommunity) -> Result<Response, Problem> {
    reading.show_with(CommunityPage { community }, &OwnStanding { role, status: standing }).await
}

/// One page of the list. A place in it: what it is sorted by, as text, and the id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommunityList {
    sort: Sort,
    listing: Listing<Key>,
}

/// What a community is sorted by: one of both, or neither for one without activity; and its id.
type Key = (Option<DateTime<Utc>>, Option<String>, Uuid);

pub(crate) struct Row {
    positions: Vec<Position>,
    community_id: Uuid,
    slug: String,
    name: String,
    folded_name: String,
    description: String,
    visibility: String,
    status: String,
    reactions: Json<Vec<String>>,
    created_at: DateTime<Utc>,
    version: i64,
    members: i64,
    threads: i64,
    posts: i64,
    last_activity_at: Option<DateTime<Utc>>,
    owners: Json<Vec<Uuid>>,
    owner_usernames: Option<Vec<Option<String>>>,
    owner_display_names: Option<Vec<Option<String>>>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

/// Communities with their counts: those that `$from` picks as `picked`, in the order that `$order` gives. Of owners,
/// names are looked up where `$owners` says so.
macro_rules! communities {
    ($at:expr, $from:literal, $order:literal, $owners:literal; $($more:expr),*) => {
        sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", c.community_id, c.slug, c.name, lower(c.name) as "folded_name!",
                c.description, c.visibility, c.status, c.reactions as "reactions: Json<Vec<String>>", c.created_at,
                c.version, coalesce(m.members, 0) as "members!", coalesce(n.threads, 0) as "threads!",
                coalesce(n.posts, 0) as "posts!", n.last_activity_at as "last_activity_at?",
                c.owners as "owners: Json<Vec<Uuid>>", o.usernames as "owner_usernames?: Vec<Option<String>>",
                o.display_names as "owner_display_names?: Vec<Option<String>>"
            from reflected($1, $2, $3) r
            cross join lateral ("# + $from + r#") picked
            join community c on c.community_id = picked.community_id
            left join member_count m on m.community_id = c.community_id
            left join community_count n on n.community_id = c.community_id
            left join lateral (
                select array_agg(a.username order by k.n) as usernames,
                    array_agg(a.display_name order by k.n) as display_names
                from jsonb_array_elements_text(c.owners) with ordinality k (id, n)
                left join account a on a.account_id = k.id::uuid
                where "# + $owners + r#"
            ) o on true
            "# + $order,
            $at.joins, $at.shards, $at.line, $($more),*
        )
        .fetch_all(&mut *$at.connection)
        .await
    };
}

impl View for CommunityList {
    const NAME: &'static str = "community_list";
    const JOINS: &'static [Projection] = &[Projection::Community, Projection::Membership, Projection::ThreadList];
    type Sight = Horizon;
    type Row = Row;

    async fn fetch(&self, horizon: &Horizon, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let (private, all) = (horizon.private(), horizon.unbounded());
        let rows = self.listing.rows();
        let (time, name, id) = match self.listing.from() {
            Some((time, name, id)) => (*time, name.as_deref(), Some(*id)),
            None => (None, None, None),
        };
        let fetched = match (self.sort, self.listing.direction()) {
            (Sort::New, Direction::Forward) => communities!(
                at,
                "select c.community_id from community c
                where in_sight(c.community_id, c.visibility, $4, $5)
                    and (c.created_at, c.community_id)
                        < (coalesce($6, 'infinity'::timestamptz), coalesce($7, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
                order by c.created_at desc, c.community_id desc limit $8",
                "order by c.created_at desc, c.community_id desc", "false";
                all, private, time, id, rows
            ),
            (Sort::New, Direction::Backward) => communities!(
                at,
                "select c.community_id from community c
                where in_sight(c.community_id, c.visibility, $4, $5)
                    and (c.created_at, c.community_id) > ($6, $7)
                order by c.created_at, c.community_id limit $8",
                "order by c.created_at, c.community_id", "false";
                all, private, time, id, rows
            ),
            (Sort::Name, Direction::Forward) => communities!(
                at,
                "select c.community_id from community c
                where in_sight(c.community_id, c.visibility, $4, $5)
                    and (lower(c.name), c.community_id)
                        > (coalesce($6, ''), coalesce($7, '00000000-0000-0000-0000-000000000000'::uuid))
                order by lower(c.name), c.community_id limit $8",
                "order by lower(c.name), c.community_id", "false";
                all, private, name, id, rows
            ),
            (Sort::Name, Direction::Backward) => communities!(
                at,
                "select c.community_id from community c
                where in_sight(c.community_id, c.visibility, $4, $5)
                    and (lower(c.name), c.community_id) < ($6, $7)
                order by lower(c.name) desc, c.community_id desc limit $8",
                "order by lower(c.name) desc, c.community_id desc", "false";
                all, private, name, id, rows
            ),
            // First those with activity, by their index; then the silent ones, by id.
            (Sort::Activity, Direction::Forward) => {
                let silent = id.is_some() && time.is_none();
                communities!(
                    at,
                    "(select n.community_id from community_count n join community c on c.community_id = n.community_id
                    where in_sight(c.community_id, c.visibility, $4, $5)
                        and not $9 and n.last_activity_at is not null
                        and (n.last_activity_at, n.community_id)
                            < (coalesce($6, 'infinity'::timestamptz), coalesce($7, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid))
                    order by n.last_activity_at desc, n.community_id desc limit $8)
                    union all
                    (select c.community_id from community c
                        left join community_count n on n.community_id = c.community_id
                    where in_sight(c.community_id, c.visibility, $4, $5)
                        and n.last_activity_at is null and (not $9 or c.community_id < $7)
                    order by c.community_id desc limit $8)
                    limit $8",
                    "order by n.last_activity_at desc nulls last, c.community_id desc", "false";
                    all, private, time, id, rows, silent
                )
            }
            (Sort::Activity, Direction::Backward) => {
                let silent = time.is_none();
                communities!(
                    at,
                    "(select c.community_id from community c
                        left join community_count n on n.community_id = c.community_id
                    where in_sight(c.community_id, c.visibility, $4, $5)
                        and n.last_activity_at is null and $9 and c.community_id > $7
                    order by c.community_id limit $8)
                    union all
                    (select n.community_id from community_count n join community c on c.community_id = n.community_id
                    where in_sight(c.community_id, c.visibility, $4, $5)
                        and n.last_activity_at is not null
                        and ($9 or (n.last_activity_at, n.community_id) > ($6, $7))
                    order by n.last_activity_at, n.community_id limit $8)
                    limit $8",
                    "order by n.last_activity_at nulls first, c.community_id", "false";
                    all, private, time, id, rows, silent
                )
            }
        };
        Ok(fetched?)
    }

    fn page(&self, _: &Horizon, rows: Vec<Row>) -> Result<Page, Problem> {
        let key = |row: &Row| match self.sort {
            Sort::Activity => (row.last_activity_at, None, row.community_id),
            Sort::New => (Some(row.created_at), None, row.community_id),
            Sort::Name => (None, Some(row.folded_name.clone()), row.community_id),
        };
        let paged = self.listing.page(rows, key);
        // Any community may be the next to come in; its counts, where the order goes by them.
        let mut shows = Shows::default().and_any(Projection::Community);
        if self.sort == Sort::Activity {
            shows = shows.and_any(Projection::ThreadList);
        }
        for row in &paged.rows {
            shows = shows.and(Projection::ThreadList, row.community_id).and(Projection::Membership, row.community_id);
            shows.communities.push(CommunityId(row.community_id));
        }
        let (list, links) = paged.list(|row| row.into_body(false));
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

/// One community.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommunityPage {
    community: CommunityId,
}

impl View for CommunityPage {
    const NAME: &'static str = "community";
    const JOINS: &'static [Projection] =
        &[Projection::Account, Projection::Community, Projection::Membership, Projection::ThreadList];
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        Ok(communities!(at, "select $4::uuid as community_id", "", "true"; self.community.0)?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let row = rows.into_iter().next().ok_or(Refusal::CommunityNotFound)?;
        let id = row.community_id;
        let mut shows =
            Shows::of(Projection::Community, id).and(Projection::Membership, id).and(Projection::ThreadList, id);
        for owner in row.owners.iter() {
            shows.account(Some(*owner));
        }
        Ok(Page::new(row.version, &row.into_body(true), shows))
    }
}

impl Row {
    fn into_body(self, with_owners: bool) -> Community {
        let owners = with_owners.then(|| {
            let names = self.owner_usernames.unwrap_or_default().into_iter();
            let display_names = self.owner_display_names.unwrap_or_default();
            let cards = self.owners.0.into_iter().zip(names.zip(display_names));
            cards.filter_map(|(id, (name, display_name))| AccountCard::new(Some(id), name, display_name)).collect()
        });
        Community {
            id: self.community_id,
            slug: self.slug,
            name: self.name,
            description: self.description,
            visibility: named(&self.visibility).unwrap_or(Visibility::Private),
            status: self.status,
            reactions: self.reactions.0,
            created_at: self.created_at,
            members: self.members,
            threads: self.threads,
            posts: self.posts,
            last_activity_at: self.last_activity_at,
            version: self.version,
            owners,
            mine: None,
        }
    }
}

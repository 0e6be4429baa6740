//! The lists of a community's threads, pinned ones first.

use axum::response::Response;
use chrono::DateTime;
use events::{
    CommunityId,
    limits::{CATEGORY_DEPTH, NAME_CHARS, TAG_CHARS},
};
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Deserializer, de::Error as _};
use sqlx::{PgConnection, Postgres, QueryBuilder};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{JOIN, JOINS, Row, Thread, select};
use crate::{
    cursor::{Direction, SortKey},
    failure::Failure,
    listing::{self, LONGEST_PAGE, List, Listing, PAGE},
    projection::Projection,
    view::{Page, Shows, Snapshot, View},
    visibility::{Audience, InCommunity, Refusal},
};

/// A category's slugs from the top, with what stands between them.
const LONGEST_CATEGORY: usize = CATEGORY_DEPTH * (NAME_CHARS + 1);

/// How threads are sorted; pinned ones stand before all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// The newest post first.
    #[default]
    Active,
    /// The newest thread first.
    New,
    /// By score and age: `sign(s)·log10(max(|s|,1)) + t/45000`, t the time of creation in seconds since 1970.
    Hot,
    /// The highest score first, of the threads started in `period`.
    Top,
    /// The most replies first.
    Replies,
}

/// Threads started since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Period {
    Day,
    Week,
    Month,
    Year,
    #[default]
    Ever,
}

impl Sort {
    const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::New => "new",
            Self::Hot => "hot",
            Self::Top => "top",
            Self::Replies => "replies",
        }
    }

    const fn column(self) -> &'static str {
        match self {
            Self::Active => "t.last_post_at",
            Self::New => "t.created_at",
            Self::Hot => "t.hot",
            Self::Top => "t.score",
            Self::Replies => "t.replies",
        }
    }

    /// What a thread is sorted by, as it stands in a [`Key`].
    fn number(self, row: &Row) -> i64 {
        match self {
            Self::Active => row.last_post_at.timestamp_micros(),
            Self::New => row.created_at.timestamp_micros(),
            // JSON would round it.
            Self::Hot => row.hot.to_bits().cast_signed(),
            Self::Top => row.score.into(),
            Self::Replies => row.replies.into(),
        }
    }

    /// Whether a thread can be sorted by it.
    fn is_number(self, number: i64) -> bool {
        match self {
            Self::Active | Self::New => DateTime::from_timestamp_micros(number).is_some_and(|time| time.is_possible()),
            Self::Hot => f64::from_bits(number.cast_unsigned()).is_finite(),
            Self::Top => i32::try_from(number).is_ok(),
            Self::Replies => i32::try_from(number).is_ok_and(|replies| replies >= 0),
        }
    }

    /// The same number as the column's type has it.
    fn push_number(self, sql: &mut QueryBuilder<'_, Postgres>, number: i64) {
        match self {
            // It [is one](Self::is_number).
            Self::Active | Self::New => sql.push_bind(DateTime::from_timestamp_micros(number).unwrap_or_default()),
            Self::Hot => sql.push_bind(f64::from_bits(number.cast_unsigned())),
            Self::Top | Self::Replies => sql.push_bind(number),
        };
    }
}

impl Period {
    const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
            Self::Ever => "ever",
        }
    }

    /// In SQL; none for ever.
    const fn interval(self) -> Option<&'static str> {
        match self {
            Self::Day => Some("interval '1 day'"),
            Self::Week => Some("interval '7 days'"),
            Self::Month => Some("interval '1 month'"),
            Self::Year => Some("interval '1 year'"),
            Self::Ever => None,
        }
    }
}

/// Which page of which list.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Threads {
    /// How they are sorted; pinned ones stand first.
    #[garde(skip)]
    #[param(inline)]
    sort: Sort,
    /// With `sort=top`: only threads started in this time; `ever` unless told.
    #[garde(skip)]
    #[param(inline)]
    period: Option<Period>,
    /// Only threads of this category and those below it: its id, or its slugs from the top, as in `news/local`.
    #[serde(deserialize_with = "some_text")]
    #[garde(inner(length(chars, max = LONGEST_CATEGORY)))]
    #[param(example = "general")]
    category: Option<String>,
    /// Only threads with this tag, in upper or lower case.
    #[serde(deserialize_with = "some_text")]
    #[garde(inner(length(chars, max = TAG_CHARS)))]
    tag: Option<String>,
    /// `true`: only threads without an accepted answer that can be seen; `false`: only those with one.
    #[garde(skip)]
    unanswered: Option<bool>,
    /// `true`: only deleted threads, for moderators; `false`, as unless told: only those that are not.
    #[garde(skip)]
    deleted: bool,
    /// Threads on a page, 1 to 100.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next` or `previous` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Threads {
    fn default() -> Self {
        Self {
            sort: Sort::default(),
            period: None,
            category: None,
            tag: None,
            unanswered: None,
            deleted: false,
            limit: PAGE,
            cursor: None,
        }
    }
}

/// The threads of a community
///
/// Pinned ones stand first. Deleted ones are in no list but the one that moderators ask for.
#[utoipa::path(
    get, path = "/v2/communities/{c}/threads", tag = "threads", operation_id = "threads_list",
    params(("c" = String, Path, description = "The community's id or slug.", example = "french-meta"), Threads),
    responses(
        (status = 200, description = "A page of them.", body = List<Thread>),
        (status = 403, description = "Deleted ones are for moderators."),
    ),
)]
pub(crate) async fn list(place: InCommunity, Query(query): Query<Threads>) -> Result<Response, Problem> {
    let Threads { sort, period, category, tag, unanswered, deleted, limit, cursor } = query;
    let tag = tag.map(|tag| tag.to_lowercase());
    let refused = (period.is_some() && sort != Sort::Top).then_some(("?period", "goes with sort=top only"));
    listing::does_not_apply(refused)?;
    let InCommunity { community, reading, .. } = if deleted { place.moderated()? } else { place };
    let unanswered_name = unanswered.map(|unanswered| if unanswered { "true" } else { "false" });
    let period = period.unwrap_or_default();
    let filters = [
        ("sort", Some(sort.name())),
        ("period", period.interval().map(|_| period.name())),
        ("category", category.as_deref()),
        ("tag", tag.as_deref()),
        ("unanswered", unanswered_name),
        ("deleted", deleted.then_some("true")),
    ];
    let listing = Listing::new(format!("/v2/communities/{community}/threads"), &filters, limit, cursor.as_deref())?;
    let listing = listing.of_keys(|(_, number, _)| sort.is_number(*number))?;
    reading.show(ThreadList { community, sort, period, category, tag, unanswered, deleted, listing }).await
}

/// One page of one list.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ThreadList {
    community: CommunityId,
    sort: Sort,
    period: Period,
    category: Option<String>,
    tag: Option<String>,
    unanswered: Option<bool>,
    deleted: bool,
    listing: Listing<Key>,
}

/// Whether it is pinned, [what it is sorted by](Sort::number), and its id.
type Key = (bool, i64, Uuid);

impl View for ThreadList {
    const NAME: &'static str = "thread_list";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    fn in_steps(&self) -> bool {
        self.category.is_some() || self.tag.is_some() || self.period != Period::Ever
    }

    async fn fetch(&self, _: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        if self.in_steps() {
            at.plan_by_value().await?;
        }
        let categories = match &self.category {
            Some(category) => Some(with_those_below(self.community, category, at.connection).await?),
            None => None,
        };
        let mut sql = select(at);
        self.pick(&mut sql, categories.as_deref());
        sql.push(JOIN).push(" order by ");
        self.push_order(&mut sql);
        Ok(sql.build_query_as().fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let paged = self.listing.page(rows, |row| (row.pinned, self.sort.number(row), row.thread_id()));
        let mut shows = Shows::of(Projection::ThreadList, self.community).and(Projection::CategoryTree, self.community);
        for row in &paged.rows {
            shows = row.show(shows);
        }
        let (list, links) = paged.list(Row::into_body);
        Ok(Page::new(0, &list, shows).with_links(links))
    }
}

impl ThreadList {
    /// Picks the page's threads, by the index of their order.
    fn pick(&self, sql: &mut QueryBuilder<'_, Postgres>, categories: Option<&[Uuid]>) {
        sql.push(if self.deleted {
            "(select * from thread t where t.deleted"
        } else {
            "(select * from thread t where not t.deleted"
        });
        sql.push(" and t.community_id = ").push_bind(self.community.0);
        if let Some(categories) = categories {
            sql.push(" and t.category_id = any(").push_bind(categories.to_vec()).push(")");
        }
        if let Some(tag) = &self.tag {
            sql.push(" and t.tags ? ").push_bind(tag.clone());
        }
        match self.unanswered {
            Some(true) => sql.push(" and t.answer_id is null"),
            Some(false) => sql.push(" and t.answer_id is not null"),
            None => sql,
        };
        if let Some(interval) = self.period.interval() {
            // Both values are named so that the index by time serves, whose second column this is.
            sql.push(" and t.pinned in (true, false) and t.created_at > now() - ").push(interval);
        }
        if let Some((pinned, number, id)) = self.listing.from() {
            let beyond = if self.listing.direction() == Direction::Forward { "<" } else { ">" };
            sql.push(format_args!(" and (t.pinned, {}, t.thread_id) {beyond} (", self.sort.column()));
            sql.push_bind(*pinned).push(", ");
            self.sort.push_number(sql, *number);
            sql.push(", ").push_bind(*id).push(")");
        }
        sql.push(" order by ");
        self.push_order(sql);
        sql.push(" limit ").push_bind(self.listing.rows()).push(") ");
    }

    fn push_order(&self, sql: &mut QueryBuilder<'_, Postgres>) {
        let column = self.sort.column();
        match self.listing.direction() {
            Direction::Forward => sql.push(format_args!("t.pinned desc, {column} desc, t.thread_id desc")),
            Direction::Backward => sql.push(format_args!("t.pinned, {column}, t.thread_id")),
        };
    }
}

/// An empty text names nothing.
fn some_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Err(D::Error::custom("must not be empty")) } else { Ok(Some(text)) }
}

/// A category, by id or by its slugs from the top, and all that are below it.
async fn with_those_below(
    community: CommunityId,
    category: &str,
    connection: &mut PgConnection,
) -> Result<Vec<Uuid>, Failure> {
    let id: Option<Uuid> = category.parse().ok();
    let path: Vec<String> = category.split('/').map(ToOwned::to_owned).collect();
    let found = sqlx::query_scalar!(
        r#"with recursive walk (category_id, depth) as (
            select k.category_id, 1 from category k
            where k.community_id = $1 and k.parent_id is null and k.slug = ($3::text[])[1]
            union all
            select k.category_id, w.depth + 1
            from walk w
            join category k
                on k.community_id = $1 and k.parent_id = w.category_id and k.slug = ($3::text[])[w.depth + 1]
        ), chosen (category_id) as (
            (
                select k.category_id from category k where k.community_id = $1 and k.category_id = $2
                union
                select w.category_id from walk w where $2::uuid is null and w.depth = cardinality($3::text[])
            )
            union
            select k.category_id from chosen c join category k on k.community_id = $1 and k.parent_id = c.category_id
        )
        select category_id as "category_id!" from chosen"#,
        community.0,
        id,
        &path
    )
    .fetch_all(connection)
    .await?;
    if found.is_empty() { Err(Problem::from(Refusal::CategoryNotFound).into()) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Place;

    fn list(sort: Sort, cursor: Option<Place<Key>>) -> ThreadList {
        let community = CommunityId(Uuid::nil());
        let cursor = cursor.map(|place| place.to_cursor("/threads"));
        ThreadList {
            community,
            sort,
            period: Period::Week,
            category: None,
            tag: Some("it's".to_owned()),
            unanswered: Some(true),
            deleted: false,
            listing: Listing::new("/threads".to_owned(), &[], 20, cursor.as_deref()).expect("its own cursor"),
        }
    }

    fn sql(list: &ThreadList) -> String {
        let mut sql = QueryBuilder::new("");
        list.pick(&mut sql, Some(&[Uuid::nil()]));
        sql.into_sql()
    }

    #[test]
    fn what_a_client_says_is_bound_never_written() {
        let sql = sql(&list(Sort::Top, None));
        assert_eq!(
            sql,
            "(select * from thread t where not t.deleted and t.community_id = $1 and t.category_id = any($2) \
             and t.tags ? $3 and t.answer_id is null and t.pinned in (true, false) \
             and t.created_at > now() - interval '7 days' \
             order by t.pinned desc, t.score desc, t.thread_id desc limit $4) "
        );
    }

    #[test]
    fn a_page_resumes_by_the_whole_key_that_it_is_sorted_by() {
        let place = |direction| Some(Place { key: (true, 5, Uuid::nil()), direction });
        let forward = sql(&list(Sort::Hot, place(Direction::Forward)));
        assert!(
            forward.contains(
                "(t.pinned, t.hot, t.thread_id) < ($4, $5, $6) order by t.pinned desc, t.hot desc, t.thread_id desc"
            ),
            "{forward}"
        );
        let backward = sql(&list(Sort::Hot, place(Direction::Backward)));
        assert!(
            backward.contains("(t.pinned, t.hot, t.thread_id) > ($4, $5, $6) order by t.pinned, t.hot, t.thread_id"),
            "{backward}"
        );
    }
}

//! Lists, page by page.

use axum::http::{HeaderValue, StatusCode};
use futures::{Stream, TryStreamExt};
use platform::problem::{FieldError, Problem};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    cursor::{Direction, Place, SortKey, no_cursor},
    view::Reflects,
};

/// Items on a page at most.
pub(crate) const LONGEST_PAGE: u32 = 100;
/// Items on a page, unless asked otherwise.
pub(crate) const PAGE: u32 = 20;
/// Bytes of text on a page at most, where that is not one item's alone: a page of the longest posts would be a hundred
/// times as many.
pub(crate) const LONGEST_TEXT: usize = 1024 * 1024;

/// A page of a list. The same links stand in the `Link` header (RFC 8288).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct List<T> {
    /// The items, in the order asked for.
    pub(crate) items: Vec<T>,
    /// Send it as `cursor` for the page after this one; null on the last page.
    #[schema(example = "AQBc1X0…")]
    pub(crate) next: Option<String>,
    /// Send it as `cursor` for the page before this one; null on the first page.
    pub(crate) previous: Option<String>,
}

/// Refuses parameters, as pointers with words, that say nothing beside the others: a client that sends one expects
/// something else.
///
/// # Errors
/// 422 where there is one.
pub(crate) fn does_not_apply<'a>(refused: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<(), Problem> {
    let error = |(pointer, words)| FieldError::new(pointer, "does_not_apply", words);
    self::refused(refused.into_iter().map(error).collect())
}

/// Refuses parameters, where there are errors in them.
///
/// # Errors
/// 422 where there is one.
pub(crate) fn refused(errors: Vec<FieldError>) -> Result<(), Problem> {
    let Some(first) = errors.first() else { return Ok(()) };
    let detail = format!("{} {}.", first.pointer, first.detail);
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", detail).with_errors(errors))
}

/// Reads the rows of a page whose items may be long, and no further than to the one that [does not fit](fitting).
pub(crate) async fn read<R: Reflects>(mut rows: impl Stream<Item = sqlx::Result<R>> + Unpin) -> sqlx::Result<Vec<R>> {
    let mut read = Vec::new();
    while read.len() <= fitting(&read, 2)
        && let Some(row) = rows.try_next().await?
    {
        read.push(row);
    }
    Ok(read)
}

/// How many of the rows have room on a page for their texts; `least` have, whatever they hold.
pub(crate) fn fitting<R: Reflects>(rows: &[R], least: usize) -> usize {
    let sums = rows.iter().scan(0, |sum, row| {
        *sum += row.bytes();
        Some(*sum)
    });
    sums.take_while(|sum| *sum <= LONGEST_TEXT).count().max(least)
}

/// What page of which list is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Listing<K> {
    /// Path and query of the list without cursor and limit: its name to cursors, and what links build on.
    name: String,
    /// Items at most.
    limit: u32,
    /// From where; none for the first page.
    place: Option<Place<K>>,
}

impl<K: SortKey> Listing<K> {
    /// The page of the list at `path` with these filters that the client's cursor leads to.
    ///
    /// # Errors
    /// 400 for a cursor that is none, or of another list.
    pub(crate) fn new(
        path: String,
        filters: &[(&str, Option<&str>)],
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<Self, Problem> {
        let given: Vec<_> = filters.iter().filter_map(|(name, value)| Some((name, (*value)?))).collect();
        let query = serde_urlencoded::to_string(&given).expect("names and text");
        let name = if query.is_empty() { path } else { format!("{path}?{query}") };
        let place = cursor.map(|cursor| Place::from_cursor(cursor, &name)).transpose()?;
        Ok(Self { name, limit, place })
    }

    /// The same, where its rows have only such keys.
    ///
    /// # Errors
    /// 400 for a cursor with another.
    pub(crate) fn of_keys(self, are: impl FnOnce(&K) -> bool) -> Result<Self, Problem> {
        if self.from().is_none_or(are) { Ok(self) } else { Err(no_cursor()) }
    }

    /// The same list from another place.
    pub(crate) fn starting(self, place: Place<K>) -> Self {
        Self { place: Some(place), ..self }
    }

    /// The cursor to a place in it.
    pub(crate) fn cursor(&self, place: &Place<K>) -> String {
        place.to_cursor(&self.name)
    }

    /// Which way the rows are to be read.
    pub(crate) fn direction(&self) -> Direction {
        self.place.as_ref().map_or(Direction::Forward, |place| place.direction)
    }

    /// The sort key to read from; none for the beginning.
    pub(crate) fn from(&self) -> Option<&K> {
        self.place.as_ref().map(|place| &place.key)
    }

    /// How many rows to read: one more than shown tells whether there is another page.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Items on a page.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Makes the page of the rows as they were read, up to [`Self::rows`] of them from [`Self::from`] on in the
    /// [direction](Self::direction): sorts them in the list's order, drops what is too much, and links on.
    pub(crate) fn page<R: Reflects>(&self, mut rows: Vec<R>, key: impl Fn(&R) -> K) -> Paged<R> {
        let longest = fitting(&rows, 1).min(self.limit as usize);
        let more = rows.len() > longest;
        rows.truncate(longest);
        let (before, after) = match self.direction() {
            Direction::Forward => (self.place.is_some(), more),
            Direction::Backward => {
                rows.reverse();
                // It was come from there.
                (more, true)
            }
        };
        let cursor = |row: Option<&R>, direction| Some(Place { key: key(row?), direction }.to_cursor(&self.name));
        let next = after.then(|| cursor(rows.last(), Direction::Forward)).flatten();
        let previous = before.then(|| cursor(rows.first(), Direction::Backward)).flatten();
        let mut links = Links::default();
        links.add("first", &self.target(None));
        for (relation, cursor) in [("prev", &previous), ("next", &next)] {
            if let Some(cursor) = cursor {
                links.add(relation, &self.target(Some(("cursor", cursor))));
            }
        }
        Paged { rows, next, previous, links }
    }

    /// The address of another page of it.
    pub(crate) fn target(&self, parameter: Option<(&str, &str)>) -> String {
        let mut target = self.name.clone();
        let mut add = |name: &str, value: &str| {
            target.push(if target.contains('?') { '&' } else { '?' });
            // Cursors and numbers: nothing to escape.
            target.extend([name, "=", value]);
        };
        if self.limit != PAGE {
            add("limit", &self.limit.to_string());
        }
        if let Some((name, value)) = parameter {
            add(name, value);
        }
        target
    }
}

/// Rows of one page, in the list's order.
pub(crate) struct Paged<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) next: Option<String>,
    pub(crate) previous: Option<String>,
    pub(crate) links: Links,
}

impl<R> Paged<R> {
    /// The body, and what it links to.
    pub(crate) fn list<T>(self, item: impl FnMut(R) -> T) -> (List<T>, Links) {
        let items = self.rows.into_iter().map(item).collect();
        (List { items, next: self.next, previous: self.previous }, self.links)
    }
}

/// The value of a `Link` header (RFC 8288).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links(String);

impl Links {
    /// Adds a link. `target` is a path with its query, percent-encoded.
    pub(crate) fn add(&mut self, relation: &str, target: &str) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        self.0.extend(["<", target, ">; rel=\"", relation, "\""]);
    }

    /// The header's value; none without links.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        if self.0.is_empty() { None } else { HeaderValue::from_str(&self.0).ok() }
    }
}

#[cfg(test)]
mod tests {
    use events::Position;

    use super::*;

    fn listing(cursor: Option<&str>) -> Listing<i64> {
        let filters = [("sort", Some("new")), ("tag", Some("à la")), ("category", None)];
        Listing::new("/v2/things".to_owned(), &filters, 3, cursor).expect("a good cursor")
    }

    impl Reflects for i64 {
        fn positions(&self) -> &[Position] {
            &[]
        }

        /// From 100 on they are long.
        fn bytes(&self) -> usize {
            if *self >= 100 { LONGEST_TEXT / 2 } else { 0 }
        }
    }

    /// What a database would answer of the numbers 1 to 8.
    fn read(listing: &Listing<i64>) -> Vec<i64> {
        let count = usize::try_from(listing.rows()).expect("small");
        let from = listing.from().copied();
        match listing.direction() {
            Direction::Forward => (1..=8).filter(|n| from.is_none_or(|from| *n > from)).take(count).collect(),
            Direction::Backward => (1..=8).rev().filter(|n| from.is_none_or(|from| *n < from)).take(count).collect(),
        }
    }

    fn page(cursor: Option<&str>) -> (List<i64>, Links) {
        let listing = listing(cursor);
        listing.page(read(&listing), |row| *row).list(|row| row)
    }

    #[test]
    fn pages_join_without_gap_or_repetition_both_ways() {
        let (first, links) = page(None);
        assert_eq!((first.items, first.previous), (vec![1, 2, 3], None));
        let next = first.next.expect("more");
        let list = "/v2/things?sort=new&tag=%C3%A0+la&limit=3";
        let header = format!("<{list}>; rel=\"first\", <{list}&cursor={next}>; rel=\"next\"");
        assert_eq!(links.header().expect("links"), header);
        let (second, _) = page(Some(&next));
        assert_eq!(second.items, [4, 5, 6]);
        let (third, _) = page(second.next.as_deref());
        assert_eq!((third.items, third.next), (vec![7, 8], None));
        let (back, _) = page(third.previous.as_deref());
        assert_eq!(back.items, [4, 5, 6]);
        let (start, _) = page(back.previous.as_deref());
        assert_eq!((start.items, start.previous), (vec![1, 2, 3], None));
        assert_eq!(page(start.next.as_deref()).0.items, [4, 5, 6]);
    }

    #[tokio::test]
    async fn a_page_of_long_items_is_shorter_but_never_empty() {
        let read_of = |numbers: Vec<i64>| super::read(futures::stream::iter(numbers.into_iter().map(Ok)));
        let listing = listing(None);
        let shown = |rows| listing.page(rows, |row| *row);
        // Two have room; a third one is read, and says that there is more.
        let rows = read_of(vec![100, 101, 102, 103]).await.expect("no errors");
        assert_eq!(rows, [100, 101, 102]);
        let paged = shown(rows);
        assert!(paged.next.is_some());
        assert_eq!(paged.rows, [100, 101]);
        assert_eq!(shown(read_of(vec![100, 1, 101]).await.expect("no errors")).rows, [100, 1, 101]);
        assert_eq!(fitting(&[100, 101, 102], 1), 2);
        assert_eq!(fitting::<i64>(&[], 1), 1);
    }

    #[test]
    fn an_empty_page_links_nowhere_but_to_the_first() {
        let (list, links) = listing(None).page(vec![], |row: &i64| *row).list(|row| row);
        assert!(list.items.is_empty() && list.next.is_none() && list.previous.is_none());
        assert_eq!(links.header().expect("one").to_str().expect("ASCII").matches("rel=").count(), 1);
    }
}

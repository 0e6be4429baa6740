//! A page of the history.

use axum::response::Response;
use events::{HistoryId, Position};
use platform::problem::Problem;
use store_reader::{Most, Piece, Side};
use uuid::Uuid;

use super::{Part, Told, told};
use crate::{
    answer::{Answer, ETag, Whole},
    cursor::{Direction, Place},
    freshness::history_lost,
    listing::{LONGEST_TEXT, Links, List, Listing},
    reading::{ReadSide, hash},
    visibility::InHistory,
};

/// A history, and the position that a page begins behind, or ends with.
type Key = (Uuid, Position);
/// The key that the newest page ends with, whatever has come since.
const NEWEST: Position = Position::MAX;

pub(super) async fn show(side: &ReadSide, at: InHistory) -> Result<Response, Problem> {
    let InHistory { asked, community, request, .. } = at;
    let filters = asked.filters(community);
    let filters: Vec<_> = filters.iter().map(|(name, value)| (*name, value.as_deref())).collect();
    let listing = Listing::<Key>::new("/v2/events".to_owned(), &filters, asked.page(), asked.cursor.as_deref())?;
    let listing = listing.of_keys(|(_, position)| *position >= 0)?;
    let store = side.history.store().await?;
    let part = asked.look_up(store, community).await?;
    let (span, from) = part.span(&listing)?;
    let most = Most { events: listing.limit(), bytes: LONGEST_TEXT };
    let piece = store.piece(span, &part.filter, from, most).await?;
    if let Some(stop) = piece.unreadable.as_ref().filter(|_| piece.events.is_empty()) {
        return Err(side.history.unreadable_here(stop));
    }
    let (list, links) = part.page(&piece, &listing)?;
    let body = serde_json::to_vec(&list).expect("events are JSON");
    let answer = Answer {
        etag: ETag { version: 0, hash: hash(&body) },
        body: Whole::of(body),
        links: links.header(),
        positions: Vec::new(),
        signed_in: true,
        waited: request.wanted.applied(),
    };
    Ok(answer.respond(&request.known))
}

impl Part {
    /// What is between where the cursor leads and the end of the part that it goes to, and from which side of that a page
    /// is read.
    fn span(&self, listing: &Listing<Key>) -> Result<((Position, Position), Side), Problem> {
        let Some((line, position)) = listing.from().copied() else {
            return Ok(((self.after, self.through), Side::Beginning));
        };
        if HistoryId(line) != self.line || (position > self.head && position != NEWEST) {
            return Err(history_lost("the cursor"));
        }
        Ok(match listing.direction() {
            Direction::Forward => ((position.max(self.after), self.through), Side::Beginning),
            Direction::Backward => ((self.after, position.min(self.through)), Side::End),
        })
    }

    fn page(&self, piece: &Piece, listing: &Listing<Key>) -> Result<(List<Told>, Links), Problem> {
        let mut items = Vec::with_capacity(piece.events.len());
        for event in &piece.events {
            if event.history != self.line {
                return Err(history_lost("the cursor"));
            }
            items.extend(told(event).map_err(|error| Problem::internal(&error))?);
        }
        let cursor = |position, direction| listing.cursor(&Place { key: (self.line.0, position), direction });
        let next = (piece.through < self.through).then(|| cursor(piece.through, Direction::Forward));
        let previous = (piece.after > self.after).then(|| cursor(piece.after, Direction::Backward));
        let last = Some(cursor(NEWEST, Direction::Backward));
        let mut links = Links::default();
        links.add("first", &listing.target(None));
        for (relation, cursor) in [("prev", &previous), ("next", &next), ("last", &last)] {
            if let Some(cursor) = cursor {
                links.add(relation, &listing.target(Some(("cursor", cursor))));
            }
        }
        Ok((List { items, next, previous }, links))
    }
}

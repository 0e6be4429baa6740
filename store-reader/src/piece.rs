//! Reads a part of history piece by piece: each is bounded in what is looked at for it, and in what it holds. For who is
//! asked over HTTP, where one request must not go over a million events to find three.

use events::{Delivered, Envelope, HistoryId, Position};
use futures::TryStreamExt as _;

use super::{Filter, Row, StoreReader, Unreadable, copy::PREVIOUS};

/// Events that are looked at for one piece, let through or not: what the server passes over in a tenth of a second.
pub const LOOKED_AT: i64 = 50_000;

/// From which side of a span it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The oldest of it first.
    Beginning,
    /// The newest of it first.
    End,
}

/// What one piece may hold.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Events.
    pub events: u32,
    /// Bytes of payload, where they are not one event's alone.
    pub bytes: usize,
}

/// All that a filter lets through between two positions.
#[derive(Debug)]
pub struct Piece {
    /// The events, by position.
    pub events: Vec<Delivered>,
    /// It begins behind this position.
    pub after: Position,
    /// It ends with this position.
    pub through: Position,
    /// The event that it stopped at, which nobody can read, and nobody left out.
    pub unreadable: Option<Unreadable>,
}

/// A row, and what is before it in its shard.
#[derive(sqlx::FromRow)]
struct Linked {
    #[sqlx(flatten)]
    row: Row,
    previous: Option<Position>,
}

impl StoreReader {
    /// What `filter` lets through behind `after`, up to and with `through`: as much of it as one piece may hold and
    /// [look at](LOOKED_AT), from a side. The rest is on the other side of the piece. An event that is left out ends
    /// it too: such events are few.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn piece(
        &self,
        span: (Position, Position),
        filter: &Filter,
        side: Side,
        most: Most,
    ) -> sqlx::Result<Piece> {
        let mut piece = self.readable_piece(span, filter, side, most).await?;
        if let Some(stop) = &piece.unreadable
            && self.is_left_out(stop.event_id).await?
        {
            piece.end_with(stop.position, side);
            piece.unreadable = None;
        }
        Ok(piece)
    }

    /// The same, up to an event that cannot be read. With its end the connection is given back.
    async fn readable_piece(
        &self,
        (after, through): (Position, Position),
        filter: &Filter,
        side: Side,
        most: Most,
    ) -> sqlx::Result<Piece> {
        let (span, lets, order) = (filter.span(after, through), filter.lets(), filter.order(side));
        let sql = format!(
            "select event_id, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
             metadata::text as metadata, position, shard, community_id, recorded_at, \
             (select history from history_line) as history, {PREVIOUS} as previous \
             from (select * from events e where {span} order by {order} limit {LOOKED_AT}) e \
             where {lets} order by {order} limit {}",
            most.events
        );
        // Its positions stand in its text: nobody asks the same again.
        let mut rows = sqlx::query_as(&sql).persistent(false).fetch(self.pool());
        let mut piece = Piece { events: Vec::new(), after, through, unreadable: None };
        let mut bytes = 0;
        while let Some(Linked { row, previous }) = rows.try_next().await? {
            bytes += row.payload.get().len();
            if bytes > most.bytes && !piece.events.is_empty() {
                // Not taken: it is the first of the rest.
                piece.end_before(row.position, side);
                return Ok(piece.in_order(side));
            }
            piece.take(row, previous, side)?;
            if piece.unreadable.is_some() {
                return Ok(piece.in_order(side));
            }
        }
        drop(rows);
        let end = match piece.events.last() {
            Some(last) if piece.events.len() >= most.events as usize => Some(last.envelope.position),
            // All that was looked at did not fill it. How far that went is asked only then: it takes as long again.
            _ => {
                let last = format!(
                    "select position from events e where {span} order by {order} offset {LOOKED_AT} - 1 limit 1"
                );
                sqlx::query_scalar(&last).persistent(false).fetch_optional(self.pool()).await?
            }
        };
        if let Some(end) = end {
            piece.end_with(end, side);
        }
        Ok(piece.in_order(side))
    }
}

/// Whoever takes an event out of a piece can read it.
fn read(envelope: Envelope) -> Result<Envelope, Unreadable> {
    envelope.newest().map(drop).map_err(|error| Unreadable::of(&envelope, error))?;
    Ok(envelope)
}

impl Piece {
    fn take(&mut self, row: Row, previous: Option<Position>, side: Side) -> sqlx::Result<()> {
        let (history, shard) = (HistoryId(row.history), row.shard()?);
        match row.into_envelope(shard).and_then(read) {
            Ok(envelope) => self.events.push(Delivered { envelope, previous: previous.unwrap_or(0), history }),
            Err(unreadable) => {
                self.end_before(unreadable.position, side);
                self.unreadable = Some(unreadable);
            }
        }
        Ok(())
    }

    /// It has come to this position, and with it.
    fn end_with(&mut self, position: Position, side: Side) {
        match side {
            Side::Beginning => self.through = position,
            Side::End => self.after = position - 1,
        }
    }

    /// It has come to this position, and without it.
    fn end_before(&mut self, position: Position, side: Side) {
        match side {
            Side::Beginning => self.through = position - 1,
            Side::End => self.after = position,
        }
    }

    fn in_order(mut self, side: Side) -> Self {
        if side == Side::End {
            self.events.reverse();
        }
        self
    }
}

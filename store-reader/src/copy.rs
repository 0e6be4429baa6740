//! Reads the event store by binary `COPY`: a row comes with neither a description of its columns nor a message for each
//! of them. For who reads all of history, or asks questions that the pipeline does not ask.

use std::{fmt::Write as _, ops::Range};

use bytes::{Buf as _, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use events::{CommunityId, Delivered, Envelope, EventId, HistoryId, Position, Shard, Stream};
use futures::{TryStreamExt as _, stream::BoxStream};
use serde_json::value::RawValue;
use sqlx::{postgres::PgPoolCopyExt as _, types::Json};
use uuid::Uuid;

use super::{Heads, Row, Side, StoreReader, Unreadable};

/// What is selected, in the order of [`decode`].
const COLUMNS: &str = "event_id, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, \
                       position, shard, community_id, recorded_at";
/// The position of the event before it in its shard: one more look into an index for each event.
pub(super) const PREVIOUS: &str = "(select position from events before where (before.shard, before.position) >= (e.shard, 0) and \
                        (before.shard, before.position) < (e.shard, e.position) \
                        order by before.shard desc, before.position desc limit 1)";
/// The columns, and `previous`.
const FIELDS: usize = 13;
/// What each binary `COPY` begins with: a signature of 11 bytes, flags, and the length of an extension that is not there.
const HEADER: usize = 11 + 4 + 4;
/// Bytes of a length or a number of fields.
const LENGTH: usize = 4;
const COUNT: usize = 2;
/// What stands in the place of a number of fields behind the last row: -1.
const TRAILER: [u8; COUNT] = [0xff, 0xff];
/// Postgres counts microseconds from 2000-01-01; this is that day in Unix time.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Which events, of all that there are behind `after` up to and with `through`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of these names; of all where there are none.
    pub types: Vec<String>,
    /// Of this community; of all, and of none, where it is not said.
    pub community: Option<CommunityId>,
}

/// Why a copy stopped.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// An event. Whoever knows that it is left out may go on behind it.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// Events on their way, each with what proves that none before it is missing.
pub struct Copy {
    rows: BoxStream<'static, sqlx::Result<Bytes>>,
    /// Received, not yet read.
    received: Bytes,
    history: HistoryId,
    /// Where each shard stands, where all events are read; else each row brings it.
    heads: Option<Heads>,
    ended: bool,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_all(&self) -> bool {
        self.types.is_empty() && self.community.is_none()
    }

    /// Whether it lets an event through.
    pub fn lets_through(&self, event: &Envelope) -> bool {
        (self.types.is_empty() || self.types.contains(&event.name))
            && (self.community.is_none() || self.community == event.community)
    }

    /// What it lets through of a span.
    fn conditions(&self, after: Position, through: Position) -> String {
        format!("{} and {}", self.span(after, through), self.lets())
    }

    /// What is looked at for it. One community is one shard, which has an index. Names have none, as each index is paid by
    /// every append: all events of the span are looked at, in the server, which passes over millions in a second.
    pub(super) fn span(&self, after: Position, through: Position) -> String {
        self.community.map(Shard::of_community).map_or_else(
            || format!("position > {after} and position <= {through}"),
            |shard| format!("(shard, position) > ({shard}, {after}) and (shard, position) <= ({shard}, {through})"),
        )
    }

    /// Which of these it lets through.
    pub(super) fn lets(&self) -> String {
        let mut sql = self.community.map_or_else(|| "true".to_owned(), |id| format!("community_id = '{id}'"));
        if !self.types.is_empty() {
            let names: Vec<String> = self.types.iter().map(|name| literal(name)).collect();
            let _ = write!(sql, " and event_type in ({})", names.join(", "));
        }
        sql
    }

    /// By position, from a side of the span.
    pub(super) fn order(&self, side: Side) -> &'static str {
        match (self.community, side) {
            (Some(_), Side::Beginning) => "e.shard, e.position",
            (Some(_), Side::End) => "e.shard desc, e.position desc",
            (None, Side::Beginning) => "e.position",
            (None, Side::End) => "e.position desc",
        }
    }
}

/// `COPY` takes no parameters.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl StoreReader {
    /// The events behind `after` up to and with `through`, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn copy(&self, after: Position, through: Position, filter: &Filter) -> sqlx::Result<Copy> {
        let (conditions, order) = (filter.conditions(after, through), filter.order(Side::Beginning));
        if !filter.is_all() {
            return self.copy_where(PREVIOUS, &conditions, order, None).await;
        }
        let heads = self.heads_at(after).await?;
        self.copy_where("null::bigint", &conditions, order, Some(heads)).await
    }

    /// The first `most` events of a shard behind `after`, where one of its events stands or none before, up to and with
    /// `through`.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn copy_shard(
        &self,
        shard: Shard,
        after: Position,
        through: Position,
        most: usize,
    ) -> sqlx::Result<Copy> {
        let conditions =
            format!("(shard, position) > ({shard}, {after}) and (shard, position) <= ({shard}, {through})");
        let mut heads = Heads::default();
        heads.go_on(shard, after);
        self.copy_where("null::bigint", &conditions, &format!("e.shard, e.position limit {most}"), Some(heads)).await
    }

    /// The event of that id, if there is one.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn copy_event(&self, id: EventId) -> sqlx::Result<Copy> {
        self.copy_where(PREVIOUS, &format!("event_id = '{id}'"), "e.position", None).await
    }

    /// The events of a stream, in order.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn copy_stream(&self, Stream { aggregate, id }: &Stream) -> sqlx::Result<Copy> {
        let of_stream = format!("aggregate_type = {} and aggregate_id = {}", literal(aggregate), literal(id));
        self.copy_where(PREVIOUS, &of_stream, "e.sequence", None).await
    }

    /// How far the events reach that were recorded before a time.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn position_before(&self, time: DateTime<Utc>) -> sqlx::Result<Position> {
        // Times do not fall as positions rise: halved again and again, a span of any length takes 63 looks.
        let first_from = "select position, recorded_at < $2 from events where position >= $1 order by position limit 1";
        let (mut before, mut not_before) = (0, self.head().await? + 1);
        while not_before - before > 1 {
            let middle = before + (not_before - before) / 2;
            let looked = sqlx::query_as(first_from).bind(middle).bind(time);
            match looked.fetch_optional(&self.pool).await? {
                Some((position, true)) => before = position,
                Some((_, false)) | None => not_before = middle,
            }
        }
        Ok(before)
    }

    async fn copy_where(
        &self,
        previous: &str,
        conditions: &str,
        order: &str,
        heads: Option<Heads>,
    ) -> sqlx::Result<Copy> {
        let history = self.history().await?;
        let query =
            format!("select {COLUMNS}, {previous} as previous from events e where {conditions} order by {order}");
        let rows = self.pool.copy_out_raw(&format!("copy ({query}) to stdout (format binary)")).await?;
        let mut copy = Copy { rows, received: Bytes::new(), history, heads, ended: false };
        copy.receive(HEADER).await?;
        copy.received.advance(HEADER);
        Ok(copy)
    }
}

impl Copy {
    /// The next event; none at the end.
    ///
    /// # Errors
    /// [`CopyError`]; behind one of the database there is no next.
    pub async fn next(&mut self) -> Result<Option<Delivered>, CopyError> {
        if self.ended {
            return Ok(None);
        }
        self.receive(COUNT).await?;
        if self.received.starts_with(&TRAILER) {
            return Ok(self.end().await?);
        }
        let (fields, length) = loop {
            match first_row(&self.received)? {
                Some(row) => break row,
                None => self.receive(self.received.len() + 1).await?,
            }
        };
        let fields = fields.map(|field| field.map(|place| &self.received[place]));
        let (row, previous) = decode(fields, self.history)?;
        self.received.advance(length);
        let shard = Shard::try_from(row.shard).map_err(|error| broken(&error.to_string()))?;
        let previous = match &mut self.heads {
            Some(heads) => heads.go_on(shard, row.position),
            None => previous.unwrap_or(0),
        };
        Ok(Some(Delivered { envelope: row.into_envelope(shard)?, previous, history: self.history }))
    }

    /// Waits for at least so many bytes.
    async fn receive(&mut self, bytes: usize) -> sqlx::Result<()> {
        while self.received.len() < bytes {
            let more = self.rows.try_next().await?.ok_or_else(|| broken("it ends in the middle of a row"))?;
            if self.received.is_empty() {
                self.received = more;
            } else {
                let mut joined = BytesMut::from(std::mem::take(&mut self.received));
                joined.extend_from_slice(&more);
                self.received = joined.freeze();
            }
        }
        Ok(())
    }

    /// What follows the last row gives the connection back.
    async fn end(&mut self) -> sqlx::Result<Option<Delivered>> {
        self.ended = true;
        while self.rows.try_next().await?.is_some() {}
        Ok(None)
    }
}

/// Where the fields of a row are, those that are not null.
type Places = [Option<Range<usize>>; FIELDS];

/// Where the fields of the first row are, and how long it is; none where it is not there whole.
fn first_row(received: &[u8]) -> sqlx::Result<Option<(Places, usize)>> {
    let Some((count, _)) = received.split_first_chunk() else { return Ok(None) };
    if usize::try_from(i16::from_be_bytes(*count)) != Ok(FIELDS) {
        return Err(broken("a row has other columns than were asked for"));
    }
    let (mut fields, mut at) = ([const { None }; FIELDS], COUNT);
    for field in &mut fields {
        let Some((length, _)) = received.get(at..).and_then(<[u8]>::split_first_chunk) else { return Ok(None) };
        at += LENGTH;
        // A negative length is null.
        if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
            *field = Some(at..at + length);
            at += length;
        }
    }
    Ok((at <= received.len()).then_some((fields, at)))
}

fn decode(fields: [Option<&[u8]>; FIELDS], history: HistoryId) -> sqlx::Result<(Row, Option<Position>)> {
    let [
        event_id,
        aggregate_type,
        aggregate_id,
        sequence,
        event_type,
        event_version,
        payload,
        metadata,
        position,
        shard,
        community_id,
        recorded_at,
        previous,
    ] = fields;
    let row = Row {
        event_id: uuid(event_id)?,
        aggregate_type: text(aggregate_type)?,
        aggregate_id: text(aggregate_id)?,
        sequence: bigint(sequence)?,
        event_type: text(event_type)?,
        event_version: text(event_version)?,
        payload: Json(RawValue::from_string(text(payload)?).map_err(|error| broken(&error.to_string()))?),
        metadata: text(metadata)?,
        position: bigint(position)?,
        shard: i16::from_be_bytes(sized(shard)?),
        community_id: community_id.map(|id| uuid(Some(id))).transpose()?,
        recorded_at: time(recorded_at)?,
        history: history.0,
    };
    Ok((row, previous.map(|position| bigint(Some(position))).transpose()?))
}

fn sized<const N: usize>(field: Option<&[u8]>) -> sqlx::Result<[u8; N]> {
    field.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| broken("a field has another type than it should"))
}

fn bigint(field: Option<&[u8]>) -> sqlx::Result<i64> {
    sized(field).map(i64::from_be_bytes)
}

fn uuid(field: Option<&[u8]>) -> sqlx::Result<Uuid> {
    sized(field).map(Uuid::from_bytes)
}

fn text(field: Option<&[u8]>) -> sqlx::Result<String> {
    let bytes = field.ok_or_else(|| broken("a text is null"))?;
    String::from_utf8(bytes.to_vec()).map_err(|error| broken(&error.to_string()))
}

fn time(field: Option<&[u8]>) -> sqlx::Result<DateTime<Utc>> {
    let micros = bigint(field)?.checked_add(POSTGRES_EPOCH_MICROS);
    micros.and_then(DateTime::from_timestamp_micros).ok_or_else(|| broken("a time is out of range"))
}

fn broken(reason: &str) -> sqlx::Error {
    sqlx::Error::Protocol(format!("the copy of the events cannot be read: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let filter = Filter { types: vec!["post.written".into(), "o'; drop table events; --".into()], community: None };
        assert_eq!(filter.lets(), "true and event_type in ('post.written', 'o''; drop table events; --')");
    }

    /// A binary row of nulls and of texts.
    fn row(fields: [Option<&str>; FIELDS]) -> Vec<u8> {
        let mut row = i16::try_from(FIELDS).expect("few").to_be_bytes().to_vec();
        for field in fields {
            let length = field.map_or(-1, |text| i32::try_from(text.len()).expect("short"));
            row.extend(length.to_be_bytes());
            row.extend(field.unwrap_or_default().bytes());
        }
        row
    }

    #[test]
    fn a_row_counts_once_it_is_there_whole() {
        let mut texts = [None; FIELDS];
        (texts[0], texts[FIELDS - 1]) = (Some("one"), Some("two"));
        let whole = row(texts);
        for cut in 0..whole.len() {
            assert!(first_row(&whole[..cut]).expect("so far").is_none(), "{cut} bytes");
        }
        let (fields, length) = first_row(&[&whole[..], b"what follows"].concat()).expect("a row").expect("whole");
        assert_eq!(length, whole.len());
        assert_eq!(fields.map(|field| field.map(|place| &whole[place])), texts.map(|text| text.map(str::as_bytes)));
        assert!(first_row(&[0, 1, 0, 0]).is_err(), "another number of columns");
    }

    #[tokio::test]
    async fn rows_are_read_however_they_were_cut() {
        // The trailer, cut in two.
        let rows = [&[0xff_u8][..], &[0xff]].map(|bytes| Ok(Bytes::copy_from_slice(bytes)));
        let rows = Box::pin(futures::stream::iter(rows));
        let mut copy = Copy { rows, received: Bytes::new(), history: HistoryId::new(), heads: None, ended: false };
        for _ in 0..2 {
            assert!(copy.next().await.expect("the end").is_none());
        }
    }
}

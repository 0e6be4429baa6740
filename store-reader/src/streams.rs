//! Reads some streams as they were at a position: what is told of one thing, however much there is of others.

use events::{Envelope, Position};
use futures::{Stream, TryStreamExt as _};

use super::{Row, StoreReader, Unreadable};

impl StoreReader {
    /// The events of some streams of one kind of aggregate, up to and with `through`: stream by stream, each in order.
    pub fn streams<'a>(
        &'a self,
        aggregate: &'a str,
        ids: &'a [String],
        through: Position,
    ) -> impl Stream<Item = sqlx::Result<Result<Envelope, Unreadable>>> + 'a {
        let rows = sqlx::query_as!(
            Row,
            r#"select e.event_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
                e.payload as "payload: _", e.metadata::text as "metadata!", e.position, e.shard, e.community_id,
                e.recorded_at, (select history from history_line) as "history!"
            from unnest($2::text[]) with ordinality s (id, nth)
            cross join lateral (
                select * from events
                where aggregate_type = $1 and aggregate_id = s.id and position <= $3
                order by sequence
            ) e
            order by s.nth, e.sequence"#,
            aggregate,
            ids,
            through,
        );
        rows.fetch(&self.pool).and_then(|row| std::future::ready(envelope(row)))
    }

    /// Of all streams of a kind of aggregate that belong to one of these things and to something else
    /// (`<one>.<other>`), the last event up to and with `through`.
    pub fn last_of_streams_below<'a>(
        &'a self,
        aggregate: &'a str,
        things: &'a [String],
        through: Position,
    ) -> impl Stream<Item = sqlx::Result<Result<Envelope, Unreadable>>> + 'a {
        // Between these two stands, however the database sorts text, whatever begins with the first: other parts are
        // hexadecimal, or a word below `z`.
        let rows = sqlx::query_as!(
            Row,
            r#"select e.event_id, e.aggregate_type, e.aggregate_id, e.sequence, e.event_type, e.event_version,
                e.payload as "payload: _", e.metadata::text as "metadata!", e.position, e.shard, e.community_id,
                e.recorded_at, (select history from history_line) as "history!"
            from unnest($2::text[]) s (id)
            cross join lateral (
                select distinct on (aggregate_id) * from events
                where aggregate_type = $1 and aggregate_id > s.id || '.' and aggregate_id < s.id || '.z'
                    and starts_with(aggregate_id, s.id || '.') and position <= $3
                order by aggregate_id desc, sequence desc
            ) e"#,
            aggregate,
            things,
            through,
        );
        rows.fetch(&self.pool).and_then(|row| std::future::ready(envelope(row)))
    }

    /// The events at these positions, in order.
    pub fn at<'a>(
        &'a self,
        positions: &'a [Position],
    ) -> impl Stream<Item = sqlx::Result<Result<Envelope, Unreadable>>> + 'a {
        let rows = sqlx::query_as!(
            Row,
            r#"select event_id, aggregate_type, aggregate_id, sequence, event_type, event_version,
                payload as "payload: _", metadata::text as "metadata!", position, shard, community_id, recorded_at,
                (select history from history_line) as "history!"
            from events where position = any($1) order by position"#,
            positions,
        );
        rows.fetch(&self.pool).and_then(|row| std::future::ready(envelope(row)))
    }
}

fn envelope(row: Row) -> sqlx::Result<Result<Envelope, Unreadable>> {
    let shard = row.shard()?;
    Ok(row.into_envelope(shard))
}

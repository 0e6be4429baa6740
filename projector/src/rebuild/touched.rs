//! The events that a row which differs has from: where whoever looks for the defect begins.

use events::{CommunityId, EventId, Position, Shard};
use futures::TryStreamExt as _;
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sqlx::types::Json;

use super::Rebuild;
use crate::apply::AnyProjection;

/// Events named of a row: the last ones.
const EVENTS_NAMED: usize = 5;
/// Events that are looked at to find them: the last ones.
const EVENTS_LOOKED_AT: i64 = 1_000;

/// An event that touched a row.
#[derive(Clone, Debug, Serialize)]
pub struct Touched {
    /// Its place in the store.
    pub position: Position,
    /// Which.
    pub event_id: EventId,
    /// What it is called.
    pub name: String,
}

impl Rebuild {
    /// The last events that concern a projection of the streams that a key names, of the posts and positions that its
    /// rows name, and of the community that it names, where they name the rest of the key too.
    pub(super) async fn touched(
        &self,
        projection: &dyn AnyProjection,
        key: &Map<String, Value>,
        rows: &[Map<String, Value>],
    ) -> sqlx::Result<Vec<Touched>> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let positions: Vec<i64> = rows.iter().filter_map(|row| row.get("position")?.as_i64()).collect();
        let columns = rows.iter().flat_map(|row| row.iter());
        let posts = columns.filter(|(column, _)| column.ends_with("post_id")).filter_map(|(_, id)| text(id));
        let mut ids: Vec<String> = key.values().filter_map(text).collect();
        let mut streams: Vec<String> = ids.iter().cloned().chain([ids.join(".")]).chain(posts).collect();
        // What belongs to two things has a stream named by both, in an order of its own.
        ids.reverse();
        streams.push(ids.join("."));
        let community = key.get("community_id").and_then(Value::as_str).and_then(|id| id.parse().ok());
        let rest: Vec<String> =
            key.iter().filter(|(column, _)| *column != "community_id").filter_map(|(_, value)| text(value)).collect();
        let found = sqlx::query!(
            r#"select position as "position!", event_id as "event_id!", event_type as "name!",
                event_version as "version!", payload as "payload!: Json<Box<RawValue>>"
            from events where position in (
                select position from events
                where aggregate_type = any(array['account', 'community', 'category_tree', 'membership', 'thread', 'post', 'reaction'])
                    and aggregate_id = any($1)
                union
                select unnest($2::bigint[])
                union
                select position from events e
                where (shard, position) >= ($3, 0) and (shard, position) <= ($3, $4) and community_id = $5
                    and (select bool_and(strpos(e.payload::text || e.metadata::text, named) > 0) from unnest($6::text[]) named) is not false
            ) order by position desc limit $7"#,
            &streams,
            &positions,
            community.map_or(0, |id| i16::from(Shard::of_community(CommunityId(id)))),
            Position::MAX,
            community,
            &rest,
            EVENTS_LOOKED_AT,
        );
        let mut touched = Vec::new();
        let mut found = found.fetch(self.store.pool());
        while let Some(row) = found.try_next().await? {
            let events = row.version.parse().map(|version| events::decode(&row.name, version, &row.payload));
            if matches!(events, Ok(Ok(events)) if events.iter().any(|event| projection.concerns(event))) {
                touched.push(Touched { position: row.position, event_id: EventId(row.event_id), name: row.name });
            }
            if touched.len() == EVENTS_NAMED {
                break;
            }
        }
        Ok(touched)
    }
}

//! The event store's tables, without anybody who runs, and commands for it.

use command_service::store::{Append, NewEvent};
use events::{CommunityId, Event, EventId, Metadata, Shard, Stream};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use uuid::Uuid;

use crate::postgres::fresh_database;

/// A pool on the store's schema of a database of its own.
///
/// # Panics
/// Where Postgres is away.
pub async fn pool(connections: u32) -> PgPool {
    let options: PgConnectOptions = fresh_database().await.parse().expect("a URL");
    let options = options.options([("search_path", "store")]);
    PgPoolOptions::new().max_connections(connections).connect_with(options).await.expect("connects")
}

/// A command that appends `events` to one stream, at that version of it.
///
/// # Panics
/// Where an event does not serialize.
pub fn write(community: CommunityId, stream: &Stream, version: i64, events: &[Event]) -> Append {
    let event = |(sequence, event): (i64, &Event)| NewEvent {
        stream: stream.clone(),
        sequence,
        event_id: EventId::new(),
        name: event.name(),
        version: event.version(),
        payload: event.payload().expect("JSON"),
    };
    let metadata = Metadata {
        actor: None,
        correlation_id: Uuid::now_v7(),
        causation_id: None,
        traceparent: None,
        occurred_at: None,
    };
    Append {
        shard: Shard::of_community(community),
        community: Some(community),
        checks: vec![(stream.clone(), version)],
        events: (version + 1..).zip(events).map(event).collect(),
        metadata: serde_json::to_string(&metadata).expect("JSON"),
        claims: Vec::new(),
        private: Vec::new(),
        receipt: None,
    }
}

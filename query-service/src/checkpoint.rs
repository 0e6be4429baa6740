//! The checkpoint table: how far each projection has come in each shard.

use std::sync::Arc;

use events::{HistoryId, Position, Shard};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{batch::Ask, projection::Projection};

/// A row of the checkpoint table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) projection: Projection,
    pub(crate) shard: Shard,
    pub(crate) history: HistoryId,
    pub(crate) position: Position,
    /// How often a rebuild has replaced its rows.
    pub(crate) built: i32,
}

struct Row {
    projection: String,
    shard: i16,
    history: Uuid,
    position: Position,
    built: i32,
}

impl Checkpoint {
    /// All of them, as of now.
    pub(crate) async fn all(db: &PgPool) -> sqlx::Result<Vec<Self>> {
        let rows = sqlx::query_as!(Row, "select projection, shard, history, position, built from checkpoint")
            .fetch_all(db)
            .await?;
        Ok(rows.into_iter().filter_map(|row| Self::from_row(&row)).collect())
    }

    /// None for a projection of a newer release.
    fn from_row(row: &Row) -> Option<Self> {
        Some(Self {
            projection: Projection::named(&row.projection)?,
            shard: Shard::try_from(row.shard).ok()?,
            history: HistoryId(row.history),
            position: row.position,
            built: row.built,
        })
    }
}

/// Asks for the checkpoints of one shard.
#[derive(Debug)]
pub(crate) struct OfShard;

impl Ask for OfShard {
    type Question = Shard;
    type Answer = Arc<[Checkpoint]>;

    async fn ask(&self, shards: &[Shard], connection: &mut PgConnection) -> sqlx::Result<Vec<Arc<[Checkpoint]>>> {
        let numbers: Vec<i16> = shards.iter().map(|shard| i16::from(*shard)).collect();
        // By name too: that is what the index begins with.
        let names = Projection::ALL.map(Projection::name);
        let select = sqlx::query_as!(
            Row,
            "select projection, shard, history, position, built from checkpoint where projection = any($1) and shard = any($2)",
            names.as_slice() as _,
            &numbers
        );
        let found: Vec<_> =
            select.fetch_all(connection).await?.into_iter().filter_map(|row| Checkpoint::from_row(&row)).collect();
        let of = |shard: &Shard| found.iter().filter(|checkpoint| checkpoint.shard == *shard).copied().collect();
        Ok(shards.iter().map(of).collect())
    }
}

//! A reader's own reactions, which stand beside pages that others see too.

use std::{collections::BTreeMap, sync::Arc};

use events::{Position, PostId, ThreadId};
use platform::problem::Problem;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    failure::Failure,
    projection::Projection,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::Audience,
};

/// What only this reader is told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Mine {
    /// Its own reactions to the posts of the page: the kind by the post's id.
    #[schema(example = json!({"019a2b3c-0000-7000-8000-000000000001": "like"}))]
    pub(crate) reactions: BTreeMap<Uuid, String>,
}

/// The reader's own reactions to these posts of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct OwnReactions {
    pub(crate) thread: ThreadId,
    pub(crate) posts: Arc<[PostId]>,
}

pub(crate) struct Row {
    positions: Vec<Position>,
    /// None where there is no reaction at all: one row always tells the positions.
    post_id: Option<Uuid>,
    kind: Option<String>,
}

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }
}

impl View for OwnReactions {
    const NAME: &'static str = "own_reactions";
    const JOINS: &'static [Projection] = &[Projection::ThreadPage];
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, oneself: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let posts: Vec<Uuid> = self.posts.iter().map(|post| post.0).collect();
        let rows = sqlx::query_as!(
            Row,
            r#"select r.positions as "positions!", k.post_id as "post_id?", k.kind as "kind?"
            from reflected($1, $2, $3) r
            left join reaction k on k.account_id = $4 and k.post_id = any($5)"#,
            at.joins,
            at.shards,
            at.line,
            oneself.oneself().map(Uuid::from),
            &posts
        );
        Ok(rows.fetch_all(&mut *at.connection).await?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let reactions = rows.into_iter().filter_map(|row| row.post_id.zip(row.kind)).collect();
        Ok(Page::new(0, &Mine { reactions }, Shows::of(Projection::ThreadPage, self.thread)))
    }
}

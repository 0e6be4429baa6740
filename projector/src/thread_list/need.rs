//! What a batch has to know before it is folded.

use std::collections::HashMap;

use events::{
    Event, PostEvent, ReactionEvent, ThreadEvent,
    post::{self, Written},
    reaction::{Cleared, ScoreImported, Set},
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::ThreadPost;
use crate::{
    projection::Recorded,
    table::{self, Table},
};

/// The rows that a batch needs.
#[derive(Default)]
pub(super) struct Need {
    pub(super) threads: Vec<Uuid>,
    pub(super) posts: Vec<Uuid>,
    /// Threads of which every post counts: they move, go or come back as a whole.
    pub(super) whole: Vec<Uuid>,
    /// Threads whose last post may be another one afterwards, with how many posts go or come back: the newest that can
    /// be seen then is among that many and one of those that can be seen now, or in the batch.
    pub(super) newest: HashMap<Uuid, i32>,
}

impl Need {
    pub(super) fn of(events: &[Recorded<'_>]) -> Self {
        let mut need = Self::default();
        for recorded in events {
            match recorded.event {
                Event::Thread(event) => {
                    let id = recorded.id().ok();
                    need.threads.extend(id);
                    if matches!(event, ThreadEvent::Moved(_) | ThreadEvent::Deleted(_) | ThreadEvent::Restored(_)) {
                        need.whole.extend(id);
                    }
                }
                Event::Post(event) if !matches!(event, PostEvent::Written(_)) => {
                    let thread = thread_of(event);
                    need.threads.push(thread);
                    need.posts.extend(recorded.id().ok());
                    *need.newest.entry(thread).or_insert(1) += 1;
                }
                Event::Post(PostEvent::Written(Written { thread, .. }))
                | Event::Reaction(
                    ReactionEvent::Set(Set { thread, .. })
                    | ReactionEvent::Cleared(Cleared { thread, .. })
                    | ReactionEvent::ScoreImported(ScoreImported { thread, .. }),
                ) => need.threads.push(thread.0),
                _ => {}
            }
        }
        need
    }
}

/// The newest posts that can be seen, as many of each thread as it says.
pub(super) async fn add_newest(
    posts: &mut Table<ThreadPost>,
    newest: HashMap<Uuid, i32>,
    from: &mut PgConnection,
) -> sqlx::Result<()> {
    if newest.is_empty() {
        return Ok(());
    }
    let (threads, numbers): (Vec<Uuid>, Vec<i32>) = newest.into_iter().unzip();
    let sql = format!(
        "select p.* from unnest($1::uuid[], $2::integer[]) t (id, number) cross join lateral (
             select {} from thread_post where thread_id = t.id and not deleted and not hidden
             order by written_position desc limit t.number
         ) p",
        table::columns::<ThreadPost>()
    );
    posts.add(sqlx::query(&sql).bind(threads).bind(numbers), from).await
}

fn thread_of(event: &PostEvent) -> Uuid {
    match event {
        PostEvent::Written(Written { thread, .. })
        | PostEvent::Edited(post::Edited { thread, .. })
        | PostEvent::Deleted(post::Deleted { thread, .. })
        | PostEvent::Restored(post::Restored { thread, .. })
        | PostEvent::Hidden(post::Hidden { thread, .. })
        | PostEvent::Unhidden(post::Unhidden { thread, .. }) => thread.0,
    }
}

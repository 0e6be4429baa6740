//! A thread and its posts, folded from their events. Pure. Texts are not kept, only where they stand: a page shows few.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use events::{
    DecodeError, Envelope, Event, Position, PostEvent, ReactionEvent, ThreadEvent,
    post::Written,
    reaction::{ScoreImported, Set},
    thread::{AnswerAccepted, Moved, Pinned, Retitled, Started, TagsSet},
};
use rendering::score;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A thread as it was.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ThreadThen {
    pub(super) title: String,
    pub(super) category_id: Uuid,
    pub(super) tags: Vec<String>,
    /// Null for a deleted account.
    pub(super) author_id: Option<Uuid>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) pinned: bool,
    pub(super) pinned_until: Option<DateTime<Utc>>,
    pub(super) locked: bool,
    pub(super) deleted: bool,
    /// The accepted answer, whatever became of it; null where there was none.
    pub(super) answer_id: Option<Uuid>,
    /// How many events it had seen.
    pub(super) version: i64,
}

impl ThreadThen {
    /// Takes in one more of its events; it is none before the first. An error leaves it as it was.
    pub(super) fn take(then: &mut Option<Self>, envelope: &Envelope) -> Result<(), DecodeError> {
        for event in envelope.decode()? {
            if let Event::Thread(event) = event {
                *then = match (then.take(), event) {
                    (_, ThreadEvent::Started(started)) => Some(Self::started(started, envelope)),
                    (then, event) => then.map(|then| then.and(event)),
                };
            }
        }
        if let Some(then) = then {
            then.version = envelope.sequence;
        }
        Ok(())
    }

    fn started(started: Started, envelope: &Envelope) -> Self {
        let Started { category, title, tags, author, opening_post: _ } = started;
        Self {
            title,
            category_id: category.0,
            tags,
            author_id: author.map(Uuid::from),
            created_at: envelope.occurred_at(),
            pinned: false,
            pinned_until: None,
            locked: false,
            deleted: false,
            answer_id: None,
            version: 0,
        }
    }

    fn and(mut self, event: ThreadEvent) -> Self {
        match event {
            ThreadEvent::Started(_) => {}
            ThreadEvent::Retitled(Retitled { title, .. }) => self.title = title,
            ThreadEvent::Moved(Moved { to, from: _ }) => self.category_id = to.0,
            ThreadEvent::TagsSet(TagsSet { tags, .. }) => self.tags = tags,
            ThreadEvent::Locked(_) => self.locked = true,
            ThreadEvent::Unlocked(_) => self.locked = false,
            ThreadEvent::Pinned(Pinned { until }) => (self.pinned, self.pinned_until) = (true, until),
            ThreadEvent::Unpinned(_) => (self.pinned, self.pinned_until) = (false, None),
            ThreadEvent::AnswerAccepted(AnswerAccepted { post, .. }) => self.answer_id = Some(post.0),
            ThreadEvent::AnswerCleared(_) => self.answer_id = None,
            ThreadEvent::Deleted(_) => self.deleted = true,
            ThreadEvent::Restored(_) => self.deleted = false,
        }
        self
    }
}

/// A post as it was, without its text.
#[derive(Clone, Debug)]
pub(super) struct PostThen {
    pub(super) id: Uuid,
    /// Where it was written.
    pub(super) written: Position,
    pub(super) parent: Option<Uuid>,
    pub(super) depth: u8,
    pub(super) author: Option<Uuid>,
    pub(super) created_at: DateTime<Utc>,
    pub(super) edited_at: Option<DateTime<Utc>>,
    pub(super) revision: u32,
    /// Where its text stands.
    pub(super) text: Position,
    pub(super) deleted: bool,
    pub(super) hidden: bool,
    pub(super) version: i64,
}

impl PostThen {
    pub(super) fn can_be_seen(&self) -> bool {
        !self.deleted && !self.hidden
    }

    fn written(id: Uuid, written: &Written, envelope: &Envelope) -> Self {
        Self {
            id,
            written: envelope.position,
            parent: written.parent.map(Uuid::from),
            depth: written.depth,
            author: written.author.map(Uuid::from),
            created_at: envelope.occurred_at(),
            edited_at: None,
            revision: 1,
            text: envelope.position,
            deleted: false,
            hidden: false,
            version: 0,
        }
    }

    fn and(&mut self, event: &PostEvent, envelope: &Envelope) {
        match event {
            PostEvent::Written(_) => {}
            PostEvent::Edited(edited) => {
                self.revision = edited.revision;
                (self.edited_at, self.text) = (Some(envelope.occurred_at()), envelope.position);
            }
            PostEvent::Deleted(_) => self.deleted = true,
            PostEvent::Restored(_) => self.deleted = false,
            PostEvent::Hidden(_) => self.hidden = true,
            PostEvent::Unhidden(_) => self.hidden = false,
        }
        self.version = envelope.sequence;
    }
}

/// The posts of a thread.
#[derive(Debug, Default)]
pub(super) struct PostsThen(HashMap<Uuid, PostThen>);

impl PostsThen {
    /// Takes in one more event, in the order of its post's stream. An error leaves them as they were.
    pub(super) fn take(&mut self, envelope: &Envelope) -> Result<(), DecodeError> {
        let Ok(id) = envelope.stream.uuid() else { return Ok(()) };
        for event in envelope.decode()? {
            let Event::Post(event) = event else { continue };
            if let PostEvent::Written(written) = &event {
                self.0.insert(id, PostThen::written(id, written, envelope));
            }
            if let Some(post) = self.0.get_mut(&id) {
                post.and(&event, envelope);
            }
        }
        Ok(())
    }

    /// By number: the first is 1.
    pub(super) fn by_number(self) -> Vec<PostThen> {
        let mut posts: Vec<_> = self.0.into_values().collect();
        posts.sort_unstable_by_key(|post| post.written);
        posts
    }
}

/// How a post was reacted to.
#[derive(Debug, Default)]
pub(super) struct ReactionsThen {
    pub(super) kinds: BTreeMap<String, i32>,
    pub(super) imported: (i32, i32),
}

impl ReactionsThen {
    /// Takes in the last event of one more stream of reactions to it.
    pub(super) fn take(&mut self, event: ReactionEvent) {
        match event {
            ReactionEvent::Set(Set { kind, .. }) => *self.kinds.entry(kind).or_default() += 1,
            ReactionEvent::ScoreImported(ScoreImported { up, down, .. }) => {
                self.imported = (score::votes(up), score::votes(down));
            }
            ReactionEvent::Cleared(_) => {}
        }
    }

    pub(super) fn score(&self) -> i32 {
        let (up, down) = self.imported;
        self.kinds.iter().map(|(kind, count)| score::weight(kind) * count).sum::<i32>() + up - down
    }
}

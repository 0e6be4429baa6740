//! Events as rows of the store.

use events::{
    AccountId, CategoryId, CommunityEvent, CommunityId, Event, EventId, Metadata, PostEvent, PostId, Shard, Stream,
    ThreadEvent, ThreadId, community, post, thread,
};
use serde_json::Value;
use uuid::Uuid;

/// An event as a row of the store, but for its place there.
#[derive(Clone)]
pub(crate) struct Recorded {
    pub(super) event_id: EventId,
    pub(super) stream: Stream,
    pub(super) shard: Shard,
    pub(crate) community: Option<CommunityId>,
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) payload: String,
    pub(super) metadata: Metadata,
}

impl Recorded {
    pub(super) fn new(
        community: Option<CommunityId>,
        actor: Option<AccountId>,
        stream: Stream,
        event: impl Into<Event>,
    ) -> Self {
        let event = event.into();
        let shard = match community {
            Some(community) => Shard::of_community(community),
            None => Shard::of_account(AccountId(stream.uuid().expect("an account"))),
        };
        let metadata = Metadata {
            actor,
            correlation_id: Uuid::now_v7(),
            causation_id: None,
            traceparent: None,
            occurred_at: None,
        };
        let (name, version) = (event.name().to_owned(), event.version());
        let payload = event.payload().expect("JSON").get().to_owned();
        Self { event_id: EventId::new(), stream, shard, community, name, version, payload, metadata }
    }

    /// An event of a community as it would never be written.
    pub(crate) fn raw(community: CommunityId, stream: Stream, name: &str, payload: &Value) -> Self {
        let event = CommunityEvent::Resumed(community::Resumed {});
        let (name, payload) = (name.to_owned(), payload.to_string());
        Self { stream, name, payload, ..Self::new(Some(community), None, Stream::community(community), event) }
    }

    pub(crate) fn created(id: CommunityId, slug: &str) -> Self {
        let created = community::Created { settings: settings(slug), owner: AccountId::new() };
        Self::new(Some(id), None, Stream::community(id), CommunityEvent::Created(created))
    }

    pub(crate) fn renamed(id: CommunityId, slug: &str) -> Self {
        let changed = community::SettingsChanged { settings: settings(slug) };
        Self::new(Some(id), None, Stream::community(id), CommunityEvent::SettingsChanged(changed))
    }

    /// A thread and its opening post.
    pub(crate) fn started(community: CommunityId) -> (ThreadId, [Self; 2]) {
        let (thread, opening_post, author) = (ThreadId::new(), PostId::new(), Some(AccountId::new()));
        let started = thread::Started {
            category: CategoryId::new(),
            title: "Tea".to_owned(),
            tags: vec!["green".to_owned()],
            author,
            opening_post,
        };
        let opening = Self::written(community, thread, opening_post, None, author, "How long?");
        (thread, [Self::new(Some(community), author, Stream::thread(thread), ThreadEvent::Started(started)), opening])
    }

    /// A reply to nothing in particular, so that it needs no other post.
    pub(crate) fn reply(community: CommunityId, thread: ThreadId, body: &str) -> Self {
        Self::written(community, thread, PostId::new(), None, None, body)
    }

    pub(super) fn written(
        community: CommunityId,
        thread: ThreadId,
        post: PostId,
        parent: Option<(PostId, u8)>,
        author: Option<AccountId>,
        body: &str,
    ) -> Self {
        let depth = parent.map_or(0, |(_, depth)| depth + 1);
        let (parent, body) = (parent.map(|(parent, _)| parent), body.to_owned());
        let written = post::Written { thread, parent, depth, author, body, format: post::Format::Markdown };
        Self::new(Some(community), author, Stream::post(post), PostEvent::Written(written))
    }
}

pub(super) fn settings(slug: &str) -> community::Settings {
    community::Settings { slug: slug.to_owned(), name: slug.to_owned(), ..community::Settings::default() }
}

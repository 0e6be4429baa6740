//! What an event travels in: the same from the store's row and from the Kafka message.

use std::{borrow::Cow, fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    AccountId, CommunityId, DecodeError, Event, EventId, HistoryId, PostId, ReactionEvent, Shard, ThreadId,
    position::Position,
    reaction,
    upcast::{self, Newest},
};

/// One aggregate's events: its type and its id. `Display` is the `CloudEvents` subject, `thread/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stream {
    /// `thread`, `post`, …: the `aggregate_type` column.
    pub aggregate: String,
    /// The aggregate's id; `<one>.<other>` where it belongs to two things.
    pub id: String,
}

impl Stream {
    /// An account's stream.
    pub fn account(id: AccountId) -> Self {
        Self::named("account", id)
    }

    /// A community's stream.
    pub fn community(id: CommunityId) -> Self {
        Self::named("community", id)
    }

    /// The stream of a community's category tree.
    pub fn category_tree(community: CommunityId) -> Self {
        Self::named("category_tree", community)
    }

    /// The stream of what is between an account and a community.
    pub fn membership(community: CommunityId, account: AccountId) -> Self {
        Self::named("membership", format_args!("{community}.{account}"))
    }

    /// A thread's stream.
    pub fn thread(id: ThreadId) -> Self {
        Self::named("thread", id)
    }

    /// A post's stream.
    pub fn post(id: PostId) -> Self {
        Self::named("post", id)
    }

    /// The stream of an account's reaction to a post.
    pub fn reaction(post: PostId, account: AccountId) -> Self {
        Self::named("reaction", format_args!("{post}.{account}"))
    }

    /// The stream of the score that a post was imported with.
    pub fn imported_score(post: PostId) -> Self {
        Self::named("reaction", format_args!("{post}.imported"))
    }

    /// Whether an event can be in this stream: of its aggregate, and, of what is between two things, of these two.
    pub fn takes(&self, event: &Event) -> bool {
        let of = event.name().split_once('.').map_or("", |(of, _)| of);
        match event {
            Event::Membership(event) => {
                self.aggregate == of && self.id.split_once('.').is_some_and(|(_, id)| id == event.account().to_string())
            }
            Event::Reaction(
                ReactionEvent::Set(reaction::Set { post, account, .. })
                | ReactionEvent::Cleared(reaction::Cleared { post, account, .. }),
            ) => *self == Self::reaction(*post, *account),
            Event::Reaction(ReactionEvent::ScoreImported(reaction::ScoreImported { post, .. })) => {
                *self == Self::imported_score(*post)
            }
            Event::Category(_) => self.aggregate == "category_tree",
            _ => self.aggregate == of,
        }
    }

    fn named(aggregate: &str, id: impl fmt::Display) -> Self {
        Self { aggregate: aggregate.to_owned(), id: id.to_string() }
    }

    /// The id as a UUID (for a stream of two things, the first): what a thread's or a post's stream is named by.
    ///
    /// # Errors
    /// [`uuid::Error`] where a stream is not named so, which none of ours is.
    pub fn uuid(&self) -> Result<Uuid, uuid::Error> {
        self.id.split_once('.').map_or(self.id.as_str(), |(first, _)| first).parse()
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate, self.id)
    }
}

impl FromStr for Stream {
    type Err = &'static str;

    fn from_str(subject: &str) -> Result<Self, Self::Err> {
        let (aggregate, id) = subject.split_once('/').ok_or("a subject is <aggregate>/<id>")?;
        Ok(Self::named(aggregate, id))
    }
}

/// Who and what caused an event: the `metadata` column. All of it is text, as `cqrs-es` expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The account that acted; none where an operator acted for a deleted account, or a job did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<AccountId>,
    /// The request that everything goes back to.
    pub correlation_id: Uuid,
    /// What caused it directly, where that was another event or job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// The trace it belongs to (W3C Trace Context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// When it happened, where that is not when it was recorded (imports).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_time")]
    pub occurred_at: Option<DateTime<Utc>>,
}

/// As chrono reads a time, but first as it is written (RFC 3339), which is quicker: a replay reads millions.
fn optional_time<'de, D: Deserializer<'de>>(value: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<Cow<'_, str>>::deserialize(value)? else { return Ok(None) };
    let time = DateTime::parse_from_rfc3339(&text).map(|time| time.to_utc()).or_else(|_| text.parse());
    time.map(Some).map_err(D::Error::custom)
}

/// A recorded event.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The event's own id.
    pub event_id: EventId,
    /// Whose event it is.
    pub stream: Stream,
    /// Its place in the stream, from 1.
    pub sequence: i64,
    /// Its place in the store.
    pub position: Position,
    /// Its lane.
    pub shard: Shard,
    /// The community it belongs to; none for an account's own events.
    pub community: Option<CommunityId>,
    /// `aggregate.past_participle`.
    pub name: String,
    /// The version that the payload is written in.
    pub version: u32,
    /// When the store took it, in microseconds; never below the event before it.
    pub recorded_at: DateTime<Utc>,
    /// Who and what caused it.
    pub metadata: Metadata,
    /// The payload, byte for byte.
    pub payload: Box<RawValue>,
}

impl Envelope {
    /// When it happened: as it says itself, else when it was recorded.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.metadata.occurred_at.unwrap_or(self.recorded_at)
    }

    /// The event in its newest version; several where an old one said several things.
    ///
    /// # Errors
    /// [`DecodeError`]; the reader stops there.
    pub fn decode(&self) -> Result<Vec<Event>, DecodeError> {
        crate::decode(&self.name, self.version, &self.payload)
    }

    /// Its payload in the newest version, which was read to see that it is one; several where an old event said
    /// several things.
    ///
    /// # Errors
    /// [`DecodeError`]; the reader stops there.
    pub fn newest(&self) -> Result<Vec<Newest<'_>>, DecodeError> {
        upcast::newest(&upcast::CURRENT, &self.name, self.version, &self.payload)
    }
}

impl PartialEq for Envelope {
    fn eq(&self, other: &Self) -> bool {
        let key =
            |it: &Self| (it.event_id, it.sequence, it.position, it.shard, it.community, it.version, it.recorded_at);
        key(self) == key(other)
            && self.stream == other.stream
            && self.name == other.name
            && self.metadata == other.metadata
            && self.payload.get() == other.payload.get()
    }
}

/// An event as a reader of the log meets it: with what proves that nothing before it is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    /// The event.
    pub envelope: Envelope,
    /// The position of the event before it in its shard; 0 for the first.
    pub previous: Position,
    /// The line of positions it belongs to.
    pub history: HistoryId,
}

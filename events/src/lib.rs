//! Agora's shared language: what every service, and everybody who reads the event history, agrees on.
//!
//! Ids ([`id`]), event types and versions ([`Event`]), the envelope they travel in ([`Envelope`]), the upcasters
//! that keep old versions readable ([`upcast`]), the Kafka codec ([`kafka`]), events as JSON ([`cloud_event`]), the
//! published catalogue ([`catalogue`]), and what of a name can be seen ([`visible`]). No I/O.

#[macro_use]
mod macros;

pub mod account;
pub mod catalogue;
pub mod category;
pub mod cloud_event;
pub mod community;
pub mod envelope;
pub mod id;
pub mod kafka;
pub mod limits;
pub mod membership;
mod next;
pub mod position;
pub mod post;
pub mod reaction;
pub mod shard;
pub mod thread;
pub mod upcast;
pub mod visible;

pub use account::AccountEvent;
pub use category::CategoryEvent;
pub use community::CommunityEvent;
pub use envelope::{Delivered, Envelope, Metadata, Stream};
pub use id::{AccountId, CategoryId, CommunityId, EventId, HistoryId, PostId, ThreadId};
pub use membership::MembershipEvent;
pub use position::{Position, PositionToken};
pub use post::PostEvent;
pub use reaction::ReactionEvent;
pub use shard::Shard;
pub use thread::ThreadEvent;

use serde_json::value::RawValue;

union_of_events! {
    /// Any event of Agora, in its newest version.
    pub enum Event {
        Account(AccountEvent),
        Community(CommunityEvent),
        Category(CategoryEvent),
        Membership(MembershipEvent),
        Thread(ThreadEvent),
        Post(PostEvent),
        Reaction(ReactionEvent),
    }
}

/// Why a stored event could not be read. It stops the reader: an event is skipped by nobody but an
/// operator, on record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No event of this name and version was ever written by this release or an older one.
    #[error("unknown event {name} version {version}: written by a newer release?")]
    Unknown {
        /// The event's name.
        name: String,
        /// The version it claims.
        version: u32,
    },
    /// The payload is not what the name and version promise.
    #[error("event {name} version {version} does not decode: {source}")]
    Payload {
        /// The event's name.
        name: String,
        /// Its version.
        version: u32,
        /// What serde found.
        source: serde_json::Error,
    },
    /// An upcaster refused the old payload.
    #[error("event {name} version {version} cannot be upcast: {reason}")]
    Upcast {
        /// The event's name.
        name: String,
        /// The version it was written in.
        version: u32,
        /// The upcaster's own words.
        reason: String,
    },
}

/// Reads a stored payload: as it is where it has the newest version, else through the [`upcast::CURRENT`] steps.
/// An old event may have become several, which take its place in order.
///
/// # Errors
/// [`DecodeError`] where the name or version is unknown, or the payload is not what they promise.
pub fn decode(name: &str, version: u32, payload: &RawValue) -> Result<Vec<Event>, DecodeError> {
    upcast::decode_with(&upcast::CURRENT, name, version, payload)
}

#[cfg(test)]
mod tests;

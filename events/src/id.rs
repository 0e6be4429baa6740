//! Typed ids: `UUIDv7` (RFC 9562), in their hyphenated lower-case form everywhere.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $id:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = Uuid, example = "0191e2b8-7c00-7000-8000-000000000001")]
        pub struct $id(pub Uuid);

        impl $id {
            /// A new id of this moment.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self.0)
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $id {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl From<Uuid> for $id {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$id> for Uuid {
            fn from(id: $id) -> Self {
                id.0
            }
        }
    )+};
}

ids! {
    /// A person, or a program, on the whole platform.
    AccountId,
    /// A forum: the unit of visibility and of order.
    CommunityId,
    /// A place for threads in a community's category tree.
    CategoryId,
    /// A discussion: an opening post and its replies.
    ThreadId,
    /// One contribution to a thread.
    PostId,
    /// One event, wherever it is met: in the store, in Kafka, in an export.
    EventId,
    /// One line of positions. A store that was put back to an earlier state gets a new one.
    HistoryId,
}

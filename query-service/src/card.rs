//! How one thing is named where another is shown. Names are joined when read, never copied: what is of another shard
//! may not have come yet, and then shows by its id alone.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// An account, as it stands beside what it did.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AccountCard {
    pub(crate) id: Uuid,
    /// Missing for a moment where the account is newer than the read tables.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "ada")]
    pub(crate) username: Option<String>,
    /// The name shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "Ada Lovelace")]
    pub(crate) display_name: Option<String>,
}

impl AccountCard {
    /// None where there is no account: it was deleted before an import.
    pub(crate) fn new(id: Option<Uuid>, username: Option<String>, display_name: Option<String>) -> Option<Self> {
        id.map(|id| Self { id, username, display_name })
    }
}

/// A community, as it stands beside what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CommunityCard {
    pub(crate) id: Uuid,
    #[schema(example = "french-meta")]
    pub(crate) slug: String,
    #[schema(example = "French Language Meta")]
    pub(crate) name: String,
}

/// A category, as it stands beside what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CategoryCard {
    pub(crate) id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "general")]
    pub(crate) slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "General")]
    pub(crate) name: Option<String>,
}

/// A thread, as it stands beside what is in it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ThreadCard {
    pub(crate) id: Uuid,
    #[schema(example = "What does everybody read?")]
    pub(crate) title: String,
}

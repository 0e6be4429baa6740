//! What happens to a community's category tree: one stream, named by the community, so that its rules (no cycles,
//! depth, unique slugs among siblings) need one stream only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::CategoryId;

/// How a category presents itself, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presentation {
    /// Its name in addresses, unique among its siblings: `[a-z0-9-]`.
    pub slug: String,
    /// Its name as shown.
    pub name: String,
    /// What belongs there.
    pub description: String,
}

/// A category was created, last among its siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// The new category.
    pub category: CategoryId,
    /// The category that it is below; none at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CategoryId>,
    /// How it presents itself.
    #[serde(flatten)]
    pub presentation: Presentation,
}

/// A category presents itself anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// Which.
    pub category: CategoryId,
    /// How, from now on.
    #[serde(flatten)]
    pub presentation: Presentation,
}

/// A category went below another one, with all that is below it, last among its new siblings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Moved {
    /// Which.
    pub category: CategoryId,
    /// The category that it is below from now on; none at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CategoryId>,
}

/// The children of one category (or those at the top) stand in a new order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reordered {
    /// Whose children; none for those at the top.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<CategoryId>,
    /// All of them, first to last.
    pub order: Vec<CategoryId>,
}

/// A category became read-only; its threads stay readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Archived {
    /// Which.
    pub category: CategoryId,
}

/// An archived category takes threads and posts again, unless one above it is archived.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restored {
    /// Which.
    pub category: CategoryId,
}

aggregate_events! {
    /// The stream of a category tree, named by its [`crate::CommunityId`].
    CategoryEvent {
        /// See [`Created`].
        Created(Created) = ("category.created", 1),
        /// See [`Changed`].
        Changed(Changed) = ("category.changed", 1),
        /// See [`Moved`].
        Moved(Moved) = ("category.moved", 1),
        /// See [`Reordered`].
        Reordered(Reordered) = ("category.reordered", 1),
        /// See [`Archived`].
        Archived(Archived) = ("category.archived", 1),
        /// See [`Restored`].
        Restored(Restored) = ("category.restored", 1),
    }
}

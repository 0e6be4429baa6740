//! What happens to a community as a whole. Its owners are facts of this stream, so that "at least one owner" needs
//! no look at a set of memberships.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AccountId, next};

/// Who may read and who may write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Anyone reads, every account posts.
    #[default]
    Public,
    /// Anyone reads, members post.
    Restricted,
    /// Members read and post; nobody else learns that it exists.
    Private,
}

/// A community's settings, whole: a change states all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Its name in addresses, unique on the platform: `[a-z0-9-]`.
    pub slug: String,
    /// Its name as shown.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// Who may read and write.
    pub visibility: Visibility,
    /// The kinds of reaction allowed, besides `up`, `down` and `like`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<String>,
}

/// A community was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Created {
    /// How it is set up.
    #[serde(flatten)]
    pub settings: Settings,
    /// Its first owner.
    pub owner: AccountId,
}

/// The settings were changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SettingsChanged {
    /// How it is set up from now on.
    #[serde(flatten)]
    pub settings: Settings,
}

/// A member became an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerAdded {
    /// Who.
    pub account: AccountId,
}

/// An owner is one no more; what role is left stands in the membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerRemoved {
    /// Who.
    pub account: AccountId,
}

/// The platform's operator made it read-only for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspended {
    /// Why.
    pub reason: String,
}

/// A suspended or archived community takes posts again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {}

/// Its owners made it read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Archived {}

aggregate_events! {
    /// The stream of a community, named by its [`crate::CommunityId`].
    CommunityEvent {
        /// See [`Created`].
        Created(Created) = ("community.created", 1),
        /// See [`SettingsChanged`].
        SettingsChanged(SettingsChanged) = ("community.settings_changed", 1),
        /// See [`OwnerAdded`].
        OwnerAdded(OwnerAdded) = ("community.owner_added", 1),
        /// See [`OwnerRemoved`].
        OwnerRemoved(OwnerRemoved) = ("community.owner_removed", 1),
        /// See [`Suspended`].
        Suspended(Suspended) = ("community.suspended", 1),
        /// See [`Resumed`].
        Resumed(Resumed) = ("community.resumed", 1),
        /// See [`Archived`].
        Archived(Archived) = ("community.archived", next::VERSION),
    }
}

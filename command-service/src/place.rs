//! The way from what a path names to the place where it stands, and to what the actor is there. Whether a place shows
//! itself is decided here, and nowhere else on the write side.

use std::sync::Arc;

use events::{AccountId, CategoryId, CommunityId, PostId, Stream, ThreadId};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::{
    Refusal,
    access::{Actor, Standing},
    account::{Account, AccountRefusal, USERNAME},
    category::{CATEGORY, CategoryTree},
    community::{Community, CommunityRefusal, SLUG},
    membership::Membership,
    post::{Post, PostRefusal, Surroundings},
    store::{Loaded, Request, Stop, Work},
    thread::{Ground, Thread, ThreadRefusal},
};

/// What an attempt comes to so far.
pub(crate) type Found<T> = Result<T, Stop<Refusal>>;

/// A community as a path names it: by id or slug.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum CommunityRef {
    /// By id.
    Id(CommunityId),
    /// By slug.
    Slug(String),
}

/// An account as a path names it: by id, by username, or as `me`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum AccountRef {
    /// The one that acts.
    Me,
    /// By id.
    Id(AccountId),
    /// By username, in lower case.
    Name(String),
}

impl From<String> for CommunityRef {
    fn from(text: String) -> Self {
        Uuid::try_parse(&text).map_or(Self::Slug(text), |id| Self::Id(CommunityId(id)))
    }
}

impl From<String> for AccountRef {
    fn from(text: String) -> Self {
        match Uuid::try_parse(&text) {
            _ if text == "me" => Self::Me,
            Ok(id) => Self::Id(AccountId(id)),
            Err(_) => Self::Name(text.to_lowercase()),
        }
    }
}

/// `{account}` in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct AccountPath {
    /// An account, by id or username, or `me`.
    #[param(value_type = String, example = "ada")]
    pub account: AccountRef,
}

/// `{c}` in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct CommunityPath {
    /// A community, by id or slug.
    #[param(value_type = String, example = "tea")]
    pub c: CommunityRef,
}

/// `{c}` and `{account}` in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct MemberPath {
    /// A community, by id or slug.
    #[param(value_type = String, example = "tea")]
    pub c: CommunityRef,
    /// An account, by id or username, or `me`.
    #[param(value_type = String, example = "ada")]
    pub account: AccountRef,
}

/// `{id}` of a category in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct CategoryPath {
    /// A category.
    pub id: CategoryId,
}

/// `{id}` of a thread in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct ThreadPath {
    /// A thread.
    pub id: ThreadId,
}

/// `{id}` of a post in a path.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub struct PostPath {
    /// A post.
    pub id: PostId,
}

/// Who acts in a request.
pub(crate) fn actor(request: &Request) -> Actor {
    Actor { account: request.actor, operator: request.operator }
}

impl AccountRef {
    /// The account, which is there.
    pub(crate) async fn find(&self, work: &mut Work<'_>) -> Found<AccountId> {
        let id = match self {
            Self::Me => actor(work.request()).account()?,
            Self::Id(id) => *id,
            Self::Name(name) => {
                let owner = work.lookup(USERNAME, name).await?;
                owner.and_then(|owner| owner.parse().ok()).ok_or(AccountRefusal::NotFound)?
            }
        };
        exists(work, id, AccountRefusal::NotFound).await?;
        Ok(id)
    }
}

/// A community, and what the actor is in it.
pub(crate) struct Place {
    pub(crate) id: CommunityId,
    pub(crate) community: Arc<Loaded<Community>>,
    pub(crate) standing: Standing,
}

impl Place {
    /// The community, where it shows itself.
    pub(crate) async fn find(work: &mut Work<'_>, community: &CommunityRef) -> Found<Self> {
        let id = Self::resolve(work, community).await?;
        Self::enter(work, id, CommunityRefusal::NotFound).await
    }

    /// The community, whether it shows itself or not: for who may be invited, or leaves.
    pub(crate) async fn approach(work: &mut Work<'_>, community: &CommunityRef) -> Found<Self> {
        let id = Self::resolve(work, community).await?;
        Self::look(work, id).await?.ok_or(CommunityRefusal::NotFound.into())
    }

    /// The community of something; `hidden` says that this is not found, where the community does not show itself.
    pub(crate) async fn enter(work: &mut Work<'_>, id: CommunityId, hidden: impl Into<Refusal>) -> Found<Self> {
        let place = Self::look(work, id).await?;
        place.filter(|place| place.standing.sees()).ok_or_else(|| Stop::Refused(hidden.into()))
    }

    async fn resolve(work: &mut Work<'_>, community: &CommunityRef) -> Found<CommunityId> {
        match community {
            CommunityRef::Id(id) => Ok(*id),
            CommunityRef::Slug(slug) => {
                let owner = work.lookup(SLUG, slug).await?;
                Ok(owner.and_then(|owner| owner.parse().ok()).ok_or(CommunityRefusal::NotFound)?)
            }
        }
    }

    async fn look(work: &mut Work<'_>, id: CommunityId) -> Found<Option<Self>> {
        let community = work.load::<Community>(&Stream::community(id)).await?;
        if !community.state.exists() {
            return Ok(None);
        }
        work.in_community(id);
        let (actor, now) = (actor(work.request()), work.request().now);
        let standing = match actor.account {
            Some(account) => {
                if actor.operator {
                    exists(work, account, AccountRefusal::NobodyToActFor).await?;
                }
                let membership = work.load::<Membership>(&Stream::membership(id, account)).await?;
                Standing::of(actor, &community.state, &membership.state, now)
            }
            None => Standing::of(actor, &community.state, &Membership::default(), now),
        };
        Ok(Some(Self { id, community, standing }))
    }
}

/// A community's category tree.
pub(crate) struct AtTree {
    pub(crate) place: Place,
    pub(crate) tree: Arc<Loaded<CategoryTree>>,
}

impl AtTree {
    /// The tree of this place.
    pub(crate) async fn of(work: &mut Work<'_>, place: Place) -> Found<Self> {
        let tree = work.load::<CategoryTree>(&Stream::category_tree(place.id)).await?;
        Ok(Self { place, tree })
    }

    /// The tree that a category is in; `hidden` says that what is in the category is not found.
    pub(crate) async fn with(work: &mut Work<'_>, category: CategoryId, hidden: impl Into<Refusal>) -> Found<Self> {
        let home = work.lookup_lasting(CATEGORY, &category.to_string()).await?;
        let Some(community) = home.and_then(|home| home.parse().ok()) else {
            return Err(Stop::Refused(hidden.into()));
        };
        let place = Place::enter(work, community, hidden).await?;
        Self::of(work, place).await
    }
}

/// A thread, and where it stands.
pub(crate) struct AtThread {
    pub(crate) id: ThreadId,
    pub(crate) thread: Arc<Loaded<Thread>>,
    pub(crate) at: AtTree,
}

impl AtThread {
    /// The thread, where its community shows itself; a deleted one only to its author and to moderators.
    pub(crate) async fn find(work: &mut Work<'_>, id: ThreadId) -> Found<Self> {
        Self::around(work, id, ThreadRefusal::NotFound).await
    }

    async fn around(work: &mut Work<'_>, id: ThreadId, hidden: impl Into<Refusal> + Clone) -> Found<Self> {
        let thread = work.load::<Thread>(&Stream::thread(id)).await?;
        let Some(category) = thread.state.category else {
            return Err(Stop::Refused(hidden.into()));
        };
        let at = AtTree::with(work, category, hidden.clone()).await?;
        if thread.state.is_deleted() && !at.place.standing.sees_deleted(thread.state.author) {
            return Err(Stop::Refused(hidden.into()));
        }
        Ok(Self { id, thread, at })
    }

    /// Who started it.
    pub(crate) fn author(&self) -> Option<AccountId> {
        self.thread.state.author
    }

    /// What the actor is here.
    pub(crate) fn standing(&self) -> &Standing {
        &self.at.place.standing
    }

    /// What its posts' rules look at.
    pub(crate) fn surroundings(&self) -> Result<Surroundings, PostRefusal> {
        Surroundings::of(self.id, &self.thread.state, Ground::of(&self.thread.state, &self.at.tree.state))
    }
}

/// A post, and where it stands.
pub(crate) struct AtPost {
    pub(crate) id: PostId,
    pub(crate) post: Arc<Loaded<Post>>,
    pub(crate) at: AtThread,
}

impl AtPost {
    /// The post, where its thread shows itself.
    pub(crate) async fn find(work: &mut Work<'_>, id: PostId) -> Found<Self> {
        let post = work.load::<Post>(&Stream::post(id)).await?;
        let thread = post.state.thread.ok_or(PostRefusal::NotFound)?;
        let at = AtThread::around(work, thread, PostRefusal::NotFound).await?;
        Ok(Self { id, post, at })
    }

    /// Who wrote it.
    pub(crate) fn author(&self) -> Option<AccountId> {
        self.post.state.author
    }

    /// What the actor is here.
    pub(crate) fn standing(&self) -> &Standing {
        self.at.standing()
    }
}

/// The account that acts, which is there.
pub(crate) async fn acting(work: &mut Work<'_>) -> Found<AccountId> {
    let actor = actor(work.request());
    let account = actor.account()?;
    if actor.operator {
        exists(work, account, AccountRefusal::NobodyToActFor).await?;
    }
    Ok(account)
}

/// Refuses where there is no such account.
async fn exists(work: &mut Work<'_>, id: AccountId, refusal: AccountRefusal) -> Found<()> {
    let account = work.load::<Account>(&Stream::account(id)).await?;
    if account.state.username.is_none() { Err(refusal.into()) } else { Ok(()) }
}

//! Setting up a community's category tree.

use axum::{extract::State, response::Response};
use events::{CategoryId, CommunityId, Stream, category::Presentation, limits};
use garde::Validate;
use platform::extract::{Json, NoBody, Path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    ArchiveCategory, CATEGORY, CategoryCommand, CategoryRefusal, CategoryTree, ChangeCategory, CreateCategory,
    MoveCategory, ReorderCategories, RestoreCategory,
};
use crate::{
    App, Refusal,
    access::AccessRefusal,
    answer::{created, done},
    command::Command,
    community::CommunityRefusal,
    place::{AtTree, CategoryPath, CommunityPath, CommunityRef, Found, Place},
    refusal::Refused,
    store::{Answer, Operation, Stop, Work},
    text::{Description, DisplayName, Slug, chosen_id, present},
};

type Refusals = Refused<(AccessRefusal, CommunityRefusal, CategoryRefusal)>;

/// A category to be made.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewCategory {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<CategoryId>,
    /// The category that it goes below; the top, where it is not said.
    #[garde(skip)]
    pub parent_id: Option<CategoryId>,
    /// Its name in addresses, unique among its siblings.
    #[garde(dive)]
    pub slug: Slug,
    /// Its name as shown.
    #[garde(dive)]
    pub name: DisplayName,
    /// What belongs there.
    #[garde(dive)]
    pub description: Option<Description>,
}

/// What changes of a category: what is absent stays.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct CategoryPatch {
    /// Its name in addresses, unique among its siblings.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Slug, required = false)]
    pub slug: Option<Slug>,
    /// Its name as shown.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = DisplayName, required = false)]
    pub name: Option<DisplayName>,
    /// What belongs there; null clears it.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Description>, required = false)]
    pub description: Option<Option<Description>>,
    /// The category that it goes below, last among its siblings there; null for the top.
    #[garde(skip)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<CategoryId>, required = false)]
    pub parent_id: Option<Option<CategoryId>>,
}

/// An order of siblings.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewOrder {
    /// Whose children; those at the top, where it is not said.
    #[garde(skip)]
    pub parent_id: Option<CategoryId>,
    /// All of them, first to last, archived ones included.
    #[garde(length(max = limits::CATEGORIES))]
    pub order: Vec<CategoryId>,
}

/// A category, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryChanged {
    id: CategoryId,
    /// How often the community's category tree changed: what `If-Match` compares.
    version: i64,
    community_id: CommunityId,
}

/// A category tree, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CategoryTreeChanged {
    /// The community's id.
    id: CommunityId,
    /// How often its category tree changed: what `If-Match` compares.
    version: i64,
}

/// Makes a category, last among its siblings. Admins may.
#[utoipa::path(
    post,
    path = "/v2/communities/{c}/categories",
    tag = "categories",
    params(CommunityPath),
    responses((status = 201, description = "Made.", body = CategoryChanged), Refusals)
)]
pub(crate) async fn create(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    Json(body): Json<NewCategory>,
) -> Response {
    let id = body.id.unwrap_or_else(CategoryId::new);
    app.store.execute(command.request(&body), &MakeCategory { community: path.c, id, body }).await
}

/// Puts the categories of one level in order. Admins may.
#[utoipa::path(
    post,
    path = "/v2/communities/{c}/categories/order",
    tag = "categories",
    params(CommunityPath),
    responses((status = 200, description = "They stand in this order now.", body = CategoryTreeChanged), Refusals)
)]
pub(crate) async fn reorder(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    Json(body): Json<NewOrder>,
) -> Response {
    app.store.execute(command.request(&body), &OrderCategories { community: path.c, body }).await
}

/// Changes a category, and puts it elsewhere in the tree. Admins may.
#[utoipa::path(
    patch,
    path = "/v2/categories/{id}",
    tag = "categories",
    params(CategoryPath),
    responses((status = 200, description = "It is so now.", body = CategoryChanged), Refusals)
)]
pub(crate) async fn change(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CategoryPath>,
    Json(body): Json<CategoryPatch>,
) -> Response {
    let request = command.request(&body);
    let commands = move |at: &AtTree| body.commands(path.id, at);
    app.store.execute(request, &OnCategory { id: path.id, commands }).await
}

/// Archives a category: it and what is below it become read-only, and stay readable. Admins may.
#[utoipa::path(
    delete,
    path = "/v2/categories/{id}",
    tag = "categories",
    params(CategoryPath),
    responses((status = 200, description = "It is archived now.", body = CategoryChanged), Refusals)
)]
pub(crate) async fn archive(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CategoryPath>,
    _: NoBody,
) -> Response {
    let archive = |at: &AtTree| Ok(vec![ArchiveCategory { by: at.place.standing.admin()?, category: path.id }.into()]);
    app.store.execute(command.request(&()), &OnCategory { id: path.id, commands: archive }).await
}

/// Restores an archived category: it takes threads and posts again, unless one above it is archived. Admins may.
#[utoipa::path(
    post,
    path = "/v2/categories/{id}/restore",
    tag = "categories",
    params(CategoryPath),
    responses((status = 200, description = "It is not archived now.", body = CategoryChanged), Refusals)
)]
pub(crate) async fn restore(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CategoryPath>,
    _: NoBody,
) -> Response {
    let restore = |at: &AtTree| Ok(vec![RestoreCategory { by: at.place.standing.admin()?, category: path.id }.into()]);
    app.store.execute(command.request(&()), &OnCategory { id: path.id, commands: restore }).await
}

impl CategoryPatch {
    /// The move first: a slug is to be free where the category will be.
    fn commands(&self, category: CategoryId, at: &AtTree) -> Result<Vec<CategoryCommand>, Refusal> {
        let by = at.place.standing.admin()?;
        let old = &at.tree.state.get(category).ok_or(CategoryRefusal::NotFound)?.presentation;
        let Self { slug, name, description, parent_id } = self.clone();
        let presentation = Presentation {
            slug: slug.map_or_else(|| old.slug.clone(), String::from),
            name: name.map_or_else(|| old.name.clone(), String::from),
            description: description
                .map_or_else(|| old.description.clone(), |text| text.map(String::from).unwrap_or_default()),
        };
        let moved = parent_id.map(|parent| MoveCategory { by, category, parent }.into());
        Ok(moved.into_iter().chain([ChangeCategory { by, category, presentation }.into()]).collect())
    }
}

/// Commands on one category; `commands` says which, and by which permission.
struct OnCategory<F> {
    id: CategoryId,
    commands: F,
}

impl<F> Operation for OnCategory<F>
where
    F: Fn(&AtTree) -> Result<Vec<CategoryCommand>, Refusal> + Send + Sync,
{
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let at = AtTree::with(work, self.id, CategoryRefusal::NotFound).await?;
        work.require_version(at.tree.version)?;
        let community_id = at.place.id;
        let mut version = at.tree.version;
        for command in (self.commands)(&at)? {
            version = handle(work, community_id, command).await?;
        }
        Ok(done(&CategoryChanged { id: self.id, version, community_id }))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct MakeCategory {
    community: CommunityRef,
    id: CategoryId,
    body: NewCategory,
}

impl Operation for MakeCategory {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let place = Place::find(work, &self.community).await?;
        let (id, community_id) = (self.id, place.id);
        let NewCategory { parent_id: parent, slug, name, description, .. } = self.body.clone();
        let description = description.map(String::from).unwrap_or_default();
        let presentation = Presentation { slug: slug.into(), name: name.into(), description };
        let create = CreateCategory { by: place.standing.admin()?, category: id, parent, presentation };
        if work.lookup(CATEGORY, &id.to_string()).await?.is_some() {
            return Err(CategoryRefusal::DuplicateId.into());
        }
        work.claim(CATEGORY, id.to_string(), community_id.to_string());
        let version = handle(work, community_id, create.into()).await?;
        Ok(created(&CategoryChanged { id, version, community_id }))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        Some(format!("/v2/categories/{}", body.get("id")?.as_str()?))
    }
}

struct OrderCategories {
    community: CommunityRef,
    body: NewOrder,
}

impl Operation for OrderCategories {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let place = Place::find(work, &self.community).await?;
        let AtTree { place, tree } = AtTree::of(work, place).await?;
        work.require_version(tree.version)?;
        let NewOrder { parent_id: parent, order } = self.body.clone();
        let reorder = ReorderCategories { by: place.standing.admin()?, parent, order };
        let version = handle(work, place.id, reorder.into()).await?;
        Ok(done(&CategoryTreeChanged { id: place.id, version }))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

async fn handle(work: &mut Work<'_>, community: CommunityId, command: CategoryCommand) -> Found<i64> {
    Ok(work.handle::<CategoryTree>(&Stream::category_tree(community), command, &()).await?.version)
}

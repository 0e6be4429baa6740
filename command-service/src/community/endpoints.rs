//! Making communities, setting them up, and deciding about them as a whole.

use axum::{extract::State, response::Response};
use events::{
    CommunityId, Stream,
    community::{Settings, Visibility},
};
use garde::Validate;
use platform::extract::{Json, NoBody, Path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    AddOwner, Archive, ChangeSettings, Community, CommunityCommand, CommunityRefusal, CreateCommunity, RemoveOwner,
    Reopen, Resume, SLUG, Suspend,
};
use crate::{
    App, Refusal,
    access::{AccessRefusal, Standing},
    account::AccountRefusal,
    answer::{created, done},
    command::Command,
    membership::{Join, Membership},
    place::{AccountRef, CommunityPath, CommunityRef, Found, MemberPath, Place, acting, actor},
    refusal::Refused,
    store::{Answer, Operation, Request, Stop, Work},
    text::{Description, DisplayName, ReactionKinds, Reason, Slug, chosen_id, present},
};

type Refusals = Refused<(AccessRefusal, AccountRefusal, CommunityRefusal)>;

/// A community to be made.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewCommunity {
    /// Its id; one is given where none is chosen.
    #[garde(custom(chosen_id))]
    pub id: Option<CommunityId>,
    /// Its name in addresses, unique on the platform.
    #[garde(dive)]
    pub slug: Slug,
    /// Its name as shown.
    #[garde(dive)]
    pub name: DisplayName,
    /// What it is about.
    #[garde(dive)]
    pub description: Option<Description>,
    /// Who reads and writes: everybody, where it is not said.
    #[garde(skip)]
    #[serde(default)]
    #[schema(required = false)]
    pub visibility: Visibility,
    /// Kinds of reaction besides `up`, `down` and `like`.
    #[garde(dive)]
    #[serde(default)]
    #[schema(required = false)]
    pub reactions: ReactionKinds,
}

/// What changes of a community's settings: what is absent stays.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct SettingsPatch {
    /// Its name in addresses, unique on the platform. The old one is free for others at once.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Slug, required = false)]
    pub slug: Option<Slug>,
    /// Its name as shown.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = DisplayName, required = false)]
    pub name: Option<DisplayName>,
    /// What it is about; null clears it.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Description>, required = false)]
    pub description: Option<Option<Description>>,
    /// Who reads and writes.
    #[garde(skip)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Visibility, required = false)]
    pub visibility: Option<Visibility>,
    /// Kinds of reaction besides `up`, `down` and `like`, in place of those before. Reactions set stay.
    #[garde(dive)]
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = ReactionKinds, required = false)]
    pub reactions: Option<ReactionKinds>,
}

/// Why a community is suspended.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct Suspension {
    /// Why.
    #[garde(dive)]
    pub reason: Reason,
}

/// A community, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct CommunityChanged {
    id: CommunityId,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    #[schema(example = "tea")]
    slug: String,
}

impl From<NewCommunity> for Settings {
    fn from(new: NewCommunity) -> Self {
        Self {
            slug: new.slug.into(),
            name: new.name.into(),
            description: new.description.map(String::from).unwrap_or_default(),
            visibility: new.visibility,
            reactions: new.reactions.into(),
        }
    }
}

impl SettingsPatch {
    fn applied_to(&self, settings: &Settings) -> Settings {
        let Self { slug, name, description, visibility, reactions } = self.clone();
        let old = settings.clone();
        Settings {
            slug: slug.map_or(old.slug, String::from),
            name: name.map_or(old.name, String::from),
            description: description.map_or(old.description, |text| text.map(String::from).unwrap_or_default()),
            visibility: visibility.unwrap_or(old.visibility),
            reactions: reactions.map_or(old.reactions, Vec::from),
        }
    }
}

/// Makes a community, and its maker its first owner and member.
#[utoipa::path(
    post,
    path = "/v2/communities",
    tag = "communities",
    responses((status = 201, description = "Made.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn create(State(app): State<App>, command: Command, Json(body): Json<NewCommunity>) -> Response {
    let id = body.id.unwrap_or_else(CommunityId::new);
    let request = command.request(&body);
    app.store.execute(request, &MakeCommunity { id, settings: body.into() }).await
}

/// Changes a community's settings. Admins may.
#[utoipa::path(
    patch,
    path = "/v2/communities/{c}",
    tag = "communities",
    params(CommunityPath),
    responses((status = 200, description = "It is so now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn change(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    Json(body): Json<SettingsPatch>,
) -> Response {
    app.store.execute(command.request(&body), &PatchSettings { community: path.c, body }).await
}

/// Makes a member an owner. Owners may.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/owners/{account}",
    tag = "communities",
    params(MemberPath),
    responses((status = 200, description = "It is one now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn add_owner(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let MemberPath { c: community, account } = path;
    app.store.execute(command.request(&()), &ChangeOwners { community, account, add: true }).await
}

/// Ends an ownership: an owner its own, an operator anybody's. The last owner stays.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/owners/{account}",
    tag = "communities",
    params(MemberPath),
    responses((status = 200, description = "It is none now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn remove_owner(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let MemberPath { c: community, account } = path;
    app.store.execute(command.request(&()), &ChangeOwners { community, account, add: false }).await
}

/// Makes a community read-only until it is resumed. Operators only.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/suspension",
    tag = "communities",
    params(CommunityPath),
    responses((status = 200, description = "It is suspended now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn suspend(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    Json(body): Json<Suspension>,
) -> Response {
    let request = command.request(&body);
    let suspend = move |_: &Place, request: &Request| {
        Ok(Suspend { by: actor(request).as_operator()?, reason: body.reason.0.clone() }.into())
    };
    app.store.execute(request, &OnCommunity { community: path.c, command: suspend }).await
}

/// Resumes a suspended community. Operators only.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/suspension",
    tag = "communities",
    params(CommunityPath),
    responses((status = 200, description = "It takes posts now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn resume(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    _: NoBody,
) -> Response {
    let resume = |_: &Place, request: &Request| Ok(Resume { by: actor(request).as_operator()? }.into());
    app.store.execute(command.request(&()), &OnCommunity { community: path.c, command: resume }).await
}

/// Archives a community: it stays readable. Owners may.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/archive",
    tag = "communities",
    params(CommunityPath),
    responses((status = 200, description = "It is archived now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn archive(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    _: NoBody,
) -> Response {
    let archive = |place: &Place, _: &Request| Ok(Archive { by: place.standing.caretaker()? }.into());
    app.store.execute(command.request(&()), &OnCommunity { community: path.c, command: archive }).await
}

/// Lets an archived community take posts again. Owners may.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/archive",
    tag = "communities",
    params(CommunityPath),
    responses((status = 200, description = "It takes posts now.", body = CommunityChanged), Refusals)
)]
pub(crate) async fn reopen(
    State(app): State<App>,
    command: Command,
    Path(path): Path<CommunityPath>,
    _: NoBody,
) -> Response {
    let reopen = |place: &Place, _: &Request| Ok(Reopen { by: place.standing.caretaker()? }.into());
    app.store.execute(command.request(&()), &OnCommunity { community: path.c, command: reopen }).await
}

/// One command on a community; `command` says by which permission.
struct OnCommunity<F> {
    community: CommunityRef,
    command: F,
}

impl<F> Operation for OnCommunity<F>
where
    F: Fn(&Place, &Request) -> Result<CommunityCommand, Refusal> + Send + Sync,
{
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let place = Place::find(work, &self.community).await?;
        work.require_version(place.community.version)?;
        let command = (self.command)(&place, work.request())?;
        handle(work, place.id, command).await.map(|changed| done(&changed))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct MakeCommunity {
    id: CommunityId,
    settings: Settings,
}

impl Operation for MakeCommunity {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let Self { id, settings } = self;
        let owner = acting(work).await?;
        work.in_community(*id);
        let create = CreateCommunity { settings: settings.clone(), owner };
        let changed = handle(work, *id, create.into()).await?;
        take_slug(work, *id, &settings.slug).await?;
        let community = work.load::<Community>(&Stream::community(*id)).await?;
        let (actor, now) = (actor(work.request()), work.request().now);
        let by = Standing::of(actor, &community.state, &Membership::default(), now).joiner()?;
        work.handle::<Membership>(&Stream::membership(*id, owner), Join { by }.into(), &owner).await?;
        Ok(created(&changed))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }

    fn location(&self, body: &Value) -> Option<String> {
        Some(format!("/v2/communities/{}", body.get("id")?.as_str()?))
    }
}

struct PatchSettings {
    community: CommunityRef,
    body: SettingsPatch,
}

impl Operation for PatchSettings {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let Place { id, community, standing } = Place::find(work, &self.community).await?;
        work.require_version(community.version)?;
        let by = standing.admin()?;
        let old = &community.state.settings;
        let settings = self.body.applied_to(old);
        if settings.slug != old.slug {
            take_slug(work, id, &settings.slug).await?;
            work.release(SLUG, old.slug.clone(), id.to_string());
        }
        handle(work, id, ChangeSettings { by, settings }.into()).await.map(|changed| done(&changed))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct ChangeOwners {
    community: CommunityRef,
    account: AccountRef,
    add: bool,
}

impl Operation for ChangeOwners {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let place = Place::find(work, &self.community).await?;
        work.require_version(place.community.version)?;
        let by = place.standing.owner()?;
        let account = self.account.find(work).await?;
        let command = if self.add {
            let membership = work.load::<Membership>(&Stream::membership(place.id, account)).await?;
            let member = membership.state.role().is_some() && membership.state.ban(work.request().now).is_none();
            AddOwner { by, account, member }.into()
        } else {
            RemoveOwner { by, account }.into()
        };
        handle(work, place.id, command).await.map(|changed| done(&changed))
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

async fn handle(work: &mut Work<'_>, id: CommunityId, command: CommunityCommand) -> Found<CommunityChanged> {
    let community = work.handle::<Community>(&Stream::community(id), command, &()).await?;
    Ok(CommunityChanged { id, version: community.version, slug: community.state.settings.slug.clone() })
}

async fn take_slug(work: &mut Work<'_>, id: CommunityId, slug: &str) -> Found<()> {
    if work.lookup(SLUG, slug).await?.is_some() {
        return Err(CommunityRefusal::SlugTaken.into());
    }
    work.claim(SLUG, slug.to_owned(), id.to_string());
    Ok(())
}

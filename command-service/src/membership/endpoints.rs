//! Joining and leaving, and what moderators and admins decide about members.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use chrono::{DateTime, Utc};
use events::{AccountId, Stream, membership::Role};
use garde::Validate;
use platform::extract::{Json, NoBody, Path, moment_field, optional_moment_field};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AssignRole, Ban, BanMember, Invite, Join, Leave, LiftBan, LiftSilence, Membership, MembershipCommand,
    MembershipRefusal, Remove, RevokeRole, Silence, SilenceMember,
};
use crate::{
    App, Refusal,
    access::{AccessRefusal, Rank},
    account::AccountRefusal,
    answer::done,
    command::Command,
    community::{Community, CommunityRefusal, RemoveOwner},
    place::{AccountRef, CommunityRef, Found, MemberPath, Place, actor},
    refusal::Refused,
    store::{Answer, Loaded, Operation, Request, Stop, Work},
    text::Reason,
};

type Refusals = Refused<(AccessRefusal, (AccountRefusal, CommunityRefusal), MembershipRefusal)>;

/// A role to be given.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewRole {
    /// `moderator` or `admin`; `member` takes a role back.
    #[garde(skip)]
    #[schema(example = "moderator")]
    pub role: Role,
}

/// A ban to begin.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewBan {
    /// Its end; for good, where it is not said.
    #[garde(skip)]
    #[serde(default, deserialize_with = "optional_moment_field")]
    #[schema(required = false)]
    pub until: Option<DateTime<Utc>>,
    /// Why.
    #[garde(dive)]
    pub reason: Reason,
}

/// A silence to begin.
#[derive(Clone, Debug, Serialize, Deserialize, Validate, ToSchema)]
pub struct NewSilence {
    /// Its end.
    #[garde(skip)]
    #[serde(deserialize_with = "moment_field")]
    pub until: DateTime<Utc>,
    /// Why.
    #[garde(dive)]
    pub reason: Reason,
}

/// A membership, as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
pub struct MembershipChanged {
    /// `<community>.<account>`.
    #[schema(example = "018f3f4e-7c2a-7d10-8a3b-5e6f708192a3.018f3f4e-7c2a-7d10-8a3b-5e6f708192a4")]
    id: String,
    /// How often it changed: what `If-Match` compares.
    version: i64,
    /// The role it has; none where it is no member. An owner's is the community's to say.
    role: Option<Role>,
}

/// Joins a community. Nobody joins for another; private communities take an invitation.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/members/{account}",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is a member now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn join(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    app.store.execute(command.request(&()), &JoinCommunity { path }).await
}

/// Leaves a community or declines its invitation; or, as a moderator, removes a member or takes an invitation back.
///
/// An owner who leaves gives up its ownership; the last owner cannot leave. Members leave a read-only community, too: it
/// keeps nobody.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/members/{account}",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is none now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn leave(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    app.store.execute(command.request(&()), &LeaveCommunity { path }).await
}

/// Invites an account, so that it may join a private community. Moderators may.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/members/{account}/invitation",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It may join now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn invite(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let invite = |at: &AtMember, _: &Request| Ok(Invite { by: at.place.standing.moderator()? }.into());
    app.store.execute(command.request(&()), &OnMember { path, command: invite }).await
}

/// Gives a member a role. Admins make moderators, owners make admins.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/members/{account}/role",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It has the role now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn assign_role(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    Json(body): Json<NewRole>,
) -> Response {
    let NewRole { role } = body;
    let assign = move |at: &AtMember, _: &Request| {
        Ok(AssignRole { by: at.place.standing.appointer(at.rank(), role)?, role }.into())
    };
    app.store.execute(command.request(&body), &OnMember { path, command: assign }).await
}

/// Takes a member's role back. Admins may, of moderators; owners, of admins; and everybody its own.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/members/{account}/role",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It has none now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn revoke_role(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let revoke = |at: &AtMember, _: &Request| {
        let standing = &at.place.standing;
        let by = standing.resigner(at.account).map_or_else(|| standing.appointer(at.rank(), Role::Member), Ok)?;
        Ok(RevokeRole { by }.into())
    };
    app.store.execute(command.request(&()), &OnMember { path, command: revoke }).await
}

/// Bans an account, member or not: it may not take part, and not read what is private. Its role is gone.
///
/// Moderators may, but nobody bans a peer or a superior. A second ban takes the place of the first.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/members/{account}/ban",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is banned now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn ban(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    Json(body): Json<NewBan>,
) -> Response {
    let request = command.request(&body);
    let ban = Ban { until: body.until, reason: body.reason.into() };
    let ban = move |at: &AtMember, request: &Request| {
        Ok(BanMember { by: at.place.standing.superior(at.rank())?, ban: ban.clone(), now: request.now }.into())
    };
    app.store.execute(request, &OnMember { path, command: ban }).await
}

/// Lifts a ban. Moderators may.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/members/{account}/ban",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is not banned now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn lift_ban(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let lift = |at: &AtMember, _: &Request| Ok(LiftBan { by: at.place.standing.moderator()? }.into());
    app.store.execute(command.request(&()), &OnMember { path, command: lift }).await
}

/// Silences an account, member or not: it may read, but not write.
///
/// Moderators may, but nobody silences a peer or a superior. A second silence takes the place of the first.
#[utoipa::path(
    put,
    path = "/v2/communities/{c}/members/{account}/silence",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is silenced now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn silence(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    Json(body): Json<NewSilence>,
) -> Response {
    let request = command.request(&body);
    let silence = Silence { until: body.until, reason: body.reason.into() };
    let silence = move |at: &AtMember, request: &Request| {
        let by = at.place.standing.superior(at.rank())?;
        Ok(SilenceMember { by, silence: silence.clone(), now: request.now }.into())
    };
    app.store.execute(request, &OnMember { path, command: silence }).await
}

/// Lifts a silence. Moderators may.
#[utoipa::path(
    delete,
    path = "/v2/communities/{c}/members/{account}/silence",
    tag = "members",
    params(MemberPath),
    responses((status = 200, description = "It is not silenced now.", body = MembershipChanged), Refusals)
)]
pub(crate) async fn lift_silence(
    State(app): State<App>,
    command: Command,
    Path(path): Path<MemberPath>,
    _: NoBody,
) -> Response {
    let lift = |at: &AtMember, _: &Request| Ok(LiftSilence { by: at.place.standing.moderator()? }.into());
    app.store.execute(command.request(&()), &OnMember { path, command: lift }).await
}

/// A membership, and what the actor is where it is.
struct AtMember {
    place: Place,
    account: AccountId,
    membership: Arc<Loaded<Membership>>,
}

impl AtMember {
    /// The membership, where the community is one that `shows`.
    async fn find(
        work: &mut Work<'_>,
        community: &CommunityRef,
        account: &AccountRef,
        shows: impl FnOnce(&Place) -> bool,
    ) -> Found<Self> {
        let place = Place::approach(work, community).await?;
        if !shows(&place) {
            return Err(CommunityRefusal::NotFound.into());
        }
        let account = account.find(work).await?;
        let membership = work.load::<Membership>(&Stream::membership(place.id, account)).await?;
        work.require_version(membership.version)?;
        Ok(Self { place, account, membership })
    }

    /// How high the member stands.
    fn rank(&self) -> Rank {
        self.place.community.state.rank(self.account, &self.membership.state)
    }

    async fn handle(&self, work: &mut Work<'_>, command: MembershipCommand) -> Found<Answer> {
        let stream = Stream::membership(self.place.id, self.account);
        let after = work.handle::<Membership>(&stream, command, &self.account).await?;
        let (id, version, role) = (stream.id, after.version, after.state.role());
        Ok(done(&MembershipChanged { id, version, role }))
    }
}

/// One command on a membership; `command` says by which permission.
struct OnMember<F> {
    path: MemberPath,
    command: F,
}

impl<F> Operation for OnMember<F>
where
    F: Fn(&AtMember, &Request) -> Result<MembershipCommand, Refusal> + Send + Sync,
{
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let MemberPath { c, account } = &self.path;
        let at = AtMember::find(work, c, account, |place| place.standing.sees()).await?;
        let command = (self.command)(&at, work.request())?;
        at.handle(work, command).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct JoinCommunity {
    path: MemberPath,
}

impl Operation for JoinCommunity {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let MemberPath { c, account } = &self.path;
        let at = AtMember::find(work, c, account, |place| place.standing.knows()).await?;
        if actor(work.request()).account != Some(at.account) {
            return Err(AccessRefusal::NotYourself.into());
        }
        let by = at.place.standing.joiner()?;
        at.handle(work, Join { by }.into()).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

struct LeaveCommunity {
    path: MemberPath,
}

impl Operation for LeaveCommunity {
    type Refusal = Refusal;

    async fn attempt(&self, work: &mut Work<'_>) -> Result<Answer, Stop<Refusal>> {
        let MemberPath { c, account } = &self.path;
        let at = AtMember::find(work, c, account, |place| place.standing.knows()).await?;
        if actor(work.request()).account != Some(at.account) {
            let by = at.place.standing.superior(at.rank())?;
            return at.handle(work, Remove { by }.into()).await;
        }
        let AtMember { place, account, .. } = &at;
        if place.community.state.owners.contains(account) {
            let give_up = RemoveOwner { by: place.standing.owner()?, account: *account };
            work.handle::<Community>(&Stream::community(place.id), give_up.into(), &()).await?;
        }
        at.handle(work, Leave {}.into()).await
    }

    fn taken(&self, kind: &str) -> Refusal {
        Refusal::taken(kind)
    }
}

//! The extractors: each asks, decides, and refuses, before a handler runs.

use std::{sync::Arc, time::Duration};

use axum::{extract::FromRequestParts, http::request::Parts};
use events::{AccountId, CategoryId, CommunityId, PositionToken, PostId, Shard, ThreadId, membership::Role};
use platform::{
    extract::{Path, Query},
    identity::{Credentials, MaybeAuthenticated},
    problem::Problem,
};
use serde::Deserialize;
use uuid::Uuid;

use super::{Admitted, Audience, Belonging, Facts, Horizon, Question, Reader, Refusal, Standing, Subject};
use crate::{
    answer::Known,
    freshness::Wanted,
    history,
    reading::{ReadSide, Reading, Request},
};

/// In a community that the reader sees. The path names it as `c`, by id or slug.
pub(crate) struct InCommunity {
    pub(crate) community: CommunityId,
    pub(crate) reading: Reading<Audience>,
    moderation: Result<(), Refusal>,
}

impl InCommunity {
    /// The same, where the reader moderates: for what a parameter asks for and not the path.
    pub(crate) fn moderated(self) -> Result<Self, Refusal> {
        self.moderation.map(|()| self)
    }
}

/// At a community's own page, which is shown to who is invited too. The path names it as `c`, by id or slug.
pub(crate) struct AtCommunity {
    pub(crate) community: CommunityId,
    /// What the reader is there; none for a guest, and for who is banned.
    pub(crate) role: Option<Role>,
    pub(crate) standing: Standing,
    pub(crate) reading: Reading<Audience>,
}

/// At what is between an account and a community that the reader sees; the account itself may see more of it, and sees
/// that it is invited. The path names them as `c` and `account`.
pub(crate) struct AtMember {
    pub(crate) community: CommunityId,
    pub(crate) account: AccountId,
    pub(crate) reading: Reading<Audience>,
}

/// In a community whose reader moderates it. The path names it as `c`.
pub(crate) struct InModeration {
    pub(crate) community: CommunityId,
    pub(crate) reading: Reading<Audience>,
}

/// At the event history, or a community's part of it. The query names the community, by id or slug.
pub(crate) struct InHistory {
    pub(crate) asked: history::Asked,
    /// None where the reader may read all.
    pub(crate) community: Option<CommunityId>,
    pub(crate) reader: AccountId,
    pub(crate) admission: Admission,
    pub(crate) request: Request,
}

/// That somebody may read a part of the history, for an answer that goes on for long: it can be looked at again.
pub(crate) struct Admission {
    side: ReadSide,
    credentials: Credentials,
    community: Option<CommunityId>,
}

impl Admission {
    /// Whether it still holds, by the rows as they are now.
    ///
    /// # Errors
    /// What a new request would be answered: a refusal, or 503.
    pub(crate) async fn check(&self) -> Result<(), Problem> {
        let reader = Reader::from(Some(self.credentials.check().await?));
        let facts = self.side.facts.ask(Question { subject: self.subject(), reader: reader.account }).await?;
        reader.in_history(&facts, self.community.is_some())?;
        Ok(())
    }

    /// The same, by rows that reflect this position; where they do not come to that in time, as they are then.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) async fn check_at(&self, position: PositionToken, wait: Duration) -> Result<(), Problem> {
        // Why they have not come to it is no word to this reader.
        let _ = self.side.freshness.reach(&Wanted::of(position, wait), self.subject().joins()).await;
        self.check().await
    }

    fn subject(&self) -> Subject {
        self.community.map_or(Subject::Everywhere, Subject::Community)
    }
}

/// At a category that the reader sees. The path names it as `id`.
pub(crate) struct InCategory {
    pub(crate) category: CategoryId,
    pub(crate) community: CommunityId,
    pub(crate) reading: Reading<Audience>,
}

/// In a thread that the reader sees. The path names it as `id`.
pub(crate) struct InThread {
    pub(crate) thread: ThreadId,
    pub(crate) community: CommunityId,
    pub(crate) reading: Reading<Audience>,
    moderation: Result<(), Refusal>,
}

impl InThread {
    /// The same, where the reader moderates: for what a parameter asks for and not the path.
    pub(crate) fn moderated(self) -> Result<Self, Refusal> {
        match self.moderation {
            Ok(()) => Ok(self),
            Err(refusal) => Err(refusal),
        }
    }
}

/// At a post that the reader sees, by itself: its own author may see more of it. The path names it as `id`.
pub(crate) struct AtPost {
    pub(crate) post: PostId,
    pub(crate) thread: ThreadId,
    pub(crate) reading: Reading<Audience>,
}

/// At the replies to a post that the reader sees. The path names it as `id`.
pub(crate) struct BelowPost {
    pub(crate) post: PostId,
    pub(crate) thread: ThreadId,
    pub(crate) reading: Reading<Audience>,
}

/// At an account, which everybody sees; what it did, as far as the reader sees where. The path names it as `account`,
/// by id, username or `me`.
pub(crate) struct OfAccount {
    pub(crate) account: AccountId,
    pub(crate) reading: Reading<Horizon>,
}

/// At the communities that an account belongs to, as far as the reader sees them; the account itself sees its
/// invitations too. The path names it as `account`, by id, username or `me`.
pub(crate) struct BelongingOf {
    pub(crate) account: AccountId,
    pub(crate) reading: Reading<Belonging>,
    invitations: Result<(), Refusal>,
}

impl BelongingOf {
    /// The same, where the reader sees invitations: for what a parameter asks for and not the path.
    pub(crate) fn with_invitations(self) -> Result<Self, Refusal> {
        self.invitations.map(|()| self)
    }
}

/// Across all communities that the reader sees.
pub(crate) struct Everywhere {
    pub(crate) reading: Reading<Horizon>,
}

impl FromRequestParts<ReadSide> for InCommunity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(path) = Path::<ToCommunity>::from_request_parts(parts, side).await?;
        let asked = Asked::about(path.subject(), parts, side).await?;
        let Admitted { community, audience } = asked.reader.in_community(&asked.facts)?;
        let moderation = asked.reader.in_moderation(&asked.facts).map(|_| ());
        Ok(Self { community, reading: asked.within(side, community, audience), moderation })
    }
}

impl FromRequestParts<ReadSide> for AtCommunity {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(path) = Path::<ToCommunity>::from_request_parts(parts, side).await?;
        let asked = Asked::about(path.subject(), parts, side).await?;
        let Admitted { community, audience } = asked.reader.at_community(&asked.facts)?;
        let (role, standing) = (asked.facts.role_that_counts(), asked.facts.standing());
        Ok(Self { community, role, standing, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for AtMember {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(path) = Path::<ToCommunity>::from_request_parts(parts, side).await?;
        let asked = Asked::about(path.subject(), parts, side).await?;
        asked.reader.at_community(&asked.facts)?;
        let OfAccount { account, .. } = OfAccount::from_request_parts(parts, side).await?;
        let Admitted { community, audience } = asked.reader.at_member(&asked.facts, account)?;
        Ok(Self { community, account, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for InModeration {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(path) = Path::<ToCommunity>::from_request_parts(parts, side).await?;
        let asked = Asked::about(path.subject(), parts, side).await?;
        let Admitted { community, audience } = asked.reader.in_moderation(&asked.facts)?;
        Ok(Self { community, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for InHistory {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let credentials = Credentials::from_request_parts(parts, side).await?;
        let Query(asked) = Query::<history::Asked>::from_request_parts(parts, side).await?;
        let named = asked.community.clone().map(|c| ToCommunity { c }.subject());
        let is_named = named.is_some();
        let Asked { reader, facts, request } = Asked::about(named.unwrap_or(Subject::Everywhere), parts, side).await?;
        let community = reader.in_history(&facts, is_named)?;
        let reader = reader.account.ok_or(Refusal::LogIn)?;
        Ok(Self {
            asked,
            community,
            reader,
            admission: Admission { side: side.clone(), credentials, community },
            request,
        })
    }
}

impl FromRequestParts<ReadSide> for InCategory {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(To { id }) = Path::from_request_parts(parts, side).await?;
        let asked = Asked::about(Subject::Category(CategoryId(id)), parts, side).await?;
        let (category, Admitted { community, audience }) = asked.reader.in_category(&asked.facts)?;
        Ok(Self { category, community, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for InThread {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(To { id }) = Path::from_request_parts(parts, side).await?;
        let asked = Asked::about(Subject::Thread(ThreadId(id)), parts, side).await?;
        let (thread, Admitted { community, audience }) = asked.reader.in_thread(&asked.facts)?;
        let moderation = asked.reader.in_moderation(&asked.facts).map(|_| ());
        Ok(Self { thread, community, reading: asked.within(side, community, audience), moderation })
    }
}

impl FromRequestParts<ReadSide> for AtPost {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(To { id }) = Path::from_request_parts(parts, side).await?;
        let asked = Asked::about(Subject::Post(PostId(id)), parts, side).await?;
        let (thread, Admitted { community, audience }) = asked.reader.at_post(&asked.facts)?;
        Ok(Self { post: PostId(id), thread, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for BelowPost {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(To { id }) = Path::from_request_parts(parts, side).await?;
        let asked = Asked::about(Subject::Post(PostId(id)), parts, side).await?;
        let (thread, Admitted { community, audience }) = asked.reader.below_post(&asked.facts)?;
        Ok(Self { post: PostId(id), thread, reading: asked.within(side, community, audience) })
    }
}

impl FromRequestParts<ReadSide> for OfAccount {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let asked = Asked::about_account(parts, side).await?;
        let (account, horizon) = asked.reader.of_account(&asked.facts)?;
        Ok(Self { account, reading: asked.across(side, horizon, Some(Shard::of_account(account))) })
    }
}

impl FromRequestParts<ReadSide> for BelongingOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let asked = Asked::about_account(parts, side).await?;
        let (account, belonging) = asked.reader.belonging_of(&asked.facts)?;
        let invitations = asked.reader.invitations_of(account);
        // All of it is of the communities' shards.
        Ok(Self { account, reading: asked.across(side, belonging, None), invitations })
    }
}

impl FromRequestParts<ReadSide> for Everywhere {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let asked = Asked::about(Subject::Everywhere, parts, side).await?;
        let horizon = asked.reader.horizon(&asked.facts);
        Ok(Self { reading: asked.across(side, horizon, None) })
    }
}

/// A path with an id.
#[derive(Deserialize)]
struct To {
    id: Uuid,
}

/// A path with a community: its id or slug.
#[derive(Deserialize)]
struct ToCommunity {
    c: String,
}

/// A path with an account: its id, its username or `me`.
#[derive(Deserialize)]
struct ToAccount {
    account: String,
}

impl ToCommunity {
    fn subject(self) -> Subject {
        match self.c.parse() {
            Ok(id) => Subject::Community(CommunityId(id)),
            Err(_) => Subject::Slug(self.c),
        }
    }
}

/// What was found out for a request, before anything is decided.
struct Asked {
    reader: Reader,
    facts: Arc<Facts>,
    request: Request,
}

impl Asked {
    /// Asks the rows, once they reflect the positions that the request names: whoever has just joined is let in.
    async fn about(subject: Subject, parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let MaybeAuthenticated(identity) = MaybeAuthenticated::from_request_parts(parts, side).await?;
        let reader = Reader::from(identity);
        let wanted = Wanted::from_request_parts(parts, side).await?;
        let Ok(known) = Known::from_request_parts(parts, side).await;
        side.freshness.reach(&wanted, subject.joins()).await?;
        let facts = side.facts.ask(Question { subject, reader: reader.account }).await?;
        Ok(Self { reader, facts, request: Request { reader: reader.account, wanted, known } })
    }

    /// The same, about the account that the path names.
    async fn about_account(parts: &mut Parts, side: &ReadSide) -> Result<Self, Problem> {
        let Path(ToAccount { account }) = Path::from_request_parts(parts, side).await?;
        let subject = match account.parse() {
            Ok(id) => Subject::Account(AccountId(id)),
            Err(_) if account == "me" => {
                let MaybeAuthenticated(identity) = MaybeAuthenticated::from_request_parts(parts, side).await?;
                Subject::Account(AccountId(identity.ok_or(Refusal::LogIn)?.account))
            }
            Err(_) => Subject::Username(account),
        };
        Self::about(subject, parts, side).await
    }

    fn within(self, side: &ReadSide, community: CommunityId, audience: Audience) -> Reading<Audience> {
        Reading::new(side, audience, Some(Shard::of_community(community)), self.request)
    }

    fn across<S: Send + Sync>(self, side: &ReadSide, sight: S, shard: Option<Shard>) -> Reading<S> {
        Reading::new(side, sight, shard, self.request)
    }
}

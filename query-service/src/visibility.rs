//! Who may see: decided here and nowhere else, on each request, from current rows, before the cache is asked.
//!
//! A handler cannot read without it: rows and cached answers come through a [`Reading`], which only the extractors of
//! this module make, and each holds the [`Audience`], [`Horizon`] or [`Belonging`] that was decided for this request.
//! That is part of every cache key, so that what some may see is never shown to others. What a reader may not see is
//! not found: nothing tells it from what does not exist.
//!
//! [`Reading`]: crate::reading::Reading

mod extract;
mod facts;
mod remembered;

pub(crate) use extract::{
    Admission, AtCommunity, AtMember, AtPost, BelongingOf, BelowPost, Everywhere, InCategory, InCommunity, InHistory,
    InModeration, InThread, OfAccount,
};
pub(crate) use facts::{AskFacts, AskPrivate, Facts, Question, Subject};
pub(crate) use remembered::Remembered;

use std::sync::Arc;

use axum::http::StatusCode;
use events::{AccountId, CategoryId, CommunityId, ThreadId, community::Visibility, membership::Role};
use platform::{identity::Identity, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{projection::named, reading::Request};

/// Whoever asks: a guest has no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) account: Option<AccountId>,
    /// Runs the platform: sees everything that moderators see, everywhere.
    operator: bool,
}

impl From<Option<Identity>> for Reader {
    fn from(identity: Option<Identity>) -> Self {
        Self {
            account: identity.map(|identity| AccountId(identity.account)),
            operator: identity.is_some_and(|identity| identity.operator),
        }
    }
}

/// Those who see the same of a community that they may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Audience(Who);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    /// All who may read the community.
    Readers,
    /// Its moderators and above, and the platform's operators.
    Moderators,
    /// The one whom the answer is about; nobody shares it.
    Oneself(AccountId),
}

impl Audience {
    /// Sees deleted threads and the texts of deleted posts.
    pub(crate) fn moderates(self) -> bool {
        self.0 == Who::Moderators
    }

    /// Sees what is withheld from others of the thing at hand: a hidden text, a sanction and its reason.
    pub(crate) fn sees_withheld(self) -> bool {
        self.0 != Who::Readers
    }

    /// Whose own things are shown; none for what is shared.
    pub(crate) fn oneself(self) -> Option<AccountId> {
        match self.0 {
            Who::Oneself(account) => Some(account),
            Who::Readers | Who::Moderators => None,
        }
    }
}

/// Which communities an answer across communities draws from: all but the private ones, and those private ones that
/// are in sight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Horizon(Reach);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reach {
    /// In order of id.
    With(Arc<[uuid::Uuid]>),
    Unbounded,
}

impl Horizon {
    /// The private communities in sight.
    pub(crate) fn private(&self) -> &[uuid::Uuid] {
        match &self.0 {
            Reach::With(communities) => communities,
            Reach::Unbounded => &[],
        }
    }

    /// Whether every private community is in sight.
    pub(crate) fn unbounded(&self) -> bool {
        self.0 == Reach::Unbounded
    }

    /// Whether this community, which is private, is in sight.
    pub(crate) fn holds(&self, private: CommunityId) -> bool {
        self.unbounded() || self.private().binary_search(&private.0).is_ok()
    }

    /// The same, and these communities too.
    fn and(self, communities: &[uuid::Uuid]) -> Self {
        if self.unbounded() || communities.is_empty() {
            return self;
        }
        let mut all = [self.private(), communities].concat();
        all.sort_unstable();
        all.dedup();
        Self(Reach::With(all.into()))
    }
}

/// What of an account's belonging to communities is in sight: its memberships within the horizon; and of one's own, the
/// invitations, with what they are to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Belonging {
    horizon: Horizon,
    /// In order of id; none where they are another's, and nobody else's business.
    invitations: Option<Arc<[uuid::Uuid]>>,
}

impl Belonging {
    /// Which communities are told of.
    pub(crate) fn horizon(&self) -> &Horizon {
        &self.horizon
    }

    /// Those of them that are told of where the account is only invited.
    pub(crate) fn invitations(&self) -> &[uuid::Uuid] {
        self.invitations.as_deref().unwrap_or_default()
    }
}

/// What a reader was admitted to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Admitted {
    community: CommunityId,
    audience: Audience,
}

/// What a reader is to a community, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    /// Belongs to it.
    Member,
    /// Was invited, and has not joined.
    Invited,
    /// May not take part, member or not.
    Banned,
    /// None of these.
    None,
}

/// Who deleted a thread, which says who may restore it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeletedBy {
    /// Its author, who restores it too.
    Author,
    /// A moderator: only moderators restore it.
    Moderator,
}

impl DeletedBy {
    /// What the rows say: a word that this release does not know is nothing that an author may restore.
    pub(crate) fn of(deleted: bool, by: Option<&str>) -> Option<Self> {
        deleted.then(|| by.and_then(named).unwrap_or(Self::Moderator))
    }
}

/// Why a read is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nor is it told whether there is one that others may see; the same below.
    #[error("There is no such community.")]
    CommunityNotFound,
    #[error("There is no such category.")]
    CategoryNotFound,
    #[error("There is no such thread.")]
    ThreadNotFound,
    #[error("There is no such post.")]
    PostNotFound,
    #[error("There is no such account.")]
    AccountNotFound,
    #[error("It takes a moderator or more to read this.")]
    ModeratorsOnly,
    #[error("It takes an admin or an owner of this community to read its events.")]
    AdminsOnly,
    #[error(
        "It takes an operator to read the events of all communities. Name one whose admin you are: community=<id or slug>."
    )]
    OperatorsOnly,
    #[error("This needs an access token: send Authorization: Bearer <token>.")]
    LogIn,
    #[error("Invitations are shown to the account itself.")]
    NotYourself,
}

impl From<Refusal> for Problem {
    /// Exhaustive on purpose: a new refusal does not compile until it has a status and a name.
    fn from(refusal: Refusal) -> Self {
        let (status, name) = match refusal {
            Refusal::CommunityNotFound => (StatusCode::NOT_FOUND, "community-not-found"),
            Refusal::CategoryNotFound => (StatusCode::NOT_FOUND, "category-not-found"),
            Refusal::ThreadNotFound => (StatusCode::NOT_FOUND, "thread-not-found"),
            Refusal::PostNotFound => (StatusCode::NOT_FOUND, "post-not-found"),
            Refusal::AccountNotFound => (StatusCode::NOT_FOUND, "account-not-found"),
            Refusal::ModeratorsOnly | Refusal::AdminsOnly | Refusal::OperatorsOnly => {
                (StatusCode::FORBIDDEN, "role-required")
            }
            Refusal::LogIn => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Refusal::NotYourself => (StatusCode::FORBIDDEN, "not-yourself"),
        };
        Self::new(status, name, refusal)
    }
}

impl Reader {
    /// What of a community the reader sees, if anything.
    fn in_community(self, facts: &Facts) -> Result<Admitted, Refusal> {
        let community = facts.community.ok_or(Refusal::CommunityNotFound)?;
        let role = facts.role_that_counts();
        let sees = match facts.visibility {
            Some(Visibility::Public | Visibility::Restricted) => true,
            Some(Visibility::Private) => role.is_some(),
            None => false,
        };
        if !sees && !self.operator {
            return Err(Refusal::CommunityNotFound);
        }
        let moderates = self.operator || role >= Some(Role::Moderator);
        let audience = Audience(if moderates { Who::Moderators } else { Who::Readers });
        Ok(Admitted { community, audience })
    }

    /// Whether the reader sees a community's own page: who is invited sees to what, before it joins.
    fn at_community(self, facts: &Facts) -> Result<Admitted, Refusal> {
        match (self.in_community(facts), facts.community) {
            (Err(_), Some(community)) if facts.is_invited() => {
                Ok(Admitted { community, audience: Audience(Who::Readers) })
            }
            (admitted, _) => admitted,
        }
    }

    /// What the reader sees of the membership of `account`: its own shows more, and shows an invitation.
    fn at_member(self, facts: &Facts, account: AccountId) -> Result<Admitted, Refusal> {
        if self.account != Some(account) {
            return self.in_community(facts);
        }
        let Admitted { community, audience } = self.at_community(facts)?;
        let audience = if audience.moderates() { audience } else { Audience(Who::Oneself(account)) };
        Ok(Admitted { community, audience })
    }

    fn in_moderation(self, facts: &Facts) -> Result<Admitted, Refusal> {
        let admitted = self.in_community(facts)?;
        match self.account {
            _ if admitted.audience.moderates() => Ok(admitted),
            None => Err(Refusal::LogIn),
            Some(_) => Err(Refusal::ModeratorsOnly),
        }
    }

    /// Whose events the reader may read: those of all communities where none is named, as an operator only.
    fn in_history(self, facts: &Facts, named: bool) -> Result<Option<CommunityId>, Refusal> {
        if self.account.is_none() {
            return Err(Refusal::LogIn);
        }
        if !named {
            return if self.operator { Ok(None) } else { Err(Refusal::OperatorsOnly) };
        }
        let Admitted { community, .. } = self.in_community(facts)?;
        let may = self.operator || facts.role_that_counts() >= Some(Role::Admin);
        if may { Ok(Some(community)) } else { Err(Refusal::AdminsOnly) }
    }

    fn in_category(self, facts: &Facts) -> Result<(CategoryId, Admitted), Refusal> {
        let category = facts.category.ok_or(Refusal::CategoryNotFound)?;
        Ok((category, self.in_community(facts).map_err(|_| Refusal::CategoryNotFound)?))
    }

    /// A deleted thread is there for those who may restore it: moderators, and its author where it deleted it itself.
    fn in_thread(self, facts: &Facts) -> Result<(ThreadId, Admitted), Refusal> {
        let thread = facts.thread.ok_or(Refusal::ThreadNotFound)?;
        let admitted = self.in_community(facts).map_err(|_| Refusal::ThreadNotFound)?;
        if facts.thread_deleted.is_some() && !admitted.audience.moderates() && !self.withdrew(facts) {
            return Err(Refusal::ThreadNotFound);
        }
        Ok((thread, admitted))
    }

    /// Whether the reader deleted the thread, and may restore it.
    fn withdrew(self, facts: &Facts) -> bool {
        let its_author = self.account.is_some() && self.account == facts.thread_author;
        its_author && facts.thread_deleted == Some(DeletedBy::Author) && !facts.banned
    }

    /// What is around a post, as everybody sees it.
    fn below_post(self, facts: &Facts) -> Result<(ThreadId, Admitted), Refusal> {
        self.in_thread(facts).map_err(|_| Refusal::PostNotFound)
    }

    /// A post by itself. A hidden one's author sees its text, here only.
    fn at_post(self, facts: &Facts) -> Result<(ThreadId, Admitted), Refusal> {
        let (thread, mut admitted) = self.below_post(facts)?;
        if let Some(author) = self.account
            && facts.post_hidden
            && facts.post_author == Some(author)
            && !admitted.audience.moderates()
        {
            admitted.audience = Audience(Who::Oneself(author));
        }
        Ok((thread, admitted))
    }

    fn horizon(self, facts: &Facts) -> Horizon {
        if self.operator { Horizon(Reach::Unbounded) } else { Horizon(Reach::With(facts.private.as_slice().into())) }
    }

    fn of_account(self, facts: &Facts) -> Result<(AccountId, Horizon), Refusal> {
        Ok((facts.account.ok_or(Refusal::AccountNotFound)?, self.horizon(facts)))
    }

    /// An invitation shows its community to who is invited, as the [community's own page](Self::at_community) does.
    fn belonging_of(self, facts: &Facts) -> Result<(AccountId, Belonging), Refusal> {
        let (account, horizon) = self.of_account(facts)?;
        let belonging = match self.invitations_of(account) {
            Ok(()) => Belonging {
                horizon: horizon.and(&facts.invitations),
                invitations: Some(facts.invitations.as_slice().into()),
            },
            Err(_) => Belonging { horizon, invitations: None },
        };
        Ok((account, belonging))
    }

    /// Nobody sees another's, operators included.
    fn invitations_of(self, account: AccountId) -> Result<(), Refusal> {
        match self.account {
            Some(reader) if reader == account => Ok(()),
            Some(_) => Err(Refusal::NotYourself),
            None => Err(Refusal::LogIn),
        }
    }
}

impl Request {
    /// The reader alone, for what is its own and nobody else's business; none for a guest.
    pub(crate) fn oneself(&self) -> Option<Audience> {
        self.reader.map(|account| Audience(Who::Oneself(account)))
    }
}

impl Facts {
    /// What the reader is in the community. A ban leaves nothing of it.
    fn role_that_counts(&self) -> Option<Role> {
        self.role.filter(|_| !self.banned)
    }

    /// Invited, and may come.
    fn is_invited(&self) -> bool {
        self.invited && !self.banned && self.visibility.is_some()
    }

    /// What the reader is to the community, in a word.
    fn standing(&self) -> Standing {
        match self.role {
            _ if self.banned => Standing::Banned,
            Some(_) => Standing::Member,
            None if self.invited => Standing::Invited,
            None => Standing::None,
        }
    }
}

#[cfg(test)]
mod tests;

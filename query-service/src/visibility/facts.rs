//! What decides who may see, as the rows say it now.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use events::{AccountId, CategoryId, CommunityId, PostId, ThreadId, community::Visibility, membership::Role};
use sqlx::PgConnection;
use uuid::Uuid;

use super::DeletedBy;
use crate::{
    batch::Ask,
    projection::{Projection, named},
};

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Community(CommunityId),
    /// A community by its slug.
    Slug(String),
    Category(CategoryId),
    Thread(ThreadId),
    Post(PostId),
    Account(AccountId),
    /// An account by its username, ignoring case.
    Username(String),
    /// No one community.
    Everywhere,
}

/// Who asks about what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    pub(crate) subject: Subject,
    pub(crate) reader: Option<AccountId>,
}

/// What the rows say. What was not asked about, or is not there, is none or false.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(super) community: Option<CommunityId>,
    pub(super) visibility: Option<Visibility>,
    /// What the reader is there, but for a ban; an owner by the community's own word.
    pub(super) role: Option<Role>,
    /// The reader is banned, and the ban has not run out.
    pub(super) banned: bool,
    /// The reader is invited, and has not joined.
    pub(super) invited: bool,
    pub(super) category: Option<CategoryId>,
    pub(super) thread: Option<ThreadId>,
    pub(super) thread_deleted: Option<DeletedBy>,
    pub(super) thread_author: Option<AccountId>,
    pub(super) post_author: Option<AccountId>,
    pub(super) post_hidden: bool,
    pub(super) account: Option<AccountId>,
    /// The private communities that the reader sees, in order of id: only where no one community was asked about.
    pub(super) private: Vec<Uuid>,
    /// The communities that the reader is invited to, and may come to, in order of id: only where its own account was
    /// asked about.
    pub(super) invitations: Vec<Uuid>,
    /// When the ban runs out, where it does.
    pub(super) until: Option<DateTime<Utc>>,
}

impl Subject {
    /// The projections that tell of it.
    pub(crate) fn joins(&self) -> &'static [Projection] {
        use Projection::{Account, CategoryTree, Community, Membership, ThreadList, ThreadPage};
        match self {
            Self::Community(_) | Self::Slug(_) | Self::Everywhere => &[Community, Membership],
            Self::Category(_) => &[Community, Membership, CategoryTree],
            Self::Thread(_) => &[Community, Membership, ThreadList],
            Self::Post(_) => &[Community, Membership, ThreadList, ThreadPage],
            Self::Account(_) | Self::Username(_) => &[Community, Membership, Account],
        }
    }

    /// Kind, id and name, as the statement takes them.
    fn columns(&self) -> (&'static str, Option<Uuid>, Option<&str>) {
        match self {
            Self::Community(id) => ("community", Some(id.0), None),
            Self::Slug(slug) => ("slug", None, Some(slug)),
            Self::Category(id) => ("category", Some(id.0), None),
            Self::Thread(id) => ("thread", Some(id.0), None),
            Self::Post(id) => ("post", Some(id.0), None),
            Self::Account(id) => ("account", Some(id.0), None),
            Self::Username(name) => ("username", None, Some(name)),
            Self::Everywhere => ("everywhere", None, None),
        }
    }
}

/// Asks for [`Facts`].
#[derive(Debug)]
pub(crate) struct AskFacts;

impl Ask for AskFacts {
    type Question = Question;
    type Answer = Facts;

    async fn ask(&self, questions: &[Question], connection: &mut PgConnection) -> sqlx::Result<Vec<Facts>> {
        let mut kinds = Vec::with_capacity(questions.len());
        let mut ids = Vec::with_capacity(questions.len());
        let mut names = Vec::with_capacity(questions.len());
        let mut readers = Vec::with_capacity(questions.len());
        for Question { subject, reader } in questions {
            let (kind, id, name) = subject.columns();
            kinds.push(kind);
            ids.push(id);
            names.push(name);
            readers.push(reader.map(Uuid::from));
        }
        let rows = sqlx::query_file!("src/visibility/facts.sql", kinds as _, ids as _, names as _, readers as _)
            .fetch_all(connection)
            .await?;
        let mut answers = vec![Facts::default(); questions.len()];
        for row in rows {
            let Some(answer) = usize::try_from(row.n - 1).ok().and_then(|index| answers.get_mut(index)) else {
                continue;
            };
            *answer = Facts {
                community: row.community_id.map(CommunityId),
                visibility: row.visibility.as_deref().and_then(named),
                invited: row.status.as_deref() == Some("invited"),
                role: match row.owner {
                    Some(true) => Some(Role::Owner),
                    _ => row.status.filter(|status| status == "member").and(row.assigned).as_deref().and_then(named),
                },
                banned: row.banned,
                category: row.category_id.map(CategoryId),
                thread: row.thread_id.map(ThreadId),
                thread_deleted: DeletedBy::of(row.thread_deleted.unwrap_or_default(), row.thread_deleted_by.as_deref()),
                thread_author: row.thread_author.map(AccountId),
                post_author: row.post_author.map(AccountId),
                post_hidden: row.post_hidden.unwrap_or_default(),
                account: row.account_id.map(AccountId),
                private: row.private.unwrap_or_default(),
                invitations: row.invitations.unwrap_or_default(),
                until: row.banned_until,
            };
        }
        Ok(answers)
    }
}

/// Asks which of some communities are private.
#[derive(Debug)]
pub(crate) struct AskPrivate;

impl Ask for AskPrivate {
    type Question = Arc<[CommunityId]>;
    type Answer = Vec<CommunityId>;

    async fn ask(
        &self,
        questions: &[Arc<[CommunityId]>],
        connection: &mut PgConnection,
    ) -> sqlx::Result<Vec<Vec<CommunityId>>> {
        let ids: Vec<Uuid> = questions.iter().flat_map(|communities| communities.iter().map(|id| id.0)).collect();
        let private = sqlx::query_scalar!(
            "select community_id from community where community_id = any($1) and not in_sight(community_id, visibility, false, '{}')",
            &ids
        );
        let private = private.fetch_all(connection).await?;
        let among = |communities: &Arc<[CommunityId]>| {
            communities.iter().copied().filter(|community| private.contains(&community.0)).collect()
        };
        Ok(questions.iter().map(among).collect())
    }
}

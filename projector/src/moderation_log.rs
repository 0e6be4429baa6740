//! Projection: what moderators, admins and owners did, and what operators did to a community.

use chrono::{DateTime, Utc};
use events::{
    CategoryEvent, CommunityEvent, Event, MembershipEvent, PostEvent, ThreadEvent, category, community, membership,
    post, thread,
};
use serde_json::{Value, json};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    projection::{Changed, Fault, Kept, Projection, Recorded},
    table::{Table, Word, Writes, read_table},
};

pub(crate) struct ModerationLog;

read_table! {
    /// One act.
    Act in "moderation_log" {
        key { community_id: Uuid, position: i64 }
        action: Word,
        actor_id: Option<Uuid>,
        at: DateTime<Utc>,
        thread_id: Option<Uuid>,
        post_id: Option<Uuid>,
        account_id: Option<Uuid>,
        category_id: Option<Uuid>,
        detail: Json<Value>,
    }
}

impl Projection for ModerationLog {
    const NAME: &'static str = "moderation_log";
    const TABLES: &'static [Kept] = &[Kept::of_community("moderation_log")];
    type Rows = Table<Act>;

    fn concerns(event: &Event) -> bool {
        Subject::of(event).is_some()
    }

    /// Acts are only ever added.
    async fn load(_: &[Recorded<'_>], _: &mut PgConnection) -> sqlx::Result<Self::Rows> {
        Ok(Table::default())
    }

    fn fold(rows: &mut Self::Rows, recorded: &Recorded<'_>, changed: &mut Changed) -> Result<(), Fault> {
        let Some(subject) = Subject::of(recorded.event) else { return Ok(()) };
        let of_own_will = matches!(recorded.event, Event::Membership(MembershipEvent::Left(_)))
            && subject.account == recorded.actor();
        if of_own_will {
            return Ok(());
        }
        let stream = |wanted: fn(&Event) -> bool| wanted(recorded.event).then(|| recorded.id()).transpose();
        rows.put(Act {
            community_id: recorded.community()?,
            position: recorded.position(),
            action: recorded.event.name().into(),
            actor_id: recorded.actor(),
            at: recorded.at(),
            thread_id: subject.thread.or(stream(|event| matches!(event, Event::Thread(_)))?),
            post_id: subject.post.or(stream(|event| matches!(event, Event::Post(_)))?),
            account_id: subject.account,
            category_id: subject.category,
            detail: Json(subject.detail),
        });
        changed.community(recorded.community()?);
        Ok(())
    }

    fn write(rows: Self::Rows, to: &mut Writes) {
        rows.write(to);
    }
}

/// What an act was about, besides the stream it stands in.
#[derive(Default)]
struct Subject {
    thread: Option<Uuid>,
    post: Option<Uuid>,
    account: Option<Uuid>,
    category: Option<Uuid>,
    /// What the event said besides.
    detail: Value,
}

impl Subject {
    /// None where the event is no act of moderation: what authors do to what is theirs is none.
    fn of(event: &Event) -> Option<Self> {
        match event {
            Event::Thread(event) => Self::of_thread(event),
            Event::Post(event) => Self::of_post(event),
            Event::Membership(event) => Self::of_membership(event),
            Event::Category(event) => Some(Self::of_category(event)),
            Event::Community(event) => Self::of_community(event),
            Event::Account(_) | Event::Reaction(_) => None,
        }
    }

    fn detail(detail: Value) -> Self {
        Self { detail: said(detail), ..Self::default() }
    }

    fn of_thread(event: &ThreadEvent) -> Option<Self> {
        use ThreadEvent as T;
        let moderated = |moderated: bool, subject: Self| moderated.then_some(subject);
        match event {
            T::Started(_) => None,
            T::Retitled(thread::Retitled { title, moderated: by }) => {
                moderated(*by, Self::detail(json!({ "title": title })))
            }
            T::Moved(thread::Moved { from, to }) => {
                Some(Self { category: Some(to.0), ..Self::detail(json!({ "from": from, "to": to })) })
            }
            T::TagsSet(thread::TagsSet { tags, moderated: by }) => {
                moderated(*by, Self::detail(json!({ "tags": tags })))
            }
            T::Locked(thread::Locked { reason }) => Some(Self::detail(json!({ "reason": reason }))),
            T::Pinned(thread::Pinned { until }) => Some(Self::detail(json!({ "until": until }))),
            T::Unlocked(_) | T::Unpinned(_) => Some(Self::detail(json!({}))),
            T::AnswerAccepted(thread::AnswerAccepted { post, moderated: by })
            | T::AnswerCleared(thread::AnswerCleared { post, moderated: by }) => {
                moderated(*by, Self { post: Some(post.0), ..Self::detail(json!({})) })
            }
            T::Deleted(thread::Deleted { reason, moderated: by }) => {
                moderated(*by, Self::detail(json!({ "reason": reason })))
            }
            T::Restored(thread::Restored { moderated: by }) => moderated(*by, Self::detail(json!({}))),
        }
    }

    fn of_post(event: &PostEvent) -> Option<Self> {
        use PostEvent as P;
        let (moderated, thread, detail) = match event {
            P::Written(_) => return None,
            P::Edited(post::Edited { thread, revision, reason, moderated, .. }) => {
                (*moderated, thread, json!({ "revision": revision, "reason": reason }))
            }
            P::Deleted(post::Deleted { thread, reason, moderated }) => {
                (*moderated, thread, json!({ "reason": reason }))
            }
            P::Restored(post::Restored { thread, moderated }) => (*moderated, thread, json!({})),
            P::Hidden(post::Hidden { thread, reason }) => (true, thread, json!({ "reason": reason })),
            P::Unhidden(post::Unhidden { thread }) => (true, thread, json!({})),
        };
        moderated.then(|| Self { thread: Some(thread.0), ..Self::detail(detail) })
    }

    fn of_membership(event: &MembershipEvent) -> Option<Self> {
        use MembershipEvent as M;
        let (account, detail) = match event {
            M::Joined(_) => return None,
            M::Invited(membership::Invited { account })
            | M::Left(membership::Left { account })
            | M::BanLifted(membership::BanLifted { account })
            | M::SilenceLifted(membership::SilenceLifted { account }) => (account, json!({})),
            M::RoleAssigned(membership::RoleAssigned { account, role })
            | M::RoleRevoked(membership::RoleRevoked { account, role }) => (account, json!({ "role": role })),
            M::Banned(membership::Banned { account, until, reason }) => {
                (account, json!({ "until": until, "reason": reason }))
            }
            M::Silenced(membership::Silenced { account, until, reason }) => {
                (account, json!({ "until": until, "reason": reason }))
            }
        };
        Some(Self { account: Some(account.0), ..Self::detail(detail) })
    }

    fn of_category(event: &CategoryEvent) -> Self {
        use CategoryEvent as C;
        let (category, detail) = match event {
            C::Created(category::Created { category, parent, presentation }) => {
                (Some(category), json!({ "parent": parent, "slug": presentation.slug, "name": presentation.name }))
            }
            C::Changed(category::Changed { category, presentation }) => {
                (Some(category), json!({ "slug": presentation.slug, "name": presentation.name }))
            }
            C::Moved(category::Moved { category, parent }) => (Some(category), json!({ "parent": parent })),
            C::Reordered(category::Reordered { parent, order }) => {
                (parent.as_ref(), json!({ "parent": parent, "order": order }))
            }
            C::Archived(category::Archived { category }) | C::Restored(category::Restored { category }) => {
                (Some(category), json!({}))
            }
        };
        Self { category: category.map(|id| id.0), ..Self::detail(detail) }
    }

    fn of_community(event: &CommunityEvent) -> Option<Self> {
        use CommunityEvent as C;
        match event {
            C::Created(_) => None,
            C::SettingsChanged(community::SettingsChanged { settings }) => Some(Self::detail(json!({
                "slug": settings.slug,
                "name": settings.name,
                "visibility": settings.visibility,
                "reactions": settings.reactions,
            }))),
            C::OwnerAdded(community::OwnerAdded { account }) | C::OwnerRemoved(community::OwnerRemoved { account }) => {
                Some(Self { account: Some(account.0), ..Self::detail(json!({})) })
            }
            C::Suspended(community::Suspended { reason }) => Some(Self::detail(json!({ "reason": reason }))),
            C::Resumed(_) | C::Archived(_) => Some(Self::detail(json!({}))),
        }
    }
}

/// Without what was left unsaid.
fn said(mut detail: Value) -> Value {
    if let Value::Object(fields) = &mut detail {
        fields.retain(|_, value| !value.is_null());
    }
    detail
}

#[cfg(test)]
mod tests {
    use events::{AccountId, CategoryId, PostId, Stream, ThreadId};

    use super::*;
    use crate::fixture::History;

    fn acts(history: &History) -> Vec<Act> {
        let mut rows = Table::default();
        history.fold::<ModerationLog>(&mut rows).expect("it folds");
        let mut acts: Vec<Act> = rows.iter().cloned().collect();
        acts.sort_by_key(|act| act.position);
        acts
    }

    #[test]
    fn what_took_a_moderators_right_is_logged_with_what_was_said() {
        let mut history = History::new();
        let (moderator, thread, post) = (Some(AccountId::new()), ThreadId::new(), PostId::new());
        let reason = Some("off topic".to_owned());
        history
            .by(moderator, &Stream::thread(thread), ThreadEvent::Locked(thread::Locked { reason: reason.clone() }))
            .by(moderator, &Stream::post(post), PostEvent::Hidden(post::Hidden { thread, reason }))
            .by(moderator, &Stream::thread(thread), ThreadEvent::Pinned(thread::Pinned { until: None }));
        let log = acts(&history);
        let actions: Vec<_> = log.iter().map(|act| (&*act.action, act.position, act.actor_id)).collect();
        let actor = moderator.map(Uuid::from);
        assert_eq!(actions, [("thread.locked", 1, actor), ("post.hidden", 2, actor), ("thread.pinned", 3, actor)]);
        assert_eq!((log[1].thread_id, log[1].post_id), (Some(thread.0), Some(post.0)));
        assert_eq!((&log[1].detail.0, &log[2].detail.0), (&json!({ "reason": "off topic" }), &json!({})));
    }

    #[test]
    fn what_authors_and_members_do_themselves_is_not() {
        let mut history = History::new();
        let (ada, thread, post) = (AccountId::new(), ThreadId::new(), PostId::new());
        let membership = Stream::membership(history.community, ada);
        let deleted = post::Deleted { thread, reason: None, moderated: false };
        let tags = thread::TagsSet { tags: Vec::new(), moderated: false };
        history
            .by(Some(ada), &Stream::post(post), PostEvent::Deleted(deleted))
            .by(Some(ada), &Stream::thread(thread), ThreadEvent::TagsSet(tags))
            .by(Some(ada), &membership, MembershipEvent::Joined(membership::Joined { account: ada }))
            .by(Some(ada), &membership, MembershipEvent::Left(membership::Left { account: ada }));
        assert!(acts(&history).is_empty());
        let other = Some(AccountId::new());
        history.by(other, &membership, MembershipEvent::Left(membership::Left { account: ada }));
        assert_eq!(acts(&history)[0].account_id, Some(ada.0));
    }

    #[test]
    fn a_move_names_where_it_went() {
        let mut history = History::new();
        let (from, to) = (CategoryId::new(), CategoryId::new());
        history.then(&Stream::thread(ThreadId::new()), ThreadEvent::Moved(thread::Moved { from, to }));
        let log = acts(&history);
        assert_eq!((log[0].category_id, &log[0].detail.0), (Some(to.0), &json!({ "from": from, "to": to })));
    }
}

//! A post.

use std::collections::BTreeMap;

use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{Position, PostId, ThreadId, post::Format};
use platform::problem::Problem;
use serde::Serialize;
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    card::{AccountCard, CommunityCard, ThreadCard},
    failure::Failure,
    projection::{Projection, named},
    reaction::Mine,
    view::{Page, Reflects, Shows, Snapshot, View},
    visibility::{AtPost, Audience, Refusal},
};

/// A post.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Post {
    pub(crate) id: Uuid,
    pub(crate) thread: ThreadCard,
    /// Where posts of several communities are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) community: Option<CommunityCard>,
    /// Its place in the thread: 1 is the opening post. Never reused.
    pub(crate) number: i32,
    /// The post that it answers; null for the opening post.
    pub(crate) parent_id: Option<Uuid>,
    /// 0 for the opening post, else one more than its parent's.
    pub(crate) depth: i16,
    /// Null for a deleted account.
    pub(crate) author: Option<AccountCard>,
    pub(crate) created_at: DateTime<Utc>,
    /// Null where it is as it was first written.
    pub(crate) edited_at: Option<DateTime<Utc>>,
    /// Which of its texts this is, from 1: an edit names it.
    pub(crate) revision: i32,
    pub(crate) format: Format,
    /// As written; null where it is withheld.
    #[schema(example = "What does *everybody* read?")]
    pub(crate) body: Option<String>,
    /// To be shown: sanitised; null where it is withheld.
    #[schema(example = "<p>What does <em>everybody</em> read?</p>")]
    pub(crate) body_html: Option<String>,
    /// Direct replies that can be seen: neither deleted nor hidden. A page shows the others too, as place-holders that
    /// say so.
    pub(crate) replies: i32,
    /// `up` and `like` count 1, `down` -1, imported votes too; other kinds do not count.
    pub(crate) score: i32,
    /// How many reacted, by kind; imported votes are among `up` and `down`.
    #[schema(example = json!({"like": 3, "up": 1}))]
    pub(crate) reactions: BTreeMap<String, i32>,
    /// Whether it is the thread's accepted answer. One that is deleted or hidden is none.
    pub(crate) accepted: bool,
    /// Its text is withheld from all.
    pub(crate) deleted: bool,
    /// Its text is withheld from all but moderators and, by itself, its author.
    pub(crate) hidden: bool,
    /// For `If-Match` of commands to it.
    pub(crate) version: i64,
    /// Its direct replies that are not on this page, with `sort=best`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) more: Option<More>,
    /// In the post's own page, and missing for a guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mine: Option<Mine>,
}

/// Replies that are not on a page.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct More {
    /// How many of them can be seen; 0 where only place-holders of deleted and hidden ones are left.
    pub(crate) count: i32,
    /// Send it as `cursor`, with `view=tree`, `sort=best` and the post as `parent`.
    pub(crate) cursor: String,
}

/// A post by itself
///
/// The author of a hidden post sees its text here. `mine` tells a reader who is logged in its own reaction.
#[utoipa::path(
    get, path = "/v2/posts/{id}", tag = "posts", operation_id = "posts_show",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The post.", body = Post)),
)]
pub(crate) async fn show(AtPost { post, thread, reading }: AtPost) -> Result<Response, Problem> {
    reading.show_posts(thread, PostPage { post, thread }).await
}

/// One post.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PostPage {
    post: PostId,
    thread: ThreadId,
}

/// How many reacted, by kind.
pub(crate) type Reactions = Json<BTreeMap<String, i32>>;

/// A post as [`select_posts`] reads it.
pub(crate) struct Row {
    pub(crate) positions: Vec<Position>,
    pub(crate) post_id: Uuid,
    pub(crate) thread_id: Uuid,
    pub(crate) thread_title: String,
    pub(crate) thread_version: i64,
    pub(crate) community_id: Uuid,
    pub(crate) community_slug: Option<String>,
    pub(crate) community_name: Option<String>,
    pub(crate) number: i32,
    pub(crate) parent_id: Option<Uuid>,
    pub(crate) depth: i16,
    pub(crate) path: Vec<i32>,
    pub(crate) author_id: Option<Uuid>,
    pub(crate) author_username: Option<String>,
    pub(crate) author_display_name: Option<String>,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) edited_at: Option<DateTime<Utc>>,
    pub(crate) revision: i32,
    pub(crate) format: String,
    pub(crate) body: Option<String>,
    pub(crate) body_html: Option<String>,
    /// Direct replies, whatever became of them.
    pub(crate) children: i32,
    pub(crate) replies: i32,
    pub(crate) score: i32,
    pub(crate) reactions: Reactions,
    pub(crate) imported_up: i32,
    pub(crate) imported_down: i32,
    pub(crate) accepted: bool,
    pub(crate) deleted: bool,
    pub(crate) hidden: bool,
    pub(crate) version: i64,
}

/// Posts `p` of threads `t`, each with the text that it shows `v` and its author `a`: those that the last literal picks,
/// in its order. The text of a hidden one is read where $4 says so, that of a deleted one never.
///
/// `select_posts!(snapshot, $4, [with "…",] [in_community,] "…"; $5, …)`: after `with`, what the statement begins with;
/// with `in_community`, each has its community `c`.
macro_rules! select_posts {
    ($at:expr, $withheld:expr, with $with:literal, $which:literal; $($more:expr),*) => {
        select_posts!(@ $at, $withheld, $with,
            r#"null::text as "community_slug?", null::text as "community_name?""#, "", $which; $($more),*)
    };
    ($at:expr, $withheld:expr, in_community, $which:literal; $($more:expr),*) => {
        select_posts!(@ $at, $withheld, "", r#"c.slug as "community_slug?", c.name as "community_name?""#,
            "join community c on c.community_id = p.community_id ", $which; $($more),*)
    };
    ($at:expr, $withheld:expr, $which:literal; $($more:expr),*) => {
        select_posts!($at, $withheld, with "", $which; $($more),*)
    };
    (@ $at:expr, $withheld:expr, $with:literal, $card:literal, $join:literal, $which:literal; $($more:expr),*) => {{
        let rows = sqlx::query_as!(
            crate::thread_page::PostRow,
            $with + r#" select r.positions as "positions!", p.post_id, p.thread_id, t.title as thread_title,
                t.version as thread_version, p.community_id, "# + $card + r#", p.number, p.parent_id, p.depth, p.path,
                p.author_id, a.username as "author_username?", a.display_name as "author_display_name?",
                p.created_at, p.edited_at, p.revision, v.format,
                case when not p.deleted and (not p.hidden or $4) then v.body end as "body?",
                case when not p.deleted and (not p.hidden or $4) then v.body_html end as "body_html?",
                p.children, p.replies, p.score, p.reactions as "reactions: crate::thread_page::Reactions",
                p.imported_up, p.imported_down, coalesce(t.answer_id = p.post_id and not p.deleted and not p.hidden, false) as "accepted!",
                p.deleted, p.hidden, p.version
            from reflected($1, $2, $3) r
            cross join post p
            join thread t on t.thread_id = p.thread_id
            join post_revision v on v.post_id = p.post_id and v.revision = p.revision
            left join account a on a.account_id = p.author_id "# + $join + $which,
            $at.joins, $at.shards, $at.line, $withheld, $($more),*
        )
        .fetch(&mut *$at.connection);
        crate::listing::read(rows).await
    }};
}
pub(crate) use select_posts;

/// The projections that it joins.
pub(crate) const JOINS: &[Projection] = &[Projection::Account, Projection::ThreadList, Projection::ThreadPage];

impl Reflects for Row {
    fn positions(&self) -> &[Position] {
        &self.positions
    }

    fn bytes(&self) -> usize {
        [&self.body, &self.body_html].into_iter().flatten().map(String::len).sum()
    }
}

impl View for PostPage {
    const NAME: &'static str = "post";
    const JOINS: &'static [Projection] = JOINS;
    type Sight = Audience;
    type Row = Row;

    async fn fetch(&self, audience: &Audience, at: &mut Snapshot<'_>) -> Result<Vec<Row>, Failure> {
        let fetched = select_posts!(at, audience.sees_withheld(), "where p.post_id = $5"; self.post.0);
        Ok(fetched?)
    }

    fn page(&self, _: &Audience, rows: Vec<Row>) -> Result<Page, Problem> {
        let mut shows = shows(self.thread, &rows).and(Projection::ThreadPage, self.post);
        shows.posts.push(self.post);
        let row = rows.into_iter().next().ok_or(Refusal::PostNotFound)?;
        Ok(Page::new(row.version, &row.into_body(), shows))
    }
}

/// What a page of posts of a thread shows besides the posts: names and the thread itself.
pub(super) fn shows(thread: ThreadId, rows: &[Row]) -> Shows {
    let mut shows = Shows::of(Projection::ThreadList, thread).and(Projection::ThreadPage, thread);
    for row in rows {
        shows.account(row.author_id);
        shows.posts.push(PostId(row.post_id));
    }
    shows
}

impl Row {
    /// Whether it counts: others are place-holders.
    pub(super) fn can_be_seen(&self) -> bool {
        !self.deleted && !self.hidden
    }

    pub(crate) fn into_body(self) -> Post {
        let mut reactions = self.reactions.0;
        for (kind, imported) in [("up", self.imported_up), ("down", self.imported_down)] {
            if imported != 0 {
                *reactions.entry(kind.to_owned()).or_default() += imported;
            }
        }
        let card = self.community_slug.zip(self.community_name);
        Post {
            id: self.post_id,
            thread: ThreadCard { id: self.thread_id, title: self.thread_title },
            community: card.map(|(slug, name)| CommunityCard { id: self.community_id, slug, name }),
            number: self.number,
            parent_id: self.parent_id,
            depth: self.depth,
            author: AccountCard::new(self.author_id, self.author_username, self.author_display_name),
            created_at: self.created_at,
            edited_at: self.edited_at,
            revision: self.revision,
            format: named::<Format>(&self.format).unwrap_or_default(),
            body: self.body,
            body_html: self.body_html,
            replies: self.replies,
            score: self.score,
            reactions,
            accepted: self.accepted,
            deleted: self.deleted,
            hidden: self.hidden,
            version: self.version,
            more: None,
            mine: None,
        }
    }
}

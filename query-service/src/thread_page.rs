//! Posts: those of a thread, flat or as a tree, and one by itself.

mod as_of;

pub(crate) use as_of::Folded;
mod best;
mod flat;
mod oldest;
pub(crate) mod post;
pub(crate) mod replies;
pub(crate) mod revisions;

pub(crate) use best::BestFirst;
pub(crate) use flat::Flat;
pub(crate) use oldest::OldestFirst;
pub(crate) use post::{Post, PostPage, Reactions, Row as PostRow, select_posts};
pub(crate) use replies::Replies;
pub(crate) use revisions::RevisionList;

use as_of::AsOf;
use axum::response::Response;
use garde::Validate;
use platform::{extract::Query, problem::Problem};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    listing::{self, LONGEST_PAGE, PAGE},
    reaction::Mine,
    visibility::InThread,
};

/// A page of posts. The same links stand in the `Link` header (RFC 8288).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Posts {
    /// The posts, in the order asked for. In a tree each is followed by what is below it.
    items: Vec<Post>,
    /// Send it as `cursor` for the page after this one; null on the last page.
    next: Option<String>,
    /// Send it as `cursor` for the page before this one; null on the first page.
    previous: Option<String>,
    /// With `as_of` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<as_of::Moment>,
    /// Missing for a guest, and with `as_of`.
    #[serde(skip_serializing_if = "Option::is_none")]
    mine: Option<Mine>,
}

/// How a thread's posts are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    /// By number.
    #[default]
    Flat,
    /// Each with what answers it.
    Tree,
}

/// How the children of one post are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// The oldest first.
    #[default]
    Oldest,
    /// The highest score first; of equals, the oldest.
    Best,
}

/// Which page of a thread's posts.
#[derive(Debug, Deserialize, Validate, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// How they are laid out.
    #[garde(skip)]
    #[param(inline)]
    view: Layout,
    /// With `view=flat`: from this number on.
    #[garde(inner(range(min = 1)))]
    from: Option<i32>,
    /// With `view=tree`: how the children of each post are sorted. `oldest` shows every post; `best` shows the best of
    /// each post and tells how many `more` there are.
    #[garde(skip)]
    #[param(inline)]
    sort: Option<Sort>,
    /// With `view=tree`: only what is below this post.
    #[garde(skip)]
    parent: Option<Uuid>,
    /// With `sort=best`: children shown of each post below the first level, up to 20; 3 unless told.
    #[garde(inner(range(max = best::MOST_CHILDREN)))]
    children: Option<u32>,
    /// With `sort=best`: levels shown, 1 to 12; 3 unless told.
    #[garde(inner(range(min = 1, max = best::MOST_LEVELS)))]
    levels: Option<u32>,
    /// With `view=flat`, for moderators: the thread as it was at this time (RFC 3339: all that was recorded up to then), or
    /// at this position of the history.
    #[garde(skip)]
    #[param(value_type = Option<String>, example = "2026-01-31T12:00:00Z")]
    as_of: Option<AsOf>,
    /// Posts on a page, 1 to 100; with `sort=best`, on its first level. Fewer where their texts are long.
    #[garde(range(min = 1, max = LONGEST_PAGE))]
    #[param(minimum = 1, maximum = 100, default = 20)]
    limit: u32,
    /// `next`, `previous` or a post's `more` of another page.
    #[garde(skip)]
    cursor: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            view: Layout::default(),
            from: None,
            sort: None,
            parent: None,
            children: None,
            levels: None,
            as_of: None,
            limit: PAGE,
            cursor: None,
        }
    }
}

/// The posts of a thread
///
/// Deleted posts keep their place without their text, hidden ones show it to moderators only; neither count as replies.
/// `mine` tells a reader who is logged in its own reactions.
///
/// With `as_of`, for moderators and operators, they are as they were at a moment of the history, and so are the thread's title
/// and state: folded from the events, with nothing that came later. Only the names of accounts are those of now. The pages
/// that follow are as of the same moment.
#[utoipa::path(
    get, path = "/v2/threads/{id}/posts", tag = "posts", operation_id = "posts_list",
    params(("id" = Uuid, Path, description = "The thread's id."), Page),
    responses(
        (status = 200, description = "A page of them.", body = Posts),
        (status = 403, description = "`role-required`: `as_of` is for moderators."),
        (status = 404, description = "There is no such thread, or the reader may not know of it; `thread-not-begun`: not yet as \
            of then."),
        (status = 500, description = "`unreadable-event`: with `as_of`, one of its events cannot be read, and an operator has to \
            see to it.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "`position-not-reached`, as all reads; `events-not-read-yet`: with `as_of`, this process \
            does not read events yet; or the service is overloaded."),
    ),
)]
pub(crate) async fn list(at: InThread, Query(page): Query<Page>) -> Result<Response, Problem> {
    page.check()?;
    if let Some(as_of) = page.as_of {
        let Page { from, limit, .. } = page;
        let wanted = as_of::Wanted { as_of, from, limit, cursor: page.cursor.as_deref() };
        return Box::pin(as_of::show(at, wanted)).await;
    }
    let InThread { thread, reading, .. } = at;
    let Page { from, parent, children, levels, limit, .. } = page;
    let cursor = page.cursor.as_deref();
    match (page.view, page.sort.unwrap_or_default()) {
        (Layout::Flat, _) => reading.show_posts(thread, Flat::new(thread, from, limit, cursor)?).await,
        (Layout::Tree, Sort::Oldest) => {
            reading.show_posts(thread, OldestFirst::new(thread, parent, limit, cursor)?).await
        }
        (Layout::Tree, Sort::Best) => {
            let shape =
                best::Shape { children: children.unwrap_or(best::CHILDREN), levels: levels.unwrap_or(best::LEVELS) };
            reading.show_posts(thread, BestFirst::new(thread, parent, shape, limit, cursor)?).await
        }
    }
}

impl Page {
    /// Refuses what says nothing in the layout asked for: a client that sends it expects something else.
    fn check(&self) -> Result<(), Problem> {
        let (flat, best) = (self.view == Layout::Flat, self.sort == Some(Sort::Best));
        let refused = [
            ("?from", "goes with view=flat only", self.from.is_some() && !flat),
            ("?from", "does not go with a cursor", self.from.is_some() && flat && self.cursor.is_some()),
            ("?as_of", "goes with view=flat only", self.as_of.is_some() && !flat),
            ("?parent", "goes with view=tree only", self.parent.is_some() && flat),
            ("?sort", "goes with view=tree only", self.sort.is_some() && flat),
            ("?children", "goes with view=tree and sort=best only", self.children.is_some() && (flat || !best)),
            ("?levels", "goes with view=tree and sort=best only", self.levels.is_some() && (flat || !best)),
        ];
        let refused = refused.into_iter().filter(|(.., applies)| *applies);
        listing::does_not_apply(refused.map(|(pointer, words, _)| (pointer, words)))
    }
}

impl Posts {
    fn new(items: Vec<Post>, next: Option<String>, previous: Option<String>) -> Self {
        Self { items, next, previous, as_of: None, mine: None }
    }
}

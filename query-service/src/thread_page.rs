//! Posts: those of a thread, flat or as a tree, and one by itself.

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
    /// Missing for a guest.
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
            limit: PAGE,
            cursor: None,
        }
    }
}

/// The posts of a thread
///
/// Deleted posts keep their place without their text, hidden ones show it to moderators only; neither count as replies.
/// `mine` tells a reader who is logged in its own reactions.
#[utoipa::path(
    get, path = "/v2/threads/{id}/posts", tag = "posts", operation_id = "posts_list",
    params(("id" = Uuid, Path, description = "The thread's id."), Page),
    responses((status = 200, description = "A page of them.", body = Posts)),
)]
pub(crate) async fn list(
    InThread { thread, reading, .. }: InThread,
    Query(page): Query<Page>,
) -> Result<Response, Problem> {
    page.check()?;
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
        Self { items, next, previous, mine: None }
    }
}

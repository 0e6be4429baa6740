//! Every route of the read side.

use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    account, category_tree, community,
    docs::{self, Api},
    history, membership, moderation_log,
    reading::ReadSide,
    thread_list, thread_page,
};

/// The endpoints, documented.
pub(crate) fn routes() -> OpenApiRouter<ReadSide> {
    let mut router = OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(account::show))
        .routes(routes!(account::communities::list))
        .routes(routes!(account::posts::list))
        .routes(routes!(account::threads::list))
        .routes(routes!(community::list))
        .routes(routes!(community::show))
        .routes(routes!(category_tree::tree))
        .routes(routes!(category_tree::show))
        .routes(routes!(history::list))
        .routes(routes!(history::catalogue::show))
        .routes(routes!(membership::list))
        .routes(routes!(membership::show))
        .routes(routes!(moderation_log::list))
        .routes(routes!(thread_list::list::list))
        .routes(routes!(thread_list::tags::list))
        .routes(routes!(thread_list::show))
        .routes(routes!(thread_page::list))
        .routes(routes!(thread_page::post::show))
        .routes(routes!(thread_page::replies::list))
        .routes(routes!(thread_page::revisions::list));
    docs::complete(router.get_openapi_mut());
    router
}

//! All routes of the command-service, and what all of them have in common in the API's documentation.

use platform::{
    openapi::{BEARER, close_request_bodies, describe_bearer, describe_headers, header},
    problem::Problem,
};
use utoipa::{
    IntoParams, OpenApi,
    openapi::{
        RefOr,
        path::{Operation, Parameter, ParameterIn, PathItem},
        security::SecurityRequirement,
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App, account, category,
    command::{CommandHeaders, IfMatch, IfMatchAnswered},
    community, membership, post, reaction, session, thread,
};

/// The API's documentation, but for the routes.
#[derive(OpenApi)]
#[openapi(
    info(title = "Agora", description = "An API-first platform for community forums."),
    components(schemas(Problem)),
    tags(
        (name = "accounts", description = "People on the platform."),
        (name = "sessions", description = "Logging in and out."),
        (name = "communities", description = "Forums, their settings and owners."),
        (name = "categories", description = "The tree of places for threads in a community."),
        (name = "members", description = "Who belongs to a community, with which role, and who may not take part."),
        (name = "threads", description = "Discussions."),
        (name = "posts", description = "What is said in them."),
        (name = "reactions", description = "What is said to a post without words."),
    )
)]
struct Api;

/// Every writing endpoint, documented.
pub(crate) fn routes() -> OpenApiRouter<App> {
    let mut routes = all();
    let api = routes.get_openapi_mut();
    describe_bearer(api);
    api.paths.paths.values_mut().for_each(document);
    describe_headers(api);
    close_request_bodies(api);
    routes
}

fn all() -> OpenApiRouter<App> {
    use account::endpoints as accounts;
    use category::endpoints as categories;
    use community::endpoints as communities;
    use membership::endpoints as members;
    use post::endpoints as posts;
    use reaction::endpoints as reactions;
    use thread::endpoints as threads;

    OpenApiRouter::with_openapi(Api::openapi())
        .routes(routes!(accounts::register))
        .routes(routes!(accounts::import))
        .routes(routes!(accounts::change_profile))
        .routes(routes!(accounts::change_password))
        .routes(routes!(session::log_in))
        .routes(routes!(session::renew))
        .routes(routes!(session::log_out))
        .routes(routes!(communities::create))
        .routes(routes!(communities::change))
        .routes(routes!(communities::add_owner, communities::remove_owner))
        .routes(routes!(communities::suspend, communities::resume))
        .routes(routes!(communities::archive, communities::reopen))
        .routes(routes!(categories::create))
        .routes(routes!(categories::reorder))
        .routes(routes!(categories::change, categories::archive))
        .routes(routes!(categories::restore))
        .routes(routes!(members::join, members::leave))
        .routes(routes!(members::invite))
        .routes(routes!(members::assign_role, members::revoke_role))
        .routes(routes!(members::ban, members::lift_ban))
        .routes(routes!(members::silence, members::lift_silence))
        .routes(routes!(threads::start))
        .routes(routes!(threads::change, threads::delete))
        .routes(routes!(threads::restore))
        .routes(routes!(threads::lock, threads::unlock))
        .routes(routes!(threads::pin, threads::unpin))
        .routes(routes!(threads::accept_answer, threads::clear_answer))
        .routes(routes!(posts::write))
        .routes(routes!(posts::reply))
        .routes(routes!(posts::edit, posts::delete))
        .routes(routes!(posts::restore))
        .routes(routes!(posts::hide, posts::unhide))
        .routes(routes!(reactions::set, reactions::clear))
        .routes(routes!(reactions::import_score))
}

/// Says of every operation what all of them share: the token, the headers of commands, those of their answers.
fn document(item: &mut PathItem) {
    let PathItem { post, put, patch, delete, .. } = item;
    for operation in [post, put, patch, delete].into_iter().flatten() {
        let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
        let guests = operation.security.is_some();
        if !guests {
            operation.security = Some(vec![SecurityRequirement::new::<_, [String; 0], String>(BEARER, [])]);
        }
        if tag != "sessions" {
            // What is made has no version yet.
            let creates = operation.responses.responses.contains_key("201");
            let if_match = match &*tag {
                _ if creates => Vec::new(),
                "reactions" => IfMatchAnswered::into_params(|| Some(ParameterIn::Header)),
                _ => IfMatch::into_params(|| Some(ParameterIn::Header)),
            };
            let headers = CommandHeaders::into_params(|| Some(ParameterIn::Header));
            // The others are an operator's, who is no guest.
            let headers = headers.into_iter().take(if guests { 1 } else { usize::MAX });
            add(operation, headers.chain(if_match));
            answers(operation);
            if guests {
                // Nobody is asked for a token, so none is refused.
                operation.responses.responses.remove("401");
            }
        }
        // A handler's name says what it does; only with its resource's is it unique.
        operation.operation_id = operation.operation_id.take().map(|name| format!("{tag}_{name}"));
    }
}

fn add(operation: &mut Operation, parameters: impl Iterator<Item = Parameter>) {
    operation.parameters.get_or_insert_default().extend(parameters.map(RefOr::T));
}

fn answers(operation: &mut Operation) {
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let mut say = |name: &str, what: &str| {
            response.headers.insert(name.to_owned(), RefOr::T(header(what)));
        };
        if status.starts_with('2') {
            say("Agora-Position", "Names this write: a read that sends it back shows it.");
            say("ETag", "The version in quotes, for If-Match.");
            say("Idempotency-Replayed", "`true` where the same key was answered before, and this is that answer.");
            say("Agora-Unchanged", "`true` where it was all so already, and nothing was written.");
        }
        if status == "201" {
            say("Location", "Where it is found.");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn operations() -> Vec<(String, Operation)> {
        let paths = routes().into_openapi().paths.paths;
        let methods = |(path, item): (String, PathItem)| {
            [item.post, item.put, item.patch, item.delete].into_iter().flatten().map(move |it| (path.clone(), it))
        };
        paths.into_iter().flat_map(methods).collect()
    }

    #[test]
    fn every_operation_says_what_it_is_and_what_it_answers() {
        let operations = operations();
        assert!(operations.len() > 40);
        for (path, operation) in operations {
            assert!(operation.summary.is_some_and(|summary| summary.len() > 10), "{path} has a summary");
            assert!(operation.security.is_some(), "{path} says who may");
            let statuses: HashSet<_> = operation.responses.responses.keys().map(String::as_str).collect();
            assert!(statuses.contains("200") || statuses.contains("201"), "{path}: {statuses:?}");
            let registers = path == "/v2/accounts";
            for problem in ["400", "401", "422", "503"].into_iter().filter(|it| !registers || *it != "401") {
                assert!(statuses.contains(problem), "{path} documents {problem}");
            }
            let named = operation.parameters.iter().flatten().filter(
                |parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == ParameterIn::Path),
            );
            assert_eq!(named.count(), path.matches('{').count(), "{path} describes what it names");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let mut names = HashSet::new();
        for (path, operation) in operations() {
            let name = operation.operation_id.expect("a name");
            assert!(names.insert(name.clone()), "{name} at {path} is another's too");
        }
    }

    #[test]
    fn all_that_is_referred_to_is_there() {
        let api = serde_json::to_value(routes().into_openapi()).expect("JSON");
        let text = api.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(api["components"]["schemas"].get(name).is_some(), "{name} is not described");
        }
    }
}

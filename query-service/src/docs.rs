//! What all reads have in common in the API's documentation.

use axum::http::StatusCode;
use platform::{
    openapi::{self as docs, BEARER, header},
    problem::{self, Problem},
};
use utoipa::{
    OpenApi, PartialSchema,
    openapi::{
        self, RefOr, Required, ResponseBuilder,
        path::{Operation, ParameterBuilder, ParameterIn},
        security::SecurityRequirement,
    },
};

use crate::{card, reaction::Mine};

/// The documentation, but for the routes.
#[derive(OpenApi)]
#[openapi(
    components(schemas(Problem, Mine, card::AccountCard)),
    tags(
        (name = "accounts", description = "People on the platform."),
        (name = "communities", description = "Forums, their settings and owners."),
        (name = "categories", description = "The tree of places for threads in a community."),
        (name = "members", description = "Who belongs to a community, with which role, and who may not take part."),
        (name = "threads", description = "Discussions."),
        (name = "posts", description = "What is said in them."),
        (name = "moderation", description = "How order is kept."),
        (name = "events", description = "What happened, as facts that last."),
    )
)]
pub(crate) struct Api;

/// The headers that every read takes.
const PARAMETERS: [(&str, &str); 3] = [
    (
        "Agora-Position",
        "What the answer must reflect: the tokens that writes answered, comma-separated. The read waits for it.",
    ),
    ("Prefer", "`wait=<seconds>`: how long it waits for that, 2 unless told, 25 at most (RFC 7240)."),
    ("If-None-Match", "The ETags of answers that are there already: 304 where one of them is still good (RFC 9110)."),
];

/// The headers of every answer, and of the word that it is as the client has it (RFC 9110, section 15.4.5); see [`has`].
const HEADERS: [(&str, &str); 5] = [
    (POSITION, "What the answer reflects, where it shows anything: send it to a later read that must not show less."),
    ("ETag", "`\"<version>-<hash>\"`: for If-None-Match, and its version for If-Match of a command."),
    ("Cache-Control", "It may be kept, and must be asked about before each use."),
    (LINK, "`first`, `prev`, `next` and `last` pages, as far as there are (RFC 8288)."),
    ("Preference-Applied", "`wait=<seconds>`, where `Prefer` asked for that (RFC 7240)."),
];

const POSITION: &str = "Agora-Position";
const LINK: &str = "Link";
/// What is not made of read tables, and so reflects no position of theirs.
const EVENTS: &str = "events";

/// What every read may answer instead.
const PROBLEMS: [(StatusCode, &str, &str); 6] = [
    (
        StatusCode::BAD_REQUEST,
        "malformed-request",
        "The request is malformed: an id that is none, an unknown parameter, a cursor from elsewhere.",
    ),
    (StatusCode::UNAUTHORIZED, "unauthenticated", "The access token is not good, or needed and not there."),
    (StatusCode::NOT_FOUND, "not-found", "There is no such thing, or the reader may not know of it."),
    (StatusCode::GONE, "history-lost", "`history-lost`: what Agora-Position names is of a history that was lost."),
    (StatusCode::UNPROCESSABLE_ENTITY, "invalid-value", "A parameter is out of its range."),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "position-not-reached",
        "`position-not-reached`: what Agora-Position names cannot be read yet; or the service is overloaded.",
    ),
];

/// Adds to every operation what all of them have.
pub(crate) fn complete(api: &mut openapi::OpenApi) {
    for item in api.paths.paths.values_mut() {
        let Some(operation) = &mut item.get else { continue };
        // A guest may ask, and a member.
        operation.security =
            Some(vec![SecurityRequirement::default(), SecurityRequirement::new::<_, [String; 0], String>(BEARER, [])]);
        complete_operation(operation);
    }
    docs::describe_headers(api);
}

fn complete_operation(operation: &mut Operation) {
    let headers: Vec<_> = HEADERS.into_iter().filter(|(name, _)| has(operation, name)).collect();
    let parameters = operation.parameters.get_or_insert_default();
    for (name, description) in PARAMETERS {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(description))
            .schema(Some(text()));
        parameters.push(RefOr::T(parameter.build()));
    }
    let responses = &mut operation.responses.responses;
    let unchanged = ResponseBuilder::new().description("The client has the answer already.");
    responses.entry("304".to_owned()).or_insert(RefOr::T(unchanged.build()));
    for status in ["200", "304"] {
        if let Some(RefOr::T(answer)) = responses.get_mut(status) {
            let described = headers.iter().map(|(name, what)| ((*name).to_owned(), RefOr::T(header(what))));
            answer.headers.extend(described);
        }
    }
    let problem = |status, name| (problem::CONTENT_TYPE.to_owned(), RefOr::T(docs::problem(status, name)));
    for (status, name, description) in PROBLEMS {
        let described = || RefOr::T(ResponseBuilder::new().description(description).build());
        if let RefOr::T(response) = responses.entry(status.as_str().to_owned()).or_insert_with(described) {
            response.content.extend([problem(status, name)]);
        }
    }
    // Where an operation says that it answers so, and not with which problem.
    if let Some(RefOr::T(response)) = responses.get_mut("403")
        && response.content.is_empty()
    {
        response.content.extend([problem(StatusCode::FORBIDDEN, "role-required")]);
    }
}

/// Whether answers of an operation have this header: what is no page of a list, which a cursor leads on, has no links.
fn has(operation: &Operation, header: &str) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    match header {
        POSITION => operation.tags.iter().flatten().all(|tag| tag != EVENTS),
        LINK => parameters.any(|it| matches!(it, RefOr::T(parameter) if parameter.name == "cursor")),
        _ => true,
    }
}

fn text() -> RefOr<openapi::Schema> {
    String::schema()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use crate::{
        api,
        listing::{LONGEST_PAGE, PAGE},
    };

    #[test]
    fn every_operation_is_described_under_a_name_of_its_own() {
        let mut names = HashSet::new();
        let paths = api().paths.paths;
        assert!(paths.len() > 15);
        for (path, item) in paths {
            let operation = item.get.expect("a read");
            assert!(operation.summary.is_some_and(|summary| summary.len() > 10), "{path} has a summary");
            assert!(names.insert(operation.operation_id.expect("a name")), "{path} has another's name");
            for status in ["200", "304", "400", "404", "503"] {
                assert!(operation.responses.responses.contains_key(status), "{path} answers {status}");
            }
        }
    }

    #[test]
    fn a_page_is_as_long_as_it_says() {
        let api = serde_json::to_value(api()).expect("JSON");
        let operations = api["paths"].as_object().expect("paths").values();
        let parameters = operations.filter_map(|item| item["get"]["parameters"].as_array()).flatten();
        let limits: Vec<_> = parameters.filter(|it| it["name"] == "limit").map(|it| &it["schema"]).collect();
        assert!(limits.len() > 5);
        for limit in limits {
            assert_eq!(
                (&limit["minimum"], &limit["maximum"], &limit["default"]),
                (&json!(1), &json!(LONGEST_PAGE), &json!(PAGE))
            );
        }
    }

    #[test]
    fn all_that_is_referred_to_is_there() {
        let api = serde_json::to_value(api()).expect("JSON");
        let text = api.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(api["components"]["schemas"].get(name).is_some(), "{name} is not described");
        }
    }
}

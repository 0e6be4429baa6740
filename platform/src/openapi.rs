//! The API's description, as programs and people read it.

use std::collections::HashSet;

use axum::{Router, http::StatusCode};
use utoipa::openapi::{
    Content, ContentBuilder, Header, ObjectBuilder, OpenApi, Ref, RefOr, Schema,
    header::HeaderBuilder,
    path::PathItem,
    schema::{AdditionalProperties, ArrayItems, SchemaType, Type},
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::problem::Problem;

/// The name under which operations ask for an access token: `security(("bearer" = []))`.
pub const BEARER: &str = "bearer";

/// `GET /openapi.json`, and `GET /docs`: a page that shows it, tries it, and needs nothing from elsewhere.
pub fn routes<S: Clone + Send + Sync + 'static>(api: OpenApi) -> Router<S> {
    let config = Config::default().persist_authorization(true).validator_url("none");
    SwaggerUi::new("/docs").url("/openapi.json", api).config(config).into()
}

/// Says how an access token is sent: operations refer to it as [`BEARER`].
pub fn describe_bearer(api: &mut OpenApi) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    api.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
}

/// What an answer holds that is a problem of the kind `name`, with an example.
pub fn problem(status: StatusCode, name: &'static str) -> Content {
    let example = Problem::new(status, name, "What went wrong this time, and what to do about it.").to_json();
    let schema = Ref::from_schema_name("Problem");
    ContentBuilder::new().schema(Some(schema)).example(serde_json::from_str(&example).ok()).build()
}

/// The header that every answer of a status has.
const ALWAYS: [(&str, &str, &str); 5] = [
    ("304", "ETag", "The one that the client has, and that is still good (RFC 9110, 8.8.3)."),
    ("401", "WWW-Authenticate", "`Bearer`, and what is wrong with the token that was sent, if any (RFC 6750, 3)."),
    ("412", "ETag", "What `If-Match` would have to name: the one that is there now (RFC 9110, 13.1.1)."),
    ("429", "Retry-After", "In how many seconds the same request may succeed (RFC 9110, 10.2.3)."),
    ("503", "Retry-After", "In how many seconds the same request may succeed (RFC 9110, 10.2.3)."),
];

/// Says of every operation which headers its answers have by their status.
pub fn describe_headers(api: &mut OpenApi) {
    for PathItem { get, put, post, delete, patch, .. } in api.paths.paths.values_mut() {
        for operation in [get, put, post, delete, patch].into_iter().flatten() {
            for (status, name, description) in ALWAYS {
                if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
                    response.headers.insert(name.to_owned(), RefOr::T(header(description)));
                }
            }
        }
    }
}

/// A header that is text.
pub fn header(description: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new().schema(Some(text)).description(Some(description)).build()
}

/// Says of every object in a request's body what [`Json`](crate::extract::Json) does: fields that it does not name are
/// refused.
pub fn close_request_bodies(api: &mut OpenApi) {
    let mut named = Vec::new();
    for PathItem { get, put, post, delete, patch, .. } in api.paths.paths.values_mut() {
        for operation in [get, put, post, delete, patch].into_iter().flatten() {
            let Some(RefOr::T(body)) = &mut operation.request_body else { continue };
            for content in body.content.values_mut() {
                let RefOr::T(content) = content else { continue };
                content.schema.iter_mut().for_each(|schema| close(schema, &mut named));
            }
        }
    }
    let schemas = &mut api.components.get_or_insert_default().schemas;
    let mut closed = HashSet::new();
    while let Some(name) = named.pop() {
        if closed.insert(name.clone())
            && let Some(schema) = schemas.get_mut(&name)
        {
            close(schema, &mut named);
        }
    }
}

/// Closes the objects of a schema; those that it refers to are added to `named`.
fn close(schema: &mut RefOr<Schema>, named: &mut Vec<String>) {
    let parts: Vec<&mut RefOr<Schema>> = match schema {
        RefOr::Ref(reference) => {
            named.extend(reference.ref_location.strip_prefix("#/components/schemas/").map(str::to_owned));
            return;
        }
        RefOr::T(Schema::Object(object)) => {
            if object.schema_type == SchemaType::Type(Type::Object) && object.additional_properties.is_none() {
                object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
            }
            object.properties.values_mut().collect()
        }
        RefOr::T(Schema::Array(array)) => match &mut array.items {
            ArrayItems::RefOrSchema(items) => vec![&mut **items],
            ArrayItems::False => vec![],
        },
        RefOr::T(Schema::OneOf(choice)) => choice.items.iter_mut().collect(),
        RefOr::T(Schema::AnyOf(choice)) => choice.items.iter_mut().collect(),
        // Closed one by one, parts would refuse one another's fields: a body that is put together says so itself.
        RefOr::T(_) => vec![],
    };
    for part in parts {
        close(part, named);
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;
    use utoipa::{
        OpenApi as _, ToSchema,
        openapi::{InfoBuilder, OpenApiBuilder},
    };

    use super::*;
    use crate::testing;

    async fn get(path: &str) -> (u16, serde_json::Value) {
        let mut api = OpenApiBuilder::new().info(InfoBuilder::new().title("Things").version("1").build()).build();
        describe_bearer(&mut api);
        let request = Request::get(path).body(Body::empty()).expect("a request");
        testing::read(routes(api).oneshot(request).await.expect("an answer")).await
    }

    #[tokio::test]
    async fn the_description_is_served_as_json() {
        let (status, api) = get("/openapi.json").await;
        assert_eq!((status, &api["info"]["title"]), (200, &"Things".into()));
        assert_eq!(api["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
    }

    #[tokio::test]
    async fn the_page_that_shows_it_comes_from_here() {
        let (status, page) = get("/docs/").await;
        let page = page.as_str().expect("HTML");
        assert!(status == 200 && page.contains("swagger-ui") && !page.contains("https://"), "{page}");
        let (status, script) = get("/docs/swagger-initializer.js").await;
        assert!(status == 200 && script.as_str().expect("a script").contains("/openapi.json"));
    }

    #[utoipa::path(get, path = "/orders", responses((status = 200), (status = 304), (status = 401), (status = 503)))]
    #[allow(dead_code, reason = "only described")]
    fn orders() {}

    #[test]
    fn answers_have_the_headers_of_their_status() {
        #[derive(utoipa::OpenApi)]
        #[openapi(paths(orders))]
        struct Api;
        let mut api = Api::openapi();
        describe_headers(&mut api);
        let api = serde_json::to_value(api).expect("JSON");
        let responses = &api["paths"]["/orders"]["get"]["responses"];
        for (status, header) in [("304", "ETag"), ("401", "WWW-Authenticate"), ("503", "Retry-After")] {
            assert_eq!(responses[status]["headers"][header]["schema"]["type"], "string", "{status}");
        }
        assert!(responses["200"]["headers"].is_null() && responses["429"].is_null(), "{responses}");
    }

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct Order {
        items: Vec<Item>,
        address: Option<Address>,
    }

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct Item {
        name: String,
    }

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct Address {
        street: String,
    }

    #[derive(ToSchema)]
    #[allow(dead_code, reason = "only described")]
    struct Receipt {
        number: u64,
    }

    #[utoipa::path(post, path = "/orders", request_body = Order, responses((status = 200, body = Receipt)))]
    #[allow(dead_code, reason = "only described")]
    fn order() {}

    #[test]
    fn what_is_sent_is_closed_and_what_is_answered_stays_open() {
        #[derive(utoipa::OpenApi)]
        #[openapi(paths(order))]
        struct Api;
        let mut api = Api::openapi();
        close_request_bodies(&mut api);
        let api = serde_json::to_value(api).expect("JSON");
        let closed = |name: &str| api["components"]["schemas"][name].get("additionalProperties").cloned();
        for sent in ["Order", "Item", "Address"] {
            assert_eq!(closed(sent), Some(false.into()), "{sent}");
        }
        assert_eq!(closed("Receipt"), None);
    }
}

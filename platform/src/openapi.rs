//! The API's description, as programs and people read it.

use axum::Router;
use utoipa::openapi::{
    OpenApi,
    security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_swagger_ui::{Config, SwaggerUi};

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

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;
    use utoipa::openapi::{InfoBuilder, OpenApiBuilder};

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
}

//! All services side by side in one process, on one router.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{Json, Router, routing::get};
use platform::{
    db::{self, DatabaseConfig},
    health::{self, Health},
    http,
    kafka::Broker,
    openapi as docs,
};
use projector::Parts;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use store_reader::Wake;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};

use crate::{config::Config, daily_check::DailyCheck};

/// The schema of the read tables, and its migrations.
const READ: &str = "read";
static READ_MIGRATIONS: Migrator = sqlx::migrate!("../migrations/read");

/// Both schemas: where they are, and what makes them.
fn schemas(config: &Config) -> [(&DatabaseConfig, &'static str, &'static Migrator); 2] {
    [
        (&config.database, command_service::SCHEMA, &command_service::MIGRATIONS),
        (config.read_tables(), READ, &READ_MIGRATIONS),
    ]
}

/// Refuses schemas that this release does not know: what a service asks before it starts beside others.
///
/// # Errors
/// Where a database is away, or has to be migrated, or was by a newer release.
pub async fn require(config: &Config) -> anyhow::Result<()> {
    for (database, schema, migrator) in schemas(config) {
        let pool = db::connect(database, schema, "agora").await?;
        db::require(&pool, schema, migrator).await?;
        pool.close().await;
    }
    Ok(())
}

/// Brings both schemas up to date.
///
/// # Errors
/// Where a database is away, or was migrated by a newer release.
pub async fn migrate(config: &Config) -> anyhow::Result<()> {
    for (database, schema, migrator) in schemas(config) {
        let pool = db::connect(database, schema, "agora migrate").await?;
        db::migrate(&pool, schema, migrator).await?;
        pool.close().await;
    }
    Ok(())
}

/// Starts every service on databases that are migrated, and answers all endpoints as one router, with the API's
/// description and its page. Background work ends with `shutdown`; wait for `tasks` then.
///
/// # Errors
/// Where a database or Kafka is away, or a setting is none.
pub async fn start(
    config: &Config,
    broker: &Broker,
    health: &Health,
    shutdown: &CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<Router> {
    let wake = Wake::default();
    let settings = config.command_service();
    let commands =
        command_service::start(&settings, health, shutdown.clone(), tasks, DailyCheck::of(config), wake.clone());
    let (commands, verifier) = commands.await.context("cannot start the command-service")?;
    let parts = Parts {
        event_store: config.database.clone(),
        read_tables: config.read_tables().clone(),
        broker: broker.clone(),
        wake,
    };
    let projecting = projector::start(parts, shutdown.clone(), tasks);
    projecting.await.context("cannot start the projector")?;
    let settings = config.query_service();
    let reads = query_service::start(&settings, broker.clone(), Arc::new(verifier), health, shutdown.clone(), tasks);
    let reads = reads.await.context("cannot start the query-service")?;

    let router = Router::from(commands).merge(Router::from(reads)).merge(Router::from(health::routes(health.clone())));
    let router = router.merge(docs::routes(openapi())).route("/", get(|| async { Json(pointers()) }));
    Ok(http::layers(router, &config.http))
}

/// The API's description: all services', as one.
pub fn openapi() -> OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Agora")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(include_str!("openapi.md").trim_end()))
        .license(Some(license))
        .build();
    let mut api = OpenApiBuilder::new().info(info).build();
    api.merge(command_service::api());
    api.merge(query_service::api());
    api.merge(health::routes::<()>(Health::new()).into_openapi());
    docs::describe_bearer(&mut api);
    api
}

/// What somebody sees who asks for nothing.
fn pointers() -> Value {
    json!({
        "name": "agora",
        "version": env!("CARGO_PKG_VERSION"),
        "docs": "/docs",
        "openapi": "/openapi.json",
        "communities": "/v2/communities",
        "health": "/health/ready",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_has_all_services_and_comes_out_the_same_each_time() {
        let text = openapi().to_pretty_json().expect("JSON");
        for _ in 0..3 {
            assert_eq!(openapi().to_pretty_json().expect("JSON"), text);
        }
        let api: Value = serde_json::from_str(&text).expect("JSON");
        assert!(api["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        let communities = &api["paths"]["/v2/communities"];
        assert!(communities["get"].is_object() && communities["post"].is_object(), "one path of two services");
        assert!(api["paths"]["/health/ready"]["get"].is_object());
    }

    #[test]
    fn no_two_operations_have_one_name() {
        let api: Value = serde_json::from_str(&openapi().to_json().expect("JSON")).expect("JSON");
        let mut names = std::collections::HashSet::new();
        for (path, item) in api["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
                assert!(names.insert(name.clone()), "{method} {path} is the second operation called {name}");
            }
        }
    }

    #[test]
    fn every_operation_has_a_name_a_summary_and_says_how_it_refuses() {
        let api: Value = serde_json::from_str(&openapi().to_json().expect("JSON")).expect("JSON");
        let mut operations = 0;
        for (path, item) in api["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let words = |field: &str| operation[field].as_str().is_some_and(|text| !text.trim().is_empty());
                assert!(words("operationId") && words("summary"), "{method} {path}");
                operations += 1;
                // Health is asked by programs that read the status only.
                if path.starts_with("/health/") {
                    continue;
                }
                let answers = operation["responses"].as_object().expect("answers");
                let refusals: Vec<_> = answers.iter().filter(|(status, _)| status.starts_with('4')).collect();
                assert!(!refusals.is_empty(), "{method} {path} is never refused");
                for (status, answer) in refusals {
                    let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                    assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}: {status}");
                }
            }
        }
        assert!(operations > 60, "{operations} operations");
    }

    #[test]
    fn every_request_body_refuses_fields_that_it_does_not_name() {
        /// The objects of a schema, whatever it refers to.
        fn objects<'a>(api: &'a Value, schema: &'a Value, found: &mut Vec<&'a Value>) {
            if let Some(name) = schema["$ref"].as_str() {
                return objects(api, api.pointer(&name[1..]).expect("it is described"), found);
            }
            if schema["type"] == "object" {
                found.push(schema);
            }
            let properties = schema["properties"].as_object().into_iter().flat_map(|fields| fields.values());
            let choices =
                ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|of| schema[of].as_array().into_iter().flatten());
            properties.chain(choices).chain(schema.get("items")).for_each(|part| objects(api, part, found));
        }
        let api: Value = serde_json::from_str(&openapi().to_json().expect("JSON")).expect("JSON");
        let operations =
            api["paths"].as_object().expect("paths").values().flat_map(|item| item.as_object().expect("operations"));
        let mut bodies = 0;
        for (_, operation) in operations.filter(|(_, operation)| operation["requestBody"].is_object()) {
            let mut found = vec![];
            objects(&api, &operation["requestBody"]["content"]["application/json"]["schema"], &mut found);
            assert!(!found.is_empty(), "{} has a body without fields", operation["operationId"]);
            for object in found {
                assert_eq!(object["additionalProperties"], false, "{}: {object}", operation["operationId"]);
            }
            bodies += 1;
        }
        assert!(bodies > 20, "{bodies} bodies");
    }
}

//! The published catalogue: every event that Agora writes, with the JSON Schema of its payload.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{Event, upcast::CURRENT};

/// One event of the catalogue.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CatalogueEntry)]
pub struct Entry {
    /// `aggregate.past_participle`, the `CloudEvents` `type`.
    #[schema(example = "post.written")]
    pub name: &'static str,
    /// The version in which it is written now.
    pub version: u32,
    /// The payload, in JSON Schema 2020-12.
    #[schema(value_type = Object)]
    pub schema: Schema,
}

impl Entry {
    pub(crate) fn of<T: JsonSchema>(name: &'static str, version: u32) -> Self {
        Self { name, version, schema: SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>() }
    }
}

/// Every event in its newest version, as `agora events catalogue` prints it and `GET /v2/events/catalogue` answers.
pub fn catalogue() -> Vec<Entry> {
    Event::catalogue()
}

/// What this release writes, each as `post.written version 1`.
pub fn written() -> Vec<String> {
    Event::newest().map(|(name, version)| words(name, version)).collect()
}

/// What this release can read, in the same words: what it writes, and all that it brings to that.
pub fn readable() -> Vec<String> {
    let old = CURRENT.steps.iter().map(|step| (step.name, step.from));
    Event::newest().chain(old).map(|(name, version)| words(name, version)).collect()
}

/// How a version of an event is named among releases: `post.written version 1`.
pub fn words(name: &str, version: u32) -> String {
    format!("{name} version {version}")
}

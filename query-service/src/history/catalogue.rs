//! Which events there are, and what each says: for who decodes them.

use std::sync::LazyLock;

use axum::response::Response;
use bytes::Bytes;
use events::{
    Event,
    catalogue::{Entry, catalogue},
};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, schema::Type},
};

use crate::{
    answer::{Answer, ETag, Known, Whole},
    reading::hash,
};

/// Every event that is written.
#[derive(Serialize, ToSchema)]
pub(crate) struct Catalogue {
    /// In their newest versions, those of one aggregate together.
    items: Vec<Entry>,
}

/// It changes with the release only.
static BODY: LazyLock<Bytes> =
    LazyLock::new(|| serde_json::to_vec(&Catalogue { items: catalogue() }).expect("schemas are JSON").into());

/// The catalogue of events: the JSON Schema of each
///
/// For everybody. What the `data` of an event is, by its `type`: each event in the version in which `/v2/events` tells it,
/// with the schema of its payload (JSON Schema 2020-12). It changes only with a release of Agora. `agora events catalogue`
/// prints the same.
#[utoipa::path(
    get, path = "/v2/events/catalogue", tag = "events", operation_id = "events_catalogue",
    responses((status = 200, description = "All of them.", body = Catalogue)),
)]
pub(crate) async fn show(known: Known) -> Response {
    let body = BODY.clone();
    let etag = ETag { version: 0, hash: hash(&body) };
    Answer { etag, body: Whole::of(body), links: None, positions: Vec::new(), signed_in: false, waited: None }
        .respond(&known)
}

/// The name of an event, for the API's documentation.
pub(super) enum Name {}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        let names = Event::newest().map(|(name, _)| name);
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for Name {}

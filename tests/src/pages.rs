//! Walking through a list as a client does: page by page, by the cursors that it is given.

use std::collections::HashSet;

use serde_json::Value;

use crate::forum::Person;

/// All items of the list at `path` (which may have a query), `limit` on a page: read forwards and then backwards, which
/// shows the same pages, each item once.
pub async fn walk(reader: &Person<'_>, path: &str, limit: usize) -> Vec<Value> {
    let first = page(reader, path, limit, &Value::Null).await;
    assert!(first["previous"].is_null(), "{path}: nothing is before the first page");
    let mut pages = vec![first];
    while let cursor @ Value::String(_) = &pages[pages.len() - 1]["next"].clone() {
        let next = page(reader, path, limit, cursor).await;
        assert!(next["previous"].is_string(), "{path}: there is a way back");
        pages.push(next);
    }
    let mut cursor = pages[pages.len() - 1]["previous"].clone();
    for before in pages.iter().rev().skip(1) {
        let back = page(reader, path, limit, &cursor).await;
        assert_eq!(back["items"], before["items"], "{path}: backwards as forwards");
        cursor = back["previous"].clone();
    }
    assert!(cursor.is_null(), "{path}: it begins where it began");
    let items: Vec<Value> = pages.iter().flat_map(|page| page["items"].as_array().expect("items")).cloned().collect();
    let distinct: HashSet<String> = items.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), items.len(), "{path}: each once");
    items
}

/// What these items say at a JSON pointer (RFC 6901), in their order.
pub fn each<'v>(items: impl IntoIterator<Item = &'v Value>, pointer: &str) -> Vec<Value> {
    items.into_iter().map(|item| item.pointer(pointer).cloned().unwrap_or_default()).collect()
}

async fn page(reader: &Person<'_>, path: &str, limit: usize, cursor: &Value) -> Value {
    let separator = if path.contains('?') { '&' } else { '?' };
    let cursor = cursor.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
    let answer = reader.get(&format!("{path}{separator}limit={limit}{cursor}")).await;
    let links = answer.header("link").unwrap_or_default().to_owned();
    let page = answer.expect(200);
    let many = page["items"].as_array().expect("items").len();
    assert!(many <= limit, "{path}: {many} items on a page of {limit}");
    assert!(many == limit || page["next"].is_null(), "{path}: only the last page has room");
    for (field, relation) in [("next", "next"), ("previous", "prev")] {
        let linked = links.contains(&format!("rel=\"{relation}\""));
        assert_eq!(linked, page[field].is_string(), "{path}: {links} says the same as `{field}`");
    }
    page
}

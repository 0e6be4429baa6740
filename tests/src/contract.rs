//! What the API's description promises of each answer: [`check`] holds every answer of these tests to it.
//!
//! It knows as much of JSON Schema as the description uses, and refuses the rest. It is stricter in one thing: a field
//! that is not described is a defect.

use std::sync::LazyLock;

use chrono::DateTime;
use reqwest::header::HeaderMap;
use serde_json::{Map, Value};
use uuid::Uuid;

static API: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(agora::stack::openapi()).expect("JSON"));

/// What an answer of a status always has in the API, and the description says so. Health says with a 503 what is missing.
const ALWAYS: [(u16, &str); 5] =
    [(304, "ETag"), (412, "ETag"), (401, "WWW-Authenticate"), (429, "Retry-After"), (503, "Retry-After")];

/// The headers that tell a client something, which are sent where the description has them, and only there.
const TELLING: [&str; 9] = [
    "Agora-Position",
    "Agora-Unchanged",
    "Cache-Control",
    "ETag",
    "Idempotency-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "Retry-After",
];
/// Those of them that are there sometimes: each says when.
const SOMETIMES: [&str; 3] = ["Agora-Unchanged", "Idempotency-Replayed", "Preference-Applied"];

/// What of an answer the description does not say; nothing where the answer is as described. What has no operation is
/// described by no answer but a refusal, outside of the API by any.
pub fn check(method: &str, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let head = method == "HEAD";
    let Some(operation) = operation(if head { "GET" } else { method }, path) else {
        return if status >= 400 || !path.starts_with("/v2/") {
            Ok(())
        } else {
            Err(format!("{status} of an operation that is not described"))
        };
    };
    let described = &operation["responses"][status.to_string()];
    if described.is_null() {
        return Err(format!("{status} is not described"));
    }
    for (of, header) in ALWAYS {
        if status == of
            && path.starts_with("/v2/")
            && (described["headers"][header].is_null() || !headers.contains_key(header))
        {
            return Err(format!("{status} without {header}, or it is not described"));
        }
    }
    if path.starts_with("/v2/") {
        check_headers(status, described, headers, body)?;
    }
    if head {
        return Ok(());
    }
    let Some(contents) = described["content"].as_object() else {
        return if body.is_empty() { Ok(()) } else { Err(format!("{status} is described without a body")) };
    };
    let media = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default();
    let content = contents.get(media).ok_or_else(|| format!("{status}: `{media}` is not described"))?;
    if media == "text/plain" {
        return Ok(());
    }
    let value = serde_json::from_slice(body).map_err(|error| format!("{status}: no JSON: {error}"))?;
    let mut wrong = Vec::new();
    validate(&value, &content["schema"], "#", &mut wrong);
    if wrong.is_empty() { Ok(()) } else { Err(format!("{status}: {}", wrong.join("; "))) }
}

/// Whether what the headers tell is what the description says, both ways.
fn check_headers(status: u16, described: &Value, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    let shows_nothing = body.is_empty() || body.starts_with(br#"{"items":[]"#);
    let unkept = headers.get("cache-control").is_some_and(|value| value == "no-store");
    for name in TELLING {
        // No problem is for a cache.
        if status >= 400 && name == "Cache-Control" {
            continue;
        }
        let (says, sent) = (!described["headers"][name].is_null(), headers.contains_key(name));
        // What is not to be kept is not compared; a list that is empty may be of no shard.
        let may_lack =
            SOMETIMES.contains(&name) || (unkept && name == "ETag") || (shows_nothing && name == "Agora-Position");
        if sent && !says {
            return Err(format!("{status} has {name}, which is not described"));
        }
        if says && !sent && !may_lack {
            return Err(format!("{status} is described with {name}, and does not have it"));
        }
    }
    Ok(())
}

/// The operation at a path; where several templates fit, the one that names most of it.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let path: Vec<&str> = path.split('?').next().unwrap_or_default().split('/').collect();
    let fits = |template: &str| {
        let parts: Vec<&str> = template.split('/').collect();
        let pairs = || parts.iter().zip(&path);
        let fits = parts.len() == path.len() && pairs().all(|(part, is)| part.starts_with('{') || part == is);
        fits.then(|| pairs().filter(|(part, is)| part == is).count())
    };
    let paths = API["paths"].as_object().expect("paths").iter();
    let (_, item) =
        paths.filter_map(|(template, item)| Some((fits(template)?, item))).max_by_key(|(named, _)| *named)?;
    item.get(method.to_ascii_lowercase())
}

fn resolve(schema: &'static Value) -> &'static Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolve(API.pointer(&reference[1..]).expect("what is referred to is there")),
        None => schema,
    }
}

fn validate(value: &Value, schema: &'static Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolve(schema);
    let fits = |schema: &'static Value| {
        let mut wrong = Vec::new();
        validate(value, schema, at, &mut wrong);
        wrong.is_empty()
    };
    for (keyword, says) in schema.as_object().expect("a schema") {
        let list = || says.as_array().expect("a list").iter();
        let holds = match keyword.as_str() {
            "type" => types(says).any(|name| is(value, name)),
            "enum" => list().any(|one| one == value),
            "const" => says == value,
            "format" => value.as_str().is_none_or(|text| is_formatted(text, says.as_str().unwrap_or_default())),
            "minimum" => value.as_f64().is_none_or(|number| Some(number) >= says.as_f64()),
            "maximum" => value.as_f64().is_none_or(|number| Some(number) <= says.as_f64()),
            "minLength" => value.as_str().is_none_or(|text| Some(text.chars().count() as u64) >= says.as_u64()),
            "maxLength" => value.as_str().is_none_or(|text| Some(text.chars().count() as u64) <= says.as_u64()),
            "oneOf" => list().filter(|one| fits(one)).count() == 1,
            "anyOf" => list().any(fits),
            "required" => value
                .as_object()
                .is_none_or(|fields| list().all(|name| fields.contains_key(name.as_str().expect("a name")))),
            "allOf" => {
                list().for_each(|part| validate(value, part, at, wrong));
                true
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    validate(item, says, &format!("{at}/{index}"), wrong);
                }
                true
            }
            "propertyNames" => {
                for name in value.as_object().into_iter().flat_map(Map::keys) {
                    validate(&Value::String(name.clone()), says, &format!("{at}/{name}"), wrong);
                }
                true
            }
            // The fields come last; the others are words.
            "properties" | "additionalProperties" | "description" | "example" | "examples" | "default" => true,
            unknown => panic!("`{unknown}` of {schema} is unknown here: please teach it"),
        };
        if !holds {
            wrong.push(format!("{at} is against `{keyword}` {says}: {value}"));
        }
    }
    fields(value, schema, at, wrong);
}

/// Those described by their own schema, the others by `additionalProperties`. Without either, any will do.
fn fields(value: &Value, schema: &'static Value, at: &str, wrong: &mut Vec<String>) {
    let Some(fields) = value.as_object() else { return };
    let (described, others) = (schema.get("properties"), schema.get("additionalProperties"));
    for (name, field) in fields {
        let at = format!("{at}/{name}");
        match (described.and_then(|described| described.get(name)), others) {
            (Some(own), _) => validate(field, own, &at, wrong),
            (None, Some(other)) if other.is_object() => validate(field, other, &at, wrong),
            (None, Some(Value::Bool(true))) => {}
            (None, None) if described.is_none() => {}
            _ => wrong.push(format!("{at} is not described")),
        }
    }
}

fn types(says: &'static Value) -> impl Iterator<Item = &'static str> {
    says.as_array().map_or(std::slice::from_ref(says), Vec::as_slice).iter().filter_map(Value::as_str)
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("there is no type `{unknown}`"),
    }
}

fn is_formatted(text: &str, format: &str) -> bool {
    match format {
        "uuid" => text.parse::<Uuid>().is_ok(),
        // Four digits for the year, as RFC 3339 has it.
        "date-time" => DateTime::parse_from_rfc3339(text).is_ok() && text.as_bytes()[0].is_ascii_digit(),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;
    use serde_json::json;

    use super::*;

    fn checked(path: &str, status: u16, media: &'static str, body: &Value) -> Result<(), String> {
        let mut headers = vec![("content-type", media)];
        if status == 200 {
            headers.extend(["agora-position", "cache-control", "etag", "link"].map(|name| (name, "x")));
        }
        checked_with(path, status, &headers, body)
    }

    fn checked_with(path: &str, status: u16, headers: &[(&str, &str)], body: &Value) -> Result<(), String> {
        let value = |value| HeaderValue::from_str(value).expect("ASCII");
        let headers = headers.iter().map(|(name, said)| (name.parse().expect("a name"), value(said))).collect();
        check("GET", path, status, &headers, body.to_string().as_bytes())
    }

    #[test]
    fn headers_are_sent_where_they_are_described_and_only_there() {
        let path = "/v2/communities/tea/tags";
        let all = ["agora-position", "cache-control", "etag", "link"].map(|name| (name, "x"));
        // `null` is a body: what is wrong with the headers is told first.
        let unchanged = |headers: &[_]| checked_with(path, 304, headers, &Value::Null);
        assert_eq!(
            unchanged(&[&all[..], &[("preference-applied", "wait=1")]].concat()),
            Err("304 is described without a body".to_owned())
        );
        assert!(unchanged(&all[..3]).is_err_and(|wrong| wrong.contains("with Link, and does not have it")));
        let more = [&all[..], &[("location", "x")]].concat();
        assert!(unchanged(&more).is_err_and(|wrong| wrong.contains("has Location, which is not described")));
    }

    #[test]
    fn what_is_described_passes_and_nothing_else() {
        let (path, json, problem) =
            ("/v2/communities/tea/tags?limit=1", "application/json", "application/problem+json");
        let page = |item: Value| json!({"items": [item], "next": null, "previous": null});
        let good = page(json!({"tag": "leaf", "threads": 3}));
        assert_eq!(checked(path, 200, json, &good), Ok(()));
        for (path, status, media, body) in [
            (path, 200, json, page(json!({"tag": "leaf", "threads": "3"}))),
            (path, 200, json, page(json!({"tag": "leaf"}))),
            (path, 200, json, page(json!({"tag": "leaf", "threads": 3, "mine": true}))),
            (path, 200, problem, good.clone()),
            (path, 403, problem, json!({"type": "x", "title": "x", "status": 403, "detail": "x"})),
            (path, 400, problem, json!({"type": "x", "title": "x"})),
            ("/v2/teapots", 200, json, good),
        ] {
            assert!(checked(path, status, media, &body).is_err(), "{path}: {status} {media} {body}");
        }
        let refused = json!({"type": "x", "title": "x", "status": 404, "detail": "x"});
        assert_eq!(checked("/v2/teapots", 404, problem, &refused), Ok(()));
    }
}

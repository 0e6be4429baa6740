use axum::{Router, http::Request, routing::post};
use serde::Deserialize;
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::testing;

#[derive(Deserialize, Validate)]
struct Note {
    #[garde(length(chars, min = 1, max = 10))]
    title: String,
    #[garde(length(max = 3), inner(length(chars, max = 5), custom(lower)))]
    #[serde(default)]
    tags: Vec<String>,
    #[garde(dive)]
    #[serde(default)]
    place: Option<Place>,
    #[garde(skip)]
    #[serde(default)]
    colour: Option<Colour>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Colour {
    Red,
    Green,
}

#[derive(Deserialize, Validate)]
struct Place {
    #[garde(range(max = 90))]
    latitude: i32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "garde's signature")]
fn lower(tag: &str, _: &()) -> garde::Result {
    let lower = tag.chars().all(char::is_lowercase);
    if lower { Ok(()) } else { Err(crate::extract::invalid("not_lower", "must be in lower case")) }
}

async fn posted(content_type: &str, body: impl Into<Body>) -> (u16, Value) {
    let handler = |Json(note): Json<Note>| async move {
        Json(json!([note.title, note.tags, note.place.is_some() || note.colour.is_some()]))
    };
    let router = Router::new().route("/", post(handler));
    let request = Request::post("/").header("content-type", content_type).body(body.into()).expect("a request");
    testing::read(router.oneshot(request).await.expect("an answer")).await
}

async fn refused(body: &'static str) -> (u16, String, String, String) {
    let (status, answer) = posted("application/json", body).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = &answer["errors"][0];
    (status, text(&error["pointer"]), text(&error["code"]), text(&answer["detail"]))
}

#[tokio::test]
async fn a_good_body_arrives() {
    for content_type in ["application/json", "application/json; charset=utf-8", "application/merge-patch+json"] {
        let (status, answer) = posted(content_type, r#"{"title": "héllo", "tags": ["a"]}"#).await;
        assert_eq!((status, answer), (200, json!(["héllo", ["a"], false])));
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_line_and_column() {
    let (status, pointer, code, detail) = refused("{\n  \"title\": \"x\",\n}").await;
    assert_eq!((status, pointer.as_str(), code.as_str()), (400, "#", "invalid_json"));
    assert!(detail.contains("line 3, column 1"), "{detail}");
    assert_eq!(refused("").await.2, "empty");
    assert_eq!(refused("{\"title\": \"x\"} {}").await.2, "invalid_json");
    let (status, answer) = posted("application/json", &b"{\"title\": \"\xff\"}"[..]).await;
    assert_eq!((status, &answer["errors"][0]["code"]), (400, &json!("invalid_json")));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_place() {
    let cases = [
        (r#"{"titel": "x", "title": "x"}"#, "#/titel", "unknown_field"),
        (r#"{"title": "x", "place": {"latitude": 1, "longitude": 2}}"#, "#/place/longitude", "unknown_field"),
        (r#"{"title": 1}"#, "#/title", "wrong_type"),
        (r#"{"title": "x", "colour": 7}"#, "#/colour", "wrong_type"),
        (r#"{"title": "x", "tags": ["a", 7]}"#, "#/tags/1", "wrong_type"),
        (r#"{"tags": []}"#, "#/title", "missing_field"),
        (r#"{"title": "a\u0000b"}"#, "#/title", "nul_character"),
        (r#"{"title": "x", "tags": ["a", "\u0000"]}"#, "#/tags/1", "nul_character"),
        (r#"["x"]"#, "#", "wrong_type"),
        ("7", "#", "wrong_type"),
    ];
    for (body, pointer, code) in cases {
        let (status, found, found_code, detail) = refused(body).await;
        assert_eq!((status, found.as_str(), found_code.as_str()), (400, pointer, code), "{body}: {detail}");
    }
}

#[tokio::test]
async fn what_does_not_fit_is_said_without_a_word_of_rust() {
    for (body, said) in [
        ("7", "invalid type: integer `7`, expected an object"),
        (r#"{"title": "x", "tags": {}}"#, "invalid type: object, expected a list"),
        (
            r#"{"title": "x", "place": {"latitude": 3000000000}}"#,
            "invalid value: integer `3000000000`, expected a whole number from -2147483648 to 2147483647",
        ),
        (r#"{"title": "x", "place": 7}"#, "invalid type: integer `7`, expected an object"),
        (r#"{"title": ["x, expected y"]}"#, "invalid type: list, expected a string"),
        (r#"{"title": "x", "colour": "blue"}"#, "unknown value `blue`, expected `red` or `green`"),
        (r#"{"title": "x", "colour": 7}"#, "invalid type, expected a string"),
    ] {
        let (_, answer) = posted("application/json", body).await;
        assert_eq!(answer["errors"][0]["detail"], said, "{body}");
    }
}

#[tokio::test]
async fn an_escaped_backslash_before_u0000_is_no_nul() {
    let (status, answer) = posted("application/json", r#"{"title": "\\u0000"}"#).await;
    assert_eq!((status, answer), (200, json!(["\\u0000", [], false])));
}

#[tokio::test]
async fn every_broken_rule_is_named() {
    let body = r#"{"title": "", "tags": ["abcdef", "B"], "place": {"latitude": 91}}"#;
    let (status, answer) = posted("application/json", body).await;
    assert_eq!((status, &answer["type"]), (422, &json!("/problems/invalid-value")));
    let mut found: Vec<(String, String)> = answer["errors"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|error| {
            (error["pointer"].as_str().unwrap_or("").to_owned(), error["code"].as_str().unwrap_or("").to_owned())
        })
        .collect();
    found.sort();
    let expected = [
        ("#/place/latitude", "too_large"),
        ("#/tags/0", "too_long"),
        ("#/tags/1", "not_lower"),
        ("#/title", "too_short"),
    ];
    assert_eq!(found, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
}

#[tokio::test]
async fn other_media_types_are_refused() {
    for content_type in ["text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded"] {
        let (status, answer) = posted(content_type, "{}").await;
        assert_eq!((status, &answer["type"]), (415, &json!("/problems/unsupported-media-type")), "{content_type}");
    }
}

#[tokio::test]
async fn a_body_may_be_optional() {
    let handler = |note: Option<Json<Note>>| async move { Json(note.is_some()) };
    let router = Router::new().route("/", post(handler));
    let ask = |request: Request<Body>| {
        let router = router.clone();
        async move { testing::read(router.oneshot(request).await.expect("an answer")).await }
    };
    let request = Request::post("/").body(Body::empty()).expect("a request");
    assert_eq!(ask(request).await, (200, json!(false)));
    let request = Request::post("/").header("content-type", "application/json").body(Body::from("null"));
    assert_eq!(ask(request.expect("a request")).await, (200, json!(false)));
    let request = Request::post("/").header("content-type", "application/json").body(Body::from(r#"{"title": "x"}"#));
    assert_eq!(ask(request.expect("a request")).await, (200, json!(true)));
    let request = Request::post("/").body(Body::from(r#"{"title": "x"}"#)).expect("a request");
    assert_eq!(ask(request).await.0, 415);
}

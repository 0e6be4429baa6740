//! What a field of a stream said before.

use std::collections::HashMap;

use serde_json::Value;

/// Fields that say how something is until another event of its stream says it anew, and are in each event that does. What
/// else a payload has is of that event only: a reason, an end, who it was.
const SETTINGS: [&str; 10] =
    ["body", "description", "display_name", "format", "name", "slug", "tags", "title", "username", "visibility"];

/// The last value of each of these fields, and of which thing in the stream: a tree has many categories.
#[derive(Debug, Default)]
pub(super) struct Settings(HashMap<(Option<String>, &'static str), Value>);

impl Settings {
    /// Notes what an event says; answers, by field, what was said before and is not said any more.
    pub(super) fn change(&mut self, aggregate: &str, payload: &Value) -> HashMap<&'static str, Value> {
        let thing = if aggregate == "category_tree" { payload["category"].as_str() } else { None };
        let mut before = HashMap::new();
        for field in SETTINGS {
            let Some(now) = payload.get(field) else { continue };
            let last = self.0.insert((thing.map(str::to_owned), field), now.clone());
            before.extend(last.filter(|last| last != now).map(|last| (field, last)));
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_says_how_the_same_thing_is_has_a_before() {
        let mut thread = Settings::default();
        let mut said = |payload: Value| thread.change("thread", &payload);
        assert!(said(json!({"title": "Tea", "category": "1", "tags": ["a"]})).is_empty());
        assert!(said(json!({"reason": "off topic"})).is_empty());
        assert_eq!(said(json!({"title": "Teas"})), HashMap::from([("title", json!("Tea"))]));
        assert!(said(json!({"reason": "rude", "title": "Teas"})).is_empty(), "a reason is of its event");

        let mut tree = Settings::default();
        let mut said = |payload: Value| tree.change("category_tree", &payload);
        assert!(said(json!({"category": "1", "name": "Green"})).is_empty());
        assert!(said(json!({"category": "2", "name": "Black"})).is_empty(), "another category");
        assert_eq!(said(json!({"category": "1", "name": "Greens"})), HashMap::from([("name", json!("Green"))]));
    }
}

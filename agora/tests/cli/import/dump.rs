//! A dump's tables, read in the simplest way that is not the importer's: a row is a line, an attribute what stands
//! between two quotes.

use std::{collections::HashMap, path::Path};

use chrono::{DateTime, NaiveDateTime, Utc};

/// One row: its attributes, unescaped.
pub(crate) struct Row(HashMap<String, String>);

/// The rows of `dump/<table>.xml`, in the file's order.
pub(crate) fn rows(dump: &Path, table: &str) -> Vec<Row> {
    let text = std::fs::read_to_string(dump.join(format!("{table}.xml"))).expect("a table");
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("<row ")?.strip_suffix("/>"));
    let rows: Vec<Row> = lines.map(row).collect();
    assert_eq!(rows.len(), text.matches("<row ").count(), "{table}: every row is a line");
    rows
}

fn row(mut line: &str) -> Row {
    let mut attributes = HashMap::new();
    while let Some((name, rest)) = line.split_once("=\"") {
        let (value, rest) = rest.split_once('"').expect("a closing quote");
        attributes.insert(name.trim().to_owned(), unescaped(value));
        line = rest;
    }
    Row(attributes)
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('&');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (entity, rest) = part.split_once(';').expect("an entity ends");
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let hex = number.strip_prefix("#x").expect("a character by its number");
                u32::from_str_radix(hex, 16).ok().and_then(char::from_u32).expect("a character")
            }
        });
        plain.push_str(rest);
    }
    plain
}

impl Row {
    /// An attribute, where the row has it.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// An attribute that every such row has.
    pub(crate) fn must(&self, name: &str) -> &str {
        self.text(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    /// An attribute that names a row.
    pub(crate) fn id(&self, name: &str) -> Option<i64> {
        self.text(name).map(|text| text.parse().expect("a number"))
    }

    /// The same, of an attribute that every such row has.
    pub(crate) fn number(&self, name: &str) -> i64 {
        self.must(name).parse().expect("a number")
    }

    /// When the row was made.
    pub(crate) fn created(&self) -> DateTime<Utc> {
        let text = self.must("CreationDate");
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").expect("a time").and_utc()
    }
}

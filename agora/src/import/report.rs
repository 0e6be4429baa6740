//! What a dump's rows came to: counted, and the broken ones named one by one.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::{client::tally::Sent, terminal::count};

/// Rows that are named one by one on the terminal; the rest is counted.
const NAMED: u64 = 50;

/// Different reasons that are counted apart.
const REASONS: usize = 200;

/// Why a row with wrong content is not carried over.
pub const BROKEN: &str = "the row is broken";

/// A row of a dump, as it is named to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
pub struct At {
    /// The file.
    pub table: Table,
    /// The row in it, from 1.
    pub row: u64,
}

/// A file of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub enum Table {
    #[serde(rename = "Users.xml")]
    Users,
    #[serde(rename = "Posts.xml")]
    Posts,
    #[serde(rename = "Comments.xml")]
    Comments,
    #[serde(rename = "Votes.xml")]
    Votes,
}

/// Why a row is not carried over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// In words, the same for all rows with this reason.
    pub reason: String,
    /// What is special about this row. A row with a detail is named to the person; one without is only counted.
    pub detail: Option<String>,
}

/// Counts rows while they are read and sent.
#[derive(Default)]
pub struct Rows(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    read: BTreeMap<Table, u64>,
    skipped: BTreeMap<(Table, String), u64>,
    named: u64,
}

/// What an import came to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// The community's slug.
    pub community: String,
    /// Rows by file.
    pub read: BTreeMap<Table, u64>,
    /// Rows that were not carried over, and why.
    pub skipped: Vec<Skipped>,
    /// Commands sent, and what became of them.
    #[serde(flatten)]
    pub sent: Sent,
    /// How long the read tables took to show all of it, after the last command, in seconds.
    pub caught_up_seconds: f64,
}

/// Rows of a file that were not carried over for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub table: Table,
    /// Why.
    pub reason: String,
    /// How many.
    pub rows: u64,
}

impl Table {
    /// Its file's name.
    pub fn file(self) -> &'static str {
        match self {
            Self::Users => "Users.xml",
            Self::Posts => "Posts.xml",
            Self::Comments => "Comments.xml",
            Self::Votes => "Votes.xml",
        }
    }

    /// The name of its root element.
    pub fn root(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Posts => "posts",
            Self::Comments => "comments",
            Self::Votes => "votes",
        }
    }
}

impl Skip {
    /// For a reason that needs no further word.
    pub fn quietly(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: None }
    }

    /// With what is special about this row.
    pub fn because(reason: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { reason: reason.into(), detail: Some(detail.to_string()) }
    }
}

impl Rows {
    /// One more row was read.
    pub fn read(&self, table: Table) {
        *self.lock().read.entry(table).or_default() += 1;
    }

    /// A row is not carried over. The line to show, where there is one to show.
    #[must_use]
    pub fn skip(&self, at: At, skip: Skip) -> Option<String> {
        let mut counted = self.lock();
        let key = (at.table, skip.reason.clone());
        let key = if counted.skipped.len() < REASONS || counted.skipped.contains_key(&key) {
            key
        } else {
            (at.table, "other reasons".to_owned())
        };
        *counted.skipped.entry(key).or_default() += 1;
        let detail = skip.detail?;
        counted.named += 1;
        match counted.named {
            ..NAMED => Some(format!("{at}: {}: {detail}", skip.reason)),
            NAMED => Some(format!("{at}: {}: {detail}\nmore such rows are counted only", skip.reason)),
            _ => None,
        }
    }

    /// What was counted.
    pub fn counted(&self) -> (BTreeMap<Table, u64>, Vec<Skipped>) {
        let counted = self.lock();
        let skipped = counted.skipped.iter();
        let skipped =
            skipped.map(|((table, reason), &rows)| Skipped { table: *table, reason: reason.clone(), rows }).collect();
        (counted.read.clone(), skipped)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} row {}", self.table.file(), self.row)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = self.read.iter().map(|(table, rows)| format!("{} {}", count(*rows), table.root()));
        writeln!(f, "read: {}", read.collect::<Vec<_>>().join(", "))?;
        writeln!(f, "{}", self.sent)?;
        if !self.skipped.is_empty() {
            writeln!(f, "\nskipped:")?;
            for Skipped { table, reason, rows } in &self.skipped {
                writeln!(f, "{:>9}  {:13} {reason}", count(*rows), table.file())?;
            }
        }
        writeln!(f, "\nread tables caught up after {:.2} s", self.caught_up_seconds)?;
        let broken: u64 =
            self.skipped.iter().filter(|skipped| skipped.reason == BROKEN).map(|skipped| skipped.rows).sum();
        let refused = self.sent.total.refused;
        let lost = [(broken, "broken rows"), (refused, "refused commands")];
        let lost: Vec<_> =
            lost.iter().filter(|(many, _)| *many > 0).map(|(many, what)| format!("{what}: {}", count(*many))).collect();
        let but = if lost.is_empty() { String::new() } else { format!(", but for {}", lost.join(", ")) };
        if self.sent.total.written == 0 {
            write!(f, "nothing was written: {} has all of it already{but}", self.community)
        } else {
            write!(f, "{} is complete{but}", self.community)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_up_to_a_limit_and_all_are_counted() {
        let rows = Rows::default();
        let mut said = 0;
        for row in 1..=200 {
            rows.read(Table::Posts);
            let skip = if row % 2 == 0 { Skip::because("broken", "no Id") } else { Skip::quietly("a wiki") };
            said += usize::from(rows.skip(At { table: Table::Posts, row }, skip).is_some());
        }
        assert_eq!(said, 50);
        let (read, skipped) = rows.counted();
        assert_eq!(read[&Table::Posts], 200);
        let reason = |reason: &str| Skipped { table: Table::Posts, reason: reason.to_owned(), rows: 100 };
        assert_eq!(skipped, [reason("a wiki"), reason("broken")]);
    }

    #[test]
    fn a_row_is_named_by_file_number_and_reason() {
        let line =
            Rows::default().skip(At { table: Table::Votes, row: 7 }, Skip::because("broken", "it has no PostId"));
        assert_eq!(line.as_deref(), Some("Votes.xml row 7: broken: it has no PostId"));
    }
}

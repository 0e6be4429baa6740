//! What was measured, what it was held to, and whether it was met.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    load::ms,
    pairs::{Pairs, Spread},
};

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Things a second.
    PerSecond,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Micros,
    /// Kibibytes.
    KiB,
    /// Mebibytes.
    MiB,
    /// Hundredths of one core.
    Percent,
    /// How many times as much.
    Times,
    /// Things.
    Count,
}

impl Unit {
    fn show(self, value: f64) -> String {
        let number = match value.abs() {
            large if large >= 100. => thousands(value),
            middle if middle >= 10. => format!("{value:.1}"),
            _ => format!("{value:.2}"),
        };
        match self {
            Self::PerSecond => format!("{number}/s"),
            Self::Ms => format!("{number} ms"),
            Self::Micros => format!("{number} µs"),
            Self::KiB => format!("{number} KiB"),
            Self::MiB => format!("{number} MiB"),
            Self::Percent => format!("{number} %"),
            Self::Times => format!("{number}×"),
            Self::Count => thousands(value),
        }
    }
}

/// Without a fraction, its digits in groups of three.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && digit.is_ascii_digit() && (digits.len() - nth) % 3 == 0 && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What a number is held to.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// As much or more.
    Least(f64),
    /// As much or less.
    Most(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::Least(bound) => value >= bound,
            Self::Most(bound) => value <= bound,
        }
    }

    fn show(self, unit: Unit) -> String {
        match self {
            Self::Least(bound) => format!("≥ {}", unit.show(bound)),
            Self::Most(bound) => format!("≤ {}", unit.show(bound)),
        }
    }
}

/// One line of the result.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    name: String,
    unit: Unit,
    ours: Spread,
    baseline: Option<Baseline>,
    held_to: Option<Bound>,
    met: Option<bool>,
}

/// What something was measured beside.
#[derive(Clone, Debug, Serialize)]
struct Baseline {
    what: &'static str,
    theirs: Spread,
    ratio: Spread,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit, ours, baseline, held_to, met } = self;
        write!(f, "{name} · {}", unit.show(ours.median))?;
        let (by, judged_in) = match baseline {
            Some(Baseline { what, theirs, ratio: Spread { median, least, most } }) => {
                (format!("{what} {} · {median:.2}× ({least:.2} to {most:.2})", unit.show(theirs.median)), Unit::Times)
            }
            None => (format!("– · ({} to {})", unit.show(ours.least), unit.show(ours.most)), *unit),
        };
        let bound = held_to.map_or_else(|| "–".to_owned(), |bound| bound.show(judged_in));
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "SHORT",
            None => "shown",
        };
        write!(f, " · {by} · {bound} · {verdict}")
    }
}

/// All lines, told as they come.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Of what, and how thoroughly.
    of: String,
    lines: Vec<Line>,
    /// Groups of rows that could not be measured to their end, and why.
    failed: Vec<(&'static str, String)>,
    #[serde(skip)]
    quiet: bool,
}

impl Report {
    /// `quiet` tells nothing before the end.
    pub fn new(of: String, quiet: bool) -> Self {
        let report = Self { of, lines: vec![], failed: vec![], quiet };
        report.say(&report.of);
        report
    }

    /// A number beside its baseline: the median ratio is what is held to the bound.
    pub fn beside(
        &mut self,
        name: impl Into<String>,
        unit: Unit,
        pairs: &Pairs,
        what: &'static str,
        held_to: Option<Bound>,
    ) {
        let (ratio, theirs) = (pairs.ratio(), pairs.theirs());
        self.add(Line {
            name: name.into(),
            unit,
            ours: pairs.ours(),
            baseline: Some(Baseline { what, theirs, ratio }),
            held_to,
            met: held_to.map(|bound| bound.holds(ratio.median)),
        });
    }

    /// A number that is held to a bound as it is.
    pub fn alone(&mut self, name: impl Into<String>, unit: Unit, ours: Spread, held_to: Option<Bound>) {
        let met = held_to.map(|bound| bound.holds(ours.median));
        self.add(Line { name: name.into(), unit, ours, baseline: None, held_to, met });
    }

    /// Latencies in µs, of some measurements: p99, held to so many ms, and beside it p50, the last, and where one in a thousand
    /// is more than one p99.9.
    pub fn latencies(&mut self, name: impl fmt::Display, of: &[Histogram<u64>], p99: f64) {
        for (which, percentile, bound) in
            [("p50", 50., None), ("p99", 99., Some(Bound::Most(p99))), ("p99.9", 99.9, None), ("the last", 100., None)]
        {
            if which == "p99.9" && of.iter().any(|latency| latency.len() < 2_000) {
                continue;
            }
            let spread = Spread::of(of.iter().map(|latency| ms(latency, percentile)));
            self.alone(format!("{name}: {which}"), Unit::Ms, spread, bound);
        }
    }

    fn add(&mut self, line: Line) {
        if !self.quiet {
            println!("{line}");
        }
        self.lines.push(line);
    }

    /// Says what is going on, to who watches.
    pub fn say(&self, text: impl fmt::Display) {
        if !self.quiet {
            eprintln!("bench: {text}");
        }
    }

    /// A group of rows could not be measured to its end.
    pub fn failed(&mut self, row: &'static str, error: &anyhow::Error) {
        eprintln!("bench: {row} could not be measured: {error:#}");
        self.failed.push((row, format!("{error:#}")));
    }

    /// How many groups could not be.
    pub fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Whether nothing was short.
    pub fn all_met(&self) -> bool {
        self.lines.iter().all(|line| line.met != Some(false))
    }

    /// The whole of it, once more.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!(Unit::PerSecond.show(1_234_567.8), "1,234,568/s");
        assert_eq!(Unit::PerSecond.show(-123.), "-123/s");
        assert_eq!(Unit::Ms.show(12.34), "12.3 ms");
        assert_eq!(Unit::Percent.show(0.123), "0.12 %");
    }

    #[test]
    fn a_line_says_whether_its_bound_was_met() {
        let mut report = Report::new(String::new(), true);
        let ours = Spread { median: 60., least: 50., most: 70. };
        report.alone("p99", Unit::Ms, ours, Some(Bound::Most(50.)));
        assert_eq!(report.lines[0].to_string(), "p99 · 60.0 ms · – · (50.0 ms to 70.0 ms) · ≤ 50.0 ms · SHORT");
        assert!(!report.all_met());
        report.lines.clear();
        report.alone("idle", Unit::Percent, ours, Some(Bound::Least(60.)));
        report.alone("for the record", Unit::Percent, ours, None);
        assert!(report.all_met());
    }
}

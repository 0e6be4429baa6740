//! When a job is due: a cron expression in a time zone, correct when its clocks change.
//!
//! An expression with `*` for its hour counts the hours that pass: it skips those that the clocks skip, and counts one
//! that they show twice, twice. Any other names times of the day, each of which is due once a day: the first time where
//! the clocks show it twice; where they skip it, at the moment when they do.
//!
//! `tokio-cron-scheduler` keeps the offset that a zone had when the job was made (its #107), and `croner` passes by an
//! hour that is shown twice, or goes back into it. So the expression is only ever asked for times without a change of
//! clocks: those of one fixed offset, or those that the clocks show, whatever they mean.

use std::{fmt, iter::successors, str::FromStr};

use chrono::{DateTime, FixedOffset, NaiveDateTime, Offset as _, SubsecRound as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::{
    Cron, Direction,
    parser::{CronParser, Seconds},
};
use serde::{Deserialize, Serialize};

/// A cron expression of six fields, seconds first; a seventh is the year.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expression {
    text: String,
    cron: Cron,
    /// Whether it counts the hours that pass.
    hourly: bool,
}

/// An IANA time zone: `Europe/Berlin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

/// When a job is due.
#[derive(Clone, Debug)]
pub struct Schedule {
    expression: Expression,
    zone: Tz,
}

/// What is to be done at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The work of this due time, and of all before it.
    Now(DateTime<Utc>),
    /// Nothing.
    NotYet,
    /// Nothing: the clock was set back by more than a period, and what was worked off lies ahead. From this due time on,
    /// work goes on.
    SetBack(DateTime<Utc>),
}

/// What is no cron expression.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoExpression {
    /// Its form is wrong.
    #[error("{0:?} is no cron expression of six fields, seconds first (\"0 30 3 * * *\" is half past three): {1}")]
    Malformed(String, String),
    /// It has no time at all, as the 30th of February.
    #[error("{0:?} never comes")]
    Never(String),
}

/// What is no time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IANA time zone, such as \"Europe/Berlin\" or \"UTC\"")]
pub struct NoZone(String);

impl FromStr for Expression {
    type Err = NoExpression;

    fn from_str(text: &str) -> Result<Self, NoExpression> {
        // As tokio-cron-scheduler reads them.
        let parser = CronParser::builder().seconds(Seconds::Required).dom_and_dow(true).build();
        let cron = parser.parse(text).map_err(|error| NoExpression::Malformed(text.to_owned(), error.to_string()))?;
        if cron.find_next_occurrence(&DateTime::UNIX_EPOCH, true).is_err() {
            return Err(NoExpression::Never(text.to_owned()));
        }
        let hourly = text.split_whitespace().nth(2) == Some("*");
        Ok(Self { text: text.to_owned(), cron, hourly })
    }
}

impl FromStr for Zone {
    type Err = NoZone;

    fn from_str(name: &str) -> Result<Self, NoZone> {
        name.parse().map(Self).map_err(|_| NoZone(name.to_owned()))
    }
}

impl TryFrom<String> for Expression {
    type Error = NoExpression;

    fn try_from(text: String) -> Result<Self, NoExpression> {
        text.parse()
    }
}

impl TryFrom<String> for Zone {
    type Error = NoZone;

    fn try_from(name: String) -> Result<Self, NoZone> {
        name.parse()
    }
}

impl From<Expression> for String {
    fn from(expression: Expression) -> Self {
        expression.text
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.to_string()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Expression {
    /// The times after `start`, or those until then and back from there, by clocks that never change. Not by croner's own
    /// iterator, which passes by every other second.
    fn times(&self, start: DateTime<FixedOffset>, direction: Direction) -> impl Iterator<Item = DateTime<FixedOffset>> {
        let find = move |from: &DateTime<FixedOffset>, inclusive| match direction {
            Direction::Forward => self.cron.find_next_occurrence(from, inclusive).ok(),
            Direction::Backward => self.cron.find_previous_occurrence(from, inclusive).ok(),
        };
        let first = find(&start, direction == Direction::Backward);
        successors(first, move |last| find(last, false))
    }
}

impl Schedule {
    /// The expression, in that zone.
    pub fn new(expression: Expression, Zone(zone): Zone) -> Self {
        Self { expression, zone }
    }

    /// The last due time that has come at `now`; none before the first.
    pub fn last(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let now = now.trunc_subsecs(0);
        if self.expression.hourly { self.hourly(now, Direction::Backward) } else { self.last_named(now) }
    }

    /// The first due time after `now`; none after the last.
    pub fn next(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let now = now.trunc_subsecs(0);
        if self.expression.hourly { self.hourly(now, Direction::Forward) } else { self.next_named(now) }
    }

    /// What is to be done at `now`, where all through `done` is: what came due meanwhile is done at once, for its last time.
    pub(super) fn due(&self, done: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Due {
        let Some(last) = self.last(now) else { return Due::NotYet };
        match done {
            None => Due::Now(last),
            Some(done) if done < last => Due::Now(last),
            Some(done) if self.next(now).is_some_and(|next| next < done) => Due::SetBack(last),
            Some(_) => Due::NotYet,
        }
    }

    /// In the offset of `from`; where the clocks changed in between, in the offset beyond the change.
    fn hourly(&self, from: DateTime<Utc>, direction: Direction) -> Option<DateTime<Utc>> {
        let offset = self.offset(from);
        let found = self.expression.times(from.with_timezone(&offset), direction).next()?.to_utc();
        let beyond = self.offset(found);
        if beyond == offset {
            return Some(found);
        }
        let mut times = self.expression.times(from.with_timezone(&beyond), direction).map(|time| time.to_utc());
        times.find(|time| self.offset(*time) == beyond)
    }

    fn last_named(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let shown = now.with_timezone(&self.zone);
        // While an hour is shown for the second time, all that the first one showed has been.
        let shown = shown.naive_local() + self.shown_before(&shown);
        let times = self.expression.times(shown.and_utc().fixed_offset(), Direction::Backward);
        times.map(|time| self.moment(time.naive_utc())).find(|moment| *moment <= now)
    }

    fn next_named(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let shown = now.with_timezone(&self.zone).naive_local();
        let times = self.expression.times(shown.and_utc().fixed_offset(), Direction::Forward);
        times.map(|time| self.moment(time.naive_utc())).find(|moment| *moment > now)
    }

    /// The moment at which the clocks show that: the first one; where they skip it, the moment when they do. A later time
    /// has no earlier moment.
    fn moment(&self, shown: NaiveDateTime) -> DateTime<Utc> {
        let moment = self.zone.from_local_datetime(&shown).earliest();
        let moment = moment.or_else(|| GapInfo::new(&shown, &self.zone)?.end);
        // A zone that skips to the end of time is not of this world.
        moment.map_or_else(|| shown.and_utc(), |moment| moment.to_utc())
    }

    /// How long before it the clocks showed the same; nothing where they did not.
    fn shown_before(&self, time: &DateTime<Tz>) -> TimeDelta {
        let first = self.zone.from_local_datetime(&time.naive_local()).earliest();
        first.map_or(TimeDelta::zero(), |first| *time - first)
    }

    fn offset(&self, at: DateTime<Utc>) -> FixedOffset {
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }
}

#[cfg(test)]
mod tests;

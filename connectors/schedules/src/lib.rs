//! Schedule expressions: when does a timer tick?
//!
//! This room reads `cron(…)` in the AWS dialect, plain cron with five fields (six with a leading second),
//! `rate(…)` and `at(…)`, and computes ticks in an IANA time zone. It is pure: it never asks for the time,
//! never waits and never stores; which ticks were missed and what to do about it belongs to the timer
//! connector. Start with [`Schedule`] below; `zone.rs` holds the daylight-saving rule, `days.rs` the day
//! fields, `conformance` judges this crate by cases that others wrote.

pub mod conformance;
mod cron;
mod days;
mod error;
mod field;
mod fixed;
mod zone;

#[cfg(test)]
mod tests;

pub use error::{MAX_EXPRESSION_CHARS, ScheduleError};

use cron::Cron;
use fixed::Rate;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

/// A parsed schedule: a rule that gives ticks, to the second.
///
/// Daylight saving, for schedules that name hours: a skipped local time runs once at the first valid instant,
/// a repeated one once, at its first occurrence. A cron expression that names every hour means elapsed time
/// and runs through both passes of a repeated hour. A rate knows no wall clock: a day is 24 hours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    expression: String,
    rule: Rule,
}

/// Which grammar an expression is read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// By its form: `cron(…)`, `rate(…)` and `at(…)` as in AWS, anything else as plain cron.
    Auto,
    /// Only `cron(…)`, `rate(…)` and `at(…)`, with the rules of EventBridge `PutRule`.
    Aws,
    /// Only plain cron: five fields, six with a leading second, seven with a trailing year, or `@daily`.
    Cron,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Cron(Cron),
    Rate(Rate),
    At(DateTime),
}

impl Schedule {
    /// Parses an expression in whichever form it has.
    ///
    /// # Errors
    /// Names the field or part that is wrong and what is allowed there.
    pub fn parse(expression: &str) -> Result<Self, ScheduleError> {
        Self::parse_as(expression, Dialect::Auto)
    }

    /// Parses an expression in a given dialect.
    ///
    /// # Errors
    /// As [`Schedule::parse`]; forms of another dialect are refused.
    pub fn parse_as(expression: &str, dialect: Dialect) -> Result<Self, ScheduleError> {
        let length = expression.chars().count();
        if length > MAX_EXPRESSION_CHARS {
            return Err(ScheduleError::TooLong { length });
        }
        let text = expression.trim();
        let (form, rest) = text.split_once('(').unwrap_or(("", text));
        let rule = match (form, dialect) {
            ("cron" | "rate" | "at", Dialect::Auto | Dialect::Aws) if text != expression => {
                return Err(ScheduleError::Blanks { text: expression.to_owned() });
            }
            ("cron", Dialect::Auto | Dialect::Aws) if rest.ends_with(')') => {
                Rule::Cron(Cron::aws(&rest[..rest.len() - 1])?)
            }
            ("rate", Dialect::Auto | Dialect::Aws) => Rule::Rate(Rate::parse(text)?),
            ("at", Dialect::Auto | Dialect::Aws) => Rule::At(fixed::parse_at(text)?),
            ("", Dialect::Auto | Dialect::Cron) if is_plain_cron(text) => Rule::Cron(Cron::plain(text)?),
            _ => return Err(ScheduleError::UnknownForm { text: expression.to_owned() }),
        };
        Ok(Self { expression: text.to_owned(), rule })
    }

    /// Gives the expression as it was written.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// Finds the first tick strictly after an instant, or `None` if there is none left.
    ///
    /// `anchor` is the first tick of a rate (the source's `start`, or the epoch), so that every controller
    /// computes the same ticks; the other forms ignore it. Cron ends with the year 2199, the last of the AWS
    /// year field. The work is bounded: at most each month up to then is looked at once.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone, anchor: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Cron(cron) => zone::next_after(cron, zone, after),
            Rule::Rate(rate) => rate.next_after(after, anchor),
            Rule::At(wall) => zone::instant_of(zone, *wall).filter(|tick| *tick > after),
        }
    }

    /// Finds the last tick strictly before an instant, or `None` if there was none; cron begins with 1970.
    pub fn prev_before(&self, before: Timestamp, zone: &TimeZone, anchor: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Cron(cron) => zone::prev_before(cron, zone, before),
            Rule::Rate(rate) => rate.prev_before(before, anchor),
            Rule::At(wall) => zone::instant_of(zone, *wall).filter(|tick| *tick < before),
        }
    }

    /// Lists the ticks after `after` up to and including `until`, the earliest `limit` of them.
    ///
    /// For a catch-up of missed runs; for only the last of them ask [`Schedule::prev_before`].
    pub fn ticks_between(
        &self,
        after: Timestamp,
        until: Timestamp,
        zone: &TimeZone,
        anchor: Timestamp,
        limit: usize,
    ) -> Vec<Timestamp> {
        std::iter::successors(self.next_after(after, zone, anchor), |tick| {
            self.next_after(*tick, zone, anchor)
        })
        .take_while(|tick| *tick <= until)
        .take(limit)
        .collect()
    }

    /// Says whether an instant is a tick.
    pub fn matches(&self, time: Timestamp, zone: &TimeZone, anchor: Timestamp) -> bool {
        time.checked_sub(SignedDuration::from_nanos(1))
            .is_ok_and(|just_before| self.next_after(just_before, zone, anchor) == Some(time))
    }
}

impl std::str::FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        Self::parse(text)
    }
}

impl std::fmt::Display for Schedule {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.expression)
    }
}

/// Finds a time zone by its IANA name in the database compiled into this program.
///
/// The machine's own database is not asked: controllers of one version must compute the same ticks.
///
/// # Errors
/// [`ScheduleError::UnknownZone`] if no zone has this name.
pub fn time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let unknown = |_| ScheduleError::UnknownZone { name: name.to_owned() };
    TimeZoneDatabase::bundled().get(name).map_err(unknown)
}

/// Cron starts with a digit, a star or a nickname; anything else is a stray word and deserves a better answer
/// than a count of fields.
fn is_plain_cron(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit() || "*@".contains(first))
        || text.split_whitespace().count() >= 5
}

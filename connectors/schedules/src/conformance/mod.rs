//! Judges this crate by schedule cases that others wrote: parsed expressions, next and previous ticks.
//!
//! A case is one JSON object with `source`, `dialect`, `kind`, `expr` and what the kind expects. It is
//! translated into this crate's grammar, computed, and compared. Cases that state a rule decided otherwise
//! here are skipped, for a reason found in the case itself; `differences.rs` holds those reasons. This room
//! reads no files and knows no single case.

mod differences;

use crate::cron::Cron;
use crate::days::{MonthMark, WeekMark};
use crate::{Dialect, Rule, Schedule, ScheduleError};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// What came of one case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The answer is the expected one.
    Passed,
    /// The answer differs, or the case cannot be read.
    Failed {
        /// What the case expects.
        expected: String,
        /// What this crate says.
        actual: String,
    },
    /// The case states a rule that this crate decided otherwise.
    Skipped {
        /// The rule, in words that are the same for all its cases.
        reason: String,
    },
}

/// Names the group a case is counted in: `source/dialect/kind`.
pub fn group(case: &Value) -> String {
    let part = |key| case[key].as_str().unwrap_or("?");
    format!("{}/{}/{}", part("source"), part("dialect"), part("kind"))
}

/// Judges one case.
pub fn judge(case: &Value) -> Verdict {
    let Some(expression) = case["expr"].as_str() else { return failed("a case with `expr`", "none") };
    if let Some(reason) = differences::before_judging(case, expression) {
        return skipped(reason);
    }
    let schedule = parse(case, expression);
    match (case["kind"].as_str(), schedule) {
        (Some("validity"), schedule) => {
            let answer = match schedule {
                Ok(_) => "valid".to_owned(),
                Err(error) => format!("invalid: {error}"),
            };
            let expected = if case["valid"] == true { "valid" } else { "invalid" };
            let agrees = answer.split(':').next() == Some(expected);
            if agrees { Verdict::Passed } else { failed(expected, &answer) }
        }
        (_, Err(error)) => failed("a valid expression", &error.to_string()),
        (Some("fields"), Ok(schedule)) => judge_fields(case, &schedule),
        (Some("match"), Ok(schedule)) => judge_match(case, &schedule),
        (Some("next"), Ok(schedule)) => judge_ticks(case, &schedule, true),
        (Some("prev"), Ok(schedule)) => judge_ticks(case, &schedule, false),
        (kind, _) => failed("validity, fields, match, next or prev", &format!("kind {kind:?}")),
    }
}

/// Translates the dialect's field order and options, then parses.
fn parse(case: &Value, expression: &str) -> Result<Schedule, ScheduleError> {
    if case["dialect"] == "aws" {
        return Schedule::parse_as(expression, Dialect::Aws);
    }
    let options = &case["options"];
    let mut fields: Vec<&str> = expression.split_whitespace().collect();
    // croniter puts seconds after the five fields unless told otherwise
    if case["dialect"] == "croniter" && options["second_at_beginning"] != true && fields.len() > 5 {
        let second = fields.remove(5);
        fields.insert(0, second);
    }
    let mut fields: Vec<String> = fields.into_iter().map(str::to_owned).collect();
    if options["day_or"] == false || options["dom_and_dow"] == true {
        let week_days = if fields.len() == 5 { 4 } else { 5 };
        if let Some(field) = fields.get_mut(week_days).filter(|field| !field.starts_with('+')) {
            field.insert(0, '+');
        }
    }
    Schedule::parse_as(&fields.join(" "), Dialect::Cron)
}

fn judge_ticks(case: &Value, schedule: &Schedule, forward: bool) -> Verdict {
    let (Some(zone), Some(expected)) = (zone(case), case["expected"].as_array()) else {
        return failed("a case with a known `tz` and with `expected`", &case["tz"].to_string());
    };
    let Some(start) = instant(&case["start"], &zone) else { return failed("a start", "none") };
    let expected: Option<Vec<Timestamp>> = expected.iter().map(|time| instant(time, &zone)).collect();
    let Some(expected) = expected else { return failed("times", &case["expected"].to_string()) };
    let run =
        Run { schedule, zone: &zone, forward, expected: &expected, exhausted: case["exhausted"] == true };
    let Err((wanted, actual)) = run.compare(start) else { return Verdict::Passed };
    if case["dialect"] == "aws" && run.agrees_in_whole_minutes(start) {
        return skipped("the source drops the seconds of the start before it looks back; here they count");
    }
    let explained = wanted.and_then(|wanted| differences::daylight_saving(schedule, &zone, wanted, actual));
    explained.map_or_else(|| failed(&show(wanted), &show(actual)), skipped)
}

/// A chain of ticks to compare, each the start of the next.
struct Run<'a> {
    schedule: &'a Schedule,
    zone: &'a TimeZone,
    forward: bool,
    expected: &'a [Timestamp],
    /// Whether no tick may follow the expected ones.
    exhausted: bool,
}

impl Run<'_> {
    /// Compares tick by tick; the error is the first difference, as wanted and actual.
    fn compare(&self, start: Timestamp) -> Result<(), (Option<Timestamp>, Option<Timestamp>)> {
        let mut at = start;
        for wanted in self.expected {
            match self.step(at) {
                Some(tick) if tick == *wanted => at = tick,
                actual => return Err((Some(*wanted), actual)),
            }
        }
        match self.step(at) {
            Some(tick) if self.exhausted => Err((None, Some(tick))),
            _ => Ok(()),
        }
    }

    /// Says whether a search backwards agrees once it begins at the start of the minute.
    fn agrees_in_whole_minutes(&self, start: Timestamp) -> bool {
        let minute = start.as_second().div_euclid(60) * 60;
        !self.forward && Timestamp::from_second(minute).is_ok_and(|start| self.compare(start).is_ok())
    }

    fn step(&self, at: Timestamp) -> Option<Timestamp> {
        match self.forward {
            true => self.schedule.next_after(at, self.zone, Timestamp::UNIX_EPOCH),
            false => self.schedule.prev_before(at, self.zone, Timestamp::UNIX_EPOCH),
        }
    }
}

fn judge_match(case: &Value, schedule: &Schedule) -> Verdict {
    let time = zone(case).and_then(|zone| Some((instant(&case["time"], &zone)?, zone)));
    let Some((time, zone)) = time else { return failed("a time", "none") };
    let actual = schedule.matches(time, &zone, Timestamp::UNIX_EPOCH);
    if case["match"] == actual {
        Verdict::Passed
    } else {
        failed(&case["match"].to_string(), &actual.to_string())
    }
}

fn judge_fields(case: &Value, schedule: &Schedule) -> Verdict {
    let actual = match &schedule.rule {
        Rule::Cron(cron) => fields(cron),
        _ => Value::Null,
    };
    if case["fields"] == actual {
        Verdict::Passed
    } else {
        failed(&case["fields"].to_string(), &actual.to_string())
    }
}

/// Writes the fields as the AWS dialect's libraries do: sorted values, `?` empty, marks as letter and number.
fn fields(cron: &Cron) -> Value {
    let month_days = match cron.days.month_days.marks.first() {
        Some(MonthMark::Last(back)) => json!(["L", back]),
        Some(MonthMark::Nearest(day)) => json!(["W", day]),
        Some(MonthMark::LastWorkday) => json!(["LW"]),
        None => values(u64::from(cron.days.month_days.days)),
    };
    let week_days = match cron.days.week_days.marks.first() {
        Some(WeekMark::EndOfWeek(back)) => json!(["L", back]),
        Some(WeekMark::Last(day)) => json!(["L", day + 1]),
        Some(WeekMark::Nth(day, nth)) => json!(["#", day + 1, nth]),
        None => values(u64::from(cron.days.week_days.days) << 1),
    };
    json!({
        "minutes": values(cron.minutes),
        "hours": values(cron.hours),
        "daysOfMonth": month_days,
        "months": values(cron.months),
        "daysOfWeek": week_days,
        "years": cron.years,
    })
}

fn values(mask: u64) -> Value {
    (0..64).filter(|bit| mask & 1 << bit != 0).collect()
}

/// Reads the zone; none, and `naive-local`, mean wall-clock times without a zone, which UTC stands in for.
fn zone(case: &Value) -> Option<TimeZone> {
    match case["tz"].as_str() {
        None | Some("naive-local") => Some(TimeZone::UTC),
        Some(name) => crate::time_zone(name).ok(),
    }
}

/// Reads a time with an offset, or a wall-clock time in the case's zone.
fn instant(text: &Value, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.as_str()?;
    text.parse().ok().or_else(|| crate::zone::instant_of(zone, text.parse().ok()?))
}

fn show(tick: Option<Timestamp>) -> String {
    tick.map_or_else(|| "no tick".to_owned(), |tick| tick.to_string())
}

fn failed(expected: &str, actual: &str) -> Verdict {
    Verdict::Failed { expected: expected.to_owned(), actual: actual.to_owned() }
}

fn skipped(reason: &str) -> Verdict {
    Verdict::Skipped { reason: reason.to_owned() }
}

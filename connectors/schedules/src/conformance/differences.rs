//! The rules that other schedulers state and this one decided otherwise, each recognised by its general form.

use crate::field::{DAY_OF_WEEK, FieldKind, MONTH};
use crate::{Rule, Schedule};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Options that the judge translates; all others must be off.
const TRANSLATED_OPTIONS: &[&str] = &["day_or", "dom_and_dow", "second_at_beginning"];

/// How far from a time its zone must change for daylight saving to explain a difference there.
const NEAR: SignedDuration = SignedDuration::from_hours(25);

/// Finds what in a case's options or grammar this crate does not have on purpose.
pub(super) fn before_judging(case: &Value, expression: &str) -> Option<&'static str> {
    let options = case["options"].as_object();
    let foreign = |(key, value): (&String, &Value)| {
        let off = value.is_null() || value == false;
        !off && !TRANSLATED_OPTIONS.contains(&key.as_str())
    };
    if options.is_some_and(|options| options.iter().any(foreign)) {
        return Some("an option of the source that changes its rules");
    }
    if case["dialect"] != "croniter" {
        return None;
    }
    let text = expression.to_ascii_uppercase();
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.iter().any(|field| field.starts_with(['H', 'R'])) {
        return Some("hashed and random expressions");
    }
    let month = fields.get(3).copied().unwrap_or_default();
    let week_days = fields.get(4).copied().unwrap_or_default();
    if whole_cycle(month, &MONTH) || whole_cycle(week_days, &DAY_OF_WEEK) {
        return Some("croniter: a range with equal ends means the whole cycle; here that one value");
    }
    let mut terms = week_days.split(',');
    if terms.clone().any(|term| term == "*") && terms.any(|term| term.contains(['#', 'L'])) {
        return Some(
            "croniter: a star listed beside an nth weekday counts for nothing; here it is every day",
        );
    }
    None
}

/// Explains a difference by a rule for daylight saving other than ours, if both sides show its marks.
pub(super) fn daylight_saving(
    schedule: &Schedule,
    zone: &TimeZone,
    expected: Timestamp,
    actual: Option<Timestamp>,
) -> Option<&'static str> {
    let Rule::Cron(cron) = &schedule.rule else { return None };
    let changes = |time: Timestamp| {
        let from = time.saturating_sub(NEAR).unwrap_or(Timestamp::MIN);
        let until = time.saturating_add(NEAR).unwrap_or(Timestamp::MAX);
        zone.following(from).next().is_some_and(|transition| transition.timestamp() <= until)
    };
    let satisfied = |time: Timestamp| cron.matches(zone.to_datetime(time));
    if changes(expected) && !satisfied(expected) {
        return Some(
            "daylight saving: the source moves a skipped time elsewhere; here the first valid instant",
        );
    }
    if actual.is_some_and(|actual| changes(actual) && !satisfied(actual)) {
        return Some(
            "daylight saving: the source drops a skipped time; here it runs at the first valid instant",
        );
    }
    let wall = zone.to_datetime(expected);
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Fold { after, .. } if after == zone.to_offset(expected) => {
            Some("daylight saving: the source runs in the second pass of a repeated hour; here in the first")
        }
        _ => None,
    }
}

/// Says whether a list has a range whose ends are one value.
fn whole_cycle(field: &str, kind: &FieldKind) -> bool {
    let value = |text: &str| kind.value(text).ok().map(|value| kind.normal(value));
    field.split(',').any(|term| {
        let range = term.split('/').next().and_then(|range| range.split_once('-'));
        // 0-7 names all seven days in either reading
        range.is_some_and(|(low, high)| value(low).is_some() && value(low) == value(high) && high != "7")
            || range.is_some_and(|(low, high)| low == "7" && high == "7")
    })
}

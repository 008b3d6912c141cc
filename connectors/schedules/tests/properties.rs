//! Compares the search with a brute-force walk over every instant or wall-clock time around zone changes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bellwire_schedules::{Schedule, time_zone};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeSet;

const ANCHOR: Timestamp = Timestamp::UNIX_EPOCH;

/// A zone and an instant near which its offset changes (or not, for the last two).
const PLACES: &[(&str, &str)] = &[
    ("America/New_York", "2024-03-10T07:00:00Z"),
    ("America/New_York", "2024-11-03T06:00:00Z"),
    ("Europe/Athens", "2013-10-27T01:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ("Africa/Casablanca", "2025-02-23T02:00:00Z"),
    ("Europe/Dublin", "2150-10-25T01:00:00Z"),
    ("Asia/Kolkata", "2026-06-01T00:00:00Z"),
    ("UTC", "2028-02-29T12:00:00Z"),
];
/// A whole day missing; too wide for the walk by seconds.
const SAMOA: (&str, &str) = ("Pacific/Apia", "2011-12-30T10:00:00Z");

/// The sets that a wall-clock time must be in; empty means everything.
#[derive(Debug, Clone)]
struct Sets {
    seconds: Vec<i8>,
    minutes: Vec<i8>,
    hours: Vec<i8>,
    month_days: Vec<i8>,
    week_days: Vec<i8>,
}

impl Sets {
    fn expression(&self, with_seconds: bool) -> String {
        let field = |values: &[i8]| match values {
            [] => "*".to_owned(),
            values => values.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        };
        let rest = [&self.minutes, &self.hours, &self.month_days].map(|values| field(values)).join(" ");
        let seconds = if with_seconds { field(&self.seconds) + " " } else { String::new() };
        format!("{seconds}{rest} * {}", field(&self.week_days))
    }

    fn hold(&self, wall: DateTime, with_seconds: bool) -> bool {
        let within = |values: &[i8], value: i8| values.is_empty() || values.contains(&value);
        let month_day = self.month_days.contains(&wall.day());
        let week_day = self.week_days.contains(&wall.weekday().to_sunday_zero_offset());
        let day = match (self.month_days.is_empty(), self.week_days.is_empty()) {
            (true, true) => true,
            (false, true) => month_day,
            (true, false) => week_day,
            (false, false) => month_day || week_day,
        };
        let second = if with_seconds { within(&self.seconds, wall.second()) } else { wall.second() == 0 };
        day && second && within(&self.minutes, wall.minute()) && within(&self.hours, wall.hour())
    }
}

fn subset(values: std::ops::Range<i8>, most: usize) -> impl Strategy<Value = Vec<i8>> {
    prop_oneof![
        1 => Just(Vec::new()),
        2 => prop::collection::btree_set(values, 1..=most).prop_map(|set| set.into_iter().collect()),
    ]
}

fn sets() -> impl Strategy<Value = Sets> {
    let days = (subset(1..32, 20), subset(0..7, 4));
    (subset(0..60, 6), subset(0..60, 6), subset(0..24, 12), days).prop_map(
        |(seconds, minutes, hours, (month_days, week_days))| Sets {
            seconds,
            minutes,
            hours,
            month_days,
            week_days,
        },
    )
}

/// Walks every wall-clock time (or every instant, if all hours are named) and applies the rule in the plainest
/// way there is.
fn brute_force(
    sets: &Sets,
    zone: &TimeZone,
    (after, until): (Timestamp, Timestamp),
    step: SignedDuration,
) -> BTreeSet<Timestamp> {
    let with_seconds = step.as_secs() == 1;
    let mut found = BTreeSet::new();
    if sets.hours.is_empty() || sets.hours.len() == 24 {
        let mut at = after + step;
        while at <= until {
            if sets.hold(zone.to_datetime(at), with_seconds) {
                found.insert(at);
            }
            at += step;
        }
        return found;
    }
    let margin = if with_seconds { SignedDuration::from_hours(2) } else { SignedDuration::from_hours(26) };
    let (mut wall, last) = (zone.to_datetime(after) - margin, zone.to_datetime(until) + margin);
    while wall <= last {
        if sets.hold(wall, with_seconds) {
            let tick = match zone.to_ambiguous_timestamp(wall).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).unwrap(),
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).unwrap(),
                AmbiguousOffset::Gap { after, .. } => {
                    let mut at = after.to_timestamp(wall).unwrap();
                    while zone.to_datetime(at) < wall {
                        at += step;
                    }
                    at
                }
            };
            if after < tick && tick <= until {
                found.insert(tick);
            }
        }
        wall += step;
    }
    found
}

fn check(sets: &Sets, place: (&str, &str), offset: i64, hours: i64, step: SignedDuration) {
    let zone = time_zone(place.0).unwrap();
    let middle: Timestamp = place.1.parse().unwrap();
    let after = middle + SignedDuration::from_secs(offset * step.as_secs());
    let until = after + SignedDuration::from_hours(hours);
    let expression = sets.expression(step.as_secs() == 1);
    let schedule = Schedule::parse(&expression).unwrap();

    let expected = brute_force(sets, &zone, (after, until), step);
    let actual = schedule.ticks_between(after, until, &zone, ANCHOR, usize::MAX);
    assert!(actual.is_sorted_by(|a, b| a < b), "{expression}: ticks do not rise");
    assert_eq!(actual, expected.iter().copied().collect::<Vec<_>>(), "{expression} in {place:?}");

    let mut at = until + SignedDuration::from_nanos(1);
    for tick in actual.iter().rev() {
        at = schedule.prev_before(at, &zone, ANCHOR).unwrap();
        assert_eq!(at, *tick, "{expression} in {place:?}, looking back");
        assert!(schedule.matches(at, &zone, ANCHOR));
        assert!(!schedule.matches(at + SignedDuration::from_nanos(1), &zone, ANCHOR));
    }
    let earlier = schedule.prev_before(at, &zone, ANCHOR);
    assert!(actual.is_empty() || earlier.is_none_or(|earlier| earlier <= after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn minutes_agree_with_a_walk(sets in sets(), place in 0..=PLACES.len(), offset in -2880_i64..120) {
        let place = PLACES.get(place).copied().unwrap_or(SAMOA);
        check(&sets, place, offset, 72, SignedDuration::from_mins(1));
    }

    #[test]
    fn seconds_agree_with_a_walk(sets in sets(), place in 0..PLACES.len(), offset in -7200_i64..60) {
        check(&sets, PLACES[place], offset, 3, SignedDuration::from_secs(1));
    }

    #[test]
    fn next_and_prev_are_inverse(sets in sets(), place in 0..PLACES.len(), seconds in 0_i64..6_000_000_000) {
        let zone = time_zone(PLACES[place].0).unwrap();
        let schedule = Schedule::parse(&sets.expression(true)).unwrap();
        let at = Timestamp::from_second(seconds).unwrap();
        let next = schedule.next_after(at, &zone, ANCHOR).unwrap();
        prop_assert!(next > at);
        let prev = schedule.prev_before(next, &zone, ANCHOR);
        prop_assert!(prev.is_none_or(|prev| prev <= at));
        if let Some(prev) = prev {
            prop_assert_eq!(schedule.next_after(prev, &zone, ANCHOR), Some(next));
        }
    }

    #[test]
    fn a_rate_keeps_its_distance(number in 2_i64..10_000, at in 0_i64..4_000_000_000, anchor in 0_i64..4_000_000_000) {
        let schedule = Schedule::parse(&format!("rate({number} minutes)")).unwrap();
        let [at, anchor] = [at, anchor].map(|second| Timestamp::from_second(second).unwrap());
        let next = schedule.next_after(at, &TimeZone::UTC, anchor).unwrap();
        prop_assert!(next > at && next >= anchor);
        prop_assert_eq!((next.as_second() - anchor.as_second()) % (number * 60), 0);
        let prev = schedule.prev_before(next, &TimeZone::UTC, anchor);
        prop_assert_eq!(prev.is_none(), next == anchor);
        if let Some(prev) = prev {
            prop_assert!(prev <= at);
            prop_assert_eq!(next.as_second() - prev.as_second(), number * 60);
        }
    }

    #[test]
    fn any_text_is_answered(text in ".{0,300}", fields in "[0-9A-Za-z*/?#,+ LW@()-]{0,60}") {
        for expression in [text.clone(), fields.clone(), format!("cron({fields})"), format!("rate({text})")] {
            if let Ok(schedule) = Schedule::parse(&expression) {
                let _ = schedule.next_after(ANCHOR, &TimeZone::UTC, ANCHOR);
            }
        }
    }
}

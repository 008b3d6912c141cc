//! The rules that a user reads about, each with the case that shows it.

use super::*;

fn ticks(expression: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let schedule = Schedule::parse(expression).unwrap();
    let zone = time_zone(zone).unwrap();
    let after: Timestamp = after.parse().unwrap();
    schedule
        .ticks_between(after, Timestamp::MAX, &zone, Timestamp::UNIX_EPOCH, count)
        .into_iter()
        .map(|tick| zone.to_offset(tick).to_datetime(tick).to_string() + &zone.to_offset(tick).to_string())
        .collect()
}

fn refused(expression: &str) -> String {
    Schedule::parse(expression).unwrap_err().to_string()
}

#[test]
fn a_skipped_local_time_runs_once_at_the_first_valid_instant() {
    // Berlin goes from 02:00 to 03:00 on 2026-03-29
    assert_eq!(
        ticks("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2),
        ["2026-03-29T03:00:00+02", "2026-03-30T02:30:00+02"]
    );
    assert_eq!(
        ticks("*/20 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 3),
        ["2026-03-29T03:00:00+02", "2026-03-29T03:20:00+02", "2026-03-29T03:40:00+02"]
    );
    assert_eq!(
        ticks("at(2026-03-29T02:30:00)", "Europe/Berlin", "2026-01-01T00:00:00Z", 2),
        ["2026-03-29T03:00:00+02"]
    );
    // Samoa had no 2011-12-30 at all
    assert_eq!(ticks("0 9 30 12 *", "Pacific/Apia", "2011-01-01T00:00:00Z", 1), ["2011-12-31T00:00:00+14"]);
}

#[test]
fn a_repeated_local_time_runs_once_at_its_first_occurrence() {
    // Berlin repeats 02:00 to 03:00 on 2026-10-25
    for expression in ["30 2 * * *", "cron(30 2 * * ? *)"] {
        assert_eq!(
            ticks(expression, "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T02:30:00+02", "2026-10-26T02:30:00+01"]
        );
    }
    assert_eq!(
        ticks("at(2026-10-25T02:30:00)", "Europe/Berlin", "2026-01-01T00:00:00Z", 2),
        ["2026-10-25T02:30:00+02"]
    );
}

#[test]
fn a_schedule_of_every_hour_follows_elapsed_time() {
    assert_eq!(
        ticks("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4),
        [
            "2026-10-25T02:30:00+02",
            "2026-10-25T02:00:00+01",
            "2026-10-25T02:30:00+01",
            "2026-10-25T03:00:00+01"
        ]
    );
    assert_eq!(
        ticks("15 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", 2),
        ["2026-03-29T01:15:00+01", "2026-03-29T03:15:00+02"]
    );
}

#[test]
fn a_far_tick_beside_a_zone_change_is_found_from_both_sides() {
    assert_eq!(ticks("30 2 25 10 *", "Europe/Berlin", "2026-01-01T00:00:00Z", 1), ["2026-10-25T02:30:00+02"]);
    let schedule = Schedule::parse("0 3 8 3 *").unwrap();
    let zone = time_zone("America/New_York").unwrap();
    let before = "2026-12-31T00:00:00Z".parse().unwrap();
    assert_eq!(
        schedule.prev_before(before, &zone, Timestamp::UNIX_EPOCH),
        "2026-03-08T07:00:00Z".parse().ok()
    );
}

#[test]
fn a_rate_counts_from_its_anchor_and_its_days_have_24_hours() {
    assert_eq!(
        ticks("rate(1 day)", "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
        ["2026-10-25T02:00:00+02", "2026-10-26T01:00:00+01"]
    );
    let schedule = Schedule::parse("rate(10 minutes)").unwrap();
    let anchor: Timestamp = "2026-01-01T00:03:00Z".parse().unwrap();
    let next = |after: &str| schedule.next_after(after.parse().unwrap(), &TimeZone::UTC, anchor);
    assert_eq!(next("2025-06-01T00:00:00Z"), Some(anchor));
    assert_eq!(next("2026-01-01T00:03:00Z"), "2026-01-01T00:13:00Z".parse().ok());
    assert_eq!(schedule.prev_before(anchor, &TimeZone::UTC, anchor), None);
}

#[test]
fn impossible_and_past_schedules_end() {
    assert!(ticks("0 0 30 2 *", "America/New_York", "2026-01-01T00:00:00Z", 1).is_empty());
    assert!(ticks("0 * 30 2 *", "America/New_York", "2026-01-01T00:00:00Z", 1).is_empty());
    assert!(ticks("cron(0 0 1 1 ? 2020)", "UTC", "2026-01-01T00:00:00Z", 1).is_empty());
    assert!(ticks("* * * * *", "Europe/Berlin", "9999-01-01T00:00:00Z", 1).is_empty());
    let never = Schedule::parse("0 0 31 4 *").unwrap();
    let berlin = time_zone("Europe/Berlin").unwrap();
    for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        assert_eq!(never.next_after(instant, &berlin, instant), None);
        assert_eq!(never.prev_before(instant, &berlin, instant), None);
    }
}

#[test]
fn a_catch_up_is_bounded_and_includes_its_end() {
    let schedule = Schedule::parse("*/10 * * * * *").unwrap();
    let from: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let until: Timestamp = "2026-01-01T00:00:30Z".parse().unwrap();
    let list = |limit| schedule.ticks_between(from, until, &TimeZone::UTC, from, limit);
    assert_eq!(list(100).len(), 3);
    assert_eq!(list(100).last(), Some(&until));
    assert_eq!(list(2).len(), 2);
    assert!(schedule.matches(until, &TimeZone::UTC, from));
}

#[test]
fn errors_say_what_to_write() {
    assert_eq!(refused("rate(1 minutes)"), "`rate(1 minutes)`: use singular for 1: rate(1 minute)");
    assert!(refused("hourly").contains("is not a schedule"));
    assert!(refused("").contains("is not a schedule"));
    assert!(refused("cron(0 7 * * *)").contains("cron(…) has six"));
    assert!(refused("0 7 * *").contains("plain cron has five"));
    assert!(refused("0 12 * * ? *").contains("written cron(…)"));
    assert!(refused("cron(0 7 * * * *)").contains("exactly one of them must be `?`"));
    assert!(refused("0 24 * * *").starts_with("hour `24`: 24 is out of range; allowed: 0-23"));
    assert!(refused("*/90 * * * *").contains("the step must be 1 to 59"));
    assert!(refused(" rate(5 minutes)").contains("remove the blanks"));
    assert!(refused(&"1,".repeat(200)).contains("at most 256"));
    assert!(refused("at(2026-01-01)").contains("at(yyyy-mm-ddThh:mm:ss)"));
    assert!(time_zone("Europe/Berln").unwrap_err().to_string().contains("Europe/Berln"));
}

#[test]
fn plain_cron_may_have_blanks_around_and_nicknames() {
    assert_eq!(ticks(" @Daily ", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00+00"]);
    assert!(Schedule::parse_as("0 7 * * *", Dialect::Aws).is_err());
    assert!(Schedule::parse_as("rate(5 minutes)", Dialect::Cron).is_err());
}

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::Timestamp;
use bellwire_schemas::service::{Missed, ScheduleSpec, SourceKind};
use proptest::prelude::*;

use super::*;
use crate::suite::{START, schedule, source};

fn at(seconds: i64) -> Timestamp {
    START.plus(Duration::ZERO).plus(Duration::from_secs(seconds.unsigned_abs()))
}

fn timer(spec: &ScheduleSpec) -> Timer {
    Timer::new(Arc::new(source("schedule.t", SourceKind::Schedule(spec.clone()))), spec).unwrap()
}

fn minutely(missed: Missed) -> Timer {
    timer(&schedule("* * * * *", missed))
}

#[test]
fn a_tick_on_time_is_emitted_under_every_policy() {
    for missed in [Missed::None, Missed::Last, Missed::All] {
        let timer = minutely(missed);
        assert_eq!(timer.plan(START, at(59), 10), Plan { wake: Some(at(60)), ..Plan::default() });
        let plan = Plan { ticks: vec![at(60)], through: Some(at(60)), wake: None };
        assert_eq!(timer.plan(START, at(60), 10), plan);
        assert_eq!(timer.plan(START, at(69), 10), plan, "a few seconds late is on time");
    }
}

#[test]
fn missed_ticks_follow_the_policy() {
    let hour = at(3_630);
    let none = minutely(Missed::None).plan(START, hour, 10);
    assert_eq!((none.ticks, none.through), (vec![], Some(at(3_600))));
    let last = minutely(Missed::Last).plan(START, hour, 10);
    assert_eq!((last.ticks, last.through), (vec![at(3_600)], Some(at(3_600))));
    let all = minutely(Missed::All).plan(START, hour, 10);
    assert_eq!(all.ticks, (1..=10).map(|n| at(60 * n)).collect::<Vec<_>>());
    assert_eq!(all.through, Some(at(600)), "catch-up goes in bounded steps");

    // The newest is on time: it stands for those that were missed.
    let at_the_hour = minutely(Missed::Last).plan(START, at(3_605), 10);
    assert_eq!((at_the_hour.ticks, at_the_hour.through), (vec![at(3_600)], Some(at(3_600))));
    let forgotten = minutely(Missed::None).plan(START, at(3_605), 10);
    assert_eq!(forgotten.ticks, vec![at(3_600)]);
}

#[test]
fn years_without_a_controller_cost_little() {
    let second = timer(&schedule("* * * * * *", Missed::Last));
    let ten_years = at(10 * 365 * 86_400);
    let plan = second.plan(START, ten_years, 10);
    assert_eq!(plan.ticks.len(), 10, "those of the last seconds are on time");
    let rare = timer(&schedule("0 0 1 1 *", Missed::Last)).plan(START, ten_years, 10);
    assert_eq!(rare.ticks.len(), 1);
}

#[test]
fn a_clock_that_jumps_back_repeats_nothing() {
    let timer = minutely(Missed::All);
    let plan = timer.plan(at(600), at(120), 10);
    assert_eq!((plan.ticks, plan.through), (vec![], None));
}

#[test]
fn at_ticks_once_and_never_for_the_past() {
    let once = timer(&schedule("at(2026-01-01T00:05:00)", Missed::Last));
    assert_eq!(once.next_after(START), Some(at(300)));
    assert_eq!(once.plan(START, at(300), 10).ticks, [at(300)]);
    assert_eq!(once.plan(at(300), at(400), 10), Plan::default());
    assert_eq!(once.plan(at(301), at(400), 10), Plan::default());
}

#[test]
fn several_expressions_are_one_sequence_within_start_and_end() {
    let spec = ScheduleSpec {
        expressions: vec!["rate(4 minutes)".into(), "*/6 * * * *".into()],
        start: Some(at(300)),
        end: Some(at(1_500)),
        ..schedule("", Missed::All)
    };
    let timer = timer(&spec);
    let ticks = timer.plan(START, at(4_000), 100).ticks;
    // The rate begins at `start`; 12:00 of both forms would be one tick.
    let expected = [300, 360, 540, 720, 780, 1_020, 1_080, 1_260, 1_440, 1_500].map(at);
    assert_eq!(ticks, expected);
    assert_eq!(timer.last_until(at(9_999)), Some(at(1_500)));
    assert_eq!(timer.last_until(at(299)), None);
}

#[test]
fn local_days_with_a_change_of_time_tick_once() {
    let spec = ScheduleSpec { timezone: "Europe/Berlin".into(), ..schedule("30 2 * * *", Missed::All) };
    let from = Timestamp::parse("2026-03-27T12:00:00Z").unwrap();
    let to = Timestamp::parse("2026-03-31T12:00:00Z").unwrap();
    assert_eq!(timer(&spec).plan(from, to, 100).ticks.len(), 4);
    let from = Timestamp::parse("2026-10-23T12:00:00Z").unwrap();
    let to = Timestamp::parse("2026-10-27T12:00:00Z").unwrap();
    assert_eq!(timer(&spec).plan(from, to, 100).ticks.len(), 4);
}

#[test]
fn jitter_is_fixed_bounded_and_keeps_the_order() {
    let spec = ScheduleSpec { jitter: Duration::from_secs(180), ..schedule("* * * * *", Missed::All) };
    let timer = timer(&spec);
    let delays: BTreeSet<_> = (1..=50).map(|n| timer.due(at(60 * n)).since(at(60 * n))).collect();
    assert!(delays.len() > 30 && delays.iter().all(|d| *d < Duration::from_secs(180)));
    let mut last = START;
    let mut seen = Vec::new();
    for second in 0..3_600 {
        let plan = timer.plan(last, at(second), 10);
        seen.extend(plan.ticks);
        last = plan.through.unwrap_or(last);
    }
    assert!(seen.is_sorted() && seen.len() >= 56, "{}", seen.len());
}

#[test]
fn wrong_settings_are_named() {
    for (expression, zone, word) in [("nonsense", "UTC", "nonsense"), ("* * * * *", "Mars/Base", "Mars/Base")]
    {
        let spec = ScheduleSpec { timezone: zone.into(), ..schedule(expression, Missed::Last) };
        let source = Arc::new(source("schedule.t", SourceKind::Schedule(spec.clone())));
        assert!(Timer::new(source, &spec).unwrap_err().contains(word));
    }
}

proptest! {
    /// Whatever the clock does, and however the work is cut: no tick twice, order kept, and with `all` none lost.
    #[test]
    fn ticks_are_exact(
        jumps in proptest::collection::vec((-300_i64..900, 1_usize..5), 1..60),
        jitter in prop_oneof![Just(0), Just(90)],
        missed in prop_oneof![Just(Missed::None), Just(Missed::Last), Just(Missed::All)],
    ) {
        let spec = ScheduleSpec { jitter: Duration::from_secs(jitter), ..schedule("* * * * *", missed) };
        let timer = timer(&spec);
        let (mut now, mut last, mut highest) = (0_i64, START, 0_i64);
        let mut seen: Vec<Timestamp> = Vec::new();
        for (jump, limit) in jumps {
            now = (now + jump).max(0);
            highest = highest.max(now);
            let plan = timer.plan(last, at(now), limit);
            prop_assert!(plan.ticks.len() <= limit.max(1));
            prop_assert!(plan.ticks.iter().all(|tick| *tick > last && timer.due(*tick) <= at(now)));
            seen.extend(&plan.ticks);
            if let Some(through) = plan.through {
                prop_assert!(through > last);
                last = through;
            }
        }
        prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]));
        if missed == Missed::All {
            loop {
                let plan = timer.plan(last, at(highest), 7);
                let Some(through) = plan.through else { break };
                seen.extend(&plan.ticks);
                last = through;
            }
            let count = seen.len() as i64;
            prop_assert_eq!(seen, (1..=count).map(|n| at(60 * n)).collect::<Vec<_>>());
            prop_assert!(60 * count > highest - 60 - 90);
        }
    }
}

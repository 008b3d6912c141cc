//! Runs the shared schedule cases through the judge and holds the pass rate.

use bellwire_schedules::conformance::{Verdict, group, judge};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Share of judged cases (skipped ones not counted) that must pass.
const PASS_FLOOR: f64 = 0.995;
/// Share of cases that may be skipped.
const SKIP_CEILING: f64 = 0.10;

#[derive(Default)]
struct Count {
    passed: u32,
    failed: u32,
    skipped: u32,
}

fn corpus() -> Option<String> {
    let folder = std::env::var_os("CONFORMANCE_DIR").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/conformance")),
        PathBuf::from,
    );
    match std::fs::read_to_string(folder.join("cron.jsonl")) {
        Ok(text) => Some(text),
        Err(error) if std::env::var("CONFORMANCE_REQUIRED").is_ok_and(|value| value == "1") => {
            panic!("read cron.jsonl in {}: {error}", folder.display())
        }
        Err(_) => {
            println!("no cron.jsonl in {}: schedule conformance is skipped", folder.display());
            None
        }
    }
}

#[test]
fn schedules_agree_with_cases_that_others_wrote() {
    let Some(text) = corpus() else { return };
    let mut groups: BTreeMap<String, Count> = BTreeMap::new();
    let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: serde_json::Value = serde_json::from_str(line).expect("a case is one JSON object per line");
        let count = groups.entry(group(&case)).or_default();
        match judge(&case) {
            Verdict::Passed => count.passed += 1,
            Verdict::Failed { expected, actual } => {
                count.failed += 1;
                println!("FAILED {} {}: expected {expected}, got {actual}", case["id"], case["expr"]);
            }
            Verdict::Skipped { reason } => {
                count.skipped += 1;
                *reasons.entry(reason).or_default() += 1;
            }
        }
    }
    println!("{:<45} {:>6} {:>6} {:>7}", "group", "passed", "failed", "skipped");
    let mut total = Count::default();
    for (name, count) in &groups {
        println!("{name:<45} {:>6} {:>6} {:>7}", count.passed, count.failed, count.skipped);
        total.passed += count.passed;
        total.failed += count.failed;
        total.skipped += count.skipped;
    }
    println!("{:<45} {:>6} {:>6} {:>7}", "all", total.passed, total.failed, total.skipped);
    for (reason, number) in &reasons {
        println!("skipped {number:>4}: {reason}");
    }
    let judged = f64::from(total.passed + total.failed);
    assert!(judged > 0.0, "cron.jsonl holds no cases");
    let rate = f64::from(total.passed) / judged;
    assert!(rate >= PASS_FLOOR, "pass rate {rate:.4} is below {PASS_FLOOR}");
    let skips = f64::from(total.skipped) / (judged + f64::from(total.skipped));
    assert!(skips <= SKIP_CEILING, "{skips:.4} of the cases are skipped, more than {SKIP_CEILING}");
}

//! The conformance runner over the shared corpora, with a floor per kind.

use bellwire_integration_tests::conformance::{Kind, corpus, judge_file};

/// Judges a corpus and holds it to a floor: the share of judged cases that must pass, and of all that are judged.
fn hold(kind: Kind, pass_floor: f64, judged_floor: f64) {
    let Some(file) = corpus(kind) else { return };
    let report = judge_file(kind, &file).unwrap();
    print!("{report}");
    let judged = report.passed + report.failed;
    let all = judged + report.skipped;
    assert!(judged as f64 >= judged_floor * all as f64, "only {judged} of {all} cases were judged");
    assert!(report.passed as f64 >= pass_floor * judged as f64, "{} of {judged} passed", report.passed);
}

#[test]
fn patterns() {
    hold(Kind::Patterns, 0.995, 1.0);
    let Some(file) = corpus(Kind::Patterns) else { return };
    let report = judge_file(Kind::Patterns, &file).unwrap();
    let aws: Vec<_> = report.failures.iter().filter(|f| f.name.starts_with("aws_")).collect();
    assert!(aws.is_empty(), "cases recorded from AWS must all pass: {aws:?}");
}

#[test]
fn cron() {
    hold(Kind::Cron, 1.0, 0.8);
}

#[test]
fn lambda_events() {
    hold(Kind::LambdaEvents, 1.0, 0.05);
}

#[test]
fn object_store() {
    hold(Kind::ObjectStore, 1.0, 0.9);
}

#[test]
fn cloudevents() {
    hold(Kind::Cloudevents, 1.0, 0.5);
}

#[test]
fn answers_to_batches() {
    hold(Kind::EsmAnswers, 1.0, 1.0);
}

#[test]
fn filters_of_mappings() {
    hold(Kind::EsmFilters, 1.0, 0.5);
}

#[test]
fn recordings_of_mappings() {
    hold(Kind::EsmRecorded, 1.0, 0.5);
}

//! Judges one case of the shared corpus of Lambda events: given what a source would have delivered, does a function
//! receive the JSON that AWS sends?
//!
//! A case is `{name, source_kind, event}` with the event as a function on AWS got it. From it the judge takes what the
//! source knows (the records of a notification; rule, tick, id and account of a schedule), makes events of it, shapes
//! them and compares the JSON values.

use std::sync::Arc;

use bellwire_ledger::StoredEvent;
pub use bellwire_schemas::Verdict;
use bellwire_schemas::{Address, Event, Lane, Seq, SourceName, Timestamp};
use bytes::Bytes;
use serde_json::{Value, json};

use super::lambda::{Account, aws_event};

/// The group a case is counted in: its kind of source.
pub fn group(case: &Value) -> String {
    case["source_kind"].as_str().unwrap_or("other").to_owned()
}

/// Judges a case.
pub fn judge(case: &Value) -> Verdict {
    let sample = &case["event"];
    if let Some(records) = sample["Records"].as_array()
        && !records.is_empty()
        && records.iter().all(|r| r["eventSource"] == "aws:s3")
    {
        return judge_s3(records);
    }
    if sample["source"] == "aws.events" && sample["detail-type"] == "Scheduled Event" {
        return judge_schedule(sample);
    }
    Verdict::Skipped { reason: format!("source `{}` is not built", group(case)) }
}

fn judge_s3(records: &[Value]) -> Verdict {
    for record in records {
        let event =
            Event { data: Some(Bytes::from(record.to_string())), ..base("aws:s3", "com.amazonaws.s3") };
        let verdict = compare(json!({"Records": [record]}), "s3", event, &Account::default());
        if verdict != Verdict::Passed {
            return verdict;
        }
    }
    Verdict::Passed
}

fn judge_schedule(sample: &Value) -> Verdict {
    let text = |field: &str| sample[field].as_str().unwrap_or_default().to_owned();
    let rule =
        sample["resources"][0].as_str().and_then(|arn| arn.rsplit_once("rule/")).map_or("", |(_, r)| r);
    let event = Event {
        id: text("id"),
        subject: Some(text("time")),
        time: text("time"),
        data: Some(Bytes::from(json!({"scheduled_time": text("time")}).to_string())),
        ..base(&format!("schedule:{rule}"), "schedule.tick")
    };
    let account = Account { id: text("account"), region: text("region") };
    compare(sample.clone(), "schedule", event, &account)
}

fn base(source: &str, kind: &str) -> Event {
    Event { id: "1".into(), source: source.into(), kind: kind.into(), ..Event::default() }
}

fn compare(expected: Value, kind: &str, event: Event, account: &Account) -> Verdict {
    let stored = StoredEvent {
        address: Address::new(Lane(1), Seq(1)),
        source: SourceName::new(kind),
        accepted_at: Timestamp::default(),
        key: None,
        event: Arc::new(event),
    };
    let actual = aws_event(&stored.event, Some(kind), account)
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or(Value::Null);
    if actual == expected { Verdict::Passed } else { Verdict::Failed { expected, actual } }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;

    /// The shared samples of the kinds we have, all of them.
    #[test]
    fn functions_receive_what_aws_sends() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
        let folder = std::env::var_os("CONFORMANCE_DIR").map_or(root, PathBuf::from);
        let file = folder.join("lambda-events.jsonl");
        let Ok(text) = std::fs::read_to_string(&file) else {
            assert!(std::env::var_os("CONFORMANCE_REQUIRED").is_none(), "{} is required", file.display());
            println!("skipped: no corpus at {}; CONFORMANCE_DIR names its folder", file.display());
            return;
        };
        let mut counts: BTreeMap<String, [usize; 3]> = BTreeMap::new();
        let mut failures = Vec::new();
        for case in text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
            let count = counts.entry(group(&case)).or_default();
            match judge(&case) {
                Verdict::Passed => count[0] += 1,
                Verdict::Failed { expected, actual } => {
                    count[1] += 1;
                    failures.push(format!("{}: expected {expected}, got {actual}", case["name"]));
                }
                Verdict::Skipped { .. } => count[2] += 1,
            }
        }
        for (group, [passed, failed, skipped]) in &counts {
            println!("{group:<40} {passed} passed {failed} failed {skipped} skipped");
        }
        assert_eq!(failures, Vec::<String>::new());
        assert!(counts.values().map(|c| c[0]).sum::<usize>() > 0);
    }
}

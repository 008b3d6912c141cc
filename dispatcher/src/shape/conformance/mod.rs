//! Judges one case of the shared corpus of Lambda events: given what a source would have delivered, does a function
//! receive the JSON that AWS sends?
//!
//! A case is `{name, source_kind, event}` with the event as a function on AWS got it. From it the judge takes what the
//! source knows (the records of a notification; payload and metadata of messages, in `brokers.rs`; rule, tick, id and
//! account of a schedule), makes events of it, shapes them and compares the JSON values.

mod brokers;

pub(crate) use brokers::sqs as sqs_events;

use bellwire_schemas::Event;
pub use bellwire_schemas::Verdict;
use bytes::Bytes;
use serde_json::{Value, json};

use super::lambda::{Account, aws_event};

/// Why the other kind of Kafka cluster is not judged.
const MSK: &str = "a cluster of Amazon MSK is read as a self-managed one, whose event names no ARN";

/// The group a case is counted in: its kind of source.
pub fn group(case: &Value) -> String {
    case["source_kind"].as_str().unwrap_or("other").to_owned()
}

/// Judges a case.
pub fn judge(case: &Value) -> Verdict {
    let sample = &case["event"];
    if let Some(records) = sample["Records"].as_array().filter(|records| !records.is_empty()) {
        let all = |kind: &str| records.iter().all(|r| r["eventSource"] == kind);
        if all("aws:s3") {
            return judge_s3(records, sample);
        }
        if all("aws:sqs") {
            return compare(sample, "sqs", &brokers::sqs(records), &Account::default());
        }
    }
    match sample["eventSource"].as_str() {
        Some("SelfManagedKafka") => {
            return compare(sample, "kafka", &brokers::kafka(sample), &Account::default());
        }
        Some("aws:rmq") => {
            let (events, account) = brokers::rabbitmq(sample);
            return compare(sample, "rabbitmq", &events, &account);
        }
        Some("aws:kafka") => return Verdict::Skipped { reason: MSK.into() },
        _ => {}
    }
    if sample["source"] == "aws.events" && sample["detail-type"] == "Scheduled Event" {
        return judge_schedule(sample);
    }
    Verdict::Skipped { reason: format!("source `{}` is not built", group(case)) }
}

fn judge_s3(records: &[Value], sample: &Value) -> Verdict {
    let event = |record: &Value| Event {
        data: Some(Bytes::from(record.to_string())),
        ..base("aws:s3", "com.amazonaws.s3")
    };
    let events: Vec<Event> = records.iter().map(event).collect();
    compare(sample, "s3", &events, &Account::default())
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
    let account = Account { id: text("account"), region: text("region"), ..Account::default() };
    compare(sample, "schedule", &[event], &account)
}

fn base(source: &str, kind: &str) -> Event {
    Event { id: "1".into(), source: source.into(), kind: kind.into(), ..Event::default() }
}

fn compare(expected: &Value, kind: &str, events: &[Event], account: &Account) -> Verdict {
    let events: Vec<&Event> = events.iter().collect();
    let actual = aws_event(&events, Some(kind), account)
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or(Value::Null);
    if actual == *expected { Verdict::Passed } else { Verdict::Failed { expected: expected.clone(), actual } }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Messages as AWS documents them, several in one event: the judge finds no difference, and finds one where there
    /// is one.
    #[test]
    fn batches_of_messages_are_judged() {
        let record = |partition: i64, offset: i64| {
            json!({
                "topic": "t-1", "partition": partition, "offset": offset, "timestamp": 1_545_084_650_987_u64,
                "timestampType": "CREATE_TIME", "key": "/w==", "value": "SGVsbG8=",
                "headers": [{"h": [104, -1]}, {"h": [1]}],
            })
        };
        let kafka = json!({
            "eventSource": "SelfManagedKafka", "bootstrapServers": "a:9092,b:9092",
            "records": {"t-1-0": [record(0, 5), record(0, 6)], "t-1-1": [record(1, 5)]},
        });
        let message = json!({
            "basicProperties": {
                "contentType": "text/plain", "contentEncoding": null,
                "headers": {"text": {"bytes": [118]}, "bytes": {"bytes": [-1]}, "number": 10},
                "deliveryMode": 1, "priority": 34, "correlationId": null, "replyTo": null, "expiration": "60000",
                "messageId": null, "timestamp": "Nov 21, 2026, 1:02:03 PM", "type": null, "userId": "me",
                "appId": null, "clusterId": null, "bodySize": 2,
            },
            "redelivered": false, "data": "aGk=",
        });
        let rabbitmq = json!({
            "eventSource": "aws:rmq",
            "eventSourceArn": "arn:aws:mq:us-west-2:112556298976:broker:test:b-9bcfa592",
            "rmqMessagesByQueue": {"q::/": [message, message], "q::shop": [message]},
        });
        for event in [kafka, rabbitmq] {
            let case = json!({ "event": event });
            assert_eq!(judge(&case), Verdict::Passed);
            let mut wrong = case.clone();
            wrong["event"]["unknown"] = json!(1);
            assert!(matches!(judge(&wrong), Verdict::Failed { .. }));
        }
    }

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
        for (group, floor) in [("aws:s3", 5), ("aws:sqs", 3), ("eventbridge:aws.events", 1)] {
            let passed = counts.get(group).map_or(0, |count| count[0]);
            assert!(passed >= floor, "{group}: {passed} passed, {floor} did before");
        }
    }
}

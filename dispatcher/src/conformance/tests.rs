use serde_json::json;

use super::*;
use bellwire_schemas::Verdict;

fn fails(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Failed { .. })
}

#[test]
fn an_answer_is_held_to_its_outcome() {
    let case =
        |response: Value, outcome: &str| json!({ "source": "sqs", "response": response, "outcome": outcome });
    let bad_key = json!({ "batchItemFailures": [{ "foo": 1 }] });
    assert_eq!(answers::judge(&case(Value::Null, "all-succeeded")), Verdict::Passed);
    assert_eq!(answers::judge(&case(bad_key.clone(), "all-failed")), Verdict::Passed);
    assert!(fails(&answers::judge(&case(Value::Null, "all-failed"))));
    assert!(fails(&answers::judge(&case(bad_key, "all-succeeded"))));
    assert!(matches!(answers::judge(&json!({ "outcome": "all-failed" })), Verdict::Skipped { .. }));
}

#[test]
fn a_filter_is_held_to_both_bodies() {
    let case = |matching: Value, other: Value| {
        json!({
            "source": "sqs", "filter": { "body": { "k": [{ "prefix": "y" }] } },
            "body_matching": matching, "body_not_matching": other,
        })
    };
    assert_eq!(filters::judge(&case(json!({ "k": "yes" }), json!("plain text"))), Verdict::Passed);
    assert!(fails(&filters::judge(&case(json!({ "k": "no" }), json!({ "k": "no" })))));
    assert!(fails(&filters::judge(&case(json!({ "k": "yes" }), json!({ "k": "yes" })))));
    let other = json!({ "source": "sqs", "filter": { "messageAttributes": { "a": ["b"] } } });
    assert!(matches!(filters::judge(&other), Verdict::Skipped { .. }));
    assert!(fails(&filters::judge(&json!({ "filter_text": "{\"a\": 1}", "valid": true }))));
}

#[test]
fn a_recording_is_held_to_all_its_parts() {
    let record = |id: &str, count: &str| {
        json!({
            "messageId": id, "receiptHandle": "r", "body": { "a": 1 }, "messageAttributes": {},
            "attributes": { "ApproximateReceiveCount": count, "MessageGroupId": "g" },
            "eventSource": "aws:sqs", "eventSourceARN": "arn", "awsRegion": "here", "md5OfMessageAttributes": null,
        })
    };
    let exchange = |records: Vec<Value>, failed: &[&str]| {
        let failures: Vec<Value> = failed.iter().map(|id| json!({ "itemIdentifier": id })).collect();
        json!({ "event": { "Records": records }, "result": { "batchItemFailures": failures } })
    };
    let case = |back: Vec<Value>| {
        let first = exchange(vec![record("a", "1"), record("b", "1"), record("c", "1")], &["b"]);
        json!({ "content": { "one": [first], "two": exchange(back, &[]) } })
    };
    assert_eq!(recorded::judge(&case(vec![record("b", "2"), record("c", "2")])), Verdict::Passed);
    assert!(fails(&recorded::judge(&case(vec![record("b", "2")]))));
    let mut odd = case(vec![record("b", "2"), record("c", "2")]);
    odd["content"]["two"]["event"]["Records"][0]["unknown"] = json!(1);
    assert!(fails(&recorded::judge(&odd)));
    let filtered = |pattern: Value| {
        json!({ "content": {
            "create": { "FilterCriteria": { "Filters": [{ "Pattern": { "body": pattern } }] } },
            "invocation_events": [{ "Records": [record("a", "1")] }],
        } })
    };
    assert_eq!(recorded::judge(&filtered(json!({ "a": [1] }))), Verdict::Passed);
    assert!(fails(&recorded::judge(&filtered(json!({ "a": [2] })))));
    assert!(matches!(recorded::judge(&json!({ "content": {} })), Verdict::Skipped { .. }));
}

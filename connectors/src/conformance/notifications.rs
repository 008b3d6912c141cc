//! Object-store notifications, and ticks, as Lambda and recorders wrote them down.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Verdict, compare, failed, skipped};
use crate::object_store::envelope::{Notification, Record, read};

/// Each record found in the case must come out as one event with the record as its data.
pub(super) fn judge(case: &Value) -> Verdict {
    let event = &case["event"];
    let mut bodies = Vec::new();
    collect(event, &mut bodies);
    if bodies.is_empty() {
        return skipped(match case["source_kind"].as_str() {
            _ if is_tick(event) => "a tick as Lambda receives it: this crate makes ticks, it reads none",
            Some(_) => "an event of a source that this crate does not read",
            None => "no object-store notification",
        });
    }
    for (body, expected) in bodies {
        match judge_body(&body, &expected) {
            Verdict::Passed => {}
            other => return other,
        }
    }
    Verdict::Passed
}

/// Decodes one body and compares record by record.
fn judge_body(body: &Value, expected: &Expected) -> Verdict {
    let decoded = read(&Bytes::from(body.to_string()));
    match (expected, decoded) {
        (Expected::Test, Ok(Notification::Test)) => Verdict::Passed,
        (Expected::Records(records), Ok(Notification::Records(decoded))) => {
            let data: Vec<Value> = decoded.iter().map(data_of).collect();
            match compare(&json!(records), &json!(data)) {
                Verdict::Passed => names(records, &decoded),
                other => other,
            }
        }
        (_, Ok(other)) => failed(format!("{expected:?}"), format!("{other:?}")),
        (_, Err(error)) => failed(format!("{expected:?}"), error),
    }
}

/// The event's data, or why there is no event.
fn data_of(record: &Record) -> Value {
    match &record.object {
        Err(reason) => json!({ "quarantined": reason }),
        Ok(object) => record.draft(object).event.data_json().unwrap_or_default(),
    }
}

/// Bucket, key and kind must agree with the record's own words.
fn names(records: &[Value], decoded: &[Record]) -> Verdict {
    for (record, decoded) in records.iter().zip(decoded) {
        let Ok(object) = &decoded.object else { continue };
        let event = decoded.draft(object).event;
        let bucket = ["/s3/bucket/name", "/detail/bucket/name"].iter().find_map(|p| record.pointer(p));
        if bucket != Some(&json!(object.bucket)) || !event.source.ends_with(&object.bucket) {
            return failed(json!(bucket), json!(event.source));
        }
        if let Some(name) = record["eventName"].as_str()
            && event.kind.strip_prefix("com.amazonaws.s3.") != Some(name.trim_start_matches("s3:"))
        {
            return failed(name, event.kind);
        }
        if let Some(key) = record.pointer("/s3/object/urlDecodedKey").and_then(Value::as_str)
            && event.subject.as_deref() != Some(key)
        {
            return failed(key, json!(event.subject));
        }
    }
    Verdict::Passed
}

/// What a body must be read as.
#[derive(Debug)]
enum Expected {
    Test,
    Records(Vec<Value>),
}

/// Finds the bodies that a store would have posted: recorders wrap them in lists, queue messages and SNS
/// notifications, and note single records too.
fn collect(event: &Value, bodies: &mut Vec<(Value, Expected)>) {
    if let Some(items) = event.as_array().or_else(|| event["messages"].as_array()) {
        items.iter().for_each(|item| collect(item, bodies));
    } else if event["Event"] == "s3:TestEvent" {
        bodies.push((event.clone(), Expected::Test));
    } else if event["s3"].is_object() && event["eventName"].is_string() {
        bodies.push((json!({ "Records": [event] }), Expected::Records(vec![event.clone()])));
    } else if event["source"] == "aws.s3" && event["detail"].is_object() {
        bodies.push((event.clone(), Expected::Records(vec![event.clone()])));
    } else if event["Type"] == "Notification" {
        wrapped(event, bodies);
    } else if let Some(body) = event.get("Body").or_else(|| event.get("Message")) {
        collect(&unquoted(body), bodies);
    } else if let Some(records) = event["Records"].as_array()
        && records.iter().any(|record| record["s3"].is_object())
    {
        bodies.push((event.clone(), Expected::Records(records.clone())));
    }
}

/// An SNS notification is posted with its message as text; recorders parse it.
fn wrapped(event: &Value, bodies: &mut Vec<(Value, Expected)>) {
    let mut inner = Vec::new();
    collect(&unquoted(&event["Message"]), &mut inner);
    for (body, expected) in inner {
        let mut posted = event.clone();
        posted["Message"] = body.to_string().into();
        bodies.push((posted, expected));
    }
}

fn unquoted(value: &Value) -> Value {
    value.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| value.clone())
}

fn is_tick(event: &Value) -> bool {
    event["detail-type"] == "Scheduled Event"
}

//! Whole recordings of AWS. A case holds what was set up, sent and received; the judge looks for the parts that are built
//! and holds each to what AWS did:
//!
//! * events of SQS as functions got them: the form that we give them;
//! * answers to such events: who comes back in the next attempt is who we deliver again;
//! * filters of mappings: what a function got passes ours;
//! * records of asynchronous destinations: those that we send for the same ending.

use std::collections::{BTreeMap, BTreeSet};

use bellwire_ledger::StoredEvent;
use bellwire_patterns::PatternSet;
pub use bellwire_schemas::Verdict;
use bellwire_schemas::brokers::{Sending, SendingPayload};
use bellwire_schemas::{ErrorInfo, FailureClass, Timestamp};
use bellwire_workers::Answer;
use bytes::Bytes;
use serde_json::{Value, json};

use super::filters::{accepts, asks_for_bodies};
use super::{message, stored, translated};
use crate::reply::{self, Verdicts, verdicts};
use crate::sending::{Bounds, End, Report, event};
use crate::shape::Account;
use crate::shape::conformance::{self as forms, sqs_events};

/// Recordings nest this deep at most; what is deeper is not looked at.
const DEPTH: usize = 16;

/// The group a case is counted in: one recording of a mapping, or several tests in one.
pub fn group(case: &Value) -> String {
    if case.get("tests").is_some() { "collections" } else { "mappings" }.to_owned()
}

/// Judges a case: every part of it that is built must agree.
pub fn judge(case: &Value) -> Verdict {
    let mut parts = Parts::default();
    parts.collect(case, DEPTH);
    let judged = parts
        .events
        .iter()
        .map(|event| forms::judge(&json!({ "event": event })))
        .chain(parts.filters.iter().filter_map(|(filters, events)| judge_filter(filters, events)))
        .chain(parts.records.iter().map(|record| judge_record(record)))
        .chain(judge_answers(&parts.answers));
    let mut passed = 0;
    for verdict in judged {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped { .. } => {}
            failed @ Verdict::Failed { .. } => return failed,
        }
    }
    match passed {
        0 => Verdict::Skipped { reason: "nothing in the recording is of a kind that is built".into() },
        _ => Verdict::Passed,
    }
}

/// What a recording holds.
#[derive(Default)]
struct Parts<'a> {
    /// Events of SQS, made whole.
    events: Vec<Value>,
    /// What a function got and answered, or `{event, error}`.
    answers: Vec<&'a Value>,
    /// Filters, with the events that passed them.
    filters: Vec<(&'a Value, &'a Value)>,
    /// Records of asynchronous destinations.
    records: Vec<&'a Value>,
}

impl<'a> Parts<'a> {
    fn collect(&mut self, value: &'a Value, depth: usize) {
        let Some(depth) = depth.checked_sub(1) else { return };
        if let Some(records) = sqs_records(value) {
            self.events.push(json!({ "Records": records.iter().map(message).collect::<Vec<_>>() }));
        }
        if sqs_records(&value["event"]).is_some() {
            self.answers.push(value);
        }
        if value["requestContext"]["condition"].is_string() && value.get("requestPayload").is_some() {
            self.records.push(value);
        }
        for filters in value.as_object().into_iter().flat_map(|map| map.values()) {
            let filters = &filters["FilterCriteria"]["Filters"];
            if filters.is_array() {
                self.filters.push((filters, &value["invocation_events"]));
            }
        }
        match value {
            Value::Object(map) => map.values().for_each(|value| self.collect(value, depth)),
            Value::Array(items) => items.iter().for_each(|value| self.collect(value, depth)),
            _ => {}
        }
    }
}

fn sqs_records(event: &Value) -> Option<&Vec<Value>> {
    let records = event["Records"].as_array().filter(|records| !records.is_empty())?;
    records.iter().all(|record| record["eventSource"] == "aws:sqs").then_some(records)
}

fn judge_filter(filters: &Value, events: &Value) -> Option<Verdict> {
    let patterns: Vec<Value> = filters
        .as_array()?
        .iter()
        .map(|filter| match &filter["Pattern"] {
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            pattern => pattern.clone(),
        })
        .collect();
    let bodies: Vec<&Value> =
        events.as_array()?.iter().filter_map(sqs_records).flatten().map(|record| &record["body"]).collect();
    if bodies.is_empty() || !patterns.iter().all(asks_for_bodies) {
        return None;
    }
    let filter = PatternSet::from_value(&patterns.iter().map(translated).collect());
    let missed = |filter: PatternSet| bodies.iter().find(|body| !accepts(&filter, body)).copied();
    Some(match filter.map(missed) {
        Ok(None) => Verdict::Passed,
        Ok(Some(body)) => Verdict::Failed { expected: json!(true), actual: json!({ "not accepted": body }) },
        Err(error) => Verdict::Failed { expected: json!("valid"), actual: error.to_string().into() },
    })
}

/// Everything that was not delivered in attempt `n` is what attempt `n + 1` is made of, as far as it was recorded.
fn judge_answers(answers: &[&Value]) -> Vec<Verdict> {
    let mut back: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    let mut seen: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for answer in answers {
        let records: Vec<Value> =
            answer["event"]["Records"].as_array().into_iter().flatten().map(message).collect();
        let count = records.first().and_then(|r| r["attributes"]["ApproximateReceiveCount"].as_str());
        let Some(attempt) = count.and_then(|count| count.parse().ok()) else { continue };
        let ids: Vec<String> =
            records.iter().map(|r| r["messageId"].as_str().unwrap_or_default().to_owned()).collect();
        let failed = failed(answer, &records);
        back.entry(attempt)
            .or_default()
            .extend(ids.iter().zip(failed).filter(|(_, failed)| *failed).map(|(id, _)| id.clone()));
        seen.entry(attempt).or_default().extend(ids);
    }
    let next = |(attempt, ours): (u64, BTreeSet<String>)| {
        let theirs = seen.get(&(attempt + 1))?;
        Some(if *theirs == ours {
            Verdict::Passed
        } else {
            Verdict::Failed { expected: json!(theirs), actual: json!(ours) }
        })
    };
    back.into_iter().filter_map(next).collect()
}

/// For each message, whether it is delivered again.
fn failed(answer: &Value, records: &[Value]) -> Vec<bool> {
    if !answer["error"].is_null() {
        return vec![true; records.len()];
    }
    let events: Vec<StoredEvent> =
        (1..).zip(sqs_events(records)).map(|(place, event)| stored(place, event)).collect();
    let all: Vec<&StoredEvent> = events.iter().collect();
    match verdicts(answer["result"].to_string().as_bytes(), &all, Some("sqs"), true) {
        Verdicts::All => vec![false; records.len()],
        Verdicts::Malformed(_) => vec![true; records.len()],
        Verdicts::Each(each) => each.iter().map(|one| *one != reply::Verdict::Delivered).collect(),
    }
}

/// The same ending, told by us; the time is masked in the recordings.
fn judge_record(record: &Value) -> Verdict {
    let context = &record["requestContext"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // arn:aws:lambda:<region>:<account>:function:<name>:<version>
    let arn = text(&context["functionArn"]);
    let arn: Vec<&str> = arn.split(':').collect();
    let part = |index: usize| arn.get(index).copied().unwrap_or_default();
    // A mask has a colon of its own.
    let function = arn.get(6..arn.len().saturating_sub(1)).unwrap_or_default().join(":");
    let response = &record["responsePayload"];
    let answer = Answer { payload: Bytes::from(response.to_string()), ..Answer::default() };
    let error = ErrorInfo {
        class: FailureClass::Function,
        kind: text(&response["errorType"]),
        message: text(&response["errorMessage"]),
        stack: response["stackTrace"].as_array().into_iter().flatten().map(text).collect(),
    };
    let request_id = text(&context["requestId"]);
    let report = Report {
        end: match context["condition"].as_str() {
            Some("Success") => End::Delivered(&answer),
            Some("EventAgeExceeded") => End::Expired(Some(&error)),
            _ => End::Dead(&error),
        },
        at: Timestamp::default(),
        attempts: context["approximateInvokeCount"]
            .as_u64()
            .unwrap_or_default()
            .try_into()
            .unwrap_or(u32::MAX),
        request_id: &request_id,
        function: &function,
        version: "",
        since: Timestamp::default(),
        replay: None,
        account: Account { id: part(4).into(), region: part(3).into(), ..Account::default() },
    };
    let sending = Sending { to: "sample".into(), payload: SendingPayload::Record };
    let request = Bytes::from(record["requestPayload"].to_string());
    let bounds = Bounds { lanes: 1, event_bytes: 1 << 20 };
    let new =
        event("sample", &sending, &stored(1, bellwire_schemas::Event::default()), &report, &request, bounds);
    let mut actual = new.event.data_json().unwrap_or_default();
    actual["timestamp"] = record["timestamp"].clone();
    if actual == *record { Verdict::Passed } else { Verdict::Failed { expected: record.clone(), actual } }
}

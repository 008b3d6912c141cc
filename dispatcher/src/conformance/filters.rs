//! Which messages the filter of an event source mapping lets through.
//!
//! A case is a filter with a body that matches it and one that does not, or a filter that is valid or not. What a filter
//! calls `body` is `data` in our envelope.

use bellwire_patterns::PatternSet;
use bellwire_schemas::Event;
pub use bellwire_schemas::Verdict;
use serde_json::{Value, json};

use super::{BODY, message, not_built, translated};
use crate::shape::conformance::sqs_events;

/// The group a case is counted in: its source, or `validity`.
pub fn group(case: &Value) -> String {
    let group =
        if case["valid"].is_boolean() { "validity" } else { case["source"].as_str().unwrap_or("other") };
    group.to_owned()
}

/// Judges a case.
pub fn judge(case: &Value) -> Verdict {
    if let Some(valid) = case["valid"].as_bool() {
        let read = match case["filter_text"].as_str() {
            Some(text) => PatternSet::parse(text),
            None => PatternSet::from_value(&case["filter"]),
        };
        return compare(&valid.into(), &read.is_ok().into());
    }
    if case["source"] != "sqs" {
        return not_built(&group(case));
    }
    if !asks_for_bodies(&case["filter"]) {
        return Verdict::Skipped { reason: "the filter asks for more than the body".into() };
    }
    let expected = json!({ "body_matching": true, "body_not_matching": false });
    let actual = match PatternSet::from_value(&translated(&case["filter"])) {
        Ok(filter) => json!({
            "body_matching": accepts(&filter, &case["body_matching"]),
            "body_not_matching": accepts(&filter, &case["body_not_matching"]),
        }),
        Err(error) => format!("invalid: {error}").into(),
    };
    compare(&expected, &actual)
}

/// Whether a message with this body reaches the function.
pub(super) fn accepts(filter: &PatternSet, body: &Value) -> bool {
    let record = message(&json!({ "messageId": "m", "body": body }));
    sqs_events(&[record]).iter().map(Event::envelope).all(|envelope| filter.matches(&envelope))
}

/// Whether nothing but the body is looked at, whose name alone differs here.
pub(super) fn asks_for_bodies(filter: &Value) -> bool {
    filter.as_object().is_none_or(|fields| {
        fields.iter().all(|(name, value)| {
            name == BODY
                || name == "$or" && value.as_array().is_some_and(|list| list.iter().all(asks_for_bodies))
        })
    })
}

fn compare(expected: &Value, actual: &Value) -> Verdict {
    if expected == actual {
        Verdict::Passed
    } else {
        Verdict::Failed { expected: expected.clone(), actual: actual.clone() }
    }
}

//! Judges this crate by notifications and CloudEvents that others recorded or wrote.
//!
//! A case is one JSON object. It says by its members what it is about: `binding` (a CloudEvents message with what it
//! must decode to), `section` and `text` (an example of the specification), else a notification or Lambda event.
//! What is not this crate's to read is skipped, for a reason found in the case. This room reads no files.

mod cloudevents;
mod notifications;

#[cfg(test)]
mod tests;

pub use bellwire_schemas::Verdict;
use serde_json::{Value, json};

/// Names the group a case is counted in.
pub fn group(case: &Value) -> String {
    let part = |name: &str| case[name].as_str().map(str::to_owned);
    if let Some(binding) = part("binding") {
        return format!("binding/{binding}");
    }
    if case["section"].is_string() {
        let path = part("path").unwrap_or_default();
        let file = path.rsplit('/').next().unwrap_or_default();
        return format!("specification/{}", file.trim_end_matches(".md"));
    }
    part("kind").or_else(|| part("source_kind")).unwrap_or_else(|| "other".into())
}

/// Judges one case.
pub fn judge(case: &Value) -> Verdict {
    if case["binding"].is_string() {
        cloudevents::judge_binding(case)
    } else if case["section"].is_string() {
        cloudevents::judge_example(case)
    } else {
        notifications::judge(case)
    }
}

fn failed(expected: impl Into<Value>, actual: impl Into<Value>) -> Verdict {
    Verdict::Failed { expected: expected.into(), actual: actual.into() }
}

fn skipped(reason: &str) -> Verdict {
    Verdict::Skipped { reason: reason.to_owned() }
}

/// Passed when both are the same JSON value.
fn compare(expected: &Value, actual: &Value) -> Verdict {
    if expected == actual { Verdict::Passed } else { failed(json!(expected), json!(actual)) }
}

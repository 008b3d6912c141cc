//! Judging one case of the shared corpus of event patterns: JSON lines with a pattern, perhaps an event, and the
//! answer of AWS or of event-ruler. The format is described beside the corpus.

use serde_json::Value;

use crate::error::PatternError;
use crate::pattern::Pattern;

/// How a case went.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// We answer as the authority did.
    Passed,
    /// We answer differently.
    Failed {
        /// The authority's answer: `"valid"`, `"invalid"`, `true` or `false`.
        expected: Value,
        /// Ours, in the same words; `"invalid: …"` says why.
        actual: Value,
    },
    /// The case lacks what would be needed to judge it.
    Skipped {
        /// What it lacks.
        reason: String,
    },
}

/// The group a case is counted in: `aws` for answers recorded from AWS, `ruler` for event-ruler's matches and
/// `ruler-validity` for what event-ruler compiles.
pub fn group(case: &Value) -> String {
    let authority = case.pointer("/origin/authority").and_then(Value::as_str).unwrap_or_default();
    match (authority.starts_with("AWS"), has_event(case)) {
        (true, _) => "aws",
        (false, true) => "ruler",
        (false, false) => "ruler-validity",
    }
    .to_owned()
}

/// Judges a case by its pattern and event alone.
pub fn judge(case: &Value) -> Verdict {
    let Some(pattern) = pattern(case) else {
        return Verdict::Skipped { reason: "the case has no pattern".into() };
    };
    let invalid = case["invalid_pattern"].as_bool().unwrap_or(false);
    let expected_match = case["match"].as_bool().filter(|_| !invalid && has_event(case));
    let expected = match expected_match {
        Some(matches) => Value::Bool(matches),
        None => Value::from(if invalid { "invalid" } else { "valid" }),
    };
    let actual = match (&pattern, expected_match) {
        (Err(_), None) if invalid => expected.clone(),
        (Err(error), _) => Value::String(format!("invalid: {error}")),
        (Ok(_), None) => Value::from("valid"),
        (Ok(pattern), Some(_)) => Value::Bool(match case["event_text"].as_str() {
            Some(text) => pattern.matches_text(text),
            None => pattern.matches(&case["event"]),
        }),
    };
    if actual == expected { Verdict::Passed } else { Verdict::Failed { expected, actual } }
}

fn has_event(case: &Value) -> bool {
    case.get("event").is_some() || case.get("event_text").is_some()
}

fn pattern(case: &Value) -> Option<Result<Pattern, PatternError>> {
    match (case["pattern_text"].as_str(), case.get("pattern")) {
        (Some(text), _) => Some(Pattern::parse(text)),
        (None, Some(pattern)) => Some(Pattern::from_value(pattern)),
        (None, None) => None,
    }
}

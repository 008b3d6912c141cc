//! Why an event does not satisfy a pattern: the first clause that said no, as data and as a sentence.

use std::fmt;

use serde_json::{Value, json};

use crate::compile::{Clause, Item, OneOf};
use crate::fields::Quoted;
use crate::pattern::{Decision, Found, Pattern};

/// The clause that said no. Its `Display` is one sentence without a full stop, such as
/// `data.status is "NEW", wanted one of ["PAID"]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Path of the clause, names joined by dots; that of an `$or` ends in `$or`; empty for the event as a whole.
    pub path: String,
    /// The rule list of the clause, or the alternatives of the `$or`.
    pub wanted: Value,
    /// What the event holds there: the value, a list when the path leads to several values (at most
    /// [`crate::limits::MAX_QUOTED_VALUES`]), `None` when there is none.
    pub actual: Option<Value>,
    /// In which way the clause said no.
    pub reason: Reason,
}

/// The way in which a clause said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No value at the path satisfies a rule.
    Value,
    /// The path leads to an object, and rules judge plain values only.
    IsObject,
    /// The path leads to an empty array, which counts as absent.
    IsEmptyArray,
    /// Values satisfy the clause, but in another array element than the clauses before it chose.
    OtherElement,
    /// No alternative of the `$or` is satisfied.
    NoAlternative,
    /// The event is not a JSON object.
    NotAnObject,
    /// Too many array elements share one path to decide within [`crate::limits::MAX_STEPS`].
    TooTangled,
}

impl Reason {
    /// A stable word for machines.
    pub fn code(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::IsObject => "is-object",
            Self::IsEmptyArray => "is-empty-array",
            Self::OtherElement => "other-element",
            Self::NoAlternative => "no-alternative",
            Self::NotAnObject => "not-an-object",
            Self::TooTangled => "too-tangled",
        }
    }
}

impl Explanation {
    /// The explanation as JSON: `path`, `wanted`, `actual` (missing when absent), `reason` and the sentence as
    /// `text`.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "path": self.path, "wanted": self.wanted, "reason": self.reason.code(), "text": self.to_string()
        });
        if let (Some(members), Some(actual)) = (value.as_object_mut(), &self.actual) {
            members.insert("actual".to_owned(), actual.clone());
        }
        value
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        let wanted = Wanted(&self.wanted);
        match (self.reason, &self.actual) {
            (Reason::Value, None) => write!(f, "{path} is absent, wanted {wanted}"),
            (Reason::Value, Some(actual)) if wanted.operator().is_some() => {
                write!(f, "{path} {} does not match {wanted}", Brief(actual))
            }
            (Reason::Value, Some(actual)) => write!(f, "{path} is {}, wanted {wanted}", Brief(actual)),
            (Reason::IsObject, _) => write!(f, "{path} is an object, wanted {wanted}"),
            (Reason::IsEmptyArray, _) => write!(f, "{path} is an empty array, wanted {wanted}"),
            (Reason::OtherElement, _) => {
                write!(
                    f,
                    "{path} fits only in another array element than the clauses before it, wanted {wanted}"
                )
            }
            (Reason::NoAlternative, _) => {
                let count = self.wanted.as_array().map_or(0, Vec::len);
                write!(f, "{path} has {count} alternatives and none matched")
            }
            (Reason::NotAnObject, _) => f.write_str("the event is not a JSON object, wanted one"),
            (Reason::TooTangled, _) => {
                f.write_str("too many array elements share one path to compare them all")
            }
        }
    }
}

/// Explains a decision that is not a match.
pub(crate) fn explain(pattern: &Pattern, event: &Value, decision: Decision) -> Explanation {
    let whole = |reason| Explanation { path: String::new(), wanted: Value::Null, actual: None, reason };
    let found = Found::new(pattern, event);
    let compiled = pattern.compiled();
    let failed = compiled.items.iter().find(|item| !found.may_hold(item));
    match (decision, failed) {
        (Decision::NotAnObject, _) => whole(Reason::NotAnObject),
        (Decision::TooTangled, _) => whole(Reason::TooTangled),
        (_, Some(Item::Clause(clause))) => no_value(&compiled.clauses[*clause], event),
        (_, Some(Item::OneOf(one_of))) => no_alternative(one_of),
        (Decision::Stuck(clause), None) => stuck(&compiled.clauses[clause], event),
        // Every item may hold, so every branch was solved and one of them got stuck.
        (Decision::Unsatisfied | Decision::Matched, None) => whole(Reason::NoAlternative),
    }
}

fn no_value(clause: &Clause, event: &Value) -> Explanation {
    let quoted = Quoted::find(event, &clause.path);
    let reason = match quoted.container {
        Some(Value::Object(_)) if quoted.values.is_empty() => Reason::IsObject,
        Some(_) if quoted.values.is_empty() => Reason::IsEmptyArray,
        _ => Reason::Value,
    };
    about(clause, quoted, reason)
}

fn stuck(clause: &Clause, event: &Value) -> Explanation {
    let absence_only =
        clause.rules.accept_absence() && clause.wanted.to_value().as_array().is_some_and(|r| r.len() == 1);
    let reason = if absence_only { Reason::Value } else { Reason::OtherElement };
    about(clause, Quoted::find(event, &clause.path), reason)
}

fn no_alternative(one_of: &OneOf) -> Explanation {
    let (path, wanted) = (one_of.path.clone(), one_of.wanted.to_value());
    Explanation { path, wanted, actual: None, reason: Reason::NoAlternative }
}

fn about(clause: &Clause, quoted: Quoted<'_>, reason: Reason) -> Explanation {
    let actual = match quoted.values.as_slice() {
        [] => None,
        [single] => Some((*single).clone()),
        several => Some(several.iter().copied().cloned().collect()),
    };
    Explanation { path: clause.path.clone(), wanted: clause.wanted.to_value(), actual, reason }
}

/// A rule list in a sentence: one operator stands by itself, all else is `one of [...]`.
struct Wanted<'a>(&'a Value);

impl<'a> Wanted<'a> {
    fn operator(&self) -> Option<&'a Value> {
        match self.0.as_array()?.as_slice() {
            [only @ Value::Object(_)] => Some(only),
            _ => None,
        }
    }
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operator() {
            Some(operator) => Brief(operator).fmt(f),
            None => write!(f, "one of {}", Brief(self.0)),
        }
    }
}

/// JSON with a space after `:` and `,`, cut off where it would fill the screen.
struct Brief<'a>(&'a Value);

/// Longest quotation in characters; two of them and a path fit three lines of a terminal.
const BRIEF_CHARS: usize = 100;

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        spaced(self.0, &mut text);
        match text.char_indices().nth(BRIEF_CHARS) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

fn spaced(value: &Value, out: &mut String) {
    // Longer text is cut off anyway, so a large value need not be printed to its end.
    if out.len() > 4 * BRIEF_CHARS {
        return;
    }
    match value {
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate().take(BRIEF_CHARS) {
                out.push_str(if i > 0 { ", " } else { "" });
                spaced(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (i, (key, member)) in members.iter().enumerate().take(BRIEF_CHARS) {
                out.push_str(if i > 0 { ", " } else { "" });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push_str(": ");
                spaced(member, out);
            }
            out.push('}');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

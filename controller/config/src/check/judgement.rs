//! What is wrong with a single value, in words.

use serde_json::Value;

use crate::diagnostic::shown;
use crate::hints;
use crate::schema::Shape;
use crate::tree::{Kind, Node, Scalar};

/// Why a scalar of the right type is still wrong: message with `{v}` for the value, and help.
pub(super) fn refusal(
    scalar: &Scalar,
    schema: &Value,
    whole: &Value,
    shape: &Shape,
) -> Option<(String, Option<String>)> {
    if let Some(number) =
        scalar.value.as_i64().map(i128::from).or_else(|| scalar.value.as_u64().map(i128::from))
    {
        let bound = |key: &str| schema.get(key).and_then(Value::as_i64).map(i128::from);
        let (low, high) = (bound("minimum"), bound("maximum"));
        if low.is_some_and(|low| number < low) || high.is_some_and(|high| number > high) {
            let range = match (low, high) {
                (Some(low), Some(high)) => format!("from {low} to {high}"),
                (low, _) => format!("at least {}", low.unwrap_or_default()),
            };
            return Some((format!("`{{v}}` is out of range: expected a number {range}"), None));
        }
    }
    if let Some(Value::Array(allowed)) = schema.get("enum")
        && !allowed.contains(&scalar.value)
    {
        let list = shape.noun(whole);
        let known: Vec<&str> = allowed.iter().filter_map(Value::as_str).collect();
        let near = scalar.value.as_str().and_then(|text| hints::nearest(text, &known));
        let help = near.map(|word| format!("did you mean `{word}`?"));
        return Some((format!("expected {list}, found `{{v}}`"), help));
    }
    let text = scalar.value.as_str()?;
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && !shape.matches(pattern, text)
    {
        let message = if text.is_empty() { "expected {n}, found nothing" } else { "`{v}` is not {n}" };
        let help = hints::foreign_value(text).map(str::to_owned);
        return Some((message.replace("{n}", &shape.noun(schema)), help));
    }
    if schema.get("minLength").is_some() && text.is_empty() {
        return Some(("text that is not empty is needed".into(), None));
    }
    None
}

/// Whether a schema takes values of a type.
pub(super) fn has_type(schema: &Value, kind: &str) -> bool {
    let fits = |t: &str| t == kind || (t == "number" && kind == "integer");
    match schema.get("type") {
        None => true,
        Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).any(fits),
        Some(one) => one.as_str().is_some_and(fits),
    }
}

/// The type of a value as JSON Schema calls it.
pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as a message calls it.
pub(super) fn describe(node: &Node) -> String {
    match &node.kind {
        Kind::List(_) => "a list".into(),
        Kind::Map(_) => "a map".into(),
        Kind::Scalar(s) if s.value.is_null() => "nothing".into(),
        Kind::Scalar(s) if s.hidden => "another value".into(),
        Kind::Scalar(s) => format!("`{}`", shown(&s.raw)),
    }
}

/// What to write instead of a value of the wrong type.
pub(super) fn help(node: &Node, noun: &str, key: &str) -> Option<String> {
    match &node.kind {
        Kind::Scalar(s) if key == "webhook" && s.value.is_string() => {
            Some(format!("write `webhook: {{ path: {}, verify: … }}`", shown(&s.raw)))
        }
        Kind::Scalar(s) if noun.contains("duration") && s.value.is_u64() => {
            Some(format!("write `{}s` or `{}ms`", s.raw, s.raw))
        }
        Kind::Scalar(s) if noun.contains("rate") && s.value.is_u64() => {
            Some(format!("write `{}/s` or `{}/m`", s.raw, s.raw))
        }
        Kind::Scalar(s) if noun.contains("size") && s.value.is_u64() => {
            Some(format!("write `{}MB` or `{}KB`", s.raw, s.raw))
        }
        Kind::Scalar(s)
            if noun.starts_with("`true`") && matches!(s.raw.as_str(), "yes" | "on" | "no" | "off") =>
        {
            let truth = matches!(s.raw.as_str(), "yes" | "on");
            Some(format!("in YAML 1.2 `{}` is text: write `{truth}`", s.raw))
        }
        Kind::Scalar(s) if s.value.is_number() && noun.contains("text") => {
            Some(format!("write `\"{}\"`", shown(&s.raw)))
        }
        _ => None,
    }
}

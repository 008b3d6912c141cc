//! `check --expand`: the file with every default, references as they are written, secrets blotted out.

use std::fmt::Write as _;

use serde_json::Value;

use crate::lower::url::without_password;
use crate::reference::references_only;
use crate::tree::{Kind, Node, Scalar};
use crate::yaml::core_value;

/// Prints a filled tree as YAML.
pub(crate) fn print(root: &Node) -> String {
    let mut out = String::new();
    map(&mut out, root, 0);
    out
}

fn map(out: &mut String, node: &Node, indent: usize) {
    for (i, entry) in node.entries().iter().enumerate() {
        // The first key of a list's item stands behind the hyphen.
        let pad = if i == 0 && out.ends_with("- ") { 0 } else { indent };
        let _ = write!(out, "{}{}:", " ".repeat(pad), quoted(&entry.key));
        value(out, &entry.value, indent);
    }
}

fn value(out: &mut String, node: &Node, indent: usize) {
    match &node.kind {
        Kind::Scalar(scalar) => {
            let _ = writeln!(out, " {}", text(scalar));
        }
        Kind::List(items) if items.is_empty() => out.push_str(" []\n"),
        Kind::Map(entries) if entries.is_empty() => out.push_str(" {}\n"),
        Kind::List(_) => {
            out.push('\n');
            list(out, node, indent + 2);
        }
        Kind::Map(_) => {
            out.push('\n');
            map(out, node, indent + 2);
        }
    }
}

fn list(out: &mut String, node: &Node, indent: usize) {
    for item in node.items() {
        let _ = write!(out, "{}- ", " ".repeat(indent));
        match &item.kind {
            Kind::Map(entries) if !entries.is_empty() => map(out, item, indent + 2),
            Kind::Map(_) => out.push_str("{}\n"),
            // Lists in lists are rare (filters): JSON is YAML too.
            Kind::List(_) => {
                let _ = writeln!(out, "{}", shown_json(item));
            }
            Kind::Scalar(scalar) => {
                let _ = writeln!(out, "{}", text(scalar));
            }
        }
    }
}

fn shown_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) if scalar.hidden => Value::from(references_only(&scalar.raw)),
        Kind::Scalar(scalar) if scalar.reference => Value::from(scalar.raw.as_str()),
        Kind::Scalar(scalar) => scalar.value.clone(),
        Kind::List(items) => items.iter().map(shown_json).collect(),
        Kind::Map(entries) => {
            Value::Object(entries.iter().map(|e| (e.key.clone(), shown_json(&e.value))).collect())
        }
    }
}

fn text(scalar: &Scalar) -> String {
    if let Some(blotted) = without_password(&scalar.raw) {
        return quoted(&blotted);
    }
    match (&scalar.value, scalar.hidden, scalar.reference) {
        (_, true, false) => quoted("***"),
        (_, true, true) => quoted(&references_only(&scalar.raw)),
        (_, false, true) => quoted(&scalar.raw),
        (Value::String(text), ..) => quoted(text),
        (other, ..) => other.to_string(),
    }
}

/// Text as YAML: plain where that is safe, else in the quotes of JSON.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+()".contains(c);
    let safe = text.chars().all(|c| plain(c) || c == ' ')
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.')
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && matches!(core_value(text), Some(Value::String(_)));
    if safe { text.to_owned() } else { Value::from(text).to_string() }
}

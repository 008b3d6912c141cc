//! The schema made from the shape: once for the structural check, once for editors.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex_lite::Regex;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::shape::File;

/// The pattern of a value that holds a reference.
const REFERENCE: &str = r"\$\{(env|file):";

/// The JSON Schema (draft 2020-12) of `bellwire.yaml`, for editors.
///
/// It describes the file as written: wherever a value has a rule, a text with a `${…}` reference is also right.
pub fn json_schema() -> Value {
    let mut schema = shape().schema.clone();
    publish(&mut schema);
    if let Some(defs) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
        let reference = json!({
            "type": "string",
            "pattern": REFERENCE,
            "description": "A value from outside: `${env:NAME}`, `${env:NAME, 'default'}` or `${file:path}`, also within a longer text.",
            "examples": ["${env:NAME}", "${env:NAME, 'default'}", "${file:secrets/name}"],
        });
        defs.insert("Reference".into(), reference);
    }
    schema
}

/// The schema of the check, with its patterns compiled.
pub(crate) struct Shape {
    pub schema: Value,
    patterns: BTreeMap<String, Regex>,
}

/// The one shape of this program.
pub(crate) fn shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| {
        let mut schema =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>().to_value();
        normalise(&mut schema);
        let ignored = json!({ "description": "Ignored: a home for anchors." });
        schema["patternProperties"] = json!({ "^x-": ignored });
        let mut patterns = BTreeMap::new();
        collect_patterns(&schema, &mut patterns);
        Shape { schema, patterns }
    })
}

impl Shape {
    /// A schema with its `$ref` followed, and the name of the definition.
    pub fn resolve<'s>(&'s self, schema: &'s Value) -> (&'s Value, &'s str) {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
        match name.and_then(|name| Some((self.schema.get("$defs")?.get(name)?, name))) {
            Some(found) => found,
            None => (schema, ""),
        }
    }

    /// Whether a text follows one of the schema's patterns.
    pub fn matches(&self, pattern: &str, text: &str) -> bool {
        self.patterns.get(pattern).is_none_or(|regex| regex.is_match(text))
    }

    /// How a message calls a value of this schema.
    pub fn noun(&self, schema: &Value) -> String {
        let (schema, _) = self.resolve(schema);
        if let Some(noun) = schema.get("x-noun").and_then(Value::as_str) {
            return noun.to_owned();
        }
        if let Some(words) = words(schema) {
            return words;
        }
        if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) {
            return alternatives.iter().map(|a| self.noun(a)).collect::<Vec<_>>().join(", or ");
        }
        match schema.get("type").and_then(Value::as_str) {
            Some("integer") => "a whole number",
            Some("boolean") => "`true` or `false`",
            Some("array") => "a list",
            Some("object") => "a map",
            _ => "text",
        }
        .to_owned()
    }
}

/// The words of an enumeration as a message lists them.
pub(crate) fn words(schema: &Value) -> Option<String> {
    let words: Vec<String> = schema
        .get("enum")?
        .as_array()?
        .iter()
        .map(|w| format!("`{}`", w.as_str().unwrap_or("false")))
        .collect();
    match words.split_last()? {
        (only, []) => Some(only.clone()),
        (last, rest) => Some(format!("{} or {last}", rest.join(", "))),
    }
}

/// Turns what the derive writes into the few words that the check reads.
fn normalise(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(normalise),
        Value::Object(map) => {
            map.values_mut().for_each(normalise);
            if map.get("format").is_some_and(Value::is_string) {
                map.remove("format");
            }
            if map.get("default") == Some(&Value::Null) {
                map.remove("default");
            }
            drop_null(map);
            fold_words(map);
            if let Some(properties) = map.get("properties").and_then(Value::as_object) {
                let optional: Vec<String> = properties
                    .iter()
                    .filter(|(_, property)| property.get("default").is_some())
                    .map(|(key, _)| key.clone())
                    .collect();
                map.insert("additionalProperties".into(), Value::Bool(false));
                if let Some(required) = map.get_mut("required").and_then(Value::as_array_mut) {
                    required.retain(|key| !optional.iter().any(|o| Some(o.as_str()) == key.as_str()));
                    if required.is_empty() {
                        map.remove("required");
                    }
                }
            }
        }
        _ => {}
    }
}

/// An absent key is how "nothing" is written here: `null` is never a value.
fn drop_null(map: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".into(), only);
        }
    }
    let Some(Value::Array(mut alternatives)) = map.remove("anyOf") else { return };
    alternatives.retain(|a| a.get("type").is_none_or(|t| t != "null"));
    match (alternatives.len(), alternatives.first_mut()) {
        (1, Some(Value::Object(only))) => {
            let only = std::mem::take(only);
            for (key, value) in only {
                map.entry(key).or_insert(value);
            }
        }
        _ => {
            map.insert("anyOf".into(), Value::Array(alternatives));
        }
    }
}

/// `oneOf: [{const: a}, {const: b}]` becomes `enum: [a, b]`.
fn fold_words(map: &mut Map<String, Value>) {
    let Some(Value::Array(alternatives)) = map.get("oneOf") else { return };
    let mut words = Vec::new();
    for alternative in alternatives {
        match (alternative.get("const"), alternative.get("enum")) {
            (Some(word), _) => words.push(word.clone()),
            (_, Some(Value::Array(more))) => words.extend(more.iter().cloned()),
            _ => return,
        }
    }
    map.remove("oneOf");
    map.insert("type".into(), "string".into());
    map.insert("enum".into(), Value::Array(words));
}

fn collect_patterns(schema: &Value, out: &mut BTreeMap<String, Regex>) {
    let mut add = |pattern: &str| {
        if let Ok(regex) = Regex::new(pattern) {
            out.insert(pattern.to_owned(), regex);
        }
    };
    match schema {
        Value::Array(items) => items.iter().for_each(|item| collect_patterns(item, out)),
        Value::Object(map) => {
            if let Some(pattern) = map.get("pattern").and_then(Value::as_str) {
                add(pattern);
            }
            if let Some(keyed) = map.get("patternProperties").and_then(Value::as_object) {
                keyed.keys().for_each(|pattern| add(pattern));
            }
            map.values().for_each(|value| collect_patterns(value, out));
        }
        _ => {}
    }
}

/// Cuts the private words and lets references stand in for values with a rule.
fn publish(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(publish),
        Value::Object(map) => {
            map.retain(|key, _| {
                !matches!(key.as_str(), "x-noun" | "x-short" | "x-many" | "x-secret" | "x-hidden")
            });
            for (key, value) in map.iter_mut() {
                if !matches!(key.as_str(), "default" | "not" | "enum" | "oneOf" | "required" | "examples") {
                    publish(value);
                }
            }
            if needs_reference(map) {
                let mut rule = Map::new();
                for key in ["type", "pattern", "enum", "minimum", "maximum"] {
                    if let Some(value) = map.remove(key) {
                        rule.insert(key.into(), value);
                    }
                }
                map.insert("anyOf".into(), json!([rule, { "$ref": "#/$defs/Reference" }]));
            }
        }
        _ => {}
    }
}

fn needs_reference(map: &Map<String, Value>) -> bool {
    match map.get("type").and_then(Value::as_str) {
        Some("integer" | "boolean" | "number") => true,
        Some("string") => map.contains_key("enum") || map.contains_key("pattern"),
        _ => false,
    }
}

#[cfg(test)]
mod tests;

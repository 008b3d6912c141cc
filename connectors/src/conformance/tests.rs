use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bellwire_schemas::cloudevents::{Decoded, decode, encode_structured};
use serde_json::{Value, json};

use super::*;

fn folder() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE_DIR").map_or(default, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CONFORMANCE_REQUIRED").is_none(), "{} is required", folder.display());
    println!("skipped: no corpora at {}; CONFORMANCE_DIR names their folder", folder.display());
    None
}

fn cases(folder: &Path, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    text.lines().filter(|l| !l.trim().is_empty()).map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Judges a file, prints each group's rate and each failure, and holds the number of passed cases to a floor.
fn hold(file: &str, floor: usize) {
    let Some(folder) = folder() else { return };
    let mut groups: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut failures = Vec::new();
    for case in cases(&folder, file) {
        let tally = groups.entry(group(&case)).or_default();
        match judge(&case) {
            Verdict::Passed => tally[0] += 1,
            Verdict::Failed { expected, actual } => {
                tally[1] += 1;
                failures.push(format!("{}: expected {expected}, got {actual}", case["name"]));
            }
            Verdict::Skipped { .. } => tally[2] += 1,
        }
    }
    for (group, [passed, failed, skipped]) in &groups {
        println!("{file} {group}: {passed} passed, {failed} failed, {skipped} skipped");
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let passed: usize = groups.values().map(|tally| tally[0]).sum();
    assert!(passed >= floor, "{passed} passed, the floor is {floor}");
}

#[test]
fn object_store_notifications() {
    hold("object-store.jsonl", 13);
}

#[test]
fn lambda_events_of_object_stores() {
    hold("lambda-events.jsonl", 5);
}

#[test]
fn cloudevents_bindings() {
    hold("cloudevents-bindings.jsonl", 9);
}

#[test]
fn cloudevents_examples() {
    hold("cloudevents-spec-examples.jsonl", 9);
}

/// The part of JSON Schema that the CloudEvents schema uses: types, shortest text, references, required members.
fn fits(schema: &Value, event: &Value) -> Result<(), String> {
    for name in schema["required"].as_array().unwrap() {
        event.get(name.as_str().unwrap()).ok_or(format!("{name} is missing"))?;
    }
    for (name, property) in schema["properties"].as_object().unwrap() {
        let Some(value) = event.get(name) else { continue };
        let definition = property["$ref"].as_str().unwrap().trim_start_matches('#');
        let rule = schema.pointer(definition).unwrap();
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let allowed = rule["type"].as_array().cloned().unwrap_or_else(|| vec![rule["type"].clone()]);
        if !allowed.contains(&json!(kind)) {
            return Err(format!("{name} is a {kind}"));
        }
        if value.as_str().is_some_and(|t| (t.len() as u64) < rule["minLength"].as_u64().unwrap_or(0)) {
            return Err(format!("{name} is too short"));
        }
    }
    Ok(())
}

#[test]
fn every_structured_event_fits_the_schema() {
    let Some(folder) = folder() else { return };
    let schema = std::fs::read_to_string(folder.join("cloudevents.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert!(fits(&schema, &json!({ "id": "", "source": "s", "specversion": "1.0", "type": "t" })).is_err());
    let now = crate::suite::START;
    for kind in ["s3", "schedule", "webhook", "topic"] {
        let stored = crate::samples::sample_event(kind, now).unwrap();
        let bytes = encode_structured(&stored.event);
        fits(&schema, &serde_json::from_slice(&bytes).unwrap()).unwrap();
        let headers = [("content-type", &b"application/cloudevents+json"[..])];
        let again = decode(bellwire_schemas::cloudevents::Binding::Http, &headers, &bytes);
        assert!(matches!(again, Ok(Some(Decoded::One(_)))), "{kind}: {again:?}");
    }
}

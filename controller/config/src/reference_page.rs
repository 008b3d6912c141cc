//! The reference page `docs/configuration.md`: written from the schema, so that it cannot fall behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::hints;
use crate::schema::{Shape, shape};

/// What stands before the tables.
const OPENING: &str = include_str!("reference_page.md");

/// Maps in the order of the page: the title, and the definition it shows.
const SECTIONS: &[(&str, &str)] = &[
    ("Top level", ""),
    ("`defaults`", "Defaults"),
    ("`sources.<name>`", "Source"),
    ("`kafka`", "Kafka"),
    ("`kafka.sasl`", "Sasl"),
    ("`tls` as a map", "TlsFiles"),
    ("`rabbitmq`", "Rabbitmq"),
    ("`rabbitmq.declare`", "Declare"),
    ("`sqs`", "Sqs"),
    ("`s3`", "S3Inline"),
    ("`schedule`", "Schedule"),
    ("`webhook`", "Webhook"),
    ("`webhook.verify.hmac`", "Hmac"),
    ("`topic`", "Topic"),
    ("`dedup` as a map", "DedupKey"),
    ("`functions.<name>`", "Function"),
    ("`functions.<name>.warm` as a map", "Warm"),
    ("`functions.<name>.request`", "Request"),
    ("`functions.<name>.request.auth`", "Auth"),
    ("Entries of `events`", "Event"),
    ("`batch` as a map", "Batch"),
    ("`debounce` as a map", "Debounce"),
    ("`retry`", "Retry"),
    ("`on_success`, `on_failure`", "Sending"),
    ("`destinations.<name>`", "Destination"),
    ("`kafka` as a destination", "KafkaOut"),
    ("`rabbitmq` as a destination", "RabbitmqOut"),
    ("`sqs` as a destination", "Queue"),
    ("`ledger` as a map", "Ledger"),
    ("`listen`", "Listen"),
    ("`limits`", "Limits"),
    ("`security`", "Security"),
    ("`security.tokens.<name>`", "Token"),
    ("`telemetry`", "Telemetry"),
];

/// The reference page as Markdown.
pub fn reference_page() -> String {
    let shape = shape();
    let mut out = OPENING.to_owned();
    for (title, definition) in SECTIONS {
        let schema = match *definition {
            "" => Some(&shape.schema),
            name => shape.schema.pointer(&format!("/$defs/{name}")),
        };
        let Some(schema) = schema else { continue };
        let _ = writeln!(out, "\n## {title}\n");
        if let Some(text) = schema.get("description").and_then(Value::as_str) {
            let _ = writeln!(out, "{}\n", line(text));
        }
        table(&mut out, schema, shape);
    }
    later(&mut out);
    out
}

fn table(out: &mut String, schema: &Value, shape: &Shape) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: BTreeSet<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
    let mut keys: Vec<&String> = properties.keys().collect();
    keys.sort_by_key(|key| (!required.contains(key.as_str()), key.as_str()));
    for key in keys {
        let property = &properties[key];
        let default = match property.get("default") {
            _ if required.contains(key.as_str()) => "required".to_owned(),
            None => "–".to_owned(),
            Some(Value::String(text)) if text.is_empty() => "empty".to_owned(),
            Some(Value::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
        };
        let meaning = property.get("description").and_then(Value::as_str).map(line).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{key}` | {} | {default} | {meaning} |",
            value(property, shape).replace('|', "\\|")
        );
    }
}

/// What may stand behind a key, in few words.
fn value(schema: &Value, shape: &Shape) -> String {
    let (schema, name) = shape.resolve(schema);
    if let Some(words) = crate::schema::words(schema) {
        return words;
    }
    if schema.get("x-many").is_some()
        && let Some(one) = schema.pointer("/anyOf/0")
    {
        return format!("{}; one or a list", value(one, shape));
    }
    if let Some(alternatives) = schema.get("anyOf").and_then(Value::as_array) {
        return alternatives.iter().map(|a| value(a, shape)).collect::<Vec<_>>().join(", or ");
    }
    if let Some(keyed) = schema.get("patternProperties").and_then(Value::as_object)
        && schema.get("properties").is_none()
    {
        let inner = keyed.values().next().map(|v| value(v, shape)).unwrap_or_default();
        return format!("by name: {inner}");
    }
    if let Some(items) = schema.get("items") {
        return format!("a list: {}", value(items, shape));
    }
    match (name, schema.get("minimum"), schema.get("maximum")) {
        (_, Some(low), Some(high)) if low == high => format!("`{low}`"),
        (_, Some(low), Some(high)) => format!("a number from {low} to {high}"),
        _ => shape.noun(schema),
    }
}

fn later(out: &mut String) {
    out.push_str(
        "\n## Not supported yet\n\nThese keys belong to later releases and are refused until then:\n\n",
    );
    for (definition, key) in hints::later_keys() {
        let place = SECTIONS.iter().find(|(_, d)| *d == definition).map_or("Top level", |(title, _)| *title);
        let _ = writeln!(out, "- `{key}` ({})", place.to_lowercase());
    }
    out.push_str(
        "\nSo are `isolation: required`, certificates under `listen.tls`, and `input` as JSONata.\n",
    );
}

fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

//! Defaults into the tree: first `defaults:` of the file, then those of the schema. After this every key that
//! has a default is there, so that the lowering and `--expand` see the same.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lower::brokers::is_fifo;
use crate::lower::ledger::{POSTGRES_LANES, is_postgres};
use crate::schema::Shape;
use crate::tree::{Entry, Kind, Node};

/// Most functions, entries, sources and destinations of one file together; ten times what a large service has.
pub(crate) const MAX_PARTS: usize = 10_000;

/// What the defaults may unfold to, in values: as [`crate::MAX_WEIGHT`], for the other way to write a bomb.
const MAX_MERGED: usize = 200_000;

/// Whether the parts, and the defaults in each of them, stay within bounds.
///
/// # Errors
/// The message to show at `functions`.
pub(crate) fn bounded(root: &Node) -> Result<(), String> {
    let functions = root.get("functions").map(Node::entries).unwrap_or_default();
    let events: usize = functions.iter().filter_map(|f| f.value.get("events")).map(|e| e.items().len()).sum();
    let named = |key: &str| root.get(key).map_or(0, |s| s.entries().len());
    if functions.len() + events + named("sources") + named("destinations") > MAX_PARTS {
        return Err(format!("more than {MAX_PARTS} functions, events, sources and destinations in one file"));
    }
    let size = |key: &str| root.get("defaults").and_then(|d| d.get(key)).map_or(0, Node::count);
    if size("function") * functions.len() + size("event") * events > MAX_MERGED {
        return Err("`defaults` unfold to too much here: write the parts out".into());
    }
    Ok(())
}

/// Merges the file's `defaults:` into its functions and their events, and takes them out.
pub(crate) fn merge(root: &mut Node) {
    let Kind::Map(top) = &mut root.kind else { return };
    let Some(index) = top.iter().position(|e| e.key == "defaults") else { return };
    let defaults = top.remove(index).value;
    let Some(Kind::Map(functions)) = root.get_mut("functions").map(|n| &mut n.kind) else { return };
    for function in functions {
        if let Some(given) = defaults.get("function") {
            merge_function(&mut function.value, given);
        }
        let Some(Kind::List(events)) = function.value.get_mut("events").map(|n| &mut n.kind) else {
            continue;
        };
        for event in events {
            for entry in defaults.get("event").map(Node::entries).unwrap_or_default() {
                // An entry with a constant input is delivered one by one.
                if entry.key != "batch" || event.get("input").is_none() {
                    add(event, entry);
                }
            }
        }
    }
}

fn merge_function(function: &mut Node, given: &Node) {
    for entry in given.entries() {
        match entry.key.as_str() {
            // A default cannot make a function impossible: it holds for those that it can hold for.
            "runtime" if function.get("handler").is_none() => {}
            "request" if function.get("url").is_none() => {}
            "environment" if function.get("environment").is_some() => {
                if let Some(Kind::Map(own)) = function.get_mut("environment").map(|n| &mut n.kind) {
                    let names: BTreeSet<String> = own.iter().map(|e| e.key.clone()).collect();
                    own.extend(entry.value.entries().iter().filter(|e| !names.contains(&e.key)).cloned());
                }
            }
            _ => add(function, entry),
        }
    }
}

fn add(to: &mut Node, entry: &Entry) {
    if let Kind::Map(entries) = &mut to.kind
        && !entries.iter().any(|e| e.key == entry.key)
    {
        entries.push(entry.clone());
    }
}

/// Writes short forms out and fills in every default of the schema.
pub(crate) fn fill(root: &mut Node, shape: &Shape) {
    let sources = root.get("sources").cloned();
    if let Some(Kind::Map(functions)) = root.get_mut("functions").map(|n| &mut n.kind) {
        for function in functions {
            fill_by_target(&mut function.value);
            if let Some(Kind::List(events)) = function.value.get_mut("events").map(|n| &mut n.kind) {
                events.iter_mut().for_each(|event| fill_by_source(event, sources.as_ref()));
            }
        }
    }
    node(root, &shape.schema, shape);
    if let Some(ledger) = root.get_mut("ledger") {
        fill_by_url(ledger);
    }
}

/// The default that depends on where the ledger is.
fn fill_by_url(ledger: &mut Node) {
    let url = ledger.get("url").and_then(Node::scalar).and_then(|s| s.value.as_str().map(str::to_owned));
    let lanes = if url.is_some_and(|url| is_postgres(&url)) { POSTGRES_LANES } else { 1 };
    let at = ledger.at;
    add(ledger, &Entry { key: "lanes".into(), at, value: Node::made(&Value::from(lanes), at) });
}

/// The defaults that depend on what a function is.
fn fill_by_target(function: &mut Node) {
    let url = function.get("url").is_some();
    let (concurrency, format) = if url { (50, "cloudevents") } else { (10, "lambda") };
    let at = function.at;
    for (key, value) in [("concurrency", Value::from(concurrency)), ("format", Value::from(format))] {
        add(function, &Entry { key: key.into(), at, value: Node::made(&value, at) });
    }
}

/// The defaults that depend on where an entry's events come from.
fn fill_by_source(event: &mut Node, sources: Option<&Node>) {
    let named = event.get("source").and_then(Node::text).and_then(|name| sources?.get(name));
    let (size, ordered) = by_kind(named.unwrap_or(event));
    let size = if event.get("input").is_some() { 1 } else { size };
    let at = event.at;
    let entry = |key: &str, value: Value| Entry { key: key.into(), at, value: Node::made(&value, at) };
    match event.get_mut("batch") {
        Some(batch) => add(batch, &entry("size", Value::from(size))),
        None => add(event, &entry("batch", serde_json::json!({ "size": size }))),
    }
    add(event, &entry("ordering", Value::from(if ordered { "key" } else { "none" })));
}

/// The size of a batch, and whether there is an order, for the kind key of a source or of an entry.
fn by_kind(source: &Node) -> (u32, bool) {
    let keyed = |spec: &Node| spec.get("key").and_then(Node::text) != Some("none");
    if let Some(spec) = source.get("kafka") {
        return (100, keyed(spec));
    }
    if let Some(spec) = source.get("sqs") {
        let queue = spec.text().or_else(|| spec.get("queue").and_then(Node::text));
        return (10, queue.is_some_and(is_fifo) && keyed(spec));
    }
    (if source.get("rabbitmq").is_some() { 100 } else { 1 }, false)
}

fn node(node_: &mut Node, schema: &Value, shape: &Shape) {
    let (schema, _) = shape.resolve(schema);
    if schema.get("x-many").is_some() && !matches!(node_.kind, Kind::List(_)) {
        let at = node_.at;
        let one = std::mem::replace(node_, Node { at, index: 0, kind: Kind::List(Vec::new()) });
        node_.kind = Kind::List(vec![one]);
    }
    if let Some(key) = schema.get("x-short").and_then(Value::as_str)
        && matches!(node_.kind, Kind::Scalar(_))
    {
        let at = node_.at;
        let value = std::mem::replace(node_, Node { at, index: 0, kind: Kind::Map(Vec::new()) });
        node_.kind = Kind::Map(vec![Entry { key: key.into(), at, value }]);
    }
    let chosen = match schema.get("anyOf").and_then(Value::as_array) {
        None => Some(schema),
        Some(alternatives) => alternatives.iter().map(|a| shape.resolve(a).0).find(|s| takes(s, node_)),
    };
    let Some(schema) = chosen else { return };
    match &mut node_.kind {
        Kind::Scalar(_) => {}
        Kind::List(items) => {
            if let Some(item) = schema.get("items") {
                items.iter_mut().for_each(|n| node(n, item, shape));
            }
        }
        Kind::Map(_) => fill_map(node_, schema, shape),
    }
}

fn fill_map(map: &mut Node, schema: &Value, shape: &Shape) {
    let at = map.at;
    let Kind::Map(entries) = &mut map.kind else { return };
    let properties = schema.get("properties").and_then(Value::as_object);
    for (key, property) in properties.into_iter().flatten() {
        if let Some(default) = property.get("default")
            && !entries.iter().any(|e| e.key == *key)
        {
            entries.push(Entry { key: key.clone(), at, value: Node::made(default, at) });
        }
    }
    let keyed = schema.get("patternProperties").and_then(Value::as_object);
    for entry in entries {
        let rule =
            properties.and_then(|p| p.get(&entry.key)).or_else(|| keyed.and_then(|k| k.values().next()));
        if let Some(rule) = rule {
            node(&mut entry.value, rule, shape);
        }
    }
}

fn takes(schema: &Value, node: &Node) -> bool {
    let kind = match node.kind {
        Kind::Scalar(_) => {
            return !matches!(schema.get("type").and_then(Value::as_str), Some("array" | "object"));
        }
        Kind::List(_) => "array",
        Kind::Map(_) => "object",
    };
    schema.get("type").is_none_or(|t| t == kind)
}

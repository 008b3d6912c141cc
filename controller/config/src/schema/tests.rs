//! The published schema and the check must agree on every file of `examples` and `tests/bad`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use regex_lite::Regex;
use serde_json::{Value, json};

use super::{json_schema, shape};
use crate::context::{Context, Env, FileText};
use crate::diagnostic::{Code, Severity, SourceText};
use crate::tree::{Kind, Node};
use crate::{Mode, check, yaml};

/// Every variable is `7`, but for queues, which have a form, and `UNSET`; every file says `7`.
struct Seven;

impl Env for Seven {
    fn var(&self, name: &str) -> Option<String> {
        match name {
            "UNSET" => None,
            name if name.ends_with("QUEUE_URL") => Some("https://sqs/7".into()),
            _ => Some("7".into()),
        }
    }

    fn read_file(&self, _: &Path) -> io::Result<FileText> {
        Ok(FileText { bytes: b"7".to_vec(), others_can_read: false })
    }

    fn is_file(&self, _: &Path) -> bool {
        true
    }

    fn is_folder(&self, _: &Path) -> bool {
        true
    }
}

fn context(text: &str) -> Context<'static> {
    Context {
        file: "t".into(),
        base: PathBuf::from("/t"),
        mode: Mode::Dev,
        env: &Seven,
        text: SourceText::new("t", text),
        found: Vec::new(),
        read: BTreeSet::new(),
        dropped: BTreeSet::new(),
        hidden: BTreeSet::new(),
        spilled: (0, None),
    }
}

/// The schema words that are used, and no others.
fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema != &Value::Bool(false) };
    schema.iter().all(|(word, rule)| match word.as_str() {
        "$ref" => {
            let name = rule.as_str().unwrap().strip_prefix("#").unwrap();
            valid(value, root.pointer(name).unwrap(), root)
        }
        "type" => rule.as_array().map_or_else(|| is(value, rule), |types| types.iter().any(|t| is(value, t))),
        "enum" => rule.as_array().unwrap().contains(value),
        "pattern" => {
            value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text))
        }
        "minLength" => {
            value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap())
        }
        "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
        "minimum" => value.as_i64().is_none_or(|n| n >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|n| n <= rule.as_i64().unwrap()),
        "anyOf" => rule.as_array().unwrap().iter().any(|s| valid(value, s, root)),
        "oneOf" => rule.as_array().unwrap().iter().filter(|s| valid(value, s, root)).count() == 1,
        "not" => !valid(value, rule, root),
        "items" => value.as_array().is_none_or(|items| items.iter().all(|i| valid(i, rule, root))),
        "required" => value
            .as_object()
            .is_none_or(|map| rule.as_array().unwrap().iter().all(|k| map.contains_key(k.as_str().unwrap()))),
        "properties" => value.as_object().is_none_or(|map| {
            rule.as_object().unwrap().iter().all(|(k, s)| map.get(k).is_none_or(|v| valid(v, s, root)))
        }),
        "patternProperties" => value.as_object().is_none_or(|map| {
            rule.as_object().unwrap().iter().all(|(pattern, s)| {
                let pattern = Regex::new(pattern).unwrap();
                map.iter().filter(|(k, _)| pattern.is_match(k)).all(|(_, v)| valid(v, s, root))
            })
        }),
        "additionalProperties" => value.as_object().is_none_or(|map| {
            let named = schema.get("properties").and_then(Value::as_object);
            let patterns: Vec<Regex> = schema
                .get("patternProperties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(pattern, _)| Regex::new(pattern).unwrap())
                .collect();
            map.iter()
                .filter(|(k, _)| {
                    named.is_none_or(|n| !n.contains_key(*k)) && !patterns.iter().any(|p| p.is_match(k))
                })
                .all(|(_, v)| valid(v, rule, root))
        }),
        "description" | "title" | "default" | "examples" | "$defs" | "$schema" => true,
        other => panic!("the validator of this test does not know `{other}`"),
    })
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("unknown type {other}"),
    }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

#[test]
fn the_schema_accepts_what_the_check_accepts() {
    let schema = json_schema();
    let mut judged = 0;
    for path in [files("examples"), files("tests/bad")].concat() {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut cx = context(&text);
        let Some(mut root) = yaml::read(&text, &mut cx) else { continue };
        if cx.failed() || !matches!(root.kind, Kind::Map(_)) {
            continue;
        }
        let json = root.to_json();
        check::check(&mut root, shape(), &mut cx);
        // References are judged by what they stand for, which a schema cannot know.
        let wrong: Vec<_> = cx
            .found
            .iter()
            .filter(|d| {
                d.severity == Severity::Error && !matches!(d.code, Code::BadReference | Code::LiteralSecret)
            })
            .map(|d| &d.message)
            .collect();
        judged += 1;
        assert_eq!(valid(&json, &schema, &schema), wrong.is_empty(), "{}: {wrong:?}", path.display());
    }
    assert!(judged > 25, "only {judged} files");
}

#[test]
fn the_schema_is_closed_and_described() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let text = schema.to_string();
    assert!(!text.contains("\"x-"), "private words are cut");
    let defs = schema["$defs"].as_object().unwrap();
    for (name, def) in defs.iter().chain([(&"top".to_owned(), &schema)]) {
        assert!(def["description"].is_string() || def.get("enum").is_some(), "{name} has no description");
        for (key, property) in def["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{key} has no description");
            let default = property.get("default").cloned();
            if let Some(default) = default.filter(|d| d != &json!([])) {
                assert!(valid(&default, property, &schema), "{name}.{key}: its default {default} is wrong");
            }
        }
    }
    assert_eq!(defs["Duration"]["anyOf"][1], json!({ "$ref": "#/$defs/Reference" }));
    assert_eq!(defs["Function"]["properties"]["timeout"]["default"], "30s");
}

#[test]
fn references_stand_in_for_values_with_a_rule() {
    let schema = json_schema();
    let file = |concurrency: Value| json!({ "service": "${env:S}", "functions": { "f": { "url": "https://a/", "concurrency": concurrency } } });
    for (value, right) in
        [(json!(3), true), (json!("${env:N}"), true), (json!("3"), false), (json!(null), false)]
    {
        assert_eq!(valid(&file(value.clone()), &schema, &schema), right, "{value}");
    }
}

#[test]
fn made_values_have_the_place_of_their_owner() {
    let node = Node::made(&json!({ "a": [1] }), crate::tree::Pos::new(3, 4, 5));
    assert_eq!(node.get("a").unwrap().items()[0].at.line, 3);
}

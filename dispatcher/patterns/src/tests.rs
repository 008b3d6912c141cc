//! What the crate promises, from outside: the shared corpus, the sentences of an explanation, and properties.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::conformance::{Verdict, group, judge};
use crate::{Pattern, PatternSet, Reason};

fn pattern(value: Value) -> Pattern {
    Pattern::from_value(&value).unwrap()
}

fn corpus() -> Option<String> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/conformance");
    let folder = std::env::var_os("CONFORMANCE_DIR").map_or(default, PathBuf::from);
    match std::fs::read_to_string(folder.join("event-patterns.jsonl")) {
        Ok(text) => Some(text),
        Err(error) => {
            let required = std::env::var_os("CONFORMANCE_REQUIRED").is_some_and(|v| v == "1");
            assert!(!required, "the corpus is required but cannot be read in {}: {error}", folder.display());
            println!("skipped: no corpus in {} ({error}); set CONFORMANCE_DIR", folder.display());
            None
        }
    }
}

#[test]
fn answers_as_aws_and_event_ruler_do() {
    let Some(text) = corpus() else { return };
    let mut groups: BTreeMap<String, (u32, u32)> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line).unwrap();
        let (passed, judged) = groups.entry(group(&case)).or_default();
        match judge(&case) {
            Verdict::Skipped { .. } => continue,
            Verdict::Passed => *passed += 1,
            Verdict::Failed { expected, actual } => {
                println!("{}: expected {expected}, got {actual}", case["name"]);
            }
        }
        *judged += 1;
    }
    for (group, floor) in [("aws", 100.0), ("ruler", 99.0), ("ruler-validity", 99.0)] {
        let (passed, judged) = groups.get(group).copied().unwrap_or_default();
        let rate = 100.0 * f64::from(passed) / f64::from(judged.max(1));
        println!("{group}: {passed} of {judged} ({rate:.1} %)");
        assert!(rate >= floor, "{group} fell to {rate:.1} %, the floor is {floor} %");
    }
}

#[test]
fn explanations_name_the_first_clause_that_said_no() {
    let event = json!({"subject": "cat.jpg", "data": {"status": "NEW", "tags": ["a", "b"], "box": {"w": 1}, "none": []}});
    for (filter, sentence) in [
        (json!({"data": {"status": ["PAID"]}}), r#"data.status is "NEW", wanted one of ["PAID"]"#),
        (json!({"subject": [{"prefix": "raw/"}]}), r#"subject "cat.jpg" does not match {"prefix": "raw/"}"#),
        (json!({"data": {"total": [{"exists": true}]}}), r#"data.total is absent, wanted {"exists": true}"#),
        (json!({"data": {"total": [1, 2]}}), r#"data.total is absent, wanted one of [1, 2]"#),
        (json!({"data": {"tags": ["c"]}}), r#"data.tags is ["a", "b"], wanted one of ["c"]"#),
        (
            json!({"data": {"status": [{"exists": false}]}}),
            r#"data.status "NEW" does not match {"exists": false}"#,
        ),
        (json!({"data": {"box": [{"exists": true}]}}), r#"data.box is an object, wanted {"exists": true}"#),
        (
            json!({"data": {"none": [{"exists": true}]}}),
            r#"data.none is an empty array, wanted {"exists": true}"#,
        ),
        (
            json!({"subject": ["cat.jpg"], "data": {"$or": [{"status": ["A"]}, {"tags": ["c"]}]}}),
            "data.$or has 2 alternatives and none matched",
        ),
    ] {
        assert_eq!(pattern(filter).explain(&event).unwrap().to_string(), sentence);
    }
    let text = pattern(json!({"a": [1]})).explain(&json!([])).unwrap().to_string();
    assert_eq!(text, "the event is not a JSON object, wanted one");
}

#[test]
fn an_explanation_tells_when_values_stand_in_different_elements() {
    let people = pattern(json!({"p": {"first": ["Ann"], "last": ["Lee"]}}));
    let event = json!({"p": [{"first": "Ann", "last": "Ray"}, {"first": "Bob", "last": "Lee"}]});
    let why = people.explain(&event).unwrap();
    assert_eq!((why.path.as_str(), why.reason), ("p.last", Reason::OtherElement));
    assert_eq!(why.actual, Some(json!(["Ray", "Lee"])));
    assert!(people.matches(&json!({"p": [{"first": "Bob"}, {"first": "Ann", "last": "Lee"}]})));
}

#[test]
fn a_set_explains_the_alternative_that_got_furthest() {
    let set = PatternSet::from_value(&json!([{"a": [1], "b": [1]}, {"a": [2], "b": [1]}])).unwrap();
    let event = json!({"a": 2, "b": 2});
    assert_eq!(set.explain(&event).unwrap().to_string(), "b is 2, wanted one of [1]");
    assert!(set.matches(&json!({"a": 2, "b": 1})));
    assert!(PatternSet::default().matches(&json!(3)));
    assert_eq!(PatternSet::default().explain(&json!(3)), None);
    let text = PatternSet::parse(r#"[{"a": [1]}, {"a": [2], "b": [1]}]"#).unwrap();
    assert!(text.matches_text(r#"{"a": 1}"#) && !text.matches_text(r#"{"a": 2}"#) && !text.matches_text("{"));
    let error = PatternSet::from_value(&json!([{"a": [1]}, {"b": 1}])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "filter pattern at /1/b: \"b\" must be an object or a list of rules; write [1]"
    );
}

#[test]
fn refusals_point_at_the_place() {
    for (text, pointer) in [
        (r#"{"a": [{"prefix": 1}]}"#, "/a/0/prefix"),
        (r#"{"a": {"b/c": [1, {"numeric": [">", true]}]}}"#, "/a/b~1c/1/numeric/1"),
        (r#"{"a": [{"anything-but": ["x", null]}]}"#, "/a/0/anything-but/1"),
        (r#"{"$or": [{"a": [1]}, {"prefix": [1]}]}"#, "/$or/1/prefix"),
        (r#"{"a": [1], "$or": [{"a": [1]}, {"b": [1]}]}"#, "/$or/0/a"),
        (r#"{"a": {"b": [1]}, "a.b": [1]}"#, "/a.b"),
        (r#"{"a": []}"#, "/a"),
        (r#"{"a": [1]"#, ""),
        ("[]", ""),
    ] {
        assert_eq!(Pattern::parse(text).unwrap_err().pointer, pointer, "{text}");
    }
}

#[test]
fn a_repeated_key_counts_the_last_time() {
    let last = Pattern::parse(r#"{"a": ["x"], "a": ["y"]}"#).unwrap();
    assert!(last.matches_text(r#"{"a": "y"}"#));
    assert!(!last.matches_text(r#"{"a": "x"}"#));
    assert!(!last.matches_text(r#"{"a": "y", "a": "x"}"#));
}

#[test]
fn text_tells_numbers_apart_that_a_double_would_round() {
    let id = Pattern::parse(r#"{"id": [9007199254740993]}"#).unwrap();
    assert!(id.matches_text(r#"{"id": 9007199254740993}"#));
    assert!(!id.matches_text(r#"{"id": 9007199254740992}"#));
    assert!(id.matches(&json!({"id": 9_007_199_254_740_993_u64})));
}

#[test]
fn hostile_input_is_answered_quickly() {
    let deep = "[".repeat(100_000);
    assert!(Pattern::parse(&format!("{{\"a\":{deep}")).is_err());
    assert!(!pattern(json!({"a": [1]})).matches_text(&format!("{{\"a\":{deep}")));

    let tens = (0..10).map(|i| json!({format!("f{i}"): [1]})).collect::<Vec<_>>();
    let ors = (0..10).fold(json!({"x": [1]}), |inner, i| json!({"$or": tens, format!("n{i}"): inner}));
    assert!(Pattern::from_value(&ors).is_err());

    let stars = pattern(json!({"a": [{"wildcard": "*a*a*a*b"}]}));
    assert!(!stars.matches(&json!({"a": "a".repeat(1_000_000)})));

    // Eight independent arrays of 5,000 elements, and a last clause that fails: 5,000^8 combinations.
    let rows: Vec<Value> = (0..5_000).map(|i| json!({"x": i, "y": i})).collect();
    let mut event = serde_json::Map::new();
    let mut filter = serde_json::Map::new();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        event.insert(name.to_owned(), Value::Array(rows.clone()));
        filter.insert(name.to_owned(), json!({"x": [{"exists": true}], "y": [{"exists": true}]}));
    }
    filter.insert("z".to_owned(), json!({"x": ["no"], "y": [{"exists": false}]}));
    event.insert("z".to_owned(), json!([{"x": "no", "y": 1}]));
    let why = pattern(Value::Object(filter)).explain(&Value::Object(event)).unwrap();
    assert_eq!(why.path, "z.y");
}

#[test]
fn one_path_spelled_in_many_ways_is_bounded() {
    let clauses: serde_json::Map<_, _> =
        ('a'..='f').map(|c| (format!("k.k.k.k.k.k.{c}"), json!([1]))).collect();
    let row: serde_json::Map<_, _> = ('a'..='f').map(|c| (c.to_string(), json!(1))).collect();
    let mut event = serde_json::Map::new();
    for split in 1..=6 {
        let (outer, inner) = (vec!["k"; split].join("."), vec!["k"; 6 - split].join("."));
        let rows = Value::Array(vec![Value::Object(row.clone()); 60]);
        let value = if inner.is_empty() { rows } else { json!({ inner: rows }) };
        event.insert(outer, value);
    }
    let why = pattern(Value::Object(clauses)).explain(&Value::Object(event)).unwrap();
    assert_eq!(why.reason, Reason::TooTangled);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        "[ab*\\\\.:0-9]{0,6}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[ab](\\.[ab])?", inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_rule() -> impl Strategy<Value = Value> {
    prop_oneof![
        any_json(),
        Just(json!({"exists": true})),
        Just(json!({"exists": false})),
        "[ab*0-9.]{0,4}".prop_map(|s| json!({"wildcard": s})),
        "[ab]{0,2}".prop_map(|s| json!({"prefix": s})),
        "[ab]{1,2}".prop_map(|s| json!({"anything-but": {"suffix": [s]}})),
        "[abAB]{0,2}".prop_map(|s| json!({"suffix": {"equals-ignore-case": s}})),
        (-2i64..3).prop_map(|n| json!({"numeric": [">=", n]})),
        (-2i64..3).prop_map(|n| json!({"anything-but": n})),
    ]
}

fn any_pattern() -> impl Strategy<Value = Value> {
    let clause = ("[ab](\\.[ab])?", prop::collection::vec(any_rule(), 0..3).prop_map(Value::from));
    let object = prop::collection::vec(clause, 1..4).prop_map(|m| Value::Object(m.into_iter().collect()));
    object.prop_recursive(3, 20, 3, |inner| {
        prop_oneof![
            ("[ab]", inner.clone()).prop_map(|(key, value)| json!({ key: value })),
            prop::collection::vec(inner, 2..4).prop_map(|alternatives| json!({"$or": alternatives})),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn explains_exactly_what_does_not_match(filter in any_pattern(), event in any_json()) {
        if let Ok(pattern) = Pattern::from_value(&filter) {
            let why = pattern.explain(&event);
            prop_assert_eq!(pattern.matches(&event), why.is_none());
            if let Some(why) = why {
                prop_assert!(!why.to_string().is_empty());
                prop_assert_eq!(&why.to_value()["path"], &json!(why.path));
            }
        }
    }

    #[test]
    fn text_and_value_agree(filter in any_pattern(), event in any_json()) {
        if let Ok(pattern) = Pattern::from_value(&filter) {
            prop_assert_eq!(pattern.matches(&event), pattern.matches_text(&event.to_string()));
        }
    }

    #[test]
    fn printing_reads_back_as_the_same(filter in any_pattern()) {
        if let Ok(pattern) = Pattern::from_value(&filter) {
            let again = Pattern::parse(&pattern.to_string()).unwrap();
            prop_assert_eq!(&again, &pattern);
            prop_assert_eq!(again.to_string(), pattern.to_string());
        }
    }

    #[test]
    fn no_text_panics(filter in any::<String>(), wildcard in "[*\\\\ab\u{e9}]{0,12}", event in any_json()) {
        let _read = Pattern::parse(&filter);
        if let Ok(pattern) = Pattern::from_value(&json!({"a": [{"wildcard": wildcard}]})) {
            pattern.matches(&event);
        }
    }

    #[test]
    fn a_set_accepts_what_any_pattern_accepts(filters in prop::collection::vec(any_pattern(), 1..4), event in any_json()) {
        if let Ok(set) = PatternSet::from_value(&Value::from(filters)) {
            let any = set.patterns().iter().any(|pattern| pattern.matches(&event));
            prop_assert_eq!(set.matches(&event), any);
            prop_assert_eq!(set.explain(&event).is_none(), any);
        }
    }
}

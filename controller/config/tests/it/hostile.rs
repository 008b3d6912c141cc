//! Files that want to hurt.

use std::time::{Duration, Instant};

use bellwire_config::Mode;
use proptest::prelude::*;

use crate::world::World;

/// Generous for a busy machine; each of these takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn refused(text: &str) -> String {
    let started = Instant::now();
    let report = World::usual().parse(text, Mode::Run).expect_err("it is refused");
    let said = report.render(false);
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    assert!(said.len() < 200_000, "the report has {} bytes", said.len());
    said
}

#[test]
fn depth_is_bounded() {
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let said = refused(&format!("service: {}{}", open.repeat(10_000), close.repeat(10_000)));
        assert!(said.contains("nested deeper") || said.contains("not YAML"), "{said}");
    }
    assert!(refused(&"- ".repeat(10_000)).contains("nested deeper than 64 levels"));
    let stairs: String = (0..900).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(refused(&stairs).contains("nested deeper than 64 levels"));
}

#[test]
fn aliases_cannot_explode() {
    let mut text = String::from("service: a\nx-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for i in 1..12 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        text.push_str(&format!("x-{i}: &a{i} [{refs}]\n"));
    }
    assert!(refused(&text).contains("aliases unfold to more than 8 MB"));
    let long =
        format!("service: a\nx-a: &a {}\nx-b: [{}]\n", "y".repeat(100_000), vec!["*a"; 1_000].join(", "));
    assert!(refused(&long).contains("aliases unfold to more than 8 MB"));
    let chain: String = (1..100).map(|i| format!("x-{i}: &b{i} [*b{}]\n", i - 1)).collect();
    assert!(refused(&format!("service: a\nx-0: &b0 []\n{chain}")).contains("aliases nest deeper"));
}

#[test]
fn size_is_bounded() {
    assert!(refused(&"#".repeat(10 << 20)).contains("larger than 1 MB"));
}

#[test]
fn many_mistakes_make_a_short_report() {
    let keys: String = (0..20_000).map(|i| format!("k{i}: 1\n")).collect();
    let said = refused(&keys);
    assert!(said.contains("more like these"), "{}", &said[said.len() - 300..]);
    let line: String = (0..20_000).map(|i| format!("k{i}: {{}}, ")).collect();
    refused(&format!("{{ {line} }}"));
    let same = "a: 1\n".repeat(20_000);
    refused(&same);
    let events: String = (0..3_000).map(|i| format!("      - topic: \"{i} {i}\"\n")).collect();
    refused(&format!("service: a\nfunctions:\n  f:\n    command: x\n    events:\n{events}"));
}

#[test]
fn large_files_are_read_soon() {
    let started = Instant::now();
    let events: String = (0..4_000).map(|i| format!("      - topic: t{i}\n")).collect();
    let environment: String = (0..20_000).map(|i| format!("      V{i}: \"${{env:COUNT}}\"\n")).collect();
    let functions: String = (0..4_000).map(|i| format!("  f{i}: {{ command: x }}\n")).collect();
    let text = format!(
        "service: a\nfunctions:\n{functions}  f:\n    command: x\n    environment:\n{environment}    events:\n{events}"
    );
    let loaded = World::usual().parse(&text, Mode::Run).unwrap_or_else(|r| panic!("{r}"));
    assert_eq!(loaded.services[0].bindings.len(), 4_000);
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
}

#[test]
fn defaults_cannot_explode() {
    let environment: String = (0..10_000).map(|i| format!("      V{i}: x\n")).collect();
    let functions: String = (0..9_000).map(|i| format!("  f{i}: {{ command: x }}\n")).collect();
    let text =
        format!("service: a\ndefaults:\n  function:\n    environment:\n{environment}functions:\n{functions}");
    assert!(refused(&text).contains("`defaults` unfold to too much"));
    let many: String = (0..12_000).map(|i| format!("  f{i}: {{ command: x }}\n")).collect();
    assert!(refused(&format!("service: a\nfunctions:\n{many}")).contains("more than 10000 functions"));
    let secrets: String = (0..8_000).map(|i| format!("t{i}: {{ role: read, secret: aaaaaaaa }}, ")).collect();
    refused(&format!("service: a\nsecurity: {{ tokens: {{ {secrets} }} }}"));
}

fn yamlish() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("service: a\n"),
        Just("functions:\n"),
        Just("  f:\n"),
        Just("    handler: hello.handler\n"),
        Just("    events:\n"),
        Just("      - topic: a\n"),
        Just("        filter: "),
        Just("        retry: "),
        Just("      - s3: "),
        Just("sources: "),
        Just("defaults: "),
        Just("ledger: "),
        Just("listen: "),
        Just("{ "),
        Just(" }"),
        Just("[ "),
        Just(" ]"),
        Just("bucket: x"),
        Just(", "),
        Just("*a "),
        Just("&a "),
        Just("${env:TOKEN}"),
        Just("${env:COUNT, 'x'}"),
        Just("${file:secrets/own}"),
        Just("${"),
        Just("'"),
        Just("\""),
        Just("|\n"),
        Just("- "),
        Just("? "),
        Just(": "),
        Just("\n"),
        Just("\t"),
        Just("é\u{2028}"),
        Just("null"),
        Just("9"),
        Just("30s"),
        Just("<<: "),
        Just("---\n"),
        Just("!!str "),
        Just("attempts: 3"),
        Just("event: "),
        Just("schedule: rate(1 minute)\n"),
        Just("webhook: { path: /a, verify: none }\n"),
        Just("\u{0}"),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in any::<String>()) {
        if let Err(report) = World::usual().parse(&text, Mode::Run) {
            prop_assert!(!report.render(true).is_empty());
        }
    }

    #[test]
    fn nothing_like_yaml_panics(text in yamlish(), dev in any::<bool>()) {
        match World::usual().parse(&text, if dev { Mode::Dev } else { Mode::Run }) {
            Ok(loaded) => drop(bellwire_config::expand(&loaded)),
            Err(report) => prop_assert!(report.errors() > 0),
        }
    }

    #[test]
    fn a_good_file_cut_anywhere_does_not_panic(at in 0usize..4_000, junk in "[ -~\n]{0,3}") {
        let good = std::fs::read_to_string("examples/everything.yaml").unwrap();
        let at = (0..=at.min(good.len())).rev().find(|i| good.is_char_boundary(*i)).unwrap_or(0);
        let _ = World::usual().parse(&format!("{}{junk}", &good[..at]), Mode::Run);
        let _ = World::usual().parse(&format!("{}{junk}{}", &good[..at], &good[at..]), Mode::Run);
    }
}

//! A run of `bellwire-bench sources` so short that its figures say nothing: what is checked are the keys that others read.

use std::process::Command;

use serde_json::Value;

/// Keys at the top of the JSON document; renaming one breaks whoever compares runs.
const KEYS: [&str; 11] = [
    "kafka_per_s",
    "kafka_bare_per_s",
    "kafka_ratio",
    "rabbitmq_per_s",
    "rabbitmq_bare_per_s",
    "rabbitmq_ratio",
    "sqs_per_s",
    "sqs_bare_per_s",
    "sqs_ratio",
    "ledger_per_s",
    "ledger_sqlite_per_s",
];

#[test]
fn the_json_document_has_the_stable_keys() {
    let output = Command::new(env!("CARGO_BIN_EXE_bellwire-bench"))
        .args(["sources", "--json", "--messages", "4000", "--rounds", "1", "--shared"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in KEYS {
        assert!(document[key].is_number(), "{key}: {document:#}");
    }
    assert_eq!(document["tables"]["sources"].as_array().map(Vec::len), Some(3));
}

//! A run of `bellwire-bench delivery` so short that its figures say nothing: what is checked are the keys that others read,
//! and that what must be exact is.

use std::process::Command;

use serde_json::Value;

/// Keys at the top of the JSON document; renaming one breaks whoever compares runs.
const KEYS: [&str; 18] = [
    "unordered_per_s",
    "ordered_1_key_per_s",
    "ordered_100_keys_per_s",
    "ordered_100000_keys_per_s",
    "unordered_single_per_s",
    "ordered_single_per_s",
    "parked_key_p99_ratio",
    "hanging_function_p99_ratio",
    "flooding_binding_p99_ratio",
    "flooding_shared_function_p99_ratio",
    "outage_backlog",
    "outage_calls",
    "outage_attempts_burnt",
    "recovery_first_call_s",
    "recovery_first_50ms_concurrency",
    "recovery_peak_concurrency",
    "recovery_limit",
    "recovery_drain_s",
];

#[test]
fn the_json_document_has_the_stable_keys() {
    let output = Command::new(env!("CARGO_BIN_EXE_bellwire-bench"))
        .args(["delivery", "--json", "--seconds", "0.3", "--outage", "3"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in KEYS {
        assert!(document[key].is_number(), "{key}: {document:#}");
    }
    let figure = |key: &str| document[key].as_f64().unwrap();
    assert!(figure("outage_attempts_burnt") <= 5.0, "{document:#}");
    assert!(figure("recovery_peak_concurrency") <= figure("recovery_limit"), "{document:#}");
}

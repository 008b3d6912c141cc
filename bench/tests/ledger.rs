//! A run of `bellwire-bench ledger` so short that its figures say nothing: what is checked are the keys that others read.

use std::process::Command;

use serde_json::Value;

/// Keys at the top of the JSON document; renaming one breaks whoever compares runs.
const KEYS: [&str; 11] = [
    "raw_append_per_s",
    "append_per_s",
    "append_ratio",
    "delivered_per_s",
    "snapshot_loss_pct",
    "wal_bytes_per_event",
    "pg_cpu_us_per_event",
    "commit_p50_ms",
    "bare_commit_p50_ms",
    "job_table_per_s",
    "sustained_append_per_s",
];

#[test]
fn the_json_document_has_the_stable_keys() {
    let output = Command::new(env!("CARGO_BIN_EXE_bellwire-bench"))
        .args(["ledger", "--json", "--seconds", "0.05", "--minutes", "0.01", "--case", "1x1,10x2"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in KEYS {
        assert!(document[key].is_number(), "{key}: {document:#}");
    }
    assert_eq!(document["tables"]["append"].as_array().map(Vec::len), Some(2));
    assert_eq!(document["settings"]["fsync"], "on");
}

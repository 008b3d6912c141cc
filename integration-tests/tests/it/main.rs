//! End to end: real controllers, real workers, real kills.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod bad_input;
mod batches;
mod brokers;
mod cli;
mod conformance;
mod crash;
mod deliveries;
mod handlers;
mod operations;
mod order;
mod orders;
mod outcomes;
mod postgres;
mod pressure;
mod shapes;

/// A Python handler that notes each call in `$TEST_DIR/notes` with one write of an append-only file, so that the
/// notes survive whatever happens to the controller.
pub const NOTING: &str = r#"
import json, os

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event, outcome):
    os.write(NOTES, f"{event['id']} {outcome}\n".encode())


def handler(event, context):
    data = event.get("data") or {}
    if data.get("poison"):
        note(event, "raised")
        raise ValueError("not today")
    if data.get("kill"):
        note(event, "killed")
        os.kill(os.getpid(), 9)
    note(event, "ok")
    return {"seen": event["id"]}
"#;

/// A service with one topic and the noting handler, tried again quickly.
pub fn noting_service(concurrency: u32) -> String {
    format!(
        "service: oracle
functions:
  note:
    handler: note.handler
    concurrency: {concurrency}
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\" }}
    events:
      - topic: work
        retry: {{ attempts: 3, min_delay: 10ms, max_delay: 50ms }}
"
    )
}

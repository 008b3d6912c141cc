//! What is owed is seen one by one, and given up by hand: retries, what waits behind a pause, what runs.

use bellwire_integration_tests::Stack;
use serde_json::{Value, json};

use crate::NOTING;

/// The noting handler, tried again after up to ten minutes; and one that takes a while.
const SLOW_RETRIES: &str = "service: owed
functions:
  note:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - topic: work
        retry: { attempts: 3, min_delay: 10m, max_delay: 10m }
  hang:
    handler: hang.handler
    events:
      - topic: work
        name: hanging
        filter: { data: { hang: [true] } }
";

const HANGING: &str = "
import time


def handler(event, context):
    time.sleep(20)
";

fn event(id: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).to_string()
}

async fn stack() -> Stack {
    let mut stack = Stack::new(SLOW_RETRIES, &[("note.py", NOTING), ("hang.py", HANGING)]).unwrap();
    stack.start(None).await.unwrap();
    stack
}

fn states(list: &Value) -> Vec<(String, String)> {
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().unwrap();
    let mut states: Vec<_> = items.iter().map(|i| (text(i, "binding"), text(i, "state"))).collect();
    states.sort();
    states
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_listed_and_cancelled() {
    let stack = stack().await;
    for id in ["p1", "p2"] {
        stack.publish("work", event(id, &json!({"poison": true}))).await.unwrap();
    }
    let owed = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 2);
    stack.until("/v1/deliveries?state=retrying", owed).await.unwrap();
    let list = stack.get("/v1/deliveries?address=1-1").await.unwrap();
    let one = &list["items"][0];
    assert_eq!((one["state"].as_str(), one["reason"].as_str()), (Some("retrying"), Some("retry")), "{list}");
    assert_eq!(
        (one["attempts"].as_u64(), one["error"]["type"].as_str()),
        (Some(1), Some("ValueError")),
        "{list}"
    );
    assert!(one["next_attempt_at"].is_string(), "{list}");

    let (code, out, err) = stack.cli(&["deliveries", "list", "--state", "retrying"]).await.unwrap();
    assert!(code == 0 && out.contains("1-1") && out.contains("1-2"), "{code} {out}{err}");
    let (code, _, err) = stack.cli(&["deliveries", "cancel", "1-1"]).await.unwrap();
    assert!(code == 2 && err.contains("reason"), "{code} {err}");
    let (code, _, err) = stack.cli(&["deliveries", "cancel", "--reason", "x"]).await.unwrap();
    assert_eq!(code, 2, "a write without a selector: {err}");
    let dry = ["deliveries", "cancel", "--binding", "note:topic.work", "--reason", "x", "--dry-run"];
    let (code, out, _) = stack.cli(&dry).await.unwrap();
    assert!(code == 0 && out.contains("would cancel: 2 deliveries"), "{code} {out}");
    let one = ["deliveries", "cancel", "1-1@note:topic.work", "--reason", "wrong order"];
    let (code, out, err) = stack.cli(&one).await.unwrap();
    assert!(code == 0 && out.contains("cancelled: 1 delivery"), "{code} {out}{err}");
    let (_, out, _) = stack.cli(&["explain", "1-1"]).await.unwrap();
    assert!(out.contains("discarded") && out.contains("wrong order"), "{out}");
    let (code, _, _) = stack.cli(&one).await.unwrap();
    assert_eq!(code, 1, "nothing matched");

    let (code, out, _) =
        stack.cli(&["deliveries", "cancel", "--state", "retrying", "--reason", "all of them"]).await.unwrap();
    assert!(code == 0 && out.contains("cancelled: 1 delivery"), "{code} {out}");
    stack.settled().await.unwrap();
    let (code, out, _) = stack.cli(&["verify"]).await.unwrap();
    assert!(code == 0 && out.contains("discarded 2"), "{out}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_behind_a_pause_and_what_runs_is_cancelled_by_address() {
    let stack = stack().await;
    stack.post("/v1/bindings/note:topic.work/pause", &json!({})).await.unwrap();
    stack.publish("work", event("both", &json!({"hang": true}))).await.unwrap();
    let running = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 1);
    let list = stack.until("/v1/deliveries?state=running", running).await.unwrap();
    assert_eq!(states(&list), [("hang:hanging".to_owned(), "running".to_owned())], "{list}");
    let list = stack.get("/v1/deliveries?address=1-1").await.unwrap();
    let paused = ("note:topic.work".to_owned(), "paused".to_owned());
    assert_eq!(states(&list), [("hang:hanging".into(), "running".into()), paused], "{list}");

    let request = json!({"selector": {"addresses": ["1-1"]}, "reason": "not wanted"});
    let changed = stack.post("/v1/deliveries/cancel", &request).await.unwrap();
    assert_eq!(changed["count"], 2, "{changed}");
    stack.post("/v1/bindings/note:topic.work/resume", &json!({})).await.unwrap();
    stack.settled().await.unwrap();
    let explained = stack.get("/v1/events/both/explanation").await.unwrap();
    let [ran, waited] = explained["deliveries"].as_array().unwrap().as_slice() else { panic!("{explained}") };
    for delivery in [ran, waited] {
        assert_eq!(delivery["state"], "discarded", "{explained}");
        assert!(delivery["detail"].as_str().unwrap_or_default().contains("not wanted"), "{explained}");
    }
    let notes = std::fs::read_to_string(stack.path("notes")).unwrap_or_default();
    assert!(!notes.contains("both"), "the function never saw it: {notes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_and_what_waits_is_cancelled_by_binding() {
    let stack = stack().await;
    stack.post("/v1/bindings/note:topic.work/pause", &json!({})).await.unwrap();
    for id in ["one", "two"] {
        stack.publish("work", event(id, &json!({"hang": true}))).await.unwrap();
    }
    let both = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 2);
    let list = stack.until("/v1/deliveries", both).await.unwrap();
    let running = ("hang:hanging".to_owned(), "running".to_owned());
    assert_eq!(states(&list), [running.clone(), running], "what runs, not what waits: {list}");
    let (_, out, _) = stack.cli(&["bindings", "show", "hang:hanging"]).await.unwrap();
    assert!(out.contains("2 (2 waiting and 0 retrying, 2 of them running)"), "{out}");
    let cancel = async |binding: &str| {
        stack.cli(&["deliveries", "cancel", "--binding", binding, "--reason", "not wanted"]).await.unwrap()
    };
    let (code, out, err) = cancel("hang:hanging").await;
    assert_eq!((code, out.as_str()), (0, "cancelled: 2 deliveries\n"), "{err}");
    let (code, out, err) = cancel("note:topic.work").await;
    let expected = "cancelled: 2 deliveries; 2 of a paused binding end when it goes on\n";
    assert_eq!((code, out.as_str()), (0, expected), "{err}");
    assert_eq!(cancel("note:topic.work").await.0, 1, "nothing matched");
    stack.post("/v1/bindings/note:topic.work/resume", &json!({})).await.unwrap();
    let status = stack.settled().await.unwrap();
    let discarded = status["bindings"].as_array().unwrap().iter().map(|b| b["discarded"].as_u64().unwrap());
    assert_eq!(discarded.sum::<u64>(), 4, "{status}");
}

const DISABLED: &str = "service: owed
functions:
  note:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - topic: work
        enabled: false
";

/// A renamed function leaves a binding behind; one that is disabled cannot be resumed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_to_a_binding_that_is_gone_is_told_and_cancelled() {
    let mut stack = Stack::new(DISABLED, &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    stack.publish("work", event("late", &json!({}))).await.unwrap();
    let (code, _, err) = stack.cli(&["bindings", "resume", "note:topic.work"]).await.unwrap();
    assert!(code == 5 && err.contains("enabled: false"), "{code} {err}");
    stack.stop().await.unwrap();
    let renamed = DISABLED.replace("  note:", "  renamed:");
    std::fs::write(stack.path("bellwire.yaml"), renamed).unwrap();
    stack.start(None).await.unwrap();
    let (_, out, _) = stack.cli(&["status"]).await.unwrap();
    assert!(
        out.contains("✗ note:topic.work: 1 event is owed to it, but the configuration has it no more"),
        "{out}"
    );
    let (_, out, _) = stack.cli(&["deliveries", "list", "--binding", "note:topic.work"]).await.unwrap();
    assert!(out.contains("1-1") && out.contains("binding-inactive"), "{out}");
    let cancel = ["deliveries", "cancel", "--binding", "note:topic.work", "--reason", "renamed"];
    let (code, out, err) = stack.cli(&cancel).await.unwrap();
    assert!(code == 0 && out.contains("cancelled: 1 delivery; 1 of a binding that"), "{code} {out}{err}");
    let (_, out, _) = stack.cli(&["status"]).await.unwrap();
    assert!(out.contains("nothing is wrong"), "{out}");
    let (code, out, _) = stack.cli(&["verify"]).await.unwrap();
    assert_eq!(code, 0, "{out}");
}

const BLOCKING: &str = "service: blocking
functions:
  note:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - topic: work
        ordering: key
        retry: { attempts: 1, exhausted: block-key }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_key_waits_for_an_operator_and_others_go_on() {
    let mut stack = Stack::new(BLOCKING, &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    for (id, key, data) in
        [("bad", "a", json!({"poison": true})), ("next", "a", json!({})), ("other", "b", json!({}))]
    {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/test", "type": "test", "partitionkey": key, "data": data
        });
        stack.publish("work", event.to_string()).await.unwrap();
    }
    let binding = "note:topic.work";
    let parked = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 2);
    let list = stack.until("/v1/deliveries?state=parked", parked).await.unwrap();
    let reasons: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|item| item["reason"].clone()).collect();
    assert_eq!(reasons, ["key-parked", "key-blocked"], "newest first: {list}");
    let ended = |body: &Value| body["deliveries"][0]["state"] == "delivered";
    stack.until("/v1/events/other/explanation", ended).await.unwrap();
    let (_, out, _) = stack.cli(&["status"]).await.unwrap();
    assert!(out.contains("✗ note:topic.work: 1 key is blocked, by 1-1 (key a) since "), "{out}");
    assert!(out.contains("bellwire dead-letters redrive 1-1@note:topic.work"), "{out}");
    let (_, out, _) = stack.cli(&["bindings", "show", binding]).await.unwrap();
    assert!(out.contains("note:topic.work   ok: 1 key is blocked, by 1-1"), "{out}");
    let text = stack.get("/metrics").await.unwrap();
    let gauge = "bellwire_binding_blocked_keys{binding=\"note:topic.work\"} 1\n";
    assert!(text.as_str().unwrap().contains(gauge), "{text}");
    assert_eq!(stack.get("/healthz/ready").await.unwrap()["ready"], true);
    let (_, out, _) = stack.cli(&["explain", "1-1"]).await.unwrap();
    assert!(out.contains("blocks its key") && out.contains("1 event of key a waits behind it: 1-2"), "{out}");
    let (_, out, _) = stack.cli(&["explain", "1-2"]).await.unwrap();
    assert!(out.contains("waits behind 1-1"), "{out}");

    let one = format!("1-1@{binding}");
    let (code, out, err) = stack.cli(&["dead-letters", "redrive", &one]).await.unwrap();
    assert!(code == 0 && out.contains("redriven: 1"), "{code} {out}{err}");
    let tried_again =
        || std::fs::read_to_string(stack.path("notes")).unwrap().matches("bad raised").count() == 2;
    let blocked = |list: &Value| list["items"][0]["reason"] == "key-blocked" && tried_again();
    stack.until("/v1/deliveries?address=1-1", blocked).await.unwrap();
    let (code, out, err) = stack.cli(&["deliveries", "cancel", &one, "--reason", "withdrawn"]).await.unwrap();
    assert!(code == 0 && out.contains("cancelled: 1 delivery"), "{code} {out}{err}");
    stack.until("/v1/events/next/explanation", ended).await.unwrap();
    stack.settled().await.unwrap();
    let status = stack.get("/v1/status").await.unwrap();
    assert_eq!(
        (&status["problems"], &status["bindings"][0]["blocked_keys"]),
        (&json!([]), &json!(0)),
        "{status}"
    );
    let (code, out, _) = stack.cli(&["verify"]).await.unwrap();
    assert_eq!(code, 0, "{out}");
}

//! What is owed is seen one by one, and given up by hand.

use bellwire_integration_tests::Stack;
use serde_json::{Value, json};

use crate::NOTING;

/// The noting handler, tried again after up to ten minutes.
const SLOW_RETRIES: &str = "service: owed
functions:
  note:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - topic: work
        retry: { attempts: 3, min_delay: 10m, max_delay: 10m }
";

fn event(id: &str, data: &Value) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).to_string()
}

async fn stack() -> Stack {
    let mut stack = Stack::new(SLOW_RETRIES, &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    stack
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_is_listed_and_cancelled() {
    let stack = stack().await;
    for id in ["p1", "p2"] {
        stack.publish("work", event(id, &json!({"poison": true}))).await.unwrap();
    }
    let owed = |list: &Value| list["items"].as_array().is_some_and(|items| items.len() == 2);
    stack.until("/v1/deliveries", owed).await.unwrap();
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

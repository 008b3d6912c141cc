//! A ledger at its limit: senders are told, the state names who is behind, nothing accepted is lost.

use bellwire_integration_tests::Stack;
use serde_json::json;

use crate::{NOTING, noting_service};

fn large(id: &str) -> String {
    let data = json!({"fill": "x".repeat(200_000)});
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": data}).to_string()
}

fn service(max_size: &str) -> String {
    format!("{}ledger: {{ url: \"sqlite:.bellwire/ledger.db\", max_size: {max_size} }}\n", noting_service(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_ledger_refuses_names_the_binding_that_is_behind_and_goes_on_with_more_room() {
    let mut stack = Stack::new(&service("2MB"), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    let pause = json!({"reason": "the function is away"});
    stack.post("/v1/bindings/note:topic.work/pause", &pause).await.unwrap();
    let mut accepted = Vec::new();
    let refused = loop {
        let id = format!("e{}", accepted.len());
        let (status, answer) = stack.publish("work", large(&id)).await.unwrap();
        if status != 202 {
            break (status, answer["code"].as_str().unwrap_or_default().to_owned());
        }
        accepted.push(id);
        assert!(accepted.len() < 50, "2 MB never fill up");
    };
    assert_eq!(refused, (429, "ledger-full".to_owned()));
    assert!(accepted.len() > 3);

    let status = stack.get("/v1/status").await.unwrap();
    let source = &status["sources"][0];
    let waits = format!("ledger-full: {} deliveries wait for note:topic.work (paused)", accepted.len());
    assert_eq!(source["state"], "paused", "{source}");
    assert!(source["reason"].as_str().is_some_and(|reason| reason.starts_with(&waits)), "{source}");
    let problem =
        status["problems"].as_array().and_then(|all| all.iter().find(|p| p["code"] == "source-paused"));
    assert_eq!(problem.map(|p| &p["subject"]), Some(&json!("topic.work")), "{status}");
    let (code, shown, _) = stack.cli(&["sources", "show", "topic.work"]).await.unwrap();
    assert!(code == 0 && shown.contains("paused since") && shown.contains("ledger-full: "), "{shown}");

    stack.stop().await.unwrap();
    std::fs::write(stack.path("bellwire.yaml"), service("20MB")).unwrap();
    stack.start(None).await.unwrap();
    assert_eq!(stack.publish("work", large("more")).await.unwrap().0, 202);
    accepted.push("more".into());
    stack.post("/v1/bindings/note:topic.work/resume", &json!({})).await.unwrap();
    stack.settled().await.unwrap();
    let mut stored = stack.stored_ids().await.unwrap();
    stored.sort_unstable();
    accepted.sort_unstable();
    assert_eq!(stored, accepted);
    let status = stack.get("/v1/status").await.unwrap();
    assert_eq!(status["sources"][0]["state"], "ok", "{status}");
}

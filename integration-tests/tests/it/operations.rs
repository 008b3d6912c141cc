//! What operators do: restart, pause, replay, reload, timers across restarts.

use std::collections::BTreeMap;

use bellwire_integration_tests::Stack;
use serde_json::{Value, json};

use crate::{NOTING, noting_service};

fn event(id: &str) -> String {
    json!({"specversion": "1.0", "id": id, "source": "/test", "type": "test", "data": {}}).to_string()
}

fn notes(stack: &Stack) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(stack.path("notes")).unwrap_or_default().lines() {
        *counts.entry(line.to_string()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_stop_repeats_nothing() {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    for round in 0..3 {
        stack.start(None).await.unwrap();
        for n in 0..40 {
            assert_eq!(stack.publish("work", event(&format!("{round}-{n}"))).await.unwrap().0, 202);
        }
        let status = stack.stop().await.unwrap();
        assert!(status.success(), "{status}\n{}", stack.log());
    }
    stack.start(None).await.unwrap();
    stack.settled().await.unwrap();
    let notes = notes(&stack);
    assert_eq!(notes.len(), 120);
    assert!(notes.values().all(|n| *n == 1), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_event_twice_is_stored_once() {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    let (_, first) = stack.publish("work", event("once")).await.unwrap();
    stack.kill().await;
    stack.start(None).await.unwrap();
    let (status, second) = stack.publish("work", event("once")).await.unwrap();
    assert_eq!((status, second["items"][0]["status"].as_str()), (202, Some("duplicate")), "{second}");
    assert_eq!(first["items"][0]["address"], second["items"][0]["address"]);
    stack.settled().await.unwrap();
    let explained = stack.get("/v1/events/once/explanation").await.unwrap();
    assert_eq!(explained["event"]["duplicates"].as_array().map(Vec::len), Some(1), "{explained}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_binding_keeps_its_place_over_a_restart() {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    let pause = json!({"reason": "maintenance"});
    stack.post("/v1/bindings/note:topic.work/pause", &pause).await.unwrap();
    stack.publish("work", event("later")).await.unwrap();
    let explained = stack.get("/v1/events/later/explanation").await.unwrap();
    assert_eq!(explained["deliveries"][0]["state"], "paused", "{explained}");
    stack.kill().await;
    stack.start(None).await.unwrap();
    let explained = stack.get("/v1/events/later/explanation").await.unwrap();
    assert_eq!(explained["deliveries"][0]["state"], "paused", "{explained}");
    let shown = stack.get("/v1/bindings/note:topic.work").await.unwrap();
    assert_eq!(shown["pause"]["reason"], "maintenance", "{shown}");
    assert_eq!(
        (&shown["policy"]["ordering"], &shown["position"]),
        (&json!("none"), &json!(["1-0"])),
        "{shown}"
    );
    let resumed = stack.post("/v1/bindings/note:topic.work/resume", &json!({})).await.unwrap();
    assert_eq!((&resumed["waiting"], &resumed["was_paused"]), (&json!(1), &shown["pause"]), "{resumed}");
    stack.settled().await.unwrap();
    assert_eq!(notes(&stack).get("later ok"), Some(&1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_delivers_again_exactly_what_was_asked() {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    for n in 0..30 {
        stack.publish("work", event(&format!("r{n}"))).await.unwrap();
    }
    stack.settled().await.unwrap();
    let selector = json!({"filter": {"id": [{"prefix": "r1"}]}});
    let plan = json!({"selector": selector, "dry_run": true});
    let planned = stack.post("/v1/replays", &plan).await.unwrap();
    assert_eq!(planned["total"], 11, "r1 and r10 to r19: {planned}");
    let ask = json!({"selector": selector, "id": "again"});
    let first = stack.post("/v1/replays", &ask).await.unwrap();
    assert_eq!(first["id"], "again");
    stack.post("/v1/replays", &ask).await.unwrap();
    stack.until("/v1/replays/again", |r| r["state"] == "done").await.unwrap();
    stack.settled().await.unwrap();
    for (note, count) in notes(&stack) {
        let expected =
            if note.starts_with("r1 ") || note.starts_with("r1") && note.len() == 6 { 2 } else { 1 };
        assert_eq!(count, expected, "{note}");
    }
    let verified = stack.post("/v1/verifications", &json!({})).await.unwrap();
    assert_eq!(verified["complete"], true, "{verified}");
}

/// A replay survives the death of the controller, and is not started over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_survives_a_kill() {
    let mut stack = Stack::new(&noting_service(4), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    let batch: Vec<Value> =
        (0..400).map(|n| serde_json::from_str(&event(&format!("k{n}"))).unwrap()).collect();
    let bearer = format!("Bearer {}", stack.token);
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/cloudevents-batch+json")];
    let (status, answer) =
        stack.send("/topics/work", &headers, Value::from(batch).to_string()).await.unwrap();
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(400)), "{answer}");
    stack.settled().await.unwrap();
    stack.post("/v1/replays", &json!({"all": true, "id": "whole"})).await.unwrap();
    stack.kill().await;
    stack.start(None).await.unwrap();
    stack.until("/v1/replays/whole", |r| r["state"] == "done").await.unwrap();
    stack.settled().await.unwrap();
    let notes = notes(&stack);
    assert_eq!(notes.len(), 400);
    assert!(notes.values().all(|n| *n >= 2), "every event was delivered again");
    let repeated: usize = notes.values().map(|n| n - 2).sum();
    assert!(repeated <= 1_004, "{repeated} repeated after one crash");
}

const TICKS: &str = "service: ticks
functions:
  tick:
    handler: note.handler
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - schedule: { expression: \"* * * * * *\", missed: all }
        name: each
        retry: { min_delay: 10ms }
";

fn ticking() -> Stack {
    Stack::new(TICKS, &[("note.py", &NOTING.replace("event['id']", "event['time']"))]).unwrap()
}

async fn until_ticks(stack: &Stack, wanted: u64) {
    let enough = |s: &Value| s["sources"][0]["accepted"].as_u64().is_some_and(|n| n >= wanted);
    stack.until("/v1/status", enough).await.unwrap();
}

async fn every_second_once(stack: &Stack) {
    let events = stack.get("/v1/events?order=asc&limit=1000").await.unwrap();
    let second = |e: &Value| e["subject"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let ticks: Vec<i64> = events["items"].as_array().unwrap().iter().map(second).collect();
    let gaps: Vec<_> = ticks.windows(2).filter(|w| w[1] != w[0] + 1).collect();
    assert!(gaps.is_empty(), "every second once, in order: {ticks:?}");
}

/// One event per tick: kills and restarts neither lose nor repeat one; the missed ones are caught up with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_is_one_event_across_kills() {
    let mut stack = ticking();
    for seen in [2, 4, 6] {
        stack.start(None).await.unwrap();
        until_ticks(&stack, seen).await;
        stack.kill().await;
    }
    stack.start(None).await.unwrap();
    until_ticks(&stack, 8).await;
    every_second_once(&stack).await;
}

/// The same when the process ends exactly between the decision to tick and the append, and after the append.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_is_one_event_across_crashes_at_its_gaps() {
    let mut stack = ticking();
    for point in ["timer.fire", "append.after_commit", "source.ack"] {
        stack.start(Some(&format!("{point}=1*off->return"))).await.unwrap();
        let status = stack.ended().await.unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(6),
            "{point}: {}",
            stack.log()
        );
    }
    stack.start(None).await.unwrap();
    let before = stack.get("/v1/status").await.unwrap()["sources"][0]["accepted"].as_u64().unwrap();
    until_ticks(&stack, before + 2).await;
    every_second_once(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_what_happened() {
    let mut stack = Stack::new(&noting_service(2), &[("note.py", NOTING)]).unwrap();
    stack.start(None).await.unwrap();
    for n in 0..5 {
        stack.publish("work", event(&format!("m{n}"))).await.unwrap();
    }
    stack.settled().await.unwrap();
    let text = stack.get("/metrics").await.unwrap();
    let text = text.as_str().unwrap();
    assert!(
        text.contains("bellwire_source_arrivals_total{source=\"topic.work\",result=\"accepted\"} 5\n"),
        "{text}"
    );
    assert!(
        text.contains(
            "bellwire_binding_deliveries_total{binding=\"note:topic.work\",state=\"delivered\"} 5\n"
        ),
        "{text}"
    );
}

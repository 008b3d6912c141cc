//! What outcomes send and what functions emit: the process ends around the flush that holds all of it, and each outcome is
//! told once.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bellwire_integration_tests::{Cluster, Stack};
use bellwire_test_servers::Database;
use serde_json::{Value, json};

/// A function whose successes go to a topic, which another hears, and whose failures go to a function. It emits an event
/// in every attempt.
const SERVICE: &str = "service: outcomes
functions:
  note:
    handler: work.handler
    concurrency: 4
    events:
      - topic: work
        retry: { attempts: 2, min_delay: 10ms, max_delay: 50ms }
        on_success: { topic: done }
        on_failure: { function: sorry }
  hear:
    handler: hear.handler
    environment: { NOTES: \"${env:TEST_DIR}/heard\" }
    events: [{ topic: done }, { topic: said }]
  sorry:
    handler: hear.handler
    environment: { NOTES: \"${env:TEST_DIR}/sorry\" }
";
const WORKING: &str = r#"
def handler(event, context):
    context.emit("topic.said", event["id"])
    if event["data"]["poison"]:
        raise ValueError("not today")
"#;
/// Notes whom a record is about: as a CloudEvent from the topic, as the record itself where it was sent to the function.
const HEARING: &str = r#"
import os

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def handler(event, context):
    record = event.get("data") or event
    if isinstance(record, str):
        os.write(NOTES, f"{record} said\n".encode())
        return
    condition = record["requestContext"]["condition"]
    os.write(NOTES, f"{record['requestPayload']['id']} {condition}\n".encode())
"#;
const EACH_ROUND: usize = 60;

async fn send(stack: &Stack, round: usize, sent: &mut Vec<String>) {
    for n in 0..EACH_ROUND {
        let id = format!("e{round}-{n}");
        let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": "t", "data": {"poison": n % 10 == 3}});
        if let Ok((202, _)) = stack.publish("work", event.to_string()).await {
            sent.push(id);
        } else {
            return;
        }
    }
}

fn heard(folder: &Path, file: &str) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for line in std::fs::read_to_string(folder.join(file)).unwrap_or_default().lines() {
        *all.entry(line.to_owned()).or_default() += 1;
    }
    all
}

/// Every accepted event has one record in the ledger, of how it ended, and was heard of at least once.
async fn check(stack: &Stack, folder: &Path, sent: &[String]) {
    let events = stack.pages("/v1/events?limit=1000").await.unwrap();
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for event in &events {
        let kind = event["type"].as_str().unwrap();
        if kind.starts_with("bellwire.") {
            let address = event["address"].as_str().unwrap();
            let shown = stack.get(&format!("/v1/events/{address}")).await.unwrap();
            let cause = shown["attributes"]["causationid"].as_str().unwrap();
            told.entry(cause.to_owned()).or_default().push(kind.to_owned());
        }
    }
    let (done, sorry) = (heard(folder, "heard"), heard(folder, "sorry"));
    for id in sent {
        let lines = if id.ends_with('3') {
            assert_eq!(told.get(id), Some(&vec!["bellwire.delivery.failed".to_owned()]), "{id}");
            [(&sorry, format!("{id} RetriesExhausted")), (&sorry, format!("{id} RetriesExhausted"))]
        } else {
            let mut told = told.get(id).cloned().unwrap_or_default();
            told.sort();
            assert_eq!(told, ["bellwire.delivery.succeeded", "bellwire.emitted"], "{id} is told once");
            [(&done, format!("{id} Success")), (&done, format!("{id} said"))]
        };
        for (file, line) in lines {
            assert!(file.contains_key(&line), "{id} was heard of: {line}");
        }
    }
    let verified: Value = stack.post("/v1/verifications", &json!({})).await.unwrap();
    assert_eq!(verified["complete"], true, "{verified}");
}

async fn told_once(ledger: String) {
    let files = [("work.py", WORKING), ("hear.py", HEARING)];
    let mut cluster = Cluster::new(SERVICE, &files, &[ledger]).unwrap();
    let stack = &mut cluster.members[0];
    let mut sent = Vec::new();
    for (round, point) in
        ["flush.before=3*off->return", "flush.after_commit=5*off->return", "flush.before=20*off->return"]
            .into_iter()
            .enumerate()
    {
        stack.start(Some(point)).await.unwrap();
        send(stack, round, &mut sent).await;
        assert!(!stack.ended().await.unwrap().success(), "{point} did not end the process");
    }
    for round in 3..6 {
        stack.start(None).await.unwrap();
        send(stack, round, &mut sent).await;
        // A different, fixed moment each round; the load decides what it hits.
        tokio::time::sleep(Duration::from_millis(37 * round as u64)).await;
        stack.kill().await;
    }
    stack.start(None).await.unwrap();
    stack.settled().await.unwrap();
    check(stack, cluster.folder.path(), &sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_once_over_crashes_on_sqlite() {
    told_once("sqlite:.bellwire/ledger.db".into()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_once_over_crashes_on_postgres() {
    let database = Database::create().unwrap();
    told_once(database.url()).await;
}

//! Order per key, end to end: functions that fail, hang about, report and die, controllers that are killed or hand their
//! lanes over. The functions' own notes say what happened.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwire_integration_tests::load::{Door, Doors, client};
use bellwire_integration_tests::{Cluster, stack::PATIENCE};
use bellwire_test_servers::Database;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const SERVICE: &str = "service: order
functions:
  line:
    handler: line.handler
    concurrency: 6
    environment: { NOTES: \"${env:TEST_DIR}/notes\" }
    events:
      - topic: work
        ordering: key
        batch: 4
        retry: { attempts: 5, min_delay: 10ms, max_delay: 200ms }
";
/// Works through its events in order, notes the start and the end of each, and stops at the first that fails, as a FIFO
/// function does. What fails is drawn anew at each call, but for the poison.
const LINE: &str = r#"
import os, random, time, uuid

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def handler(events, context):
    call = uuid.uuid4().hex[:8]
    failed = set()
    report = []

    def note(event, what):
        os.write(NOTES, f"{event['partitionkey']} {event['id']} {call} {what}\n".encode())

    for event in events:
        if event["partitionkey"] in failed:
            report.append(event["id"])
            continue
        note(event, "start")
        time.sleep(random.random() / 100)
        chance = random.random()
        if chance < 0.01:
            os.kill(os.getpid(), 9)
        if chance < 0.02:
            raise ValueError("not today")
        if event["data"]["poison"] or chance < 0.1:
            failed.add(event["partitionkey"])
            report.append(event["id"])
            note(event, "failed")
        else:
            note(event, "ok")
    return {"batchItemFailures": [{"itemIdentifier": id} for id in report]}
"#;

const SENDERS: usize = 4;
const KEYS: usize = 3;

fn id(sender: usize, key: usize, n: usize) -> String {
    format!("s{sender}k{key}-{n}")
}

/// Sends to the keys of its own, one event after the other, until each is accepted.
async fn sender(number: usize, doors: Doors, events: usize) {
    let http = client();
    for n in 0..events {
        for key in 0..KEYS {
            let name = format!("s{number}k{key}");
            let poison = n % 23 == 7;
            let event = json!({"specversion": "1.0", "id": id(number, key, n), "source": "/t", "type": "t",
                "partitionkey": name, "data": {"poison": poison}})
            .to_string();
            let deadline = Instant::now() + PATIENCE;
            for turn in number.. {
                assert!(Instant::now() < deadline, "no controller takes events");
                let door: Option<Door> = doors.pick(turn);
                if let Some(door) = door
                    && matches!(door.publish(&http, "work", event.clone()).await, Ok((202, _)))
                {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// One line of the notes.
struct Note<'a> {
    id: &'a str,
    call: &'a str,
    what: &'a str,
}

fn check(notes: &str, events: usize, dead: &BTreeSet<String>) {
    let mut keys: BTreeMap<&str, Vec<Note<'_>>> = BTreeMap::new();
    for line in notes.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let [key, id, call, what] = parts[..] else { panic!("a torn note: {line}") };
        keys.entry(key).or_default().push(Note { id, call, what });
    }
    for sender in 0..SENDERS {
        for key in 0..KEYS {
            let notes = &keys[format!("s{sender}k{key}").as_str()];
            let mut over: BTreeSet<&str> = BTreeSet::new();
            for pair in notes.windows(2) {
                if pair[0].call != pair[1].call {
                    over.insert(pair[0].call);
                }
                assert!(!over.contains(pair[1].call), "two calls at once for {}", pair[1].id);
            }
            let first = |id: &str| notes.iter().position(|note| note.id == id);
            for n in 0..events {
                let this = id(sender, key, n);
                let at = first(&this).unwrap_or_else(|| panic!("{this} was never delivered"));
                let is_done = notes.iter().any(|note| note.id == this && note.what == "ok");
                assert!(is_done != dead.contains(&this) || is_done, "{this} neither succeeded nor died");
                let Some(next) = (n + 1 < events).then(|| first(&id(sender, key, n + 1))).flatten() else {
                    continue;
                };
                assert!(at < next, "{this} came after the one behind it");
                let is_over = notes[..next].iter().any(|note| note.id == this && note.what == "ok");
                assert!(is_over || dead.contains(&this), "the one behind {this} came before it was done");
            }
        }
    }
}

async fn keeps_order(ledgers: &[String], events: usize, hand_over: bool) {
    let mut cluster = Cluster::new(SERVICE, &[("line.py", LINE)], ledgers).unwrap();
    cluster.start_all().await.unwrap();
    let mut senders = JoinSet::new();
    for number in 0..SENDERS {
        senders.spawn(sender(number, cluster.doors.clone(), events));
    }
    for round in 0..4 {
        sleep(Duration::from_millis(700 + 130 * round as u64)).await;
        let number = round % ledgers.len();
        if hand_over && round % 2 == 1 {
            cluster.stop(number).await.unwrap();
        } else {
            cluster.kill(number).await;
        }
        cluster.start(number, None).await.unwrap();
    }
    while let Some(done) = senders.join_next().await {
        done.unwrap();
    }
    cluster.settled().await.unwrap();
    let stack = cluster.any().unwrap();
    let dead = stack.dead_ids().await.unwrap();
    let poison = SENDERS * KEYS * (0..events).filter(|n| n % 23 == 7).count();
    assert!(dead.len() >= poison, "{} died of {poison}", dead.len());
    let verified = stack.post("/v1/verifications", &json!({})).await.unwrap();
    assert_eq!(verified["complete"], true, "{verified}");
    check(&std::fs::read_to_string(cluster.notes()).unwrap(), events, &dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_in_order_over_kills_on_sqlite() {
    keeps_order(&["sqlite:.bellwire/ledger.db".into()], 70, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_in_order_over_kills_and_hand_overs_on_postgres() {
    let database = Database::create().unwrap();
    keeps_order(&[database.url(), database.url()], 70, true).await;
}

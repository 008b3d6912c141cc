//! A source over a broker, controllers that read it, a function that notes its events, and the count at the end.

use std::time::Duration;

use bellwire_integration_tests::brokers::{Place, ids_in_postgres, ids_in_sqlite, missing};
use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Cluster, Oracle, Stack};
use bellwire_test_servers::shared;
use serde_json::json;
use tokio::time::{Instant, sleep};

/// A ledger in a file of the only controller's own.
pub const SQLITE: &str = "sqlite:.bellwire/ledger.db";
/// Deliveries of the noting function at once.
const CONCURRENCY: usize = 4;
/// What may be repeated after one crash or lost lease: what was in flight and what was not flushed
/// (`docs/delivery.md`), in each of up to eight lanes.
pub const REPEATED_PER_CRASH: usize = 8 * (CONCURRENCY + 1_000);
/// A member of a group that died is missed after this time. The stand-in for Kafka answers a member that joins after three
/// seconds, and one that asks for its share after three more or this time: with less, two members can miss each other
/// for ever.
pub const SESSION: &str = "{ session.timeout.ms: 8000, heartbeat.interval.ms: 500 }";

/// Notes the beginning and the end of each call, and which controller called.
const HANDLER: &str = r#"
import os, time

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event, outcome):
    os.write(NOTES, f"{event['id']} {outcome} {os.environ['WHO']}\n".encode())


def handler(event, context):
    if not isinstance(event, dict):
        return {"odd": True}
    note(event, "start")
    if event.get("poison"):
        raise ValueError("not today")
    time.sleep(event.get("seconds", 0))
    note(event, "ok")
    return {"seen": event["id"]}
"#;

/// The shared broker of a kind.
pub fn address(kind: &str) -> String {
    match kind {
        "kafka" => shared::kafka(),
        "rabbitmq" => shared::amqp(),
        _ => shared::aws(),
    }
    .unwrap()
}

/// A topic or queue of a test's own on the shared broker.
pub async fn place(kind: &'static str) -> Place {
    Place::make(kind, &address(kind), &shared::unique("t")).await.unwrap()
}

/// The kind key of a source at a place, with more keys if any.
pub fn declared(place: &Place, more: &str) -> String {
    let (address, name) = (json!(place.address), json!(place.name));
    match place.kind {
        "kafka" => {
            // The default group is named like the service and the source, which are the same in every test.
            let group =
                if more.contains("group_id:") { String::new() } else { format!("group_id: {name}, ") };
            format!(
                "kafka: {{ bootstrap_servers: [{address}], topic: {name}, starting_position: earliest, {group}librdkafka: {SESSION}, {more} }}"
            )
        }
        "rabbitmq" => format!("rabbitmq: {{ url: \"${{env:AMQP_URL}}\", queue: {name}, {more} }}"),
        _ => format!("sqs: {{ queue: {name}, endpoint: {address}, region: us-east-1, {more} }}"),
    }
}

/// Controllers over one source.
pub struct World {
    pub cluster: Cluster,
    ledgers: Vec<String>,
}

impl World {
    /// One controller per ledger URL, not started yet, for a source `in` at a place. `more` is added to its binding.
    pub fn new(place: &Place, ledgers: &[String], more: &str) -> Self {
        let service = format!(
            "service: oracle
sources:
  in: {{ {} }}
functions:
  note:
    handler: note.handler
    format: json
    concurrency: {CONCURRENCY}
    timeout: 60s
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events:
      - source: in
        batch: 1
        retry: {{ attempts: 3, min_delay: 10ms, max_delay: 50ms }}
{more}",
            declared(place, "")
        );
        Self::of(&service, place, ledgers)
    }

    /// The same with a whole service file, whose functions may be `note.handler`.
    pub fn of(service: &str, place: &Place, ledgers: &[String]) -> Self {
        let mut cluster = Cluster::new(service, &[("note.py", HANDLER)], ledgers).unwrap();
        for member in &mut cluster.members {
            for (name, value) in [
                ("AWS_ACCESS_KEY_ID", "test"),
                ("AWS_SECRET_ACCESS_KEY", "test"),
                ("AWS_REGION", "us-east-1"),
            ] {
                member.set_env(name, value);
            }
            if place.kind == "rabbitmq" {
                member.set_env("AMQP_URL", &place.address);
            }
        }
        Self { cluster, ledgers: ledgers.to_vec() }
    }

    /// One controller over a SQLite file.
    pub fn alone(place: &Place) -> Self {
        Self::new(place, &[SQLITE.into()], "")
    }

    /// The first controller.
    pub fn first(&self) -> &Stack {
        &self.cluster.members[0]
    }

    /// The ids in the data of every stored event of the source `in`.
    pub async fn stored(&self) -> anyhow::Result<Vec<String>> {
        if self.ledgers[0] == SQLITE {
            return ids_in_sqlite(&self.first().path(".bellwire/ledger.db"), "in").await;
        }
        ids_in_postgres(&self.ledgers[0], "in")
    }

    /// Waits until so many events are stored.
    pub async fn stores(&self, wanted: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let last = self.stored().await;
            if matches!(&last, Ok(ids) if ids.len() >= wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{last:?} instead of {wanted}\n{}", self.cluster.logs());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The end of each scenario: waits until all that brokers confirmed is stored and dealt with, then counts. Tells how
    /// many deliveries were repeated.
    pub async fn count(&self, oracle: &Oracle, may_repeat: usize) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stored = self.stored().await.unwrap();
            let missing =
                missing(oracle, &stored).unwrap_or_else(|e| panic!("{e:#}\n{}", self.cluster.logs()));
            if missing.is_empty() {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "{} of {} confirmed messages are not in the ledger: {:?}\n{}",
                missing.len(),
                oracle.acknowledged.len(),
                &missing[..missing.len().min(10)],
                self.cluster.logs()
            );
            sleep(Duration::from_millis(100)).await;
        }
        self.cluster.settled().await.unwrap();
        let stored = self.stored().await.unwrap();
        missing(oracle, &stored).unwrap();
        let stack = self.cluster.any().unwrap();
        let dead = stack.pages("/v1/dead-letters?limit=1000").await.unwrap().len();
        let notes = std::fs::read_to_string(self.cluster.notes()).unwrap_or_default();
        let started: std::collections::BTreeSet<&str> =
            notes.lines().filter_map(|line| line.split_once(" start").map(|(id, _)| id)).collect();
        let count = oracle.count(&self.cluster.notes(), &stored.iter().cloned().collect());
        println!(
            "{} confirmed, {} unknown, {} stored, {} served, {dead} dead, {} repeated (at most {may_repeat} may be)",
            oracle.acknowledged.len(),
            oracle.unknown.len(),
            stored.len(),
            count.served,
            count.duplicates
        );
        assert_eq!(count.invented, Vec::<String>::new(), "events were invented");
        assert_eq!(started.len(), stored.len(), "each stored event was delivered");
        assert_eq!(count.served + dead, stored.len(), "each was served or is a dead letter");
        assert!(count.duplicates <= may_repeat, "{} repeated\n{}", count.duplicates, self.cluster.logs());
        let (code, out, err) = stack.cli(&["verify"]).await.unwrap();
        assert_eq!(code, 0, "bellwire verify: {out}\n{err}");
        count.duplicates
    }
}

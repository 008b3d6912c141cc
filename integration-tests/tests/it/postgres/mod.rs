//! Several controllers over one Postgres: whatever ends, hangs or breaks, no acknowledged event is lost, none is stored
//! twice, and what is repeated stays within the documented bound.
//!
//! Each scenario ends with the oracle over the notes of all controllers' functions and with `bellwire verify`.

use std::time::Duration;

use anyhow::{Context, ensure};
use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Cluster, Stack};
use bellwire_test_servers::Database;
use tokio::time::{Instant, sleep};

mod backlog;
mod commit;
mod crash;
mod handover;
mod limits;
mod outage;
mod timers;
mod zombie;

/// Within this time the lanes of a controller that died or hangs have another owner: twice what `docs/operating.md` says,
/// because the machine may be busy with something else.
const TAKE_OVER: Duration = Duration::from_secs(20);
/// Lanes of a new Postgres ledger (`docs/configuration.md`, `ledger.lanes`).
const LANES: usize = 8;
/// Deliveries of the noting function at once.
const CONCURRENCY: usize = 4;
/// What may be repeated after one crash: per lane what was in flight and what was not flushed (`docs/delivery.md`).
const REPEATED_PER_CRASH: usize = LANES * (CONCURRENCY + 1_000);

/// A Python handler that notes the beginning and the end of each call, and which controller called.
const HANDLER: &str = r#"
import os

NOTES = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def note(event, outcome):
    os.write(NOTES, f"{event['id']} {outcome} {os.environ['WHO']}\n".encode())


def handler(event, context):
    note(event, "start")
    if (event.get("data") or {}).get("poison"):
        raise ValueError("not today")
    note(event, "ok")
"#;

fn service() -> String {
    format!(
        "service: oracle
functions:
  note:
    handler: note.handler
    concurrency: {CONCURRENCY}
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events:
      - topic: work
        retry: {{ attempts: 3, min_delay: 10ms, max_delay: 50ms }}
"
    )
}

/// Controllers of the noting service, one per URL.
fn cluster(ledgers: &[String]) -> Cluster {
    Cluster::new(&service(), &[("note.py", HANDLER)], ledgers).unwrap()
}

/// A database on the tests' server, and a cluster of so many controllers on it.
fn on_database(controllers: usize) -> (Database, Cluster) {
    let database = Database::create().unwrap();
    let cluster = cluster(&vec![database.url(); controllers]);
    (database, cluster)
}

/// How many lanes a controller owns, by its own account.
async fn owned(stack: &Stack) -> anyhow::Result<usize> {
    let lanes = stack.get("/v1/lanes").await?;
    Ok(lanes["items"].as_array().context("a list")?.iter().filter(|l| l["owned"] == true).count())
}

/// Waits until a controller owns so many lanes, and tells how long that took.
async fn until_owns(stack: &Stack, wanted: usize) -> anyhow::Result<Duration> {
    let start = Instant::now();
    loop {
        let last = owned(stack).await;
        if matches!(last, Ok(n) if n == wanted) {
            return Ok(start.elapsed());
        }
        ensure!(start.elapsed() < PATIENCE, "{last:?} lanes instead of {wanted}:\n{}", stack.log());
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the lanes are shared out evenly among all controllers.
async fn balanced(cluster: &Cluster) {
    for member in &cluster.members {
        until_owns(member, LANES / cluster.members.len()).await.unwrap();
    }
}

/// Prints a take-over time and holds it against the limit.
fn taken_over(after: &str, time: Duration) {
    println!("take-over after {after}: {:.1} s", time.as_secs_f64());
    assert!(time <= TAKE_OVER, "take-over after {after} took {time:?}");
}

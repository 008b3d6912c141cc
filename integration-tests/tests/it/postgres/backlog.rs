//! A backlog that is far larger than memory: the controller reads it piece by piece.

use std::sync::Arc;
use std::time::Duration;

use bellwire_integration_tests::Cluster;
use bellwire_integration_tests::stack::PATIENCE;
use bellwire_ledger::postgres::{PostgresLedger, PostgresOptions};
use bellwire_ledger::{Append, Ledger, NewEvent};
use bellwire_schemas::{Clock, Event, Lane, SourceName};
use bellwire_test_servers::{Options, Postgres};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{HANDLER, LANES, until_owns};

/// What a controller may use at most, its functions' processes not counted.
const LIMIT_MIB: u64 = 300;
const BATCH: u64 = 1_000;

fn service(every: u64) -> String {
    format!(
        "service: backlog
functions:
  note:
    handler: note.handler
    concurrency: 4
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events:
      - topic: work
        filter: {{ data: {{ n: [{}] }} }}
",
        every - 1
    )
}

fn event(number: u64, every: u64) -> Arc<Event> {
    let data =
        format!("{{\"n\":{},\"order\":\"{number:010}\",\"note\":\"{}\"}}", number % every, "x".repeat(260));
    Arc::new(Event {
        id: format!("b{number}"),
        source: "topic:work".into(),
        kind: "backlog".into(),
        time: "2026-01-01T00:00:00Z".into(),
        datacontenttype: Some("application/json".into()),
        data: Some(data.into()),
        ..Event::default()
    })
}

/// Appends through the ledger itself, two batches at a time.
async fn fill(url: &str, events: u64, every: u64) {
    let ledger = PostgresLedger::open(url, PostgresOptions::default()).await.unwrap();
    let source = SourceName::new("topic.work");
    let clock = Clock::system();
    let write = |first: u64| {
        let (ledger, source, now) = (&ledger, source.clone(), clock.now());
        async move {
            for batch in (first..events / BATCH).step_by(2) {
                let lane = Lane(u16::try_from(batch % LANES as u64).unwrap() + 1);
                let made = (batch * BATCH..(batch + 1) * BATCH).map(|number| NewEvent {
                    source: source.clone(),
                    lane,
                    key: None,
                    dedup: None,
                    event: event(number, every),
                });
                let append = Append {
                    append_id: Uuid::now_v7(),
                    events: made.collect(),
                    positions: Vec::new(),
                    quarantined: Vec::new(),
                };
                ledger.append(append, now).await.unwrap();
            }
        }
    };
    tokio::join!(write(0), write(1));
    ledger.close().await;
}

fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// Fills the ledger while nobody delivers, starts the controller, and lets it work off everything.
async fn backlog(events: u64, every: u64, patience: Duration) {
    let server = Postgres::start(&Options::default().set("max_wal_size", "4GB")).unwrap();
    let mut cluster = Cluster::new(&service(every), &[("note.py", HANDLER)], &[server.url()]).unwrap();
    cluster.start(0, None).await.unwrap();
    until_owns(&cluster.members[0], LANES).await.unwrap();
    let status = cluster.stop(0).await.unwrap();
    assert!(status.success(), "{status}\n{}", cluster.logs());
    let start = Instant::now();
    fill(&server.url(), events, every).await;
    println!("{events} events in {:.1?}", start.elapsed());
    cluster.start(0, None).await.unwrap();
    let (stack, start) = (&cluster.members[0], Instant::now());
    let pid = stack.pid().unwrap();
    let done = |s: &Value| s["bindings"].as_array().is_some_and(|all| all.iter().all(|b| b["waiting"] == 0));
    while !stack.get("/v1/status").await.is_ok_and(|s| done(&s)) {
        assert!(
            start.elapsed() < patience,
            "after {:?}: {:?}\n{}",
            start.elapsed(),
            stack.get("/v1/status").await,
            stack.log()
        );
        sleep(Duration::from_millis(200)).await;
    }
    stack.settled().await.unwrap();
    let peak = peak_mib(pid);
    let rate = events as f64 / start.elapsed().as_secs_f64();
    println!("{events} events of backlog: worked off at {rate:.0}/s, the controller used {peak} MiB at most");
    assert!(peak < LIMIT_MIB, "{peak} MiB");
    let notes = std::fs::read_to_string(cluster.notes()).unwrap();
    let served = notes.lines().filter(|l| l.contains(" ok ")).count() as u64;
    assert_eq!(served, events / every, "each event that passes the filter is served once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_300_000_events() {
    backlog(300_000, 300, 2 * PATIENCE).await;
}

/// By hand: `./test --run-ignored only backlog` (some minutes, 10 GB of disk).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and 10 GB of disk"]
async fn of_10_million_events() {
    backlog(10_000_000, 1_000, Duration::from_secs(1_200)).await;
}

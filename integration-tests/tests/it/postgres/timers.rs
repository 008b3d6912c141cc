//! A schedule that several controllers run ticks once.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Cluster, Stack};
use bellwire_test_servers::Database;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{HANDLER, REPEATED_PER_CRASH};

const TICKS: &str = "service: ticks
functions:
  tick:
    handler: note.handler
    concurrency: 2
    environment: { NOTES: \"${env:TEST_DIR}/notes\", WHO: \"${env:WHO}\" }
    events:
      - schedule: { expression: \"* * * * * *\", missed: all }
        name: each
        retry: { min_delay: 10ms }
";

async fn until_ticks(stack: &Stack, wanted: u64) {
    let enough = |s: &Value| s["sources"][0]["accepted"].as_u64().is_some_and(|n| n >= wanted);
    stack.until("/v1/status", enough).await.unwrap();
}

/// Two controllers run a schedule of every second, one or the other is killed, for a while both are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_tick_is_one_event() {
    let database = Database::create().unwrap();
    let mut cluster = Cluster::new(TICKS, &[("note.py", HANDLER)], &vec![database.url(); 2]).unwrap();
    cluster.start_all().await.unwrap();
    until_ticks(&cluster.members[1], 3).await;
    cluster.kill(0).await;
    until_ticks(&cluster.members[1], 6).await;
    cluster.start(0, None).await.unwrap();
    until_ticks(&cluster.members[0], 9).await;
    cluster.kill(1).await;
    until_ticks(&cluster.members[0], 11).await;
    cluster.kill(0).await;
    cluster.start_all().await.unwrap();
    until_ticks(&cluster.members[1], 15).await;
    let events = cluster.members[0].pages("/v1/events?order=asc&limit=1000").await.unwrap();
    let second = |e: &Value| e["subject"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
    let mut ticks: Vec<i64> = events.iter().map(second).collect();
    // Lanes are listed by time of arrival, which for ticks caught up together may be one moment.
    ticks.sort_unstable();
    let wrong: Vec<_> = ticks.windows(2).filter(|w| w[1] != w[0] + 1).collect();
    assert!(wrong.is_empty(), "every second once: {ticks:?}\n{}", cluster.logs());
    println!("{} ticks, each one event", ticks.len());
    // Each is delivered; only a kill may have repeated one.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ended = deliveries(&cluster);
        if events.iter().all(|e| ended.contains_key(e["id"].as_str().unwrap())) {
            assert!(ended.values().sum::<usize>() - ended.len() <= 4 * REPEATED_PER_CRASH, "{ended:?}");
            return;
        }
        assert!(Instant::now() < deadline, "{ended:?}\n{}", cluster.logs());
        sleep(Duration::from_millis(20)).await;
    }
}

/// How often the call of each event came to its end.
fn deliveries(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut ended = BTreeMap::new();
    let notes = std::fs::read_to_string(cluster.notes()).unwrap_or_default();
    for id in notes.lines().filter(|l| l.contains(" ok ")).filter_map(|l| l.split(' ').next()) {
        *ended.entry(id.to_string()).or_default() += 1;
    }
    ended
}

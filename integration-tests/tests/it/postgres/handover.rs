//! Controllers that come and go: in order, behind a pooler, and alone.

use std::time::Duration;

use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Cluster, Load};
use bellwire_test_servers::{Options, Pgbouncer, Postgres};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    CONCURRENCY, HANDLER, LANES, REPEATED_PER_CRASH, balanced, cluster, on_database, service, taken_over,
    until_owns,
};

/// A hand-over in order takes about as long as the running attempts get to end, and a heartbeat: less than the 6 s of a
/// lease, which it would take if somebody waited for one to end.
const HAND_OVER: Duration = Duration::from_secs(5);

/// One of two is stopped in order under load, comes back, and takes part again: nothing is repeated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graceful_stop_repeats_nothing() {
    let (_database, mut cluster) = on_database(2);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "g");
    for _ in 0..2 {
        load.accepts(150).await.unwrap();
        let asked_at = Instant::now();
        let status = cluster.stop(0).await.unwrap();
        assert!(status.success(), "{status}\n{}", cluster.logs());
        let ended = asked_at.elapsed();
        let after = until_owns(&cluster.members[1], LANES).await.unwrap();
        println!("hand-over: the process ended after {ended:?}, its lanes had a new owner {after:?} later");
        assert!(ended + after <= HAND_OVER, "the hand-over took {:?}", ended + after);
        load.accepts(50).await.unwrap();
        cluster.start(0, None).await.unwrap();
        balanced(&cluster).await;
    }
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 0).await.unwrap();
}

/// Three controllers share out the lanes when they come, and again when one goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_are_shared_out_fairly() {
    let (_database, mut cluster) = on_database(3);
    cluster.start(0, None).await.unwrap();
    until_owns(&cluster.members[0], LANES).await.unwrap();
    let load = Load::start(&cluster.doors, 2, "f");
    cluster.start(1, None).await.unwrap();
    until_owns(&cluster.members[1], LANES / 2).await.unwrap();
    cluster.start(2, None).await.unwrap();
    let fair =
        |owned: &[usize]| owned.iter().sum::<usize>() == LANES && owned.iter().all(|n| *n == 2 || *n == 3);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut owned = Vec::new();
        for member in &cluster.members {
            owned.push(super::owned(member).await.unwrap());
        }
        if fair(&owned) {
            break;
        }
        assert!(Instant::now() < deadline, "{owned:?} lanes\n{}", cluster.logs());
        sleep(Duration::from_millis(20)).await;
    }
    load.accepts(100).await.unwrap();
    assert!(cluster.stop(1).await.unwrap().success());
    until_owns(&cluster.members[0], LANES / 2).await.unwrap();
    until_owns(&cluster.members[2], LANES / 2).await.unwrap();
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 0).await.unwrap();
}

/// One controller reaches the ledger through PgBouncer in transaction mode, the other directly; each is killed once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer() {
    let server = Postgres::start(&Options::default()).unwrap();
    let bouncer = Pgbouncer::start(&server).unwrap();
    let mut cluster = cluster(&[bouncer.url(), server.url()]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "p");
    for (victim, other) in [(0, 1), (1, 0)] {
        load.accepts(100).await.unwrap();
        cluster.kill(victim).await;
        let way =
            if victim == 0 { "SIGKILL, to the direct one" } else { "SIGKILL, to the one behind PgBouncer" };
        taken_over(way, until_owns(&cluster.members[other], LANES).await.unwrap());
        load.accepts(100).await.unwrap();
        cluster.start(victim, None).await.unwrap();
        balanced(&cluster).await;
    }
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 2 * REPEATED_PER_CRASH).await.unwrap();
}

/// The only controller is killed while it works off a backlog; started again on its folder, it goes on at once: its
/// lanes are its own, there is no lease to wait for. `killed` runs while it is dead.
async fn goes_on_at_once(ledger: &str, killed: impl FnOnce()) {
    let slow = HANDLER
        .replace("import os\n", "import os, time\n")
        .replace("    note(event, \"ok\")\n", "    time.sleep(0.02)\n    note(event, \"ok\")\n");
    let mut cluster = Cluster::new(&service(), &[("note.py", &slow)], &[ledger.into()]).unwrap();
    cluster.start(0, None).await.unwrap();
    let batch: Vec<Value> = (0..1_000)
        .map(|n| json!({"specversion": "1.0", "id": format!("r{n}"), "source": "/test", "type": "test", "data": {}}))
        .collect();
    let mut oracle = bellwire_integration_tests::Oracle::default();
    let stack = &cluster.members[0];
    let bearer = format!("Bearer {}", stack.token);
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/cloudevents-batch+json")];
    let (status, answer) =
        stack.send("/topics/work", &headers, Value::from(batch).to_string()).await.unwrap();
    assert_eq!((status, answer["accepted"].as_u64()), (202, Some(1_000)), "{answer}");
    oracle.acknowledged.extend((0..1_000).map(|n| format!("r{n}")));
    until_notes(&cluster, 2 * CONCURRENCY).await;
    cluster.kill(0).await;
    killed();
    let before = notes(&cluster);
    let started_at = Instant::now();
    cluster.start(0, None).await.unwrap();
    until_notes(&cluster, before + 1).await;
    let time = started_at.elapsed();
    println!("first delivery after kill and restart of the only controller: {:.2} s", time.as_secs_f64());
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
}

fn notes(cluster: &Cluster) -> usize {
    std::fs::read_to_string(cluster.notes()).unwrap_or_default().lines().count()
}

async fn until_notes(cluster: &Cluster, wanted: usize) {
    let deadline = Instant::now() + PATIENCE;
    while notes(cluster) < wanted {
        assert!(Instant::now() < deadline, "no calls: {}", cluster.logs());
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_controller_goes_on_at_once() {
    let database = bellwire_test_servers::Database::create().unwrap();
    let url = database.url();
    // Who waited for this lease would miss the patience of the test by far.
    let lives_on =
        "with l as (update bellwire.controller set expires_at = clock_timestamp() + interval '1 hour' returning 1)
         select count(*) from l";
    goes_on_at_once(&url, || assert_eq!(database.sql(lives_on).unwrap().trim(), "1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_too_the_only_controller_goes_on_at_once() {
    goes_on_at_once("sqlite:.bellwire/ledger.db", || ()).await;
}

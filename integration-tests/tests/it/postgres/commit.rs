//! The connection breaks between a commit and its answer, again and again: who does not know what happened neither
//! loses it nor does it twice.

use bellwire_integration_tests::stack::PATIENCE;
use bellwire_integration_tests::{Cluster, Load};
use bellwire_test_servers::proxy::{Mode, READY_FOR_QUERY};
use bellwire_test_servers::{Database, Proxy};
use tokio::time::{Duration, Instant, sleep};

use super::{REPEATED_PER_CRASH, balanced, cluster};

/// How often each kind of commit loses its answer.
const ROUNDS: usize = 25;

async fn cut(proxy: &Proxy, mode: Mode, cluster: &Cluster) {
    let before = proxy.cuts();
    proxy.set(mode.clone()).await;
    let deadline = Instant::now() + PATIENCE;
    while proxy.cuts() == before {
        assert!(Instant::now() < deadline, "nobody meets {mode:?}\n{}", cluster.logs());
        sleep(Duration::from_millis(1)).await;
    }
    proxy.set(Mode::Pass).await;
}

/// The answers to calls whose SQL holds `request` are lost, of two controllers in turn.
async fn answers_are_lost(request: &str) {
    let database = Database::create().unwrap();
    let mut proxies = Vec::new();
    for _ in 0..2 {
        proxies.push(Proxy::start(database.address().unwrap()).await.unwrap());
    }
    let urls: Vec<String> = proxies.iter().map(|p| p.url(&database.url())).collect();
    let mut cluster = cluster(&urls);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 6, "a");
    for round in 0..ROUNDS {
        let mode = Mode::CutAnswer { request: request.into(), answer: READY_FOR_QUERY.to_vec() };
        cut(&proxies[round % 2], mode, &cluster).await;
        load.accepts(10).await.unwrap();
    }
    let oracle = load.finish().await.unwrap();
    let cuts: usize = proxies.iter().map(Proxy::cuts).sum();
    println!("{cuts} answers to {request} were lost");
    // No process ended, so nothing that was answered was forgotten.
    cluster.settle_and_count(&oracle, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_appends_are_lost() {
    answers_are_lost("append_").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_flushes_are_lost() {
    answers_are_lost(".flush_").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_heartbeats_are_lost() {
    answers_are_lost("heartbeat").await;
}

/// Connections end anywhere in a request or an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_end_after_any_byte() {
    let database = Database::create().unwrap();
    let proxy = Proxy::start(database.address().unwrap()).await.unwrap();
    let mut cluster = cluster(&[proxy.url(&database.url()), database.url()]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 6, "b");
    for round in 0..ROUNDS {
        let bytes = 1 + 397 * round;
        let mode = if round % 2 == 0 { Mode::CutToServer(bytes) } else { Mode::CutFromServer(bytes) };
        cut(&proxy, mode, &cluster).await;
        load.accepts(10).await.unwrap();
    }
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
}

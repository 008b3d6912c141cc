//! The server dies, or cannot be reached: doors say 503, nothing is lost, nobody needs a restart.

use std::time::Duration;

use bellwire_integration_tests::{Cluster, Load};
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Database, Options, Postgres, Proxy};
use tokio::time::{Instant, sleep_until};

use super::{CONCURRENCY, LANES, REPEATED_PER_CRASH, balanced, cluster};

/// How long the server cannot be reached.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// From the moment the server answers again to the first acknowledgement: far less than senders and connections would
/// wait by themselves, and lenient, because the machine may be busy with something else.
const RECOVERY: Duration = Duration::from_secs(30);

fn pids(cluster: &Cluster) -> Vec<Option<u32>> {
    cluster.members.iter().map(bellwire_integration_tests::Stack::pid).collect()
}

/// The server ends and comes back several times under load, as a function of the round.
async fn server_ends(name: &str, end: impl Fn(&mut Postgres)) {
    let mut server = Postgres::start(&Options::default()).unwrap();
    let mut cluster = cluster(&[server.url(), server.url()]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let before = pids(&cluster);
    let load = Load::start(&cluster.doors, 4, "s");
    let rounds = 4;
    for round in 0..rounds {
        load.accepts(50 + 40 * round).await.unwrap();
        tokio::task::block_in_place(|| {
            end(&mut server);
            server.start_again().unwrap();
        });
        let back_at = Instant::now();
        load.accepts(1).await.unwrap();
        println!("first acknowledgement after {name} and restart of the server: {:?}", back_at.elapsed());
        assert!(back_at.elapsed() <= RECOVERY, "{:?}", back_at.elapsed());
    }
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    cluster.settle_and_count(&oracle, rounds * REPEATED_PER_CRASH).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn immediate_restarts_of_the_server() {
    server_ends("an immediate stop", |server| server.stop_immediate().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_of_the_server() {
    server_ends("SIGKILL", Postgres::kill).await;
}

/// One backend dies: the server cuts all connections and recovers by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigkill_of_backends() {
    let server = Postgres::start(&Options::default()).unwrap();
    let mut cluster = cluster(&[server.url(), server.url()]);
    cluster.start_all().await.unwrap();
    let load = Load::start(&cluster.doors, 4, "b");
    for round in 0..3 {
        load.accepts(60).await.unwrap();
        let ask = "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let pids = server.sql("postgres", ask).unwrap();
        let pids: Vec<u32> = pids.lines().filter_map(|pid| pid.parse().ok()).collect();
        server.kill_backend(pids[round % pids.len()]);
    }
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 3 * REPEATED_PER_CRASH).await.unwrap();
}

/// Nobody reaches the server for half a minute.
async fn unreachable(mode: Mode) {
    let database = Database::create().unwrap();
    let proxy = Proxy::start(database.address().unwrap()).await.unwrap();
    let url = proxy.url(&database.url());
    let mut cluster = cluster(&[url.clone(), url]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let before = pids(&cluster);
    let load = Load::start(&cluster.doors, 4, "u");
    load.accepts(200).await.unwrap();
    proxy.set(mode.clone()).await;
    if mode == Mode::Refuse {
        proxy.reset_all().await;
    }
    let away_at = Instant::now();
    let refused = load.refused();
    load.until(|load| load.refused() > refused).await.unwrap();
    let first_refusal = away_at.elapsed();
    load.until(|load| load.refused() >= refused + 8).await.unwrap();
    for member in &cluster.members {
        let (status, body) = member.publish("work", "{}").await.unwrap();
        assert!(matches!(status, 400 | 503), "{status} {body}");
        assert!(member.get("/healthz/live").await.is_ok(), "it lives on");
    }
    sleep_until(away_at + UNREACHABLE).await;
    let accepted = load.accepted();
    proxy.set(Mode::Pass).await;
    let back_at = Instant::now();
    load.until(|load| load.accepted() > accepted).await.unwrap();
    println!(
        "unreachable ({mode:?}): first refusal after {first_refusal:?}, first acknowledgement {:?} after the server is back",
        back_at.elapsed()
    );
    assert!(back_at.elapsed() <= RECOVERY, "{:?}", back_at.elapsed());
    assert_eq!(load.unanswered(), 0, "every sender got an answer");
    balanced(&cluster).await;
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    // Nothing crashed; what was in flight when the leases ended may be repeated.
    cluster.settle_and_count(&oracle, 2 * LANES * (CONCURRENCY + 1_000)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_in_a_black_hole() {
    unreachable(Mode::BlackHole).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_minute_of_refused_connections() {
    unreachable(Mode::Refuse).await;
}

/// A fail-over to a server that lacks the newest commits. What they held is gone and cannot be otherwise; everything
/// before and after it is served, the books add up, and nobody needs a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fail_over_that_loses_the_tail() {
    let mut server = Postgres::start(&Options::default()).unwrap();
    let proxy = Proxy::start(server.address()).await.unwrap();
    let url = proxy.url(&server.url());
    let mut cluster = cluster(&[url.clone(), url]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let before = pids(&cluster);
    let load = Load::start(&cluster.doors, 4, "before");
    load.accepts(150).await.unwrap();
    let mut oracle = load.finish().await.unwrap();
    let copy = tokio::task::block_in_place(|| server.copy()).unwrap();
    let load = Load::start(&cluster.doors, 4, "lost");
    load.accepts(150).await.unwrap();
    proxy.set_target(copy.address()).await;
    tokio::task::block_in_place(|| server.kill());
    let accepted = load.accepted();
    load.until(|load| load.accepted() > accepted + 50).await.unwrap();
    // Their promises were made by a server that is gone: they may be kept or not.
    oracle.unknown.extend(load.finish().await.unwrap().unknown);
    let load = Load::start(&cluster.doors, 4, "after");
    load.accepts(150).await.unwrap();
    oracle.merge(load.finish().await.unwrap());
    assert_eq!(pids(&cluster), before, "nobody was restarted");
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
}

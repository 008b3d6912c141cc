//! A controller that hangs while its lanes go to another one, and then wakes up.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use bellwire_integration_tests::stack::signal;
use bellwire_integration_tests::{Cluster, Load};
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Database, Proxy};
use tokio::time::{Instant, sleep_until};

use super::{
    LANES, REPEATED_PER_CRASH, TAKE_OVER, balanced, cluster, on_database, owned, taken_over, until_owns,
};

/// How long the process hangs.
const STOPPED: Duration = Duration::from_secs(15);
/// The line between the calls before and after the wake-up. Notes are appended by single writes, so their order in the
/// file is the order in which things happened.
const WOKEN: &str = "-- woken";

fn mark(cluster: &Cluster) {
    let mut notes = std::fs::File::options().append(true).create(true).open(cluster.notes()).unwrap();
    notes.write_all(format!("{WOKEN}\n").as_bytes()).unwrap();
}

/// Calls that `zombie` began after it woke up, of events that another controller had begun before.
fn stolen(cluster: &Cluster, zombie: &str) -> Vec<String> {
    let notes = std::fs::read_to_string(cluster.notes()).unwrap();
    let (mut begun, mut woken, mut stolen) = (BTreeMap::new(), false, Vec::new());
    for line in notes.lines() {
        woken |= line == WOKEN;
        let words: Vec<&str> = line.split(' ').collect();
        let [id, "start", who] = words[..] else { continue };
        if who != zombie {
            begun.insert(id, who);
        } else if woken && begun.contains_key(id) {
            stolen.push(line.to_string());
        }
    }
    stolen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigstop_and_sigcont() {
    let (_database, mut cluster) = on_database(2);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "z");
    load.accepts(200).await.unwrap();
    let zombie = cluster.members[0].pid().unwrap();
    signal(zombie, "STOP").unwrap();
    let stopped_at = Instant::now();
    taken_over("SIGSTOP", until_owns(&cluster.members[1], LANES).await.unwrap());
    load.accepts(50).await.unwrap();
    // The fault lasts this long: nothing is waited for here.
    sleep_until(stopped_at + STOPPED).await;
    mark(&cluster);
    signal(zombie, "CONT").unwrap();
    balanced(&cluster).await;
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
    // A poisoned event may be tried by one controller and, after the lane was given back in order, by the other.
    let stolen: Vec<String> = stolen(&cluster, "c0").into_iter().filter(|line| !is_poison(line)).collect();
    assert_eq!(
        stolen,
        Vec::<String>::new(),
        "the zombie began calls in lanes it had lost\n{}",
        cluster.logs()
    );
}

fn is_poison(line: &str) -> bool {
    let number = line.split(' ').next().and_then(|id| id.rsplit('-').next());
    number.and_then(|n| n.parse::<usize>().ok()).is_some_and(|n| n % 50 == 7)
}

/// One controller loses its way to the ledger, the other does not: it stops by itself, the other takes over, and when
/// the way is open again it takes part again, without a restart.
async fn cut_off(mode: Mode) {
    let database = Database::create().unwrap();
    let proxy = Proxy::start(database.address().unwrap()).await.unwrap();
    let mut cluster = cluster(&[proxy.url(&database.url()), database.url()]);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "c");
    load.accepts(200).await.unwrap();
    proxy.set(mode.clone()).await;
    proxy_resets(&proxy, &mode).await;
    let pid = cluster.members[0].pid();
    taken_over(
        &format!("a lost way to the ledger ({mode:?})"),
        until_owns(&cluster.members[1], LANES).await.unwrap(),
    );
    load.accepts(50).await.unwrap();
    mark(&cluster);
    proxy.set(Mode::Pass).await;
    balanced(&cluster).await;
    load.accepts(100).await.unwrap();
    let oracle = load.finish().await.unwrap();
    assert_eq!(cluster.members[0].pid(), pid);
    assert!(cluster.members[0].runs(), "it recovers by itself");
    cluster.settle_and_count(&oracle, REPEATED_PER_CRASH).await.unwrap();
    let stolen: Vec<String> = stolen(&cluster, "c0").into_iter().filter(|line| !is_poison(line)).collect();
    assert_eq!(stolen, Vec::<String>::new(), "it began calls in lanes it had lost\n{}", cluster.logs());
}

/// Old connections end too when new ones are refused, as when a server's host is restarted.
async fn proxy_resets(proxy: &Proxy, mode: &Mode) {
    if *mode == Mode::Refuse {
        proxy.reset_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_by_a_black_hole() {
    cut_off(Mode::BlackHole).await;
}

/// What was held back arrives late, when the lanes have another owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_by_a_stall() {
    cut_off(Mode::Stall).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_by_refusals() {
    cut_off(Mode::Refuse).await;
}

/// A stop too short to lose a lane costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_stop_keeps_the_lanes() {
    let (_database, mut cluster) = on_database(2);
    cluster.start_all().await.unwrap();
    balanced(&cluster).await;
    let load = Load::start(&cluster.doors, 4, "s");
    load.accepts(100).await.unwrap();
    let pid = cluster.members[0].pid().unwrap();
    signal(pid, "STOP").unwrap();
    sleep_until(Instant::now() + TAKE_OVER / 10).await;
    signal(pid, "CONT").unwrap();
    load.accepts(100).await.unwrap();
    assert_eq!(owned(&cluster.members[0]).await.unwrap(), LANES / 2);
    let oracle = load.finish().await.unwrap();
    cluster.settle_and_count(&oracle, 0).await.unwrap();
}

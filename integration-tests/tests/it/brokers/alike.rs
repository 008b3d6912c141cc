//! What holds for every kind of broker alike: crashes of the controller at every gap and at any moment, two controllers
//! over one Postgres, and connections that are cut, stall or lead nowhere.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use bellwire_integration_tests::brokers::Place;
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Database, Kafka, Proxy};
use tokio::time::sleep;

use super::world::{REPEATED_PER_CRASH, World, address, place};

/// Every gap between two durable writes on the way of a message.
const POINTS: [&str; 5] =
    ["source.recv=9", "append.before=4", "append.after_commit=7", "source.ack=5", "flush.after_commit=3"];

async fn crash_points(kind: &'static str) {
    let place = place(kind).await;
    let mut world = World::alone(&place);
    let mut producer = place.produce("c", 150, 1_000_000).unwrap();
    for point in POINTS {
        world.cluster.start(0, Some(&format!("{point}*off->return"))).await.unwrap();
        let status = world.cluster.members[0].ended().await.unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(6), "{point} ended it otherwise: {status}\n{}", world.cluster.logs());
    }
    world.cluster.start(0, None).await.unwrap();
    producer.confirms(50).await.unwrap();
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, POINTS.len() * REPEATED_PER_CRASH).await;
}

async fn killed_at_any_moment(kind: &'static str) {
    let place = place(kind).await;
    let mut world = World::alone(&place);
    let mut producer = place.produce("k", 150, 1_000_000).unwrap();
    let rounds = 4;
    for round in 0..rounds {
        let before = world.stored().await.map_or(0, |ids| ids.len());
        world.cluster.start(0, None).await.unwrap();
        world.stores(before + 20).await;
        // A different, fixed moment each round; the load decides what it hits.
        sleep(Duration::from_millis(7 + 53 * round as u64)).await;
        world.cluster.kill(0).await;
    }
    world.cluster.start(0, None).await.unwrap();
    producer.confirms(50).await.unwrap();
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, rounds * REPEATED_PER_CRASH).await;
}

/// Two controllers over one Postgres, each killed in turn.
async fn two_controllers(kind: &'static str) {
    let database = Database::create().unwrap();
    let place = place(kind).await;
    let mut world = World::new(&place, &[database.url(), database.url()], "");
    world.cluster.start_all().await.unwrap();
    let mut producer = place.produce("p", 150, 1_000_000).unwrap();
    let rounds = 4;
    for round in 0..rounds {
        let before = world.stored().await.unwrap().len();
        world.stores(before + 100).await;
        world.cluster.kill(round % 2).await;
        producer.confirms(100).await.unwrap();
        world.cluster.start(round % 2, None).await.unwrap();
    }
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, rounds * REPEATED_PER_CRASH).await;
}

fn socket(address: &str) -> SocketAddr {
    let rest = address.rsplit_once("://").map_or(address, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    rest.split('/').next().unwrap().to_socket_addrs().unwrap().next().unwrap()
}

/// A way to a broker that can be broken, and the place as it looks from there. A Kafka broker tells its clients where to
/// connect, so it is one of the test's own, and its producers come through the proxy too.
async fn breakable(kind: &'static str) -> (Place, Place, Proxy, Option<Kafka>) {
    if kind == "kafka" {
        let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], 1))).await.unwrap();
        let broker = tokio::task::block_in_place(|| Kafka::behind(proxy.address())).unwrap();
        proxy.set_target(broker.address()).await;
        let place = Place::make(kind, &broker.bootstrap(), "broken").await.unwrap();
        return (place.clone(), place, proxy, Some(broker));
    }
    let place = place(kind).await;
    let proxy = Proxy::start(socket(&address(kind))).await.unwrap();
    let seen = place.by(&proxy.url(&place.address));
    (place, seen, proxy, None)
}

/// Connections break in every way that a network can.
async fn broken_connections(kind: &'static str) {
    let (place, seen, proxy, _broker) = breakable(kind).await;
    let mut world = World::alone(&seen);
    world.cluster.start_all().await.unwrap();
    let producer = place.produce("b", 150, 1_000_000).unwrap();
    let pid = world.first().pid();
    let modes = [
        (Mode::Reset, 200),
        (Mode::CutFromServer(3_000), 1_000),
        (Mode::CutToServer(500), 1_000),
        (Mode::Stall, 3_000),
        (Mode::BlackHole, 3_000),
        (Mode::Refuse, 1_000),
    ];
    for (mode, millis) in modes {
        let before = world.stored().await.unwrap().len();
        world.stores(before + 50).await;
        proxy.set(mode.clone()).await;
        if mode == Mode::Refuse {
            proxy.reset_all().await;
        }
        sleep(Duration::from_millis(millis)).await;
        proxy.set(Mode::Pass).await;
    }
    let before = world.stored().await.unwrap().len();
    world.stores(before + 50).await;
    let oracle = producer.finish().await.unwrap();
    assert_eq!(world.first().pid(), pid, "the controller was not restarted");
    // No process ended: nothing that was answered was forgotten.
    world.count(&oracle, 0).await;
}

macro_rules! alike {
    ($($kind:ident),* $(,)?) => {
        $(
            mod $kind {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn crash_points() {
                    super::crash_points(stringify!($kind)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn killed_at_any_moment() {
                    super::killed_at_any_moment(stringify!($kind)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn two_controllers() {
                    super::two_controllers(stringify!($kind)).await;
                }

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn broken_connections() {
                    super::broken_connections(stringify!($kind)).await;
                }
            }
        )*
    };
}

alike! { kafka, rabbitmq, sqs }

//! What only Kafka does: its log outlives the broker, its group is shared out anew again and again, and it takes the
//! partitions from a member that seems to stand still.

use std::time::Duration;

use bellwire_integration_tests::brokers::{Client, Place};
use bellwire_test_servers::{Database, Kafka, shared};
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::world::{REPEATED_PER_CRASH, SQLITE, World, declared, place};

/// The broker is killed and comes back with its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_is_killed_and_comes_back() {
    let mut server = block_in_place(Kafka::durable).unwrap();
    let place = Place::make("kafka", &server.bootstrap(), "orders").await.unwrap();
    let mut world = World::alone(&place);
    world.cluster.start_all().await.unwrap();
    let mut producer = place.produce("d", 150, 1_000_000).unwrap();
    for _ in 0..3 {
        producer.confirms(150).await.unwrap();
        block_in_place(|| {
            server.kill().unwrap();
            server.start_again().unwrap();
        });
    }
    producer.confirms(150).await.unwrap();
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, 0).await;
}

/// Another member of the group comes and goes every two seconds under load. It takes records and commits none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_joins_and_leaves_every_two_seconds() {
    let place = place("kafka").await;
    let group = shared::unique("g");
    let mut world = World::of(&in_group(&place, &group), &place, &[SQLITE.into()]);
    world.cluster.start_all().await.unwrap();
    let producer = place.produce("s", 150, 1_000_000).unwrap();
    for _ in 0..4 {
        let mut stranger = Client::start(&["member", "kafka", &place.address, &place.name, &group]).unwrap();
        sleep(Duration::from_secs(2)).await;
        stranger.leave().await.unwrap();
        sleep(Duration::from_secs(2)).await;
    }
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, 0).await;
}

/// Of two controllers over one Postgres, one leaves in order and comes back every two seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_leaves_and_comes_back_every_two_seconds() {
    let database = Database::create().unwrap();
    let place = place("kafka").await;
    let mut world = World::new(&place, &[database.url(), database.url()], "");
    world.cluster.start_all().await.unwrap();
    let producer = place.produce("m", 150, 1_000_000).unwrap();
    let rounds = 4;
    for _ in 0..rounds {
        sleep(Duration::from_secs(2)).await;
        assert!(world.cluster.stop(1).await.unwrap().success());
        sleep(Duration::from_secs(2)).await;
        world.cluster.start(1, None).await.unwrap();
    }
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, rounds * REPEATED_PER_CRASH).await;
}

fn in_group(place: &Place, group: &str) -> String {
    let source = declared(place, &format!("group_id: {group}"));
    // Far less than the handler takes.
    let source = source
        .replace("heartbeat.interval.ms: 500", "heartbeat.interval.ms: 500, max.poll.interval.ms: 10000");
    format!(
        "service: oracle
sources:
  in: {{ {source} }}
functions:
  note:
    handler: note.handler
    format: json
    concurrency: 4
    timeout: 60s
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\", WHO: \"${{env:WHO}}\" }}
    events: [{{ source: in, batch: 1, retry: {{ attempts: 3, min_delay: 10ms, max_delay: 50ms }} }}]
"
    )
}

/// A handler takes far more than the group allows between two polls: nothing is handed over, nothing comes twice, and
/// the other partitions do not wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_causes_no_rebalance() {
    let place = place("kafka").await;
    let group = shared::unique("g");
    let mut world = World::of(&in_group(&place, &group), &place, &[SQLITE.into()]);
    world.cluster.start_all().await.unwrap();
    // A second member: were this controller thought dead, its partitions would go there, records and all.
    let mut witness = Client::start(&["member", "kafka", &place.address, &place.name, &group]).unwrap();
    sleep(Duration::from_secs(6)).await;
    let started = Instant::now();
    place.send("slow-0", r#"{"id": "slow-0", "seconds": 25}"#).await.unwrap();
    let producer = place.produce("f", 20, 300).unwrap();
    let mut oracle = producer.all().await.unwrap();
    oracle.acknowledged.insert("slow-0".into());
    while started.elapsed() < Duration::from_secs(24) {
        sleep(Duration::from_millis(100)).await;
    }
    let seen = witness.lines().len();
    witness.leave().await.unwrap();
    // What the witness was handed was stored by nobody; the controller reads it from its own position.
    assert_eq!(world.count(&oracle, 0).await, 0, "no delivery was repeated");
    let notes = std::fs::read_to_string(world.cluster.notes()).unwrap();
    assert_eq!(notes.lines().filter(|line| line.starts_with("slow-0 start")).count(), 1, "it ran once");
    println!("the other member was handed {seen} of {} records", oracle.acknowledged.len());
    assert!(seen < oracle.acknowledged.len(), "the controller kept its partitions");
}

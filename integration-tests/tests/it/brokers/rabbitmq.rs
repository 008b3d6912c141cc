//! What only RabbitMQ does: its node ends and comes back with its queues, and it cancels consumers.

use bellwire_integration_tests::Oracle;
use bellwire_integration_tests::brokers::Place;
use bellwire_test_servers::Rabbitmq;
use tokio::task::block_in_place;

use super::world::{World, place};

/// The node is killed and comes back, then stops in order and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_ends_and_comes_back() {
    let mut server = block_in_place(Rabbitmq::start).unwrap();
    let place = Place::make("rabbitmq", &server.url(), "orders").await.unwrap();
    let mut world = World::alone(&place);
    world.cluster.start_all().await.unwrap();
    let mut producer = place.produce("r", 150, 1_000_000).unwrap();
    for end in ["kill", "stop"] {
        producer.confirms(150).await.unwrap();
        block_in_place(|| {
            if end == "kill" { server.kill() } else { server.stop() }.unwrap();
            server.start_again().unwrap();
        });
    }
    producer.confirms(150).await.unwrap();
    let oracle = producer.finish().await.unwrap();
    world.count(&oracle, 0).await;
}

/// The queue is deleted, which cancels its consumer, and made again: reading goes on without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_consumer_comes_back() {
    let place = place("rabbitmq").await;
    let mut world = World::alone(&place);
    world.cluster.start_all().await.unwrap();
    let mut oracle = Oracle::default();
    for round in 0..3 {
        let producer = place.produce(&format!("q{round}"), 1_000, 100).unwrap();
        oracle.merge(producer.all().await.unwrap());
        world.stores(oracle.acknowledged.len()).await;
        if round < 2 {
            place.drop_queue().await.unwrap();
            Place::make("rabbitmq", &place.address, &place.name).await.unwrap();
        }
    }
    assert_eq!(oracle.acknowledged.len(), 300);
    world.count(&oracle, 0).await;
}

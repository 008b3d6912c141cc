//! What only SQS does: messages that were not deleted come again, groups keep their order, and S3 speaks through it.

use std::time::Duration;

use bellwire_integration_tests::Oracle;
use bellwire_integration_tests::brokers::{Client, Place};
use bellwire_integration_tests::stack::PATIENCE;
use bellwire_test_servers::proxy::Mode;
use bellwire_test_servers::{Database, Proxy, shared};
use tokio::time::{Instant, sleep};

use super::world::{SQLITE, World, address, declared, place};

/// Waits until nothing is left in the queue.
async fn emptied(place: &Place, world: &World) {
    let deadline = Instant::now() + PATIENCE;
    while place.waiting().await.unwrap() > 0 {
        assert!(Instant::now() < deadline, "messages stay in the queue\n{}", world.cluster.logs());
        sleep(Duration::from_millis(200)).await;
    }
}

/// Commits take longer than messages stay invisible (3 s): they are extended or come again, and are stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_outlasts_the_visibility() {
    let database = Database::create().unwrap();
    let proxy = Proxy::start(database.address().unwrap()).await.unwrap();
    let place = place("sqs").await;
    let mut world = World::new(&place, &[proxy.url(&database.url())], "");
    world.cluster.start_all().await.unwrap();
    let producer = place.produce("v", 100, 600).unwrap();
    for mode in [Mode::Delay(Duration::from_millis(400)), Mode::Stall] {
        sleep(Duration::from_secs(1)).await;
        proxy.set(mode).await;
        sleep(Duration::from_secs(5)).await;
        proxy.set(Mode::Pass).await;
    }
    let oracle = producer.all().await.unwrap();
    world.count(&oracle, 8 * 1_004).await;
    emptied(&place, &world).await;
}

/// Deletes fail: the messages come again and again until a delete gets through, and are stored once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletes_fail() {
    let place = place("sqs").await;
    let failing = Client::start(&["proxy", "sqs", &address("sqs"), "DeleteMessageBatch", "40"]).unwrap();
    let url = failing.says(1).await.unwrap()[0].clone();
    let mut world = World::alone(&place.by(&url));
    world.cluster.start_all().await.unwrap();
    let oracle = place.produce("d", 100, 400).unwrap().all().await.unwrap();
    world.count(&oracle, 0).await;
    failing.says(41).await.unwrap();
    emptied(&place, &world).await;
    world.count(&oracle, 0).await;
}

/// A FIFO queue is read like any other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifo_queue() {
    let place = Place::make("sqs", &address("sqs"), &format!("{}.fifo", shared::unique("t"))).await.unwrap();
    let mut world = World::alone(&place);
    world.cluster.start_all().await.unwrap();
    let oracle = place.produce("f", 200, 300).unwrap().all().await.unwrap();
    world.count(&oracle, 0).await;
    emptied(&place, &world).await;
}

/// Objects are put into a bucket; S3 tells the queue, and the function gets one event for each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_reach_a_function_by_way_of_a_queue() {
    let place = place("sqs").await;
    let bucket = shared::unique("photos");
    let service = format!(
        "service: objects
sources:
  in: {{ {} }}
functions:
  note:
    handler: objects.handler
    environment: {{ NOTES: \"${{env:TEST_DIR}}/notes\" }}
    events: [{{ s3: {{ bucket: {bucket}, via: in, suffix: .jpg }} }}]
",
        declared(&place, "")
    );
    let mut world = World::of(&service, &place, &[SQLITE.into()]);
    let handler = "import os
def handler(event, context):
    with open(os.environ['NOTES'], 'a') as notes:
        for record in event['Records']:
            notes.write(record['s3']['object']['key'] + ' ok\\n')
";
    std::fs::write(world.first().path("objects.py"), handler).unwrap();
    world.cluster.start_all().await.unwrap();
    place.bucket(&bucket).await.unwrap();
    let mut oracle = Oracle::default();
    for n in 0..10 {
        place.put(&bucket, &format!("in/{n}.jpg"), "x").await.unwrap();
        oracle.acknowledged.insert(format!("in/{n}.jpg"));
    }
    place.put(&bucket, "in/other.txt", "x").await.unwrap();
    emptied(&place, &world).await;
    world.cluster.settled().await.unwrap();
    let count = oracle.count(&world.cluster.notes(), &Default::default());
    assert_eq!((count.served, count.duplicates), (10, 0), "{count:?}\n{}", world.cluster.logs());
    assert!(count.lost.is_empty() && count.invented.is_empty(), "{count:?}");
}

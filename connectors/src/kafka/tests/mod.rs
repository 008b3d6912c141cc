//! Against librdkafka's mock cluster, which is fast and alone, and against the broker of `BELLWIRE_TEST_KAFKA`.

mod broker;
mod contract;
mod envelope;
mod mock;
mod outlet;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{Append, EventQuery, Feed, Ledger, PositionAdvance, StoredEvent};
use bellwire_schemas::Clock;
use bellwire_schemas::brokers::{KafkaCluster, KafkaSource, LostPositions, StartingPosition};
use bellwire_schemas::service::{SourceKind, SourceSpec};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::intake::{Intake, Limits};
use crate::suite::source;

/// Longest wait for anything; a group whose member died needs about fifteen seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// A source of these topics.
fn kafka(bootstrap: &str, topics: &[&str]) -> KafkaSource {
    let librdkafka = BTreeMap::from([("session.timeout.ms".to_owned(), "6000".to_owned())]);
    let bootstrap_servers = bootstrap.split(',').map(str::to_owned).collect();
    KafkaSource {
        cluster: KafkaCluster { bootstrap_servers, librdkafka, ..KafkaCluster::default() },
        topics: topics.iter().map(|topic| (*topic).to_owned()).collect(),
        group_id: format!("g-{}", Uuid::new_v4().simple()),
        starting_position: StartingPosition::Earliest,
        lost_positions: LostPositions::Halt,
    }
}

fn spec(kafka: KafkaSource) -> SourceSpec {
    source("kafka.t", SourceKind::Kafka(kafka))
}

/// A name that no other test has.
fn unique() -> String {
    format!("t-{}", Uuid::new_v4().simple())
}

/// The real broker.
fn broker() -> String {
    std::env::var("BELLWIRE_TEST_KAFKA").expect(
        "BELLWIRE_TEST_KAFKA must name the bootstrap servers of a broker: ./test starts one and sets it",
    )
}

/// A topic at the real broker.
async fn topic(bootstrap: &str, partitions: i32) -> String {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let name = unique();
    let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for result in admin.create_topics([&new], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    name
}

fn producer(bootstrap: &str) -> FutureProducer {
    ClientConfig::new().set("bootstrap.servers", bootstrap).set("linger.ms", "1").create().unwrap()
}

/// Sends `count` records, numbered from `first`, with ten different keys, and waits until all are acknowledged.
async fn produce(bootstrap: &str, topic: &str, first: usize, count: usize) {
    let producer = producer(bootstrap);
    let mut sent = Vec::new();
    for number in first..first + count {
        let (key, value) = (format!("k{}", number % 10), number.to_string());
        let record = FutureRecord::to(topic).key(&key).payload(&value);
        sent.push(producer.send_result(record).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

/// The intake of one controller over a ledger.
struct Running {
    intake: Intake,
}

impl Running {
    async fn start(ledger: &ModelLedger, controller: &str, spec: SourceSpec) -> Self {
        Self::within(Limits::default(), ledger, controller, spec).await
    }

    async fn within(limits: Limits, ledger: &ModelLedger, controller: &str, spec: SourceSpec) -> Self {
        let clock = Clock::system();
        let feed = Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap();
        let (live, _) = broadcast::channel(16);
        let intake = Intake::new(Arc::new(feed), live, clock, limits, controller.into());
        intake.apply(vec![spec]).await.unwrap();
        Self { intake }
    }

    async fn stop(self) {
        self.intake.shutdown(Duration::from_secs(5)).await;
    }

    fn reason(&self) -> String {
        self.intake.status()[0].reason.clone().unwrap_or_default()
    }
}

async fn stored(ledger: &ModelLedger) -> Vec<StoredEvent> {
    let query = EventQuery { limit: 1_000_000, ascending: true, ..EventQuery::default() };
    ledger.events(&query).await.unwrap().items
}

/// Waits until something is true.
async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the ledger holds at least so many events, and returns them.
async fn until_stored(ledger: &ModelLedger, count: usize) -> Vec<StoredEvent> {
    until(&format!("{count} events"), async || stored(ledger).await.len() >= count).await;
    stored(ledger).await
}

/// The numbers of records, each exactly once, and in order within each partition.
fn once_and_in_order(events: &[StoredEvent], count: usize) {
    let mut numbers = Vec::new();
    let mut offsets: BTreeMap<(String, i64), i64> = BTreeMap::new();
    for stored in events {
        let data = stored.event.data.as_deref().unwrap();
        numbers.push(std::str::from_utf8(data).unwrap().parse::<usize>().unwrap());
        let place = (
            stored.event.meta["topic"].as_str().unwrap().to_owned(),
            stored.event.meta["partition"].as_i64().unwrap(),
        );
        let offset = stored.event.meta["offset"].as_i64().unwrap();
        if let Some(before) = offsets.insert(place, offset) {
            // One lane per key: only records of one key are compared, see the caller's ledger of one lane.
            assert!(before < offset, "out of order: {offset} after {before}");
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..count).collect::<Vec<_>>());
}

/// Writes a position as if it had been read so far.
async fn set_position(ledger: &ModelLedger, shard: &str, value: &str) {
    let append = Append {
        append_id: Uuid::now_v7(),
        events: Vec::new(),
        positions: vec![PositionAdvance { shard: shard.into(), expected: 0, value: value.into() }],
        quarantined: Vec::new(),
    };
    ledger.append(append, Clock::system().now()).await.unwrap();
}

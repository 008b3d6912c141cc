//! What a real broker shows: the contract, and everything that can go wrong on the way.

use std::sync::Arc;
use std::time::Duration;

use bellwire_test_servers::shared;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use bellwire_ledger::model::ModelLedger;
use bellwire_ledger::{EventQuery, Feed, Ledger, StoredEvent};
use bellwire_schemas::Clock;
use bellwire_schemas::brokers::RabbitmqSource;
use bellwire_schemas::service::{SourceKind, SourceSpec};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};

use super::RabbitmqConnector;
use super::tests::{plan, settings};
use crate::contract::{Batch, Committed, Connector, Fate};
use crate::suite::pressure::pushes_back;
use crate::suite::{Rig, START, keeps_the_contract, source};
use crate::{Intake, Limits, SourceReport};

mod faults;
mod login;
mod outlet;
mod poison;
mod stall;

fn url() -> String {
    shared::amqp().unwrap()
}

/// A publisher of one's own: a connection, and a channel with confirmations.
struct Publisher {
    _connection: Connection,
    channel: Channel,
}

impl Publisher {
    async fn new() -> Self {
        Self::at(&url()).await
    }

    async fn at(url: &str) -> Self {
        Self::try_at(url).await.unwrap()
    }

    async fn try_at(url: &str) -> lapin::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { _connection: connection, channel })
    }

    async fn declare(&self, kind: &str) -> String {
        let queue = shared::unique("bellwire");
        self.declare_as(&queue, kind).await;
        queue
    }

    async fn declare_as(&self, queue: &str, kind: &str) {
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        self.channel.queue_declare(queue.into(), durable, arguments).await.unwrap();
    }

    async fn send(&self, queue: &str, id: &str, body: &[u8]) {
        assert!(publish(&self.channel, queue, id, body).await.unwrap());
    }
}

/// A message, confirmed by the broker or not.
async fn publish(channel: &Channel, queue: &str, id: &str, body: &[u8]) -> lapin::Result<bool> {
    let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
    let options = BasicPublishOptions::default();
    Ok(channel.basic_publish("".into(), queue.into(), options, body, properties).await?.await?.is_ack())
}

/// An intake with one queue as its source, over a ledger in memory.
struct World {
    intake: Intake,
    ledger: ModelLedger,
    spec: SourceSpec,
}

impl World {
    async fn new(settings: RabbitmqSource) -> Self {
        Self::with(settings, |_| {}).await
    }

    async fn with(settings: RabbitmqSource, change: impl FnOnce(&mut SourceSpec)) -> Self {
        let ledger = ModelLedger::new(4);
        let clock = Clock::system();
        let feed = Feed::new(Arc::new(ledger.clone()), clock.clone()).await.unwrap();
        let (live, limits) = (broadcast::channel(10).0, Limits::default());
        let intake = Intake::new(Arc::new(feed), live, clock, limits, "test".into());
        let mut spec = source("rabbitmq.q", SourceKind::Rabbitmq(settings));
        change(&mut spec);
        intake.apply(vec![spec.clone()]).await.unwrap();
        Self { intake, ledger, spec }
    }

    fn report(&self) -> SourceReport {
        self.intake.status().remove(0)
    }

    fn stored(&self) -> u64 {
        self.report().counts.accepted
    }

    /// All stored events, oldest first.
    async fn events(&self) -> Vec<StoredEvent> {
        let query = EventQuery { limit: 100_000, ascending: true, ..EventQuery::default() };
        self.ledger.events(&query).await.unwrap().items
    }

    /// Waits until the source says why it fails.
    async fn complaint(&self, about: &str) -> String {
        until(about, || self.report().reason.is_some_and(|reason| reason.contains(about))).await;
        self.report().reason.unwrap_or_default()
    }

    /// Waits until the broker holds nothing of the queue: all is acknowledged.
    async fn drained(&self, publisher: &Publisher, queue: &str) {
        self.intake.shutdown(PATIENCE).await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let end = Instant::now() + PATIENCE;
        loop {
            let declared =
                publisher.channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
            let state = declared.unwrap();
            if state.consumer_count() == 0 {
                assert_eq!(state.message_count(), 0, "everything is acknowledged");
                return;
            }
            assert!(Instant::now() < end, "the consumer does not leave");
            sleep(STEP).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(10);

/// Looks again until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        sleep(STEP).await;
    }
}

struct BrokerRig {
    publisher: Publisher,
    queue: String,
    ledger: ModelLedger,
    made: usize,
    prefetch: Option<u16>,
}

impl BrokerRig {
    async fn new(kind: &str, prefetch: Option<u16>) -> Self {
        let publisher = Publisher::new().await;
        let queue = publisher.declare(kind).await;
        Self { publisher, queue, ledger: ModelLedger::new(4), made: 0, prefetch }
    }
}

impl Rig for BrokerRig {
    const IDLE: Duration = Duration::from_millis(500);
    const SOURCE: &str = "rabbitmq.q";

    fn ledger(&self) -> ModelLedger {
        self.ledger.clone()
    }

    async fn produce(&mut self, count: usize) {
        for _ in 0..count {
            self.made += 1;
            self.publisher.send(&self.queue, &format!("{:03}", self.made), b"{}").await;
        }
    }

    fn connect(&self) -> Box<dyn Connector> {
        let mut settings = settings(&url(), &self.queue);
        settings.prefetch = self.prefetch;
        Box::new(RabbitmqConnector::new(Arc::new(plan(&settings).unwrap()), "test"))
    }

    async fn commit(&self, batch: &Batch) -> Committed {
        let fates = batch.parcels.iter().map(|_| Fate::Quarantined("kept".into())).collect();
        Committed { fates, accepted_at: START }
    }
}

#[tokio::test]
async fn a_quorum_queue_keeps_the_contract() {
    keeps_the_contract(BrokerRig::new("quorum", None).await).await;
}

#[tokio::test]
async fn a_classic_queue_keeps_the_contract() {
    keeps_the_contract(BrokerRig::new("classic", None).await).await;
}

#[tokio::test]
async fn a_prefetch_of_one_keeps_the_contract() {
    keeps_the_contract(BrokerRig::new("quorum", Some(1)).await).await;
}

#[tokio::test]
async fn the_connector_is_pushed_back() {
    pushes_back(BrokerRig::new("quorum", None).await).await;
}

//! What a real broker shows: the contract, and everything that can go wrong on the way.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use uuid::Uuid;

use super::RabbitmqConnector;
use super::tests::{plan, settings};
use crate::contract::{Batch, Committed, Connector, Fate};
use crate::suite::{Rig, START, keeps_the_contract};

/// The variable that names a RabbitMQ for tests.
const VARIABLE: &str = "BELLWIRE_TEST_AMQP";

fn url() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!("{VARIABLE} is not set: run ./test, which starts a broker, or name one (amqp://user:password@host:port/vhost)")
    })
}

/// A publisher of one's own: a connection, and a channel with confirmations.
struct Publisher {
    _connection: Connection,
    channel: Channel,
}

impl Publisher {
    async fn new() -> Self {
        let connection = Connection::connect(&url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { _connection: connection, channel }
    }

    async fn declare(&self, kind: &str) -> String {
        let queue = format!("test-{}", Uuid::now_v7());
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
        let properties = BasicProperties::default().with_message_id(id.into()).with_delivery_mode(2);
        let options = BasicPublishOptions::default();
        let confirm = self.channel.basic_publish("".into(), queue.into(), options, body, properties);
        assert!(confirm.await.unwrap().await.unwrap().is_ack());
    }
}

struct BrokerRig {
    publisher: Publisher,
    queue: String,
    made: usize,
    prefetch: Option<u16>,
}

impl BrokerRig {
    async fn new(kind: &str, prefetch: Option<u16>) -> Self {
        let publisher = Publisher::new().await;
        let queue = publisher.declare(kind).await;
        Self { publisher, queue, made: 0, prefetch }
    }
}

impl Rig for BrokerRig {
    const IDLE: Duration = Duration::from_millis(500);

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

//! RabbitMQ: a quorum queue, filled anew for each round.

use bellwire_schemas::brokers::{RabbitmqSource, Tls};
use bellwire_schemas::service::{Secret, SourceKind, SourceSpec};
use bellwire_test_servers::shared::unique;
use futures::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use super::{Pace, Upstream, payload};

/// What the bare client lets the broker hand over ahead, and how many messages it acknowledges at once.
const PREFETCH: u16 = 2_000;
const ACKNOWLEDGED: usize = 500;
/// Messages that wait for their confirm while the queue is filled.
const UNCONFIRMED: usize = 1_000;

/// A queue of the benchmark's own.
pub struct Queue {
    url: String,
    name: String,
    messages: usize,
    channel: Channel,
    // The channel lives as long as its connection.
    connection: Connection,
}

impl Queue {
    /// Makes a queue for so many messages.
    pub async fn new(url: &str, messages: usize) -> anyhow::Result<Self> {
        let connection = Connection::connect(url, ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let name = unique("rates");
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(ShortString::from(name.as_str()), durable, arguments).await?;
        Ok(Self { url: url.into(), name, messages, channel, connection })
    }
}

impl Upstream for Queue {
    fn messages(&self) -> usize {
        self.messages
    }

    async fn refill(&mut self) -> anyhow::Result<()> {
        let mut waiting = Vec::with_capacity(UNCONFIRMED);
        for number in 0..self.messages {
            let durable = BasicProperties::default().with_delivery_mode(2);
            let (exchange, key) = (ShortString::from(""), ShortString::from(self.name.as_str()));
            let body = payload(number);
            let options = BasicPublishOptions::default();
            waiting.push(self.channel.basic_publish(exchange, key, options, body.as_bytes(), durable).await?);
            if waiting.len() == UNCONFIRMED || number + 1 == self.messages {
                for confirm in waiting.drain(..) {
                    confirm.await?;
                }
            }
        }
        Ok(())
    }

    async fn bare(&mut self) -> anyhow::Result<f64> {
        let channel = self.connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (queue, tag) = (ShortString::from(self.name.as_str()), ShortString::from("bare"));
        let mut consumer =
            channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
        let (mut pace, mut seen) = (Pace::new(), 0);
        loop {
            let delivery = consumer.next().await.ok_or_else(|| anyhow::anyhow!("the consumer ended"))??;
            seen += 1;
            let rate = pace.seen(seen, self.messages)?;
            if rate.is_some() || seen % ACKNOWLEDGED == 0 {
                delivery.ack(BasicAckOptions { multiple: true }).await?;
            }
            if let Some(rate) = rate {
                channel.close(200, "done".into()).await?;
                return Ok(rate);
            }
        }
    }

    fn source(&self) -> SourceSpec {
        let source = RabbitmqSource {
            url: Secret::new(&self.url),
            queue: self.name.clone(),
            prefetch: None,
            tls: Tls::Off,
            declare: None,
        };
        super::source("rabbitmq.bench", SourceKind::Rabbitmq(source))
    }
}

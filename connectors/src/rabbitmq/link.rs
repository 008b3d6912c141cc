//! A connection with one channel and, for a source, one consumer: made in one go, and dropped as a whole.

use std::sync::Mutex;
use std::time::Duration;

use bellwire_schemas::brokers::{QueueType, RabbitmqDeclare};
use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Consumer};
use tokio::time::timeout;

use super::config::{Broker, Plan};
use super::explain::{Doing, explain};
use super::transport::{self, Cable};

/// How long the broker may take for one answer.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long a farewell may take before the connection is cut.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A connection with one channel. Dropping it says goodbye to the broker, or cuts the connection after
/// [`CLOSE_WITHIN`]; what was not acknowledged then comes again, here or elsewhere.
pub(super) struct Link {
    broker: Broker,
    channel: Channel,
    parts: Option<(Connection, Cable)>,
}

impl Link {
    /// Connects, logs in and opens a channel; with `confirms`, the broker confirms what is published.
    ///
    /// # Errors
    /// Says what the broker, or the way to it, refused.
    pub(super) async fn open(broker: &Broker, name: &str, confirms: bool) -> Result<Self, String> {
        let (stream, cable) = transport::connect(broker).await?;
        let said = |error: &lapin::Error| explain(broker, Doing::Connecting, error);
        let runtime = lapin::runtime::default_runtime().map_err(|e| said(&e))?;
        let properties = ConnectionProperties::default()
            .with_connection_name(name.into())
            .with_client_property("product".into(), "bellwire".into());
        let stream = Mutex::new(Some(stream));
        let hand_over = async move |_, _| {
            let stream = stream.lock().expect("no code panics while it holds this lock").take();
            stream.map(AsyncTcpStream::Plain).ok_or_else(|| {
                lapin::Error::from(std::io::Error::new(
                    std::io::ErrorKind::NotConnected,
                    "one connection only",
                ))
            })
        };
        let connecting = Connection::connector(broker.uri(), runtime, hand_over, properties);
        let connection = within(broker, Doing::Connecting, connecting).await?;
        let channel = within(broker, Doing::Connecting, connection.create_channel()).await?;
        if confirms {
            let select = channel.confirm_select(ConfirmSelectOptions::default());
            within(broker, Doing::Connecting, select).await?;
        }
        Ok(Self { broker: broker.clone(), channel, parts: Some((connection, cable)) })
    }

    /// The channel.
    pub(super) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the broker holds back what this connection sends, because it is short of memory or disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.parts.as_ref().is_some_and(|(connection, _)| connection.status().blocked())
    }

    /// Whether it can still be used.
    pub(super) fn is_open(&self) -> bool {
        let connected = self.parts.as_ref().is_some_and(|(connection, _)| connection.status().connected());
        connected && self.channel.status().connected()
    }

    async fn ask<T>(
        &self,
        doing: Doing<'_>,
        asking: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, String> {
        within(&self.broker, doing, asking).await
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Some((connection, cable)) = self.parts.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // Whether the broker hears it or not, the connection ends here.
            let _ = timeout(CLOSE_WITHIN, connection.close(200, "".into())).await;
            drop(cable);
        });
    }
}

async fn within<T>(
    broker: &Broker,
    doing: Doing<'_>,
    asking: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, asking).await {
        Ok(answer) => answer.map_err(|error| explain(broker, doing, &error)),
        Err(_) => Err(format!("rabbitmq at {}: no answer in {ANSWER_WITHIN:?}", broker.place())),
    }
}

/// A link that reads a queue.
pub(super) struct Reader {
    link: Link,
    queue: String,
    tag: String,
    consumer: Consumer,
    prefetch: u16,
    consumers: u32,
    /// A channel for questions: one that the broker refuses must not end the consumer's.
    asking: Option<Channel>,
}

impl Reader {
    /// Opens a link, declares what the plan says, and begins to read.
    ///
    /// # Errors
    /// Says what the broker, or the way to it, refused.
    pub(super) async fn open(plan: &Plan, name: &str, prefetch: u16) -> Result<Self, String> {
        let link = Link::open(&plan.broker, name, false).await?;
        if let Some(declare) = &plan.declare {
            declare_queue(&link, &plan.queue, declare).await?;
        }
        let tag = format!("{name} 1");
        let consumer = consume(&link, &plan.queue, &tag, prefetch).await?;
        Ok(Self { link, queue: plan.queue.clone(), tag, consumer, prefetch, consumers: 1, asking: None })
    }

    /// Messages that the broker may hand over ahead.
    pub(super) fn prefetch(&self) -> u16 {
        self.prefetch
    }

    /// How many messages of the queue no consumer has, by a passive declaration, which needs no permission.
    ///
    /// # Errors
    /// When the broker does not say.
    pub(super) async fn waiting(&mut self) -> Result<u64, String> {
        let doing = Doing::Reading(&self.queue);
        let Some((connection, _)) = &self.link.parts else { return Err("not connected".into()) };
        let asking = match self.asking.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.link.ask(doing, connection.create_channel()).await?,
        };
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let question = asking.queue_declare(self.queue.as_str().into(), passive, FieldTable::default());
        let found = self.link.ask(doing, question).await?;
        self.asking = Some(asking);
        Ok(found.message_count().into())
    }

    /// Whether the broker holds back what this connection sends.
    pub(super) fn is_blocked(&self) -> bool {
        self.link.is_blocked()
    }

    /// The next message that is there already; `None` when there is none.
    ///
    /// # Errors
    /// When the consumer is over.
    pub(super) fn take(&mut self) -> Result<Option<Delivery>, String> {
        match self.consumer.next().now_or_never() {
            None => Ok(None),
            Some(next) => self.judge(next).map(Some),
        }
    }

    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// When the consumer is over.
    pub(super) async fn next(&mut self) -> Result<Delivery, String> {
        let next = self.consumer.next().await;
        self.judge(next)
    }

    fn judge(&self, next: Option<lapin::Result<Delivery>>) -> Result<Delivery, String> {
        match next {
            Some(Ok(delivery)) => Ok(delivery),
            Some(Err(error)) => Err(explain(&self.link.broker, Doing::Reading(&self.queue), &error)),
            None => Err(format!(
                "rabbitmq at {}: the broker ended the consumer of queue `{}` (deleted, or its leader moved)",
                self.link.broker.place(),
                self.queue
            )),
        }
    }

    /// Acknowledges everything up to a tag of this link.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub(super) async fn acknowledge(&self, tag: u64) -> Result<(), String> {
        let all = BasicAckOptions { multiple: true };
        self.link.ask(Doing::Reading(&self.queue), self.link.channel.basic_ack(tag, all)).await
    }

    /// Reads on with another prefetch, on the same channel; returns what the old consumer still held.
    ///
    /// # Errors
    /// When the broker refuses, or the consumer is over.
    pub(super) async fn resize(&mut self, prefetch: u16) -> Result<Vec<Delivery>, String> {
        let doing = Doing::Reading(&self.queue);
        let cancel = self.link.channel.basic_cancel(self.tag.as_str().into(), BasicCancelOptions::default());
        self.link.ask(doing, cancel).await?;
        let mut left = Vec::new();
        let drain = async {
            while let Some(next) = self.consumer.next().await {
                left.push(next.map_err(|error| explain(&self.link.broker, doing, &error))?);
            }
            Ok::<_, String>(())
        };
        match timeout(ANSWER_WITHIN, drain).await {
            Ok(drained) => drained?,
            Err(_) => return Err("the old consumer did not end".into()),
        }
        self.consumers += 1;
        let name = self.tag.rsplit_once(' ').map_or(self.tag.as_str(), |(name, _)| name);
        self.tag = format!("{name} {}", self.consumers);
        self.consumer = consume(&self.link, &self.queue, &self.tag, prefetch).await?;
        self.prefetch = prefetch;
        Ok(left)
    }
}

async fn consume(link: &Link, queue: &str, tag: &str, prefetch: u16) -> Result<Consumer, String> {
    let doing = Doing::Reading(queue);
    // Per consumer: quorum queues know no other kind.
    link.ask(doing, link.channel.basic_qos(prefetch, BasicQosOptions::default())).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    link.ask(doing, link.channel.basic_consume(queue.into(), tag.into(), options, none)).await
}

async fn declare_queue(link: &Link, queue: &str, declare: &RabbitmqDeclare) -> Result<(), String> {
    let kind = match declare.queue_type {
        QueueType::Quorum => "quorum",
        QueueType::Classic => "classic",
    };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declaring = link.channel.queue_declare(queue.into(), durable, arguments);
    link.ask(Doing::Declaring(queue), declaring).await?;
    let Some(exchange) = declare.exchange.as_deref().filter(|name| !name.is_empty()) else { return Ok(()) };
    let unnamed = [String::new()];
    let keys = if declare.routing_keys.is_empty() { &unnamed[..] } else { &declare.routing_keys[..] };
    for key in keys {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let binding =
            link.channel.queue_bind(queue.into(), exchange.into(), key.as_str().into(), options, none);
        link.ask(Doing::Binding(queue, exchange), binding).await?;
    }
    Ok(())
}

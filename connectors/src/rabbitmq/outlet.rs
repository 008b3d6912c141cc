//! Sends results to an exchange, each confirmed by the broker.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_schemas::Event;
use bellwire_schemas::brokers::RabbitmqDestination;
use bellwire_schemas::outlet::{Outgoing, Outlet, OutletError};
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use super::config::{Broker, fits};
use super::explain::{Doing, explain, is_final};
use super::link::{ANSWER_WITHIN, Link};

/// Before each attribute among the headers (CloudEvents AMQP binding 1.0.2, section 3.1.3.1, which prefers it to
/// `cloudEvents:` for the sake of JMS).
const PREFIX: &str = "cloudEvents_";
/// Longest `message-id`, in bytes (AMQP 0-9-1, "short string").
const MAX_ID_BYTES: usize = 255;
/// The delivery mode of messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// Messages on their way at once. Each has a connection to itself while it waits for its confirmation, so that a
/// returned message is never taken for another's.
const LINKS: usize = 4;

/// An exchange that results go to.
pub struct RabbitmqOutlet {
    broker: Broker,
    exchange: String,
    routing_key: String,
    idle: Mutex<Vec<Link>>,
    room: Semaphore,
}

impl RabbitmqOutlet {
    /// An outlet that connects with its first message.
    ///
    /// # Errors
    /// When the settings cannot work.
    pub fn new(destination: &RabbitmqDestination) -> Result<Self, String> {
        fits("exchange", &destination.exchange)?;
        fits("routing_key", &destination.routing_key)?;
        if destination.exchange.is_empty() && destination.routing_key.is_empty() {
            return Err(
                "`exchange` and `routing_key` are both empty: name an exchange, or a queue as key".into()
            );
        }
        Ok(Self {
            broker: Broker::new(&destination.url, &destination.tls)?,
            exchange: destination.exchange.clone(),
            routing_key: destination.routing_key.clone(),
            idle: Mutex::default(),
            room: Semaphore::new(LINKS),
        })
    }

    /// Where a message went, for people.
    fn place(&self) -> String {
        match self.exchange.as_str() {
            "" => format!("queue {}", self.routing_key),
            exchange => format!("{exchange}/{}", self.routing_key),
        }
    }

    /// A link that has no message on its way: one from before, or a new one.
    async fn link(&self) -> Result<(Link, Age), OutletError> {
        loop {
            let Some(link) = self.idle.lock().await.pop() else { break };
            if link.is_open() {
                return Ok((link, Age::Used));
            }
        }
        let link = Link::open(&self.broker, "bellwire outlet", true).await;
        link.map(|link| (link, Age::New)).map_err(OutletError::Unavailable)
    }

    async fn publish(&self, link: &Link, event: &Event) -> Result<(), Failure> {
        let unavailable = |why: &str| {
            Failure::Told(OutletError::Unavailable(format!("rabbitmq at {}: {why}", self.broker.place())))
        };
        if link.is_blocked() {
            return Err(unavailable("the broker is short of memory or disk and takes no messages"));
        }
        let failed = |error: &lapin::Error| {
            let text = explain(&self.broker, Doing::Publishing(&self.exchange), error);
            if is_final(error) { Failure::Told(OutletError::Refused(text)) } else { Failure::Broken(text) }
        };
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (self.exchange.as_str().into(), self.routing_key.as_str().into());
        let body = event.data.as_deref().unwrap_or_default();
        let publishing = async {
            let confirm =
                link.channel().basic_publish(exchange, key, options, body, properties(event)).await?;
            confirm.await
        };
        match timeout(ANSWER_WITHIN, publishing).await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(()),
            Ok(Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)))) => {
                Err(Failure::Told(self.returned(&returned)))
            }
            Ok(Ok(_)) => Err(unavailable("the broker did not keep the message (basic.nack)")),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) if link.is_blocked() => {
                Err(unavailable("the broker is short of memory or disk and takes no messages"))
            }
            Err(_) => Err(unavailable(&format!("no confirmation in {ANSWER_WITHIN:?}"))),
        }
    }

    fn returned(&self, returned: &BasicReturnMessage) -> OutletError {
        OutletError::Refused(format!(
            "rabbitmq at {}: no queue is bound to exchange `{}` for routing key `{}` ({}): bind one, or correct \
             `exchange` and `routing_key`",
            self.broker.place(),
            self.exchange,
            self.routing_key,
            returned.reply_text
        ))
    }
}

#[async_trait]
impl Outlet for RabbitmqOutlet {
    async fn send(&self, message: &Outgoing) -> Result<String, OutletError> {
        let _room = self.room.acquire().await.map_err(|e| OutletError::Unavailable(e.to_string()))?;
        loop {
            let (link, age) = self.link().await?;
            let sent = match (self.publish(&link, &message.event).await, age) {
                // A connection that broke while nobody used it says nothing about the broker.
                (Err(Failure::Broken(_)), Age::Used) => continue,
                (Err(Failure::Broken(why)), Age::New) => Err(OutletError::Unavailable(why)),
                (Err(Failure::Told(error)), _) => Err(error),
                (Ok(()), _) => Ok(()),
            };
            // Only a link whose message has its answer may carry the next one.
            if link.is_open() && !matches!(sent, Err(OutletError::Unavailable(_))) {
                self.idle.lock().await.push(link);
            }
            return sent.map(|()| self.place());
        }
    }
}

/// Why a message was not confirmed.
enum Failure {
    /// The connection broke: nobody knows.
    Broken(String),
    /// The broker, or its silence, said so.
    Told(OutletError),
}

/// Whether a link carried a message before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    New,
    Used,
}

/// Opens a destination.
///
/// # Errors
/// When the settings cannot work.
pub(crate) fn open(destination: &RabbitmqDestination) -> Result<Arc<dyn Outlet>, String> {
    Ok(Arc::new(RabbitmqOutlet::new(destination)?))
}

/// The attributes in binary mode; persistent, and under the event's id.
fn properties(event: &Event) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in event.attributes() {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        if name != "datacontenttype" && !text.is_empty() {
            let name = format!("{PREFIX}{name}");
            headers.insert(name.as_str().into(), AMQPValue::LongString(text.into()));
        }
    }
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    if event.id.len() <= MAX_ID_BYTES {
        properties = properties.with_message_id(event.id.as_str().into());
    }
    match event.datacontenttype.as_deref() {
        Some(kind) if kind.len() <= MAX_ID_BYTES => properties.with_content_type(kind.into()),
        None if event.data_json().is_some() => properties.with_content_type("application/json".into()),
        _ => properties,
    }
}

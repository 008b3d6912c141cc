//! A message of RabbitMQ, as events. Pure.

use bellwire_schemas::cloudevents::{self, Binding, CloudEventError, Decoded};
use bellwire_schemas::meta::{RabbitmqMeta, to_map};
use bellwire_schemas::{Event, Timestamp};
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::AMQPValue;
use serde_json::Value;

use super::values;
use crate::message::identity;
use crate::{Content, Draft};

/// `type` of an event that came as no CloudEvent.
pub const TYPE: &str = "rabbitmq.message";
/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// A message as the broker handed it over.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The exchange it was published to; empty for the default one.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether it was handed over before.
    pub redelivered: bool,
    /// Properties and headers.
    pub properties: BasicProperties,
    /// The body.
    pub data: Bytes,
}

/// The events of a message: a CloudEvent as sent, in binary or structured mode, or a batch of them; any other message
/// as one event of type [`TYPE`]. A message that says it is a CloudEvent and is none goes to quarantine.
pub fn contents(queue: &str, vhost: &str, message: &Message) -> Vec<Content> {
    let meta = meta(queue, vhost, message);
    match cloud_events(message) {
        None => vec![Content::Event(Box::new(plain(queue, message, meta)))],
        Some(Err(error)) => vec![quarantine(&error, message, &meta)],
        Some(Ok(Decoded::One(event))) => vec![Content::Event(Box::new(cloud(*event, message, meta, true)))],
        Some(Ok(Decoded::Many(events))) => events
            .into_iter()
            .map(|event| match event {
                Ok(event) => Content::Event(Box::new(cloud(event, message, meta.clone(), false))),
                Err(error) => quarantine(&error, message, &meta),
            })
            .collect(),
    }
}

/// Seconds since 1970 in RFC 3339; `None` for what it cannot write.
pub(super) fn time(seconds: u64) -> Option<String> {
    let micros = i64::try_from(seconds).ok().filter(|_| seconds <= LAST_SECOND)? * 1_000_000;
    Some(Timestamp::from_micros(micros).to_string())
}

fn meta(queue: &str, vhost: &str, message: &Message) -> serde_json::Map<String, Value> {
    to_map(&RabbitmqMeta {
        queue: queue.to_owned(),
        vhost: vhost.to_owned(),
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        redelivered: message.redelivered,
        properties: values::properties(&message.properties),
        headers: message.properties.headers().as_ref().map(values::headers).unwrap_or_default(),
    })
}

/// The publisher's `message-id`, under which a message is stored once.
fn message_id(message: &Message) -> Option<String> {
    message.properties.message_id().as_ref().map(ToString::to_string).filter(|id| !id.is_empty())
}

fn plain(queue: &str, message: &Message, meta: serde_json::Map<String, Value>) -> Draft {
    let content_type = message.properties.content_type().as_ref().map(|t| t.as_str().trim().to_owned());
    let id = message_id(message);
    let mut event = Event {
        id: id.clone().unwrap_or_default(),
        source: format!("rabbitmq:{queue}"),
        kind: TYPE.into(),
        subject: Some(message.routing_key.clone()).filter(|key| !key.is_empty()),
        time: message.properties.timestamp().and_then(time).unwrap_or_default(),
        datacontenttype: content_type.filter(|t| !t.is_empty()),
        data: (!message.data.is_empty()).then(|| message.data.clone()),
        meta,
        ..Event::default()
    };
    trace(&mut event, message);
    Draft { event, key: None, dedup: id, keep_bad: true }
}

fn cloud(mut event: Event, message: &Message, meta: serde_json::Map<String, Value>, alone: bool) -> Draft {
    event.meta = meta;
    trace(&mut event, message);
    // A batch shares its message-id, so there the events' own identities count.
    let dedup = message_id(message).filter(|_| alone).unwrap_or_else(|| identity(&event));
    Draft { event, key: None, dedup: Some(dedup), keep_bad: true }
}

fn quarantine(error: &CloudEventError, message: &Message, meta: &serde_json::Map<String, Value>) -> Content {
    Content::Quarantine {
        reason: error.to_string(),
        bytes: message.data.clone(),
        meta: Value::Object(meta.clone()).to_string(),
    }
}

/// The message read as a CloudEvent; `None` when it does not say that it is one. Attributes are the headers that the
/// AMQP binding would put into the application properties.
fn cloud_events(message: &Message) -> Option<Result<Decoded, CloudEventError>> {
    let content_type = message.properties.content_type().as_ref().map(|t| t.as_str());
    let table = message.properties.headers().as_ref();
    let names = table.into_iter().flat_map(|table| table.inner().keys().map(|name| name.as_str()));
    cloudevents::mode(Binding::Amqp, content_type, names)?;
    let texts: Vec<(&str, Vec<u8>)> = table
        .into_iter()
        .flat_map(|table| table.inner())
        .filter(|(name, _)| !name.as_str().eq_ignore_ascii_case("content-type"))
        .filter_map(|(name, value)| Some((name.as_str(), values::text_of(value)?)))
        .collect();
    let mut headers: Vec<(&str, &[u8])> = texts.iter().map(|(name, text)| (*name, text.as_slice())).collect();
    if let Some(content_type) = content_type {
        headers.push(("content-type", content_type.as_bytes()));
    }
    cloudevents::decode(Binding::Amqp, &headers, &message.data).transpose()
}

/// W3C trace context in the headers becomes the event's, unless it has its own.
fn trace(event: &mut Event, message: &Message) {
    let Some(table) = message.properties.headers() else { return };
    if event.extensions.contains_key("traceparent") {
        return;
    }
    for name in ["traceparent", "tracestate"] {
        if let Some(AMQPValue::LongString(text)) = table.inner().get(name)
            && let Ok(text) = std::str::from_utf8(text.as_bytes())
            && !text.trim().is_empty()
        {
            event.extensions.insert(name.into(), text.trim().into());
        }
    }
}

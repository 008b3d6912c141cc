//! Samples of messages: what the broker knew is taken from them into the forms in which connectors keep it.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bellwire_schemas::Event;
use bellwire_schemas::meta::{KafkaMeta, RabbitmqMeta, SqsAttribute, SqsMeta, to_map};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::base;
use crate::shape::lambda::Account;

/// The events of a self-managed Kafka cluster's sample.
pub(super) fn kafka(sample: &Value) -> Vec<Event> {
    let records = sample["records"].as_object().into_iter().flat_map(Map::values);
    records.flat_map(|list| list.as_array().into_iter().flatten()).map(|r| kafka_event(r, sample)).collect()
}

fn kafka_event(record: &Value, sample: &Value) -> Event {
    let key = record["key"].as_str().map(|key| BASE64.decode(key).unwrap_or_default());
    let subject = key.as_ref().and_then(|key| String::from_utf8(key.clone()).ok());
    let pairs = record["headers"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
    let headers: Vec<(String, Vec<u8>)> =
        pairs.map(|(name, bytes)| (name.clone(), bytes_of(bytes))).collect();
    let meta = KafkaMeta {
        topic: text(record, "topic"),
        partition: record["partition"].as_i64().and_then(|n| n.try_into().ok()).unwrap_or_default(),
        offset: record["offset"].as_i64().unwrap_or_default(),
        timestamp: record["timestamp"].as_i64(),
        timestamp_type: record["timestampType"].as_str().map(str::to_owned),
        key_base64: key.filter(|_| subject.is_none()).map(|key| BASE64.encode(key)),
        tombstone: record["value"].is_null(),
        headers: BTreeMap::new(),
        raw_headers: headers.into_iter().map(|(name, bytes)| (name, Some(BASE64.encode(bytes)))).collect(),
        bootstrap_servers: text(sample, "bootstrapServers"),
    };
    Event {
        subject,
        meta: to_map(&meta),
        data: data(&record["value"]),
        ..base("kafka:sample", "kafka.record")
    }
}

/// The events of a RabbitMQ sample, and the account and broker that its ARN names.
pub(super) fn rabbitmq(sample: &Value) -> (Vec<Event>, Account) {
    let mut events = Vec::new();
    for (place, messages) in sample["rmqMessagesByQueue"].as_object().into_iter().flatten() {
        let (queue, vhost) = place.split_once("::").unwrap_or((place, ""));
        for message in messages.as_array().into_iter().flatten() {
            events.push(rabbitmq_event(queue, vhost, message));
        }
    }
    // arn:aws:mq:<region>:<account>:broker:<name>:<id>
    let arn: Vec<&str> = sample["eventSourceArn"].as_str().unwrap_or_default().splitn(7, ':').collect();
    let part = |index: usize| arn.get(index).copied().unwrap_or_default().to_owned();
    (events, Account { id: part(4), region: part(3), broker: part(6) })
}

fn rabbitmq_event(queue: &str, vhost: &str, message: &Value) -> Event {
    let mut properties: Map<String, Value> =
        message["basicProperties"].as_object().cloned().unwrap_or_default();
    properties.remove("bodySize");
    let headers = match properties.remove("headers") {
        Some(Value::Object(headers)) => {
            headers.into_iter().map(|(name, value)| (name, kept(value))).collect()
        }
        _ => Map::new(),
    };
    properties.retain(|_, value| !value.is_null());
    if let Some(seconds) = properties.get("timestamp").and_then(Value::as_str).and_then(seconds) {
        properties.insert("timestamp".into(), json!(seconds));
    }
    let meta = RabbitmqMeta {
        queue: queue.to_owned(),
        vhost: vhost.to_owned(),
        redelivered: message["redelivered"].as_bool().unwrap_or_default(),
        properties,
        headers,
        ..RabbitmqMeta::default()
    };
    let kind = "rabbitmq.message";
    Event { meta: to_map(&meta), data: data(&message["data"]), ..base("rabbitmq:sample", kind) }
}

/// A header as the connector keeps it: text where it is text, else its bytes in base64.
fn kept(value: Value) -> Value {
    match value {
        Value::Object(map) if map.len() == 1 && map.contains_key("bytes") => {
            String::from_utf8(bytes_of(&map["bytes"]))
                .map_or_else(|e| json!({ "base64": BASE64.encode(e.as_bytes()) }), Value::from)
        }
        Value::Object(map) => {
            map.into_iter().map(|(name, value)| (name, kept(value))).collect::<Map<_, _>>().into()
        }
        Value::Array(items) => items.into_iter().map(kept).collect(),
        other => other,
    }
}

fn seconds(text: &str) -> Option<i64> {
    let time = jiff::civil::DateTime::strptime("%b %d, %Y, %I:%M:%S %p", text).ok()?;
    Some(time.in_tz("UTC").ok()?.timestamp().as_second())
}

/// The events of an SQS sample.
pub(crate) fn sqs(records: &[Value]) -> Vec<Event> {
    records.iter().map(sqs_event).collect()
}

fn sqs_event(record: &Value) -> Event {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let maybe = |value: &Value| value.as_str().map(str::to_owned);
    let attribute = |value: &Value| SqsAttribute {
        data_type: text(value, "dataType"),
        string_value: maybe(&value["stringValue"]),
        binary_value: maybe(&value["binaryValue"]),
        string_list_values: texts(&value["stringListValues"]),
        binary_list_values: texts(&value["binaryListValues"]),
    };
    let system = record["attributes"].as_object().into_iter().flatten();
    let own = record["messageAttributes"].as_object().into_iter().flatten();
    let meta = SqsMeta {
        message_id: text(record, "messageId"),
        receipt_handle: text(record, "receiptHandle"),
        attributes: system.filter_map(|(name, value)| Some((name.clone(), maybe(value)?))).collect(),
        message_attributes: own.map(|(name, value)| (name.clone(), attribute(value))).collect(),
        md5_of_body: maybe(&record["md5OfBody"]),
        md5_of_message_attributes: maybe(&record["md5OfMessageAttributes"]),
        queue_arn: text(record, "eventSourceARN"),
        region: text(record, "awsRegion"),
    };
    let body = Bytes::from(text(record, "body"));
    let data = (!body.is_empty()).then_some(body);
    Event { meta: to_map(&meta), data, ..base("sqs:sample", "sqs.message") }
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

fn data(base64: &Value) -> Option<Bytes> {
    base64.as_str().and_then(|text| BASE64.decode(text).ok()).map(Bytes::from)
}

/// Bytes as numbers, signed or not.
fn bytes_of(value: &Value) -> Vec<u8> {
    let byte = |number: &Value| number.as_i64().map(|n| n.rem_euclid(256)).and_then(|n| u8::try_from(n).ok());
    value.as_array().into_iter().flatten().filter_map(byte).collect()
}

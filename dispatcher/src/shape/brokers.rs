//! What AWS Lambda's event source mappings would have sent for messages of Kafka, RabbitMQ and SQS, rebuilt from the
//! bytes of the payload and the `meta` that the connector kept.
//!
//! Sources: the event references in the Lambda developer guide ("Using Lambda with self-managed Apache Kafka", "with
//! Amazon MQ", "with Amazon SQS"), and the types and fixtures of `aws-lambda-go` and `aws-lambda-rust-runtime`. Bytes
//! stand as signed numbers, as AWS sends them: that is also what the Rust types read.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bellwire_schemas::cloudevents;
use bellwire_schemas::meta::{KafkaMeta, RabbitmqMeta, SqsAttribute, SqsMeta, from_map};
use bellwire_schemas::{Event, Timestamp};
use serde_json::{Map, Value, json};

use super::lambda::Account;

/// The properties of AMQP 0-9-1, section 4.2.6.1, under Lambda's names.
const PROPERTIES: [&str; 13] = [
    "contentType",
    "contentEncoding",
    "deliveryMode",
    "priority",
    "correlationId",
    "replyTo",
    "expiration",
    "messageId",
    "timestamp",
    "type",
    "userId",
    "appId",
    "clusterId",
];

/// How Lambda writes a time of RabbitMQ, in UTC.
pub(super) const AMQP_TIME: &str = "%b %-d, %Y, %-I:%M:%S %p";

/// The event of a self-managed Kafka cluster, each partition in the order of its offsets; `None` when one of the events
/// was not read from Kafka.
pub(super) fn kafka(events: &[&Event]) -> Option<Value> {
    let mut partitions: BTreeMap<String, Vec<(i64, Value)>> = BTreeMap::new();
    let mut servers = String::new();
    for event in events {
        let meta: KafkaMeta = from_map(&event.meta)?;
        let place = partition(&meta);
        partitions.entry(place).or_default().push((meta.offset, kafka_record(event, &meta)));
        servers = meta.bootstrap_servers;
    }
    let in_order = |mut records: Vec<(i64, Value)>| -> Value {
        records.sort_by_key(|(offset, _)| *offset);
        records.into_iter().map(|(_, record)| record).collect()
    };
    let records: Map<String, Value> =
        partitions.into_iter().map(|(place, records)| (place, in_order(records))).collect();
    Some(json!({ "eventSource": "SelfManagedKafka", "bootstrapServers": servers, "records": records }))
}

/// A partition as Lambda names it, also in what a function reports about a record.
pub(crate) fn partition(meta: &KafkaMeta) -> String {
    format!("{}-{}", meta.topic, meta.partition)
}

/// Lambda leaves out what a record does not have: key, value, time.
fn kafka_record(event: &Event, meta: &KafkaMeta) -> Value {
    let mut record = Map::new();
    record.insert("topic".into(), json!(meta.topic));
    record.insert("partition".into(), json!(meta.partition));
    record.insert("offset".into(), json!(meta.offset));
    if let Some(timestamp) = meta.timestamp {
        record.insert("timestamp".into(), json!(timestamp));
    }
    if let Some(kind) = &meta.timestamp_type {
        record.insert("timestampType".into(), json!(kind));
    }
    // The subject of a CloudEvent is its sender's, and says nothing about the key.
    let subject = event.subject.as_ref().filter(|_| event.kind == "kafka.record");
    let key = meta.key_base64.clone().or_else(|| subject.map(|subject| BASE64.encode(subject)));
    if let Some(key) = key {
        record.insert("key".into(), key.into());
    }
    if !meta.tombstone {
        let content_type = meta.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let value = message(event, content_type.map(|(_, value)| value.as_str()));
        record.insert("value".into(), BASE64.encode(value).into());
    }
    record.insert("headers".into(), kafka_headers(meta).into());
    Value::Object(record)
}

fn kafka_headers(meta: &KafkaMeta) -> Vec<Value> {
    let one =
        |name: &str, bytes: &[u8]| Value::Object([(name.to_owned(), signed(bytes))].into_iter().collect());
    if meta.raw_headers.is_empty() {
        return meta.headers.iter().map(|(name, value)| one(name, value.as_bytes())).collect();
    }
    let bytes =
        |value: &Option<String>| BASE64.decode(value.as_deref().unwrap_or_default()).unwrap_or_default();
    meta.raw_headers.iter().map(|(name, value)| one(name, &bytes(value))).collect()
}

/// The event of an Amazon MQ broker; `None` when one of the events was not read from RabbitMQ.
pub(super) fn rabbitmq(events: &[&Event], account: &Account) -> Option<Value> {
    let mut messages: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for event in events {
        let meta: RabbitmqMeta = from_map(&event.meta)?;
        let place = format!("{}::{}", meta.queue, meta.vhost);
        messages.entry(place).or_default().push(rabbitmq_message(event, &meta));
    }
    let Account { id, region, broker } = account;
    let arn = format!("arn:aws:mq:{region}:{id}:broker:{broker}");
    Some(json!({ "eventSource": "aws:rmq", "eventSourceArn": arn, "rmqMessagesByQueue": messages }))
}

fn rabbitmq_message(event: &Event, meta: &RabbitmqMeta) -> Value {
    let body = message(event, meta.properties.get("contentType").and_then(Value::as_str));
    let mut properties = Map::new();
    for name in PROPERTIES {
        let value = match (name, meta.properties.get(name)) {
            ("timestamp", Some(Value::Number(seconds))) => amqp_time(seconds.as_u64()),
            (_, Some(value)) => value.clone(),
            // What the protocol says of messages without them; official types read a number here.
            ("deliveryMode", None) => json!(1),
            ("priority", None) => json!(0),
            (_, None) => Value::Null,
        };
        properties.insert(name.into(), value);
    }
    let headers: Map<String, Value> =
        meta.headers.iter().map(|(name, value)| (name.clone(), amqp_value(value))).collect();
    properties.insert("headers".into(), headers.into());
    properties.insert("bodySize".into(), json!(body.len()));
    json!({ "basicProperties": properties, "redelivered": meta.redelivered, "data": BASE64.encode(body) })
}

/// Text and bytes as `{"bytes": […]}`, the form of a long string in RabbitMQ's own Java client; the rest as it is.
fn amqp_value(value: &Value) -> Value {
    match value {
        Value::String(text) => json!({ "bytes": signed(text.as_bytes()) }),
        Value::Array(items) => items.iter().map(amqp_value).collect(),
        Value::Object(table) if table.len() == 1 => {
            match (
                table.get("base64").and_then(Value::as_str),
                table.get("timestamp").and_then(Value::as_u64),
            ) {
                (Some(bytes), _) => json!({ "bytes": signed(&BASE64.decode(bytes).unwrap_or_default()) }),
                (_, Some(seconds)) => amqp_time(Some(seconds)),
                _ => amqp_table(table),
            }
        }
        Value::Object(table) => amqp_table(table),
        other => other.clone(),
    }
}

fn amqp_table(table: &Map<String, Value>) -> Value {
    table.iter().map(|(name, value)| (name.clone(), amqp_value(value))).collect::<Map<_, _>>().into()
}

/// Seconds since 1970 as Lambda writes them; beyond what a date can say, nothing.
fn amqp_time(seconds: Option<u64>) -> Value {
    let micros = seconds.and_then(|s| i64::try_from(s).ok()?.checked_mul(1_000_000));
    micros.map_or(Value::Null, |micros| {
        Timestamp::from_micros(micros).to_jiff().strftime(AMQP_TIME).to_string().into()
    })
}

/// The event of an SQS queue; `None` when one of the events was not read from SQS.
pub(super) fn sqs(events: &[&Event]) -> Option<Value> {
    let records: Option<Vec<Value>> = events.iter().map(|event| sqs_record(event)).collect();
    Some(json!({ "Records": records? }))
}

fn sqs_record(event: &Event) -> Option<Value> {
    let meta: SqsMeta = from_map(&event.meta)?;
    let content_type =
        meta.message_attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let body = message(event, content_type.and_then(|(_, value)| value.string_value.as_deref()));
    let attributes: Map<String, Value> =
        meta.message_attributes.iter().map(|(name, value)| (name.clone(), sqs_attribute(value))).collect();
    let mut record = json!({
        "messageId": meta.message_id,
        "receiptHandle": meta.receipt_handle,
        "body": String::from_utf8_lossy(&body),
        "attributes": meta.attributes,
        "messageAttributes": attributes,
        "eventSource": "aws:sqs",
        "eventSourceARN": meta.queue_arn,
        "awsRegion": meta.region,
    });
    for (name, value) in
        [("md5OfBody", meta.md5_of_body), ("md5OfMessageAttributes", meta.md5_of_message_attributes)]
    {
        if let Some(value) = value {
            record[name] = value.into();
        }
    }
    Some(record)
}

/// The lists are there even when they are empty, as in AWS's records.
fn sqs_attribute(attribute: &SqsAttribute) -> Value {
    let mut out = json!({
        "dataType": attribute.data_type,
        "stringListValues": attribute.string_list_values,
        "binaryListValues": attribute.binary_list_values,
    });
    for (name, value) in [("stringValue", &attribute.string_value), ("binaryValue", &attribute.binary_value)]
    {
        if let Some(value) = value {
            out[name] = value.as_str().into();
        }
    }
    out
}

/// The message as it lay in the broker: the payload, or the whole CloudEvent where it came in structured mode.
fn message<'e>(event: &'e Event, content_type: Option<&str>) -> Cow<'e, [u8]> {
    let structured =
        content_type.is_some_and(|t| t.to_ascii_lowercase().starts_with("application/cloudevents"));
    match &event.data {
        _ if structured => Cow::Owned(cloudevents::encode_structured(event).to_vec()),
        Some(data) => Cow::Borrowed(data),
        None => Cow::Borrowed(&[]),
    }
}

fn signed(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| Value::from(i8::from_ne_bytes([*byte]))).collect()
}

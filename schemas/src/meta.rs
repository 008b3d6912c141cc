//! What a broker said about a message besides its payload: the form in which connectors keep it in `Event::meta`, and
//! from which the event that AWS Lambda would have sent is rebuilt. Filters see it under `meta`.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A record of Kafka. The value is the event's data, the key its `subject` when it is text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KafkaMeta {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970; absent when the record has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<i64>,
    /// `CREATE_TIME` or `LOG_APPEND_TIME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_type: Option<String>,
    /// The key in base64, when it is not UTF-8 text (else it is the event's subject).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The record has no value at all (a tombstone), rather than an empty one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstone: bool,
    /// Headers as text, for filters; of those with one name the last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// All headers in order with their values in base64, when `headers` does not say it all: values that are not
    /// UTF-8, names that occur twice, names that are not in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raw_headers: Vec<(String, Option<String>)>,
    /// The cluster's brokers as configured, `host:port` joined by commas.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bootstrap_servers: String,
}

/// A message of RabbitMQ. The body is the event's data, the routing key its `subject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RabbitmqMeta {
    /// The queue.
    pub queue: String,
    /// Its virtual host.
    pub vhost: String,
    /// The exchange it was published to; empty for the default one.
    #[serde(default)]
    pub exchange: String,
    /// The routing key.
    #[serde(default)]
    pub routing_key: String,
    /// Whether the broker handed it over before.
    #[serde(default)]
    pub redelivered: bool,
    /// AMQP basic properties under Lambda's names (`contentType`, `deliveryMode`, `messageId`, …), headers and body
    /// size left out; absent ones are not there.
    #[serde(default)]
    pub properties: Map<String, Value>,
    /// Headers: texts, numbers, booleans, lists and tables as JSON; bytes that are not UTF-8 as `{"base64": "…"}`;
    /// times as `{"timestamp": seconds}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub headers: Map<String, Value>,
}

/// A message of SQS. The body is the event's data, the group its `subject`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SqsMeta {
    /// The id that SQS gave it.
    pub message_id: String,
    /// The receipt handle with which it was received; of no use after the commit.
    #[serde(default)]
    pub receipt_handle: String,
    /// `SentTimestamp`, `ApproximateReceiveCount`, `MessageGroupId`, …, as SQS writes them.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// The sender's attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub message_attributes: BTreeMap<String, SqsAttribute>,
    /// MD5 of the body, as SQS says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5_of_body: Option<String>,
    /// MD5 of the sender's attributes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5_of_message_attributes: Option<String>,
    /// The queue's ARN.
    pub queue_arn: String,
    /// The region.
    pub region: String,
}

/// An attribute of a message of SQS.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SqsAttribute {
    /// `String`, `Number`, `Binary`, with an optional `.suffix`.
    pub data_type: String,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// The bytes in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_value: Option<String>,
    /// Lists of texts, which SQS's interface has and SQS itself does not use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub string_list_values: Vec<String>,
    /// Lists of bytes in base64, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub binary_list_values: Vec<String>,
}

/// As `Event::meta` keeps it.
pub fn to_map(meta: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(meta) {
        Ok(Value::Object(map)) => map,
        // The types above are maps with text keys, which always have a JSON form.
        _ => Map::new(),
    }
}

/// Reads it back; `None` when the event came from elsewhere.
pub fn from_map<T: DeserializeOwned>(meta: &Map<String, Value>) -> Option<T> {
    serde_json::from_value(Value::Object(meta.clone())).ok()
}

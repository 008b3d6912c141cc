//! Values of AMQP headers and properties as JSON. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use serde_json::{Map, Number, Value, json};

/// Headers as `meta` keeps them.
pub(super) fn headers(table: &FieldTable) -> Map<String, Value> {
    table.into_iter().map(|(name, value)| (name.to_string(), json_of(value))).collect()
}

/// Basic properties under the names of Lambda's `basicProperties`, headers left out; the timestamp in seconds since
/// 1970, as AMQP has it.
pub(super) fn properties(properties: &BasicProperties) -> Map<String, Value> {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| Value::from(text.as_str()));
    let all = [
        ("contentType", text(properties.content_type())),
        ("contentEncoding", text(properties.content_encoding())),
        ("deliveryMode", properties.delivery_mode().map(Value::from)),
        ("priority", properties.priority().map(Value::from)),
        ("correlationId", text(properties.correlation_id())),
        ("replyTo", text(properties.reply_to())),
        ("expiration", text(properties.expiration())),
        ("messageId", text(properties.message_id())),
        ("timestamp", properties.timestamp().map(Value::from)),
        ("type", text(properties.kind())),
        ("userId", text(properties.user_id())),
        ("appId", text(properties.app_id())),
        ("clusterId", text(properties.cluster_id())),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A value as JSON: text, numbers, booleans, lists and tables as they are; bytes that are no text as
/// `{"base64": …}`; a time as `{"timestamp": seconds}`; what JSON has no number for (NaN) as text.
pub(super) fn json_of(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => float(f64::from(*value)),
        AMQPValue::Double(value) => float(*value),
        AMQPValue::DecimalValue(value) => float(f64::from(value.value) / 10f64.powi(i32::from(value.scale))),
        AMQPValue::ShortString(text) => json!(text.as_str()),
        AMQPValue::LongString(text) => bytes(text.as_bytes()),
        AMQPValue::ByteArray(data) => bytes(data.as_slice()),
        AMQPValue::FieldArray(items) => items.as_slice().iter().map(json_of).collect(),
        AMQPValue::FieldTable(table) => Value::Object(headers(table)),
        AMQPValue::Timestamp(seconds) => json!({ "timestamp": seconds }),
        AMQPValue::Void => Value::Null,
    }
}

/// The text of a value that is one, or that has one form as text: what a CloudEvents attribute may be.
pub(super) fn text_of(value: &AMQPValue) -> Option<Vec<u8>> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes().to_vec()),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) | AMQPValue::Void | AMQPValue::ByteArray(_) => {
            None
        }
        AMQPValue::Timestamp(seconds) => super::envelope::time(*seconds).map(String::into_bytes),
        other => match json_of(other) {
            Value::String(text) => Some(text.into_bytes()),
            value => Some(value.to_string().into_bytes()),
        },
    }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::from(value.to_string()), Value::Number)
}

fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => json!({ "base64": STANDARD.encode(bytes) }),
    }
}

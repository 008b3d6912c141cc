//! A notification, as one event per record. Pure; the bytes of a record stay as they came.

use bellwire_schemas::{Event, Timestamp};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::eventbridge;
use crate::Draft;
use crate::message::form_decode;

/// Prefix of `type` (CloudEvents adapter for AWS S3).
pub const TYPE_PREFIX: &str = "com.amazonaws.s3.";
/// Prefix of `source`, whoever the store is: a filter written for one store matches the others.
pub const SOURCE_PREFIX: &str = "aws:s3";

/// What a body held.
#[derive(Debug)]
pub enum Notification {
    /// The test that a store sends when a notification is set up.
    Test,
    /// Records, each judged by itself.
    Records(Vec<Record>),
}

/// One record.
#[derive(Debug)]
pub struct Record {
    /// Its bytes.
    pub raw: Bytes,
    /// What it tells, or why it cannot be read.
    pub object: Result<Object, String>,
}

/// What a record tells of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// The event's name without `s3:`, such as `ObjectCreated:Put`.
    pub event: String,
    /// The bucket.
    pub bucket: String,
    /// The object's key, decoded.
    pub key: String,
    /// The object's version.
    pub version: Option<String>,
    /// Orders the records of a key.
    pub sequencer: Option<String>,
    /// The request that caused it.
    pub request_id: Option<String>,
    /// The region; empty where the store has none.
    pub region: String,
    /// When it happened, RFC 3339; empty when the record says nothing readable.
    pub time: String,
}

/// Reads a body: `Records`, a test event, either wrapped by SNS, or an EventBridge event.
///
/// # Errors
/// When it is none of these; nothing of it is a record.
pub fn read(body: &Bytes) -> Result<Notification, String> {
    read_wrapped(body, true)
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "Records", default, borrow)]
    records: Option<Vec<&'a RawValue>>,
    #[serde(rename = "Event", default)]
    event: Option<Value>,
    #[serde(rename = "Type", default)]
    kind: Option<Value>,
    #[serde(rename = "Message", default, borrow)]
    message: Option<&'a RawValue>,
    #[serde(rename = "detail-type", default)]
    detail_type: Option<Value>,
}

fn read_wrapped(body: &Bytes, may_be_wrapped: bool) -> Result<Notification, String> {
    let envelope: Envelope<'_> =
        serde_json::from_slice(body).map_err(|e| format!("the body is no object-store notification: {e}"))?;
    if let Some(records) = envelope.records {
        let slice = |raw: &RawValue| record(body.slice_ref(raw.get().as_bytes()));
        return Ok(Notification::Records(records.into_iter().map(slice).collect()));
    }
    if envelope.event.as_ref().and_then(Value::as_str) == Some("s3:TestEvent") {
        return Ok(Notification::Test);
    }
    if envelope.detail_type.is_some() {
        let object = parse(body).and_then(|value| eventbridge::object(&value));
        return Ok(Notification::Records(vec![Record { raw: body.clone(), object }]));
    }
    match (envelope.kind.as_ref().and_then(Value::as_str), envelope.message) {
        (Some("Notification"), Some(message)) if may_be_wrapped => {
            let inner: String = serde_json::from_str(message.get())
                .map_err(|_| "the SNS notification holds no text in `Message`".to_owned())?;
            read_wrapped(&Bytes::from(inner), false)
        }
        (Some("SubscriptionConfirmation"), _) => {
            Err("this is an SNS subscription to confirm: open its SubscribeURL by hand".into())
        }
        _ => {
            Err("the body is no object-store notification: it has neither `Records` nor a test event".into())
        }
    }
}

/// Reads one record.
pub fn record(raw: Bytes) -> Record {
    let object = parse(&raw).and_then(|value| object(&value));
    Record { raw, object }
}

impl Record {
    /// The event of a record. The ordering key is the object's; see [`dedup_key`] for the other.
    pub fn draft(&self, object: &Object) -> Draft {
        let dedup = dedup_key(object);
        // Name-based, so that a notification sent twice has one id (version 5 with the URL name space).
        let id = dedup.as_ref().map(|key| Uuid::new_v5(&Uuid::NAMESPACE_URL, key.as_bytes()).to_string());
        let event = Event {
            id: id.unwrap_or_default(),
            source: format!("{SOURCE_PREFIX}.{}.{}", object.region, object.bucket),
            kind: format!("{TYPE_PREFIX}{}", object.event),
            subject: Some(object.key.clone()).filter(|key| !key.is_empty()),
            time: object.time.clone(),
            datacontenttype: Some("application/json".into()),
            data: Some(self.raw.clone()),
            ..Event::default()
        };
        let key = Some(object.key.clone()).filter(|key| !key.is_empty());
        Draft { event, key, dedup, keep_bad: true }
    }
}

/// The identity of a record, or `None` where it has none that is safe: a record without `sequencer` (tagging, ACL)
/// counts as repeated only when it names the same request at the same time. Never drops a real event.
pub fn dedup_key(object: &Object) -> Option<String> {
    let version = object.version.as_deref().unwrap_or_default();
    let tail = match (&object.sequencer, &object.request_id) {
        (Some(sequencer), _) => format!("sequencer {sequencer}"),
        (None, Some(request)) if !object.time.is_empty() => format!("request {request} {}", object.time),
        _ => return None,
    };
    // Names are length-prefixed, so no two different records give one text.
    let part = |text: &str| format!("{}:{text}", text.len());
    Some([part(&object.bucket), part(&object.key), part(version), part(&tail), part(&object.event)].concat())
}

fn object(record: &Value) -> Result<Object, String> {
    let text = |pointer: &str| found(record, pointer);
    let event = text("/eventName").ok_or("the record has no eventName")?;
    let bucket = text("/s3/bucket/name").ok_or("the record names no bucket")?;
    let key = text("/s3/object/key").ok_or("the record names no object")?;
    Ok(Object {
        event: event.strip_prefix("s3:").unwrap_or(&event).to_owned(),
        bucket,
        // A key whose decoded bytes are no text stays as it was sent.
        key: String::from_utf8(form_decode(&key)).unwrap_or(key),
        version: text("/s3/object/versionId"),
        sequencer: text("/s3/object/sequencer"),
        request_id: text("/responseElements/x-amz-request-id"),
        region: text("/awsRegion").unwrap_or_default(),
        time: time(text("/eventTime")),
    })
}

/// The non-empty text at a JSON pointer.
pub(super) fn found(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A time that is RFC 3339, else nothing.
pub(super) fn time(text: Option<String>) -> String {
    text.filter(|t| Timestamp::parse(t).is_ok()).unwrap_or_default()
}

fn parse(raw: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(raw).map_err(|e| format!("the record cannot be read: {e}"))
}

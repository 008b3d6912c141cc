//! A record as an event. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::cloudevents::{self, Binding, Mode};
use bellwire_schemas::event::MAX_KEY_BYTES;
use bellwire_schemas::meta::{KafkaMeta, to_map};
use bellwire_schemas::service::KeyRule;
use bellwire_schemas::{Event, Timestamp};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{Content, Draft};

/// `type` of an event whose record is no CloudEvent.
pub const RECORD_TYPE: &str = "kafka.record";

/// The last millisecond of the year 9999: later times have no RFC 3339 form.
const LAST_MILLIS: i64 = 253_402_300_799_999;

/// A record as the broker handed it over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// When, if the record says so.
    pub time: Option<RecordTime>,
    /// Key; `None` is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Headers in order; names may repeat, values may be missing.
    pub headers: Vec<(&'a str, Option<&'a [u8]>)>,
}

/// A record's time, and who wrote it down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordTime {
    /// The producer; milliseconds since 1970.
    Created(i64),
    /// The broker; milliseconds since 1970.
    Appended(i64),
}

impl RecordTime {
    /// Milliseconds since 1970.
    pub const fn millis(self) -> i64 {
        match self {
            Self::Created(millis) | Self::Appended(millis) => millis,
        }
    }
}

/// The record as the intake takes it. A record that is a CloudEvent (Kafka protocol binding 1.0, binary or structured
/// mode) keeps its own attributes; one that says so and is none is kept in quarantine.
pub fn content(record: Record<'_>, bootstrap: &str, rule: &KeyRule) -> Content {
    let key = ordering_key(&record, rule);
    let meta = meta(&record, bootstrap);
    match cloud_event(&record) {
        None => {
            Content::Event(Box::new(Draft { event: plain(record, &meta), key, dedup: None, keep_bad: true }))
        }
        Some(Ok(mut event)) => {
            let key = key
                .or_else(|| event.extensions.get("partitionkey").and_then(Value::as_str).map(str::to_owned));
            // The subject is the sender's own here, so the key stands in the metadata.
            let meta = KafkaMeta { key_base64: record.key.map(|key| STANDARD.encode(key)), ..meta };
            event.meta = to_map(&meta);
            if event.time.is_empty() {
                event.time = record.time.and_then(time_text).unwrap_or_default();
            }
            Content::Event(Box::new(Draft { event, key, dedup: None, keep_bad: true }))
        }
        Some(Err(error)) => Content::Quarantine {
            reason: format!("record {} is no CloudEvent though it says so: {error}", name(&record)),
            meta: Value::Object(to_map(&meta)).to_string(),
            bytes: record.value.unwrap_or_default(),
        },
    }
}

/// `<topic>/<partition>/<offset>`.
fn name(record: &Record<'_>) -> String {
    format!("{}/{}/{}", record.topic, record.partition, record.offset)
}

fn plain(record: Record<'_>, meta: &KafkaMeta) -> Event {
    let content_type =
        record.headers.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    Event {
        id: name(&record),
        source: format!("kafka:{}", record.topic),
        kind: RECORD_TYPE.to_owned(),
        subject: record.key.and_then(text).map(str::to_owned),
        time: record.time.and_then(time_text).unwrap_or_default(),
        datacontenttype: content_type.and_then(|(_, value)| text((*value)?)).map(str::to_owned),
        meta: to_map(meta),
        data: record.value,
        ..Event::default()
    }
}

/// Batches have no form on Kafka, so a record with such a content type is a plain one.
fn cloud_event(record: &Record<'_>) -> Option<Result<Event, cloudevents::CloudEventError>> {
    if record.headers.is_empty() {
        return None;
    }
    let content_type = record
        .headers
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case("content-type"))
        .and_then(|(_, v)| text((*v)?));
    let names = record.headers.iter().map(|(name, _)| *name);
    let body = record.value.clone().unwrap_or_default();
    match cloudevents::mode(Binding::Kafka, content_type, names)? {
        Mode::Batch => None,
        Mode::Binary => {
            let headers: Vec<_> =
                record.headers.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
            Some(cloudevents::decode_binary(Binding::Kafka, &headers, &body))
        }
        Mode::Structured => Some(cloudevents::decode_structured(&body)),
    }
}

/// The record's key as text: as it is, else in base64; a very long one by its digest, so that its order still holds.
fn ordering_key(record: &Record<'_>, rule: &KeyRule) -> Option<String> {
    if *rule == KeyRule::Partition {
        return Some(format!("{}/{}", record.topic, record.partition));
    }
    let key = record.key?;
    let text = text(key).map_or_else(|| STANDARD.encode(key), str::to_owned);
    Some(if text.len() > MAX_KEY_BYTES {
        format!("sha256:{}", hex::encode(Sha256::digest(key)))
    } else {
        text
    })
}

/// What the broker said besides the value, as [`KafkaMeta`] has it.
pub fn meta(record: &Record<'_>, bootstrap: &str) -> KafkaMeta {
    let mut headers = BTreeMap::new();
    let mut told = true;
    let mut before = "";
    for (index, (name, value)) in record.headers.iter().enumerate() {
        told &= index == 0 || before < *name;
        before = name;
        match value.and_then(text) {
            Some(value) => drop(headers.insert((*name).to_owned(), value.to_owned())),
            None => told = false,
        }
    }
    let raw = |(name, value): &(&str, Option<&[u8]>)| ((*name).to_owned(), value.map(|v| STANDARD.encode(v)));
    KafkaMeta {
        topic: record.topic.to_owned(),
        partition: record.partition,
        offset: record.offset,
        timestamp: record.time.map(RecordTime::millis),
        timestamp_type: record.time.map(|time| match time {
            RecordTime::Created(_) => "CREATE_TIME".to_owned(),
            RecordTime::Appended(_) => "LOG_APPEND_TIME".to_owned(),
        }),
        key_base64: record.key.filter(|key| text(key).is_none()).map(|key| STANDARD.encode(key)),
        tombstone: record.value.is_none(),
        headers,
        raw_headers: if told { Vec::new() } else { record.headers.iter().map(raw).collect() },
        bootstrap_servers: bootstrap.to_owned(),
    }
}

/// Text is UTF-8 without NUL: numbers written as eight bytes would pass for text otherwise.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn time_text(time: RecordTime) -> Option<String> {
    let millis = time.millis();
    (0..=LAST_MILLIS).contains(&millis).then(|| Timestamp::from_millis(millis).to_string())
}

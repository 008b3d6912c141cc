//! A message of SQS as an event. Pure; the body's bytes stay as they came.

use std::collections::BTreeMap;

use aws_sdk_sqs::types::{Message, MessageAttributeValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::cloudevents::{self, Binding, CloudEventError, Decoded};
use bellwire_schemas::meta::{self, SqsAttribute, SqsMeta};
use bellwire_schemas::{Event, Timestamp};

use super::buffer::Letter;
use super::client::About;
use crate::{Content, Draft};

/// `type` of a message that is no CloudEvent.
pub(super) const TYPE: &str = "sqs.message";

/// What a message is: an event, or bytes that claim to be a CloudEvent and are none.
pub(super) fn content(letter: &Letter, about: &About) -> Content {
    let meta = meta_of(&letter.message, about);
    let attribute = |name: &str| meta.attributes.get(name).filter(|text| !text.is_empty()).cloned();
    let group = attribute("MessageGroupId");
    let mut event = match cloud_event(letter, &meta) {
        Ok(Some(event)) => event,
        Ok(None) => plain(letter, &meta, about, group.clone()),
        Err(error) => {
            let reason = format!("the message says it is a CloudEvent: {error}");
            let meta = serde_json::Value::Object(meta::to_map(&meta)).to_string();
            return Content::Quarantine { reason, bytes: letter.body.clone(), meta };
        }
    };
    if event.time.is_empty() {
        event.time = sent_at(&meta);
    }
    trace(&mut event, &meta);
    let dedup = dedup_key(&meta, about, group.as_deref());
    event.meta = meta::to_map(&meta);
    // In a standard queue a group only shares the queue fairly: no order is promised.
    let key = group.filter(|_| about.fifo);
    Content::Event(Box::new(Draft { event, key, dedup, keep_bad: true }))
}

/// A message's identity. Ids that SQS computed from the body are none: after five minutes SQS takes the same body as
/// a new message (Amazon SQS developer guide, "Exactly-once processing").
fn dedup_key(meta: &SqsMeta, about: &About, group: Option<&str>) -> Option<String> {
    let chosen = meta.attributes.get("MessageDeduplicationId").filter(|_| about.fifo && about.own_dedup_ids);
    match (chosen, group) {
        (Some(id), Some(group)) if about.dedup_per_group => {
            Some(format!("fifo {}:{group} {id}", group.len()))
        }
        (Some(id), _) => Some(format!("fifo {id}")),
        (None, _) => Some(format!("id {}", meta.message_id)),
    }
}

fn plain(letter: &Letter, meta: &SqsMeta, about: &About, group: Option<String>) -> Event {
    let content_type =
        meta.message_attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    Event {
        id: meta.message_id.clone(),
        source: format!("sqs:{}", about.name),
        kind: TYPE.into(),
        subject: group,
        datacontenttype: content_type.and_then(|(_, value)| value.string_value.clone()),
        data: (!letter.body.is_empty()).then(|| letter.body.clone()),
        ..Event::default()
    }
}

/// A CloudEvent in the message's attributes and body. No binding for SQS is defined: attributes are spelled `ce_id` as
/// in Kafka's, or `ce-id` as in HTTP's; a structured event has its `content-type`. A batch is a payload like another.
fn cloud_event(letter: &Letter, meta: &SqsMeta) -> Result<Option<Event>, CloudEventError> {
    let texts = meta.message_attributes.iter();
    let headers: Vec<(&str, &[u8])> = texts
        .filter_map(|(name, value)| Some((name.as_str(), value.string_value.as_deref()?.as_bytes())))
        .collect();
    let http = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("ce-specversion"));
    let binding = if http { Binding::Http } else { Binding::Kafka };
    Ok(match cloudevents::decode(binding, &headers, &letter.body)? {
        Some(Decoded::One(event)) => Some(*event),
        Some(Decoded::Many(_)) | None => None,
    })
}

fn meta_of(message: &Message, about: &About) -> SqsMeta {
    let attributes = message.attributes.iter().flatten();
    let own = message.message_attributes.iter().flatten();
    SqsMeta {
        message_id: message.message_id.clone().unwrap_or_default(),
        receipt_handle: message.receipt_handle.clone().unwrap_or_default(),
        attributes: attributes.map(|(name, text)| (name.as_str().to_owned(), text.clone())).collect(),
        message_attributes: own
            .map(|(name, value)| (name.clone(), attribute(value)))
            .collect::<BTreeMap<_, _>>(),
        md5_of_body: message.md5_of_body.clone(),
        md5_of_message_attributes: message.md5_of_message_attributes.clone(),
        queue_arn: about.arn.clone(),
        region: about.region.clone(),
    }
}

fn attribute(value: &MessageAttributeValue) -> SqsAttribute {
    SqsAttribute {
        data_type: value.data_type.clone(),
        string_value: value.string_value.clone(),
        binary_value: value.binary_value.as_ref().map(|bytes| STANDARD.encode(bytes)),
        string_list_values: value.string_list_values.clone().unwrap_or_default(),
        binary_list_values: value.binary_list_values().iter().map(|bytes| STANDARD.encode(bytes)).collect(),
    }
}

fn sent_at(meta: &SqsMeta) -> String {
    let millis = meta.attributes.get("SentTimestamp").and_then(|text| text.parse().ok());
    millis.map(|millis| Timestamp::from_millis(millis).to_string()).unwrap_or_default()
}

/// The trace: the event's own, else what the sender wrote as an attribute, else X-Ray's header as W3C writes it.
fn trace(event: &mut Event, meta: &SqsMeta) {
    if event.extensions.contains_key("traceparent") {
        return;
    }
    let own = |name: &str| meta.message_attributes.get(name).and_then(|value| value.string_value.clone());
    if let Some(parent) = own("traceparent") {
        event.extensions.insert("traceparent".into(), parent.into());
        if let Some(state) = own("tracestate") {
            event.extensions.insert("tracestate".into(), state.into());
        }
    } else if let Some(parent) = meta.attributes.get("AWSTraceHeader").and_then(|header| traceparent(header))
    {
        event.extensions.insert("traceparent".into(), parent.into());
    }
}

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1` as a W3C `traceparent`; `None` when
/// a part is missing (AWS X-Ray developer guide, "Tracing header": the root's two numbers are the trace id).
fn traceparent(header: &str) -> Option<String> {
    let field = |name: &str| {
        let mut parts = header.split(';').filter_map(|part| part.trim().split_once('='));
        parts.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let hex = |text: &str, length: usize| {
        let right = text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
        (right && text.bytes().any(|b| b != b'0')).then(|| text.to_ascii_lowercase())
    };
    let trace = field("Root")?.strip_prefix("1-")?.replacen('-', "", 1);
    let flags = if field("Sampled") == Some("1") { "01" } else { "00" };
    Some(format!("00-{}-{}-{flags}", hex(&trace, 32)?, hex(field("Parent")?, 16)?))
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::MessageSystemAttributeName as Name;
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn about(fifo: bool) -> About {
        About {
            name: "orders".into(),
            arn: "arn:aws:sqs:eu-west-1:1:orders".into(),
            region: "eu-west-1".into(),
            fifo,
            own_dedup_ids: true,
            ..About::default()
        }
    }

    fn letter(attributes: &[(Name, &str)], own: &[(&str, &str)], body: &str) -> Letter {
        let mut message = Message::builder().message_id("m1").receipt_handle("h1");
        for (name, text) in attributes {
            message = message.attributes(name.clone(), *text);
        }
        for (name, text) in own {
            let value = MessageAttributeValue::builder().data_type("String").string_value(*text);
            message = message.message_attributes(*name, value.build().unwrap());
        }
        Letter { body: Bytes::from(body.to_owned()), message: message.build() }
    }

    fn draft(letter: &Letter, about: &About) -> Draft {
        match content(letter, about) {
            Content::Event(draft) => *draft,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_becomes_an_event_with_all_that_was_said() {
        let sent = [(Name::SentTimestamp, "1767225600123"), (Name::ApproximateReceiveCount, "2")];
        let draft = draft(&letter(&sent, &[("shop", "7")], r#"{"a": 1}"#), &about(false));
        let envelope = draft.event.envelope();
        assert_eq!(envelope["id"], "m1");
        assert_eq!(
            (envelope["type"].as_str(), envelope["source"].as_str()),
            (Some(TYPE), Some("sqs:orders"))
        );
        assert_eq!(envelope["time"], "2026-01-01T00:00:00.123Z");
        assert_eq!(envelope["data"], json!({"a": 1}));
        assert_eq!(envelope["meta"]["attributes"]["ApproximateReceiveCount"], "2");
        assert_eq!(envelope["meta"]["message_attributes"]["shop"]["string_value"], "7");
        assert_eq!((draft.key, draft.dedup.as_deref()), (None, Some("id m1")));
    }

    #[test]
    fn groups_order_and_chosen_ids_identify_in_fifo_queues() {
        let ids = [(Name::MessageGroupId, "g"), (Name::MessageDeduplicationId, "d")];
        let letter = letter(&ids, &[], "x");
        let fifo = draft(&letter, &about(true));
        assert_eq!((fifo.key.as_deref(), fifo.dedup.as_deref()), (Some("g"), Some("fifo d")));
        assert_eq!(fifo.event.subject.as_deref(), Some("g"));
        let grouped = draft(&letter, &About { dedup_per_group: true, ..about(true) });
        assert_eq!(grouped.dedup.as_deref(), Some("fifo 1:g d"));
        let computed = draft(&letter, &About { own_dedup_ids: false, ..about(true) });
        assert_eq!(computed.dedup.as_deref(), Some("id m1"));
        let standard = draft(&letter, &about(false));
        assert_eq!((standard.key, standard.dedup.as_deref()), (None, Some("id m1")));
    }

    #[test]
    fn a_cloud_event_keeps_its_attributes() {
        let own = [("ce_specversion", "1.0"), ("ce_id", "9"), ("ce_source", "s"), ("ce_type", "t")];
        let binary = draft(&letter(&[], &own, "body"), &about(false));
        assert_eq!((binary.event.id.as_str(), binary.event.kind.as_str()), ("9", "t"));
        assert_eq!(binary.dedup.as_deref(), Some("id m1"), "SQS knows best what it repeats");
        let body = r#"{"specversion":"1.0","id":"8","source":"s","type":"t","data":{"a":1}}"#;
        let own = [("Content-Type", "application/cloudevents+json")];
        let structured = draft(&letter(&[], &own, body), &about(false));
        assert_eq!(structured.event.data.as_deref(), Some(br#"{"a":1}"#.as_slice()));
        let broken = content(&letter(&[], &own, "{}"), &about(false));
        assert!(matches!(broken, Content::Quarantine { bytes, .. } if bytes == "{}"));
        let without = draft(&letter(&[], &[], body), &about(false));
        assert_eq!(without.event.id, "m1");
    }

    #[test]
    fn x_ray_headers_become_a_traceparent() {
        let header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
        let expected = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01";
        assert_eq!(traceparent(header).as_deref(), Some(expected));
        let draft = draft(&letter(&[(Name::AwsTraceHeader, header)], &[], "x"), &about(false));
        assert_eq!(draft.event.traceparent(), Some(expected));
        for header in ["", "Root=1-5759e988-bd862e3fe1be46a994272793", "Root=2-1-2;Parent=3", "Self=1"] {
            assert_eq!(traceparent(header), None, "{header}");
        }
    }
}

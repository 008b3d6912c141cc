//! What needs no broker: envelopes and settings. `broker_tests.rs` has the rest.

use bellwire_schemas::brokers::{RabbitmqDeclare, RabbitmqDestination, RabbitmqSource, Tls, TlsFiles};
use bellwire_schemas::service::{Secret, SourceKind};
use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable};
use serde_json::{Value, json};
use std::sync::Arc;

use super::config::{Broker, Plan};
use super::envelope::{Message, contents};
use crate::suite::source;
use crate::{Content, Draft};

pub(super) fn settings(url: &str, queue: &str) -> RabbitmqSource {
    RabbitmqSource {
        url: Secret::new(url),
        queue: queue.into(),
        prefetch: None,
        tls: Tls::Off,
        declare: None,
    }
}

pub(super) fn plan(settings: &RabbitmqSource) -> Result<Plan, String> {
    Plan::new(Arc::new(source("rabbitmq.q", SourceKind::Rabbitmq(settings.clone()))), settings)
}

fn message(properties: BasicProperties, data: &'static str) -> Message {
    Message {
        exchange: "shop".into(),
        routing_key: "orders.new".into(),
        redelivered: false,
        properties,
        data: Bytes::from_static(data.as_bytes()),
    }
}

fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), value);
    }
    table
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn only(message: &Message) -> Draft {
    let mut contents = contents("orders", "/", message);
    assert_eq!(contents.len(), 1);
    match contents.remove(0) {
        Content::Event(draft) => *draft,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_keeps_its_properties_and_headers() {
    let headers = table([
        ("text", text("grün")),
        ("bytes", AMQPValue::LongString(vec![0xff].into())),
        ("more", AMQPValue::ByteArray(ByteArray::from(&b"ok"[..]))),
        ("number", AMQPValue::LongLongInt(-7)),
        ("yes", AMQPValue::Boolean(true)),
        ("price", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 1999 })),
        ("nan", AMQPValue::Double(f64::NAN)),
        ("when", AMQPValue::Timestamp(12)),
        ("none", AMQPValue::Void),
        ("list", AMQPValue::FieldArray(FieldArray::from(vec![text("a"), AMQPValue::LongInt(1)]))),
        ("table", AMQPValue::FieldTable(table([("in", text("side"))]))),
    ]);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("m-1".into())
        .with_timestamp(1_767_225_600)
        .with_delivery_mode(2)
        .with_headers(headers);
    let draft = only(&message(properties, "{\"id\": 1}"));
    let event = draft.event;
    assert_eq!((event.id.as_str(), event.kind.as_str()), ("m-1", "rabbitmq.message"));
    assert_eq!((event.source.as_str(), event.subject.as_deref()), ("rabbitmq:orders", Some("orders.new")));
    assert!(event.time.starts_with("2026-01-01T00:00:00"), "{}", event.time);
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(event.data.as_deref(), Some(&b"{\"id\": 1}"[..]));
    assert_eq!((draft.dedup.as_deref(), draft.key), (Some("m-1"), None));
    assert_eq!(
        Value::Object(event.meta),
        json!({
            "queue": "orders", "vhost": "/", "exchange": "shop", "routing_key": "orders.new", "redelivered": false,
            "properties": {
                "contentType": "application/json", "deliveryMode": 2, "messageId": "m-1", "timestamp": 1_767_225_600,
            },
            "headers": {
                "text": "grün", "bytes": {"base64": "/w=="}, "more": "ok", "number": -7, "yes": true, "price": 19.99,
                "nan": "NaN", "when": {"timestamp": 12}, "none": null, "list": ["a", 1], "table": {"in": "side"},
            },
        })
    );
}

#[test]
fn what_a_message_does_not_say_stays_open() {
    let draft = only(&message(BasicProperties::default().with_timestamp(u64::MAX), ""));
    assert_eq!((draft.event.id.as_str(), draft.event.time.as_str()), ("", ""));
    assert_eq!((draft.dedup, draft.event.data, draft.event.datacontenttype), (None, None, None));
    assert!(draft.keep_bad);
}

#[test]
fn cloudevents_keep_their_attributes() {
    for prefix in ["cloudEvents_", "cloudEvents:"] {
        let name = |attribute: &str| format!("{prefix}{attribute}");
        let headers = table([
            (&name("specversion"), text("1.0")),
            (&name("id"), text("e-1")),
            (&name("source"), text("/shop")),
            (&name("type"), text("order.placed")),
            (&name("time"), AMQPValue::Timestamp(1_767_225_600)),
            (&name("tries"), AMQPValue::LongInt(3)),
            ("traceparent", text("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
            ("other", text("x")),
        ]);
        let properties =
            BasicProperties::default().with_content_type("text/plain".into()).with_headers(headers);
        let draft = only(&message(properties.clone(), "hello"));
        let event = &draft.event;
        assert_eq!(
            (event.id.as_str(), event.source.as_str(), event.kind.as_str()),
            ("e-1", "/shop", "order.placed")
        );
        assert_eq!(event.datacontenttype.as_deref(), Some("text/plain"));
        assert_eq!(event.extensions["tries"], "3");
        assert!(event.extensions.contains_key("traceparent"));
        assert_eq!(event.meta["headers"]["other"], "x");
        assert_eq!(draft.dedup.as_deref(), Some("/shop e-1"));
        let named = only(&message(properties.with_message_id("m-1".into()), "hello"));
        assert_eq!((named.dedup.as_deref(), named.event.id.as_str()), (Some("m-1"), "e-1"));
    }
}

#[test]
fn structured_and_batched_cloudevents_are_unwrapped() {
    let structured = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    let body = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}"#;
    let draft = only(&message(structured.clone(), body));
    assert_eq!(draft.event.data.as_deref(), Some(&br#"{"a":1}"#[..]));

    let batch = BasicProperties::default()
        .with_content_type("application/cloudevents-batch+json".into())
        .with_message_id("m".into());
    let body = r#"[{"specversion":"1.0","id":"1","source":"/s","type":"t"},{"id":"2"}]"#;
    let all = contents("orders", "/", &message(batch, body));
    assert!(matches!(&all[0], Content::Event(draft) if draft.dedup.as_deref() == Some("/s 1")));
    assert!(matches!(&all[1], Content::Quarantine { bytes, .. } if !bytes.is_empty()));

    let broken = contents("orders", "/", &message(structured, "{"));
    assert!(matches!(&broken[0], Content::Quarantine { bytes, .. } if bytes == "{"));
}

#[test]
fn settings_that_cannot_work_are_refused_without_their_secrets() {
    let good = settings("amqp://ada:hunter2@mq.example/%2fshop", "orders");
    let plan_of = |change: fn(&mut RabbitmqSource)| {
        let mut settings = good.clone();
        change(&mut settings);
        plan(&settings)
    };
    let plan = plan_of(|_| {}).unwrap();
    assert_eq!((plan.broker.place().as_str(), plan.broker.vhost()), ("mq.example:5672", "/shop"));
    assert!(!format!("{plan:?}").contains("hunter2"));
    let tls = Tls::On(TlsFiles { cert: Some("x".into()), ..TlsFiles::default() });
    for (error, expected) in [
        (plan_of(|s| s.url = Secret::new("http://ada:hunter2@mq/")), "amqp://"),
        (plan_of(|s| s.url = Secret::new("hunter2")), "amqp://"),
        (plan_of(|s| s.queue.clear()), "`queue` is empty"),
        (plan_of(|s| s.queue = "q".repeat(256)), "256 bytes"),
        (plan_of(|s| s.prefetch = Some(0)), "no bound"),
        (plan_of(|s| s.tls = Tls::On(TlsFiles::default())), "amqps"),
        (
            plan_of(|s| {
                s.declare = Some(RabbitmqDeclare {
                    queue_type: Default::default(),
                    exchange: None,
                    routing_keys: vec!["k".into()],
                });
            }),
            "declare.exchange",
        ),
        (
            {
                let mut settings = settings("amqps://mq.example", "orders");
                settings.tls = tls;
                super::tests::plan(&settings)
            },
            "come together",
        ),
    ] {
        let error = error.unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
    let v6 = Broker::new(&Secret::new("amqp://u:p@[::1]:5673/%2f"), &Tls::Off).unwrap();
    assert_eq!((v6.place().as_str(), v6.vhost()), ("::1:5673", "/"));
    let nowhere = RabbitmqDestination {
        url: Secret::new("amqp://mq"),
        exchange: String::new(),
        routing_key: String::new(),
        tls: Tls::Off,
    };
    assert!(super::RabbitmqOutlet::new(&nowhere).is_err());
}

use std::sync::Arc;

use bellwire_schemas::meta::{KafkaMeta, RabbitmqMeta, SqsAttribute, SqsMeta};
use bellwire_schemas::{Address, Lane, Seq, SourceName, Timestamp};
use serde_json::json;

use super::*;

fn stored(data: Option<&[u8]>, media_type: Option<&str>) -> StoredEvent {
    StoredEvent {
        address: Address::new(Lane(1), Seq(1)),
        source: SourceName::new("x"),
        accepted_at: Timestamp::default(),
        key: None,
        event: Arc::new(Event {
            id: "a1".into(),
            source: "topic:x".into(),
            kind: "order.created".into(),
            subject: Some("o/1".into()),
            time: "2026-01-02T03:04:05.678Z".into(),
            datacontenttype: media_type.map(Into::into),
            data: data.map(Bytes::copy_from_slice),
            ..Event::default()
        }),
    }
}

fn value(shaped: &Shaped) -> Value {
    serde_json::from_slice(&shaped.payload).unwrap()
}

#[test]
fn s3_records_pass_byte_for_byte() {
    let record = br#"{"eventSource":"minio:s3", "eventName":"s3:ObjectCreated:Put","n":1.0,"n":1}"#;
    let shaped = shape(&stored(Some(record), None), Some("s3"), Format::Lambda, Receiver::Worker);
    let expected = [b"{\"Records\":[".as_slice(), record, b"]}"].concat();
    assert_eq!(shaped.payload, expected);
    assert_eq!(shaped.content_type, "application/json");
}

/// An event with the metadata that its connector keeps.
fn message(kind: &str, subject: Option<&str>, data: &[u8], meta: &impl serde::Serialize) -> StoredEvent {
    let mut event = stored(Some(data), None);
    let inner = Arc::make_mut(&mut event.event);
    (inner.kind, inner.subject) = (kind.into(), subject.map(Into::into));
    inner.meta = bellwire_schemas::meta::to_map(meta);
    event
}

fn lambda(event: &StoredEvent, kind: &str) -> Value {
    value(&shape(event, Some(kind), Format::Lambda, Receiver::Worker))
}

#[test]
fn a_kafka_record_is_one_of_a_self_managed_cluster() {
    let meta = KafkaMeta {
        topic: "orders".into(),
        partition: 3,
        offset: 99_120,
        timestamp: Some(1_545_084_650_987),
        timestamp_type: Some("CREATE_TIME".into()),
        headers: [("trace".to_owned(), "é".to_owned())].into_iter().collect(),
        bootstrap_servers: "k1:9092,k2:9092".into(),
        ..KafkaMeta::default()
    };
    let shaped = lambda(&message("kafka.record", Some("8812"), b"{\"n\": 1.0}", &meta), "kafka");
    assert_eq!(
        shaped,
        json!({
            "eventSource": "SelfManagedKafka", "bootstrapServers": "k1:9092,k2:9092",
            "records": {"orders-3": [{
                "topic": "orders", "partition": 3, "offset": 99_120, "timestamp": 1_545_084_650_987_u64,
                "timestampType": "CREATE_TIME", "key": "ODgxMg==", "value": "eyJuIjogMS4wfQ==",
                "headers": [{"trace": [-61, -87]}],
            }]},
        })
    );
    // Without key and value there are none, rather than empty ones; all headers count, in their order.
    let bare = KafkaMeta {
        topic: "orders".into(),
        tombstone: true,
        raw_headers: vec![
            ("b".into(), Some("AA==".into())),
            ("a".into(), None),
            ("b".into(), Some("/w==".into())),
        ],
        ..KafkaMeta::default()
    };
    let record = &lambda(&message("kafka.record", None, b"", &bare), "kafka")["records"]["orders-0"][0];
    assert_eq!((record.get("key"), record.get("value")), (None, None));
    assert_eq!(record["headers"], json!([{"b": [0]}, {"a": []}, {"b": [-1]}]));
    // A CloudEvent's subject is no key; in structured mode, the value is the whole event again.
    let cloud = KafkaMeta {
        headers: [("content-type".to_owned(), "application/cloudevents+json".to_owned())]
            .into_iter()
            .collect(),
        ..meta
    };
    let record =
        &lambda(&message("order.created", Some("o/1"), b"{}", &cloud), "kafka")["records"]["orders-3"][0];
    assert_eq!(record.get("key"), None);
    let value: Value =
        serde_json::from_slice(&BASE64.decode(record["value"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((&value["specversion"], &value["subject"]), (&json!("1.0"), &json!("o/1")));
}

#[test]
fn a_rabbitmq_message_is_one_of_amazon_mq() {
    let map = |value: Value| value.as_object().unwrap().clone();
    let meta = RabbitmqMeta {
        queue: "pizza".into(),
        vhost: "/".into(),
        redelivered: true,
        properties: map(json!({"contentType": "text/plain", "timestamp": 2021, "messageId": "m1"})),
        headers: map(json!({
            "text": "v1", "number": 10, "raw": {"base64": "/w=="}, "when": {"timestamp": 0},
            "x-death": [{"count": 1, "queue": "q"}],
        })),
        ..RabbitmqMeta::default()
    };
    let shaped = lambda(&message("rabbitmq.message", None, b"hi", &meta), "rabbitmq");
    assert_eq!(shaped["eventSource"], "aws:rmq");
    let arn = "arn:aws:mq:us-east-1:000000000000:broker:rabbitmq:b-00000000-0000-0000-0000-000000000000";
    assert_eq!(shaped["eventSourceArn"], arn);
    assert_eq!(
        shaped["rmqMessagesByQueue"]["pizza::/"],
        json!([{
            "basicProperties": {
                "contentType": "text/plain", "contentEncoding": null, "deliveryMode": 1, "priority": 0,
                "correlationId": null, "replyTo": null, "expiration": null, "messageId": "m1",
                "timestamp": "Jan 1, 1970, 12:33:41 AM", "type": null, "userId": null, "appId": null,
                "clusterId": null, "bodySize": 2,
                "headers": {
                    "text": {"bytes": [118, 49]}, "number": 10, "raw": {"bytes": [-1]},
                    "when": "Jan 1, 1970, 12:00:00 AM",
                    "x-death": [{"count": 1, "queue": {"bytes": [113]}}],
                },
            },
            "redelivered": true, "data": "aGk=",
        }])
    );
}

#[test]
fn an_sqs_message_is_a_record() {
    let meta = SqsMeta {
        message_id: "m".into(),
        receipt_handle: "r".into(),
        attributes: [("MessageGroupId".to_owned(), "g".to_owned())].into_iter().collect(),
        message_attributes: [(
            "n".to_owned(),
            SqsAttribute {
                data_type: "Number".into(),
                string_value: Some("1".into()),
                ..SqsAttribute::default()
            },
        )]
        .into_iter()
        .collect(),
        md5_of_body: Some("md5".into()),
        queue_arn: "arn:aws:sqs:eu-central-1:1:q.fifo".into(),
        region: "eu-central-1".into(),
        ..SqsMeta::default()
    };
    assert_eq!(
        lambda(&message("sqs.message", Some("g"), b"{\"a\":1}", &meta), "sqs"),
        json!({"Records": [{
            "messageId": "m", "receiptHandle": "r", "body": "{\"a\":1}", "attributes": {"MessageGroupId": "g"},
            "messageAttributes": {"n": {
                "stringValue": "1", "stringListValues": [], "binaryListValues": [], "dataType": "Number"
            }},
            "md5OfBody": "md5", "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-central-1:1:q.fifo",
            "awsRegion": "eu-central-1",
        }]})
    );
}

#[test]
fn what_is_sent_to_a_function_is_the_record_itself() {
    assert_eq!(lambda(&stored(Some(b"{\"version\":\"1.0\"}"), None), "outbox"), json!({"version": "1.0"}));
}

#[test]
fn a_schedule_is_an_eventbridge_scheduled_event() {
    let mut event = stored(Some(b"{}"), None);
    let inner = Arc::make_mut(&mut event.event);
    inner.source = "schedule:report".into();
    inner.subject = Some("2026-03-29T07:00:00.000Z".into());
    let shaped = shape(&event, Some("schedule"), Format::Lambda, Receiver::Worker);
    assert_eq!(
        value(&shaped),
        json!({
            "version": "0", "id": "a1", "detail-type": "Scheduled Event", "source": "aws.events",
            "account": "000000000000", "time": "2026-03-29T07:00:00Z", "region": "us-east-1",
            "resources": ["arn:aws:events:us-east-1:000000000000:rule/report"], "detail": {}
        })
    );
}

#[test]
fn what_aws_has_no_shape_for_is_a_structured_cloud_event() {
    for kind in [Some("topic"), Some("webhook"), None] {
        let shaped = shape(&stored(Some(b"{\"a\":1}"), None), kind, Format::Lambda, Receiver::Worker);
        let body = value(&shaped);
        assert_eq!(
            (&body["specversion"], &body["id"], &body["data"]["a"]),
            (&json!("1.0"), &json!("a1"), &json!(1))
        );
        assert_eq!(shaped.content_type, "application/json");
    }
    // An S3 source whose payload is no record: still the whole event, never half of one.
    let shaped = shape(&stored(Some(b"[1]"), None), Some("s3"), Format::Lambda, Receiver::Worker);
    assert_eq!(value(&shaped)["data"], json!([1]));
}

#[test]
fn cloudevents_are_binary_for_endpoints_and_structured_for_workers() {
    let event = stored(Some(b"plain"), Some("text/plain"));
    let binary = shape(&event, Some("topic"), Format::Cloudevents, Receiver::Endpoint);
    assert_eq!(binary.payload, "plain");
    assert_eq!(binary.content_type, "text/plain");
    assert!(binary.headers.contains(&("ce-id".into(), "a1".into())), "{:?}", binary.headers);
    let structured = shape(&event, Some("topic"), Format::Cloudevents, Receiver::Worker);
    assert_eq!(value(&structured)["data"], "plain");
    assert_eq!(structured.content_type, "application/json");
    let structured = shape(&event, Some("topic"), Format::CloudeventsStructured, Receiver::Endpoint);
    assert_eq!(structured.content_type, "application/cloudevents+json");
    let batch = shape(&event, Some("topic"), Format::CloudeventsBatch, Receiver::Endpoint);
    assert_eq!(batch.content_type, "application/cloudevents-batch+json");
    assert_eq!(value(&batch)[0]["id"], "a1");
}

#[test]
fn json_is_the_payload_alone() {
    let worker = |data: Option<&[u8]>, media_type| {
        value(&shape(&stored(data, media_type), None, Format::Json, Receiver::Worker))
    };
    assert_eq!(worker(Some(b"{\"a\":1}"), None), json!({"a": 1}));
    assert_eq!(worker(Some(b"17"), Some("text/plain")), json!("17"));
    assert_eq!(worker(Some(&[0xff, 0]), None), json!("/wA="));
    assert_eq!(worker(None, None), Value::Null);
    let endpoint = shape(&stored(Some(&[0xff, 0]), None), None, Format::Json, Receiver::Endpoint);
    assert_eq!(
        (endpoint.payload.as_ref(), endpoint.content_type.as_str()),
        (&[0xff, 0][..], "application/octet-stream")
    );
}

#[test]
fn a_constant_is_itself() {
    assert_eq!(value(&constant(&json!({"job": "nightly"}))), json!({"job": "nightly"}));
}

fn batch(events: &[&StoredEvent], kind: &str, format: Format, receiver: Receiver) -> Shaped {
    shape_batch(events, Some(kind), format, receiver)
}

#[test]
fn records_of_a_batch_are_in_one_event_of_aws() {
    let record = |partition, offset| {
        let meta = KafkaMeta { topic: "t".into(), partition, offset, ..KafkaMeta::default() };
        message("kafka.record", None, b"v", &meta)
    };
    let (a, b, c) = (record(0, 7), record(1, 1), record(0, 6));
    let shaped = value(&batch(&[&a, &b, &c], "kafka", Format::Lambda, Receiver::Worker));
    let offsets = |place: &str| {
        let records = shaped["records"][place].as_array().unwrap().iter();
        records.map(|record| record["offset"].as_i64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((offsets("t-0"), offsets("t-1")), (vec![6, 7], vec![1]));

    let queued = |queue: &str, body: &[u8]| {
        let meta = RabbitmqMeta { queue: queue.into(), vhost: "/".into(), ..RabbitmqMeta::default() };
        message("rabbitmq.message", None, body, &meta)
    };
    let (a, b, c) = (queued("q", b"1"), queued("p", b"2"), queued("q", b"3"));
    let shaped = value(&batch(&[&a, &b, &c], "rabbitmq", Format::Lambda, Receiver::Worker));
    let queues = &shaped["rmqMessagesByQueue"];
    assert_eq!(
        (&queues["q::/"][0]["data"], &queues["q::/"][1]["data"], &queues["p::/"][0]["data"]),
        (&json!("MQ=="), &json!("Mw=="), &json!("Mg=="))
    );

    let sqs = |id: &str| {
        message("sqs.message", None, b"x", &SqsMeta { message_id: id.into(), ..SqsMeta::default() })
    };
    let (a, b) = (sqs("m1"), sqs("m2"));
    let shaped = value(&batch(&[&a, &b], "sqs", Format::Lambda, Receiver::Worker));
    assert_eq!(
        (&shaped["Records"][0]["messageId"], &shaped["Records"][1]["messageId"]),
        (&json!("m1"), &json!("m2"))
    );
    // One that did not come from the queue: none of them is dressed up, and none is left out.
    let foreign = stored(Some(b"{}"), None);
    let shaped = batch(&[&a, &foreign], "sqs", Format::Lambda, Receiver::Endpoint);
    assert_eq!(shaped.content_type, "application/cloudevents-batch+json");
    assert_eq!(value(&shaped).as_array().unwrap().len(), 2);
}

#[test]
fn what_aws_sends_singly_is_a_list_of_what_it_would_be_alone() {
    let (mut a, b) = (stored(Some(b"{\"n\": 1.0}"), None), stored(None, None));
    for (kind, media_type) in [("outbox", "application/json"), ("schedule", "application/json")] {
        let one = value(&shape(&a, Some(kind), Format::Lambda, Receiver::Worker));
        let two = value(&shape(&b, Some(kind), Format::Lambda, Receiver::Worker));
        let shaped = batch(&[&a, &b], kind, Format::Lambda, Receiver::Endpoint);
        assert_eq!((value(&shaped), shaped.content_type.as_str()), (json!([one, two]), media_type), "{kind}");
    }
    Arc::make_mut(&mut a.event).id = "a2".into();
    for format in
        [Format::Lambda, Format::Cloudevents, Format::CloudeventsStructured, Format::CloudeventsBatch]
    {
        for (receiver, media_type) in [
            (Receiver::Worker, "application/json"),
            (Receiver::Endpoint, "application/cloudevents-batch+json"),
        ] {
            let shaped = batch(&[&a, &b], "topic", format, receiver);
            assert_eq!(shaped.content_type, media_type, "{format:?}");
            let ids: Vec<_> = value(&shaped).as_array().unwrap().iter().map(|e| e["id"].clone()).collect();
            assert_eq!(ids, [json!("a2"), json!("a1")]);
            // A single event comes in the same form.
            assert_eq!(value(&batch(&[&b], "topic", format, receiver))[0]["id"], "a1");
        }
    }
}

#[test]
fn a_batch_of_json_is_a_list_of_payloads() {
    let events = [
        stored(Some(b"{\"n\": 1.0}"), None),
        stored(Some(b"17"), Some("text/plain")),
        stored(Some(&[0xff, 0]), None),
        stored(None, None),
    ];
    let all: Vec<&StoredEvent> = events.iter().collect();
    for receiver in [Receiver::Worker, Receiver::Endpoint] {
        let shaped = batch(&all, "topic", Format::Json, receiver);
        assert_eq!(shaped.content_type, "application/json");
        assert_eq!(shaped.payload, "[{\"n\": 1.0},\"17\",\"/wA=\",null]");
    }
}

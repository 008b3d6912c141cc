use std::sync::Arc;

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

use std::sync::Arc;

use bellwire_schemas::service::SourceSpec;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::envelope::{Object, dedup_key};
use super::*;
use crate::suite::{START, bucket, post};
use crate::{Admitted, Content, Door, DoorRequest, Draft, Parcel};

fn door(buckets: &[&str]) -> StoreDoor {
    let sources: Vec<Arc<SourceSpec>> = buckets.iter().map(|b| Arc::new(bucket(b))).collect();
    StoreDoor::new(&sources)
}

fn admit(body: impl Into<Bytes>) -> Vec<Parcel> {
    match door(&["photos"]).admit(&post("/s3", &[], body), START) {
        Ok(Admitted::Parcels(parcels)) => parcels,
        other => panic!("{other:?}"),
    }
}

fn event(parcel: &Parcel) -> &Draft {
    match &parcel.content {
        Content::Event(draft) => draft,
        other => panic!("{other:?}"),
    }
}

fn record(key: &str) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-central-1",
        "eventTime": "2026-01-01T00:00:00.123Z", "eventName": "ObjectCreated:Put",
        "responseElements": { "x-amz-request-id": "R1" },
        "s3": { "bucket": { "name": "photos" }, "object": { "key": key, "sequencer": "0055AE" } },
    })
}

#[test]
fn a_record_becomes_an_event_and_keeps_its_bytes() {
    let text = record("My+%C3%BC%2Fcat.jpg").to_string().replace(',', " ,\n");
    let parcels = admit(format!("{{\"Records\": [ {text} ]}}"));
    let draft = event(&parcels[0]);
    assert_eq!(draft.event.data.as_deref(), Some(text.as_bytes()));
    assert_eq!(draft.event.kind, "com.amazonaws.s3.ObjectCreated:Put");
    assert_eq!(draft.event.source, "aws:s3.eu-central-1.photos");
    assert_eq!(draft.event.subject.as_deref(), Some("My ü/cat.jpg"));
    assert_eq!(draft.key.as_deref(), Some("My ü/cat.jpg"));
    assert_eq!(draft.event.time, "2026-01-01T00:00:00.123Z");
    assert!(draft.dedup.is_some() && !draft.event.id.is_empty());
    assert_eq!(parcels[0].source.name.as_str(), "s3.photos");
}

#[test]
fn minio_writes_prefixes_slashes_and_its_own_top_level() {
    let mut minio = record("a%2Fb.jpg");
    minio["eventName"] = "s3:ObjectCreated:Put".into();
    minio["eventSource"] = "minio:s3".into();
    minio["awsRegion"] = "".into();
    let body = json!({ "EventName": "s3:ObjectCreated:Put", "Key": "photos/a/b.jpg", "Records": [minio] });
    let parcels = admit(body.to_string());
    assert_eq!(event(&parcels[0]).event.kind, "com.amazonaws.s3.ObjectCreated:Put");
    assert_eq!(event(&parcels[0]).event.subject.as_deref(), Some("a/b.jpg"));
    assert_eq!(event(&parcels[0]).event.source, "aws:s3..photos");
}

#[test]
fn sns_and_eventbridge_forms_are_read() {
    let inner = json!({ "Records": [record("a")] }).to_string();
    let sns = json!({ "Type": "Notification", "MessageId": "m", "Message": inner });
    assert_eq!(event(&admit(sns.to_string())[0]).event.subject.as_deref(), Some("a"));
    let twice = json!({ "Type": "Notification", "Message": sns.to_string() });
    assert!(door(&["photos"]).admit(&post("/s3", &[], twice.to_string()), START).is_err());

    let bridge = json!({
        "version": "0", "id": "i", "detail-type": "Object Deleted", "source": "aws.s3", "region": "us-east-1",
        "time": "2026-01-01T00:00:00Z",
        "detail": { "bucket": { "name": "photos" }, "object": { "key": "a+b", "sequencer": "1" },
            "reason": "DeleteObject", "deletion-type": "Delete Marker Created" },
    });
    let parcels = admit(bridge.to_string());
    assert_eq!(event(&parcels[0]).event.kind, "com.amazonaws.s3.ObjectRemoved:DeleteMarkerCreated");
    assert_eq!(event(&parcels[0]).event.subject.as_deref(), Some("a+b"), "EventBridge does not encode keys");
}

#[test]
fn strays_are_quarantined_and_the_others_go_on() {
    let mut other = record("b");
    other["s3"]["bucket"]["name"] = "others".into();
    let deep: Value = serde_json::from_str(&format!("{}1{}", "[".repeat(100), "]".repeat(100))).unwrap();
    let mut nested = record("c");
    nested["x"] = deep;
    let broken = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let body = format!("{{\"Records\":[{},{},7,{nested},{broken}]}}", record("a"), other);
    let parcels = admit(body);
    let kinds: Vec<_> = parcels.iter().map(|p| matches!(p.content, Content::Event(_))).collect();
    assert_eq!(kinds, [true, false, false, true, false]);
    let Content::Quarantine { reason, bytes, .. } = &parcels[1].content else { panic!() };
    assert!(reason.contains("others") && *bytes == other.to_string(), "{reason}");
    assert_eq!(parcels[1].source.name.as_str(), "s3");
}

#[test]
fn tests_and_probes_are_answered() {
    let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos" }).to_string();
    let head = DoorRequest { method: Method::HEAD, ..post("/s3", &[], "") };
    for request in [post("/s3", &[], test), head] {
        let Ok(Admitted::Reply(reply)) = door(&["photos"]).admit(&request, START) else { panic!() };
        assert_eq!(reply.status, StatusCode::OK);
    }
    for bad in ["", "not json", "{}", "[]", "7", "{\"Records\":7}", &"[".repeat(10_000)] {
        let refused = door(&["photos"]).admit(&post("/s3", &[], bad.to_owned()), START).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    }
}

#[test]
fn one_bucket_may_have_several_sources() {
    let mut second = bucket("photos");
    second.name = "thumbs".into();
    let door = StoreDoor::new(&[Arc::new(bucket("photos")), Arc::new(second)]);
    let body = json!({ "Records": [record("a")] }).to_string();
    let Ok(Admitted::Parcels(parcels)) = door.admit(&post("/s3", &[], body), START) else { panic!() };
    let names: Vec<_> = parcels.iter().map(|p| p.source.name.as_str()).collect();
    assert_eq!(names, ["s3.photos", "thumbs"]);
}

#[test]
fn different_records_never_share_an_identity() {
    let base = Object {
        event: "ObjectCreated:Put".into(),
        bucket: "b".into(),
        key: "k".into(),
        sequencer: Some("1".into()),
        request_id: Some("r".into()),
        time: "2026-01-01T00:00:00Z".into(),
        ..Object::default()
    };
    let with = |change: fn(&mut Object)| {
        let mut object = base.clone();
        change(&mut object);
        dedup_key(&object)
    };
    let all = [
        with(|_| {}),
        with(|o| o.bucket = "bk".into()),
        with(|o| (o.bucket, o.key) = ("bk".into(), "".into())),
        with(|o| o.key = "k2".into()),
        with(|o| o.version = Some("v".into())),
        with(|o| o.sequencer = Some("2".into())),
        with(|o| o.event = "ObjectRemoved:Delete".into()),
        with(|o| o.sequencer = None),
        with(|o| (o.sequencer, o.request_id) = (None, Some("r2".into()))),
        with(|o| (o.sequencer, o.time) = (None, "2026-01-01T00:00:01Z".into())),
    ];
    for (index, one) in all.iter().enumerate() {
        assert!(one.is_some());
        assert!(!all[..index].contains(one), "{one:?}");
    }
    assert_eq!(with(|o| (o.sequencer, o.request_id) = (None, None)), None);
    assert_eq!(with(|o| (o.sequencer, o.time) = (None, String::new())), None);
    assert_eq!(with(|_| {}), with(|o| o.request_id = None), "a sequencer is enough");
}

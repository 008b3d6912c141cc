use bellwire_schemas::meta::{KafkaMeta, from_map};
use bellwire_schemas::service::KeyRule;
use bytes::Bytes;
use proptest::prelude::*;

use crate::kafka::envelope::{Record, RecordTime, content};
use crate::{Content, Draft};

fn record() -> Record<'static> {
    Record {
        topic: "orders",
        partition: 3,
        offset: 42,
        time: Some(RecordTime::Created(1_767_225_600_123)),
        key: Some(b"k1"),
        value: Some(Bytes::from_static(b"{\"a\":1}")),
        headers: Vec::new(),
    }
}

fn draft(record: Record<'_>) -> Draft {
    draft_by(record, &KeyRule::Default)
}

fn draft_by(record: Record<'_>, rule: &KeyRule) -> Draft {
    match content(record, "b1:9092,b2:9092", rule) {
        Content::Event(draft) => *draft,
        other => panic!("{other:?}"),
    }
}

fn meta(draft: &Draft) -> KafkaMeta {
    from_map(&draft.event.meta).unwrap()
}

#[test]
fn a_record_becomes_an_event() {
    let draft = draft(Record { headers: vec![("a", Some(b"1")), ("b", Some(b"2"))], ..record() });
    let event = &draft.event;
    assert_eq!((event.id.as_str(), event.source.as_str()), ("orders/3/42", "kafka:orders"));
    assert_eq!((event.kind.as_str(), event.subject.as_deref()), ("kafka.record", Some("k1")));
    assert_eq!(event.time, "2026-01-01T00:00:00.123Z");
    assert_eq!(event.data.as_deref(), Some(&b"{\"a\":1}"[..]));
    assert_eq!((draft.key.as_deref(), draft.dedup, draft.keep_bad), (Some("k1"), None, true));
    let meta: KafkaMeta = from_map(&event.meta).unwrap();
    assert_eq!((meta.topic.as_str(), meta.partition, meta.offset), ("orders", 3, 42));
    assert_eq!(meta.timestamp_type.as_deref(), Some("CREATE_TIME"));
    assert_eq!(meta.timestamp, Some(1_767_225_600_123));
    assert_eq!(meta.bootstrap_servers, "b1:9092,b2:9092");
    assert_eq!(meta.headers["b"], "2");
    assert!(meta.raw_headers.is_empty() && meta.key_base64.is_none() && !meta.tombstone);
}

#[test]
fn headers_that_text_cannot_say_are_kept_raw_as_well() {
    for headers in [
        vec![("b", Some(&b"1"[..])), ("a", Some(b"2"))],
        vec![("a", Some(b"1")), ("a", Some(b"2"))],
        vec![("a", Some(b"\xff"))],
        vec![("a", Some(b"\0\0\0\x01"))],
        vec![("a", None)],
    ] {
        let meta = meta(&draft(Record { headers: headers.clone(), ..record() }));
        let names: Vec<_> =
            meta.raw_headers.iter().map(|(name, value)| (name.as_str(), value.is_some())).collect();
        assert_eq!(names, headers.iter().map(|(name, value)| (*name, value.is_some())).collect::<Vec<_>>());
    }
    let twice = meta(&draft(Record { headers: vec![("a", Some(b"1")), ("a", Some(b"2"))], ..record() }));
    assert_eq!(twice.headers["a"], "2", "the last one counts");
}

#[test]
fn keys_order_whatever_they_are_made_of() {
    let number: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 42];
    let binary = draft(Record { key: Some(number), ..record() });
    assert_eq!(binary.key.as_deref(), Some("AAAAAAAAACo="));
    assert_eq!(binary.event.subject, None);
    assert_eq!(meta(&binary).key_base64.as_deref(), Some("AAAAAAAAACo="));
    assert_eq!(draft(Record { key: None, ..record() }).key, None);
    let long = "x".repeat(5_000);
    let long = draft(Record { key: Some(long.as_bytes()), ..record() });
    assert!(long.key.unwrap().starts_with("sha256:"));
    let partition = draft_by(record(), &KeyRule::Partition);
    assert_eq!(partition.key.as_deref(), Some("orders/3"));
}

#[test]
fn tombstones_empty_values_and_odd_times_are_events() {
    let tombstone = draft(Record { value: None, time: None, ..record() });
    assert!(meta(&tombstone).tombstone && tombstone.event.data.is_none());
    assert_eq!(tombstone.event.time, "", "the intake fills it in");
    let empty = draft(Record { value: Some(Bytes::new()), ..record() });
    assert!(!meta(&empty).tombstone && empty.event.data.is_some());
    for millis in [-1, i64::MAX, i64::MIN] {
        assert_eq!(draft(Record { time: Some(RecordTime::Appended(millis)), ..record() }).event.time, "");
    }
}

#[test]
fn cloudevents_keep_their_own_attributes() {
    let headers: Vec<(&str, Option<&[u8]>)> = vec![
        ("ce_specversion", Some(b"1.0")),
        ("ce_type", Some(b"order.placed")),
        ("ce_source", Some(b"/shop")),
        ("ce_id", Some(b"o-1")),
        ("ce_partitionkey", Some(b"p")),
        ("content-type", Some(b"application/json")),
    ];
    let binary = draft(Record { headers: headers.clone(), ..record() });
    assert_eq!((binary.event.id.as_str(), binary.event.kind.as_str()), ("o-1", "order.placed"));
    assert_eq!(binary.event.datacontenttype.as_deref(), Some("application/json"));
    assert_eq!(binary.event.time, "2026-01-01T00:00:00.123Z");
    assert_eq!(binary.key.as_deref(), Some("k1"));
    assert_eq!(meta(&binary).key_base64.as_deref(), Some("azE="));
    assert_eq!(draft(Record { headers, key: None, ..record() }).key.as_deref(), Some("p"));

    let body = br#"{"specversion":"1.0","type":"t","source":"/s","id":"9","data":{"x":1}}"#;
    let structured = draft(Record {
        headers: vec![("content-type", Some(b"application/cloudevents+json; charset=utf-8"))],
        value: Some(Bytes::from_static(body)),
        ..record()
    });
    assert_eq!(
        (structured.event.id.as_str(), structured.event.data.as_deref()),
        ("9", Some(&b"{\"x\":1}"[..]))
    );
}

#[test]
fn a_broken_cloudevent_is_kept_in_quarantine() {
    let broken = Record { headers: vec![("ce_specversion", Some(b"1.0"))], ..record() };
    let Content::Quarantine { reason, bytes, meta } = content(broken, "b", &KeyRule::Default) else {
        panic!()
    };
    assert!(reason.contains("orders/3/42") && reason.contains("missing"), "{reason}");
    assert_eq!(bytes, "{\"a\":1}");
    assert!(meta.contains("\"offset\":42"));
}

proptest! {
    #[test]
    fn no_record_makes_it_panic(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        name in "(ce_[a-z]{0,12}|content-type|[ -~]{0,12})",
        header in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40)),
        millis in any::<i64>(),
    ) {
        let record = Record {
            topic: "t", partition: 0, offset: 1,
            time: Some(RecordTime::Created(millis)),
            key: key.as_deref(),
            value: value.map(Bytes::from),
            headers: vec![("ce_specversion", Some(b"1.0")), (&name, header.as_deref())],
        };
        content(record.clone(), "b", &KeyRule::Default);
        content(Record { headers: record.headers[1..].to_vec(), ..record }, "b", &KeyRule::Partition);
    }
}

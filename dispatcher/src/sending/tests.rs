//! Records against recordings of AWS, and what is sent at the edges.

use bellwire_schemas::{Address, FailureClass, Lane, Seq};
use bytes::Bytes;
use serde_json::json;

use super::*;

const AT: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const BOUNDS: Bounds = Bounds { lanes: 4, event_bytes: 1 << 20 };

fn stored() -> StoredEvent {
    let mut event = Event {
        id: "e1".into(),
        source: "/orders".into(),
        kind: "order.made".into(),
        time: AT.to_string(),
        ..Event::default()
    };
    event.extensions.insert("traceparent".into(), "00-aa-bb-01".into());
    event.extensions.insert("other".into(), "stays behind".into());
    StoredEvent {
        address: Address::new(Lane(3), Seq(42)),
        source: "orders".into(),
        accepted_at: AT,
        key: None,
        event: Arc::new(event),
    }
}

fn failure() -> ErrorInfo {
    ErrorInfo {
        class: FailureClass::Function,
        kind: "Exception".into(),
        message: "intentional failure".into(),
        stack: vec!["  File \"/var/task/handler.py\", line 7, in handler\n".into()],
    }
}

fn answer(payload: &[u8]) -> Answer {
    Answer { payload: Bytes::copy_from_slice(payload), ..Answer::default() }
}

fn report(end: End<'_>) -> Report<'_> {
    Report {
        end,
        at: AT,
        attempts: 3,
        request_id: "r-1",
        function: "price",
        version: "3f9a1c22",
        since: AT,
        replay: None,
        account: Account::default(),
    }
}

fn sending(payload: SendingPayload) -> Sending {
    Sending { to: "destination.audit".into(), payload }
}

fn sent(end: End<'_>, payload: SendingPayload, request: &[u8]) -> NewEvent {
    let request = Bytes::copy_from_slice(request);
    event("price:orders", &sending(payload), &stored(), &report(end), &request, BOUNDS)
}

fn data(new: &NewEvent) -> Value {
    serde_json::from_slice(new.event.data.as_deref().unwrap()).unwrap()
}

/// Nesting, names and types of the recorded ones: everything but what masks replaced.
fn shape_of(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(k, v)| (k.clone(), shape_of(v))).collect(),
        Value::Array(items) => json!([items.first().map(shape_of)]),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

#[test]
fn records_have_the_shape_that_aws_recorded() {
    // Recorded from AWS: asynchronous destinations, a success and a failure after three attempts.
    let success = json!({
        "version": "1.0", "timestamp": "date",
        "requestContext": {
            "requestId": "<uuid:1>",
            "functionArn": "arn:aws:lambda:us-east-1:111111111111:function:<resource:2>:$LATEST",
            "condition": "Success", "approximateInvokeCount": 1,
        },
        "requestPayload": { "mode": "success" },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST" },
        "responsePayload": { "hello": "world" },
    });
    let failed = json!({
        "version": "1.0", "timestamp": "date",
        "requestContext": {
            "requestId": "<uuid:1>",
            "functionArn": "arn:aws:lambda:us-east-1:111111111111:function:<resource:1>:$LATEST",
            "condition": "RetriesExhausted", "approximateInvokeCount": 3,
        },
        "requestPayload": { "message": "<test-msg-id>" },
        "responseContext": { "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled" },
        "responsePayload": {
            "errorMessage": "intentional failure", "errorType": "Exception", "requestId": "<uuid:1>",
            "stackTrace": ["  File \"/var/task/handler.py\", line 7, in handler\n"],
        },
    });
    let error = failure();
    let ours = sent(
        End::Delivered(&answer(b"{\"hello\":\"world\"}")),
        SendingPayload::Record,
        b"{\"mode\":\"success\"}",
    );
    assert_eq!(shape_of(&data(&ours)), shape_of(&success));
    let ours = sent(End::Dead(&error), SendingPayload::Record, b"{\"message\":\"m\"}");
    assert_eq!(shape_of(&data(&ours)), shape_of(&failed));
    assert_eq!(data(&ours)["requestContext"]["condition"], "RetriesExhausted");
    assert_eq!(data(&ours)["responsePayload"]["errorMessage"], "intentional failure");
    let ours = sent(End::Expired(Some(&error)), SendingPayload::Record, b"{\"message\":\"m\"}");
    assert_eq!(shape_of(&data(&ours)), shape_of(&failed));
    assert_eq!(data(&ours)["requestContext"]["condition"], "EventAgeExceeded");
    let ours = sent(End::Expired(None), SendingPayload::Record, b"{}");
    assert_eq!(data(&ours)["responseContext"], Value::Null);
}

#[test]
fn the_event_says_what_caused_it() {
    let new = sent(End::Delivered(&answer(b"1")), SendingPayload::Record, b"{}");
    let event = &new.event;
    assert_eq!((event.source.as_str(), event.kind.as_str()), ("bellwire:price:orders", SUCCEEDED));
    assert_eq!(event.subject.as_deref(), Some("3-42"));
    let expected = json!({"traceparent": "00-aa-bb-01", "causationid": "e1", "parentaddress": "3-42"});
    assert_eq!(json!(event.extensions), expected);
    assert_eq!((new.source.as_str(), new.lane, &new.key), ("destination.audit", Lane(3), &None));
    let mut keyed = stored();
    keyed.key = Some("k".into());
    let sending = sending(SendingPayload::Result);
    let answer = answer(b"text");
    let report = report(End::Delivered(&answer));
    let new = super::event("price:orders", &sending, &keyed, &report, &Bytes::new(), BOUNDS);
    assert_eq!((new.lane, new.key.as_deref()), (lane_of(Some("k"), 0, 4), Some("k")));
    assert_eq!(new.event.extensions["partitionkey"], "k");
}

#[test]
fn the_same_end_has_the_same_id_and_another_one_has_another() {
    let (one, error) = (answer(b"1"), failure());
    let id = |change: &dyn Fn(&mut Report<'_>), end| {
        let mut report = report(end);
        change(&mut report);
        super::id("price:orders", &stored(), &report)
    };
    let replay = ReplayId::new("r-1");
    let same = |report: &mut Report<'_>| report.at = AT.plus(std::time::Duration::from_secs(9));
    assert_eq!(id(&|_| {}, End::Delivered(&one)), id(&same, End::Delivered(&one)));
    let ids = [
        id(&|_| {}, End::Delivered(&one)),
        id(&|_| {}, End::Dead(&error)),
        id(&|r| r.attempts = 4, End::Delivered(&one)),
        id(&|r| r.since = AT.plus(std::time::Duration::from_secs(1)), End::Delivered(&one)),
        super::id(
            "price:orders",
            &stored(),
            &Report { replay: Some(&replay), ..report(End::Delivered(&one)) },
        ),
        super::id("other:orders", &stored(), &report(End::Delivered(&one))),
    ];
    let different: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len());
}

#[test]
fn payloads_are_json_text_or_base64_and_never_too_large() {
    let record = |request: &[u8], response: &[u8]| {
        let new = sent(End::Delivered(&answer(response)), SendingPayload::Record, request);
        assert!(new.event.data.as_ref().unwrap().len() <= BOUNDS.event_bytes);
        data(&new)
    };
    let plain = record(b"plain", &[0xff, 0xfe]);
    assert_eq!((&plain["requestPayload"], &plain["responsePayload"]), (&json!("plain"), &json!("//4=")));
    assert_eq!(record(b"{}", b"")["responsePayload"], Value::Null);
    let raw = sent(End::Delivered(&answer(b"{\"n\":1.10}")), SendingPayload::Record, b"{}");
    assert!(
        String::from_utf8_lossy(raw.event.data.as_ref().unwrap())
            .contains("\"responsePayload\":{\"n\":1.10}")
    );
    let large = vec![b'1'; BOUNDS.event_bytes - 100];
    let cut = record(b"{\"kept\":1}", &large);
    assert_eq!(cut["requestPayload"]["kept"], 1);
    assert!(cut["responsePayload"]["bellwire.omitted"].as_str().unwrap().starts_with("1048476 bytes"));
    let cut = record(&large, &large);
    assert!(cut["requestPayload"]["bellwire.omitted"].is_string());
    assert!(cut["responsePayload"]["bellwire.omitted"].is_string());
    let deep = vec![b'['; 5_000];
    assert!(record(&deep, b"{}")["requestPayload"].is_string(), "what is no JSON is text");
}

#[test]
fn the_answer_alone_keeps_its_bytes_and_its_type() {
    let new = sent(End::Delivered(&answer(b"{\"n\":1.10}")), SendingPayload::Result, b"{}");
    assert_eq!(new.event.data.as_deref(), Some(&b"{\"n\":1.10}"[..]));
    assert_eq!(new.event.datacontenttype.as_deref(), Some("application/json"));
    let image = Answer {
        payload: Bytes::from_static(&[0xff]),
        content_type: Some("image/png".into()),
        emitted: Vec::new(),
    };
    let new = sent(End::Delivered(&image), SendingPayload::Result, b"{}");
    assert_eq!(new.event.datacontenttype.as_deref(), Some("image/png"));
    let new = sent(End::Delivered(&answer(b"")), SendingPayload::Result, b"{}");
    assert_eq!(new.event.data, None);
    let error = failure();
    let new = sent(End::Dead(&error), SendingPayload::Result, b"{}");
    assert_eq!((data(&new)["errorType"].as_str(), new.event.kind.as_str()), (Some("Exception"), FAILED));
    let new = sent(End::Expired(None), SendingPayload::Result, b"{}");
    assert_eq!(data(&new)["errorType"], "EventAgeExceeded");
    let large = answer(&vec![b'1'; BOUNDS.event_bytes]);
    let new = sent(End::Delivered(&large), SendingPayload::Result, b"{}");
    assert!(data(&new)["bellwire.omitted"].is_string());
}

#[test]
fn an_emitted_event_has_the_key_that_the_function_named() {
    let mut cause = stored();
    cause.key = Some("k".into());
    let key_of = |named: Option<&str>| {
        let mut event = Event { id: "1".into(), ..Event::default() };
        event.extensions.extend(named.map(|key| ("partitionkey".to_owned(), key.into())));
        let emission = Emission { to: "topic.done".into(), event };
        let new = emitted("price:orders", emission, 0, "d", &cause, AT, 4);
        assert_eq!(new.event.extensions.get("partitionkey").and_then(Value::as_str), new.key.as_deref());
        new.key
    };
    assert_eq!(key_of(Some("own")).as_deref(), Some("own"));
    assert_eq!(key_of(None).as_deref(), Some("k"));
    assert_eq!(key_of(Some("")), None);
}

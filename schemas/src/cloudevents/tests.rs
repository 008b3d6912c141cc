use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::Event;

fn one(headers: &[(&str, &str)], body: &str) -> Result<Event, CloudEventError> {
    let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_bytes())).collect();
    match decode(Binding::Http, &headers, &Bytes::from(body.to_owned()))?.expect("a CloudEvent") {
        Decoded::One(event) => Ok(*event),
        Decoded::Many(_) => panic!("a batch"),
    }
}

fn structured(json: &Value) -> Result<Event, CloudEventError> {
    decode_structured(&Bytes::from(json.to_string()))
}

#[test]
fn binary_keeps_bytes_and_reads_headers_in_any_case() {
    let event = one(
        &[
            ("CE-SpecVersion", "1.0"),
            ("ce-ID", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-subject", "\"a \\\"b\\\" %E2%82%AC\""),
            ("ce-myext", "5"),
            ("content-type", "application/json; charset=utf-8"),
        ],
        "{\n \"a\": 1 }",
    )
    .unwrap();
    assert_eq!(event.subject.as_deref(), Some("a \"b\" €"));
    assert_eq!(event.extensions["myext"], "5");
    assert_eq!(event.datacontenttype.as_deref(), Some("application/json; charset=utf-8"));
    assert_eq!(event.data.as_deref(), Some("{\n \"a\": 1 }".as_bytes()));
    assert_eq!(event.time, "");
}

#[test]
fn structured_keeps_the_bytes_of_json_data() {
    let text = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":null,"n":5,"b":true,"data": {"x" : 1.50} }"#;
    let event = one(&[("content-type", "application/cloudevents+json; charset=UTF-8")], text).unwrap();
    assert_eq!(event.data.as_deref(), Some(br#"{"x" : 1.50}"#.as_slice()));
    assert_eq!(event.subject, None);
    assert_eq!(event.extensions["n"], 5);
    assert_eq!(event.extensions["b"], true);
}

#[test]
fn text_and_base64_payloads_come_back_as_bytes() {
    let base = json!({"specversion":"1.0","id":"1","source":"/s","type":"t"});
    let with = |more: Value| {
        let mut event = base.clone();
        for (k, v) in more.as_object().unwrap() {
            event[k] = v.clone();
        }
        structured(&event)
    };
    assert_eq!(
        with(json!({"datacontenttype":"text/xml","data":"<a/>"})).unwrap().data.as_deref(),
        Some(&b"<a/>"[..])
    );
    assert_eq!(with(json!({"data":"I"})).unwrap().data.as_deref(), Some(&b"\"I\""[..]));
    assert_eq!(with(json!({"data_base64":"/w=="})).unwrap().data.as_deref(), Some(&[0xff][..]));
    assert!(with(json!({"data":1,"data_base64":"AA=="})).is_err());
    assert!(with(json!({"data_base64":"*"})).is_err());
    assert!(with(json!({"data_base64":7})).is_err());
    assert!(with(json!({"ext":{"a":1}})).is_err());
    assert!(with(json!({"ext":1.5})).is_err());
    assert!(with(json!({"ext":4_294_967_296_i64})).is_err());
    assert!(with(json!({"My_Ext":"x"})).is_err());
    assert!(with(json!({"time":"yesterday"})).is_err());
    assert!(with(json!({"id":""})).is_err());
    assert!(with(json!({"id":7})).is_err());
    assert_eq!(
        with(json!({"specversion":"0.3"})).unwrap_err().to_string(),
        "specversion `0.3` is not supported: send 1.0"
    );
}

#[test]
fn a_batch_judges_each_item_by_itself() {
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
    let items = decode_batch(&Bytes::from(format!("[{good}, {{}}, 7, {good}]"))).unwrap();
    assert_eq!(items.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
    assert!(decode_batch(&Bytes::from_static(b"{}")).is_err());
    assert!(decode_batch(&Bytes::from_static(b"[]")).unwrap().is_empty());
}

#[test]
fn unknown_formats_and_plain_messages_are_told_apart() {
    assert!(
        decode(Binding::Http, &[("content-type", b"application/json")], &Bytes::new()).unwrap().is_none()
    );
    let avro = decode(Binding::Http, &[("content-type", b"application/cloudevents+avro")], &Bytes::new());
    assert!(matches!(avro, Err(CloudEventError::Format(f)) if f == "application/cloudevents+avro"));
}

#[test]
fn kafka_and_amqp_spell_attributes_their_own_way() {
    let body = Bytes::from_static(b"{}");
    for (binding, prefix) in
        [(Binding::Kafka, "ce_"), (Binding::Amqp, "cloudEvents:"), (Binding::Amqp, "cloudEvents_")]
    {
        let names = ["specversion", "id", "source", "type"].map(|name| format!("{prefix}{name}"));
        let mut headers: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"a%20b"[..])).collect();
        headers[0].1 = b"1.0";
        let Ok(Some(Decoded::One(event))) = decode(binding, &headers, &body) else { panic!("{prefix}") };
        assert_eq!(event.id, "a%20b");
        assert!(decode(Binding::Http, &headers, &body).unwrap().is_none());
    }
}

#[test]
fn invalid_utf8_in_a_header_is_refused() {
    for bad in [&b"%C0%A0"[..], b"%FF", b"\xff"] {
        assert!(decode_header_value(bad).is_err());
    }
    assert_eq!(decode_header_value(b"100%").unwrap(), "100%");
    assert_eq!(decode_header_value(b"%zz%4").unwrap(), "%zz%4");
    assert_eq!(decode_header_value(b"\"").unwrap(), "\"");
}

#[test]
fn deep_data_neither_crashes_nor_changes() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let text = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{deep}}}"#);
    let event = decode_structured(&Bytes::from(text)).unwrap();
    assert_eq!(event.data.as_deref(), Some(deep.as_bytes()));
    assert_eq!(decode_structured(&encode_structured(&event)).unwrap(), event);
    let attribute = format!(r#"{{"specversion":"1.0","id":{deep},"source":"/s","type":"t"}}"#);
    assert!(decode_structured(&Bytes::from(attribute)).is_err());
    assert!(decode_batch(&Bytes::from("[".repeat(10_000))).is_err());
}

fn events() -> impl Strategy<Value = Event> {
    let text = "[ -~€ü\n\"%\\\\]{1,12}";
    let payload = prop_oneof![
        Just(None),
        Just(Some((Some("application/json"), Bytes::from_static(b" {\"a\": [1, 2.0]} ")))),
        Just(Some((None, Bytes::from_static(b"not json")))),
        Just(Some((Some("text/plain"), Bytes::from_static(b"{\"a\":1}")))),
        Just(Some((Some("application/octet-stream"), Bytes::from_static(&[0, 255, 1])))),
        Just(Some((Some("application/json"), Bytes::from_static(b"{broken")))),
    ];
    (text, text, text, proptest::option::of(text), payload, "[a-z0-9]{1,8}", text).prop_map(
        |(id, source, kind, subject, payload, name, value)| {
            let (media_type, data) = payload.map_or((None, None), |(m, d)| (m, Some(d)));
            Event {
                id,
                source,
                kind,
                subject,
                time: "2026-01-01T00:00:00Z".into(),
                datacontenttype: media_type.map(Into::into),
                extensions: [(format!("x{name}"), Value::from(value))].into(),
                data,
                ..Event::default()
            }
        },
    )
}

fn trimmed(data: &Option<Bytes>) -> Option<&[u8]> {
    data.as_deref().map(<[u8]>::trim_ascii)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(event in events()) {
        let back = decode_structured(&encode_structured(&event)).unwrap();
        prop_assert_eq!(trimmed(&back.data), trimmed(&event.data));
        prop_assert_eq!(Event { data: None, ..back }, Event { data: None, ..event.clone() });

        let (headers, body) = encode_binary(&event);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let back = decode_binary(Binding::Http, &headers, &body).unwrap();
        prop_assert_eq!(&back.data, &event.data);
        prop_assert_eq!(Event { data: None, ..back }, Event { data: None, ..event.clone() });

        let batch = decode_batch(&encode_batch([&event, &event])).unwrap();
        prop_assert!(batch.len() == 2 && batch.iter().all(Result::is_ok));
    }

    #[test]
    fn no_message_makes_the_decoder_panic(
        kind in prop_oneof![Just(STRUCTURED), Just(BATCH), Just("application/json")],
        header in proptest::collection::vec(any::<u8>(), 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let headers = [("content-type", kind.as_bytes()), ("ce-specversion", b"1.0"), ("ce-id", &header)];
        let _ = decode(Binding::Http, &headers, &Bytes::from(body));
    }

    #[test]
    fn header_values_survive(text in "\\PC{0,30}") {
        let encoded = encode_header_value(&text);
        prop_assert!(encoded.bytes().all(|b| (0x21..=0x7e).contains(&b)));
        prop_assert_eq!(decode_header_value(encoded.as_bytes()).unwrap(), text);
    }
}

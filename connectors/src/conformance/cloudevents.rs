//! CloudEvents messages and the specification's examples.

use bellwire_schemas::Event;
use bellwire_schemas::cloudevents::{
    Binding, Decoded, decode, decode_batch, decode_header_value, decode_structured, encode_binary,
    encode_header_value, encode_structured, mode,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Verdict, compare, failed, skipped};

/// A message must decode to the given attributes and data, and survive being sent again in every mode.
pub(super) fn judge_binding(case: &Value) -> Verdict {
    match case["binding"].as_str() {
        Some("http-header-value") => judge_header(case),
        Some("http") => {
            let Some((headers, body)) = case["request"].as_str().and_then(http_message) else {
                return failed("an HTTP request", "none");
            };
            judge_message(case, Binding::Http, &headers, body)
        }
        Some(other @ ("kafka" | "amqp")) => {
            let binding = if other == "kafka" { Binding::Kafka } else { Binding::Amqp };
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let headers = case["headers"].as_object().into_iter().flatten();
            let headers: Vec<_> = headers.map(|(name, value)| (name.clone(), text(value))).collect();
            judge_message(case, binding, &headers, text(&case["payload"]))
        }
        _ => skipped("a binding that this program does not speak"),
    }
}

fn judge_header(case: &Value) -> Verdict {
    let encoded = case["encoded"].as_str().unwrap_or_default();
    let decoded = decode_header_value(encoded.as_bytes());
    match (case["must_reject"] == true, decoded) {
        (true, Err(_)) => Verdict::Passed,
        (true, Ok(text)) => failed("rejected", text),
        (false, Err(error)) => failed(case["decoded"].clone(), error),
        (false, Ok(text)) if json!(text) != case["decoded"] => failed(case["decoded"].clone(), text),
        (false, Ok(text)) => {
            let again = decode_header_value(encode_header_value(&text).as_bytes());
            compare(&case["decoded"], &json!(again.ok()))
        }
    }
}

fn judge_message(case: &Value, binding: Binding, headers: &[(String, String)], body: String) -> Verdict {
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    match decode(binding, &headers, &Bytes::from(body)) {
        Ok(Some(Decoded::One(event))) => match agrees(case, &event) {
            Verdict::Passed => survives(&event),
            other => other,
        },
        Ok(other) => failed("one CloudEvent", format!("{other:?}")),
        Err(_) if case["must_reject"] == true => Verdict::Passed,
        Err(error) => failed(case["expected_attributes"].clone(), error.to_string()),
    }
}

fn agrees(case: &Value, event: &Event) -> Verdict {
    let mut attributes = event.attributes();
    attributes.retain(|name, value| case["expected_attributes"].get(name).is_some() || *value != json!(""));
    match compare(&case["expected_attributes"], &Value::Object(attributes)) {
        Verdict::Passed if !case["expected_data"].is_null() => {
            let envelope = event.envelope();
            compare(&case["expected_data"], envelope.get("data").unwrap_or(&Value::Null))
        }
        other => other,
    }
}

/// Written in structured and binary mode and read again, the event is the same.
fn survives(event: &Event) -> Verdict {
    let structured = decode_structured(&encode_structured(event));
    let (headers, body) = encode_binary(event);
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    let binary = decode(Binding::Http, &headers, &body);
    for again in [structured.ok(), one(binary.ok().flatten())] {
        let Some(again) = again else { return failed(shown(event), "cannot be read again") };
        if shown(&again) != shown(event) {
            return failed(shown(event), shown(&again));
        }
    }
    Verdict::Passed
}

/// Attributes and data, without what binary mode cannot carry: types of extensions; and without the media type that
/// it adds to JSON.
fn shown(event: &Event) -> Value {
    let mut plain = event.clone();
    plain.datacontenttype = plain.datacontenttype.filter(|t| t != "application/json");
    for value in plain.extensions.values_mut().filter(|value| !value.is_string()) {
        *value = value.to_string().into();
    }
    plain.envelope()
}

/// An example of the specification must be understood; elided ones and those of other protocols are skipped.
pub(super) fn judge_example(case: &Value) -> Verdict {
    let text = case["text"].as_str().unwrap_or_default();
    if text.contains("...") {
        return skipped("an example with elisions");
    }
    if text.trim_start().starts_with('[') {
        return result(decode_batch(&Bytes::from(text.to_owned())).map(|_| ()).map_err(|e| e.to_string()));
    }
    if text.trim_start().starts_with('{') {
        return match decode_structured(&Bytes::from(text.to_owned())) {
            Ok(event) => survives(&event),
            Err(error) => failed("a CloudEvent", error.to_string()),
        };
    }
    let Some((headers, body)) = header_block(text) else { return skipped("an example that is no message") };
    let names = headers.iter().map(|(n, _)| n.as_str());
    let content_type = headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-type"));
    if mode(Binding::Http, content_type.map(|(_, v)| v.as_str()), names).is_none() {
        return skipped("an example without an event");
    }
    if body.is_empty() && headers.len() == 1 {
        return Verdict::Passed;
    }
    let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    match decode(Binding::Http, &headers, &Bytes::from(body)) {
        Ok(Some(Decoded::One(event))) => survives(&event),
        Ok(other) => failed("one CloudEvent", format!("{other:?}")),
        Err(error) => failed("a CloudEvent", error.to_string()),
    }
}

/// Headers and body of an HTTP request text; bare line feeds are accepted.
fn http_message(text: &str) -> Option<(Vec<(String, String)>, String)> {
    let text = text.replace("\r\n", "\n");
    let (_, rest) = text.split_once('\n')?;
    header_block(rest)
}

fn header_block(text: &str) -> Option<(Vec<(String, String)>, String)> {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        fits.then(|| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    let headers: Option<Vec<_>> = head.lines().filter(|l| !l.trim().is_empty()).map(line).collect();
    headers.filter(|h| !h.is_empty()).map(|headers| (headers, body.to_owned()))
}

fn one(decoded: Option<Decoded>) -> Option<Event> {
    match decoded? {
        Decoded::One(event) => Some(*event),
        Decoded::Many(_) => None,
    }
}

fn result(result: Result<(), String>) -> Verdict {
    result.map_or_else(|error| failed("a batch", error), |()| Verdict::Passed)
}

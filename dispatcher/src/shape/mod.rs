//! What a function receives: the event in the form that its `format` asks for. Pure; bytes of a payload are passed on
//! as they came wherever the format allows.
//!
//! `lambda.rs` and `brokers.rs` rebuild what AWS would have sent, `conformance/` judges it against samples. Which source gets which
//! form, and why, is written down in `docs/decisions/0006-event-shapes.md`.

mod brokers;
pub mod conformance;
mod lambda;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bellwire_ledger::StoredEvent;
use bellwire_schemas::service::Format;
use bellwire_schemas::{Event, cloudevents};
use bytes::Bytes;
use serde_json::Value;

pub use lambda::Account;

const JSON: &str = "application/json";

/// An event on its way to a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shaped {
    /// The body.
    pub payload: Bytes,
    /// Its media type.
    pub content_type: String,
    /// Further headers for an endpoint (binary CloudEvents).
    pub headers: Vec<(String, String)>,
}

/// Who receives it: workers take JSON only, endpoints anything that HTTP can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// A process behind the Runtime API.
    Worker,
    /// An HTTP endpoint.
    Endpoint,
}

/// Shapes an event. `kind` is the word of its source (`kafka`, `s3`, `topic` and so on), `None` when the source is not
/// configured any more.
pub fn shape(stored: &StoredEvent, kind: Option<&str>, format: Format, receiver: Receiver) -> Shaped {
    let event = stored.event.as_ref();
    match format {
        // What a binding sent to a function is what Lambda would send it: the record itself.
        Format::Lambda if kind == Some("outbox") => data_only(event, receiver),
        Format::Lambda => match lambda::aws_event(&[event], kind, &Account::default()) {
            Some(payload) => json(payload),
            None => structured(event, receiver),
        },
        Format::Cloudevents if receiver == Receiver::Endpoint => binary(event),
        Format::Cloudevents | Format::CloudeventsStructured => structured(event, receiver),
        Format::CloudeventsBatch => carried(cloudevents::encode_batch([event]), cloudevents::BATCH, receiver),
        Format::Json => data_only(event, receiver),
    }
}

/// A constant instead of an event (`input:` of a binding, or an event given by hand).
pub fn constant(input: &Value) -> Shaped {
    json(Bytes::from(input.to_string()))
}

fn json(payload: Bytes) -> Shaped {
    Shaped { payload, content_type: JSON.into(), headers: Vec::new() }
}

fn carried(payload: Bytes, media_type: &str, receiver: Receiver) -> Shaped {
    match receiver {
        Receiver::Worker => json(payload),
        Receiver::Endpoint => Shaped { payload, content_type: media_type.into(), headers: Vec::new() },
    }
}

fn structured(event: &Event, receiver: Receiver) -> Shaped {
    carried(cloudevents::encode_structured(event), cloudevents::STRUCTURED, receiver)
}

fn binary(event: &Event) -> Shaped {
    let (headers, payload) = cloudevents::encode_binary(event);
    let (types, headers): (Vec<_>, Vec<_>) =
        headers.into_iter().partition(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let content_type = types.into_iter().next().map_or_else(|| media_type(event), |(_, value)| value);
    Shaped { payload, content_type, headers }
}

/// The payload alone. A worker, which takes only JSON, gets text as a JSON string and other bytes in base64.
fn data_only(event: &Event, receiver: Receiver) -> Shaped {
    let data = event.data.clone().unwrap_or_default();
    if receiver == Receiver::Endpoint {
        return Shaped { payload: data, content_type: media_type(event), headers: Vec::new() };
    }
    if data.is_empty() {
        return json(Bytes::from_static(b"null"));
    }
    if event.data_json().is_some() {
        return json(data);
    }
    let text = match std::str::from_utf8(&data) {
        Ok(text) => text.to_owned(),
        Err(_) => BASE64.encode(&data),
    };
    json(Bytes::from(Value::String(text).to_string()))
}

fn media_type(event: &Event) -> String {
    match &event.datacontenttype {
        Some(media_type) => media_type.clone(),
        None if event.data_json().is_some() => JSON.into(),
        None => "application/octet-stream".into(),
    }
}

#[cfg(test)]
mod tests;

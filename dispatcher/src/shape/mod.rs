//! What a function receives: the event in the form that its `format` asks for. Pure; bytes of a payload are passed on
//! as they came wherever the format allows.
//!
//! [`shape`] is for an event alone, [`shape_batch`] for the events of one invocation. `lambda.rs` and `brokers.rs` rebuild
//! what AWS would have sent, `conformance/` judges it against samples. Which source gets which form, and why, is written
//! down in `docs/decisions/0006-event-shapes.md`.

mod brokers;
pub mod conformance;
mod lambda;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bellwire_ledger::StoredEvent;
use bellwire_schemas::service::Format;
use bellwire_schemas::{Event, cloudevents};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

pub(crate) use brokers::partition;
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

/// Shapes an event that comes alone. `kind` is the word of its source (`kafka`, `s3`, `topic` and so on), `None` when the
/// source is not configured any more.
pub fn shape(stored: &StoredEvent, kind: Option<&str>, format: Format, receiver: Receiver) -> Shaped {
    let event = stored.event.as_ref();
    match format {
        Format::Lambda => alone(event, kind, receiver),
        Format::Cloudevents if receiver == Receiver::Endpoint => binary(event),
        Format::Cloudevents | Format::CloudeventsStructured => structured(event, receiver),
        Format::CloudeventsBatch => cloudevents_batch(&[event], receiver),
        Format::Json => data_only(event, receiver),
    }
}

/// Shapes the events of one invocation of a binding whose batches may have more than one event. Also a single one comes
/// as a list here, so that a handler sees one form.
///
/// Where AWS has a form for several events, all of them are in one. If one of them does not fit it (it was not read from
/// the broker), they all are CloudEvents.
pub fn shape_batch(
    stored: &[&StoredEvent],
    kind: Option<&str>,
    format: Format,
    receiver: Receiver,
) -> Shaped {
    let events: Vec<&Event> = stored.iter().map(|stored| stored.event.as_ref()).collect();
    match format {
        Format::Lambda => together(&events, kind, receiver),
        Format::Cloudevents | Format::CloudeventsStructured | Format::CloudeventsBatch => {
            cloudevents_batch(&events, receiver)
        }
        Format::Json => json(list(events.iter().map(|event| data_json(event)))),
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

/// What a binding sent to a function is what Lambda would send it: the record itself.
fn alone(event: &Event, kind: Option<&str>, receiver: Receiver) -> Shaped {
    if kind == Some("outbox") {
        return data_only(event, receiver);
    }
    match lambda::aws_event(&[event], kind, &Account::default()) {
        Some(payload) => json(payload),
        None => structured(event, receiver),
    }
}

/// AWS never sends ticks or destination records together: there it is a list of what each would be alone.
fn together(events: &[&Event], kind: Option<&str>, receiver: Receiver) -> Shaped {
    let account = Account::default();
    match kind {
        Some("outbox") => return json(list(events.iter().map(|event| data_json(event)))),
        Some("schedule") => {
            return json(list(events.iter().filter_map(|event| lambda::aws_event(&[event], kind, &account))));
        }
        _ => {}
    }
    match lambda::aws_event(events, kind, &account) {
        Some(payload) => json(payload),
        None => cloudevents_batch(events, receiver),
    }
}

fn cloudevents_batch(events: &[&Event], receiver: Receiver) -> Shaped {
    carried(cloudevents::encode_batch(events.iter().copied()), cloudevents::BATCH, receiver)
}

/// A JSON list of values that are JSON, each byte for byte.
fn list(values: impl Iterator<Item = Bytes>) -> Bytes {
    let mut out = BytesMut::from(b"[".as_slice());
    for (index, value) in values.enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(&value);
    }
    out.put_u8(b']');
    out.freeze()
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

/// The payload alone, for endpoints as it is.
fn data_only(event: &Event, receiver: Receiver) -> Shaped {
    match receiver {
        Receiver::Worker => json(data_json(event)),
        Receiver::Endpoint => Shaped {
            payload: event.data.clone().unwrap_or_default(),
            content_type: media_type(event),
            headers: Vec::new(),
        },
    }
}

/// The payload as JSON: text that is none as a JSON string, other bytes in base64.
fn data_json(event: &Event) -> Bytes {
    let Some(data) = event.data.clone().filter(|data| !data.is_empty()) else {
        return Bytes::from_static(b"null");
    };
    if event.data_json().is_some() {
        return data;
    }
    let text = match std::str::from_utf8(&data) {
        Ok(text) => text.to_owned(),
        Err(_) => BASE64.encode(&data),
    };
    Bytes::from(Value::String(text).to_string())
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

//! Events into messages.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::header::encode_header_value;
use super::is_attribute_name;
use crate::Event;
use crate::event::is_json;

/// Writes one event in the JSON format, for the media type [`super::STRUCTURED`]. JSON payloads go in as they are,
/// text as a string, anything else as base64.
pub fn encode_structured(event: &Event) -> Bytes {
    Bytes::from(structured(event))
}

/// Writes events as a JSON array, for the media type [`super::BATCH`].
pub fn encode_batch<'a>(events: impl IntoIterator<Item = &'a Event>) -> Bytes {
    let items: Vec<String> = events.into_iter().map(structured).collect();
    Bytes::from(format!("[{}]", items.join(",")))
}

/// Writes one event in binary mode: the headers, values percent-encoded, and the payload as the body.
pub fn encode_binary(event: &Event) -> (Vec<(String, String)>, Bytes) {
    let mut headers = Vec::new();
    for (name, value) in event.attributes() {
        if name == "datacontenttype" || !is_attribute_name(&name) || is_empty(&value) {
            continue;
        }
        headers.push((format!("ce-{name}"), encode_header_value(&plain(&value))));
    }
    if let Some(media_type) = event.datacontenttype.as_deref().filter(|t| !t.is_empty()) {
        headers.push(("content-type".into(), header_text(media_type)));
    } else if event.data_json().is_some() {
        headers.push(("content-type".into(), "application/json".into()));
    }
    (headers, event.data.clone().unwrap_or_default())
}

fn structured(event: &Event) -> String {
    let mut attributes = event.attributes();
    attributes.retain(|name, value| is_attribute_name(name) && !is_empty(value));
    let mut text = Value::Object(attributes).to_string();
    if let Some(data) = &event.data {
        text.pop();
        text.push_str(&data_member(data, event.datacontenttype.as_deref()));
        text.push('}');
    }
    text
}

/// Without a media type a JSON string would come back with its quotes, so what is not JSON goes as base64 there.
fn data_member(data: &[u8], media_type: Option<&str>) -> String {
    let json = media_type.is_none_or(is_json);
    match std::str::from_utf8(data) {
        Ok(text) if json && serde_json::from_str::<&RawValue>(text).is_ok() => format!(r#","data":{text}"#),
        Ok(text) if !json => format!(r#","data":{}"#, Value::from(text)),
        _ => format!(r#","data_base64":"{}""#, STANDARD.encode(data)),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_str() == Some("")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Media types are not percent-encoded; what cannot stand in a header at all is left out.
fn header_text(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).collect()
}

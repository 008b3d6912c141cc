//! What topics and webhooks have in common: a request that is a CloudEvent in any mode, or anything else.

use bellwire_schemas::Event;
use bellwire_schemas::cloudevents::{self, Binding, CloudEventError, Decoded};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::{Content, DoorRequest, Draft, Refused};

/// Headers that never become part of an event: they carry credentials.
const HIDDEN: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// A request, told apart.
pub(crate) enum Message {
    /// One CloudEvent or a batch, each judged by itself.
    CloudEvents(Vec<Result<Event, CloudEventError>>),
    /// Anything else: the body is the payload.
    Plain,
}

/// Reads a request.
///
/// # Errors
/// 400 for a broken CloudEvent, 415 for a compressed body or another CloudEvents format.
pub(crate) fn read(request: &DoorRequest) -> Result<Message, Refused> {
    if let Some(encoding) = request.headers.get(CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let detail = "compressed bodies are not read: send without content-encoding";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-encoding", detail));
    }
    let headers: Vec<_> = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
    match cloudevents::decode(Binding::Http, &headers, &request.body) {
        Ok(None) => Ok(Message::Plain),
        Ok(Some(Decoded::One(event))) => Ok(Message::CloudEvents(vec![Ok(*event)])),
        Ok(Some(Decoded::Many(events))) => Ok(Message::CloudEvents(events)),
        Err(error @ CloudEventError::Format(_)) => {
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            Err(Refused::new(status, "unsupported-media-type", error.to_string()))
        }
        Err(error) => Err(Refused::new(StatusCode::BAD_REQUEST, "bad-cloudevent", error.to_string())),
    }
}

/// A CloudEvent, or the reason why it is none, as the intake takes it. Its dedup key is its identity: source and id
/// (CloudEvents 1.0: the pair is unique); its ordering key is `partitionkey`.
pub(crate) fn cloud_event(item: Result<Event, CloudEventError>, headers: &HeaderMap) -> Content {
    match item {
        Ok(mut event) => {
            trace(&mut event, headers);
            let key = event.extensions.get("partitionkey").and_then(Value::as_str).map(str::to_owned);
            let dedup = Some(identity(&event));
            Content::Event(Box::new(Draft { event, key, dedup, keep_bad: false }))
        }
        Err(error) => Content::Refused { code: "bad-cloudevent", detail: error.to_string() },
    }
}

/// JSON under the media type of forms, as `curl -d` sends it unless told otherwise: a form begins with no brace.
fn is_mislabelled(content_type: &str, body: &[u8]) -> bool {
    content_type.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
        && matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
        && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

/// An event whose payload is the body of a request, its id and time still open.
pub(crate) fn plain(request: &DoorRequest, source: String, kind: String) -> Event {
    let content_type = request.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let mut event = Event {
        source,
        kind,
        datacontenttype: content_type
            .map(|t| t.trim().to_owned())
            .filter(|t| !t.is_empty() && !is_mislabelled(t, &request.body)),
        data: (!request.body.is_empty()).then(|| request.body.clone()),
        ..Event::default()
    };
    trace(&mut event, &request.headers);
    event
}

/// Source and id as one text.
pub(crate) fn identity(event: &Event) -> String {
    format!("{} {}", event.source, event.id)
}

/// W3C trace context of the request becomes the event's, unless it has its own.
fn trace(event: &mut Event, headers: &HeaderMap) {
    if event.extensions.contains_key("traceparent") {
        return;
    }
    for name in ["traceparent", "tracestate"] {
        if let Some(text) = headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim)
            && !text.is_empty()
        {
            event.extensions.insert(name.into(), text.into());
        }
    }
}

/// The headers as `meta` keeps them: lower-case, repeated ones joined, credentials and the named ones left out.
pub(crate) fn meta_headers(headers: &HeaderMap, hidden: &[&str]) -> Map<String, Value> {
    let mut map = Map::new();
    for name in headers.keys() {
        let text = name.as_str();
        if HIDDEN.contains(&text) || hidden.iter().any(|h| h.eq_ignore_ascii_case(text)) {
            continue;
        }
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())
            .collect();
        map.insert(text.to_owned(), values.join(", ").into());
    }
    map
}

/// The query as `meta` keeps it: decoded, repeated names joined by commas.
pub(crate) fn meta_query(query: &str) -> Map<String, Value> {
    let mut map: Map<String, Value> = Map::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = lossy(form_decode(value));
        let joined = match map.get(&lossy(form_decode(name))) {
            Some(Value::String(before)) => format!("{before},{value}"),
            _ => value,
        };
        map.insert(lossy(form_decode(name)), joined.into());
    }
    map
}

/// Decodes `application/x-www-form-urlencoded` text: `+` is a space, `%XX` a byte; a `%` that no two hexadecimal
/// digits follow stands for itself.
pub(crate) fn form_decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    rest = after;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(first),
        }
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_under_the_type_of_forms_is_told_from_a_form() {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        for (content_type, body, mislabelled) in [
            (form, r#" {"name":"Ada"}"#, true),
            (form, "name=Ada", false),
            (form, "{broken", false),
            ("text/plain", r#"{"name":"Ada"}"#, false),
        ] {
            assert_eq!(is_mislabelled(content_type, body.as_bytes()), mislabelled, "{content_type} {body}");
        }
    }

    #[test]
    fn form_text_is_decoded() {
        for (text, expected) in
            [("a+b", "a b"), ("a%2Fb", "a/b"), ("%e2%82%ac", "€"), ("100%", "100%"), ("%zz", "%zz"), ("", "")]
        {
            assert_eq!(lossy(form_decode(text)), expected);
        }
        assert_eq!(
            Value::Object(meta_query("a=1&b=x+y&a=2&c")),
            serde_json::json!({"a":"1,2","b":"x y","c":""})
        );
    }

    #[test]
    fn credentials_are_not_kept() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("authorization", "s"), ("cookie", "s"), ("x-sig", "s"), ("x-a", "1")] {
            headers.insert(name, value.parse().unwrap());
        }
        headers.append("x-a", "2".parse().unwrap());
        assert_eq!(Value::Object(meta_headers(&headers, &["X-Sig"])), serde_json::json!({"x-a": "1, 2"}));
    }
}

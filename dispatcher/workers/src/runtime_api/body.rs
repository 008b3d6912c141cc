//! Reads what workers send: bodies with a bound, trailers, and the error shapes of the official clients.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::{ErrorInfo, FailureClass};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use serde_json::{Map, Value};

use super::MAX_ANSWER_BYTES;
use super::machine::Received;

/// How much of an answer that is too large is still read, so that its sender sees the refusal and not a reset.
const MAX_DISCARDED_BYTES: usize = 64 * 1024 * 1024;
/// Longest error message kept (the contract of [`ErrorInfo`]).
const MAX_MESSAGE_BYTES: usize = 4 * 1024;
/// Most stack lines kept (the contract of [`ErrorInfo`]).
const MAX_STACK_LINES: usize = 64;
/// Longest stack line kept.
const MAX_STACK_LINE_BYTES: usize = 1024;
/// Longest error name kept.
const MAX_KIND_BYTES: usize = 256;

/// Header, and trailer of a streamed answer, that names an error.
pub const ERROR_TYPE: &str = "lambda-runtime-function-error-type";
/// Trailer of a streamed answer that holds its error: base64 of JSON.
const ERROR_BODY: &str = "lambda-runtime-function-error-body";

/// A body as far as it was read.
pub struct Read {
    /// What became of it.
    pub received: Received,
    /// Its bytes; empty unless whole.
    pub bytes: Bytes,
    /// Its trailers.
    pub trailers: Option<HeaderMap>,
}

/// Reads a body up to the limit of an answer.
pub async fn read(mut body: Incoming) -> Read {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut seen = 0_usize;
    let mut trailers = None;
    let mut received =
        if body.size_hint().lower() > MAX_ANSWER_BYTES as u64 { Received::TooLarge } else { Received::Whole };
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            received = if received == Received::TooLarge { received } else { Received::Truncated };
            break;
        };
        match frame.into_data() {
            Ok(data) => {
                seen += data.len();
                if received == Received::TooLarge || seen > MAX_ANSWER_BYTES {
                    received = Received::TooLarge;
                    (first, all) = (Bytes::new(), BytesMut::new());
                    if seen > MAX_DISCARDED_BYTES {
                        break;
                    }
                } else if first.is_empty() && all.is_empty() {
                    first = data;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&std::mem::take(&mut first));
                    }
                    all.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let bytes = match received {
        Received::Whole if all.is_empty() => first,
        Received::Whole => all.freeze(),
        _ => Bytes::new(),
    };
    Read { received, bytes, trailers }
}

/// The error that the trailers of a streamed answer announce, when they do.
pub fn trailer_error(trailers: &HeaderMap) -> Option<ErrorInfo> {
    let kind = trailers.get(ERROR_TYPE)?.to_str().ok().filter(|kind| !kind.is_empty())?;
    let body = trailers.get(ERROR_BODY).and_then(|body| STANDARD.decode(body.as_bytes()).ok());
    Some(error(FailureClass::Function, Some(kind), body.as_deref().unwrap_or_default()))
}

/// Reads an error as Python, Node, Go and Rust clients write it; what is none of these becomes the message.
pub fn error(class: FailureClass, header: Option<&str>, body: &[u8]) -> ErrorInfo {
    let header = header.unwrap_or_default();
    let Ok(shape) = serde_json::from_slice::<Map<String, Value>>(body) else {
        let kind = if header.is_empty() { "Runtime.Unknown" } else { header };
        let message = cut(&String::from_utf8_lossy(body), MAX_MESSAGE_BYTES);
        return ErrorInfo { class, kind: cut(kind, MAX_KIND_BYTES), message, stack: Vec::new() };
    };
    let field = |name: &str| shape.get(name).unwrap_or(&Value::Null);
    let kind = [text(field("errorType")), header.to_owned()].into_iter().find(|kind| !kind.is_empty());
    let frames = shape.get("stackTrace").or_else(|| shape.get("trace"));
    ErrorInfo {
        class,
        kind: cut(kind.as_deref().unwrap_or("Runtime.Unknown"), MAX_KIND_BYTES),
        message: cut(&text(field("errorMessage")), MAX_MESSAGE_BYTES),
        stack: frames.map(stack).unwrap_or_default(),
    }
}

fn stack(value: &Value) -> Vec<String> {
    let lines: Vec<String> = match value {
        Value::Array(items) => items.iter().flat_map(frame_lines).collect(),
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let lines = lines.into_iter().filter(|line| !line.trim().is_empty());
    lines.take(MAX_STACK_LINES).map(|line| cut(&line, MAX_STACK_LINE_BYTES)).collect()
}

/// A frame is text, or Go's `{path, line, label}`.
fn frame_lines(frame: &Value) -> Vec<String> {
    match frame {
        Value::String(text) => text.lines().map(str::to_owned).collect(),
        Value::Object(go) if go.contains_key("path") => {
            let part = |name: &str| go.get(name).map(text).unwrap_or_default();
            vec![format!("{}:{} {}", part("path"), part("line"), part("label"))]
        }
        other => vec![other.to_string()],
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The beginning of a text, at most `max` bytes, cut between characters.
pub fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(header: Option<&str>, body: &str, kind: &str, message: &str, stack: &[&str]) {
        let info = error(FailureClass::Function, header, body.as_bytes());
        assert_eq!((info.kind.as_str(), info.message.as_str()), (kind, message));
        assert_eq!(info.stack, stack);
    }

    #[test]
    fn the_error_shapes_of_all_clients() {
        let python = r#"{"errorMessage":"no","errorType":"ValueError","requestId":"1","stackTrace":["  File \"a.py\"\n    x()\n"]}"#;
        check(Some("ValueError"), python, "ValueError", "no", &["  File \"a.py\"", "    x()"]);
        let node = r#"{"errorType":"TypeError","errorMessage":"no","trace":["TypeError: no","    at f"]}"#;
        check(None, node, "TypeError", "no", &["TypeError: no", "    at f"]);
        let go = r#"{"errorMessage":"no","errorType":"errorString","stackTrace":[{"path":"a.go","line":3,"label":"f"}]}"#;
        check(None, go, "errorString", "no", &["a.go:3 f"]);
        check(Some("unhandled"), r#"{"errorType":"E","errorMessage":"no"}"#, "E", "no", &[]);
        check(Some("unhandled"), r#"{"errorMessage":"no"}"#, "unhandled", "no", &[]);
        check(None, "plain text", "Runtime.Unknown", "plain text", &[]);
        check(None, r#"["no object"]"#, "Runtime.Unknown", r#"["no object"]"#, &[]);
        check(None, r#"{"errorType":null,"errorMessage":7,"stackTrace":9}"#, "Runtime.Unknown", "7", &[]);
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let body = serde_json::json!({"errorMessage": "é".repeat(5_000), "errorType": "E", "stackTrace": vec!["x"; 500]});
        let info = error(FailureClass::Function, None, body.to_string().as_bytes());
        assert!(info.message.len() <= 4_096 && info.message.chars().all(|c| c == 'é'));
        assert_eq!(info.stack.len(), 64);
    }
}

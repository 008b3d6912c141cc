//! The contract of HTTP doors: a request in, parcels or an answer out. Pure; the HTTP server is elsewhere.

use std::net::SocketAddr;
use std::time::Duration;

use bellwire_schemas::Timestamp;
use bellwire_schemas::api::ErrorBody;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::Value;

use crate::Parcel;

/// Media type of error bodies (RFC 9457).
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");

/// A connector that is called: it judges one request and never waits.
///
/// The same request gives the same parcels, but for ids and times that are made up where the sender gave none. The
/// answer is sent when the ledger holds the parcels, so a door never acknowledges anything itself.
pub trait Door: Send + Sync + 'static {
    /// Judges a request.
    ///
    /// # Errors
    /// When the request as a whole is refused; nothing of it is kept.
    fn admit(&self, request: &DoorRequest, now: Timestamp) -> Result<Admitted, Refused>;
}

/// A request, its body bounded and read.
#[derive(Clone, Debug)]
pub struct DoorRequest {
    /// The method.
    pub method: Method,
    /// The path, without query.
    pub path: String,
    /// The query, undecoded.
    pub query: Option<String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Bytes,
    /// Who sent it.
    pub peer: Option<SocketAddr>,
}

/// What a door made of a request.
#[derive(Debug)]
pub enum Admitted {
    /// Messages to store; the answer follows from their fates.
    Parcels(Vec<Parcel>),
    /// Nothing to store: a handshake, a challenge, a test.
    Reply(DoorResponse),
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DoorResponse {
    /// The status.
    pub status: StatusCode,
    /// Headers besides length and, for ordinary bodies, content type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The JSON body, if there is one.
    pub body: Option<Value>,
}

/// A request refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The status.
    pub status: StatusCode,
    /// Stable word.
    pub code: &'static str,
    /// What happened and what to do.
    pub detail: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The methods that are allowed, when it was another.
    pub allow: Option<&'static str>,
}

impl DoorRequest {
    /// A header's text, when it is there once and is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(first.trim())
    }
}

impl DoorResponse {
    /// An answer without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }
}

impl Refused {
    /// A refusal with a status, a stable word and a sentence.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, allow: None }
    }

    /// 400 `bad-request`.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// 405 with the methods that are allowed.
    pub fn method(found: &Method, allow: &'static str) -> Self {
        let detail = format!("{found} is not allowed here: use {allow}");
        Self { allow: Some(allow), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail) }
    }

    /// Says when to try again.
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }

    /// The answer, `application/problem+json`, with extra members beside the problem's own.
    pub fn response_with(&self, extra: impl IntoIterator<Item = (&'static str, Value)>) -> DoorResponse {
        let problem = ErrorBody {
            kind: format!("/e/{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Refused").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail.clone(),
            ..ErrorBody::default()
        };
        let mut body = serde_json::to_value(problem).expect("an error body has only text and numbers");
        for (name, value) in extra {
            body[name] = value;
        }
        let mut headers = vec![(CONTENT_TYPE, PROBLEM)];
        if let Some(after) = self.retry_after {
            headers.push((RETRY_AFTER, HeaderValue::from(after.as_secs().max(1))));
        }
        if let Some(allow) = self.allow {
            headers.push((ALLOW, HeaderValue::from_static(allow)));
        }
        DoorResponse { status: self.status, headers, body: Some(body) }
    }

    /// The answer, `application/problem+json`.
    pub fn response(&self) -> DoorResponse {
        self.response_with([])
    }
}

//! What `next` carries: the payload, untouched, and the headers that clients insist on.

use std::sync::Arc;

use bellwire_schemas::Timestamp;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};

use crate::Invocation;

const REQUEST_ID: HeaderName = HeaderName::from_static("lambda-runtime-aws-request-id");
const DEADLINE: HeaderName = HeaderName::from_static("lambda-runtime-deadline-ms");
const ARN: HeaderName = HeaderName::from_static("lambda-runtime-invoked-function-arn");
const TRACE: HeaderName = HeaderName::from_static("lambda-runtime-trace-id");

/// One event on its way to a worker.
#[derive(Clone, Debug)]
pub struct Event {
    /// The request id.
    pub id: Arc<str>,
    /// The headers of the answer to `next`.
    pub headers: HeaderMap,
    /// The body of the answer to `next`.
    pub payload: Bytes,
}

impl Event {
    /// Builds the event of an invocation that must end by `deadline`.
    pub fn new(invocation: &Invocation, deadline: Timestamp, arn: &HeaderValue) -> Self {
        let mut headers = HeaderMap::with_capacity(6);
        // Exactly this value: with a charset the Python client hands raw bytes to the handler, without any the
        // C++ core under Python and Node crashes.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(id) = HeaderValue::from_str(&invocation.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.insert(DEADLINE, HeaderValue::from(deadline.millis().max(1)));
        headers.insert(ARN, arn.clone());
        let trace = invocation.traceparent.as_deref().and_then(xray_header);
        if let Some(trace) = trace.and_then(|text| HeaderValue::from_str(&text).ok()) {
            headers.insert(TRACE, trace);
        }
        Self { id: Arc::from(invocation.request_id.as_str()), headers, payload: invocation.payload.clone() }
    }
}

/// Rewrites a W3C `traceparent` as X-Ray's header `Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=<0 or 1>`;
/// nothing when it is malformed.
pub fn xray_header(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !hex(version, 2) || !hex(trace, 32) || !hex(parent, 16) || !hex(flags, 2) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1;
    Some(format!("Root=1-{}-{};Parent={parent};Sampled={sampled}", &trace[..8], &trace[8..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_becomes_an_xray_header() {
        assert_eq!(
            xray_header("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(),
            Some("Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1")
        );
        for bad in ["", "00-4bf9-00f0-01", "00-zzf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"] {
            assert_eq!(xray_header(bad), None, "{bad}");
        }
    }
}

//! What is sent, as bytes: Lambda's destination record, or the answer alone. Pure.
//!
//! The form is that of asynchronous invocations ("Retaining records of Lambda asynchronous invocations", the guide of AWS
//! Lambda), judged against recordings of AWS in the tests.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bellwire_schemas::ErrorInfo;
use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{End, Report};
use crate::shape::Account;

/// The media type of records and of errors.
pub(super) const JSON: &str = "application/json";
/// What AWS calls the version that is not numbered.
const LATEST: &str = "$LATEST";
/// What must be left of the limit for everything but the two payloads.
const REST: usize = 2 << 10;

/// A record as AWS sends it, in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    version: &'static str,
    timestamp: String,
    request_context: Value,
    request_payload: &'a RawValue,
    response_context: Option<Value>,
    response_payload: &'a RawValue,
}

/// The destination record of a delivery that ended, at most `limit` bytes: a payload that does not fit is replaced by a
/// note of its size, the larger one first.
pub(super) fn record(report: &Report<'_>, request: &Bytes, limit: usize) -> Bytes {
    let mut request = json_text(request);
    let mut response = response_payload(report);
    let room = limit.saturating_sub(REST);
    if request.get().len() + response.get().len() > room {
        let (larger, other) = if response.get().len() > request.get().len() {
            (&mut response, &mut request)
        } else {
            (&mut request, &mut response)
        };
        *larger = Cow::Owned(omitted(larger.get().len()));
        if larger.get().len() + other.get().len() > room {
            *other = Cow::Owned(omitted(other.get().len()));
        }
    }
    let record = Record {
        version: "1.0",
        timestamp: report.at.to_string(),
        request_context: json!({
            "requestId": report.request_id,
            "functionArn": report.account.function_arn(report.function, LATEST),
            "condition": condition(&report.end),
            "approximateInvokeCount": report.attempts,
        }),
        request_payload: &request,
        response_context: response_context(report),
        response_payload: &response,
    };
    // Nothing in it can refuse to be written: strings, numbers and text that is JSON already.
    Bytes::from(serde_json::to_vec(&record).unwrap_or_default())
}

/// The answer alone with its media type, or the error as a runtime reports it; a note where it is larger than `limit`.
pub(super) fn result(report: &Report<'_>, limit: usize) -> (Bytes, Option<String>) {
    let (data, media_type) = match &report.end {
        End::Delivered(answer) => {
            let media_type = answer.content_type.clone().or_else(|| {
                let is_json = serde_json::from_slice::<&RawValue>(&answer.payload).is_ok();
                is_json.then(|| JSON.to_owned())
            });
            (answer.payload.clone(), media_type)
        }
        End::Dead(error) => (Bytes::from(error_payload(error, report.request_id)), Some(JSON.to_owned())),
        End::Expired(error) => {
            (Bytes::from(expired_payload(*error, report.request_id)), Some(JSON.to_owned()))
        }
    };
    if data.len() > limit.saturating_sub(REST) {
        return (Bytes::from(Box::<str>::from(omitted(data.len())).into_string()), Some(JSON.to_owned()));
    }
    (data, media_type)
}

/// How a delivery ended, in AWS's words. A death by an error that is not retried counts as exhausted, which AWS has no
/// word for.
pub(super) fn condition(end: &End<'_>) -> &'static str {
    match end {
        End::Delivered(_) => "Success",
        End::Dead(_) => "RetriesExhausted",
        End::Expired(_) => "EventAgeExceeded",
    }
}

fn response_context(report: &Report<'_>) -> Option<Value> {
    let version = if report.version.is_empty() { LATEST } else { report.version };
    match &report.end {
        End::Delivered(_) => Some(json!({ "statusCode": 200, "executedVersion": version })),
        // Nothing responded when no attempt was made.
        End::Expired(None) => None,
        End::Dead(_) | End::Expired(Some(_)) => {
            Some(json!({ "statusCode": 200, "executedVersion": version, "functionError": "Unhandled" }))
        }
    }
}

fn response_payload<'a>(report: &Report<'a>) -> Cow<'a, RawValue> {
    let owned = |text: String| match RawValue::from_string(text) {
        Ok(raw) => Cow::Owned(raw),
        Err(_) => Cow::Borrowed(RawValue::NULL),
    };
    match &report.end {
        End::Delivered(answer) => json_text(&answer.payload),
        End::Dead(error) => owned(error_payload(error, report.request_id)),
        End::Expired(error) => owned(expired_payload(*error, report.request_id)),
    }
}

/// The error object of the Runtime API, as its clients write it.
fn error_payload(error: &ErrorInfo, request_id: &str) -> String {
    json!({
        "errorMessage": error.message,
        "errorType": error.kind,
        "requestId": request_id,
        "stackTrace": error.stack,
    })
    .to_string()
}

fn expired_payload(error: Option<&ErrorInfo>, request_id: &str) -> String {
    error.map_or_else(
        || {
            json!({
                "errorMessage": "the delivery grew older than its max_age before an attempt was made",
                "errorType": "EventAgeExceeded",
            })
            .to_string()
        },
        |error| error_payload(error, request_id),
    )
}

/// Bytes as JSON text: as they are when they are JSON, null when there are none, else a string, other bytes in base64.
fn json_text(bytes: &Bytes) -> Cow<'_, RawValue> {
    if bytes.is_empty() {
        return Cow::Borrowed(RawValue::NULL);
    }
    if let Ok(raw) = serde_json::from_slice::<&RawValue>(bytes) {
        return Cow::Borrowed(raw);
    }
    let text = std::str::from_utf8(bytes).map_or_else(|_| BASE64.encode(bytes), str::to_owned);
    let quoted = RawValue::from_string(Value::String(text).to_string());
    quoted.map_or(Cow::Borrowed(RawValue::NULL), Cow::Owned)
}

fn omitted(bytes: usize) -> Box<RawValue> {
    let text = json!({ "bellwire.omitted": format!("{bytes} bytes are more than an event may have") });
    RawValue::from_string(text.to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Account {
    /// The ARN of a function and its version.
    pub(super) fn function_arn(&self, function: &str, version: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{function}:{version}", self.region, self.id)
    }
}

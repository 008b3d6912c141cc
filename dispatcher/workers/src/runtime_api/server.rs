//! HTTP on one worker's port: parses calls, asks the desk, writes the replies exactly as clients insist on them.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::body::{self, ERROR_TYPE};
use super::desk::{Desk, Next, Posted};
use super::machine::{Call, Received, Refusal, Reply};
use crate::emit;

/// Room for one request head. Clients send error causes as a header of up to 1 MiB.
const MAX_HEAD_BYTES: usize = 4 * 1024 * 1024;
/// Most headers of one request.
const MAX_HEADERS: usize = 256;
/// Version prefix of every path.
const PREFIX: &str = "/2018-06-01/runtime/";
/// Header that announces a streamed answer.
const RESPONSE_MODE: &str = "lambda-runtime-function-response-mode";

/// Serves one connection until either side ends it. No time limit: `next` is a poll of any length.
pub async fn serve(stream: TcpStream, desk: Arc<Desk>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let desk = desk.clone();
        async move { Ok::<_, Infallible>(handle(&desk, request).await) }
    });
    let mut http = http1::Builder::new();
    http.max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .auto_date_header(false)
        .ignore_invalid_headers(true);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "worker connection ended");
    }
}

enum Route {
    Next,
    Answer(String, Posted),
    Emit(String, String),
    InitError,
    RestoreNext,
    RestoreError,
    Unknown,
    WrongMethod,
}

fn route(method: &Method, path: &str) -> Route {
    if let Some(path) = path.strip_prefix(emit::PREFIX) {
        let parts = path.strip_prefix("invocation/").and_then(|rest| rest.split_once("/emit/"));
        return match parts {
            Some(_) if *method != Method::POST => Route::WrongMethod,
            Some((id, to)) => Route::Emit(percent_decode(id), percent_decode(to)),
            None => Route::Unknown,
        };
    }
    let Some(path) = path.strip_prefix(PREFIX) else { return Route::Unknown };
    let (expected, route) = match path {
        "invocation/next" => (Method::GET, Route::Next),
        "init/error" => (Method::POST, Route::InitError),
        "restore/next" => (Method::GET, Route::RestoreNext),
        "restore/error" => (Method::POST, Route::RestoreError),
        _ => {
            let Some((id, kind)) = path.strip_prefix("invocation/").and_then(|rest| rest.split_once('/'))
            else {
                return Route::Unknown;
            };
            let posted = match kind {
                "response" => Posted::Response,
                "error" => Posted::Error,
                _ => return Route::Unknown,
            };
            (Method::POST, Route::Answer(percent_decode(id), posted))
        }
    };
    if *method == expected { route } else { Route::WrongMethod }
}

async fn handle(desk: &Desk, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match route(&head.method, head.uri.path()) {
        Route::Next => next(desk).await,
        Route::Answer(id, posted) => {
            let mut read = body::read(body).await;
            if posted == Posted::Response && !mode_is_known(&head.headers) {
                read.received = Received::UnknownMode;
            }
            // What was printed before the answer was sent lies in the pipe by now.
            desk.logs.drain();
            let media = header(&head.headers, CONTENT_TYPE.as_str()).map(str::to_owned);
            reply(desk.answer(&id, posted, header(&head.headers, ERROR_TYPE), read, media))
        }
        Route::Emit(id, to) => take_event(desk, &id, &to, &head.headers, body).await,
        Route::InitError => init_error(desk, Call::InitError, &head.headers, body).await,
        Route::RestoreError => init_error(desk, Call::RestoreError, &head.headers, body).await,
        Route::RestoreNext => reply(desk.restore()),
        Route::Unknown => refusal(404, "NotFound", "no such path in the Runtime API 2018-06-01"),
        Route::WrongMethod => refusal(405, "MethodNotAllowed", "this path takes another method"),
    }
}

async fn next(desk: &Desk) -> Response<Full<Bytes>> {
    let event = match desk.next() {
        Next::Event(event) => event,
        Next::Wait(event) => match event.await {
            Ok(event) => event,
            Err(_) => return reply(Reply::Refused(Refusal::Gone)),
        },
        Next::Refused(why) => return reply(Reply::Refused(why)),
    };
    let mut response = Response::new(Full::new(event.payload.clone()));
    *response.headers_mut() = event.headers.clone();
    response
}

async fn take_event(
    desk: &Desk,
    id: &str,
    to: &str,
    headers: &HeaderMap,
    body: Incoming,
) -> Response<Full<Bytes>> {
    let read = body::read(body).await;
    match read.received {
        Received::Whole => {}
        Received::TooLarge => return reply(Reply::Refused(Refusal::TooMuch)),
        Received::Truncated | Received::UnknownMode => return reply(Reply::Refused(Refusal::Truncated)),
    }
    if !desk.outbox.knows(to) {
        let message = format!(
            "nothing named `{to}` takes events: name a topic's source, such as `topic.<topic>`, or `destination.<name>`"
        );
        return refusal(404, "UnknownTarget", &message);
    }
    match emit::read(to, headers, &read.bytes, desk.outbox.now()) {
        Ok(emission) => reply(desk.emit(id, emission)),
        Err(problem) => refusal(400, "InvalidEvent", &problem),
    }
}

async fn init_error(
    desk: &Desk,
    call: Call<'_>,
    headers: &HeaderMap,
    body: Incoming,
) -> Response<Full<Bytes>> {
    let read = body::read(body).await;
    reply(desk.post_init_error(call, header(headers, ERROR_TYPE), &read.bytes))
}

/// Buffered answers name no mode; `streaming` is buffered here.
fn mode_is_known(headers: &HeaderMap) -> bool {
    headers.get(RESPONSE_MODE).is_none_or(|mode| {
        [&b"streaming"[..], b"buffered"].iter().any(|known| mode.as_bytes().eq_ignore_ascii_case(known))
    })
}

fn reply(reply: Reply) -> Response<Full<Bytes>> {
    match reply {
        Reply::Accepted => json(StatusCode::ACCEPTED, Bytes::from_static(b"{\"status\":\"OK\"}\n")),
        Reply::Restored => Response::new(Full::default()),
        Reply::Refused(why) => {
            let (status, kind, message) = why.parts();
            refusal(status, kind, message)
        }
        // `next` answers these itself; no other call gets them.
        Reply::Hold | Reply::Event => {
            refusal(403, "InvalidStateTransition", "State transition is not allowed")
        }
    }
}

fn refusal(status: u16, kind: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "errorMessage": message, "errorType": kind }).to_string();
    json(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), body.into())
}

fn json(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Decodes `%XX`; Node encodes the request id in the path.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_percent_decoded() {
        assert_eq!(percent_decode("1-42%40b%3as3.photos"), "1-42@b:s3.photos");
        assert_eq!(percent_decode("a%zz%2"), "a%zz%2");
        assert_eq!(percent_decode("plain"), "plain");
    }

    #[test]
    fn only_the_known_response_modes_pass() {
        let mut headers = HeaderMap::new();
        assert!(mode_is_known(&headers));
        for (mode, known) in [("streaming", true), ("Buffered", true), ("other", false), ("", false)] {
            headers.insert(RESPONSE_MODE, HeaderValue::from_static(mode));
            assert_eq!(mode_is_known(&headers), known, "{mode}");
        }
    }
}

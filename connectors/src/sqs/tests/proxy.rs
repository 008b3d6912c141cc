//! A proxy in front of the server that breaks chosen calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is answered.
    None,
    /// It is refused with this status and word; the server never sees it.
    Refuse(u16, &'static str),
    /// The server does it, the answer is lost.
    Lose,
    /// No answer, ever.
    Hang,
    /// The messages of the answer are doubled and turned around, as a queue without order may deliver them.
    Muddle,
}

type Rule = dyn Fn(&str, usize) -> Fault + Send + Sync;

/// A running proxy.
pub(super) struct Proxy {
    /// Its own URL.
    pub(super) url: String,
    _task: AbortOnDropHandle<()>,
}

struct Inner {
    rule: Box<Rule>,
    count: AtomicUsize,
    http: reqwest::Client,
}

impl Proxy {
    /// Starts a proxy; the rule sees the operation (`ReceiveMessage`) and the number of the call among all.
    pub(super) async fn new(rule: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) -> Self {
        // Another test of this process may have done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = Inner { rule: Box::new(rule), count: AtomicUsize::new(0), http: reqwest::Client::new() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(pass).with_state(Arc::new(inner));
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, _task: AbortOnDropHandle::new(task) }
    }
}

async fn pass(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let target = parts.headers["x-amz-target"].to_str().unwrap();
    let operation = target.rsplit('.').next().unwrap().to_owned();
    let fault = (inner.rule)(&operation, inner.count.fetch_add(1, Ordering::SeqCst));
    match fault {
        Fault::Refuse(status, word) => return refusal(status, word),
        Fault::Hang => return std::future::pending().await,
        Fault::None | Fault::Lose | Fault::Muddle => {}
    }
    let mut headers = parts.headers.clone();
    headers.remove(http::header::HOST);
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let url = format!("{}{}", super::server(), parts.uri);
    let Ok(answer) = inner.http.post(url).headers(headers).body(body).send().await else {
        return refusal(503, "ServiceUnavailable");
    };
    let (status, kind) = (answer.status(), answer.headers()[http::header::CONTENT_TYPE].clone());
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    if fault == Fault::Lose {
        return refusal(500, "InternalFailure");
    }
    if fault == Fault::Muddle {
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        if let Some(messages) = value.get_mut("Messages").and_then(Value::as_array_mut) {
            let again = messages.clone();
            messages.extend(again);
            messages.reverse();
        }
        bytes = value.to_string().into_bytes();
    }
    (status, [(http::header::CONTENT_TYPE, kind)], Body::from(bytes)).into_response()
}

fn refusal(status: u16, word: &str) -> Response {
    let body = json!({ "__type": format!("com.amazonaws.sqs#{word}"), "message": "injected" }).to_string();
    let kind = (http::header::CONTENT_TYPE, "application/x-amz-json-1.0");
    (StatusCode::from_u16(status).unwrap(), [kind], body).into_response()
}

//! Functions that are HTTP endpoints: one POST for each invocation.
//!
//! Follows no redirect, asks no proxy, reads no more than an answer may hold, and reaches only public addresses unless
//! told otherwise (`guard.rs`). `sign.rs` signs requests, `reply.rs` reads what an answer means, `tls.rs` is the one
//! place that chooses certificates and ciphers.

pub mod guard;
pub mod reply;
pub mod sign;
pub mod tls;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bellwire_schemas::service::{Auth, FunctionSpec};
use bellwire_schemas::{Clock, ErrorInfo, FailureClass};
use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};
use thiserror::Error;
use tokio::time::{Instant, timeout};

use crate::pool::function::{failed, timed_out};
use crate::runtime_api::MAX_ANSWER_BYTES;
use crate::{Answer, Invocation, InvocationResult};
use guard::{AddressRefused, Guard};
use reply::Verdict;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a refused request's answer becomes the error message.
const MAX_ERROR_BYTES: usize = 4 * 1024;

/// Why HTTP clients cannot be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// TLS.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// The client.
    #[error(transparent)]
    Client(#[from] reqwest::Error),
}

/// The HTTP clients of all endpoints, with their connections.
#[derive(Clone, Debug)]
pub struct Callers {
    public: Client,
    any: Client,
    clock: Clock,
}

impl Callers {
    /// Makes the clients.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(clock: Clock) -> Result<Self, SetupError> {
        let client = |guard: Guard| -> Result<Client, SetupError> {
            let client = Client::builder()
                .tls_backend_preconfigured(tls::tls_config()?)
                .dns_resolver(Arc::new(guard))
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .user_agent(concat!("bellwire/", env!("CARGO_PKG_VERSION")));
            Ok(client.build()?)
        };
        Ok(Self { public: client(Guard::Public)?, any: client(Guard::Any)?, clock })
    }
}

/// One endpoint.
#[derive(Debug)]
pub struct Endpoint {
    client: Client,
    url: Url,
    headers: HeaderMap,
    signer: Option<sign::Signer>,
    timeout: Duration,
    clock: Clock,
    refused: Option<String>,
}

impl Endpoint {
    /// Prepares calls of a `url` function.
    ///
    /// # Errors
    /// When the URL or a header cannot be used.
    pub fn new(callers: &Callers, url: &str, spec: &FunctionSpec, dev: bool) -> Result<Self, ErrorInfo> {
        let invalid =
            |what: String| ErrorInfo::platform(FailureClass::CannotStart, "HTTP.InvalidRequest", what);
        let url: Url = url.parse().map_err(|error| invalid(format!("`{url}` is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(invalid(format!("`{url}` is no http or https URL")));
        }
        let any = dev || spec.request.allow_private;
        // Addresses written as numbers never reach the resolver.
        let refused = url.host_str().and_then(guard::literal).filter(|ip| !any && !guard::is_public(*ip));
        let mut headers = HeaderMap::new();
        for (name, value) in &spec.request.headers {
            let header = HeaderName::try_from(name.as_str()).ok().zip(secret_value(value.expose()));
            let (name, value) = header.ok_or_else(|| invalid(format!("header `{name}` cannot be sent")))?;
            headers.insert(name, value);
        }
        if let Some(auth) = &spec.request.auth {
            let text = match auth {
                Auth::Bearer(token) => format!("Bearer {}", token.expose()),
                Auth::Basic(pair) => format!("Basic {}", STANDARD.encode(pair.expose())),
            };
            let value =
                secret_value(&text).ok_or_else(|| invalid("the credentials cannot be sent".into()))?;
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self {
            client: if any { callers.any.clone() } else { callers.public.clone() },
            url,
            headers,
            signer: spec.request.signing_secret.as_ref().map(sign::Signer::new),
            timeout: spec.timeout,
            clock: callers.clock.clone(),
            refused: refused.map(|ip| AddressRefused(ip).to_string()),
        })
    }

    /// Calls the endpoint once; ends at the function's timeout at the latest.
    pub async fn call(&self, invocation: &Invocation) -> InvocationResult {
        let begun = Instant::now();
        let verdict = match &self.refused {
            Some(why) => Verdict::failed(FailureClass::Unreachable, "HTTP.AddressRefused", why.clone()),
            None => match timeout(self.timeout, self.exchange(invocation)).await {
                Ok(verdict) => verdict,
                Err(_) => Verdict { answer: Err(timed_out(self.timeout)), retry_after: None },
            },
        };
        let blank = failed(ErrorInfo::platform(FailureClass::Unreachable, "", ""));
        InvocationResult {
            answer: verdict.answer,
            duration: begun.elapsed(),
            retry_after: verdict.retry_after,
            ..blank
        }
    }

    async fn exchange(&self, invocation: &Invocation) -> Verdict {
        let request = self.client.post(self.url.clone()).headers(self.request_headers(invocation));
        match request.body(invocation.payload.clone()).send().await {
            Ok(response) => self.read(response).await,
            Err(error) => unreachable_because(&error),
        }
    }

    fn request_headers(&self, invocation: &Invocation) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        };
        set(CONTENT_TYPE.as_str(), &invocation.content_type);
        set("idempotency-key", &sign::header_safe(&invocation.idempotency_key));
        if let Some(traceparent) = &invocation.traceparent {
            set("traceparent", traceparent);
        }
        for (name, value) in &invocation.headers {
            set(name, value);
        }
        headers.extend(self.headers.clone());
        if let Some(signer) = &self.signer {
            headers.extend(signer.headers(
                &invocation.idempotency_key,
                self.clock.now(),
                &invocation.payload,
            ));
        }
        headers
    }

    async fn read(&self, mut response: Response) -> Verdict {
        let status = response.status();
        let limit = if status.is_success() { MAX_ANSWER_BYTES } else { MAX_ERROR_BYTES };
        let mut body = BytesMut::new();
        let mut cut = false;
        while !cut {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    cut = body.len() + chunk.len() > limit;
                    body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
                }
                Ok(None) => break,
                // A refusal stays one, however its body ends.
                Err(_) if !status.is_success() => break,
                Err(error) => return unreachable_because(&error),
            }
        }
        if cut && status.is_success() {
            let message =
                format!("the answer is larger than {MAX_ANSWER_BYTES} bytes, the most a function may answer");
            return Verdict::failed(FailureClass::BadResponse, "Function.ResponseSizeTooLarge", message);
        }
        self.judge(&response, body.freeze())
    }

    fn judge(&self, response: &Response, body: Bytes) -> Verdict {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if response.status().is_success() {
            let content_type = text("content-type").map(str::to_owned);
            return Verdict {
                answer: Ok(Answer { payload: body, content_type, ..Answer::default() }),
                retry_after: None,
            };
        }
        reply::refusal(response.status(), text("retry-after"), text("location"), &body, self.clock.now())
    }
}

/// A header value that is never printed.
fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn unreachable_because(error: &reqwest::Error) -> Verdict {
    let mut message = if error.is_connect() { "connect".to_owned() } else { "exchange".to_owned() };
    let mut kind = "HTTP.Unreachable";
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<AddressRefused>() {
            kind = "HTTP.AddressRefused";
        }
        let text = inner.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    Verdict::failed(FailureClass::Unreachable, kind, message)
}

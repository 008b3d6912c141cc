//! The contract between dispatcher and workers: one invocation in, one result out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bellwire_schemas::outlet::Outgoing;
use bellwire_schemas::{ErrorInfo, FunctionName};
use bytes::Bytes;

use crate::emit::Emission;

/// One call of one function.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The function to call.
    pub function: FunctionName,
    /// Identity of this attempt: the Runtime API's request id; a fresh UUID for every attempt.
    pub request_id: String,
    /// Same for every attempt of one delivery: sent as `Idempotency-Key` to endpoints.
    pub idempotency_key: String,
    /// The body. For workers this is what the handler receives (JSON).
    pub payload: Bytes,
    /// The body's media type; workers always get `application/json`.
    pub content_type: String,
    /// Extra request headers for endpoints (CloudEvents binary mode: `ce-id`, …), percent-encoded already.
    pub headers: Vec<(String, String)>,
    /// W3C `traceparent`, passed on to endpoints and, as X-Ray header, to workers.
    pub traceparent: Option<String>,
    /// What goes out, when the function is a destination; else nothing.
    pub outgoing: Option<Outgoing>,
    /// Asked when the function is about to be handed the event.
    pub consent: Consent,
}

/// Whether the function may be handed the event now. That moment may come long after the call: a worker had to start
/// first, or the whole process was stopped and goes on after others took over its work.
#[derive(Clone, Default)]
pub struct Consent(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Consent {
    /// Asks this question; the default is always yes.
    pub fn new(question: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(question)))
    }

    /// Whether it is given at this moment.
    pub fn is_given(&self) -> bool {
        self.0.as_ref().is_none_or(|question| question())
    }
}

impl fmt::Debug for Consent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Consent").field(&self.0.is_some()).finish()
    }
}

/// How an invocation ended and what it cost.
#[derive(Clone, Debug)]
pub struct InvocationResult {
    /// The answer, or the failure.
    pub answer: Result<Answer, ErrorInfo>,
    /// From hand-over to answer, start of a worker not included.
    pub duration: Duration,
    /// How long the worker took to start, when this invocation had to wait for it.
    pub init: Option<Duration>,
    /// Which worker, such as `2`; empty when none was reached.
    pub worker: String,
    /// Version of the function that ran: first 8 hex digits of a hash over code folder and settings.
    pub version: String,
    /// What the function printed during this invocation, lines, cut at 64 KiB in all (then a last line says so).
    pub logs: Vec<String>,
    /// When the target asked for a pause (`Retry-After`), how long.
    pub retry_after: Option<Duration>,
}

/// What a function answered.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The body.
    pub payload: Bytes,
    /// Its media type, when the function said one.
    pub content_type: Option<String>,
    /// Events that it sent on the way to this answer, in order.
    pub emitted: Vec<Emission>,
}

/// Something that can run functions, and asks for consent before it hands an event over. `invoke` waits for a free worker slot, never longer than the caller waits for
/// it; dropping the future before the function was handed the event leaves no trace, dropping it later kills the worker.
#[async_trait]
pub trait Invoker: Send + Sync + 'static {
    /// Runs one invocation to its end: answer, error, deadline or crash. Never panics, never hangs past the
    /// function's timeout plus the time to start a worker.
    async fn invoke(&self, invocation: Invocation) -> InvocationResult;
}

//! One binding, whole: how it delivers, since where, and what became of a pause.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{BindingStatus, PauseView};
use crate::brokers::{Sending, SendingPayload};
use crate::delivery::Exhausted;
use crate::service::{BindingSpec, Ordering, Singleton};
use crate::{Address, SourceName};

/// `GET /v1/bindings/{binding}`, and the answer of `pause` and `resume`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindingDetail {
    /// The list's fields.
    #[serde(flatten)]
    pub status: BindingStatus,
    /// How it delivers, every default filled in; absent when the configuration has it no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyView>,
    /// The first place of each lane to which its present revision applies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effective_from: Vec<Address>,
    /// The place in each lane up to which everything has ended or is a debt.
    #[serde(default)]
    pub position: Vec<Address>,
    /// The pause that `resume` ended: `waiting` and `retrying` say what has gathered since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was_paused: Option<PauseView>,
}

/// The delivery policy of a binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyView {
    /// EventBridge patterns, any may match; empty means everything.
    pub filter: Vec<Value>,
    /// How many events one invocation receives.
    pub batch: BatchView,
    /// `key` or `none`.
    pub ordering: String,
    /// When a failed delivery is tried again.
    pub retry: RetryView,
    /// Older deliveries end as expired.
    pub max_age_ms: Option<u64>,
    /// Most attempts at once of this binding.
    pub concurrency: Option<u32>,
    /// Most deliveries per time: `100/s`.
    pub rate: Option<String>,
    /// Waiting for the end of a burst.
    pub debounce: Option<DebounceView>,
    /// `skip` or `cancel`.
    pub singleton: Option<String>,
    /// What is sent when a delivery succeeded.
    pub on_success: Option<SendingView>,
    /// What is sent when a delivery was given up.
    pub on_failure: Option<SendingView>,
    /// Constant JSON instead of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Value>,
}

/// How many events one invocation receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchView {
    /// Most events.
    pub size: u32,
    /// Most bytes of events.
    pub max_bytes: u64,
    /// How long a batch that is not full waits for more.
    pub window_ms: u64,
    /// Whether a batch that fails as a whole is halved.
    pub bisect: bool,
}

/// When a failed delivery is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryView {
    /// Attempts in all; `null` when unlimited.
    pub attempts: Option<u32>,
    /// Upper bound of the first wait.
    pub min_delay_ms: u64,
    /// Upper bound that doubling stops at.
    pub max_delay_ms: u64,
    /// Error names that end the delivery at once.
    pub non_retryable: Vec<String>,
    /// `skip-event` or `block-key`.
    pub exhausted: String,
}

/// Waiting for the end of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebounceView {
    /// How long no other may have come.
    pub wait_ms: u64,
    /// At the latest so long after the first.
    pub max_wait_ms: Option<u64>,
}

/// What is sent, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendingView {
    /// The source into which it goes: `topic.…`, `destination.…`, `function.…`.
    pub to: SourceName,
    /// `record` or `result`.
    pub payload: String,
}

impl From<&BindingSpec> for PolicyView {
    fn from(spec: &BindingSpec) -> Self {
        let retry = &spec.retry;
        Self {
            filter: spec.filter.clone(),
            batch: BatchView {
                size: spec.batch.size,
                max_bytes: spec.batch.bytes.0,
                window_ms: millis(spec.batch.window),
                bisect: spec.batch.bisect,
            },
            ordering: match spec.ordering {
                Ordering::Key => "key",
                Ordering::None => "none",
            }
            .into(),
            retry: RetryView {
                attempts: retry.attempts,
                min_delay_ms: millis(retry.min_delay),
                max_delay_ms: millis(retry.max_delay),
                non_retryable: retry.non_retryable.clone(),
                exhausted: match retry.exhausted {
                    Exhausted::SkipEvent => "skip-event",
                    Exhausted::BlockKey => "block-key",
                }
                .into(),
            },
            max_age_ms: spec.max_age.map(millis),
            concurrency: spec.concurrency,
            rate: spec.rate.map(|rate| rate.to_string()),
            debounce: spec
                .debounce
                .map(|d| DebounceView { wait_ms: millis(d.wait), max_wait_ms: d.max_wait.map(millis) }),
            singleton: spec.singleton.map(|word| {
                match word {
                    Singleton::Skip => "skip",
                    Singleton::Cancel => "cancel",
                }
                .into()
            }),
            on_success: spec.on_success.as_ref().map(SendingView::from),
            on_failure: spec.on_failure.as_ref().map(SendingView::from),
            input: spec.input.clone(),
        }
    }
}

impl From<&Sending> for SendingView {
    fn from(sending: &Sending) -> Self {
        let payload = match sending.payload {
            SendingPayload::Record => "record",
            SendingPayload::Result => "result",
        };
        Self { to: sending.to.clone(), payload: payload.into() }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

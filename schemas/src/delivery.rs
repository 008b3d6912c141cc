//! Deliveries: how they fail, how they end, when they are tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a delivery ended for good. Written once per (event, binding); see `docs/states.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalState {
    /// The function answered without an error.
    Delivered,
    /// The binding's filter said no.
    Filtered,
    /// The event grew older than the binding's `max_age` before an attempt succeeded.
    Expired,
    /// Given up after the last attempt, kept as a dead letter.
    Dead,
    /// An operator gave it up.
    Discarded,
}

impl FinalState {
    /// Every state, in the order `verify` prints them.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Filtered, Self::Expired, Self::Dead, Self::Discarded];

    /// The word used in tables, JSON and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Filtered => "filtered",
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::Discarded => "discarded",
        }
    }
}

/// What kind of failure an attempt ended with; decides whether it counts, and what people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureClass {
    /// The handler raised an error, or an endpoint answered 4xx or 5xx.
    Function,
    /// The deadline passed; the worker's process group was killed.
    Timeout,
    /// The worker's process ended, or closed its connection, before it answered.
    Crash,
    /// The answer was larger than allowed, cut short or not understood.
    BadResponse,
    /// The endpoint could not be reached, or the connection broke.
    Unreachable,
    /// The target asked for less (429, or 503 with `Retry-After`): a flow signal, burns no attempt.
    Throttled,
    /// The worker could not start (crash at import, missing interpreter): burns no attempt.
    CannotStart,
}

impl FailureClass {
    /// Whether an attempt that ends this way uses up one of the binding's attempts.
    pub const fn burns_attempt(self) -> bool {
        !matches!(self, Self::Throttled | Self::CannotStart)
    }
}

/// One error as the function or the platform reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorInfo {
    /// What kind of failure it was.
    pub class: FailureClass,
    /// The error's name: the handler's own (`ValueError`) or `Function.Timeout`, `Runtime.ExitError` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it said, cut at 4 KiB.
    pub message: String,
    /// Stack lines, innermost last as the runtime gave them, at most 64 lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<String>,
}

impl ErrorInfo {
    /// A failure that the platform itself found.
    pub fn platform(class: FailureClass, kind: &str, message: impl Into<String>) -> Self {
        Self { class, kind: kind.into(), message: message.into(), stack: Vec::new() }
    }

    /// `Type: message` in one line, cut at 200 characters: the short form of tables and logs.
    pub fn headline(&self) -> String {
        let line = self.message.lines().next().unwrap_or("");
        let text = if line.is_empty() { self.kind.clone() } else { format!("{}: {line}", self.kind) };
        text.chars().take(200).collect()
    }
}

/// When a failed delivery is tried again and when it is given up (`retry:` of a binding).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first included; `None` means without end.
    pub attempts: Option<u32>,
    /// Upper bound of the wait before the second attempt.
    pub min_delay: Duration,
    /// Upper bound that doubling stops at.
    pub max_delay: Duration,
    /// Error names that end the delivery at once.
    pub non_retryable: Vec<String>,
    /// What follows the last attempt.
    #[serde(default)]
    pub exhausted: Exhausted,
}

/// What follows the last attempt of a delivery (`retry.exhausted`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exhausted {
    /// It becomes a dead letter, and its key goes on.
    #[default]
    SkipEvent,
    /// It stays owed, and everything of its key waits behind it until an operator cancels or redrives it.
    BlockKey,
}

impl Default for RetryPolicy {
    /// `{attempts: 10, min_delay: 1s, max_delay: 5m}`, the documented default of `retry`.
    fn default() -> Self {
        Self {
            attempts: Some(10),
            min_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(300),
            non_retryable: Vec::new(),
            exhausted: Exhausted::SkipEvent,
        }
    }
}

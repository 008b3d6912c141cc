//! `GET /v1/events/{address}/explanation`: why one event was, or was not, delivered.

use serde::{Deserialize, Serialize};

use crate::{Address, BindingName, ErrorInfo, SourceName, Timestamp};

/// Everything the ledger and the dispatcher know about one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The event.
    pub event: ExplainedEvent,
    /// One item per binding of its source that owed it, ordered by name.
    pub deliveries: Vec<ExplainedDelivery>,
}

/// The event of an explanation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedEvent {
    /// CloudEvents id.
    pub id: String,
    /// Where it lies.
    pub address: Address,
    /// The configured source.
    pub source: SourceName,
    /// CloudEvents type.
    #[serde(rename = "type")]
    pub kind: String,
    /// CloudEvents subject.
    pub subject: Option<String>,
    /// Ordering key.
    pub key: Option<String>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// `accepted`: what lies in the ledger was.
    pub intake: String,
    /// Later arrivals with the same identity, not stored again.
    pub duplicates: Vec<LaterArrival>,
}

/// A later arrival that was not stored again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaterArrival {
    /// When it came.
    pub at: Timestamp,
    /// Its CloudEvents id.
    pub id: String,
}

/// One delivery: the event owed to one binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedDelivery {
    /// The binding.
    pub binding: BindingName,
    /// `delivered filtered expired dead discarded waiting running retrying parked paused`.
    pub state: String,
    /// A stable word for the why; `null` when nothing needs one.
    ///
    /// Ended: `filter-mismatch`, `debounced`, `singleton`, `too-old`, `attempts-exhausted`, `non-retryable`, `operator`,
    /// `event-missing`. Owed: `retry`, `redrive`, `replay`, `key-parked`, `key-blocked`, `deliver-at`, `debounce`,
    /// `cancel-requested`. Due and held back, of several causes the one that lets go last: `binding-paused`,
    /// `binding-disabled`, `binding-inactive` (the configuration has it no more), `function-unknown`,
    /// `function-cannot-start`, `throttled`, `destination-unavailable`, `breaker-open`, `ledger-unavailable`,
    /// `cursor-span`, `parked-limit`, `no-progress`, `key-in-flight`, `rate`, `batch-window`, `concurrency`,
    /// `backpressure`, `in-turn` (nothing but those before it), `other-controller` and `lane-unowned` (it is not known
    /// here).
    pub reason: Option<String>,
    /// The same for people: the clause of the filter, the last failure, who paused it and why.
    pub detail: Option<String>,
    /// The binding's revision that decided, or would decide now.
    pub revision: u32,
    /// The function's version of the last attempt.
    pub version: Option<String>,
    /// When it ended, if it has.
    pub ended_at: Option<Timestamp>,
    /// Since when what holds it back does: the pause, the open breaker, the request to cancel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
    /// When it is tried next, or its function is asked again, if that is known.
    pub next_attempt_at: Option<Timestamp>,
    /// What it waits for: the function, the binding, `key …`, `lane …`, `controller …` or the `ledger`.
    pub waits_for: Option<String>,
    /// The delivery of the same key that it waits behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Address>,
    /// Deliveries of the same key that wait behind it, at most 100, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub followers: Vec<Address>,
    /// Attempts allowed in all; `null` when unlimited or when the binding is gone.
    pub attempts_allowed: Option<u32>,
    /// Group of equal failures, of a dead letter.
    pub group: Option<String>,
    /// The attempts, oldest first.
    pub attempts: Vec<ExplainedAttempt>,
}

/// One attempt of a delivery.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExplainedAttempt {
    /// From 1; a redriven delivery starts again at 1.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How long the function took.
    pub duration_ms: u64,
    /// `success` or `failure`.
    pub outcome: String,
    /// The failure.
    pub error: Option<ErrorInfo>,
    /// The worker.
    pub worker: Option<String>,
    /// The replay that asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<String>,
}

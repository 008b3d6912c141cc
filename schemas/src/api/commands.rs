//! Requests that change something, and their answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::selector::Selector;
use crate::{Address, BindingName, ErrorInfo, ReplayId, SourceName, Timestamp};

/// `POST /v1/sources/{source}/sends`: one event, sample or tick through the source's own door, signed by itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendRequest {
    /// The body to send, as text; absent: the sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Its media type; `application/json` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Send the kind's sample; the number makes samples differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<u32>,
    /// How many, 1 to 1,000; a body that carries an id is stored once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// What became of a send.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendResult {
    /// How many were stored.
    pub accepted: u64,
    /// One item per event.
    pub items: Vec<SendItem>,
}

/// One arrival: the same item as the ingress door answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SendItem {
    /// `accepted`, `duplicate`, `quarantined`, `refused`.
    pub status: String,
    /// CloudEvents id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where it lies; of a duplicate, where the first lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Why it was refused or quarantined: a stable word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// `POST /v1/functions/{function}/invocations`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvocationRequest {
    /// The event the handler receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Value>,
    /// Or a recorded event, in the shape the function's format gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Or the sample of a kind: `s3`, `schedule`, `webhook`, `topic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

/// The answer of a function that was called now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InvocationView {
    /// Whether it answered without an error.
    pub ok: bool,
    /// The answer, when it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// The answer, when it is not, as text (lossy).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
    /// What it printed.
    pub logs: Vec<String>,
    /// How long it took.
    pub duration_ms: u64,
    /// How long the worker took to start, if it had to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_ms: Option<u64>,
    /// The version that ran.
    pub version: String,
}

/// `POST /v1/bindings/{binding}/pause` and `/resume`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PauseRequest {
    /// Why, for the others.
    pub reason: String,
}

/// `POST /v1/dead-letters/redrive` and `/discard`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterAction {
    /// Which ones; empty is refused unless `all` is set.
    pub selector: Selector,
    /// All of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Why (required to discard).
    pub reason: String,
    /// Only count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// `POST /v1/deliveries/cancel`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CancelRequest {
    /// Which ones; empty is refused unless `all` is set. Debts, what runs, and what no attempt was made of.
    pub selector: Selector,
    /// All of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Why (required): it is logged.
    pub reason: String,
    /// Only count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Go on where the answer before said so (`next`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// How many deliveries a write changed, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The number.
    pub count: u64,
    /// Whether it was only counted.
    pub dry_run: bool,
    /// Of a cancellation, how many of them end only when their binding goes on: it is paused or disabled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub paused: u64,
    /// Of a cancellation, how many of them belong to a binding that the configuration has no more and had not come to
    /// them: they stay in its accounts until retention removes their events, and end at once when it is put back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inactive: u64,
    /// Of a cancellation, where to go on: more may be meant than one call looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `POST /v1/replays`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplayRequest {
    /// Which events; empty is refused unless `all` is set.
    pub selector: Selector,
    /// To which binding; absent: the selector's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<BindingName>,
    /// All events kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// Only count.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// A name that makes the request safe to repeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<ReplayId>,
}

/// `GET /v1/absences`: why an id is not in the ledger.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Absence {
    /// The id asked for.
    pub id: String,
    /// The source asked for.
    pub source: Option<SourceName>,
    /// How far back the ledger remembers.
    pub retention_ms: u64,
    /// The last event accepted on the source.
    pub last_accepted: Option<(String, Timestamp)>,
    /// Whether the source takes events in now.
    pub healthy: Option<bool>,
    /// Requests refused since yesterday: reason, how many, the last one, from whom.
    pub refused: Vec<(String, u64, Timestamp, String)>,
    /// Messages of the source in quarantine since yesterday.
    pub quarantined: u64,
}

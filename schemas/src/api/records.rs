//! Events, dead letters, replays, quarantined messages as the API shows them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::selector::Selector;
use crate::{Address, BindingName, ErrorInfo, ReplayId, SourceName, Timestamp};

/// An event in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Where it lies.
    pub address: Address,
    /// CloudEvents id.
    pub id: String,
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
    /// Size of its payload.
    pub data_bytes: u64,
}

/// One event, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventDetail {
    /// The list's fields.
    #[serde(flatten)]
    pub event: EventView,
    /// All CloudEvents attributes.
    pub attributes: Map<String, Value>,
    /// The payload, when it is JSON or text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// The payload, when it is neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// What the source said besides.
    pub meta: Map<String, Value>,
}

/// A delivery that is owed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// The event's address.
    pub address: Address,
    /// The binding that owes it.
    pub binding: BindingName,
    /// CloudEvents id; absent, as the next two, where the event is kept no more.
    pub id: Option<String>,
    /// The configured source.
    pub source: Option<SourceName>,
    /// CloudEvents type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Ordering key.
    pub key: Option<String>,
    /// `waiting`, `running`, `retrying`, `parked`, `paused`.
    pub state: String,
    /// Why it is owed: `retry`, `redrive`, `replay`, `key-parked`, `key-blocked`, `deliver-at`, `debounce`,
    /// `cancel-requested`, or why it waits.
    pub reason: Option<String>,
    /// Attempts used so far.
    pub attempts: u32,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// When it is tried next, if that is known.
    pub next_attempt_at: Option<Timestamp>,
    /// The last failure.
    pub error: Option<ErrorInfo>,
}

/// A dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterView {
    /// The event's address.
    pub address: Address,
    /// The binding that gave up.
    pub binding: BindingName,
    /// The configured source.
    pub source: SourceName,
    /// CloudEvents type.
    #[serde(rename = "type")]
    pub kind: String,
    /// CloudEvents subject.
    pub subject: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// When the first attempt started.
    pub first_at: Timestamp,
    /// When it was given up.
    pub died_at: Timestamp,
    /// Group of equal failures.
    pub group: String,
    /// The last failure.
    pub error: ErrorInfo,
    /// The last lines the function printed.
    pub logs: Vec<String>,
    /// The event, when one dead letter is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventDetail>,
}

/// Dead letters with the same fingerprint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeadLetterGroup {
    /// The fingerprint.
    pub group: String,
    /// How many.
    pub count: u64,
    /// The first death.
    pub first_at: Timestamp,
    /// The last death.
    pub last_at: Timestamp,
    /// The failure, in one line.
    pub error: String,
    /// The binding of the example.
    pub binding: BindingName,
    /// One of them.
    pub example: Address,
}

/// A replay and how far it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayView {
    /// Its identity.
    pub id: ReplayId,
    /// To which binding.
    pub binding: BindingName,
    /// What it replays.
    pub selector: Selector,
    /// `running`, `paused`, `cancelled`, `done`.
    pub state: String,
    /// Deliveries asked for.
    pub total: u64,
    /// Put into the debts so far.
    pub enqueued: u64,
    /// Who asked.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
}

/// What a replay would do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReplayPlan {
    /// To which binding.
    pub binding: BindingName,
    /// Deliveries it would make.
    pub total: u64,
    /// Different ordering keys among them.
    pub keys: u64,
    /// The oldest.
    pub oldest: Option<Address>,
    /// The newest.
    pub newest: Option<Address>,
}

/// A quarantined message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QuarantineView {
    /// Its number.
    pub id: u64,
    /// When it came.
    pub at: Timestamp,
    /// Its source.
    pub source: SourceName,
    /// Why.
    pub reason: String,
    /// The bytes, as text where they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The bytes, where they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<String>,
    /// What the source said besides.
    pub meta: Value,
}

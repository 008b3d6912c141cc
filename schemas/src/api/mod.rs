//! Bodies of the management API `/v1`: written by the controller, read by the CLI and by scripts.
//!
//! Fields are added, never renamed. Times are RFC 3339 UTC, durations `_ms`, sizes `_bytes`.

mod bindings;
mod commands;
mod explanation;
mod records;
mod status;
mod verification;

pub use bindings::{BatchView, BindingDetail, DebounceView, PolicyView, RetryView, SendingView};
pub use commands::{
    Absence, CancelRequest, Changed, DeadLetterAction, InvocationRequest, InvocationView, PauseRequest,
    ReplayRequest, SendItem, SendRequest, SendResult,
};
pub use explanation::{ExplainedAttempt, ExplainedDelivery, ExplainedEvent, Explanation, LaterArrival};
pub use records::{
    DeadLetterGroup, DeadLetterView, DeliveryView, EventDetail, EventView, QuarantineView, ReplayPlan,
    ReplayView,
};
pub use status::{
    BindingStatus, ControllerStatus, FunctionStatus, LaneStatus, LedgerStatus, Listen, PauseView, Problem,
    SourceStatus, Status,
};
pub use verification::{BindingSum, SourceSum, Verification};

use serde::{Deserialize, Serialize};

/// A part of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct List<T> {
    /// The items, newest first unless asked otherwise.
    pub items: Vec<T>,
    /// Cursor of the next part; `null` at the end.
    pub next: Option<String>,
}

/// An error body, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ErrorBody {
    /// `/e/<code>`, served by the binary.
    #[serde(rename = "type")]
    pub kind: String,
    /// Short and general.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// The stable part.
    pub code: String,
    /// What happened here.
    pub detail: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Which part of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// For the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

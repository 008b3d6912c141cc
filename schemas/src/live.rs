//! Facts as they happen: what `dev`, `events tail` and `/v1/live` show.

use serde::{Deserialize, Serialize};

use crate::{Address, BindingName, ErrorInfo, FinalState, FunctionName, SourceName, Timestamp};

/// One fact about one event or function. Loss of a fact (a slow reader) never means loss of an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum Fact {
    /// An event was committed.
    Accepted {
        /// When.
        at: Timestamp,
        /// Where it lies.
        address: Address,
        /// Which source.
        source: SourceName,
        /// CloudEvents type.
        #[serde(rename = "type")]
        kind: String,
        /// CloudEvents subject.
        subject: Option<String>,
        /// CloudEvents id.
        id: String,
    },
    /// An arrival was not stored again, was quarantined or refused.
    NotAccepted {
        /// When.
        at: Timestamp,
        /// Which source.
        source: SourceName,
        /// `duplicate`, `quarantined` or `refused`.
        arrival: String,
        /// Why, in one line.
        detail: String,
    },
    /// An attempt ended.
    Attempt {
        /// When it ended.
        at: Timestamp,
        /// Of which event.
        address: Address,
        /// For which binding.
        binding: BindingName,
        /// Which function.
        function: FunctionName,
        /// Its number, from 1.
        attempt: u32,
        /// Attempts in all, when bounded.
        attempts: Option<u32>,
        /// How long the function took, milliseconds.
        duration_ms: u64,
        /// How long the worker took to start, when it started for this event, milliseconds.
        init_ms: Option<u64>,
        /// The final state, when this was the last attempt.
        state: Option<FinalState>,
        /// The failure.
        error: Option<ErrorInfo>,
        /// When the next attempt is due.
        next_at: Option<Timestamp>,
        /// What the function printed, cut.
        logs: Vec<String>,
    },
    /// A delivery ended without an attempt: filtered, expired or discarded.
    Settled {
        /// When.
        at: Timestamp,
        /// Of which event.
        address: Address,
        /// For which binding.
        binding: BindingName,
        /// How.
        state: FinalState,
        /// Why, in one line.
        reason: String,
    },
    /// A function, binding or source changed its condition: cannot start, recovered, paused, stalled, resumed, reloaded.
    /// Or a controller joined or left, or a lane changed hands.
    Condition {
        /// When.
        at: Timestamp,
        /// Function, binding or source; `controller <name>`, `lane <number>`.
        subject: String,
        /// A stable word: `cannot-start`, `started`, `paused`, `stalled`, `resumed`, `reloaded`, `reload-failed`; of
        /// controllers `joined`, `left`; of lanes, seen from this controller, `taken`, `let-go`.
        state: String,
        /// What people read; may span lines.
        detail: String,
    },
}

impl Fact {
    /// The address the fact is about, if it is about one.
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Accepted { address, .. }
            | Self::Attempt { address, .. }
            | Self::Settled { address, .. } => Some(*address),
            Self::NotAccepted { .. } | Self::Condition { .. } => None,
        }
    }
}

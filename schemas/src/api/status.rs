//! `GET /v1/status`: everything one screen needs, in one call.

use serde::{Deserialize, Serialize};

use crate::{BindingName, ErrorInfo, FunctionName, SourceName, Timestamp};

/// The state of a controller.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Names of the services that run.
    pub services: Vec<String>,
    /// When the controller started.
    pub started_at: Timestamp,
    /// The doors.
    pub listen: Listen,
    /// The ledger.
    pub ledger: LedgerStatus,
    /// The sources.
    pub sources: Vec<SourceStatus>,
    /// The bindings.
    pub bindings: Vec<BindingStatus>,
    /// The functions.
    pub functions: Vec<FunctionStatus>,
    /// The lanes.
    pub lanes: Vec<LaneStatus>,
    /// The controllers that share the ledger, this one among them.
    #[serde(default)]
    pub controllers: Vec<ControllerStatus>,
    /// How long this controller may still start attempts unless the ledger renews its leases; absent when nobody shares
    /// the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_left_ms: Option<u64>,
    /// What is wrong, worst first; empty when all is well.
    pub problems: Vec<Problem>,
}

/// The addresses of the two doors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listen {
    /// Base URL of the ingress door.
    pub ingress: String,
    /// Base URL of the admin door.
    pub admin: String,
}

/// The ledger's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerStatus {
    /// Where it is, without credentials.
    pub url: String,
    /// Its size on disk.
    pub size_bytes: u64,
    /// The size at which sources pause.
    pub max_size_bytes: Option<u64>,
    /// Events are kept this long after nobody owes them.
    pub retention_ms: u64,
}

/// One source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub name: SourceName,
    /// `s3`, `schedule`, `webhook`, `topic`.
    pub kind: String,
    /// `ok`; `paused`: disabled, or held back for now; `failing`; `stalled`: alive, but nothing moves.
    pub state: String,
    /// Why, when it is not `ok`: `enabled: false`, `ledger-full: …`, `memory: …`, or what does not work.
    pub reason: Option<String>,
    /// Since when it is not `ok`, where that is known.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// How often its connector was dropped and made anew since start, because it stalled or broke down.
    #[serde(default)]
    pub restarts: u64,
    /// Where events enter: `POST /s3`, or the next tick.
    pub entrance: String,
    /// Stored events since the ledger began.
    pub accepted: u64,
    /// Arrivals not stored again.
    pub duplicate: u64,
    /// Messages in quarantine.
    pub quarantined: u64,
    /// Requests refused since start.
    pub refused: u64,
    /// When the last event was accepted.
    pub last_at: Option<Timestamp>,
}

/// One binding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BindingStatus {
    /// Its name.
    pub name: BindingName,
    /// The source it reads.
    pub source: SourceName,
    /// The function it calls.
    pub function: FunctionName,
    /// `ok`, `paused`, `waiting`, `stalled`, `inactive`.
    pub state: String,
    /// Why, when it is not `ok`: a reason code. With `ok`: `rate`, while its rate holds some back; `key-blocked`, while some
    /// keys wait for an operator.
    pub reason: Option<String>,
    /// The same for people.
    pub detail: Option<String>,
    /// Revision of its definition.
    pub revision: u32,
    /// Deliveries in flight.
    pub running: u64,
    /// Events beyond the cursor, and debts that were not tried so far: parked, delayed, debounced.
    pub waiting: u64,
    /// All other debts: retries, redrives, replays, what blocks its key.
    pub retrying: u64,
    /// Deliveries that ended so.
    pub delivered: u64,
    /// Deliveries that ended so.
    pub filtered: u64,
    /// Deliveries that ended so.
    pub expired: u64,
    /// Deliveries that ended so; a redriven one counts where it ended last.
    pub dead: u64,
    /// Deliveries that ended so.
    pub discarded: u64,
    /// When the oldest owed event was accepted, or the time came that it had asked for.
    pub oldest_owed_at: Option<Timestamp>,
    /// Who paused it, since when and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<PauseView>,
    /// Since when its target is left alone but for probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_since: Option<Timestamp>,
    /// When the next probe goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Timestamp>,
    /// When the backlog is worked off, at the pace at which it shrinks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drains_by: Option<Timestamp>,
    /// Attempts at once that its target stands now, where that is below what the configuration allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Keys behind a delivery that failed for good (`exhausted: block-key`) and waits for an operator; at most 1,000
    /// are counted.
    #[serde(default)]
    pub blocked_keys: u64,
}

/// A pause by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseView {
    /// Since when.
    pub since: Timestamp,
    /// The name of the token.
    pub by: String,
    /// The operator's words, perhaps empty.
    pub reason: String,
}

/// One function.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FunctionStatus {
    /// Its name.
    pub name: FunctionName,
    /// What runs: `python3 thumbnail.handler`.
    pub target: String,
    /// Version of code and settings.
    pub version: String,
    /// `ok`, `cannot-start`, `throttled`, `breaker-open`, `destination-unavailable`, `unknown`.
    pub state: String,
    /// The failure to start.
    pub error: Option<ErrorInfo>,
    /// Workers without work.
    pub idle: u32,
    /// Workers with an invocation.
    pub busy: u32,
    /// Invocations since start.
    pub invocations: u64,
    /// The exact maximum at once.
    pub concurrency: u32,
    /// Attempts at once that it stands now, where that is below `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many of `concurrency` this controller has now, where controllers share the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slots: Option<u32>,
    /// Since when it is left alone but for probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_since: Option<Timestamp>,
    /// When the next probe goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_at: Option<Timestamp>,
}

/// One lane.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its number.
    pub lane: u16,
    /// The last place used.
    pub tail: u64,
    /// Whether this controller owns it.
    pub owned: bool,
    /// Its newest epoch.
    pub epoch: u32,
    /// The id of the controller that owns it; absent while nobody does.
    #[serde(default)]
    pub owner: Option<String>,
}

/// One controller that is alive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ControllerStatus {
    /// Its id.
    pub id: String,
    /// For people: host and process.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// When it came, by the ledger's clock; absent where nobody shares the ledger.
    pub since: Option<Timestamp>,
    /// The lanes that it owns.
    pub lanes: Vec<u16>,
    /// It ends soon: gives its lanes back and takes none.
    pub leaving: bool,
    /// Whether it is the one that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Source, binding or function.
    pub subject: String,
    /// A stable word.
    pub code: String,
    /// What people read, with what to do.
    pub detail: String,
}

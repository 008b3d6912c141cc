//! What people and the API ask: records and pages, nothing on the hot path.

use std::collections::BTreeMap;

use bellwire_schemas::selector::Selector;
use bellwire_schemas::service::Start;
use bellwire_schemas::{
    Address, BindingId, BindingName, FinalState, FunctionName, Lane, ReplayId, Seq, SourceName, Timestamp,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A binding as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// The ledger's number; ignored when declaring.
    pub id: BindingId,
    /// Its identity.
    pub name: BindingName,
    /// The source it reads.
    pub source: SourceName,
    /// The function it calls.
    pub function: FunctionName,
    /// Its filter, a list of patterns.
    pub filter: Vec<Value>,
    /// Where it begins if it is new; ignored when it exists.
    pub start: Start,
    /// Grows by one when source, function or filter changed; ignored when declaring.
    pub revision: u32,
    /// Paused by an operator.
    pub paused: Option<Pause>,
    /// False after the configuration dropped it: its debts stay listed, nothing is delivered.
    pub active: bool,
    /// The last place of each lane when the present revision was declared: events up to there are judged by the revision
    /// before, later ones by this. Empty when nobody had written it down; ignored when declaring.
    #[serde(default)]
    pub since: BTreeMap<Lane, Seq>,
}

/// One revision of a binding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingRevision {
    /// Its number, from 1.
    pub revision: u32,
    /// The source it reads.
    pub source: SourceName,
    /// The function it calls.
    pub function: FunctionName,
    /// Its filter, a list of patterns.
    pub filter: Vec<Value>,
    /// When it was declared.
    pub at: Timestamp,
    /// See [`BindingRecord::since`].
    pub since: BTreeMap<Lane, Seq>,
}

/// The last places of lanes in their order, by lane.
pub(crate) fn by_lane(tails: impl IntoIterator<Item = Seq>) -> BTreeMap<Lane, Seq> {
    (1..).map(Lane).zip(tails).collect()
}

/// Revisions in one answer: the newest ones.
pub(crate) const REVISIONS: usize = 100;

/// Who paused a binding, when and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// The token's name.
    pub by: String,
    /// The operator's words.
    pub reason: String,
}

/// One delivery, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey {
    /// The binding.
    pub binding: BindingId,
    /// The event.
    pub address: Address,
}

/// Which events to list. Filters over JSON are applied by the caller.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// Conditions on addresses, ids, times, source, type and key; the others are ignored here.
    pub selector: Selector,
    /// Oldest first instead of newest first.
    pub ascending: bool,
    /// Continue after this address (exclusive) in the chosen direction: per lane and time order see [`Page`].
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: usize,
}

/// A place in a listing that stays valid while events arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Time of the last item listed.
    pub at: Timestamp,
    /// Its address.
    pub address: Address,
}

/// Part of a list, ordered by (time, address).
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// Which dead letters to list or act on: addresses, ids, source, binding, type, key, error and times (of death).
#[derive(Clone, Debug, Default)]
pub struct DeadLetterQuery {
    /// The conditions.
    pub selector: Selector,
    /// Only this binding, when the selector's name was resolved.
    pub binding: Option<BindingId>,
    /// Continue after this place.
    pub after: Option<Cursor>,
    /// At most this many, and those that died at the same moment for other bindings of the last address: a cursor
    /// names moment and address only.
    pub limit: usize,
}

/// How much of a binding ended how, and what its cursor and its debts still hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingTotals {
    /// Endings by state, of the events that `accepted` counts; redriven and replayed ones count once, by their last
    /// ending, and not at all while they are owed again.
    pub ended: BTreeMap<FinalState, u64>,
    /// Events of the binding's source that lie beyond its cursor, counted up to the tail, and the debts that were not tried
    /// so far: those `parked` and `delayed`.
    pub waiting: u64,
    /// All other debts: tried, or asked for by an operator. Requests to cancel what is still waiting are none.
    pub retrying: u64,
    /// Debts that wait for the end of an earlier delivery of their key; counted by `waiting`, too.
    pub parked: u64,
    /// Debts, not tried so far, that wait for their time or the end of their burst; counted by `waiting`, too.
    pub delayed: u64,
    /// Dead letters kept now.
    pub dead_letters: u64,
    /// Since when the oldest delivery could have been made: when the first event beyond the cursor in each lane was
    /// accepted, and those of debts, but for `delayed` ones, which count from the time that they wait for. It lies in
    /// the future while nothing else is owed.
    pub oldest_owed: Option<Timestamp>,
    /// Events of its source accepted from its start on (from the last change of its source, if it had one). The sum
    /// that `verify` proves: `accepted = ended + waiting + retrying - outside`.
    pub accepted: u64,
    /// Debts, of every reason, whose events `accepted` does not count: replayed from before its start or from another source.
    pub outside: u64,
}

/// A later arrival with the dedup key of a stored event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duplicate {
    /// When it came.
    pub at: Timestamp,
    /// Its CloudEvents id.
    pub id: String,
    /// Its source.
    pub source: SourceName,
    /// The first one.
    pub first: Address,
}

/// A message in quarantine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuarantineRecord {
    /// Its number.
    pub id: u64,
    /// When it came.
    pub at: Timestamp,
    /// Its source.
    pub source: SourceName,
    /// Why.
    pub reason: String,
    /// The bytes.
    pub bytes: bytes::Bytes,
    /// What the source said besides, JSON text.
    pub meta: String,
}

/// Requests refused at the door (bad signature, too large), added up per source, hour and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The source, or the door's path where no source was found.
    pub source: String,
    /// Stable word: `bad-signature`, `too-large`, `bad-request`, …
    pub reason: String,
    /// How many.
    pub count: u64,
    /// The last one.
    pub last_at: Timestamp,
    /// Who sent the last one: peer address.
    pub last_peer: String,
}

/// What one pass of retention removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Events removed.
    pub events: u64,
    /// Old enough but kept, because a cursor, debt or replay still needs them.
    pub kept_for_debts: u64,
}

/// One replay: recorded events delivered again through a cursor of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRecord {
    /// Its identity.
    pub id: ReplayId,
    /// Grows by one with every save, from 1: of two controllers that change the same state of it, one wins.
    #[serde(default)]
    pub version: u64,
    /// What it replays.
    pub selector: Selector,
    /// To which binding.
    pub binding: BindingId,
    /// The binding's name.
    pub binding_name: BindingName,
    /// Where it stands.
    pub state: ReplayState,
    /// How many deliveries it asks for.
    pub total: u64,
    /// How many it has put into the debts so far.
    pub enqueued: u64,
    /// The last place it has passed, per lane.
    pub cursor: BTreeMap<Lane, Seq>,
    /// The last place it covers, per lane.
    pub until: BTreeMap<Lane, Seq>,
    /// Who asked.
    pub by: String,
    /// When.
    pub created_at: Timestamp,
}

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplayState {
    /// Puts deliveries into the debts.
    Running,
    /// Held by an operator.
    Paused,
    /// Stopped by an operator.
    Cancelled,
    /// All are enqueued; what is still owed is seen in the totals.
    Done,
}

//! What dispatch writes: checkpoints, outcomes and exceptions of the bindings of one lane, in one commit.

use std::collections::{BTreeMap, BTreeSet};

use bellwire_schemas::{
    BindingId, Epoch, ErrorInfo, FailureClass, FinalState, Lane, ReplayId, Seq, SeqRanges, Timestamp,
};

use crate::{Error, NewEvent, StoredEvent};

/// One flush of one lane, fenced by its epoch. All of it commits together: a retry row or dead letter never later
/// than the checkpoint that passes it.
#[derive(Clone, Debug)]
pub struct Flush {
    /// The lane.
    pub lane: Lane,
    /// The epoch under which the caller owns it.
    pub epoch: Epoch,
    /// When: what it emits is accepted at this moment.
    pub at: Timestamp,
    /// One part per binding.
    pub bindings: Vec<BindingFlush>,
}

/// What one binding says in a flush.
#[derive(Clone, Debug)]
pub struct BindingFlush {
    /// The binding.
    pub binding: BindingId,
    /// Grows with every flush of this (lane, binding); a flush seen before, or an older one, changes nothing.
    pub version: u64,
    /// Every place up to this one is finished or has an [`Owed`] row.
    pub mark: Seq,
    /// Places above the mark of which the same is true.
    pub done: SeqRanges,
    /// Attempts and endings since the last flush.
    pub log: Vec<LogEntry>,
    /// Debts to write: replaces the row of the same place. Of a place passed before that has no row it is out of date, as
    /// an operator gave the delivery up meanwhile, and changes nothing. A row that an operator cancelled stays cancelled:
    /// its reason, error and time remain.
    pub owed: Vec<Owed>,
    /// Places whose debt row ends with this flush; applied after `owed`. Requests to cancel end with every flush that
    /// passes their place, but for those that it owes.
    pub settled: Vec<Seq>,
    /// Deliveries given up; each has its line in `log`, too.
    pub dead: Vec<DeadLetter>,
    /// Events that these outcomes bring forth: appended in the same commit, in this order, when this part is applied
    /// and not when it was seen before. They are events like any other (places, dedup keys, counts), but for one: a
    /// ledger that is full takes them, because the outcomes of what it holds must be writable for it to become empty.
    pub emitted: Vec<NewEvent>,
}

/// The answer to a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushOutcome {
    /// Committed.
    Flushed,
    /// The lane has another owner: nothing was written. Drop all memory of the lane.
    Fenced,
}

/// One line of the delivery log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// The place.
    pub seq: Seq,
    /// Number of the attempt, from 1; 0 when none was made (filtered, expired, discarded).
    pub attempt: u32,
    /// When the attempt started, or the decision fell.
    pub at: Timestamp,
    /// How long it took, milliseconds.
    pub duration_ms: u32,
    /// How it ended.
    pub outcome: LogOutcome,
    /// The failure, for failed attempts and dead letters.
    pub error: Option<ErrorInfo>,
    /// The worker, empty when none.
    pub worker: String,
    /// The function's version, empty when none.
    pub version: String,
    /// The binding's revision in force.
    pub revision: u32,
    /// The replay that asked for it.
    pub replay: Option<ReplayId>,
}

/// How a line of the delivery log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogOutcome {
    /// The attempt failed and another is owed.
    Failed,
    /// The delivery ended.
    Final(FinalState),
}

/// A delivery that is owed outside the cursor: waits for a retry, a redrive or a replay.
#[derive(Clone, Debug, PartialEq)]
pub struct Owed {
    /// The place.
    pub seq: Seq,
    /// Attempts used so far.
    pub attempts: u32,
    /// When the next one is due.
    pub next_at: Timestamp,
    /// When the delivery was first owed: what `max_age` of redriven and replayed events counts from.
    pub since: Timestamp,
    /// The last failure.
    pub error: Option<ErrorInfo>,
    /// Why it is owed.
    pub reason: OwedReason,
    /// The event's ordering key: what a binding in order is resumed by.
    pub key: Option<String>,
}

impl Owed {
    /// Whether it is never due by itself: an earlier delivery of its key ends first, or an operator decides.
    pub const fn waits_for_key(&self) -> bool {
        matches!(self.reason, OwedReason::Parked | OwedReason::Blocked)
    }

    /// Whether it waits for its time or for the end of its burst, and was not tried so far. One that was tried keeps its
    /// reason, and waits for its retry.
    pub const fn is_delayed(&self) -> bool {
        matches!(self.reason, OwedReason::Delayed | OwedReason::Debounced) && self.attempts == 0
    }
}

/// Why a delivery is owed outside the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwedReason {
    /// An attempt failed.
    Retry,
    /// An operator redrove its dead letter.
    Redrive,
    /// A replay asked for it.
    Replay(ReplayId),
    /// It waits behind an earlier delivery of its key; no attempt was made.
    Parked,
    /// Its attempts are used up and its key waits with it, until an operator cancels or redrives it.
    Blocked,
    /// Its event asked for a later time.
    Delayed,
    /// It is the last event of a burst so far.
    Debounced,
    /// An operator asked to give it up, and its binding has not seen to that yet. Its place may lie beyond the cursor:
    /// then it is a request and no debt, and no account counts it. The owner of the lane ends it with a line
    /// [`FinalState::Discarded`].
    Cancelled,
}

/// A delivery that was given up, with cause and a copy of the event.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The binding; in a flush the same as the part it stands in.
    pub binding: BindingId,
    /// The event, which outlives retention here.
    pub event: StoredEvent,
    /// When it was given up.
    pub died_at: Timestamp,
    /// When the first attempt started.
    pub first_at: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// The last failure.
    pub error: ErrorInfo,
    /// Groups equal failures: 4 to 8 hex digits, see [`fingerprint`].
    pub fingerprint: String,
    /// The last lines the function printed, at most 4 KiB.
    pub logs: Vec<String>,
}

/// Where a binding stands in a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The version of the flush that wrote it.
    pub version: u64,
    /// The mark.
    pub mark: Seq,
    /// Finished places above it.
    pub done: SeqRanges,
}

/// Debts that are due, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DueRetries {
    /// Due now, earliest first.
    pub due: Vec<Owed>,
    /// When the next one after these is due; `None` when there is none.
    pub next_at: Option<Timestamp>,
}

impl Checkpoint {
    /// Whether the cursor has passed a place: it is finished, or has an [`Owed`] row.
    pub fn passed(&self, seq: Seq) -> bool {
        seq <= self.mark || self.done.contains(seq)
    }

    /// The highest place passed.
    pub fn reach(&self) -> Seq {
        self.done.iter().last().map_or(self.mark, |(_, last)| last.max(self.mark))
    }
}

impl Flush {
    /// Whether any part brings forth events.
    pub fn emits(&self) -> bool {
        self.bindings.iter().any(|part| !part.emitted.is_empty())
    }

    /// The lanes that it emits into.
    pub fn emits_into(&self) -> BTreeSet<Lane> {
        self.bindings.iter().flat_map(|part| &part.emitted).map(|new| new.lane).collect()
    }

    /// Refuses a flush that emits into a lane that does not exist.
    pub(crate) fn check_lanes(&self, lanes: u16) -> Result<(), Error> {
        match self.emits_into().into_iter().find(|lane| lane.0 == 0 || lane.0 > lanes) {
            Some(lane) => Err(Error::NotFound(format!("lane {lane} does not exist: the ledger has {lanes}"))),
            None => Ok(()),
        }
    }

    /// Refuses a flush that names a binding twice.
    pub(crate) fn check_once_each(&self) -> Result<(), Error> {
        let mut seen = BTreeSet::new();
        match self.bindings.iter().find(|part| !seen.insert(part.binding)) {
            Some(twice) => Err(Error::Corrupt(format!("flush names binding {} twice", twice.binding))),
            None => Ok(()),
        }
    }
}

impl BindingFlush {
    /// Refuses a flush that would break the accounts: see [`crate::Ledger::flush`].
    pub(crate) fn check(&self, before: &Checkpoint, tail: Seq) -> Result<(), Error> {
        let binding = self.binding;
        let broken = |what: String| Err(Error::Corrupt(format!("flush of binding {binding}: {what}")));
        let after = Checkpoint { version: self.version, mark: self.mark, done: self.done.clone() };
        if self.mark < before.mark {
            return broken(format!("mark {} is before the stored mark {}", self.mark, before.mark));
        }
        if after.reach() > tail {
            return broken(format!("place {} is beyond the tail {tail}", after.reach()));
        }
        let ended =
            self.log.iter().filter(|e| matches!(e.outcome, LogOutcome::Final(_))).map(|entry| entry.seq);
        let owed = self.owed.iter().map(|o| o.seq);
        let dead = self.dead.iter().map(|d| d.event.address.seq);
        match ended.chain(owed).chain(dead).find(|seq| !after.passed(*seq)) {
            Some(seq) => broken(format!("place {seq} is ended or owed, but neither mark nor done cover it")),
            None => Ok(()),
        }
    }

    /// Each place that ends with this flush and its state; the last word counts.
    pub(crate) fn endings(&self) -> BTreeMap<Seq, FinalState> {
        let logged = self.log.iter().filter_map(|e| match e.outcome {
            LogOutcome::Final(state) => Some((e.seq, state)),
            LogOutcome::Failed => None,
        });
        let dead = self.dead.iter().map(|d| (d.event.address.seq, FinalState::Dead));
        logged.chain(dead).collect()
    }
}

/// By which verb an operator gave up a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Discard,
    Cancel,
}

/// Why a delivery was given up, as its error says it.
pub(crate) fn given_up(verb: Verb, reason: &str, by: &str) -> ErrorInfo {
    let kind = match verb {
        Verb::Discard => "Operator.Discarded",
        Verb::Cancel => "Operator.Cancelled",
    };
    ErrorInfo::platform(FailureClass::Function, kind, format!("{reason} (by {by})"))
}

/// The log line of a delivery that an operator gave up.
pub(crate) fn discarded(
    seq: Seq,
    revision: u32,
    replay: Option<ReplayId>,
    error: ErrorInfo,
    at: Timestamp,
) -> LogEntry {
    LogEntry {
        seq,
        attempt: 0,
        at,
        duration_ms: 0,
        outcome: LogOutcome::Final(FinalState::Discarded),
        error: Some(error),
        worker: String::new(),
        version: String::new(),
        revision,
        replay,
    }
}

/// The fingerprint of a failure: first 4 hex digits of a hash over its type and its message with digits and quoted
/// values masked, so that failures which differ only in ids fall into one group.
pub fn fingerprint(error: &ErrorInfo) -> String {
    use sha2::{Digest, Sha256};
    let line = error.message.lines().next().unwrap_or("");
    let mut masked = String::with_capacity(line.len());
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '`') => {
                quote = Some(c);
                masked.push('*');
            }
            None if c.is_ascii_digit() => {
                if !masked.ends_with('#') {
                    masked.push('#');
                }
            }
            None => masked.push(c),
        }
    }
    let digest = Sha256::digest(format!("{}\n{masked}", error.kind));
    format!("{:02x}{:02x}", digest[0], digest[1])
}

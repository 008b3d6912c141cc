//! What a runner has to tell the ledger: outcomes since its last flush, and the one flush that is under way.

use bellwire_ledger::{BindingFlush, DeadLetter, FlushOutcome, LogEntry, NewEvent, Owed};
use bellwire_schemas::{BindingId, Seq, Timestamp};
use tokio::sync::oneshot;

use super::queue::Change;
use crate::cursor::Cursor;

/// Outcomes that a crash may lose, and so deliveries that it may repeat, per binding and lane, besides those in flight.
/// The runner takes nothing on above it.
pub const MAX_UNFLUSHED: usize = 1_000;
/// A dead letter carries a copy of its event and weighs as much as this many lines.
const DEAD_WEIGHT: usize = 16;
/// Bytes of events to be sent that weigh as much as one line.
const EMITTED_BYTES: usize = 1 << 10;

/// Outcomes since the last flush.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) log: Vec<LogEntry>,
    pub(super) owed: Vec<Owed>,
    pub(super) settled: Vec<Seq>,
    pub(super) dead: Vec<DeadLetter>,
    /// Events that go out with these outcomes.
    pub(super) emitted: Vec<NewEvent>,
    /// What those weigh.
    pub(super) emitted_bytes: usize,
    /// Debts whose rows this part writes or removes.
    pub(super) changed: Vec<Change>,
    /// Since when the cursor has moved without anything else to say.
    pub(super) moved_at: Option<Timestamp>,
}

/// A flush that waits for its answer.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) reply: oneshot::Receiver<FlushOutcome>,
    pub(super) changed: Vec<Change>,
    pub(super) next_due: Option<Timestamp>,
    /// Debts changed in the ledger while it was under way.
    pub(super) is_poked: bool,
    /// The order was taken away while it was under way: what it parks must not stay so.
    pub(super) is_parking: bool,
    pub(super) weight: usize,
}

impl Part {
    /// How much a crash would lose.
    pub(super) fn weight(&self) -> usize {
        self.log.len().max(self.owed.len())
            + DEAD_WEIGHT * self.dead.len()
            + self.emitted_bytes / EMITTED_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log.is_empty() && self.owed.is_empty() && self.settled.is_empty() && self.dead.is_empty()
    }

    /// Adds an event that goes out.
    pub(super) fn emit(&mut self, new: NewEvent) {
        self.emitted_bytes += new.event.size_bytes();
        self.emitted.push(new);
    }

    pub(super) fn moved(&mut self, now: Timestamp) {
        self.moved_at.get_or_insert(now);
    }

    /// Takes everything out as one flush of the binding at its cursor.
    pub(super) fn take(
        &mut self,
        binding: BindingId,
        version: u64,
        cursor: &Cursor,
        reply: oneshot::Receiver<FlushOutcome>,
    ) -> (BindingFlush, Sent) {
        let sent = Sent {
            reply,
            changed: std::mem::take(&mut self.changed),
            next_due: self.owed.iter().map(|o| o.next_at).min(),
            is_poked: false,
            is_parking: false,
            weight: self.weight(),
        };
        let part = std::mem::take(self);
        let flush = BindingFlush {
            binding,
            version,
            mark: cursor.mark(),
            done: cursor.done().clone(),
            log: part.log,
            owed: part.owed,
            settled: part.settled,
            dead: part.dead,
            emitted: part.emitted,
        };
        (flush, sent)
    }
}

//! What others may see of the runner of one lane, without asking it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_schemas::{ErrorInfo, Seq, Timestamp};
use tokio::time::Instant;

/// The face of one runner.
#[derive(Debug, Default)]
pub(crate) struct Board {
    face: Mutex<Face>,
    /// Deliveries to break off: those without an error were given up in the ledger already.
    given_up: Mutex<BTreeMap<Seq, Option<ErrorInfo>>>,
    beat: Mutex<Option<Beat>>,
}

/// The last sign of life of a runner.
#[derive(Clone, Copy, Debug)]
struct Beat {
    at: Instant,
    doing: &'static str,
    /// Since when a flush has no answer.
    flush: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Face {
    /// Places with an attempt in flight, and the line of each.
    pub(crate) running: BTreeMap<Seq, u64>,
    /// When the next debt is due, if one is known.
    pub(crate) next_due: Option<Timestamp>,
    /// Everything up to here is finished or owed.
    pub(crate) mark: Seq,
    /// Everything up to here was read.
    pub(crate) read: Seq,
    /// What kept it from starting more when it last tried.
    pub(crate) hold: Option<Hold>,
    /// Outcomes that the ledger has not confirmed yet.
    pub(crate) unflushed: usize,
    /// Matching deliveries in memory that have no slot.
    pub(crate) queued: usize,
    /// Debts known of a binding in order.
    pub(crate) parked: usize,
    /// The reader stopped at a limit.
    pub(crate) stalled: Option<&'static str>,
    /// Why the ledger took no flush, while it lasts.
    pub(crate) trouble: Option<String>,
    /// What the runner before this one was stuck in, until this one gets on.
    pub(crate) no_progress: Option<&'static str>,
    /// Why the lane could not be read, while it lasts.
    pub(crate) unread: Option<String>,
}

/// Why a runner that has something to start does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// The batch is not full and may wait until then.
    Window(Timestamp),
    /// The rate allows the next one then.
    Rate(Timestamp),
    /// No slot is free.
    Slots,
    /// The function may not be called, or not by more at once.
    Function,
    /// Too many outcomes wait for the ledger.
    Unflushed,
}

impl Board {
    pub(crate) fn face(&self) -> Face {
        self.lock().clone()
    }

    pub(crate) fn is_running(&self, seq: Seq) -> bool {
        self.lock().running.contains_key(&seq)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Face)) {
        change(&mut self.lock());
    }

    /// Asks to break off a delivery; the runner must be poked.
    pub(crate) fn give_up(&self, seq: Seq, error: Option<ErrorInfo>) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).insert(seq, error);
    }

    pub(crate) fn take_given_up(&self) -> BTreeMap<Seq, Option<ErrorInfo>> {
        std::mem::take(&mut *self.given_up.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A sign of life, and what comes next; `flush`: a flush is under way.
    pub(crate) fn beat(&self, doing: &'static str, flush: bool) {
        let mut beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        let since = beat.and_then(|before| before.flush);
        *beat = Some(Beat { at, doing, flush: flush.then(|| since.unwrap_or(at)) });
    }

    /// What the runner has been stuck in for longer than `most`.
    pub(crate) fn stuck(&self, most: Duration) -> Option<&'static str> {
        let beat = (*self.beat.lock().unwrap_or_else(PoisonError::into_inner))?;
        let is_told = self.lock().trouble.is_some();
        let flush = beat.flush.filter(|since| since.elapsed() > most && !is_told);
        flush.map(|_| "waits for a flush").or((beat.at.elapsed() > most).then_some(beat.doing))
    }

    fn lock(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

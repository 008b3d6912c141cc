//! What others may see of the runner of one lane, without asking it.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bellwire_schemas::{Seq, Timestamp};

/// The face of one runner.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Face>);

#[derive(Clone, Debug, Default)]
pub(crate) struct Face {
    /// Places with an attempt in flight.
    pub(crate) running: BTreeSet<Seq>,
    /// When the next debt is due, if one is known.
    pub(crate) next_due: Option<Timestamp>,
    /// Everything up to here is finished or owed.
    pub(crate) mark: Seq,
    /// Outcomes that the ledger has not confirmed yet.
    pub(crate) unflushed: usize,
    /// Matching deliveries in memory that have no slot.
    pub(crate) queued: usize,
    /// The reader stopped at a limit.
    pub(crate) stalled: Option<&'static str>,
    /// Why the ledger took no flush, while it lasts.
    pub(crate) trouble: Option<String>,
    /// Why the lane could not be read, while it lasts.
    pub(crate) unread: Option<String>,
}

impl Board {
    pub(crate) fn face(&self) -> Face {
        self.lock().clone()
    }

    pub(crate) fn is_running(&self, seq: Seq) -> bool {
        self.lock().running.contains(&seq)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Face)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, Face> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

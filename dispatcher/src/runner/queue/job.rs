//! One delivery on its way to an attempt.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use bellwire_ledger::{Owed, OwedReason, StoredEvent};
use bellwire_schemas::{Address, ErrorInfo, Lane, ReplayId, Seq, Timestamp};

use super::batch::Size;

/// The name of the failure of an event that a function reported in `batchItemFailures`.
pub(crate) const REPORTED: &str = "Function.BatchItemFailure";

/// Where a fresh event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::runner) enum Stream {
    /// The cursor.
    Cursor,
    /// The end of the lane, while the cursor is far behind.
    Live,
}

/// With what else a job may be in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A new event.
    Fresh,
    /// Owed, and it goes with others.
    Debt,
    /// New, of a batch that failed as a whole: with such others only, not with what has failed with none.
    Part,
    /// The same of what is owed.
    OwedPart,
    /// Owed, and it goes alone.
    Lone,
}

#[derive(Clone, Debug)]
pub(in crate::runner) struct Job {
    pub(in crate::runner) address: Address,
    /// The event; a debt's is read when its attempt starts.
    pub(in crate::runner) event: Option<Arc<StoredEvent>>,
    /// Attempts used so far.
    pub(in crate::runner) attempts: u32,
    /// What `max_age` counts from.
    pub(in crate::runner) since: Timestamp,
    /// Why it is owed outside the cursor; `None` for a fresh one.
    pub(in crate::runner) debt: Option<OwedReason>,
    /// The last failure of a debt.
    pub(in crate::runner) error: Option<ErrorInfo>,
    /// Whose turn it is: a hash of the key. Two keys with one hash wait for each other, which breaks nothing.
    pub(in crate::runner) line: u64,
    /// Bytes of the event as the ledger counts them; 0 while it is not read.
    pub(in crate::runner) bytes: usize,
    /// Most events of a batch that it may be in: halved whenever such a batch failed as a whole.
    pub(in crate::runner) most: usize,
}

impl Job {
    /// A delivery straight from the reader.
    pub(in crate::runner) fn fresh(event: StoredEvent) -> Self {
        let (address, since) = (event.address, event.accepted_at);
        let line = line_of(event.key.as_deref(), address.seq);
        let bytes = event.event.size_bytes();
        let event = Some(Arc::new(event));
        let (attempts, debt, error, most) = (0, None, None, usize::MAX);
        Self { address, event, attempts, since, debt, error, line, bytes, most }
    }

    /// A delivery that is owed. What failed alone is tried alone again.
    pub(in crate::runner) fn debt(lane: Lane, owed: Owed, bisect: bool) -> Self {
        let address = Address::new(lane, owed.seq);
        let line = line_of(owed.key.as_deref(), owed.seq);
        let Owed { attempts, since, error, reason, .. } = owed;
        let is_suspect = bisect && attempts > 0 && error.as_ref().is_none_or(|e| e.kind != REPORTED);
        let most = if is_suspect { 1 } else { usize::MAX };
        Self { address, event: None, attempts, since, debt: Some(reason), error, line, bytes: 0, most }
    }

    /// A delivery of which only the place is known.
    pub(in crate::runner) fn blank(address: Address, line: u64, since: Timestamp) -> Self {
        let (attempts, debt, error, bytes) = (0, None, None, 0);
        Self { address, event: None, attempts, since, debt, error, line, bytes, most: usize::MAX }
    }

    pub(in crate::runner) fn replay(&self) -> Option<&ReplayId> {
        match &self.debt {
            Some(OwedReason::Replay(id)) => Some(id),
            _ => None,
        }
    }

    /// Whether it is one of its key's line, and not tried again, replayed or delayed beside it.
    pub(in crate::runner) fn is_in_line(&self) -> bool {
        matches!(self.debt, None | Some(OwedReason::Retry | OwedReason::Parked | OwedReason::Blocked))
    }

    /// Whether it is a new event, for which others are waited for.
    pub(in crate::runner) fn is_new(&self) -> bool {
        self.size().kind == Kind::Fresh
    }

    /// What its place in a batch depends on.
    pub(super) fn size(&self) -> Size {
        Size { kind: Kind::of(self.most, self.debt.is_some()), most: self.most, bytes: self.bytes }
    }

    pub(in crate::runner) fn key(&self) -> Option<&str> {
        self.event.as_ref().and_then(|event| event.key.as_deref())
    }
}

impl Kind {
    /// Of a job that may be in a batch of `most` events.
    pub(super) fn of(most: usize, is_debt: bool) -> Self {
        match (most, is_debt) {
            (usize::MAX, false) => Self::Fresh,
            (usize::MAX, true) => Self::Debt,
            (1, true) => Self::Lone,
            (_, true) => Self::OwedPart,
            (_, false) => Self::Part,
        }
    }

    pub(super) fn goes_with(self, other: Self) -> bool {
        match self {
            Self::Fresh | Self::Debt => matches!(other, Self::Fresh | Self::Debt),
            Self::Part | Self::OwedPart => matches!(other, Self::Part | Self::OwedPart),
            Self::Lone => other == Self::Lone,
        }
    }
}

/// The line of a key; an event without a key is a line of its own.
pub(crate) fn line_of(key: Option<&str>, seq: Seq) -> u64 {
    let mut hasher = DefaultHasher::new();
    match key {
        Some(key) => key.hash(&mut hasher),
        None => seq.0.hash(&mut hasher),
    }
    hasher.finish()
}

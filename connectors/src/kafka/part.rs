//! One partition: where it stands, what waits of it, and where it is to be read from. Plain values; `state.rs` moves them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rdkafka::Offset;

use super::position::Mark;
use crate::contract::Parcel;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What waits for the ledger: a record, a note in its place, or a position alone.
#[derive(Debug)]
pub(super) struct Entry {
    /// The position once it is durable.
    pub(super) mark: Mark,
    /// The message.
    pub(super) parcel: Option<Parcel>,
    /// About what it takes.
    pub(super) bytes: usize,
}

/// How far a partition has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Ours; where to read is not known yet.
    Claimed,
    /// Known; librdkafka is to be told.
    Starting,
    /// Records come.
    Reading,
    /// The broker has nothing at the position.
    Lost(Loss),
    /// Nothing more is read until somebody decides.
    Halted(String),
    /// About to be given up.
    Leaving,
}

/// What is wrong with a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The broker says that it is out of range, of this partition or of another.
    OutOfRange,
    /// The record before it is another one than was read.
    Remade,
}

/// One partition in one epoch.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) epoch: u64,
    pub(super) stage: Stage,
    /// The version of the ledger's position.
    pub(super) version: u64,
    /// The offset that comes next from the broker, or a later one.
    pub(super) next: i64,
    /// The record before it, and its time: reading began there to see whether it is still the same.
    pub(super) witness: Option<Mark>,
    /// No record came in this epoch.
    pub(super) fresh: bool,
    /// How often the position was found out of range in vain.
    pub(super) tries: u8,
    /// Where to begin could not be found out; not asked again before.
    pub(super) not_before: Option<Instant>,
    pub(super) queue: VecDeque<Entry>,
    /// What the ledger holds, and whether the broker was told.
    pub(super) confirmed: Option<i64>,
    pub(super) hinted: Option<i64>,
}

/// A reading that librdkafka is to begin.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) place: Place,
    pub(super) epoch: u64,
    pub(super) from: Offset,
}

/// Where a partition is to be read.
#[derive(Debug)]
pub(super) struct Begin {
    /// The version of the ledger's position; 0: none.
    pub(super) version: u64,
    /// Where librdkafka begins.
    pub(super) from: Offset,
    /// The first offset that counts.
    pub(super) next: i64,
    /// The record at `from` that must be the same as before.
    pub(super) witness: Option<Mark>,
    /// What is written first.
    pub(super) entry: Option<Entry>,
}

impl Part {
    /// Ours, and nothing more is known.
    pub(super) fn claimed(epoch: u64) -> Self {
        Self {
            epoch,
            stage: Stage::Claimed,
            version: 0,
            next: 0,
            witness: None,
            fresh: true,
            tries: 0,
            not_before: None,
            queue: VecDeque::new(),
            confirmed: None,
            hinted: None,
        }
    }
}

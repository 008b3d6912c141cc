//! What can go wrong in the ledger, sorted by what the caller must do.

/// A refusal or failure of the ledger. The first question each variant answers is: retry, re-read, or stop?
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source's position is not the one the append expected: another intake got ahead. Re-read and seek.
    #[error("position of `{shard}` is at version {found}, the append expected {expected}")]
    PositionConflict {
        /// The shard.
        shard: String,
        /// What the caller believed.
        expected: u64,
        /// What the ledger holds.
        found: u64,
    },
    /// The ledger or its disk is full: pause the sources, try again later. Nothing was written.
    #[error("the ledger is full: {0}")]
    Full(String),
    /// Not reachable or busy: try the same call again (appends with the same append id).
    #[error("the ledger is not available: {0}")]
    Unavailable(String),
    /// The stored schema is newer than this program, or the file is no ledger. Stop.
    #[error("{0}")]
    Incompatible(String),
    /// Another controller holds this ledger. Stop.
    #[error("{0}")]
    Locked(String),
    /// The disk failed under the ledger, or its file is damaged: nothing is written until it is opened again. Stop.
    #[error("the ledger has failed: {0}")]
    Failed(String),
    /// A name, address or state that the ledger does not know.
    #[error("{0}")]
    NotFound(String),
    /// The stored data or a caller broke an invariant: stop and report.
    #[error("ledger invariant broken: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether the same call may succeed later without a change by the caller.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Unavailable(_))
    }
}

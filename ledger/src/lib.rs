//! The book: every accepted event, every outcome, every debt. The only room that writes SQL.
//!
//! [`Ledger`] is the contract; `sqlite/` keeps it in one file, `model/` in memory as the oracle of the tests, and
//! `conformance/` is the suite that each implementation passes. [`Feed`] hands fresh events from intake to dispatch
//! without reading them back. The ledger decides nothing about delivery: it stores what it is told, atomically.
//!
//! Read `contract.rs` first, then `append.rs` and `flush.rs` (what goes in), then `query.rs` and `deliveries.rs` (what
//! comes out).

pub mod append;
mod attributes;
pub mod cluster;
#[cfg(test)]
pub mod conformance;
pub mod contract;
mod dedup;
pub mod deliveries;
pub mod error;
pub mod feed;
pub mod flush;
#[cfg(test)]
mod histories;
pub mod model;
pub mod postgres;
pub mod query;
pub mod slots;
pub mod sqlite;
mod start;

pub use append::{
    Append, Appended, Arrival, DedupKey, NewEvent, Position, PositionAdvance, Quarantine, StoredEvent,
};
pub use cluster::{Cluster, Heartbeat, LaneOwner, Member};
pub use contract::{ArrivalTotals, Ledger};
pub use deliveries::{DeliveryQuery, EventHead, OwedDelivery, OwedKind};
pub use error::Error;
pub use feed::Feed;
pub use flush::{
    BindingFlush, Checkpoint, DeadLetter, DueRetries, Flush, FlushOutcome, LogEntry, LogOutcome, Owed,
    OwedReason,
};
pub use model::ModelLedger;
pub use postgres::{PostgresLedger, PostgresOptions};
pub use query::{
    BindingRecord, BindingRevision, BindingTotals, Cursor, DeadLetterQuery, DeliveryKey, Duplicate,
    EventQuery, Page, Pause, QuarantineRecord, Refusal, ReplayRecord, ReplayState, Retained,
};
pub use slots::{SlotsAsked, SlotsGranted};
pub use sqlite::{SqliteLedger, SqliteOptions};

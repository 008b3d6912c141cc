//! The doors in: everything that turns the outside world's messages into events in the ledger.
//!
//! A connector translates, nothing else: it never retries, batches, deduplicates or writes. One shared intake does
//! that for all of them: receive, append, confirm. Connectors never meet the dispatcher; the ledger lies between.
//!
//! Read `contract.rs` first (pull connectors) and `door.rs` (HTTP doors), then `intake/mod.rs` and `pump.rs`. Each kind has a folder
//! with the same files: `mod.rs`, `config.rs`, `client.rs` or `door.rs`, and `envelope.rs`, which is pure.
//! `registry.rs` lists the kinds.

mod appender;
pub mod conformance;
pub mod contract;
pub mod door;
mod inbox;
pub mod intake;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod memory;
mod message;
mod meter;
pub mod object_store;
#[cfg(any(feature = "rabbitmq", feature = "sqs"))]
mod opening;
pub mod outlets;
pub mod pressure;
mod progress;
mod pump;
#[cfg(feature = "rabbitmq")]
pub mod rabbitmq;
mod refusals;
mod registry;
pub mod rules;
pub mod samples;
#[cfg(feature = "sqs")]
pub mod sqs;
pub mod timer;
pub mod topic;
pub mod webhook;

#[cfg(test)]
mod suite;

pub use contract::{
    Batch, Committed, Connector, ConnectorError, Content, Draft, Fate, Limit, Parcel, Receipt, Release,
};
pub use door::{Admitted, Door, DoorRequest, DoorResponse, Refused};
pub use intake::{ApplyError, BodyRoom, Intake, Limits, Route};
pub use meter::{Counts, SourceReport};

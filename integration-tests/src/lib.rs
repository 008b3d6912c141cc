//! The proving ground: starts real controllers as child processes, sends real requests, ends processes in the middle,
//! and counts what arrived by the functions' own notes, never through the system under test.
//!
//! Read `stack.rs` (one controller in a folder of its own), then `cluster.rs` (several over one ledger), `load.rs` (who
//! sends), `oracle.rs` (who was promised, who was served) and `brokers/mod.rs` (who sends to a broker).

pub mod brokers;
pub mod cluster;
pub mod conformance;
pub mod load;
pub mod oracle;
pub mod stack;

pub use cluster::Cluster;
pub use load::Load;
pub use oracle::Oracle;
pub use stack::Stack;

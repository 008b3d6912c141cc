//! The proving ground: starts real controllers as child processes, sends real requests, ends processes in the middle,
//! and counts what arrived by the functions' own notes, never through the system under test.
//!
//! Read `stack.rs` (one controller in a folder of its own), then `oracle.rs` (who was promised, who was served).

pub mod conformance;
pub mod oracle;
pub mod stack;

pub use oracle::Oracle;
pub use stack::Stack;

//! Brokers from end to end: public clients send, controllers read, and whatever ends, hangs or breaks, every message that
//! the broker confirmed is in the ledger exactly once.
//!
//! The scenarios that hold for each kind alike are in `alike.rs`; then the file named like the kind.

mod alike;
mod kafka;
mod outbound;
mod poison;
mod rabbitmq;
mod sqs;
pub mod world;

//! Tests of the configuration through its public face.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a test says what it does by its name, and stops where it fails"
)]

mod brokers;
mod golden;
mod good;
mod hostile;
mod page;
mod several;
mod world;

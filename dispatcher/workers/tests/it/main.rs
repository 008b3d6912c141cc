//! Contract tests of the pool: real interpreters, real processes, real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod emit;
mod endpoint;
mod native;
mod node;
mod pool;
mod protocol;
mod python;
mod ric;
mod speed;
mod support;

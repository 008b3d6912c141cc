//! Private servers for tests and benchmarks: a Postgres and a PgBouncer of one's own on the loopback, in a folder that
//! goes away with them. Each can be ended as a crash would end it, and started again on the same data.
//!
//! This room knows nothing of Bellwire, never uses a server that runs already, and installs nothing: it finds the
//! programs or says which package is missing. All calls block; in a runtime, use `tokio::task::block_in_place`.
//!
//! Read `postgres/mod.rs` first.

pub mod database;
pub mod pgbouncer;
pub mod postgres;

mod process;

pub use database::Database;
pub use pgbouncer::Pgbouncer;
pub use postgres::{Options, Postgres};

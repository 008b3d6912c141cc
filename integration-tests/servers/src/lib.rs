//! Private servers for tests and benchmarks: a Postgres and a PgBouncer of one's own on the loopback, in a folder that
//! goes away with them. Each can be ended as a crash would end it, and started again on the same data. And a proxy
//! that breaks the connections to a server in every way that a network can.
//!
//! This room knows nothing of Bellwire, never uses a server that runs already, and installs nothing: it finds the
//! programs or says which package is missing. All calls on servers block; in a runtime, use
//! `tokio::task::block_in_place`.
//!
//! Read `postgres/mod.rs` first, then `proxy/mod.rs`.

pub mod database;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;

mod process;

pub use database::Database;
pub use pgbouncer::Pgbouncer;
pub use postgres::{Options, Postgres};
pub use proxy::Proxy;

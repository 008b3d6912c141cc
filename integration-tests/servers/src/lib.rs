//! Private servers for tests and benchmarks: a Postgres, a PgBouncer, a RabbitMQ, a broker that speaks Kafka's protocol,
//! an SQS and S3 stand-in, each of one's own on the loopback, in a folder that goes away with it. Each can be ended as a
//! crash would end it, and started again on the same data. And a proxy that breaks the connections to a server in
//! every way that a network can.
//!
//! This room knows nothing of Bellwire, never uses a server that runs already, and installs nothing: it finds the
//! programs or says which package is missing. All calls on servers block; in a runtime, use
//! `tokio::task::block_in_place`.
//!
//! Read `postgres/mod.rs` first, then `proxy/mod.rs`; the brokers are `rabbitmq.rs`, `kafka.rs` and `ministack.rs`, and
//! `shared.rs` finds those that `./test` has started for all tests.

pub mod database;
pub mod kafka;
pub mod ministack;
pub mod pgbouncer;
pub mod postgres;
pub mod proxy;
pub mod python;
pub mod rabbitmq;
pub mod shared;

mod guarded;
mod process;

pub use database::Database;
pub use kafka::Kafka;
pub use ministack::Ministack;
pub use pgbouncer::Pgbouncer;
pub use postgres::{Options, Postgres};
pub use proxy::Proxy;
pub use rabbitmq::Rabbitmq;

#[cfg(test)]
mod tests;

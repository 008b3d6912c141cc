//! The servers that `./test` starts once for all tests of a run (`test-servers`), found by variables. A test uses
//! queues and topics with random names on them; one that breaks a server starts a private one.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use anyhow::Context;

/// The variable that holds the AMQP URL of a RabbitMQ.
pub const AMQP_VARIABLE: &str = "BELLWIRE_TEST_AMQP";
/// The variable that holds the URL of its management API (`guest`, `guest`).
pub const AMQP_HTTP_VARIABLE: &str = "BELLWIRE_TEST_AMQP_HTTP";
/// The variable that holds the bootstrap servers of a broker that speaks Kafka's protocol.
pub const KAFKA_VARIABLE: &str = "BELLWIRE_TEST_KAFKA";
/// The variable that holds the endpoint URL of an SQS and S3 stand-in (keys `test`, `test`, region `us-east-1`).
pub const AWS_VARIABLE: &str = "BELLWIRE_TEST_AWS";

/// The AMQP URL of the shared RabbitMQ.
///
/// # Errors
/// When the variable is not set.
pub fn amqp() -> anyhow::Result<String> {
    variable(AMQP_VARIABLE)
}

/// The URL of the shared RabbitMQ's management API.
///
/// # Errors
/// When the variable is not set.
pub fn amqp_http() -> anyhow::Result<String> {
    variable(AMQP_HTTP_VARIABLE)
}

/// The bootstrap servers of the shared Kafka broker.
///
/// # Errors
/// When the variable is not set.
pub fn kafka() -> anyhow::Result<String> {
    variable(KAFKA_VARIABLE)
}

/// The endpoint URL of the shared SQS and S3.
///
/// # Errors
/// When the variable is not set.
pub fn aws() -> anyhow::Result<String> {
    variable(AWS_VARIABLE)
}

/// A name that no other test has: the prefix, `-`, and sixteen hexadecimal digits.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}-{:016x}", RandomState::new().build_hasher().finish())
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run ./test, which starts the servers"))
}

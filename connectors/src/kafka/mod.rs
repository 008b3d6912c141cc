//! `kafka`: records of topics as a member of a consumer group, each exactly once in the ledger; and results out to a
//! topic.
//!
//! The position of a partition moves in the append that holds its records, by compare-and-set; the offsets that the
//! broker keeps for the group are a hint for lag tools, told afterwards and never read. It refuses to read from
//! where anybody but the ledger says, to jump backwards, and to pass over a gap in silence.
//!
//! `poller.rs` owns the thread that serves librdkafka, `state.rs` (with `part.rs`) is where it meets `client.rs`, the
//! connector; `resolve.rs` decides where reading begins, `lag.rs` counts what waits; `envelope.rs` makes events and is
//! pure; `outlet.rs` sends. Read `state.rs` first.

mod client;
mod config;
pub mod envelope;
mod lag;
mod outlet;
mod part;
mod poller;
mod position;
mod resolve;
mod state;

#[cfg(test)]
mod tests;

pub use client::KafkaConnector;
pub use outlet::open as open_outlet;

use std::sync::Arc;

use bellwire_schemas::brokers::KafkaSource;
use bellwire_schemas::service::SourceSpec;
use rdkafka::ClientConfig;

use crate::Connector;
use crate::registry::{Around, Opened, Pull};

/// Opens a source.
pub(crate) fn open(spec: &Arc<SourceSpec>, kafka: &KafkaSource) -> Result<Opened, String> {
    let setup = Setup {
        spec: spec.clone(),
        kafka: kafka.clone(),
        bootstrap: kafka.cluster.bootstrap_servers.join(","),
    };
    setup.config("check")?;
    Ok(Opened::Pull(Arc::new(Ready(Arc::new(setup)))))
}

/// A source as it is read.
pub(crate) struct Setup {
    spec: Arc<SourceSpec>,
    kafka: KafkaSource,
    bootstrap: String,
}

impl Setup {
    fn config(&self, controller: &str) -> Result<ClientConfig, String> {
        let member = config::member(self.spec.name.as_str(), controller);
        config::consumer(&self.kafka.cluster, &self.kafka.group_id, &member)
    }
}

/// A source that may be connected.
struct Ready(Arc<Setup>);

impl Pull for Ready {
    fn connect(&self, around: &Around) -> Box<dyn Connector> {
        Box::new(KafkaConnector::new(self.0.clone(), around.clone()))
    }
}

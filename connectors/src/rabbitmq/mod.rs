//! `rabbitmq`: messages of a queue become events, and results go out to an exchange.
//!
//! A message is acknowledged after the ledger's commit and never before; nothing is ever put back by hand: what was
//! not acknowledged comes again by itself when its channel ends. All state in memory belongs to one channel, counted
//! by an epoch, and is dropped with it. Nothing here retries on its own account: the intake asks again.
//!
//! Read `client.rs` first, then `link.rs` (connection, channel, consumer), `envelope.rs` and `values.rs` (pure),
//! `outlet.rs`. `transport.rs` and `mend.rs` carry the bytes, `explain.rs` words the broker's refusals.

mod client;
mod config;
pub mod envelope;
mod explain;
mod link;
mod mend;
mod outlet;
mod transport;
mod values;

#[cfg(test)]
mod broker_tests;
#[cfg(test)]
mod tests;

pub use client::RabbitmqConnector;
pub use config::{Broker, Plan};
pub use outlet::RabbitmqOutlet;
pub(crate) use outlet::open as open_outlet;

use std::sync::Arc;

use bellwire_schemas::brokers::RabbitmqSource;
use bellwire_schemas::service::SourceSpec;

use crate::Connector;
use crate::registry::{Around, Opened, Pull};

/// Opens a source.
pub(crate) fn open(spec: &Arc<SourceSpec>, source: &RabbitmqSource) -> Result<Opened, String> {
    Ok(Opened::Pull(Arc::new(Ready(Arc::new(Plan::new(spec.clone(), source)?)))))
}

/// A queue that may be read.
struct Ready(Arc<Plan>);

impl Pull for Ready {
    fn connect(&self, around: &Around) -> Box<dyn Connector> {
        Box::new(RabbitmqConnector::new(self.0.clone(), &around.controller).within(around.share.clone()))
    }
}

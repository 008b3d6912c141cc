//! `sqs`: messages of an Amazon SQS queue, or of a server that speaks like it; and results sent to one.
//!
//! Long polls fill a bounded buffer; a message is deleted after the ledger holds it, and its visibility is prolonged
//! only until then. Nothing here retries an event, drops one or judges a payload: what was not deleted comes again
//! and is recognised by its dedup key. Read `buffer.rs` first (the life of a message), then `feeder.rs` (who talks to
//! SQS when), `connector.rs`, and `envelope.rs`, which is pure.

mod buffer;
mod client;
mod config;
mod connector;
mod envelope;
mod feeder;
mod outlet;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bellwire_schemas::brokers::{SqsQueue, SqsSource};
use bellwire_schemas::outlet::Outlet;
use bellwire_schemas::service::SourceSpec;

use crate::Connector;
use crate::registry::{Around, Opened, Pull};
use config::Queue;

/// A source that is not connected yet.
struct Sqs {
    spec: Arc<SourceSpec>,
    queue: Queue,
}

impl Pull for Sqs {
    fn connect(&self, around: &Around) -> Box<dyn Connector> {
        let (spec, queue) = (self.spec.clone(), self.queue.clone());
        let connector = connector::SqsConnector::new(spec, queue, feeder::Pace::DEFAULT);
        Box::new(connector.within(around.share.clone()))
    }
}

/// Opens a source; SQS is reached when the first message is asked for.
pub(crate) fn open(spec: &Arc<SourceSpec>, source: &SqsSource) -> Result<Opened, String> {
    let queue = Queue::parse(&source.queue)?;
    Ok(Opened::Pull(Arc::new(Sqs { spec: spec.clone(), queue })))
}

/// Opens a destination; SQS is reached by the first message.
///
/// # Errors
/// When the queue is neither a URL nor an ARN of SQS.
pub fn open_outlet(queue: &SqsQueue) -> Result<Arc<dyn Outlet>, String> {
    Ok(Arc::new(outlet::SqsOutlet::new(Queue::parse(queue)?)))
}

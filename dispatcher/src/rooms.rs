//! What every part of the dispatcher is handed: ledger, feed, workers, clock, and where facts go.

use std::fmt;
use std::sync::Arc;

use bellwire_ledger::{Feed, Ledger};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Clock, ControllerId};
use bellwire_workers::Invoker;
use tokio::sync::broadcast;

use crate::lease::LeaseOptions;

/// The neighbours of the dispatcher.
#[derive(Clone)]
pub struct Rooms {
    /// Fresh events, and the ledger behind them.
    pub feed: Arc<Feed>,
    /// The workers.
    pub invoker: Arc<dyn Invoker>,
    /// The time.
    pub clock: Clock,
    /// Which controller this is.
    pub controller: ControllerId,
    /// Its name for people, such as `host-a:4711`.
    pub name: String,
    /// Times of the leases.
    pub lease: LeaseOptions,
    /// Where facts go; nobody needs to listen.
    pub live: broadcast::Sender<Fact>,
    /// Largest event in bytes: what is sent with outcomes is cut to it.
    pub event_bytes: usize,
    /// Seed of the jitter; any number, another one in each process.
    pub seed: u64,
}

impl Rooms {
    pub(crate) fn ledger(&self) -> &Arc<dyn Ledger> {
        self.feed.ledger()
    }
}

impl fmt::Debug for Rooms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rooms").field("controller", &self.controller).finish_non_exhaustive()
    }
}

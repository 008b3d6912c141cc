//! A connector in memory: the smallest thing that keeps the contract, for tests of whoever runs connectors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::contract::{Batch, Committed, Connector, ConnectorError, Limit, Parcel, Receipt, Release};

/// An upstream that keeps its messages until they are confirmed.
#[derive(Clone, Debug, Default)]
pub struct MemoryUpstream(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<VecDeque<Parcel>>,
    arrived: Notify,
}

/// A connector to a [`MemoryUpstream`].
#[derive(Debug)]
pub struct MemoryConnector {
    upstream: MemoryUpstream,
    receipts: u64,
    pending: Option<(Receipt, usize)>,
}

impl MemoryUpstream {
    /// Adds a message.
    pub fn push(&self, parcel: Parcel) {
        self.queue().push_back(parcel);
        self.0.arrived.notify_one();
    }

    /// How many messages are not confirmed.
    pub fn len(&self) -> usize {
        self.queue().len()
    }

    /// Whether every message is confirmed.
    pub fn is_empty(&self) -> bool {
        self.queue().is_empty()
    }

    /// A connector; one at a time reads from an upstream.
    pub fn connect(&self) -> MemoryConnector {
        MemoryConnector { upstream: self.clone(), receipts: 0, pending: None }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Parcel>> {
        self.0.queue.lock().expect("no code panics while it holds this lock")
    }
}

#[async_trait]
impl Connector for MemoryConnector {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        loop {
            let parcels: Vec<_> = self.upstream.queue().iter().take(limit.items.max(1)).cloned().collect();
            if !parcels.is_empty() {
                self.receipts += 1;
                let receipt = Receipt(self.receipts);
                self.pending = Some((receipt, parcels.len()));
                return Ok(Batch { receipt, parcels, positions: Vec::new() });
            }
            self.upstream.0.arrived.notified().await;
        }
    }

    async fn confirm(&mut self, receipt: Receipt, _committed: &Committed) -> Result<(), ConnectorError> {
        if let Some((_, count)) = self.pending.take_if(|(pending, _)| *pending == receipt) {
            self.upstream.queue().drain(..count);
        }
        Ok(())
    }

    async fn release(&mut self, receipt: Receipt, _why: Release) {
        self.pending.take_if(|(pending, _)| *pending == receipt);
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        Ok(Some(self.upstream.len() as u64))
    }
}

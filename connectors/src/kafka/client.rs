//! The connector: hands over what the poller buffered, and says what became of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::Setup;
use super::poller::{self, Client};
use super::state::Shared;
use crate::contract::{Batch, Committed, Connector, ConnectorError, Limit, Receipt, Release};
use crate::registry::Around;

/// How soon a decision that was put off is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Reads the topics of one source as a member of its group.
pub struct KafkaConnector {
    pub(super) setup: Arc<Setup>,
    pub(super) around: Around,
    running: Option<Running>,
    /// Partitions of each topic when it was first seen.
    pub(super) founded: BTreeMap<String, i32>,
    /// The same, on its way into the ledger.
    pub(super) founding: Option<(Receipt, Vec<(String, i32)>)>,
}

/// A consumer and its thread.
struct Running {
    shared: Arc<Shared>,
    client: Arc<Client>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The thread leaves the group; nobody waits for it.
        self.shared.stop();
    }
}

impl KafkaConnector {
    /// A connector that joins the group when it is first asked.
    pub(super) fn new(setup: Arc<Setup>, around: Around) -> Self {
        Self { setup, around, running: None, founded: BTreeMap::new(), founding: None }
    }

    fn running(&mut self) -> Result<(Arc<Shared>, Arc<Client>), ConnectorError> {
        if let Some(why) = self.running.as_ref().and_then(|r| r.shared.lock().broken().map(str::to_owned)) {
            self.running = None;
            return Err(ConnectorError::Unavailable(why));
        }
        if self.running.is_none() {
            let config = self.setup.config(&self.around.controller).map_err(ConnectorError::Unavailable)?;
            let shared = Arc::new(Shared::new(self.around.share.clone()));
            let client = poller::start(&config, self.setup.clone(), shared.clone())
                .map_err(ConnectorError::Unavailable)?;
            self.running = Some(Running { shared, client });
        }
        let running = self.running.as_ref().expect("it was just made");
        Ok((running.shared.clone(), running.client.clone()))
    }
}

impl KafkaConnector {
    /// The consumer at work, if there is one.
    pub(super) fn session(&self) -> Option<(Arc<Shared>, Arc<Client>)> {
        self.running.as_ref().map(|running| (running.shared.clone(), running.client.clone()))
    }
}

#[async_trait]
impl Connector for KafkaConnector {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        let (shared, client) = self.running()?;
        // A batch of which nobody said what became of it is read again.
        shared.release(None);
        loop {
            let arrived = shared.arrived.notified();
            if let Some(why) = shared.lock().broken().map(str::to_owned) {
                self.running = None;
                return Err(ConnectorError::Unavailable(why));
            }
            if let Some(batch) = self.resolve(&shared, &client).await? {
                return Ok(batch);
            }
            let taken = shared.lock().take(self.setup.spec.name.as_str(), limit);
            if let Some(batch) = taken {
                return Ok(batch);
            }
            if shared.lock().deferred() {
                // Time is up or something arrived: either way everything is looked at again.
                let _ = tokio::time::timeout(LOOK_AGAIN, arrived).await;
            } else {
                arrived.await;
            }
        }
    }

    async fn confirm(&mut self, receipt: Receipt, _committed: &Committed) -> Result<(), ConnectorError> {
        if let Some((_, topics)) = self.founding.take_if(|(pending, _)| *pending == receipt) {
            self.founded.extend(topics);
        }
        if let Some(running) = &self.running {
            running.shared.confirm(receipt);
        }
        Ok(())
    }

    async fn release(&mut self, receipt: Receipt, _why: Release) {
        self.founding.take_if(|(pending, _)| *pending == receipt);
        if let Some(running) = &self.running {
            running.shared.release(Some(receipt));
        }
    }

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        self.lag().await
    }

    fn complaint(&self) -> Option<String> {
        self.running.as_ref()?.shared.lock().complaint()
    }
}

//! A connection to a queue, as the intake knows it.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_schemas::service::SourceSpec;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::client::{About, Sqs};
use super::config::Queue;
use super::envelope::content;
use super::feeder::{self, Pace, Shared};
use crate::{Batch, Committed, Connector, ConnectorError, Limit, Parcel, Receipt, Release};

/// Reads a queue.
pub(super) struct SqsConnector {
    spec: Arc<SourceSpec>,
    queue: Queue,
    pace: Pace,
    session: Option<Session>,
}

/// A feeder at work; it ends when this is dropped.
struct Session {
    about: About,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl SqsConnector {
    /// A connector that reaches out when it is first asked.
    pub(super) fn new(spec: Arc<SourceSpec>, queue: Queue, pace: Pace) -> Self {
        Self { spec, queue, pace, session: None }
    }

    async fn open(&self) -> Result<Session, ConnectorError> {
        let failed = |failure: super::client::Failure| ConnectorError::Unavailable(failure.to_string());
        let sqs = Sqs::connect(&self.queue).await.map_err(failed)?;
        let about = sqs.about(&self.queue).await.map_err(failed)?;
        let visibility = feeder::visibility(&about, &self.pace);
        let shared = Arc::new(Shared::new(visibility));
        let stop = CancellationToken::new();
        let task = tokio::spawn(feeder::run(sqs, shared.clone(), self.pace, visibility, stop.clone()));
        Ok(Session { about, shared, task, stop: stop.drop_guard() })
    }
}

impl Session {
    /// What is ready, or why nothing comes.
    fn next(&self, source: &Arc<SourceSpec>, limit: Limit) -> Option<Result<Batch, ConnectorError>> {
        let (taken, error) = {
            let mut state = self.shared.lock();
            let taken = state.buffer.take(limit);
            let error = if taken.is_none() { state.error.take() } else { None };
            (taken, error)
        };
        let Some((receipt, letters)) = taken else {
            return error.map(|error| Err(ConnectorError::Unavailable(error)));
        };
        let parcel = |letter| Parcel { source: source.clone(), content: content(letter, &self.about) };
        let parcels = letters.iter().map(|letter| parcel(letter)).collect();
        Some(Ok(Batch { receipt, parcels, positions: Vec::new() }))
    }
}

#[async_trait]
impl Connector for SqsConnector {
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError> {
        if self.session.as_ref().is_none_or(|session| session.task.is_finished()) {
            self.session = Some(self.open().await?);
        }
        let Some(session) = &mut self.session else {
            return Err(ConnectorError::Unavailable("the queue's reader has ended".into()));
        };
        loop {
            if let Some(next) = session.next(&self.spec, limit) {
                return next;
            }
            let shared = session.shared.clone();
            tokio::select! {
                () = shared.arrived.notified() => {}
                ended = &mut session.task => {
                    self.session = None;
                    let why = ended.err().map_or_else(String::new, |error| format!(": {error}"));
                    return Err(ConnectorError::Unavailable(format!("the queue's reader has ended{why}")));
                }
            }
        }
    }

    async fn confirm(&mut self, receipt: Receipt, _committed: &Committed) -> Result<(), ConnectorError> {
        if let Some(session) = &self.session {
            session.shared.lock().buffer.confirm(receipt);
            session.shared.changed.notify_one();
        }
        Ok(())
    }

    async fn release(&mut self, receipt: Receipt, why: Release) {
        match why {
            Release::Stopping => self.close().await,
            // Kept here: each return to the queue would count towards its redrive policy.
            Release::Conflict | Release::Failed(_) => {
                if let Some(session) = &self.session {
                    session.shared.lock().buffer.release(receipt);
                }
            }
        }
    }

    fn complaint(&self) -> Option<String> {
        let state = self.session.as_ref()?.shared.lock();
        state.undeleted.clone().or_else(|| state.unkept.clone())
    }

    async fn close(&mut self) {
        if let Some(Session { task, stop, .. }) = self.session.take() {
            drop(stop);
            // It ends by itself within a bounded time; a panic in it left nothing to give back.
            let _ = task.await;
        }
    }
}

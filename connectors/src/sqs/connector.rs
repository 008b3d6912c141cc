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
use crate::opening::Opening;
use crate::pressure::Share;
use crate::{Batch, Committed, Connector, ConnectorError, Limit, Parcel, Receipt, Release};

/// Reads a queue.
pub(super) struct SqsConnector {
    spec: Arc<SourceSpec>,
    queue: Queue,
    pace: Pace,
    share: Share,
    opening: Opening<Result<Session, ConnectorError>>,
    session: Option<Session>,
}

/// A feeder at work; it ends when this is dropped.
struct Session {
    sqs: Sqs,
    about: About,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl SqsConnector {
    /// A connector that reaches out when it is first asked.
    pub(super) fn new(spec: Arc<SourceSpec>, queue: Queue, pace: Pace) -> Self {
        Self { spec, queue, pace, share: Share::default(), opening: Opening::default(), session: None }
    }

    /// The same, buffering no more than its part of what sources share.
    pub(super) fn within(self, share: Share) -> Self {
        Self { share, ..self }
    }

    async fn open(&mut self) -> Result<Session, ConnectorError> {
        let (queue, pace, share) = (self.queue.clone(), self.pace, self.share.clone());
        let opened = self.opening.wait(|| Session::open(queue, pace, share)).await;
        opened.map_err(ConnectorError::Unavailable)?
    }
}

impl Session {
    async fn open(queue: Queue, pace: Pace, share: Share) -> Result<Self, ConnectorError> {
        let failed = |failure: super::client::Failure| ConnectorError::Unavailable(failure.to_string());
        let sqs = Sqs::connect(&queue).await.map_err(failed)?;
        let about = sqs.about(&queue).await.map_err(failed)?;
        let visibility = feeder::visibility(&about, &pace);
        let shared = Arc::new(Shared::new(visibility, share));
        let stop = CancellationToken::new();
        let task = tokio::spawn(feeder::run(sqs.clone(), shared.clone(), pace, visibility, stop.clone()));
        Ok(Self { sqs, about, shared, task, stop: stop.drop_guard() })
    }

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

    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        let Some(session) = &self.session else {
            return Err(ConnectorError::Unavailable("no connection to the queue yet".into()));
        };
        let waiting = session.sqs.waiting(session.about.fifo).await;
        waiting.map_err(|failure| ConnectorError::Unavailable(failure.to_string()))
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

//! The contract of pull connectors, and what every connector hands to the intake.

use std::sync::Arc;

use async_trait::async_trait;
use bellwire_ledger::PositionAdvance;
use bellwire_schemas::service::SourceSpec;
use bellwire_schemas::{Address, Event, Timestamp};
use bytes::Bytes;

/// A connector that is asked for messages: timers and brokers.
///
/// What the intake relies on:
/// * **Redelivery is normal.** A batch that was neither confirmed nor released may come again, whole or in part.
/// * **Confirm only after commit.** The intake confirms a receipt when the ledger holds every message of it, and the
///   connector tells its upstream only then.
/// * **Confirming twice is harmless**, and so is confirming a receipt that a later one has overtaken.
/// * **Dropping a pending `receive` loses nothing**: the messages come with the next call, and connecting goes on.
/// * **Order holds within a shard**: batches come, and messages lie in them, in the order of the shard.
///
/// What the connector relies on: one receipt is outstanding at a time, and each ends in one `confirm`, one
/// `release`, or the drop of the connector.
#[async_trait]
pub trait Connector: Send + 'static {
    /// Waits for messages; returns at least one message or one position, at most `limit`.
    ///
    /// # Errors
    /// When the upstream cannot be read; the intake waits and asks again.
    async fn receive(&mut self, limit: Limit) -> Result<Batch, ConnectorError>;

    /// The batch is durable: tell the upstream.
    ///
    /// # Errors
    /// When the upstream cannot be told; its redelivery is then recognised by position or dedup key.
    async fn confirm(&mut self, receipt: Receipt, committed: &Committed) -> Result<(), ConnectorError>;

    /// The batch is not durable: forget it, so that it comes again.
    async fn release(&mut self, receipt: Receipt, why: Release);

    /// The source ends: give back what was not committed, within a few seconds. Nothing is called afterwards.
    async fn close(&mut self) {}

    /// How many messages wait upstream that were not handed over; `None`: cannot be told, which is not none. Asked now
    /// and then while nothing comes, for ten seconds at most. A source for which messages wait while none comes is
    /// dropped and connected anew, so what this source may not or cannot read must not count.
    ///
    /// # Errors
    /// When the upstream does not answer.
    async fn backlog(&mut self) -> Result<Option<u64>, ConnectorError> {
        Ok(None)
    }

    /// What is wrong although messages come: a partition that halted, a queue that is gone. Asked after every
    /// batch; the source is shown as failing while there is something.
    fn complaint(&self) -> Option<String> {
        None
    }
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Messages.
    pub items: usize,
    /// Bytes of payload; one larger message is let through alone.
    pub bytes: usize,
}

/// Names a batch towards its connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Receipt(pub u64);

/// Messages that are confirmed together.
#[derive(Debug)]
pub struct Batch {
    /// Its name.
    pub receipt: Receipt,
    /// The messages, in order.
    pub parcels: Vec<Parcel>,
    /// Source positions that move in the same commit.
    pub positions: Vec<PositionAdvance>,
}

/// Why a batch was not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    /// Another intake moved the position: read it again.
    Conflict,
    /// The controller stops.
    Stopping,
    /// The ledger refused.
    Failed(String),
}

/// Why a connector cannot go on right now.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The upstream, or the ledger's position, cannot be reached: ask again later.
    #[error("{0}")]
    Unavailable(String),
}

/// One message on its way in.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Whose message it is; its rules are applied by the intake.
    pub source: Arc<SourceSpec>,
    /// What it is.
    pub content: Content,
}

/// What a connector made of one message.
#[derive(Clone, Debug)]
pub enum Content {
    /// An event, before the source's rules.
    Event(Box<Draft>),
    /// No event, but worth keeping with its bytes.
    Quarantine {
        /// Why, in one line.
        reason: String,
        /// The bytes as they came.
        bytes: Bytes,
        /// What the source said besides, as JSON text.
        meta: String,
    },
    /// Nothing to keep: its sender is told.
    Refused {
        /// Stable word.
        code: &'static str,
        /// The same for people.
        detail: String,
    },
}

/// An event as the envelope made it, with the keys that its kind has by itself.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The event; an empty id or time is filled in.
    pub event: Event,
    /// The kind's ordering key.
    pub key: Option<String>,
    /// The kind's dedup key.
    pub dedup: Option<String>,
    /// A message that breaks a rule is kept in quarantine rather than refused: its sender could not mend it.
    pub keep_bad: bool,
}

/// What the ledger committed of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// One fate per message, in order.
    pub fates: Vec<Fate>,
    /// When the ledger accepted them.
    pub accepted_at: Timestamp,
}

/// What became of one durable message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Stored here.
    Accepted(Address),
    /// Stored before, there.
    Duplicate(Address),
    /// Kept as no event, for this reason.
    Quarantined(String),
}

//! What intake writes: batches of events with positions and dedup keys, in one commit.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::{Address, Event, Lane, SourceName, Timestamp};
use bytes::Bytes;
use uuid::Uuid;

/// How much of a quarantined message is kept.
pub const QUARANTINED_BYTES: usize = 1 << 20;

/// One append: committed whole or not at all.
#[derive(Clone, Debug)]
pub struct Append {
    /// Chosen by the caller and kept over retries: an append id already committed is answered, not repeated.
    pub append_id: Uuid,
    /// The events, in order of arrival.
    pub events: Vec<NewEvent>,
    /// Source positions that move in the same commit.
    pub positions: Vec<PositionAdvance>,
    /// Messages that are no events, kept with their bytes in the same commit.
    pub quarantined: Vec<Quarantine>,
}

/// An event on its way into the ledger.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The configured source.
    pub source: SourceName,
    /// The lane it goes to; see [`crate::append::lane_of`].
    pub lane: Lane,
    /// Its ordering key.
    pub key: Option<String>,
    /// Its dedup key.
    pub dedup: Option<DedupKey>,
    /// The event.
    pub event: Arc<Event>,
}

/// An identity that is stored at most once per source and window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DedupKey {
    /// The text that identifies the arrival within its source; any length, the ledger keeps a 128-bit hash.
    pub value: String,
    /// How long it is remembered.
    pub window: Duration,
}

/// A source position: how far a shard has been read into the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Grows by one with each advance; 0 means "never written".
    pub version: u64,
    /// The connector's own text.
    pub value: String,
}

/// A compare-and-set on a source position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositionAdvance {
    /// The shard, such as `schedule.report` or `orders/3`.
    pub shard: String,
    /// The version the caller read.
    pub expected: u64,
    /// The new text.
    pub value: String,
}

/// A message that could not become an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantine {
    /// The configured source.
    pub source: SourceName,
    /// Why, in one line.
    pub reason: String,
    /// The bytes as they came, cut at 1 MiB.
    pub bytes: Bytes,
    /// What the source said besides, as JSON text.
    pub meta: String,
}

/// The answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// One item per event, in the order given.
    pub items: Vec<Arrival>,
    /// When the ledger accepted the batch.
    pub accepted_at: Timestamp,
}

/// What became of one arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Committed here.
    Accepted(Address),
    /// The dedup key was seen before, at this address; the hit is recorded.
    Duplicate(Address),
}

/// An event as the ledger holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// Where it lies.
    pub address: Address,
    /// The configured source.
    pub source: SourceName,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Its ordering key.
    pub key: Option<String>,
    /// The event.
    pub event: Arc<Event>,
}

/// The lane of an event: by the hash of its key, else the lane whose turn it is. Never depends on which controller
/// reads. `turn` is the intake's own counter, advanced once per batch so that batches stay whole.
pub fn lane_of(key: Option<&str>, turn: u64, lanes: u16) -> Lane {
    let lanes = u64::from(lanes.max(1));
    let pick = match key {
        // FNV-1a: stable across versions and machines, which the standard hasher does not promise.
        Some(key) => key
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)),
        None => turn,
    };
    Lane(u16::try_from(pick % lanes).unwrap_or(0) + 1)
}

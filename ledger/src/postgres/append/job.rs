//! An append that waits: its texts and hashes worked out, and what is known of its events so far.

use std::collections::{BTreeSet, HashMap};

use bellwire_schemas::{Address, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::PATIENCE;
use crate::dedup::hash;
use crate::{Append, Appended, Arrival, Error};

/// Bytes of one append, about: 512 MiB. The server takes messages and values below 1 GiB, as text some of them doubled.
const LARGEST: usize = 512 << 20;

/// What is known of an event before its append is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// To be stored.
    Fresh,
    /// Its identity is remembered since an earlier append.
    Duplicate(Address),
    /// Its identity is that of an earlier event of this append, by index.
    Repeats(usize),
}

/// An append on its way.
pub(super) struct Job {
    pub append: Append,
    /// When its caller came.
    pub now: Timestamp,
    /// The hash of each event's identity; nothing where there is none or its window has no length.
    pub hashes: Vec<Option<Uuid>>,
    /// What is known of each event.
    pub fates: Vec<Fate>,
    /// The lanes of its events.
    pub lanes: BTreeSet<u16>,
    /// What it weighs, roughly.
    pub bytes: usize,
    /// When its caller is told that the ledger is not available.
    pub deadline: Instant,
    /// Whether it was begun in this queue.
    pub begun: bool,
    /// Whether it was sent before and its outcome is unknown, so that it may be there.
    pub unknown: bool,
    reply: oneshot::Sender<Result<Appended, Error>>,
}

impl Job {
    /// Works out what needs no connection.
    ///
    /// # Errors
    /// [`Error::NotFound`] when an event goes to a lane that does not exist.
    pub fn new(
        append: Append,
        now: Timestamp,
        lanes: u16,
        reply: oneshot::Sender<Result<Appended, Error>>,
    ) -> Result<Self, Error> {
        let mut bytes = append.quarantined.iter().map(|q| q.bytes.len() + q.meta.len()).sum();
        let mut hashes = Vec::with_capacity(append.events.len());
        let mut fates = Vec::with_capacity(append.events.len());
        let mut first_of: HashMap<Uuid, usize> = HashMap::new();
        let mut used = BTreeSet::new();
        for (index, new) in append.events.iter().enumerate() {
            if new.lane.0 == 0 || new.lane.0 > lanes {
                return Err(Error::NotFound(format!(
                    "there is no lane {}; the ledger has {lanes}",
                    new.lane
                )));
            }
            bytes += new.event.size_bytes() + 100;
            let identity =
                new.dedup.as_ref().map(|d| (Uuid::from_bytes(hash(&new.source, &d.value)), d.window));
            let first = identity.and_then(|(hash, _)| first_of.get(&hash).copied());
            let fate = first.map_or(Fate::Fresh, Fate::Repeats);
            // A window without length remembers nothing, but meets what others remember.
            let kept = identity.filter(|(_, window)| fate == Fate::Fresh && !window.is_zero());
            if let Some((hash, _)) = kept {
                first_of.insert(hash, index);
            }
            hashes.push(identity.filter(|_| fate == Fate::Fresh).map(|(hash, _)| hash));
            if fate == Fate::Fresh && used.last() != Some(&new.lane.0) {
                used.insert(new.lane.0);
            }
            fates.push(fate);
        }
        if bytes > LARGEST {
            return Err(Error::Corrupt(format!(
                "an append of {bytes} bytes is too large: {LARGEST} fit into one"
            )));
        }
        let deadline = Instant::now() + PATIENCE;
        Ok(Self {
            append,
            now,
            hashes,
            fates,
            lanes: used,
            bytes,
            deadline,
            begun: false,
            unknown: false,
            reply,
        })
    }

    /// The append's id.
    pub fn id(&self) -> Uuid {
        self.append.append_id
    }

    /// The lane of all its events; nothing when there are several, or no event.
    pub fn only_lane(&self) -> Option<u16> {
        self.lanes.first().copied().filter(|_| self.lanes.len() == 1)
    }

    /// Whether any event is still to be stored.
    pub fn stores(&self) -> bool {
        self.fates.contains(&Fate::Fresh)
    }

    /// What became of each event, given where the fresh ones went.
    pub fn items(&self, fresh: impl Fn(usize) -> Option<Address>) -> Option<Vec<Arrival>> {
        let mut items: Vec<Arrival> = Vec::with_capacity(self.fates.len());
        for (index, fate) in self.fates.iter().enumerate() {
            items.push(match fate {
                Fate::Fresh => Arrival::Accepted(fresh(index)?),
                Fate::Duplicate(first) => Arrival::Duplicate(*first),
                Fate::Repeats(first) => match items.get(*first)? {
                    Arrival::Accepted(address) | Arrival::Duplicate(address) => Arrival::Duplicate(*address),
                },
            });
        }
        Some(items)
    }

    /// Tells the caller, who may have gone.
    pub fn answer(self, answer: Result<Appended, Error>) {
        let _ = self.reply.send(answer);
    }
}

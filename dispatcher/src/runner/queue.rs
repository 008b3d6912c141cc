//! Deliveries in memory that wait for a slot: fresh ones from the cursor, debts from the ledger, taken in turn.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bellwire_ledger::{Owed, OwedReason, StoredEvent};
use bellwire_schemas::{Address, ErrorInfo, Lane, ReplayId, Seq, Timestamp};
use bytes::Bytes;

/// One delivery on its way to an attempt.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) address: Address,
    /// The event; a debt's is read when its attempt starts.
    pub(super) event: Option<Arc<StoredEvent>>,
    /// Attempts used so far.
    pub(super) attempts: u32,
    /// What `max_age` counts from.
    pub(super) since: Timestamp,
    /// Why it is owed outside the cursor; `None` for a fresh one.
    pub(super) debt: Option<OwedReason>,
    /// The last failure of a debt.
    pub(super) error: Option<ErrorInfo>,
}

/// What waits for a slot.
#[derive(Debug, Default)]
pub(super) struct Queue {
    fresh: VecDeque<Job>,
    debts: VecDeque<Job>,
    /// Debts in memory, in flight, or ended but not confirmed by the ledger, whose row may still be there.
    held: HashSet<Seq>,
    debts_next: bool,
    /// Payload bytes of the fresh ones.
    fresh_bytes: usize,
}

impl Job {
    pub(super) fn fresh(event: StoredEvent) -> Self {
        let (address, since) = (event.address, event.accepted_at);
        Self { address, event: Some(Arc::new(event)), attempts: 0, since, debt: None, error: None }
    }

    pub(super) fn debt(lane: Lane, owed: Owed) -> Self {
        let address = Address::new(lane, owed.seq);
        let Owed { attempts, since, error, reason, .. } = owed;
        Self { address, event: None, attempts, since, debt: Some(reason), error }
    }

    fn bytes(&self) -> usize {
        self.event.as_ref().and_then(|e| e.event.data.as_ref()).map_or(0, Bytes::len)
    }

    pub(super) fn replay(&self) -> Option<&ReplayId> {
        match &self.debt {
            Some(OwedReason::Replay(id)) => Some(id),
            _ => None,
        }
    }
}

impl Queue {
    pub(super) fn push_fresh(&mut self, job: Job) {
        self.fresh_bytes += job.bytes();
        self.fresh.push_back(job);
    }

    /// Takes a debt in, unless it is in memory already.
    pub(super) fn push_debt(&mut self, job: Job) {
        if self.held.insert(job.address.seq) {
            self.debts.push_back(job);
        }
    }

    /// The next one: fresh and owed in turn, so that neither a backlog nor a wave of retries holds up the other.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let (first, second) = match self.debts_next {
            true => (&mut self.debts, &mut self.fresh),
            false => (&mut self.fresh, &mut self.debts),
        };
        let job = first.pop_front().or_else(|| second.pop_front())?;
        self.debts_next = job.debt.is_none();
        if job.debt.is_none() {
            self.fresh_bytes -= job.bytes();
        }
        Some(job)
    }

    /// Puts one back at the front: it was not attempted, or the attempt did not count.
    pub(super) fn put_back(&mut self, job: Job) {
        if job.debt.is_some() {
            self.debts.push_front(job);
        } else {
            self.fresh_bytes += job.bytes();
            self.fresh.push_front(job);
        }
    }

    /// The ledger has confirmed the end of a debt.
    pub(super) fn release(&mut self, seq: Seq) {
        self.held.remove(&seq);
    }

    /// Forgets debts that wait for a slot; their rows are read again.
    pub(super) fn drop_debts(&mut self) {
        for job in self.debts.drain(..) {
            self.held.remove(&job.address.seq);
        }
    }

    /// Takes all fresh ones out, oldest first.
    pub(super) fn take_fresh(&mut self) -> Vec<Job> {
        self.fresh_bytes = 0;
        let mut jobs: Vec<_> = self.fresh.drain(..).collect();
        jobs.sort_by_key(|job| job.address);
        jobs
    }

    pub(super) fn fresh_len(&self) -> usize {
        self.fresh.len()
    }

    pub(super) fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    pub(super) fn debts_len(&self) -> usize {
        self.debts.len()
    }

    pub(super) fn held_len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.debts.len()
    }
}

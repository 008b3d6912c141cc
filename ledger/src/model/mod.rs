//! The oracle: the ledger's contract kept with plain maps in memory, slow and obviously correct.
//!
//! It is what the other implementations are compared with, and what tests of other rooms run against. It counts
//! nothing ahead: totals are worked out from the definitions whenever somebody asks. It loses everything when it is
//! dropped, and never pretends otherwise. Read `state.rs` first.

mod accounts;
mod ask;
mod faults;
mod operate;
mod state;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, ReplayId, Seq, SourceName, Timestamp};

use crate::{
    Append, Appended, ArrivalTotals, BindingRecord, BindingRevision, BindingTotals, Checkpoint, Cluster,
    DeadLetter, DeadLetterQuery, DeliveryKey, DeliveryQuery, DueRetries, Duplicate, Error, EventQuery, Flush,
    FlushOutcome, Heartbeat, Ledger, LogEntry, Owed, OwedDelivery, Page, Pause, Position, QuarantineRecord,
    Refusal, ReplayRecord, Retained, SlotsAsked, SlotsGranted, StoredEvent,
};
use faults::Faults;
use state::State;

/// A ledger in memory, with faults that tests can order.
///
/// Clones share one ledger.
#[derive(Clone)]
pub struct ModelLedger {
    inner: Arc<Mutex<Inner>>,
    lanes: u16,
    shared: bool,
}

/// What a [`ModelLedger`] held at one moment: what a server knows that takes over after it.
#[derive(Clone)]
pub struct Snapshot(State);

struct Inner {
    state: State,
    faults: Faults,
}

impl ModelLedger {
    /// An empty ledger with this many lanes (at least one), for several controllers.
    pub fn new(lanes: u16) -> Self {
        let lanes = lanes.max(1);
        let inner = Inner { state: State::new(lanes), faults: Faults::default() };
        Self { inner: Arc::new(Mutex::new(inner)), lanes, shared: true }
    }

    /// The same for one controller, as a file is.
    pub fn alone(lanes: u16) -> Self {
        Self { shared: false, ..Self::new(lanes) }
    }

    /// The same for a ledger from which events leave in units larger than one: what a redrive brings back is found by its
    /// address, and not met by readers of its lane.
    pub fn in_units(lanes: u16) -> Self {
        let model = Self::new(lanes);
        model.lock().state.sets_aside = true;
        model
    }

    /// Refuses the next append with this error; nothing is written.
    pub fn fail_next_append(&self, error: Error) {
        self.lock().faults.before_append.push_back(error);
    }

    /// Commits the next append and answers this error all the same: an unknown outcome.
    pub fn commit_then_fail_append(&self, error: Error) {
        self.lock().faults.after_append.push_back(error);
    }

    /// Refuses the next flush with this error; nothing is written.
    pub fn fail_next_flush(&self, error: Error) {
        self.lock().faults.before_flush.push_back(error);
    }

    /// Never answers the next question for due debts.
    pub fn hang_next_due(&self) {
        self.lock().faults.hangs = true;
    }

    /// Commits the next flush and answers this error all the same: an unknown outcome.
    pub fn commit_then_fail_flush(&self, error: Error) {
        self.lock().faults.after_flush.push_back(error);
    }

    /// While set, every append is refused as [`Error::Full`].
    pub fn set_full(&self, full: bool) {
        self.lock().faults.full = full;
    }

    /// Lets the lease of a controller end, as silence does: its lanes are free, its flushes are fenced only once another
    /// one has acquired them.
    pub fn expire(&self, controller: ControllerId) {
        self.lock().state.members.remove(&controller);
    }

    /// While set, heartbeats of this controller are refused, as when the way to the ledger is cut for them alone.
    pub fn refuse_heartbeats(&self, controller: ControllerId, refuse: bool) {
        let mut inner = self.lock();
        if refuse {
            inner.faults.unheard.insert(controller);
        } else {
            inner.faults.unheard.remove(&controller);
        }
    }

    /// What is in it now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().state.clone())
    }

    /// What a fail-over does to a server that had fallen behind: all of it is as it was, only who owns what is known.
    pub fn fail_over(&self, to: &Snapshot) {
        self.lock().state.fail_over(&to.0);
    }

    /// What a restart of the process does: lanes lose their owners, and calls work again after
    /// [`Ledger::close`].
    pub fn reopen(&self) {
        let mut inner = self.lock();
        inner.faults.closed = false;
        inner.state.disown();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics while it holds this lock")
    }

    fn ask<T>(&self, question: impl FnOnce(&State) -> Result<T, Error>) -> Result<T, Error> {
        let inner = self.lock();
        inner.faults.check_open()?;
        question(&inner.state)
    }

    /// Runs a change; each one refuses before it touches anything.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut inner = self.lock();
        inner.faults.check_open()?;
        change(&mut inner.state)
    }
}

#[async_trait]
impl Ledger for ModelLedger {
    fn lanes(&self) -> u16 {
        self.lanes
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    async fn append(&self, append: Append, now: Timestamp) -> Result<Appended, Error> {
        self.lock().faults.take_before_append()?;
        let answer = self.change(|s| s.append(append, now))?;
        self.lock().faults.take_after_append()?;
        Ok(answer)
    }

    async fn position(&self, shard: &str) -> Result<Option<Position>, Error> {
        self.ask(|s| Ok(s.positions.get(shard).cloned()))
    }

    async fn tail(&self, lane: Lane) -> Result<Seq, Error> {
        self.ask(|s| s.tail(lane))
    }

    async fn tails(&self) -> Result<Vec<Seq>, Error> {
        self.ask(|s| Ok(s.lanes.iter().map(|lane| lane.tail).collect()))
    }

    async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.ask(|s| s.read(lane, from, limit, bytes))
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Cluster, Error> {
        self.lock().faults.hear(beat.controller)?;
        self.change(|s| Ok(s.heartbeat(beat)))
    }

    async fn leave(&self, controller: ControllerId) -> Result<(), Error> {
        self.change(|s| {
            s.leave(controller);
            Ok(())
        })
    }

    async fn slots(
        &self,
        controller: ControllerId,
        asked: &[SlotsAsked],
        now: Timestamp,
    ) -> Result<Vec<SlotsGranted>, Error> {
        if !self.shared {
            return Ok(crate::slots::alone(asked));
        }
        self.lock().faults.hear(controller)?;
        self.change(|s| Ok(s.slots(controller, asked, now)))
    }

    async fn acquire(
        &self,
        controller: ControllerId,
        lane: Lane,
        _now: Timestamp,
    ) -> Result<Option<Epoch>, Error> {
        self.change(|s| s.acquire(controller, lane))
    }

    async fn release(&self, lane: Lane, epoch: Epoch) -> Result<(), Error> {
        self.change(|s| s.release(lane, epoch))
    }

    async fn declare_bindings(
        &self,
        bindings: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error> {
        self.change(|s| s.declare_bindings(bindings, now).inspect(|_| s.changes += 1))
    }

    async fn bindings(&self) -> Result<Vec<BindingRecord>, Error> {
        self.ask(|s| Ok(s.bindings.clone()))
    }

    async fn filter_of(
        &self,
        binding: BindingId,
        revision: u32,
    ) -> Result<Option<Vec<serde_json::Value>>, Error> {
        self.ask(|s| Ok(s.revisions.get(&(binding, revision)).map(|r| r.filter.clone())))
    }

    async fn revisions(&self, binding: BindingId) -> Result<Vec<BindingRevision>, Error> {
        self.ask(|s| Ok(s.revisions_of(binding)))
    }

    async fn set_paused(&self, binding: BindingId, pause: Option<Pause>) -> Result<(), Error> {
        self.change(|s| {
            s.binding_mut(binding)?.paused = pause;
            s.changes += 1;
            Ok(())
        })
    }

    async fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error> {
        self.ask(|s| s.checkpoint(lane, binding).cloned())
    }

    async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error> {
        self.lock().faults.take_before_flush()?;
        let answer = self.change(|s| s.flush(flush))?;
        self.lock().faults.take_after_flush()?;
        Ok(answer)
    }

    async fn due(
        &self,
        lane: Lane,
        binding: BindingId,
        now: Timestamp,
        limit: usize,
    ) -> Result<DueRetries, Error> {
        if std::mem::take(&mut self.lock().faults.hangs) {
            std::future::pending::<()>().await;
        }
        self.ask(|s| Ok(s.due(lane, binding, now, limit)))
    }

    async fn debts(
        &self,
        lane: Lane,
        binding: BindingId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Owed>, Error> {
        self.ask(|s| Ok(s.debts(lane, binding, after, limit)))
    }

    async fn has_parked(&self, lane: Lane, binding: BindingId) -> Result<bool, Error> {
        self.ask(|s| Ok(s.has_parked(lane, binding)))
    }

    async fn redrive(&self, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error> {
        self.change(|s| {
            s.changes += 1;
            Ok(s.redrive(dead, now))
        })
    }

    async fn discard(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        self.change(|s| s.discard(deliveries, reason, by, now).inspect(|_| s.changes += 1))
    }

    async fn cancel(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        self.change(|s| s.cancel(deliveries, reason, by, now).inspect(|_| s.changes += 1))
    }

    async fn save_replay(&self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error> {
        self.change(|s| s.save_replay(replay, owed).inspect(|_| s.changes += 1))
    }

    async fn replays(&self) -> Result<Vec<ReplayRecord>, Error> {
        self.ask(|s| Ok(s.replays()))
    }

    async fn replay(&self, id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
        self.ask(|s| Ok(s.replays.iter().find(|r| r.id == *id).cloned()))
    }

    async fn note_refusal(&self, refusal: Refusal) -> Result<(), Error> {
        self.change(|s| {
            s.note_refusal(refusal);
            Ok(())
        })
    }

    async fn event(&self, address: Address) -> Result<Option<StoredEvent>, Error> {
        self.ask(|s| Ok(s.event(address).cloned()))
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
        self.ask(|s| Ok(s.list_events(query)))
    }

    async fn log(
        &self,
        address: Address,
        binding: Option<BindingId>,
    ) -> Result<Vec<(BindingId, LogEntry)>, Error> {
        self.ask(|s| Ok(s.log_of(address, binding)))
    }

    async fn owed(&self, delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
        self.ask(|s| Ok(s.owed.get(&delivery).cloned()))
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<OwedDelivery>, Error> {
        self.ask(|s| Ok(s.list_deliveries(query)))
    }

    async fn dead_letter(&self, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error> {
        self.ask(|s| Ok(s.dead.get(&delivery).cloned()))
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Page<DeadLetter>, Error> {
        self.ask(|s| Ok(s.list_dead_letters(query)))
    }

    async fn duplicates(&self, first: Address) -> Result<Vec<Duplicate>, Error> {
        self.ask(|s| Ok(s.duplicates.iter().filter(|d| d.first == first).take(100).cloned().collect()))
    }

    async fn duplicates_of_id(&self, id: &str, source: Option<&SourceName>) -> Result<Vec<Duplicate>, Error> {
        let of_id = |d: &&Duplicate| d.id == id && source.is_none_or(|s| d.source == *s);
        self.ask(|s| Ok(s.duplicates.iter().rev().filter(of_id).take(100).cloned().collect()))
    }

    async fn quarantined(
        &self,
        source: Option<&SourceName>,
        limit: usize,
    ) -> Result<Vec<QuarantineRecord>, Error> {
        let of_source = |q: &&QuarantineRecord| source.is_none_or(|s| q.source == *s);
        self.ask(|s| Ok(s.quarantine.iter().rev().filter(of_source).take(limit).cloned().collect()))
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<Refusal>, Error> {
        self.ask(|s| Ok(s.refusals_since(since)))
    }

    async fn totals(&self) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
        self.ask(|s| Ok(s.totals()))
    }

    async fn arrivals(&self) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
        self.ask(|s| Ok(s.arrivals.clone()))
    }

    async fn retain(&self, before: Timestamp, _now: Timestamp) -> Result<Retained, Error> {
        self.change(|s| Ok(s.retain(before)))
    }

    async fn size_bytes(&self) -> Result<u64, Error> {
        self.ask(|s| Ok(s.events.values().map(|e| e.event.size_bytes() as u64).sum()))
    }

    async fn close(&self) {
        self.lock().faults.closed = true;
    }
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::conformance::Subject;

    #[async_trait]
    impl Subject for ModelLedger {
        async fn new(lanes: u16) -> Self {
            Self::new(lanes)
        }

        fn ledger(&self) -> Arc<dyn Ledger> {
            Arc::new(self.clone())
        }

        async fn reopen(&mut self) {
            ModelLedger::reopen(self);
        }

        async fn expire(&mut self, controller: ControllerId) -> bool {
            ModelLedger::expire(self, controller);
            true
        }
    }

    crate::conformance::suite!(ModelLedger);
}

//! A ledger that cannot store events called `poison`; all else is the model.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bellwire_ledger::*;
use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, ReplayId, Seq, SourceName, Timestamp};

use super::Picky;

#[async_trait]
impl Ledger for Picky {
    fn lanes(&self) -> u16 {
        self.0.lanes()
    }

    async fn append(&self, append: Append, now: Timestamp) -> Result<Appended, Error> {
        if append.events.iter().any(|e| e.event.id == "poison") {
            return Err(Error::Corrupt("cannot store poison".into()));
        }
        self.0.append(append, now).await
    }

    async fn position(&self, shard: &str) -> Result<Option<Position>, Error> {
        self.0.position(shard).await
    }

    async fn tail(&self, lane: Lane) -> Result<Seq, Error> {
        self.0.tail(lane).await
    }

    async fn tails(&self) -> Result<Vec<Seq>, Error> {
        self.0.tails().await
    }

    async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.0.read(lane, from, limit, bytes).await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Cluster, Error> {
        self.0.heartbeat(beat).await
    }

    async fn leave(&self, controller: ControllerId) -> Result<(), Error> {
        self.0.leave(controller).await
    }

    async fn acquire(
        &self,
        controller: ControllerId,
        lane: Lane,
        now: Timestamp,
    ) -> Result<Option<Epoch>, Error> {
        self.0.acquire(controller, lane, now).await
    }

    async fn release(&self, lane: Lane, epoch: Epoch) -> Result<(), Error> {
        self.0.release(lane, epoch).await
    }

    async fn declare_bindings(
        &self,
        bindings: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error> {
        self.0.declare_bindings(bindings, now).await
    }

    async fn bindings(&self) -> Result<Vec<BindingRecord>, Error> {
        self.0.bindings().await
    }

    async fn filter_of(
        &self,
        binding: BindingId,
        revision: u32,
    ) -> Result<Option<Vec<serde_json::Value>>, Error> {
        self.0.filter_of(binding, revision).await
    }

    async fn revisions(&self, binding: BindingId) -> Result<Vec<BindingRevision>, Error> {
        self.0.revisions(binding).await
    }

    async fn set_paused(&self, binding: BindingId, pause: Option<Pause>) -> Result<(), Error> {
        self.0.set_paused(binding, pause).await
    }

    async fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error> {
        self.0.checkpoint(lane, binding).await
    }

    async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error> {
        self.0.flush(flush).await
    }

    async fn due(
        &self,
        lane: Lane,
        binding: BindingId,
        now: Timestamp,
        limit: usize,
    ) -> Result<DueRetries, Error> {
        self.0.due(lane, binding, now, limit).await
    }

    async fn debts(
        &self,
        lane: Lane,
        binding: BindingId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Owed>, Error> {
        self.0.debts(lane, binding, after, limit).await
    }

    async fn has_parked(&self, lane: Lane, binding: BindingId) -> Result<bool, Error> {
        self.0.has_parked(lane, binding).await
    }

    async fn redrive(&self, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error> {
        self.0.redrive(dead, now).await
    }

    async fn discard(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        self.0.discard(deliveries, reason, by, now).await
    }

    async fn replays(&self) -> Result<Vec<ReplayRecord>, Error> {
        self.0.replays().await
    }

    async fn replay(&self, id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
        self.0.replay(id).await
    }

    async fn note_refusal(&self, refusal: Refusal) -> Result<(), Error> {
        self.0.note_refusal(refusal).await
    }

    async fn event(&self, address: Address) -> Result<Option<StoredEvent>, Error> {
        self.0.event(address).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
        self.0.events(query).await
    }

    async fn log(
        &self,
        address: Address,
        binding: Option<BindingId>,
    ) -> Result<Vec<(BindingId, LogEntry)>, Error> {
        self.0.log(address, binding).await
    }

    async fn owed(&self, delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
        self.0.owed(delivery).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<OwedDelivery>, Error> {
        self.0.deliveries(query).await
    }

    async fn dead_letter(&self, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error> {
        self.0.dead_letter(delivery).await
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Page<DeadLetter>, Error> {
        self.0.dead_letters(query).await
    }

    async fn duplicates(&self, first: Address) -> Result<Vec<Duplicate>, Error> {
        self.0.duplicates(first).await
    }

    async fn duplicates_of_id(&self, id: &str, source: Option<&SourceName>) -> Result<Vec<Duplicate>, Error> {
        self.0.duplicates_of_id(id, source).await
    }

    async fn quarantined(
        &self,
        source: Option<&SourceName>,
        limit: usize,
    ) -> Result<Vec<QuarantineRecord>, Error> {
        self.0.quarantined(source, limit).await
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<Refusal>, Error> {
        self.0.refusals(since).await
    }

    async fn totals(&self) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
        self.0.totals().await
    }

    async fn arrivals(&self) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
        self.0.arrivals().await
    }

    async fn retain(&self, before: Timestamp, now: Timestamp) -> Result<Retained, Error> {
        self.0.retain(before, now).await
    }

    async fn size_bytes(&self) -> Result<u64, Error> {
        self.0.size_bytes().await
    }

    async fn close(&self) {
        self.0.close().await
    }

    async fn cancel(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        self.0.cancel(deliveries, reason, by, now).await
    }

    async fn save_replay(&self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error> {
        self.0.save_replay(replay, owed).await
    }
}

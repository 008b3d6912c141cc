//! The contract, verb by verb: each goes to the file that keeps it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, ReplayId, Seq, SourceName, Timestamp};

use super::PostgresLedger;
use super::{
    append, ask, bindings, deliver, exceptions, flush, lease, list, operate, position, retain, slots, totals,
};
use crate::flush::Verb;
use crate::{
    Append, Appended, ArrivalTotals, BindingRecord, BindingRevision, BindingTotals, Checkpoint, Cluster,
    DeadLetter, DeadLetterQuery, DeliveryKey, DeliveryQuery, DueRetries, Duplicate, Error, EventQuery, Flush,
    FlushOutcome, Heartbeat, Ledger, LogEntry, Owed, OwedDelivery, Page, Pause, Position, QuarantineRecord,
    Refusal, ReplayRecord, Retained, SlotsAsked, SlotsGranted, StoredEvent,
};

#[async_trait]
impl Ledger for PostgresLedger {
    fn lanes(&self) -> u16 {
        self.shared.lanes
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn append(&self, append: Append, now: Timestamp) -> Result<Appended, Error> {
        append::append(&self.shared, append, now).await
    }

    async fn position(&self, shard: &str) -> Result<Option<Position>, Error> {
        position::position(&self.shared, shard).await
    }

    async fn tail(&self, lane: Lane) -> Result<Seq, Error> {
        ask::tail(&self.shared, lane).await
    }

    async fn tails(&self) -> Result<Vec<Seq>, Error> {
        ask::tails(&self.shared).await
    }

    async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        ask::read(&self.shared, lane, from, limit, bytes).await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Cluster, Error> {
        let cluster = lease::heartbeat(&self.shared, beat).await?;
        // Not waited for: a sign of life comes in time, whatever there is to send again.
        let shared = self.shared.clone();
        tokio::spawn(async move {
            if let Err(error) = flush::confirm(&shared).await {
                tracing::debug!(%error, "cannot confirm flushes, trying again with the next heartbeat");
            }
        });
        Ok(cluster)
    }

    async fn leave(&self, controller: ControllerId) -> Result<(), Error> {
        lease::leave(&self.shared, controller).await
    }

    async fn slots(
        &self,
        controller: ControllerId,
        asked: &[SlotsAsked],
        now: Timestamp,
    ) -> Result<Vec<SlotsGranted>, Error> {
        slots::slots(&self.shared, controller, asked, now).await
    }

    async fn acquire(
        &self,
        controller: ControllerId,
        lane: Lane,
        now: Timestamp,
    ) -> Result<Option<Epoch>, Error> {
        lease::acquire(&self.shared, controller, lane, now).await
    }

    async fn release(&self, lane: Lane, epoch: Epoch) -> Result<(), Error> {
        lease::release(&self.shared, lane, epoch).await
    }

    async fn declare_bindings(
        &self,
        bindings: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error> {
        bindings::declare_bindings(&self.shared, bindings, now).await
    }

    async fn bindings(&self) -> Result<Vec<BindingRecord>, Error> {
        bindings::bindings(&self.shared).await
    }

    async fn filter_of(
        &self,
        binding: BindingId,
        revision: u32,
    ) -> Result<Option<Vec<serde_json::Value>>, Error> {
        bindings::filter_of(&self.shared, binding, revision).await
    }

    async fn revisions(&self, binding: BindingId) -> Result<Vec<BindingRevision>, Error> {
        bindings::revisions(&self.shared, binding).await
    }

    async fn set_paused(&self, binding: BindingId, pause: Option<Pause>) -> Result<(), Error> {
        bindings::set_paused(&self.shared, binding, pause).await
    }

    async fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error> {
        flush::checkpoint(&self.shared, lane, binding).await
    }

    async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error> {
        flush::flush(&self.shared, flush).await
    }

    async fn due(
        &self,
        lane: Lane,
        binding: BindingId,
        now: Timestamp,
        limit: usize,
    ) -> Result<DueRetries, Error> {
        deliver::due(&self.shared, lane, binding, now, limit).await
    }

    async fn debts(
        &self,
        lane: Lane,
        binding: BindingId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Owed>, Error> {
        deliver::debts(&self.shared, lane, binding, after, limit).await
    }

    async fn has_parked(&self, lane: Lane, binding: BindingId) -> Result<bool, Error> {
        deliver::has_parked(&self.shared, lane, binding).await
    }

    async fn redrive(&self, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error> {
        operate::redrive(&self.shared, dead, now).await
    }

    async fn discard(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        operate::give_up(&self.shared, Verb::Discard, deliveries, reason, by, now).await
    }

    async fn cancel(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        operate::give_up(&self.shared, Verb::Cancel, deliveries, reason, by, now).await
    }

    async fn save_replay(&self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error> {
        operate::save_replay(&self.shared, replay, owed).await
    }

    async fn replays(&self) -> Result<Vec<ReplayRecord>, Error> {
        operate::replays(&self.shared).await
    }

    async fn replay(&self, id: &ReplayId) -> Result<Option<ReplayRecord>, Error> {
        operate::replay(&self.shared, id).await
    }

    async fn note_refusal(&self, refusal: Refusal) -> Result<(), Error> {
        operate::note_refusal(&self.shared, refusal).await
    }

    async fn event(&self, address: Address) -> Result<Option<StoredEvent>, Error> {
        ask::event(&self.shared, address).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<StoredEvent>, Error> {
        list::events(&self.shared, query).await
    }

    async fn log(
        &self,
        address: Address,
        binding: Option<BindingId>,
    ) -> Result<Vec<(BindingId, LogEntry)>, Error> {
        deliver::log(&self.shared, address, binding).await
    }

    async fn owed(&self, delivery: DeliveryKey) -> Result<Option<Owed>, Error> {
        deliver::owed(&self.shared, delivery).await
    }

    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<OwedDelivery>, Error> {
        exceptions::deliveries(&self.shared, query).await
    }

    async fn dead_letter(&self, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error> {
        exceptions::dead_letter(&self.shared, delivery).await
    }

    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Page<DeadLetter>, Error> {
        exceptions::dead_letters(&self.shared, query).await
    }

    async fn duplicates(&self, first: Address) -> Result<Vec<Duplicate>, Error> {
        exceptions::duplicates(&self.shared, first).await
    }

    async fn duplicates_of_id(&self, id: &str, source: Option<&SourceName>) -> Result<Vec<Duplicate>, Error> {
        exceptions::duplicates_of_id(&self.shared, id, source).await
    }

    async fn quarantined(
        &self,
        source: Option<&SourceName>,
        limit: usize,
    ) -> Result<Vec<QuarantineRecord>, Error> {
        exceptions::quarantined(&self.shared, source, limit).await
    }

    async fn refusals(&self, since: Timestamp) -> Result<Vec<Refusal>, Error> {
        exceptions::refusals(&self.shared, since).await
    }

    async fn totals(&self) -> Result<BTreeMap<BindingId, BindingTotals>, Error> {
        totals::totals(&self.shared).await
    }

    async fn arrivals(&self) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error> {
        totals::arrivals(&self.shared).await
    }

    async fn retain(&self, before: Timestamp, now: Timestamp) -> Result<Retained, Error> {
        retain::retain(&self.shared, before, now).await
    }

    async fn size_bytes(&self) -> Result<u64, Error> {
        retain::size_bytes(&self.shared).await
    }

    async fn close(&self) {
        self.shared.close().await;
    }
}

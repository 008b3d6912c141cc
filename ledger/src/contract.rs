//! The ledger's contract: what every implementation promises, and the conformance suite checks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, ReplayId, Seq, SourceName, Timestamp};

use crate::{
    Append, Appended, BindingRecord, BindingRevision, BindingTotals, Checkpoint, Cluster, DeadLetter,
    DeadLetterQuery, DeliveryKey, DeliveryQuery, DueRetries, Duplicate, Error, EventQuery, Flush,
    FlushOutcome, Heartbeat, LogEntry, Owed, OwedDelivery, Page, Pause, Position, QuarantineRecord, Refusal,
    ReplayRecord, Retained, SlotsAsked, SlotsGranted, StoredEvent,
};

/// A durable, append-only ledger of lanes.
///
/// Promises:
/// * **Durable**: `Ok` from a write means it survives the loss of power.
/// * **Gapless**: the places of a lane are 1, 2, 3, …; commit order is place order, so a reader that has seen place
///   n never misses one below it. A place is never used twice, also not after retention.
/// * **Whole**: a write happens completely or not at all. A refusal writes nothing.
/// * **Idempotent appends**: the same append id twice gives the first answer again and writes nothing, while the ledger
///   is open. (Callers keep their ids in memory, so no id comes back after the end of their process.)
/// * **Once**: two events of one source with the same dedup key within its window are stored once; the later one is
///   answered with the address of the first and recorded. Also within one batch.
/// * **Fenced**: a flush under an old epoch writes nothing.
/// * **Cancel-safe**: dropping a future neither breaks the ledger nor tells whether the write happened; ask again
///   with the same append id.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    // Lanes

    /// How many lanes there are; they are numbered from 1.
    fn lanes(&self) -> u16;

    /// Whether other controllers may write to it at the same time. Without others there is nothing to poll for, and no
    /// lease that could end.
    fn is_shared(&self) -> bool {
        false
    }

    /// Commits a batch of events, positions and quarantined messages at `now`.
    ///
    /// # Errors
    /// [`Error::PositionConflict`], [`Error::Full`], [`Error::Unavailable`]; then nothing was written, except that
    /// after `Unavailable` it may have been: repeat with the same append id.
    async fn append(&self, append: Append, now: Timestamp) -> Result<Appended, Error>;

    /// The newest position of a shard, or `None` when it was never written.
    async fn position(&self, shard: &str) -> Result<Option<Position>, Error>;

    /// The last place used in a lane; 0 when it is empty.
    async fn tail(&self, lane: Lane) -> Result<Seq, Error>;

    /// The last place used in every lane, in the order of the lanes.
    async fn tails(&self) -> Result<Vec<Seq>, Error>;

    /// Up to `limit` events from `from` on, in order; fewer when their data exceeds `bytes` (but at least one if
    /// there is one). Places that retention removed are skipped.
    async fn read(
        &self,
        lane: Lane,
        from: Seq,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredEvent>, Error>;

    // Ownership

    /// Says that a controller is alive, and answers how the cluster stands. Waits for no other write of the ledger.
    ///
    /// Also confirms, by a synchronous commit, what earlier flushes wrote asynchronously, where the ledger does that.
    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Cluster, Error>;

    /// Takes a controller out of the cluster and gives back what it owns.
    async fn leave(&self, controller: ControllerId) -> Result<(), Error>;

    /// Takes a lane for a controller and returns the new epoch, or `None` while another controller that is alive holds
    /// it, or when the lane was taken once more before this call was done, also by the same controller. The one who had
    /// it before, and whoever holds an older epoch, is fenced from then on.
    async fn acquire(
        &self,
        controller: ControllerId,
        lane: Lane,
        now: Timestamp,
    ) -> Result<Option<Epoch>, Error>;

    /// Gives a lane back; a stale epoch is ignored. Flushes under this epoch are fenced from then on.
    async fn release(&self, lane: Lane, epoch: Epoch) -> Result<(), Error>;

    /// Asks for slots of limits that all controllers share (see [`crate::slots`]), and answers how many the caller has of
    /// each, in the order asked. The grants of all controllers alive stay within the limit, as long as nobody runs more
    /// than it was granted. A controller that is not alive gets nothing beyond what it keeps, and what it had is given
    /// to others. `now` is for the turns only: a wrong clock shifts them and breaks no limit.
    ///
    /// Where nobody shares the ledger the caller gets what it wants, up to the limit.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the caller has what it had before, or what it would have been told.
    async fn slots(
        &self,
        _controller: ControllerId,
        asked: &[SlotsAsked],
        _now: Timestamp,
    ) -> Result<Vec<SlotsGranted>, Error> {
        Ok(crate::slots::alone(asked))
    }

    // Delivery

    /// Declares the bindings of the configuration: new ones are created at their start and keep it from then on,
    /// changed ones get a new revision that begins at the tails of this moment (see [`BindingRecord::since`]), those not
    /// named become inactive. Returns all active ones, in the order given.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when a name occurs twice, [`Error::NotFound`] when a new one starts in a lane that does not
    /// exist, further than one place beyond the end of its lane, or later than `now`; then nothing was written.
    async fn declare_bindings(
        &self,
        bindings: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error>;

    /// All bindings ever declared, inactive ones too.
    async fn bindings(&self) -> Result<Vec<BindingRecord>, Error>;

    /// The filter that a revision of a binding had, for explanations.
    async fn filter_of(
        &self,
        binding: BindingId,
        revision: u32,
    ) -> Result<Option<Vec<serde_json::Value>>, Error>;

    /// The revisions of a binding, oldest first: the newest 100. None for a binding that was never declared.
    async fn revisions(&self, binding: BindingId) -> Result<Vec<BindingRevision>, Error>;

    /// Pauses or resumes a binding.
    async fn set_paused(&self, binding: BindingId, pause: Option<Pause>) -> Result<(), Error>;

    /// Where a binding stands in a lane.
    async fn checkpoint(&self, lane: Lane, binding: BindingId) -> Result<Checkpoint, Error>;

    /// Commits what the bindings of a lane did, and in the same commit the events that their outcomes bring forth. A
    /// flush that emits is durable when it is answered; one that is fenced, refused or seen before emits nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown binding, or a lane to emit into that does not exist; [`Error::Corrupt`] when a mark goes back or beyond the tail, or a
    /// place is ended or owed that neither mark nor done places cover; then nothing was written.
    async fn flush(&self, flush: Flush) -> Result<FlushOutcome, Error>;

    /// Debts of a binding in a lane that are due at `now`, at most `limit`, earliest first. Parked and blocked ones are
    /// never due by time: they are not in the answer, and not in `next_at`; [`Ledger::debts`] has them.
    async fn due(
        &self,
        lane: Lane,
        binding: BindingId,
        now: Timestamp,
        limit: usize,
    ) -> Result<DueRetries, Error>;

    /// All debts of a binding in a lane beyond the place `after`, in the order of places, at most `limit`: what the owner
    /// of a lane goes through, page after page, when it takes it.
    async fn debts(
        &self,
        lane: Lane,
        binding: BindingId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Owed>, Error>;

    /// Whether a binding has parked or blocked debts in a lane: they are never due by time, and an owner that keeps no
    /// order has to find them.
    async fn has_parked(&self, lane: Lane, binding: BindingId) -> Result<bool, Error>;

    // Operators

    /// Dead letters back into the debts, due at `now` with their attempts reset, and blocked debts back to retries in the
    /// same way, which keeps them at the head of their key's line; returns how many there were. An
    /// event that retention has removed comes back from its copy, at its own address. Each debt has its event's key.
    async fn redrive(&self, dead: &[DeliveryKey], now: Timestamp) -> Result<u64, Error>;

    /// Ends dead letters or debts as discarded, logged with the reason (as an error of type `Operator.Discarded`)
    /// while the event is kept; returns how many there were. An attempt that is under way meanwhile may still end the
    /// delivery otherwise; it does not make it owed again.
    async fn discard(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error>;

    /// Ends debts as discarded, as [`Ledger::discard`] does, but with an error of type `Operator.Cancelled`. Where the
    /// cursor has not passed the place yet and the event is kept and of the binding's source, it asks for it instead: a row
    /// with the reason [`OwedReason::Cancelled`](crate::OwedReason) is due at once, by which the owner of the lane hears
    /// of it, and ends the delivery. Such a request is no debt: its event counts as waiting until the cursor passes it. All
    /// others are left alone, requests that are there and dead letters, too. Returns how many were ended or asked for.
    async fn cancel(
        &self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error>;

    /// Stores a replay, or a later state of it, together with debts it enqueues; all in one commit. Places that are
    /// owed already (by a debt, or because the cursor has not passed them) and events no longer kept are left alone;
    /// a dead letter that is enqueued leaves the dead letters. The key of a debt is that of its event, whatever the caller
    /// says. Returns how many debts were new.
    ///
    /// A record whose version is not above the stored one's changes nothing, its debts included: somebody else got
    /// ahead, or it is a repeat. Who must know reads the record again.
    async fn save_replay(&self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error>;

    /// All replays, newest first, at most 1,000.
    async fn replays(&self) -> Result<Vec<ReplayRecord>, Error>;

    /// One replay.
    async fn replay(&self, id: &ReplayId) -> Result<Option<ReplayRecord>, Error>;

    /// Counts a request refused at a door; never fails intake.
    async fn note_refusal(&self, refusal: Refusal) -> Result<(), Error>;

    // Questions

    /// One event by address.
    async fn event(&self, address: Address) -> Result<Option<StoredEvent>, Error>;

    /// Events by selector.
    async fn events(&self, query: &EventQuery) -> Result<Page<StoredEvent>, Error>;

    /// The delivery log of one event, oldest first, all bindings or one.
    async fn log(
        &self,
        address: Address,
        binding: Option<BindingId>,
    ) -> Result<Vec<(BindingId, LogEntry)>, Error>;

    /// The debt of one delivery, if there is one.
    async fn owed(&self, delivery: DeliveryKey) -> Result<Option<Owed>, Error>;

    /// Owed deliveries by selector, those of the newest event first; requests to cancel, too.
    async fn deliveries(&self, query: &DeliveryQuery) -> Result<Page<OwedDelivery>, Error>;

    /// One dead letter.
    async fn dead_letter(&self, delivery: DeliveryKey) -> Result<Option<DeadLetter>, Error>;

    /// Dead letters by selector, newest death first.
    async fn dead_letters(&self, query: &DeadLetterQuery) -> Result<Page<DeadLetter>, Error>;

    /// Later arrivals with the dedup key of an event, oldest first, at most 100.
    async fn duplicates(&self, first: Address) -> Result<Vec<Duplicate>, Error>;

    /// Later arrivals with this CloudEvents id, newest first, at most 100.
    async fn duplicates_of_id(&self, id: &str, source: Option<&SourceName>) -> Result<Vec<Duplicate>, Error>;

    /// Quarantined messages, newest first.
    async fn quarantined(
        &self,
        source: Option<&SourceName>,
        limit: usize,
    ) -> Result<Vec<QuarantineRecord>, Error>;

    /// Refusals since a time, newest first, at most 1,000.
    async fn refusals(&self, since: Timestamp) -> Result<Vec<Refusal>, Error>;

    /// Totals of every binding.
    async fn totals(&self) -> Result<BTreeMap<BindingId, BindingTotals>, Error>;

    /// Accepted, duplicate and quarantined arrivals per source, and when the last event came.
    async fn arrivals(&self) -> Result<BTreeMap<SourceName, ArrivalTotals>, Error>;

    // Keeping

    /// Removes events accepted before `before` that no cursor of an active binding, debt or unfinished replay needs,
    /// with their logs, in small steps; also duplicates, quarantine and refusals older than that, and dedup keys whose
    /// window is over. Dead letters stay. Events may leave in units larger than one (a generation): then one that is
    /// needed or too young keeps those beside it.
    async fn retain(&self, before: Timestamp, now: Timestamp) -> Result<Retained, Error>;

    /// Bytes in use on disk; space that retention freed for new events does not count.
    async fn size_bytes(&self) -> Result<u64, Error>;

    /// Waits for pending writes and closes; further calls fail.
    async fn close(&self);
}

/// Arrivals of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ArrivalTotals {
    /// Stored events.
    pub accepted: u64,
    /// Arrivals not stored again.
    pub duplicate: u64,
    /// Messages in quarantine.
    pub quarantined: u64,
    /// When the last event was accepted.
    pub last_at: Option<Timestamp>,
}

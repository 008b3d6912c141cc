//! What is known of the partitions that are ours: the one place where the thread that polls librdkafka and the
//! connector that the intake asks meet. No I/O.
//!
//! Every reading of a partition has an epoch of its own: whatever was fetched, buffered or handed over in an earlier
//! one is worth nothing in the next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bellwire_ledger::PositionAdvance;
use tokio::sync::Notify;

use super::part::{Begin, Entry, Loss, Part, Place, Stage, Start};
use super::position::{Mark, shard};
use crate::contract::{Batch, Limit, Receipt};
use crate::pressure::Share;

/// Most records that wait for the ledger.
pub(super) const MAX_RECORDS: usize = 20_000;
/// Most bytes of records that wait for the ledger, or less where several sources share `limits.memory`; the queue of
/// librdkafka comes on top (16 MiB).
pub(super) const MAX_BYTES: usize = 32 << 20;
/// A complaint of librdkafka is forgotten after this long without another one.
const COMPLAINT_LASTS: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct InFlight {
    receipt: Receipt,
    parts: Vec<(Place, u64, Mark)>,
}

/// Everything under one lock.
#[derive(Debug, Default)]
pub(super) struct State {
    parts: BTreeMap<Place, Part>,
    /// What librdkafka reads.
    pub(super) assigned: BTreeSet<Place>,
    epochs: u64,
    receipts: u64,
    records: usize,
    bytes: usize,
    in_flight: Option<InFlight>,
    starts: Vec<Start>,
    stops: Vec<Place>,
    turn: usize,
    pub(super) stopping: bool,
    broken: Option<String>,
    share: Share,
    /// What librdkafka fetches next, as it last said.
    fetched: BTreeMap<Place, i64>,
    trouble: Option<(Instant, String)>,
}

/// The state and those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// Something for the connector: records, a claim, a failure.
    pub(super) arrived: Notify,
    /// Something for the thread when it waits: a batch ended.
    settled: Condvar,
}

impl Shared {
    /// No partition yet.
    pub(super) fn new(share: Share) -> Self {
        Self { state: Mutex::new(State { share, ..State::default() }), ..Self::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// The consumer is of no use any more.
    pub(super) fn break_down(&self, why: String) {
        self.lock().broken.get_or_insert(why);
        self.arrived.notify_one();
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.settled.notify_all();
    }

    /// Something is wrong, perhaps not for long.
    pub(super) fn complain(&self, what: String) {
        self.lock().trouble = Some((Instant::now(), what));
    }

    /// Partitions became ours.
    pub(super) fn claim(&self, places: Vec<Place>) {
        let mut state = self.lock();
        for place in places {
            state.epochs += 1;
            let part = Part::claimed(state.epochs);
            state.drop_part(&place);
            state.parts.insert(place, part);
        }
        state.trouble = None;
        drop(state);
        self.arrived.notify_one();
    }

    /// What librdkafka fetches next.
    pub(super) fn fetched(&self, places: Vec<(Place, i64)>) {
        let mut state = self.lock();
        for (place, next) in places {
            // What it reads for others, or read before, is none of ours.
            if state.parts.get(&place).is_some_and(|part| part.stage == Stage::Reading) {
                state.fetched.insert(place, next);
            }
        }
    }

    /// Stops taking records of partitions, and waits until no batch holds any, at most this long.
    pub(super) fn drain(&self, places: &[Place], patience: Duration) {
        let mut state = self.lock();
        for place in places {
            state.clear(place);
            if let Some(part) = state.parts.get_mut(place) {
                part.stage = Stage::Leaving;
            }
        }
        let end = Instant::now() + patience;
        while !state.stopping && state.holds(places) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.settled.wait_timeout(state, left).expect("no code panics while it holds this lock").0;
        }
    }

    /// Waits until there is room again for a while, at most this long.
    pub(super) fn wait_for_room(&self, patience: Duration) {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while !state.stopping && !state.has_room() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state =
                self.settled.wait_timeout(state, left).expect("no code panics while it holds this lock").0;
        }
    }

    /// Records from librdkafka, in order.
    pub(super) fn accept(&self, records: &mut Vec<(Place, i64, Entry)>) {
        if records.is_empty() {
            return;
        }
        let mut state = self.lock();
        for (place, offset, entry) in records.drain(..) {
            state.accept(&place, offset, entry);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// The batch is durable.
    pub(super) fn confirm(&self, receipt: Receipt) {
        let mut state = self.lock();
        let Some(batch) = state.in_flight.take_if(|batch| batch.receipt == receipt) else { return };
        for (place, epoch, mark) in batch.parts {
            if let Some(part) = state.parts.get_mut(&place).filter(|part| part.epoch == epoch) {
                part.version += 1;
                part.confirmed = Some(mark.next);
            }
        }
        drop(state);
        self.settled.notify_all();
    }

    /// The batch is not durable, or nobody knows: its partitions are read again from the ledger's positions.
    pub(super) fn release(&self, receipt: Option<Receipt>) {
        let mut state = self.lock();
        let wanted = |batch: &mut InFlight| receipt.is_none_or(|receipt| batch.receipt == receipt);
        let Some(batch) = state.in_flight.take_if(wanted) else { return };
        for (place, epoch, _) in batch.parts {
            if state.parts.get(&place).is_some_and(|part| part.epoch == epoch && part.stage != Stage::Leaving)
            {
                state.clear(&place);
                state.epochs += 1;
                let claimed = Part::claimed(state.epochs);
                state.parts.insert(place, claimed);
            }
        }
        drop(state);
        self.settled.notify_all();
    }

    /// The broker says that a position is out of range, not which. Those that brought nothing yet are looked at
    /// first.
    pub(super) fn suspect(&self) {
        let mut state = self.lock();
        let fresh = state.parts.values().any(|part| part.stage == Stage::Reading && part.fresh);
        for part in state.parts.values_mut() {
            if part.stage == Stage::Reading && (part.fresh || !fresh) {
                part.stage = Stage::Lost(Loss::OutOfRange);
            }
        }
        drop(state);
        self.arrived.notify_one();
    }
}

impl State {
    /// Why the consumer is of no use any more.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// Partitions that need a decision where to read, now.
    pub(super) fn undecided(&self, now: Instant) -> Vec<(Place, u64, Stage)> {
        let undecided = |part: &Part| {
            matches!(part.stage, Stage::Claimed | Stage::Lost(_))
                && part.not_before.is_none_or(|at| at <= now)
        };
        let all = self.parts.iter().filter(|(_, part)| undecided(part));
        all.map(|(place, part)| (place.clone(), part.epoch, part.stage.clone())).collect()
    }

    /// Whether some decision was put off.
    pub(super) fn deferred(&self) -> bool {
        self.parts.values().any(|part| part.not_before.is_some())
    }

    /// A partition, if it is still in this epoch.
    pub(super) fn part(&mut self, place: &Place, epoch: u64) -> Option<&mut Part> {
        self.parts.get_mut(place).filter(|part| part.epoch == epoch && part.stage != Stage::Leaving)
    }

    /// Decides where to read. What waits already stays, if the partition goes on from there.
    pub(super) fn begin(&mut self, place: &Place, epoch: u64, begin: Begin) {
        let Some(part) = self.part(place, epoch) else { return };
        part.stage = Stage::Starting;
        part.version = begin.version;
        part.next = begin.next;
        part.witness = begin.witness;
        part.fresh = true;
        part.not_before = None;
        if let Some(entry) = begin.entry {
            let bytes = entry.bytes;
            part.queue.push_back(entry);
            self.records += 1;
            self.bytes += bytes;
        }
        self.fetched.remove(place);
        self.starts.push(Start { place: place.clone(), epoch, from: begin.from });
    }

    /// Stops a partition for good.
    pub(super) fn halt(&mut self, place: &Place, epoch: u64, why: String) {
        if let Some(part) = self.part(place, epoch) {
            tracing::error!(partition = %place, %why, "a partition halts");
            part.stage = Stage::Halted(why);
            part.not_before = None;
            self.stops.push(place.clone());
        }
    }

    /// Readings that librdkafka is to begin, and partitions that it is to leave alone.
    pub(super) fn orders(&mut self) -> (Vec<Start>, Vec<Place>) {
        let mut starts = std::mem::take(&mut self.starts);
        starts.retain(|start| {
            self.parts.get(&start.place).is_some_and(|p| p.epoch == start.epoch && p.stage == Stage::Starting)
        });
        (starts, std::mem::take(&mut self.stops))
    }

    /// librdkafka began.
    pub(super) fn started(&mut self, start: &Start) {
        if let Some(part) = self.part(&start.place, start.epoch) {
            part.stage = Stage::Reading;
        }
    }

    /// Positions that the broker was not told yet.
    pub(super) fn hints(&mut self, only: Option<&[Place]>) -> Vec<(Place, i64)> {
        let mut hints = Vec::new();
        for (place, part) in &mut self.parts {
            if part.confirmed != part.hinted && only.is_none_or(|only| only.contains(place)) {
                part.hinted = part.confirmed;
                hints.extend(part.confirmed.map(|next| (place.clone(), next)));
            }
        }
        hints
    }

    /// Forgets partitions; returns those that librdkafka read.
    pub(super) fn give_up(&mut self, places: &[Place]) -> Vec<Place> {
        for place in places {
            self.drop_part(place);
        }
        places.iter().filter(|place| self.assigned.remove(place)).cloned().collect()
    }

    /// Whether as much waits as may.
    pub(super) fn is_full(&self) -> bool {
        self.records >= MAX_RECORDS || self.bytes >= self.share.of(MAX_BYTES)
    }

    /// Whether there is room again, for a while.
    pub(super) fn has_room(&self) -> bool {
        self.records < MAX_RECORDS / 2 && self.bytes < self.share.of(MAX_BYTES) / 2
    }

    /// The partitions that should bring records, with the offset that is fetched next.
    pub(super) fn reading(&self) -> Vec<(Place, i64)> {
        let reads = |part: &Part| matches!(part.stage, Stage::Starting | Stage::Reading);
        let all = self.parts.iter().filter(|(_, part)| reads(part));
        let next =
            |place: &Place, part: &Part| self.fetched.get(place).map_or(part.next, |at| part.next.max(*at));
        all.map(|(place, part)| (place.clone(), next(place, part))).collect()
    }

    /// A batch of what waits, partitions taking turns at being the first.
    pub(super) fn take(&mut self, source: &str, limit: Limit) -> Option<Batch> {
        let mut waiting: Vec<Place> = self
            .parts
            .iter()
            .filter(|(_, part)| !part.queue.is_empty())
            .map(|(place, _)| place.clone())
            .collect();
        if waiting.is_empty() {
            return None;
        }
        let first = self.turn % waiting.len();
        waiting.rotate_left(first);
        self.turn = self.turn.wrapping_add(1);
        self.receipts += 1;
        let receipt = Receipt(self.receipts);
        let mut batch = Batch { receipt, parcels: Vec::new(), positions: Vec::new() };
        let (mut parts, mut bytes) = (Vec::new(), 0);
        for place in waiting {
            let Some(part) = self.parts.get_mut(&place) else { continue };
            let mut reached = None;
            while let Some(entry) = part.queue.front() {
                let full = batch.parcels.len() >= limit.items || bytes + entry.bytes > limit.bytes;
                if full && !batch.parcels.is_empty() && entry.parcel.is_some() {
                    break;
                }
                let Some(entry) = part.queue.pop_front() else { break };
                self.records -= 1;
                self.bytes -= entry.bytes;
                bytes += entry.bytes;
                reached = Some(entry.mark);
                batch.parcels.extend(entry.parcel);
            }
            if let Some(mark) = reached {
                let shard = shard(source, &place.topic, place.partition);
                batch.positions.push(PositionAdvance { shard, expected: part.version, value: mark.text() });
                parts.push((place, part.epoch, mark));
            }
        }
        self.in_flight = Some(InFlight { receipt, parts });
        Some(batch)
    }

    /// Names a batch that holds no records.
    pub(super) fn receipt(&mut self) -> Receipt {
        self.receipts += 1;
        Receipt(self.receipts)
    }

    /// What is wrong although records may come.
    pub(super) fn complaint(&self) -> Option<String> {
        let halted = self.parts.iter().filter_map(|(place, part)| match &part.stage {
            Stage::Halted(why) => Some(format!("{place} halted: {why}")),
            _ => None,
        });
        let trouble = self.trouble.as_ref().filter(|(at, _)| at.elapsed() < COMPLAINT_LASTS);
        let all: Vec<String> = halted.take(8).chain(trouble.map(|(_, what)| what.clone())).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    fn accept(&mut self, place: &Place, offset: i64, entry: Entry) {
        let Some(part) = self.parts.get_mut(place).filter(|part| part.stage == Stage::Reading) else {
            return;
        };
        if offset >= part.next {
            part.next = offset + 1;
            part.witness = None;
            part.fresh = false;
            part.tries = 0;
            self.records += 1;
            self.bytes += entry.bytes;
            part.queue.push_back(entry);
            return;
        }
        let same = part.witness.is_some_and(|w| w.next == offset + 1 && w.witness == entry.mark.witness);
        if !same {
            tracing::error!(partition = %place, offset, expected = part.next, "a partition went backwards");
            part.stage = Stage::Lost(Loss::Remade);
        }
        part.witness = None;
    }

    fn holds(&self, places: &[Place]) -> bool {
        let current =
            |place: &Place, epoch: u64| self.parts.get(place).is_some_and(|part| part.epoch == epoch);
        self.in_flight.as_ref().is_some_and(|batch| {
            batch.parts.iter().any(|(p, epoch, _)| places.contains(p) && current(p, *epoch))
        })
    }

    fn clear(&mut self, place: &Place) {
        if let Some(part) = self.parts.get_mut(place) {
            self.records -= part.queue.len();
            self.bytes -= part.queue.drain(..).map(|entry| entry.bytes).sum::<usize>();
        }
    }

    fn drop_part(&mut self, place: &Place) {
        self.clear(place);
        self.fetched.remove(place);
        self.parts.remove(place);
    }
}

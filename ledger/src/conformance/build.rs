//! Short words for building what the checks write.

use std::sync::Arc;
use std::time::Duration;

use bellwire_schemas::service::Start;
use bellwire_schemas::{
    Address, BindingId, ControllerId, Epoch, ErrorInfo, Event, FailureClass, FinalState, Lane, Seq,
    SeqRanges, SourceName, Timestamp,
};
use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::{
    Append, Appended, Arrival, BindingFlush, BindingRecord, DeadLetter, DedupKey, DeliveryKey, Flush,
    FlushOutcome, Heartbeat, Ledger, LogEntry, LogOutcome, NewEvent, Owed, OwedReason, ReplayRecord,
    ReplayState, StoredEvent,
};

/// Lane 1.
pub const L1: Lane = Lane(1);
/// Lane 2.
pub const L2: Lane = Lane(2);

/// A moment, seconds after some start.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000 + seconds * 1_000_000)
}

/// An address.
pub fn addr(lane: u16, seq: u64) -> Address {
    Address::new(Lane(lane), Seq(seq))
}

/// A plain event of source `orders` in lane 1.
pub fn event(id: &str) -> NewEvent {
    let event = Event {
        id: id.into(),
        source: "test:orders".into(),
        kind: "order.made".into(),
        time: "2026-01-01T00:00:00Z".into(),
        data: Some(Bytes::from(format!("{{\"id\":\"{id}\"}}"))),
        ..Event::default()
    };
    NewEvent { source: "orders".into(), lane: L1, key: None, dedup: None, event: Arc::new(event) }
}

/// The same event with parts exchanged.
pub trait With {
    /// In another lane.
    fn lane(self, lane: Lane) -> Self;
    /// Of another source.
    fn source(self, source: &str) -> Self;
    /// With an ordering key.
    fn key(self, key: &str) -> Self;
    /// With a dedup key for so many seconds.
    fn once(self, value: &str, seconds: u64) -> Self;
    /// With the event changed.
    fn with(self, change: impl FnOnce(&mut Event)) -> Self;
}

impl With for NewEvent {
    fn lane(self, lane: Lane) -> Self {
        Self { lane, ..self }
    }

    fn source(self, source: &str) -> Self {
        Self { source: source.into(), ..self }
    }

    fn key(self, key: &str) -> Self {
        Self { key: Some(key.into()), ..self }
    }

    fn once(self, value: &str, seconds: u64) -> Self {
        let dedup = Some(DedupKey { value: value.into(), window: Duration::from_secs(seconds) });
        Self { dedup, ..self }
    }

    fn with(mut self, change: impl FnOnce(&mut Event)) -> Self {
        change(Arc::make_mut(&mut self.event));
        self
    }
}

/// An append of events and nothing else.
pub fn batch(events: Vec<NewEvent>) -> Append {
    Append { append_id: Uuid::now_v7(), events, positions: Vec::new(), quarantined: Vec::new() }
}

/// Appends `count` plain events, one second apart from `from`, and returns their addresses.
pub async fn fill(ledger: &Arc<dyn Ledger>, from: i64, count: i64) -> Vec<Address> {
    let mut addresses = Vec::new();
    for n in from..from + count {
        let answer = ledger.append(batch(vec![event(&format!("e{n}"))]), at(n)).await.unwrap();
        addresses.extend(accepted(&answer));
    }
    addresses
}

/// The addresses of accepted events.
pub fn accepted(answer: &Appended) -> Vec<Address> {
    let address = |item: &Arrival| match item {
        Arrival::Accepted(address) => Some(*address),
        Arrival::Duplicate(_) => None,
    };
    answer.items.iter().filter_map(address).collect()
}

/// A binding on source `orders`.
pub fn binding(name: &str, start: Start) -> BindingRecord {
    BindingRecord {
        id: BindingId(0),
        name: name.into(),
        source: "orders".into(),
        function: "handle".into(),
        filter: vec![json!({"type": ["order.made"]})],
        start,
        revision: 0,
        paused: None,
        active: true,
        since: Default::default(),
    }
}

/// Declares bindings and returns their numbers.
pub async fn declare(ledger: &Arc<dyn Ledger>, bindings: Vec<BindingRecord>) -> Vec<BindingId> {
    let declared = ledger.declare_bindings(bindings, at(0)).await.unwrap();
    declared.into_iter().map(|b| b.id).collect()
}

/// Takes a lane for some controller.
pub async fn own(ledger: &Arc<dyn Ledger>, lane: Lane) -> Epoch {
    ledger.acquire(ControllerId(Uuid::from_u128(7)), lane, at(0)).await.unwrap().unwrap()
}

/// A sign of life that counts for ten minutes.
pub fn beat(controller: ControllerId) -> Heartbeat {
    let name = format!("host-{}", controller.0.as_u128());
    Heartbeat { controller, name, version: "1.2.3".into(), ttl: Duration::from_secs(600), leaving: false }
}

/// An empty share of a flush.
pub fn share(binding: BindingId, version: u64, mark: u64) -> BindingFlush {
    BindingFlush {
        binding,
        version,
        mark: Seq(mark),
        done: SeqRanges::default(),
        log: Vec::new(),
        owed: Vec::new(),
        settled: Vec::new(),
        dead: Vec::new(),
        emitted: Vec::new(),
    }
}

/// A share with parts added.
impl BindingFlush {
    /// Places above the mark.
    pub fn done(mut self, places: &[u64]) -> Self {
        places.iter().for_each(|p| self.done.insert(Seq(*p)));
        self
    }

    /// A final line.
    pub fn ends(mut self, seq: u64, state: FinalState) -> Self {
        self.log.push(line(seq, LogOutcome::Final(state)));
        self
    }

    /// A failed attempt and its debt, due at so many seconds.
    pub fn owes(mut self, seq: u64, next: i64) -> Self {
        self.log.push(line(seq, LogOutcome::Failed));
        self.owed.push(debt(seq, next));
        self
    }

    /// A debt that ends.
    pub fn settles(mut self, seq: u64) -> Self {
        self.settled.push(Seq(seq));
        self
    }

    /// An event that goes out with it.
    pub fn emits(mut self, new: NewEvent) -> Self {
        self.emitted.push(new);
        self
    }

    /// A delivery given up.
    pub fn kills(mut self, event: StoredEvent, died: i64) -> Self {
        self.log.push(line(event.address.seq.0, LogOutcome::Final(FinalState::Dead)));
        self.dead.push(letter(self.binding, event, died));
        self
    }
}

/// A log line.
pub fn line(seq: u64, outcome: LogOutcome) -> LogEntry {
    LogEntry {
        seq: Seq(seq),
        attempt: 1,
        at: at(1_000),
        duration_ms: 12,
        outcome,
        error: (outcome == LogOutcome::Failed).then(failure),
        worker: "python-1".into(),
        version: "3f9a".into(),
        revision: 1,
        replay: None,
    }
}

/// A debt of a failed attempt.
pub fn debt(seq: u64, next: i64) -> Owed {
    Owed {
        seq: Seq(seq),
        attempts: 1,
        next_at: at(next),
        since: at(0),
        error: Some(failure()),
        reason: OwedReason::Retry,
        key: None,
    }
}

/// A failure.
pub fn failure() -> ErrorInfo {
    ErrorInfo {
        class: FailureClass::Function,
        kind: "ValueError".into(),
        message: "not \u{0} an image \u{1f30a}".into(),
        stack: vec!["a.py:1".into()],
    }
}

/// A dead letter.
pub fn letter(binding: BindingId, event: StoredEvent, died: i64) -> DeadLetter {
    DeadLetter {
        binding,
        event,
        died_at: at(died),
        first_at: at(1),
        attempts: 3,
        error: failure(),
        fingerprint: crate::flush::fingerprint(&failure()),
        logs: vec!["printed \u{1f30a}".into()],
    }
}

/// A replay of everything to a binding.
pub fn replay(id: &str, binding: BindingId, created: i64) -> ReplayRecord {
    ReplayRecord {
        id: bellwire_schemas::ReplayId::new(id),
        version: 1,
        selector: Default::default(),
        binding,
        binding_name: "b:orders".into(),
        state: ReplayState::Running,
        total: 0,
        enqueued: 0,
        cursor: Default::default(),
        until: Default::default(),
        by: "ana".into(),
        created_at: at(created),
    }
}

/// One delivery.
pub fn delivery(binding: BindingId, seq: u64) -> DeliveryKey {
    DeliveryKey { binding, address: addr(1, seq) }
}

/// Flushes lane 1 and insists that it was taken.
pub async fn flush(ledger: &Arc<dyn Ledger>, epoch: Epoch, share: BindingFlush) {
    let flush = Flush { lane: L1, epoch, at: at(0), bindings: vec![share] };
    assert_eq!(ledger.flush(flush).await.unwrap(), FlushOutcome::Flushed);
}

/// An event that is there.
pub async fn stored(ledger: &Arc<dyn Ledger>, seq: u64) -> StoredEvent {
    ledger.event(addr(1, seq)).await.unwrap().unwrap()
}

/// For every binding: accepted = ended + waiting + owed.
pub async fn assert_sums(ledger: &Arc<dyn Ledger>) {
    for (binding, t) in ledger.totals().await.unwrap() {
        let ended: u64 = t.ended.values().sum();
        assert_eq!(t.accepted + t.outside, ended + t.waiting + t.retrying, "binding {binding}: {t:?}");
    }
}

/// The source `orders`.
pub fn orders() -> SourceName {
    "orders".into()
}

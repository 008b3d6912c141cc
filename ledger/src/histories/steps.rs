//! What sources, the configuration and the dispatcher do.

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, FinalState, Lane, Seq};
use futures::FutureExt;

use super::{LANES, NAMES, SOURCES, Taken, World, both};
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{
    Append, BindingFlush, BindingRecord, Flush, Ledger, OwedReason, PositionAdvance, Quarantine, StoredEvent,
};

impl<S: Subject> World<S> {
    pub(super) fn new_event(&mut self) -> crate::NewEvent {
        let n = self.dice.roll(40);
        let source = self.dice.pick(&SOURCES);
        let lane = Lane(self.dice.roll(u64::from(LANES)) as u16 + 1);
        let mut new = event(&format!("id{n}")).source(source).lane(lane);
        if n.is_multiple_of(3) {
            new = new.key(&format!("key{}", n % 4));
        }
        if n.is_multiple_of(2) {
            new = new.once(&format!("once{}", n % 6), self.dice.roll(30));
        }
        new.with(|e| e.kind = format!("kind{}", n % 3))
    }

    pub(super) async fn new_append(&mut self) -> Append {
        let events = (0..self.dice.roll(6)).map(|_| self.new_event()).collect();
        let mut append = batch(events);
        if self.dice.roll(3) == 0 {
            let shard = format!("shard{}", self.dice.roll(2));
            let found = self.model.position(&shard).await.unwrap().map_or(0, |p| p.version);
            let expected = if self.dice.roll(4) == 0 { found + 1 } else { found };
            append.positions.push(PositionAdvance { shard, expected, value: format!("{}", self.now) });
        }
        if self.dice.roll(4) == 0 {
            append.quarantined.push(Quarantine {
                source: self.dice.pick(&SOURCES).into(),
                reason: "bad".into(),
                bytes: bytes::Bytes::from_static(&[0, 0xff]),
                meta: "{}".into(),
            });
        }
        append
    }

    pub(super) async fn append(&mut self) {
        let append = self.new_append().await;
        let now = at(self.now);
        if self.dice.roll(4) == 0 {
            // The caller goes away: nobody knows whether it was written, so it asks again with the same id.
            let _ = self.ledger.append(append.clone(), now).now_or_never();
        }
        both!(self, append(append.clone(), now));
        if self.dice.roll(4) == 0 {
            both!(self, append(append.clone(), at(self.now + 1)));
        }
    }

    pub(super) async fn declare(&mut self) {
        let mut declared = Vec::new();
        for name in NAMES {
            if self.dice.roll(5) == 0 {
                continue;
            }
            let (_, source) = name.split_once(':').unwrap();
            let start = match self.dice.roll(4) {
                0 => Start::Now,
                1 => Start::Earliest,
                2 => Start::At(at(self.dice.roll(self.now as u64 + 2) as i64)),
                _ => {
                    let lane = self.dice.roll(2) as u16 + 1;
                    let tail = self.model.tail(Lane(lane)).await.unwrap();
                    Start::Address(addr(lane, self.dice.roll(tail.0.min(20) + 3)))
                }
            };
            let source = if self.dice.roll(6) == 0 { self.dice.pick(&SOURCES) } else { source };
            let function = if self.dice.roll(4) == 0 { "other" } else { "handle" };
            declared.push(BindingRecord {
                source: source.into(),
                function: function.into(),
                ..binding(name, start)
            });
        }
        both!(self, declare_bindings(declared.clone(), at(self.now)));
    }

    pub(super) async fn any_binding(&mut self) -> Option<BindingRecord> {
        let all = self.model.bindings().await.unwrap();
        (!all.is_empty()).then(|| self.dice.pick(&all))
    }

    /// What a dispatcher would send: some places passed with their endings, some debts worked off.
    pub(super) async fn new_flush(&mut self, owner: Taken) -> Option<Flush> {
        let binding = self.any_binding().await?;
        let lane = owner.lane;
        let before = self.model.checkpoint(lane, binding.id).await.unwrap();
        let mut part = share(binding.id, before.version + 1, before.mark.0);
        part.done = before.done.clone();
        let tail = self.model.tail(lane).await.unwrap();
        for seq in before.mark.0 + 1..=tail.0.min(before.mark.0 + 12) {
            if before.done.contains(Seq(seq)) || self.dice.roll(4) == 0 {
                continue;
            }
            part.done.insert(Seq(seq));
            let stored = self.model.event(Address::new(lane, Seq(seq))).await.unwrap();
            match stored {
                Some(stored) if stored.source == binding.source => self.end_or_owe(&mut part, stored),
                _ => {}
            }
        }
        part.mark = part.done.absorb(before.mark);
        self.work_off(&mut part, lane).await;
        self.end_late(&mut part, lane, &binding, &before).await;
        if self.dice.roll(3) == 0 {
            part.emitted = (0..self.dice.roll(3)).map(|_| self.new_event()).collect();
        }
        Some(Flush { lane, epoch: owner.epoch, at: at(self.now), bindings: vec![part] })
    }

    pub(super) async fn flush(&mut self) {
        let owner = self.dice.pick(&self.owners);
        let Some(flush) = self.new_flush(owner).await else { return };
        if self.dice.roll(8) > 0 {
            self.ledger = self.handles[owner.by].clone();
        }
        both!(self, flush(flush.clone()));
        if self.dice.roll(4) == 0 {
            both!(self, flush(flush.clone()));
        }
    }

    fn end_or_owe(&mut self, part: &mut BindingFlush, stored: StoredEvent) {
        let (seq, key) = (stored.address.seq.0, stored.key.clone());
        let states = [FinalState::Delivered, FinalState::Filtered, FinalState::Expired];
        let taken = std::mem::replace(part, share(part.binding, 0, 0));
        *part = match self.dice.roll(5) {
            0 => taken.owes(seq, self.now + self.dice.roll(9) as i64),
            1 => taken.kills(stored, self.now),
            2 => taken.owes(seq, self.now).settles(seq).ends(seq, FinalState::Delivered),
            _ => taken.ends(seq, self.dice.pick(&states)),
        };
        let reasons = [
            OwedReason::Retry,
            OwedReason::Parked,
            OwedReason::Blocked,
            OwedReason::Delayed,
            OwedReason::Debounced,
        ];
        if let Some(owed) = part.owed.last_mut().filter(|owed| owed.seq.0 == seq) {
            (owed.key, owed.reason) = (key, self.dice.pick(&reasons));
        }
    }

    async fn work_off(&mut self, part: &mut BindingFlush, lane: Lane) {
        let mut debts = self.model.due(lane, part.binding, at(self.now), 5).await.unwrap().due;
        let before = self.model.checkpoint(lane, part.binding).await.unwrap();
        let some = Seq(self.dice.roll(20));
        let parked = self.model.debts(lane, part.binding, some, 2).await.unwrap().into_iter();
        debts.extend(parked.filter(|o| matches!(o.reason, OwedReason::Parked | OwedReason::Blocked)));
        for owed in debts {
            let seq = owed.seq.0;
            if !before.passed(owed.seq) {
                // A request: it ends when its place is passed.
                continue;
            }
            let stored = self.model.event(Address::new(lane, owed.seq)).await.unwrap().unwrap();
            let taken = std::mem::replace(part, share(part.binding, 0, 0));
            *part = match self.dice.roll(6) {
                0 => taken,
                1 => taken.owes(seq, self.now + 3),
                2 => taken.kills(stored, self.now),
                // Only a delivery that stood ended before may go without a word.
                3 if matches!(owed.reason, OwedReason::Replay(_)) => taken.settles(seq),
                4 => taken.ends(seq, FinalState::Expired),
                _ => taken.settles(seq).ends(seq, FinalState::Delivered),
            };
        }
    }

    /// The answer of an attempt whose delivery was ended meanwhile.
    async fn end_late(
        &mut self,
        part: &mut BindingFlush,
        lane: Lane,
        binding: &BindingRecord,
        before: &crate::Checkpoint,
    ) {
        if self.dice.roll(3) > 0 || before.reach().0 == 0 {
            return;
        }
        let seq = self.dice.roll(before.reach().0) + 1;
        let stored = self.model.event(Address::new(lane, Seq(seq))).await.unwrap();
        let known = part.log.iter().any(|l| l.seq.0 == seq);
        let Some(stored) = stored.filter(|s| s.source == binding.source && before.passed(Seq(seq)) && !known)
        else {
            return;
        };
        self.end_or_owe(part, stored);
    }
}

//! What operators and upkeep do: redrive, discard, replay, pause, retain, restart.

use bellwire_schemas::{Address, BindingId, Epoch, Lane, ReplayId, Seq};

use super::{CONTROLLERS, LANES, SOURCES, World, both};
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{DeadLetterQuery, DeliveryKey, Flush, Ledger, Owed, OwedReason, Pause, Refusal, ReplayState};

impl<S: Subject> World<S> {
    pub(super) async fn stale_flush(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let newest = self.owners[0].epoch;
        let flush = Flush {
            lane: L1,
            epoch: Epoch(newest.0 - 1),
            at: at(self.now),
            bindings: vec![share(binding.id, 99, 0)],
        };
        both!(self, flush(flush.clone()));
        let flush = Flush {
            lane: L1,
            epoch: newest,
            at: at(self.now),
            bindings: vec![share(binding.id, 1 << 40, 1 << 30)],
        };
        both!(self, flush(flush.clone()));
    }

    pub(super) async fn deliveries(&mut self, dead_only: bool) -> Vec<DeliveryKey> {
        let query = DeadLetterQuery { limit: 1_000, ..DeadLetterQuery::default() };
        let dead = self.model.dead_letters(&query).await.unwrap().items;
        let mut keys: Vec<_> =
            dead.iter().map(|d| DeliveryKey { binding: d.binding, address: d.event.address }).collect();
        if !dead_only {
            for binding in self.model.bindings().await.unwrap() {
                let debts = self.model.debts(L1, binding.id, Seq(0), 100).await.unwrap();
                let address = |o: &Owed| Address::new(L1, o.seq);
                keys.extend(debts.iter().map(|o| DeliveryKey { binding: binding.id, address: address(o) }));
            }
        }
        keys.push(delivery(BindingId(1), 9_999));
        keys.retain(|_| self.dice.roll(2) == 0);
        keys
    }

    pub(super) async fn redrive_or_discard(&mut self) {
        let now = at(self.now);
        match self.dice.roll(4) {
            0 => {
                let keys = self.deliveries(true).await;
                both!(self, redrive(&keys, now));
            }
            1 => {
                let keys = self.deliveries(false).await;
                both!(self, redrive(&keys, now));
            }
            2 => {
                let keys = self.deliveries(false).await;
                both!(self, discard(&keys, "no", "ana", now));
            }
            _ => {
                let keys = self.some_ahead().await;
                both!(self, cancel(&keys, "no", "ana", now));
            }
        }
    }

    /// Deliveries around the tails, where some wait and some are owed, and those that are owed anyhow.
    pub(super) async fn some_ahead(&mut self) -> Vec<DeliveryKey> {
        let mut keys = self.deliveries(false).await;
        let Some(binding) = self.any_binding().await else { return keys };
        for lane in (1..=LANES).map(Lane) {
            let tail = self.model.tail(lane).await.unwrap().0;
            for seq in tail.saturating_sub(8)..=tail + 1 {
                if self.dice.roll(3) == 0 {
                    keys.push(DeliveryKey { binding: binding.id, address: Address::new(lane, Seq(seq)) });
                }
            }
        }
        keys
    }

    pub(super) async fn replay(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let id = format!("r{}", self.dice.roll(4));
        let mut record = replay(&id, binding.id, self.now);
        let stored = self.model.replay(&record.id).await.unwrap().map_or(0, |r| r.version);
        record.version = stored + self.dice.roll(3);
        record.state = self.dice.pick(&[
            ReplayState::Running,
            ReplayState::Paused,
            ReplayState::Done,
            ReplayState::Cancelled,
        ]);
        let mut owed = Vec::new();
        for lane in (1..=LANES).map(Lane) {
            let tail = self.model.tail(lane).await.unwrap();
            let from = self.dice.roll(tail.0 + 1);
            let until = (from + self.dice.roll(6)).min(tail.0);
            record.cursor.insert(lane, Seq(from));
            record.until.insert(lane, Seq(until));
            for seq in from..=until + 1 {
                let reason = OwedReason::Replay(ReplayId::new(&id));
                owed.push((Address::new(lane, Seq(seq)), Owed { reason, ..debt(seq, self.now) }));
            }
        }
        both!(self, save_replay(&record, &owed));
    }

    pub(super) async fn pause_or_refuse(&mut self) {
        let Some(binding) = self.any_binding().await else { return };
        let pause = Pause { since: at(self.now), by: "ben".into(), reason: "why".into() };
        let pause = (self.dice.roll(2) == 0).then_some(pause);
        both!(self, set_paused(binding.id, pause.clone()));
        let refusal = Refusal {
            source: self.dice.pick(&SOURCES).into(),
            reason: "bad-signature".into(),
            count: self.dice.roll(3),
            last_at: at(self.now - self.dice.roll(3) as i64),
            last_peer: format!("peer{}", self.dice.roll(3)),
        };
        both!(self, note_refusal(refusal.clone()));
    }

    /// Where events leave in units the ledger says which went, and the model whether they could.
    pub(super) async fn retain(&mut self) {
        let before = self.dice.roll(self.now as u64 + 2) as i64;
        let turns = self.dice.roll(3) > 0;
        if turns {
            self.subject.turn().await;
        }
        if !S::IN_UNITS {
            both!(self, retain(at(before), at(self.now)));
            return;
        }
        let held = self.model.addresses();
        let removable = held.iter().filter(|a| self.model.may_leave(**a, at(before))).count();
        let retained = self.ledger.retain(at(before), at(self.now)).await.unwrap();
        let mut gone = Vec::new();
        for address in &held {
            if self.ledger.event(*address).await.unwrap().is_none() {
                gone.push(*address);
            }
        }
        assert_eq!(retained.events, gone.len() as u64, "events removed: {gone:?}");
        let idle = self.model.duplicates_since(at(before)) == 0;
        if turns && idle && removable == held.len() {
            assert_eq!(gone, held, "nothing holds any event back");
        }
        self.model.retain_those(&gone, at(before)).unwrap();
        self.floor = self.floor.max(before);
    }

    pub(super) async fn reopen(&mut self) {
        self.handles[1].close().await;
        self.model.reopen();
        self.subject.reopen().await;
        let first = self.subject.ledger();
        self.handles = [first.clone(), self.subject.beside().await.unwrap_or_else(|| first.clone())];
        self.ledger = first;
        // A controller that ends gives back its lanes, but is a member until its lease ends.
        for controller in CONTROLLERS {
            both!(self, leave(controller));
        }
        self.own().await;
    }
}

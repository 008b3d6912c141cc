//! Every question, asked of both.

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, Lane, ReplayId, Seq, SourceName};

use super::{LANES, NAMES, World, both};
use crate::conformance::Subject;
use crate::conformance::build::*;
use crate::{
    BindingRecord, DeadLetterQuery, DeliveryKey, DeliveryQuery, Duplicate, EventQuery, Ledger, LogEntry,
    OwedKind, QuarantineRecord,
};

impl<S: Subject> World<S> {
    pub(super) async fn check_totals(&self) {
        let totals = both!(self, totals()).unwrap();
        for (binding, t) in totals {
            let ended: u64 = t.ended.values().sum();
            assert_eq!(t.accepted + t.outside, ended + t.waiting + t.retrying, "sum of {binding}: {t:?}");
        }
    }

    pub(super) async fn check_all(&mut self) {
        let bindings = both!(self, bindings()).unwrap();
        both!(self, arrivals());
        both!(self, replays());
        both!(self, replay(&ReplayId::new("r1")));
        both!(self, refusals(at(3)));
        self.check_quarantine(None, 100).await;
        self.check_quarantine(Some(&"prices".into()), 2).await;
        both!(self, position("shard0"));
        for lane in (1..=LANES).map(Lane) {
            let tail = both!(self, tail(lane)).unwrap();
            both!(self, read(lane, Seq(0), 1_000, usize::MAX));
            both!(self, read(lane, Seq(3), 5, 30));
            for seq in 0..=tail.0 + 1 {
                let address = Address::new(lane, Seq(seq));
                both!(self, event(address));
                self.check_log(address, None).await;
                self.check_log(address, Some(BindingId(1))).await;
                let left = self.model.duplicates(address).await.unwrap();
                let right = self.ledger.duplicates(address).await.unwrap();
                self.check_duplicates(left, right);
                for binding in &bindings {
                    let key = DeliveryKey { binding: binding.id, address };
                    both!(self, owed(key));
                    both!(self, dead_letter(key));
                }
            }
            for binding in &bindings {
                both!(self, checkpoint(lane, binding.id));
                both!(self, due(lane, binding.id, at(self.now), 3));
                both!(self, debts(lane, binding.id, Seq(2), 4));
                both!(self, debts(lane, binding.id, Seq(0), 1_000));
                both!(self, filter_of(binding.id, binding.revision));
                both!(self, revisions(binding.id));
            }
        }
        for n in 0..40 {
            let (id, source) = (format!("id{n}"), Some(orders()).filter(|_| n == 6));
            let left = self.model.duplicates_of_id(&id, source.as_ref()).await.unwrap();
            let right = self.ledger.duplicates_of_id(&id, source.as_ref()).await.unwrap();
            self.check_duplicates(left, right);
        }
        self.check_lists(&bindings).await;
    }

    async fn check_quarantine(&self, source: Option<&SourceName>, limit: usize) {
        let left = self.model.quarantined(source, limit).await.unwrap();
        let right = self.ledger.quarantined(source, limit).await.unwrap();
        assert!(right.is_sorted_by(|a, b| a.id > b.id), "newest first");
        assert_eq!(unnumbered(left), unnumbered(right), "quarantined");
    }

    /// Where events leave in units, lines of an event that is gone may stay, and those of one that came back.
    async fn check_log(&self, address: Address, binding: Option<BindingId>) {
        let left = in_order(self.model.log(address, binding).await.unwrap());
        let right = in_order(self.ledger.log(address, binding).await.unwrap());
        let whole = !S::IN_UNITS
            || !self.model.is_aside(address) && self.model.event(address).await.unwrap().is_some();
        if whole {
            assert_eq!(left, right, "log of {address}: model left, ledger right");
        }
        let mut rest = right.into_iter();
        for line in left {
            assert!(rest.any(|l| l == line), "line of {address} is missing: {line:?}");
        }
    }

    /// Those that retention has removed from the model may be kept a while longer.
    fn check_duplicates(&self, left: Vec<Duplicate>, right: Vec<Duplicate>) {
        // Those of one moment come in any order.
        let plain = |mut all: Vec<Duplicate>| {
            all.retain(|d| d.at >= at(self.floor));
            all.sort_by(|a, b| (a.at, &a.id, &a.source, a.first).cmp(&(b.at, &b.id, &b.source, b.first)));
            all
        };
        assert_eq!(plain(left), plain(right), "duplicates: model left, ledger right");
    }

    async fn check_lists(&mut self, bindings: &[BindingRecord]) {
        let all = Selector::default;
        let selectors = [
            all(),
            Selector { source: Some("prices".into()), ..all() },
            Selector { kind: Some("kind1".into()), ..all() },
            Selector { key: Some("key3".into()), ..all() },
            Selector { ids: vec!["id1".into(), "id2".into(), "id6".into()], ..all() },
            Selector { addresses: vec![addr(1, 2), addr(2, 1), addr(1, 900)], ..all() },
            Selector { since: Some(at(self.now / 3)), until: Some(at(self.now / 2)), ..all() },
            Selector { binding: Some(NAMES[1].into()), ..all() },
        ];
        for selector in selectors {
            for (ascending, limit) in [(true, 4), (false, 3), (false, 1_000)] {
                let mut query = EventQuery { selector: selector.clone(), ascending, after: None, limit };
                loop {
                    let page = both!(self, events(&query)).unwrap();
                    let Some(next) = page.next else { break };
                    query.after = Some(next);
                }
            }
            let binding = self.dice.pick(&[None, bindings.first().map(|b| b.id)]);
            let reasons =
                self.dice.pick(&[vec![], vec![OwedKind::Retry], vec![OwedKind::Parked, OwedKind::Cancelled]]);
            let mut query =
                DeliveryQuery { selector: selector.clone(), binding, reasons, after: None, limit: 3 };
            loop {
                let page = both!(self, deliveries(&query)).unwrap();
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
            let mut query = DeadLetterQuery { selector, binding, after: None, limit: 2 };
            loop {
                let page = both!(self, dead_letters(&query)).unwrap();
                let Some(next) = page.next else { break };
                query.after = Some(next);
            }
        }
    }
}

/// Numbers of quarantined messages may have gaps.
pub(super) fn unnumbered(all: Vec<QuarantineRecord>) -> Vec<QuarantineRecord> {
    all.into_iter().map(|q| QuarantineRecord { id: 0, ..q }).collect()
}

/// Lines of different bindings come in any order when they are of one moment.
pub(super) fn in_order(mut lines: Vec<(BindingId, LogEntry)>) -> Vec<(BindingId, LogEntry)> {
    lines.sort_by_key(|(binding, line)| (line.at, *binding));
    lines
}

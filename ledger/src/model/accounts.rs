//! The accounts: what is counted for a binding, worked out from the definitions.

use std::collections::BTreeMap;

use bellwire_schemas::{Address, BindingId, Lane};

use super::state::State;
use crate::{BindingTotals, DeliveryKey, Error, OwedReason, StoredEvent};

impl State {
    /// Counts the kept events of a binding's source from where it starts, and nothing else.
    pub fn count_from(&mut self, id: BindingId) -> Result<(), Error> {
        let source = self.binding(id)?.source.clone();
        self.counted.retain(|k| k.binding != id);
        self.closed.remove(&id);
        self.last.retain(|k, _| k.binding != id);
        let from = |lane: Lane| self.counted_from.get(&(lane, id)).copied().unwrap_or_default();
        let events = self.events.values().filter(|e| e.source == source);
        let new: Vec<_> = events
            .filter(|e| e.address.seq > from(e.address.lane))
            .map(|e| DeliveryKey { binding: id, address: e.address })
            .collect();
        self.counted.extend(new);
        Ok(())
    }

    /// Removes an event: its deliveries are closed, except dead letters.
    pub fn forget(&mut self, address: Address) {
        self.events.remove(&address);
        self.aside.remove(&address);
        self.log.remove(&address);
        for binding in self.bindings.iter().map(|b| b.id).collect::<Vec<_>>() {
            let key = DeliveryKey { binding, address };
            // Nothing else holds an event that is owed.
            self.owed.remove(&key);
            if !self.dead.contains_key(&key) {
                self.close_account(key);
            }
        }
    }

    /// Remembers how a delivery ended and no longer which one it was.
    pub fn close_account(&mut self, key: DeliveryKey) {
        let last = self.last.remove(&key);
        if self.counted.remove(&key)
            && let Some(state) = last
        {
            *self.closed.entry(key.binding).or_default().entry(state).or_default() += 1;
        }
    }

    /// Brings an event back; in its lane bindings that have not passed it will meet it, so they count it again.
    pub fn restore(&mut self, event: StoredEvent) {
        let address = event.address;
        if self.event(address).is_some() {
            return;
        }
        if self.sets_aside {
            self.aside.insert(address, event);
            return;
        }
        for binding in self.bindings.iter().filter(|b| b.source == event.source) {
            let place = (address.lane, binding.id);
            let from = self.counted_from.get(&place).copied().unwrap_or_default();
            let passed = self.checkpoints.get(&place).is_some_and(|c| c.passed(address.seq));
            if address.seq > from && !passed {
                self.counted.insert(DeliveryKey { binding: binding.id, address });
            }
        }
        self.events.insert(address, event);
    }

    pub fn totals(&self) -> BTreeMap<BindingId, BindingTotals> {
        self.bindings.iter().map(|b| (b.id, self.totals_of(b.id))).collect()
    }

    fn totals_of(&self, id: BindingId) -> BindingTotals {
        let mut totals = BindingTotals {
            ended: self.closed.get(&id).cloned().unwrap_or_default(),
            dead_letters: self.dead.keys().filter(|k| k.binding == id).count() as u64,
            ..BindingTotals::default()
        };
        totals.accepted = totals.ended.values().sum();
        let mut oldest = Vec::new();
        let mut first_waiting: BTreeMap<Lane, Address> = BTreeMap::new();
        for key in self.counted.iter().filter(|k| k.binding == id) {
            let Address { lane, seq } = key.address;
            totals.accepted += 1;
            if !self.checkpoints.get(&(lane, id)).is_some_and(|c| c.passed(seq)) {
                totals.waiting += 1;
                first_waiting.entry(lane).or_insert(key.address);
            } else if !self.owed.contains_key(key)
                && let Some(state) = self.last.get(key)
            {
                *totals.ended.entry(*state).or_default() += 1;
            }
        }
        let accepted_at = |address: Address| self.event(address).map(|e| e.accepted_at);
        for (key, owed) in self.owed.iter().filter(|(k, _)| k.binding == id && !self.is_request(k)) {
            let (count, since) = match owed.reason {
                OwedReason::Parked => (&mut totals.parked, accepted_at(key.address)),
                _ if owed.is_delayed() => (&mut totals.delayed, Some(owed.next_at)),
                _ => (&mut totals.retrying, accepted_at(key.address)),
            };
            *count += 1;
            totals.outside += u64::from(!self.counted.contains(key));
            oldest.extend(since);
        }
        totals.waiting += totals.parked + totals.delayed;
        oldest.extend(first_waiting.into_values().filter_map(accepted_at));
        totals.oldest_owed = oldest.into_iter().min();
        totals
    }
}

//! The questions: reading, listing, explaining.

use bellwire_schemas::selector::Selector;
use bellwire_schemas::{Address, BindingId, Lane, Seq, Timestamp};

use super::state::State;
use crate::flush::fingerprint;
use crate::{
    Cursor, DeadLetter, DeadLetterQuery, DeliveryKey, DeliveryQuery, DueRetries, Error, EventHead,
    EventQuery, LogEntry, Owed, OwedDelivery, OwedReason, Page, Refusal, ReplayRecord, StoredEvent,
};

impl State {
    pub fn events_of(&self, lane: Lane) -> impl Iterator<Item = &StoredEvent> {
        let first = Address::new(lane, Seq(0));
        self.events.range(first..).map(|(_, e)| e).take_while(move |e| e.address.lane == lane)
    }

    pub fn read(&self, lane: Lane, from: Seq, limit: usize, bytes: usize) -> Result<Vec<StoredEvent>, Error> {
        self.lane(lane)?;
        let mut size = 0;
        let fits = |event: &&StoredEvent| {
            let own = event.event.data.as_ref().map_or(0, |d| d.len());
            let first = size == 0;
            size += own.max(1);
            first || size <= bytes
        };
        let events = self.events_of(lane).filter(|e| e.address.seq >= from);
        Ok(events.take(limit).take_while(fits).cloned().collect())
    }

    pub fn due(&self, lane: Lane, binding: BindingId, now: Timestamp, limit: usize) -> DueRetries {
        let by_time = |o: &&Owed| !matches!(o.reason, OwedReason::Parked | OwedReason::Blocked);
        let mut owed: Vec<Owed> = self.debts_of(lane, binding).filter(by_time).cloned().collect();
        owed.sort_by_key(|o| (o.next_at, o.seq));
        let count = owed.iter().take_while(|o| o.next_at <= now).count().min(limit);
        let next_at = owed.get(count).map(|o| o.next_at);
        owed.truncate(count);
        DueRetries { due: owed, next_at }
    }

    fn debts_of(&self, lane: Lane, binding: BindingId) -> impl Iterator<Item = &Owed> {
        let mine = move |(k, _): &(&DeliveryKey, &Owed)| k.binding == binding && k.address.lane == lane;
        self.owed.iter().filter(mine).map(|(_, owed)| owed)
    }

    pub fn debts(&self, lane: Lane, binding: BindingId, after: Seq, limit: usize) -> Vec<Owed> {
        self.debts_of(lane, binding).filter(|o| o.seq > after).take(limit).cloned().collect()
    }

    pub fn has_parked(&self, lane: Lane, binding: BindingId) -> bool {
        self.debts_of(lane, binding).any(Owed::waits_for_key)
    }

    pub fn log_of(&self, address: Address, binding: Option<BindingId>) -> Vec<(BindingId, LogEntry)> {
        let all = self.log.get(&address).into_iter().flatten();
        let mut lines: Vec<_> = all.filter(|(b, _)| binding.is_none_or(|w| w == *b)).cloned().collect();
        lines.sort_by_key(|(_, entry)| entry.at);
        lines
    }

    pub fn list_events(&self, query: &EventQuery) -> Page<StoredEvent> {
        let place = |e: &StoredEvent| Cursor { at: e.accepted_at, address: e.address };
        let mut items: Vec<_> =
            self.events.values().filter(|e| matches(&query.selector, e, e.accepted_at)).cloned().collect();
        items.sort_by_key(|e| (e.accepted_at, e.address));
        if !query.ascending {
            items.reverse();
        }
        if let Some(after) = query.after {
            let after = (after.at, after.address);
            items.retain(|e| {
                let at = (e.accepted_at, e.address);
                if query.ascending { at > after } else { at < after }
            });
        }
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        let next = items.last().filter(|_| more).map(place);
        Page { items, next }
    }

    pub fn list_deliveries(&self, query: &DeliveryQuery) -> Page<OwedDelivery> {
        let (selector, name) = (&query.selector, query.selector.binding.as_ref());
        // The key is that of the debt.
        let of_event = Selector { key: None, ..selector.clone() };
        let named = |id| self.binding(id).is_ok_and(|b| name.is_none_or(|n| *n == b.name));
        let spot = |d: &OwedDelivery| (d.accepted_at, d.address);
        let print = |o: &Owed| o.error.as_ref().map(fingerprint);
        let head = |e: &StoredEvent| EventHead {
            id: e.event.id.clone(),
            kind: e.event.kind.clone(),
            source: e.source.clone(),
        };
        let mut items: Vec<_> = self
            .owed
            .iter()
            .filter(|(k, _)| query.binding.is_none_or(|b| b == k.binding) && named(k.binding))
            .filter(|(_, o)| query.reasons.is_empty() || query.reasons.contains(&o.reason.kind()))
            .filter(|(_, o)| selector.error.is_none() || selector.error == print(o))
            .filter_map(|(k, o)| Some((k, o, self.event(k.address)?)))
            .filter(|(_, o, e)| {
                (selector.key.is_none() || selector.key == o.key) && matches(&of_event, e, e.accepted_at)
            })
            .map(|(k, o, e)| OwedDelivery {
                binding: k.binding,
                address: k.address,
                accepted_at: e.accepted_at,
                owed: o.clone(),
                event: Some(head(e)),
            })
            .filter(|d| query.after.is_none_or(|c| spot(d) < (c.at, c.address)))
            .collect();
        items.sort_by_key(|d| std::cmp::Reverse((spot(d), d.binding)));
        let mut count = query.limit.min(items.len());
        while count > 0 && count < items.len() && spot(&items[count]) == spot(&items[count - 1]) {
            count += 1;
        }
        let more = items.len() > count;
        items.truncate(count);
        let next = items.last().filter(|_| more).map(|d| Cursor { at: d.accepted_at, address: d.address });
        Page { items, next }
    }

    pub fn list_dead_letters(&self, query: &DeadLetterQuery) -> Page<DeadLetter> {
        let place = |d: &DeadLetter| Cursor { at: d.died_at, address: d.event.address };
        let order = |d: &DeadLetter| (d.died_at, d.event.address);
        let name = query.selector.binding.as_ref();
        let named = |id| self.binding(id).is_ok_and(|b| name.is_none_or(|n| *n == b.name));
        let mut items: Vec<_> = self
            .dead
            .values()
            .filter(|d| query.binding.is_none_or(|b| b == d.binding) && named(d.binding))
            .filter(|d| matches(&query.selector, &d.event, d.died_at))
            .filter(|d| query.selector.error.as_ref().is_none_or(|e| *e == d.fingerprint))
            .filter(|d| query.after.is_none_or(|c| order(d) < (c.at, c.address)))
            .cloned()
            .collect();
        items.sort_by_key(|d| (order(d), d.binding));
        items.reverse();
        let mut count = query.limit.min(items.len());
        while count > 0 && count < items.len() && order(&items[count]) == order(&items[count - 1]) {
            count += 1;
        }
        let more = items.len() > count;
        items.truncate(count);
        let next = items.last().filter(|_| more).map(place);
        Page { items, next }
    }

    pub fn replays(&self) -> Vec<ReplayRecord> {
        let mut replays: Vec<_> = self.replays.iter().rev().cloned().collect();
        replays.sort_by_key(|r| std::cmp::Reverse(r.created_at));
        replays.truncate(1_000);
        replays
    }

    pub fn refusals_since(&self, since: Timestamp) -> Vec<Refusal> {
        let mut refusals: Vec<_> =
            self.refusals.iter().map(|(_, r)| r).filter(|r| r.last_at >= since).cloned().collect();
        refusals.sort_by(|a, b| (b.last_at, &a.source, &a.reason).cmp(&(a.last_at, &b.source, &b.reason)));
        refusals.truncate(1_000);
        refusals
    }
}

/// Whether an event meets the conditions on address, id, time, source, type and key.
fn matches(selector: &Selector, event: &StoredEvent, at: Timestamp) -> bool {
    let Selector { addresses, ids, since, until, source, kind, key, .. } = selector;
    (addresses.is_empty() || addresses.contains(&event.address))
        && (ids.is_empty() || ids.contains(&event.event.id))
        && since.is_none_or(|s| at >= s)
        && until.is_none_or(|u| at < u)
        && source.as_ref().is_none_or(|s| *s == event.source)
        && kind.as_ref().is_none_or(|k| *k == event.event.kind)
        && key.as_ref().is_none_or(|k| Some(k) == event.key.as_ref())
}

//! What operators and the configuration change: bindings, redrive, discard, replays, refusals, retention.

use std::collections::HashSet;

use bellwire_schemas::service::Start;
use bellwire_schemas::{Address, BindingId, ErrorInfo, FinalState, Lane, Seq, Timestamp};

use super::state::State;
use crate::flush::{Verb, discarded, given_up};
use crate::query::{REVISIONS, by_lane};
use crate::{
    BindingRecord, BindingRevision, Checkpoint, DeliveryKey, Error, Owed, OwedReason, Refusal, ReplayRecord,
    ReplayState, Retained,
};

/// Microseconds in an hour.
const HOUR: i64 = 3_600_000_000;

impl State {
    pub fn declare_bindings(
        &mut self,
        bindings: Vec<BindingRecord>,
        now: Timestamp,
    ) -> Result<Vec<BindingRecord>, Error> {
        let mut named = HashSet::new();
        if let Some(twice) = bindings.iter().find(|b| !named.insert(b.name.clone())) {
            return Err(Error::Corrupt(format!("binding `{}` is declared twice", twice.name)));
        }
        for new in &bindings {
            if self.bindings.iter().all(|old| old.name != new.name) {
                crate::start::check(new, now, |lane| self.tail(lane))?;
            }
        }
        for old in self.bindings.iter_mut().filter(|b| !named.contains(&b.name)) {
            old.active = false;
        }
        let mut active = Vec::new();
        for new in bindings {
            let id = match self.bindings.iter().find(|b| b.name == new.name) {
                Some(old) => old.id,
                None => self.create_binding(&new, now)?,
            };
            self.revise_binding(id, new, now)?;
            active.push(self.binding(id)?.clone());
        }
        Ok(active)
    }

    fn create_binding(&mut self, new: &BindingRecord, now: Timestamp) -> Result<BindingId, Error> {
        let id = BindingId(u32::try_from(self.bindings.len()).unwrap_or(u32::MAX) + 1);
        for lane in self.all_lanes() {
            let mark = self.start_mark(lane, new)?;
            self.checkpoints.insert((lane, id), Checkpoint { mark, ..Checkpoint::default() });
            self.counted_from.insert((lane, id), mark);
        }
        let since = by_lane(self.lanes.iter().map(|lane| lane.tail));
        let new = BindingRecord { id, revision: 1, paused: None, active: true, since, ..new.clone() };
        self.note_revision(&new, now);
        self.bindings.push(new);
        self.count_from(id)?;
        Ok(id)
    }

    fn note_revision(&mut self, record: &BindingRecord, now: Timestamp) {
        let BindingRecord { id, revision, source, function, filter, since, .. } = record.clone();
        let noted = BindingRevision { revision, source, function, filter, at: now, since };
        self.revisions.insert((id, revision), noted);
    }

    pub fn revisions_of(&self, id: BindingId) -> Vec<BindingRevision> {
        let mut all: Vec<_> =
            self.revisions.range((id, 0)..=(id, u32::MAX)).map(|(_, r)| r.clone()).collect();
        all.drain(..all.len().saturating_sub(REVISIONS));
        all
    }

    fn start_mark(&self, lane: Lane, new: &BindingRecord) -> Result<Seq, Error> {
        let tail = self.tail(lane)?;
        Ok(match new.start {
            Start::Now => tail,
            Start::Earliest => Seq(0),
            Start::At(time) => {
                let first = self.events_of(lane).find(|e| e.accepted_at >= time);
                first.map_or(tail, |e| Seq(e.address.seq.0 - 1))
            }
            Start::Address(at) if at.lane == lane => Seq(at.seq.0.saturating_sub(1)),
            Start::Address(_) => tail,
        })
    }

    fn revise_binding(&mut self, id: BindingId, new: BindingRecord, now: Timestamp) -> Result<(), Error> {
        let since = by_lane(self.lanes.iter().map(|lane| lane.tail));
        let old = self.binding_mut(id)?;
        old.active = true;
        let moved = old.source != new.source;
        if moved || old.function != new.function || old.filter != new.filter {
            old.revision += 1;
            old.source = new.source;
            old.function = new.function;
            old.filter = new.filter;
            old.since = since;
            let revised = old.clone();
            self.note_revision(&revised, now);
        }
        if moved {
            let asked: Vec<_> =
                self.owed.keys().filter(|k| k.binding == id && self.is_request(k)).copied().collect();
            self.owed.retain(|key, _| !asked.contains(key));
            for lane in self.all_lanes() {
                let reach = self.checkpoint(lane, id)?.reach();
                self.counted_from.insert((lane, id), reach);
            }
            self.count_from(id)?;
        }
        Ok(())
    }

    pub fn redrive(&mut self, dead: &[DeliveryKey], now: Timestamp) -> u64 {
        let mut moved = 0;
        for key in dead {
            let Some(letter) = self.dead.remove(key) else {
                let blocked = self.owed.get_mut(key).filter(|o| o.reason == OwedReason::Blocked);
                if let Some(owed) = blocked {
                    (owed.reason, owed.attempts) = (OwedReason::Retry, 0);
                    (owed.next_at, owed.since) = (now, now);
                    moved += 1;
                }
                continue;
            };
            let owed = Owed {
                seq: key.address.seq,
                attempts: 0,
                next_at: now,
                since: now,
                error: Some(letter.error),
                reason: OwedReason::Redrive,
                key: letter.event.key.clone(),
            };
            self.owed.insert(*key, owed);
            self.restore(letter.event);
            moved += 1;
        }
        moved
    }

    pub fn discard(
        &mut self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let mut ended = 0;
        for key in deliveries {
            let owed = if self.is_request(key) { None } else { self.owed.remove(key) };
            if self.dead.remove(key).is_none() && owed.is_none() {
                continue;
            }
            self.give_up(*key, owed, given_up(Verb::Discard, reason, by), now)?;
            ended += 1;
        }
        Ok(ended)
    }

    fn give_up(
        &mut self,
        key: DeliveryKey,
        owed: Option<Owed>,
        error: ErrorInfo,
        now: Timestamp,
    ) -> Result<(), Error> {
        let replay = owed.and_then(|o| match o.reason {
            OwedReason::Replay(id) => Some(id),
            _ => None,
        });
        self.last.insert(key, FinalState::Discarded);
        if self.event(key.address).is_some() {
            let revision = self.binding(key.binding)?.revision;
            let line = discarded(key.address.seq, revision, replay, error, now);
            self.log.entry(key.address).or_default().push((key.binding, line));
        } else {
            self.close_account(key);
        }
        Ok(())
    }

    /// Whether a row asks to cancel what the cursor has not passed.
    pub fn is_request(&self, key: &DeliveryKey) -> bool {
        self.owed.get(key).is_some_and(|o| o.reason == OwedReason::Cancelled) && !self.passed(key)
    }

    fn passed(&self, key: &DeliveryKey) -> bool {
        let Address { lane, seq } = key.address;
        self.checkpoints.get(&(lane, key.binding)).is_some_and(|c| c.passed(seq))
    }

    pub fn cancel(
        &mut self,
        deliveries: &[DeliveryKey],
        reason: &str,
        by: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let mut count = 0;
        for key in deliveries {
            let error = given_up(Verb::Cancel, reason, by);
            if self.passed(key) {
                let Some(owed) = self.owed.remove(key) else { continue };
                self.give_up(*key, Some(owed), error, now)?;
                count += 1;
                continue;
            }
            let Some(event) = self.events.get(&key.address).filter(|_| !self.owed.contains_key(key)) else {
                continue;
            };
            if self.binding(key.binding).is_ok_and(|b| b.source == event.source) {
                let request = Owed {
                    seq: key.address.seq,
                    attempts: 0,
                    next_at: now,
                    since: now,
                    error: Some(error),
                    reason: OwedReason::Cancelled,
                    key: event.key.clone(),
                };
                self.owed.insert(*key, request);
                count += 1;
            }
        }
        Ok(count)
    }

    pub fn save_replay(&mut self, replay: &ReplayRecord, owed: &[(Address, Owed)]) -> Result<u64, Error> {
        for (address, _) in owed {
            self.checkpoint(address.lane, replay.binding)?;
        }
        self.binding(replay.binding)?;
        match self.replays.iter_mut().find(|r| r.id == replay.id) {
            Some(old) if old.version >= replay.version => return Ok(0),
            Some(old) => *old = replay.clone(),
            None => self.replays.push(replay.clone()),
        }
        let mut new = 0;
        for (address, debt) in owed {
            let key = DeliveryKey { binding: replay.binding, address: *address };
            let passed = self.checkpoint(address.lane, replay.binding)?.passed(address.seq);
            let Some(event) = self.event(*address).filter(|_| passed && !self.owed.contains_key(&key)) else {
                continue;
            };
            let debt = Owed { seq: address.seq, key: event.key.clone(), ..debt.clone() };
            self.dead.remove(&key);
            self.owed.insert(key, debt);
            new += 1;
        }
        Ok(new)
    }

    pub fn note_refusal(&mut self, refusal: Refusal) {
        let hour = refusal.last_at.micros().div_euclid(HOUR);
        let same = |(h, r): &&mut (i64, Refusal)| {
            *h == hour && r.source == refusal.source && r.reason == refusal.reason
        };
        match self.refusals.iter_mut().find(same) {
            Some((_, sum)) => {
                sum.count += refusal.count;
                if refusal.last_at >= sum.last_at {
                    sum.last_at = refusal.last_at;
                    sum.last_peer = refusal.last_peer;
                }
            }
            None => self.refusals.push((hour, refusal)),
        }
    }

    pub fn retain(&mut self, before: Timestamp) -> Retained {
        let all = self.events.values().chain(self.aside.values());
        let old: Vec<Address> = all.filter(|e| e.accepted_at < before).map(|e| e.address).collect();
        let mut retained = Retained::default();
        for address in old {
            if self.needed(address) {
                retained.kept_for_debts += 1;
            } else {
                self.forget(address);
                retained.events += 1;
            }
        }
        self.prune(before);
        retained
    }

    /// Removes what is old and no event.
    pub fn prune(&mut self, before: Timestamp) {
        self.duplicates.retain(|d| d.at >= before);
        self.quarantine.retain(|q| q.at >= before);
        self.refusals.retain(|(_, r)| r.last_at >= before);
    }

    /// Whether a cursor, a debt or an unfinished replay holds an event back.
    pub fn needed(&self, address: Address) -> bool {
        let Address { lane, seq } = address;
        if self.aside.contains_key(&address) {
            return self.is_owed(address);
        }
        let source = self.events.get(&address).map(|e| &e.source);
        let waiting = self.bindings.iter().filter(|b| b.active && Some(&b.source) == source);
        let mut marks = waiting.filter_map(|b| self.checkpoints.get(&(lane, b.id)));
        let in_replay = |r: &ReplayRecord| {
            let from = r.cursor.get(&lane).copied().unwrap_or_default();
            let until = r.until.get(&lane).copied().unwrap_or_default();
            matches!(r.state, ReplayState::Running | ReplayState::Paused) && seq > from && seq <= until
        };
        marks.any(|c| c.mark < seq) || self.is_owed(address) || self.replays.iter().any(in_replay)
    }

    fn is_owed(&self, address: Address) -> bool {
        self.owed.keys().any(|k| k.address == address && !self.is_request(k))
    }
}

//! The hot writes: append, ownership, flush.

use std::collections::{BTreeMap, HashMap};

use bellwire_schemas::{Address, BindingId, ControllerId, Epoch, Lane, Seq, Timestamp};

use super::state::{LaneState, State};
use crate::slots::{SlotsAsked, SlotsGranted, grant};
use crate::{
    Append, Appended, Arrival, BindingFlush, Checkpoint, Cluster, DeliveryKey, Duplicate, Error, Flush,
    FlushOutcome, Heartbeat, LaneOwner, Member, NewEvent, Owed, OwedReason, Position, PositionAdvance,
    Quarantine, QuarantineRecord, StoredEvent,
};

impl State {
    pub fn append(&mut self, append: Append, now: Timestamp) -> Result<Appended, Error> {
        if let Some(first) = self.appends.get(&append.append_id) {
            return Ok(first.clone());
        }
        for event in &append.events {
            self.lane(event.lane)?;
        }
        self.advance(append.positions)?;
        let items =
            append.events.into_iter().map(|e| self.arrive(e, now)).collect::<Result<Vec<_>, Error>>()?;
        for message in append.quarantined {
            self.quarantine(message, now);
        }
        let answer = Appended { items, accepted_at: now };
        self.appends.insert(append.append_id, answer.clone());
        Ok(answer)
    }

    /// Moves all positions or none; a shard may be named more than once.
    fn advance(&mut self, advances: Vec<PositionAdvance>) -> Result<(), Error> {
        let mut moved: HashMap<String, Position> = HashMap::new();
        for PositionAdvance { shard, expected, value } in advances {
            let found = moved.get(&shard).or_else(|| self.positions.get(&shard)).map_or(0, |p| p.version);
            if found != expected {
                return Err(Error::PositionConflict { shard, expected, found });
            }
            moved.insert(shard, Position { version: found + 1, value });
        }
        self.positions.extend(moved);
        Ok(())
    }

    fn arrive(&mut self, new: NewEvent, now: Timestamp) -> Result<Arrival, Error> {
        let address = Address::new(new.lane, self.lane(new.lane)?.tail.next());
        let arrivals = self.arrivals.entry(new.source.clone()).or_default();
        if let Some(key) = new.dedup {
            let identity = (new.source.clone(), key.value);
            if let Some(&(first, until)) = self.dedup.get(&identity)
                && until > now
            {
                arrivals.duplicate += 1;
                let id = new.event.id.clone();
                self.duplicates.push(Duplicate { at: now, id, source: new.source, first });
                return Ok(Arrival::Duplicate(first));
            }
            self.dedup.insert(identity, (address, now.plus(key.window)));
        }
        arrivals.accepted += 1;
        arrivals.last_at = Some(now);
        for binding in self.bindings.iter().filter(|b| b.source == new.source) {
            self.counted.insert(DeliveryKey { binding: binding.id, address });
        }
        let NewEvent { source, key, event, .. } = new;
        self.events.insert(address, StoredEvent { address, source, accepted_at: now, key, event });
        self.lane_mut(address.lane)?.tail = address.seq;
        Ok(Arrival::Accepted(address))
    }

    fn quarantine(&mut self, message: Quarantine, now: Timestamp) {
        self.quarantine_ids += 1;
        self.arrivals.entry(message.source.clone()).or_default().quarantined += 1;
        let bytes = message.bytes.slice(..message.bytes.len().min(crate::append::QUARANTINED_BYTES));
        self.quarantine.push(QuarantineRecord {
            id: self.quarantine_ids,
            at: now,
            source: message.source,
            reason: message.reason,
            bytes,
            meta: message.meta,
        });
    }

    pub fn heartbeat(&mut self, beat: &Heartbeat) -> Cluster {
        let since = self.members.get(&beat.controller).map_or(Timestamp::default(), |m| m.since);
        let (id, leaving) = (beat.controller, beat.leaving);
        let (name, version) = (beat.name.clone(), beat.version.clone());
        self.members.insert(id, Member { id, name, version, since, leaving });
        let lane = |(n, lane): (u16, &LaneState)| LaneOwner {
            lane: Lane(n),
            epoch: lane.epoch,
            owner: lane.owner.filter(|owner| self.members.contains_key(owner)),
        };
        Cluster {
            controllers: self.members.values().cloned().collect(),
            lanes: (1..).zip(&self.lanes).map(lane).collect(),
            changes: self.changes,
            rewound: (1..)
                .zip(&self.lanes)
                .filter(|(_, lane)| lane.rewound && lane.owner == Some(beat.controller))
                .map(|(n, _)| Lane(n))
                .collect(),
        }
    }

    pub fn leave(&mut self, controller: ControllerId) {
        self.members.remove(&controller);
        self.slots.values_mut().for_each(|holders| holders.retain(|h| h.controller != controller));
        for lane in self.lanes.iter_mut().filter(|lane| lane.owner == Some(controller)) {
            lane.owner = None;
        }
    }

    pub fn slots(&mut self, me: ControllerId, asked: &[SlotsAsked], now: Timestamp) -> Vec<SlotsGranted> {
        let Self { slots, members, .. } = self;
        let one = |asked: &SlotsAsked| {
            if !members.contains_key(&me) {
                return SlotsGranted { slots: asked.kept, part: 0 };
            }
            let holders = slots.entry(asked.limit.clone()).or_default();
            holders.retain(|h| members.contains_key(&h.controller));
            let before = holders.iter().position(|h| h.controller == me).map(|at| holders.remove(at));
            let (mine, granted) = grant(holders, before, me, asked, now);
            if mine.wanted > 0 || mine.granted > 0 {
                holders.push(mine);
            }
            granted
        };
        asked.iter().map(one).collect()
    }

    pub fn acquire(&mut self, controller: ControllerId, lane: Lane) -> Result<Option<Epoch>, Error> {
        let held = self.lane(lane)?.owner.filter(|owner| *owner != controller);
        if held.is_some_and(|owner| self.members.contains_key(&owner)) {
            return Ok(None);
        }
        self.members.entry(controller).or_insert_with(|| Member {
            id: controller,
            name: controller.0.to_string(),
            version: String::new(),
            since: Timestamp::default(),
            leaving: false,
        });
        let lane = self.lane_mut(lane)?;
        lane.owner = Some(controller);
        lane.epoch = Epoch(lane.epoch.0 + 1);
        lane.rewound = false;
        Ok(Some(lane.epoch))
    }

    pub fn release(&mut self, lane: Lane, epoch: Epoch) -> Result<(), Error> {
        let lane = self.lane_mut(lane)?;
        if lane.epoch == epoch {
            lane.owner = None;
        }
        Ok(())
    }

    pub fn flush(&mut self, flush: Flush) -> Result<FlushOutcome, Error> {
        flush.check_lanes(u16::try_from(self.lanes.len()).unwrap_or(u16::MAX))?;
        let lane = self.lane(flush.lane)?;
        if lane.owner.is_none() || lane.epoch != flush.epoch {
            return Ok(FlushOutcome::Fenced);
        }
        let tail = lane.tail;
        let mut news = Vec::new();
        flush.check_once_each()?;
        for part in flush.bindings {
            let before = self.checkpoint(flush.lane, part.binding)?;
            if part.version > before.version {
                part.check(before, tail)?;
                news.push(part);
            }
        }
        for mut part in news {
            let emitted = std::mem::take(&mut part.emitted);
            self.flush_binding(flush.lane, part);
            for event in emitted {
                self.arrive(event, flush.at)?;
            }
        }
        Ok(FlushOutcome::Flushed)
    }

    fn flush_binding(&mut self, lane: Lane, part: BindingFlush) {
        let endings = part.endings();
        let key = |seq: Seq| DeliveryKey { binding: part.binding, address: Address::new(lane, seq) };
        let after = Checkpoint { version: part.version, mark: part.mark, done: part.done };
        let mut asked = self.end_requests(lane, part.binding, &after);
        let before = self.checkpoints.insert((lane, part.binding), after).unwrap_or_default();
        for owed in part.owed {
            let row = self.owed.get(&key(owed.seq)).cloned().or_else(|| asked.remove(&owed.seq));
            // Out of date: its delivery was given up, or ended and its event is gone.
            if row.is_none() && before.passed(owed.seq) || self.event(key(owed.seq).address).is_none() {
                continue;
            }
            let owed = match row.filter(|row| row.reason == OwedReason::Cancelled) {
                Some(Owed { next_at, error, reason, .. }) => Owed { next_at, error, reason, ..owed },
                None => owed,
            };
            self.owed.insert(key(owed.seq), owed);
        }
        for seq in part.settled.into_iter().filter(|seq| !self.is_request(&key(*seq))).collect::<Vec<_>>() {
            self.owed.remove(&key(seq));
        }
        for (seq, state) in endings {
            self.last.insert(key(seq), state);
            self.dead.remove(&key(seq));
        }
        for letter in part.dead {
            self.owed.remove(&key(letter.event.address.seq));
            self.dead.insert(key(letter.event.address.seq), letter);
        }
        for entry in part.log {
            let address = Address::new(lane, entry.seq);
            self.log.entry(address).or_default().push((part.binding, entry));
        }
    }

    /// Takes away the requests to cancel what a binding passes now.
    fn end_requests(&mut self, lane: Lane, binding: BindingId, after: &Checkpoint) -> BTreeMap<Seq, Owed> {
        let passes =
            |k: &&DeliveryKey| k.binding == binding && k.address.lane == lane && after.passed(k.address.seq);
        let keys: Vec<_> = self.owed.keys().filter(passes).filter(|k| self.is_request(k)).copied().collect();
        keys.iter().filter_map(|k| Some((k.address.seq, self.owed.remove(k)?))).collect()
    }
}

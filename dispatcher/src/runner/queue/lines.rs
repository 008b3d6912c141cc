//! Deliveries in order: each key has a line, of which one batch at most is out.
//!
//! A line holds fresh events in memory and debts that lie in the ledger as rows; of both, the lowest place goes first.
//! A row that is not due yet, or not written yet, holds up its own line and nothing else. Redriven, replayed and delayed
//! debts stand beside it: in order among themselves, never out together with the line, but not holding it up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bellwire_ledger::{Owed, OwedReason};
use bellwire_schemas::{Lane, Seq, Timestamp};

use super::delayed::Delayed;
use super::free::Batch;
use super::job::{Job, REPORTED, line_of};
use super::{Change, Room};

/// The lines of a binding in a lane.
#[derive(Debug)]
pub(super) struct Lines {
    lane: Lane,
    lines: HashMap<u64, Line>,
    /// Lines of which something may run.
    ring: VecDeque<u64>,
    /// When lines that wait for a time are looked at again.
    timers: BTreeSet<(Timestamp, u64)>,
    /// Every place up to here was read: a row beyond it may have an earlier one of its key before it that was not.
    read: Seq,
    /// The lines of rows beyond.
    beyond: BTreeMap<Seq, u64>,
    fresh: usize,
    bytes: usize,
    rows: usize,
}

#[derive(Debug, Default)]
struct Line {
    /// Batches of it that are out: more than one only when order was asked for while they were.
    out: u32,
    in_ring: bool,
    memory: VecDeque<Job>,
    /// Failed, parked and blocked debts.
    rows: BTreeMap<Seq, Row>,
    /// Redriven and replayed ones, and delayed ones whose time has come.
    again: BTreeMap<Seq, Row>,
    /// Those whose time has not come: they hold up nothing.
    delayed: Delayed,
    again_next: bool,
}

/// A debt row, as far as it is needed to choose; the rest is read when its attempt starts.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: Timestamp,
    attempts: u32,
    since: Timestamp,
    reason: OwedReason,
    /// Most events of a batch that it may be in: one when it failed with nothing else to blame, fewer with each halving.
    most: usize,
    /// False until the flush that writes it is confirmed.
    is_written: bool,
}

/// What a line can do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Live,
    Again,
    At(Timestamp),
    Never,
}

impl Lines {
    pub(super) fn new(lane: Lane) -> Self {
        let (lines, ring, timers, beyond) = Default::default();
        Self { lane, lines, ring, timers, read: Seq(0), beyond, fresh: 0, bytes: 0, rows: 0 }
    }

    pub(super) fn push_fresh(&mut self, job: Job, now: Timestamp) {
        let id = job.line;
        self.keep(job);
        self.settle(id, now);
    }

    /// The reader has come so far.
    pub(super) fn set_read(&mut self, read: Seq, now: Timestamp) {
        self.read = self.read.max(read);
        while let Some((seq, id)) = self.beyond.first_key_value().map(|(seq, id)| (*seq, *id))
            && seq <= self.read
        {
            self.beyond.pop_first();
            self.settle(id, now);
        }
    }

    pub(super) fn is_parked(&self, id: u64) -> bool {
        self.lines.get(&id).is_some_and(|line| !line.rows.is_empty())
    }

    /// A batch of the line is out.
    pub(super) fn leave(&mut self, id: u64) {
        self.lines.entry(id).or_default().out += 1;
    }

    /// A batch of the line has landed.
    pub(super) fn land(&mut self, id: u64, now: Timestamp) {
        if let Some(line) = self.lines.get_mut(&id) {
            line.out = line.out.saturating_sub(1);
        }
        self.settle(id, now);
    }

    pub(super) fn learn(&mut self, owed: &Owed, now: Timestamp) {
        let id = line_of(owed.key.as_deref(), owed.seq);
        self.insert(id, owed.seq, Row::of(owed, true), now);
        self.settle(id, now);
    }

    /// Forgets all rows but those that memory knows more of.
    pub(super) fn forget_rows(&mut self, but: &HashSet<Seq>) {
        let mut left = 0;
        for line in self.lines.values_mut() {
            line.rows.retain(|seq, _| but.contains(seq));
            line.again.retain(|seq, _| but.contains(seq));
            line.delayed.keep_only(but);
            left += line.known();
        }
        self.rows = left;
    }

    /// Looks at every line again, after rows were forgotten and learned.
    pub(super) fn review(&mut self, now: Timestamp) {
        let ids: Vec<u64> = self.lines.keys().copied().collect();
        ids.into_iter().for_each(|id| self.settle(id, now));
    }

    pub(super) fn owe(&mut self, owed: &Owed, id: u64, now: Timestamp) {
        self.insert(id, owed.seq, Row::of(owed, false), now);
    }

    /// Forgets a row that ends without having been taken.
    pub(super) fn drop_row(&mut self, id: u64, seq: Seq) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let before = line.known();
        line.rows.remove(&seq);
        line.again.remove(&seq);
        line.delayed.remove(seq);
        self.rows -= before - line.known();
    }

    pub(super) fn written(&mut self, change: Change, now: Timestamp) {
        if let Some(line) = self.lines.get_mut(&change.line) {
            let row = line.rows.get_mut(&change.seq).or_else(|| line.again.get_mut(&change.seq));
            if let Some(row) = row.or_else(|| line.delayed.get_mut(change.seq)) {
                row.is_written = true;
            }
        }
        self.settle(change.line, now);
    }

    pub(super) fn take(&mut self, room: Room, now: Timestamp) -> Vec<Job> {
        self.wake(now);
        let mut batch = Batch::new(room);
        // Every key once, then those that have more, again in turn.
        let mut more: VecDeque<(u64, bool)> = VecDeque::new();
        while !batch.is_full() {
            let (id, chosen) = match self.ring.pop_front() {
                Some(id) => (id, None),
                None => match more.pop_front() {
                    Some((id, side)) => (id, Some(side)),
                    None => break,
                },
            };
            let Some(line) = self.lines.get_mut(&id) else { continue };
            let is_again = match chosen {
                Some(side) => side,
                None => {
                    line.in_ring = false;
                    match line.turn(now, self.read) {
                        _ if line.out > 0 => continue,
                        Turn::Live => false,
                        Turn::Again => true,
                        Turn::At(_) | Turn::Never => {
                            self.settle(id, now);
                            continue;
                        }
                    }
                }
            };
            let Some(job) = line.pop(is_again, (self.lane, id), room.bisect, (now, self.read)) else {
                continue;
            };
            if job.event.is_some() {
                self.fresh -= 1;
                self.bytes -= job.bytes;
            } else {
                self.rows -= 1;
            }
            if !batch.has_room_for(&job) {
                self.restore(job, true, now);
                if chosen.is_none() {
                    self.settle(id, now);
                }
                break;
            }
            batch.add(job);
            if chosen.is_none() {
                self.leave(id);
            }
            more.push_back((id, is_again));
        }
        batch.jobs
    }

    /// Puts a job back where it was; `is_written`: a debt's row is known to the ledger.
    pub(super) fn put_back(&mut self, job: Job, is_written: bool, now: Timestamp) {
        let id = job.line;
        self.restore(job, is_written, now);
        self.settle(id, now);
    }

    /// Fresh events of a line, all taken out.
    pub(super) fn drain(&mut self, id: u64) -> Vec<Job> {
        let Some(line) = self.lines.get_mut(&id) else { return Vec::new() };
        let jobs: Vec<Job> = std::mem::take(&mut line.memory).into();
        self.uncount(&jobs);
        jobs
    }

    /// The later half of the longest line of fresh events, when it has at least so many.
    pub(super) fn relieve(&mut self, least: usize) -> Vec<Job> {
        let longest = self.lines.values_mut().max_by_key(|line| line.memory.len());
        let Some(line) = longest.filter(|line| line.memory.len() >= least) else { return Vec::new() };
        let jobs: Vec<Job> = line.memory.split_off(line.memory.len() / 2).into();
        self.uncount(&jobs);
        jobs
    }

    pub(super) fn take_fresh(&mut self) -> Vec<Job> {
        let jobs = self.lines.values_mut().flat_map(|line| std::mem::take(&mut line.memory)).collect();
        (self.fresh, self.bytes) = (0, 0);
        jobs
    }

    pub(super) fn remove(&mut self, seq: Seq, now: Timestamp) -> Option<Job> {
        let (id, at) = self.lines.iter().find_map(|(id, line)| {
            line.memory.iter().position(|job| job.address.seq == seq).map(|at| (*id, at))
        })?;
        let job = self.lines.get_mut(&id)?.memory.remove(at)?;
        self.uncount(std::slice::from_ref(&job));
        self.settle(id, now);
        Some(job)
    }

    pub(super) fn has_ready(&mut self, now: Timestamp) -> bool {
        self.wake(now);
        while let Some(id) = self.ring.front() {
            let ready = self.lines.get_mut(id).is_some_and(|line| {
                line.out == 0 && matches!(line.turn(now, self.read), Turn::Live | Turn::Again)
            });
            if ready {
                return true;
            }
            let Some(id) = self.ring.pop_front() else { break };
            if let Some(line) = self.lines.get_mut(&id) {
                line.in_ring = false;
            }
            self.settle(id, now);
        }
        false
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.fresh
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    fn wake(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.settle(id, now);
        }
    }

    /// Puts a line where it belongs after it has changed.
    fn settle(&mut self, id: u64, now: Timestamp) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.out > 0 {
            return;
        }
        match line.turn(now, self.read) {
            Turn::Live | Turn::Again => {
                if !line.in_ring {
                    line.in_ring = true;
                    self.ring.push_back(id);
                }
            }
            Turn::At(at) => {
                self.timers.insert((at, id));
            }
            // One that is in the ring is removed when its turn comes.
            Turn::Never if line.is_empty() && !line.in_ring => {
                self.lines.remove(&id);
            }
            Turn::Never => {}
        }
    }

    fn insert(&mut self, id: u64, seq: Seq, row: Row, now: Timestamp) {
        let line = self.lines.entry(id).or_default();
        let old = line.rows.remove(&seq).or_else(|| line.again.remove(&seq));
        let old = old.or_else(|| line.delayed.remove(seq));
        self.rows += usize::from(old.is_none());
        match row.reason {
            OwedReason::Retry | OwedReason::Parked | OwedReason::Blocked => {
                if seq > self.read {
                    self.beyond.insert(seq, id);
                }
                line.rows.insert(seq, row);
            }
            OwedReason::Delayed | OwedReason::Debounced if row.attempts == 0 && row.at > now => {
                line.delayed.insert(seq, row);
            }
            _ => {
                line.again.insert(seq, row);
            }
        }
    }

    fn restore(&mut self, job: Job, is_written: bool, now: Timestamp) {
        match &job.debt {
            Some(reason) => {
                let (attempts, since, reason) = (job.attempts, job.since, reason.clone());
                let row = Row { at: now, attempts, since, reason, most: job.most, is_written };
                self.insert(job.line, job.address.seq, row, now);
            }
            None => self.keep(job),
        }
    }

    fn keep(&mut self, job: Job) {
        self.fresh += 1;
        self.bytes += job.bytes;
        let memory = &mut self.lines.entry(job.line).or_default().memory;
        let at = memory.partition_point(|other| other.address < job.address);
        memory.insert(at, job);
    }

    fn uncount(&mut self, jobs: &[Job]) {
        self.fresh -= jobs.len();
        self.bytes -= jobs.iter().map(|job| job.bytes).sum::<usize>();
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.known() == 0
    }

    /// Its rows.
    fn known(&self) -> usize {
        self.rows.len() + self.again.len() + self.delayed.len()
    }

    fn turn(&mut self, now: Timestamp, read: Seq) -> Turn {
        while let Some((seq, row)) = self.delayed.pop_due(now) {
            self.again.insert(seq, row);
        }
        let live = self.live(read);
        let again = self.again.values().next().and_then(Row::at);
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        match (is_due(live), is_due(again)) {
            (true, true) if self.again_next => Turn::Again,
            (true, _) => Turn::Live,
            (_, true) => Turn::Again,
            _ => [live, again, self.delayed.first_at()]
                .into_iter()
                .flatten()
                .min()
                .map_or(Turn::Never, Turn::At),
        }
    }

    /// When the first of the line may run.
    fn live(&self, read: Seq) -> Option<Timestamp> {
        match (self.memory.front(), self.rows.first_key_value()) {
            (Some(job), Some((seq, _))) if job.address.seq < *seq => Some(Timestamp::from_micros(i64::MIN)),
            (_, Some((seq, row))) => row.at().filter(|_| *seq <= read),
            (Some(_), None) => Some(Timestamp::from_micros(i64::MIN)),
            (None, None) => None,
        }
    }

    fn pop(
        &mut self,
        is_again: bool,
        (lane, id): (Lane, u64),
        bisect: bool,
        (now, read): (Timestamp, Seq),
    ) -> Option<Job> {
        self.again_next = !is_again;
        let job = |(seq, row): (Seq, Row)| Job {
            address: bellwire_schemas::Address::new(lane, seq),
            event: None,
            attempts: row.attempts,
            since: row.since,
            debt: Some(row.reason),
            error: None,
            line: id,
            bytes: 0,
            most: if bisect { row.most } else { usize::MAX },
        };
        if is_again {
            let is_due = self.again.values().next().and_then(Row::at).is_some_and(|at| at <= now);
            return is_due.then(|| self.again.pop_first()).flatten().map(job);
        }
        if self.live(read).is_none_or(|at| at > now) {
            return None;
        }
        match (self.memory.front(), self.rows.first_key_value()) {
            (Some(fresh), Some((seq, _))) if fresh.address.seq < *seq => self.memory.pop_front(),
            (_, Some(_)) => self.rows.pop_first().map(job),
            (Some(_), None) => self.memory.pop_front(),
            (None, None) => None,
        }
    }
}

impl Row {
    fn of(owed: &Owed, is_written: bool) -> Self {
        let is_suspect = owed.attempts > 0 && owed.error.as_ref().is_none_or(|e| e.kind != REPORTED);
        let most = if is_suspect { 1 } else { usize::MAX };
        let (at, attempts, since, reason) = (owed.next_at, owed.attempts, owed.since, owed.reason.clone());
        Self { at, attempts, since, reason, most, is_written }
    }

    /// When it may run; a row that is not written yet has no time.
    fn at(&self) -> Option<Timestamp> {
        self.is_written.then_some(self.at)
    }
}

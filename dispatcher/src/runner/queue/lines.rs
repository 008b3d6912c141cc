//! Deliveries in order: each key has a line, of which one batch at most is out.
//!
//! A line holds fresh events in memory and debts that lie in the ledger as rows; of both, the lowest place goes first.
//! A row that is not due yet, or not written yet, holds up its own line and nothing else. Redriven, replayed and delayed
//! debts stand beside it: in order among themselves, never out together with the line, but not holding it up.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bellwire_ledger::{Owed, OwedReason};
use bellwire_schemas::{Lane, Seq, Timestamp};

use super::batch::{Batch, Draw};
use super::job::{Job, Kind, line_of};
use super::line::{Line, Moment, Next, Row};
use super::{Change, Ready, Room};

/// The kinds that have a turn of their own; parts of new or owed ones take theirs as long as there are any, because they
/// came before them.
const TURNS: [Kind; 3] = [Kind::Fresh, Kind::Debt, Kind::Lone];

/// The time of lines that are looked at again before anything is taken.
const SOON: Timestamp = Timestamp::from_micros(i64::MIN);

/// The lines of a binding in a lane.
#[derive(Debug)]
pub(super) struct Lines {
    lane: Lane,
    lines: HashMap<u64, Line>,
    /// Lines of which something may run, by what that is, in the order of their tickets.
    rings: [BTreeMap<u64, u64>; 5],
    tickets: u64,
    next: usize,
    /// Whether parts of batches are kept apart; as the last batch had it.
    bisect: bool,
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

impl Lines {
    pub(super) fn new(lane: Lane) -> Self {
        Self {
            lane,
            lines: HashMap::new(),
            rings: Default::default(),
            tickets: 0,
            next: 0,
            bisect: true,
            timers: BTreeSet::new(),
            read: Seq(0),
            beyond: BTreeMap::new(),
            fresh: 0,
            bytes: 0,
            rows: 0,
        }
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
        self.settle(id, now);
    }

    /// Forgets a row that ends without having been taken.
    pub(super) fn drop_row(&mut self, id: u64, seq: Seq) {
        let Some(line) = self.lines.get_mut(&id) else { return };
        let before = line.known();
        line.rows.remove(&seq);
        line.again.remove(&seq);
        line.delayed.remove(seq);
        self.rows -= before - line.known();
        self.timers.insert((SOON, id));
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
        if self.bisect != room.bisect {
            self.bisect = room.bisect;
            self.review(now);
        }
        self.wake(now);
        let mut batch = Batch::new(room);
        // Every key once, then those that have more, again in turn.
        let mut more = VecDeque::new();
        let mut next = self.next;
        batch.fill(&mut next, TURNS.len(), |turn, batch| {
            let Some((id, first)) = self.first(TURNS[turn], room.fresh, now) else { return Draw::Nothing };
            if !batch.has_room_for(first.size) {
                return Draw::Waits;
            }
            let Some(job) = self.pop(id, first) else { return Draw::Nothing };
            self.leave(id);
            more.push_back((id, first.is_again));
            Draw::Job(Box::new(job))
        });
        self.next = next;
        while !batch.is_full()
            && let Some((id, is_again)) = more.pop_front()
        {
            let moment = self.moment(now);
            let Some(next) = self.lines.get(&id).and_then(|line| line.first(is_again, moment)) else {
                continue;
            };
            if (room.fresh || next.size.kind != Kind::Fresh)
                && batch.has_room_for(next.size)
                && let Some(job) = self.pop(id, next)
            {
                batch.add(job);
                more.push_back((id, is_again));
            }
        }
        batch.jobs
    }

    /// Whether new events, with the debts that may join them, make a full batch.
    pub(super) fn fills(&mut self, room: Room, now: Timestamp) -> bool {
        if self.fresh + self.rows < room.events && self.bytes < room.bytes {
            return false;
        }
        let (mut events, mut bytes) = (0, 0);
        let moment = self.moment(now);
        // Debts do not join while parts of such stand before them.
        let joining = if self.rings[Kind::OwedPart as usize].is_empty() { 2 } else { 1 };
        let kinds = [Kind::Fresh, Kind::Debt].into_iter().take(joining);
        for id in kinds.flat_map(|kind| self.rings[kind as usize].values()) {
            let Some(line) = self.lines.get_mut(id) else { continue };
            let Some(next) = line.next(moment) else { continue };
            let (more, size) = line.count_whole(next.is_again, moment, room.events - events);
            (events, bytes) = (events + more, bytes + size);
            if events >= room.events || bytes >= room.bytes {
                return true;
            }
        }
        false
    }

    pub(super) fn ready(&mut self, now: Timestamp) -> Ready {
        self.wake(now);
        let others = [Kind::Debt, Kind::Part, Kind::OwedPart, Kind::Lone];
        // Each may move lines to where they belong now.
        for kind in [Kind::Fresh].iter().chain(&others) {
            self.front(*kind, now);
        }
        let others = others.iter().any(|kind| self.front(*kind, now).is_some());
        Ready { fresh: self.front(Kind::Fresh, now).is_some(), others }
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
        let jobs: Vec<Job> =
            self.lines.values_mut().flat_map(|line| std::mem::take(&mut line.memory)).collect();
        (self.fresh, self.bytes) = (0, 0);
        self.timers.extend(jobs.iter().map(|job| (SOON, job.line)));
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
        let moment = self.moment(now);
        let Some(line) = self.lines.get_mut(&id) else { return };
        if line.out > 0 {
            return;
        }
        let next = line.next(moment).map(|next| next.size.kind);
        let later = line.later(moment);
        if line.place.map(|(kind, _)| kind) != next {
            if let Some((kind, ticket)) = line.place.take() {
                self.rings[kind as usize].remove(&ticket);
            }
            if let Some(kind) = next {
                self.tickets += 1;
                line.place = Some((kind, self.tickets));
                self.rings[kind as usize].insert(self.tickets, id);
            }
        }
        if let Some(at) = later {
            self.timers.insert((at, id));
        }
        if line.is_empty() {
            self.lines.remove(&id);
        }
    }

    /// Who has this turn; `fresh`: new events may go.
    fn first(&mut self, turn: Kind, fresh: bool, now: Timestamp) -> Option<(u64, Next)> {
        match turn {
            Kind::Fresh => {
                self.front(Kind::Part, now).or_else(|| fresh.then(|| self.front(Kind::Fresh, now)).flatten())
            }
            Kind::Debt => self.front(Kind::OwedPart, now).or_else(|| self.front(Kind::Debt, now)),
            kind => self.front(kind, now),
        }
    }

    /// The first line of a ring; one that does not belong there any more goes where it does.
    fn front(&mut self, kind: Kind, now: Timestamp) -> Option<(u64, Next)> {
        let moment = self.moment(now);
        while let Some((ticket, id)) = self.rings[kind as usize].first_key_value().map(|(t, id)| (*t, *id)) {
            let next = self.lines.get_mut(&id).and_then(|line| line.next(moment));
            if let Some(next) = next.filter(|next| next.size.kind == kind) {
                return Some((id, next));
            }
            self.rings[kind as usize].remove(&ticket);
            if let Some(line) = self.lines.get_mut(&id) {
                line.place = None;
            }
            self.settle(id, now);
        }
        None
    }

    /// Takes the next job of a line out, and the line out of its ring.
    fn pop(&mut self, id: u64, next: Next) -> Option<Job> {
        let line = self.lines.get_mut(&id)?;
        if let Some((kind, ticket)) = line.place.take() {
            self.rings[kind as usize].remove(&ticket);
        }
        let job = line.pop(next, (self.lane, id))?;
        if job.event.is_some() {
            self.fresh -= 1;
            self.bytes -= job.bytes;
        } else {
            self.rows -= 1;
        }
        Some(job)
    }

    fn moment(&self, now: Timestamp) -> Moment {
        Moment { now, read: self.read, bisect: self.bisect }
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

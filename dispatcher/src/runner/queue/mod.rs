//! Deliveries in memory that wait for a slot, and which of them make the next batch. Pure: no clock, no ledger.
//!
//! Without order, streams take turns (`free.rs`: fresh events, live ones that came while the binding was far behind,
//! debts, debts that go alone) and within a stream the keys do (`ring.rs`): neither a backlog nor a wave of retries nor
//! one key holds up the others. In order, each key has a line of which one batch at most is out (`lines.rs`). What goes
//! alone, or in a part of a batch, makes a batch of its own and leaves those of the others whole (`batch.rs`).

mod batch;
mod delayed;
mod free;
mod job;
mod line;
mod lines;
mod ring;
#[cfg(test)]
mod tests;

use std::collections::HashSet;

use bellwire_ledger::Owed;
use bellwire_schemas::service::Ordering;
use bellwire_schemas::{Lane, Seq, Timestamp};

use free::Free;
pub(super) use job::{Job, Stream};
pub(crate) use job::{REPORTED, line_of};
use lines::Lines;

/// What one batch may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Events.
    pub(super) events: usize,
    /// Bytes of events; one larger event goes alone. Debts count when they are read.
    pub(super) bytes: usize,
    /// What failed alone is tried alone.
    pub(super) bisect: bool,
    /// New events may go; if not, more of them are waited for.
    pub(super) fresh: bool,
}

/// What could run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// New events.
    pub(super) fresh: bool,
    /// Debts, and what has come back from a batch that failed as a whole.
    pub(super) others: bool,
}

/// A debt row that changes with the flush under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) seq: Seq,
    pub(super) line: u64,
}

/// What waits for a slot.
#[derive(Debug)]
pub(super) struct Queue {
    lane: Lane,
    order: Order,
    /// Places of which memory knows more than the ledger's rows say: in flight, changed or ended but not confirmed; for
    /// bindings without order also those in memory.
    held: HashSet<Seq>,
    /// Places that a flush makes debts, which is not confirmed yet.
    unwritten: HashSet<Seq>,
}

#[derive(Debug)]
enum Order {
    Free(Box<Free>),
    Lines(Box<Lines>),
}

impl Queue {
    pub(super) fn new(lane: Lane, ordering: Ordering) -> Self {
        Self { lane, order: Order::new(lane, ordering), held: HashSet::new(), unwritten: HashSet::new() }
    }

    /// Starts over with another order; what is in flight stays known, the caller reads debts and events again.
    pub(super) fn reorder(&mut self, ordering: Ordering, aboard: impl Iterator<Item = u64>) {
        self.drop_debts();
        self.order = Order::new(self.lane, ordering);
        if let Order::Lines(lines) = &mut self.order {
            aboard.for_each(|line| lines.leave(line));
        }
    }

    pub(super) fn is_ordered(&self) -> bool {
        matches!(self.order, Order::Lines(_))
    }

    /// Says how far the reader has come: a debt in order does not run before everything below it is known.
    pub(super) fn set_read(&mut self, read: Seq, now: Timestamp) {
        if let Order::Lines(lines) = &mut self.order {
            lines.set_read(read, now);
        }
    }

    /// Takes a fresh event in.
    pub(super) fn push_fresh(&mut self, job: Job, stream: Stream, now: Timestamp) {
        match &mut self.order {
            Order::Free(free) => free.push_fresh(job, stream),
            Order::Lines(lines) => lines.push_fresh(job, now),
        }
    }

    /// Whether a fresh event of this line must wait behind debts of its key, and is one itself from now on.
    pub(super) fn is_parked(&self, line: u64) -> bool {
        matches!(&self.order, Order::Lines(lines) if lines.is_parked(line))
    }

    /// Takes a due debt of a binding without order in, unless memory knows more.
    pub(super) fn push_due(&mut self, job: Job) {
        if let Order::Free(free) = &mut self.order
            && self.held.insert(job.address.seq)
        {
            free.push_debt(job);
        }
    }

    /// Replaces what is known of the debts of a binding in order by all the rows of the ledger.
    pub(super) fn learn(&mut self, rows: &[Owed], now: Timestamp) {
        let Order::Lines(lines) = &mut self.order else { return };
        lines.forget_rows(&self.held);
        for row in rows.iter().filter(|row| !self.held.contains(&row.seq)) {
            lines.learn(row, now);
        }
        lines.review(now);
    }

    /// Notes a debt that goes to the ledger with the next flush. It may run when that is confirmed.
    pub(super) fn owe(&mut self, owed: &Owed, line: u64, now: Timestamp) -> Change {
        self.held.insert(owed.seq);
        self.unwritten.insert(owed.seq);
        if let Order::Lines(lines) = &mut self.order {
            lines.owe(owed, line, now);
        }
        Change { seq: owed.seq, line }
    }

    /// Notes that the end of a debt goes to the ledger with the next flush.
    pub(super) fn end(&mut self, job: &Job) -> Change {
        self.held.insert(job.address.seq);
        if let Order::Lines(lines) = &mut self.order {
            lines.drop_row(job.line, job.address.seq);
        }
        Change { seq: job.address.seq, line: job.line }
    }

    /// The ledger has confirmed a change.
    pub(super) fn confirm(&mut self, change: Change, now: Timestamp) {
        self.held.remove(&change.seq);
        self.unwritten.remove(&change.seq);
        if let Order::Lines(lines) = &mut self.order {
            lines.written(change, now);
        }
    }

    /// Keeps a place from being taken a second time although it has a row now: what is in flight, or has ended.
    pub(super) fn hold(&mut self, seq: Seq, line: u64) -> Change {
        self.held.insert(seq);
        self.unwritten.insert(seq);
        Change { seq, line }
    }

    /// Whether memory knows more of a place than the ledger's row.
    pub(super) fn is_held(&self, seq: Seq) -> bool {
        self.held.contains(&seq)
    }

    /// A debt that was in memory turned out to be gone from the ledger.
    pub(super) fn forget(&mut self, seq: Seq) {
        self.held.remove(&seq);
    }

    /// The next batch, in the order of places; its lines are out until [`Queue::landed`].
    pub(super) fn take(&mut self, room: Room, now: Timestamp) -> Vec<Job> {
        let mut jobs = match &mut self.order {
            Order::Free(free) => free.take(room),
            Order::Lines(lines) => lines.take(room, now),
        };
        for job in jobs.iter().filter(|job| job.debt.is_some()) {
            self.held.insert(job.address.seq);
        }
        jobs.sort_by_key(|job| job.address);
        jobs
    }

    /// Puts jobs back at the front: they were not attempted, or the attempt did not count. Oldest first.
    pub(super) fn put_back(&mut self, jobs: Vec<Job>, now: Timestamp) {
        for job in jobs.into_iter().rev() {
            match &mut self.order {
                Order::Free(free) => free.put_back(job),
                Order::Lines(lines) => {
                    let is_written = !self.unwritten.contains(&job.address.seq);
                    if job.debt.is_some() && is_written {
                        self.held.remove(&job.address.seq);
                    }
                    lines.put_back(job, is_written, now);
                }
            }
        }
    }

    /// Puts a job behind the others: its target was not there, and the next one to ask should be another.
    pub(super) fn put_behind(&mut self, job: Job, now: Timestamp) {
        match &mut self.order {
            Order::Free(free) => free.put_behind(job),
            Order::Lines(_) => self.put_back(vec![job], now),
        }
    }

    /// The batch that was out has landed: its lines go on. After `put_back`, `owe` and `end` of its jobs.
    pub(super) fn landed(&mut self, lines_out: impl Iterator<Item = u64>, now: Timestamp) {
        if let Order::Lines(lines) = &mut self.order {
            lines_out.for_each(|line| lines.land(line, now));
        }
    }

    /// What could run now.
    pub(super) fn ready(&mut self, now: Timestamp) -> Ready {
        match &mut self.order {
            Order::Free(free) => free.ready(),
            Order::Lines(lines) => lines.ready(now),
        }
    }

    /// Whether what is ready fills a batch in which there are new events.
    pub(super) fn fills(&mut self, room: Room, now: Timestamp) -> bool {
        match &mut self.order {
            Order::Free(free) => free.fills(room),
            Order::Lines(lines) => lines.fills(room, now),
        }
    }

    /// When the next debt of a binding in order is due.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        match &self.order {
            Order::Free(_) => None,
            Order::Lines(lines) => lines.next_at(),
        }
    }

    /// Fresh events that wait behind one in flight although other keys go on: takes out the later half of the longest
    /// line, if that has at least so many, to be owed as parked.
    pub(super) fn relieve(&mut self, least: usize) -> Vec<Job> {
        match &mut self.order {
            Order::Free(_) => Vec::new(),
            Order::Lines(lines) => lines.relieve(least),
        }
    }

    /// Fresh events of a line whose first delivery failed: they are owed as parked.
    pub(super) fn park(&mut self, line: u64) -> Vec<Job> {
        match &mut self.order {
            Order::Free(_) => Vec::new(),
            Order::Lines(lines) => lines.drain(line),
        }
    }

    /// Forgets due debts in memory of a binding without order; their rows are read again.
    pub(super) fn drop_debts(&mut self) {
        if let Order::Free(free) = &mut self.order {
            for seq in free.drop_debts() {
                self.held.remove(&seq);
            }
        }
    }

    /// Takes all fresh ones out, oldest first.
    pub(super) fn take_fresh(&mut self) -> Vec<Job> {
        let mut jobs = match &mut self.order {
            Order::Free(free) => free.take_fresh(),
            Order::Lines(lines) => lines.take_fresh(),
        };
        jobs.sort_by_key(|job| job.address);
        jobs
    }

    /// Takes one delivery out that waits in memory; with order only a fresh one.
    pub(super) fn remove(&mut self, seq: Seq, now: Timestamp) -> Option<Job> {
        match &mut self.order {
            Order::Free(free) => free.remove(seq),
            Order::Lines(lines) => lines.remove(seq, now),
        }
    }

    /// Fresh events in memory.
    pub(super) fn fresh_len(&self) -> usize {
        match &self.order {
            Order::Free(free) => free.fresh_len(),
            Order::Lines(lines) => lines.len(),
        }
    }

    /// Fresh events in memory of one stream.
    pub(super) fn stream_len(&self, stream: Stream) -> usize {
        match &self.order {
            Order::Free(free) => free.stream_len(stream),
            Order::Lines(lines) => lines.len(),
        }
    }

    /// Their bytes.
    pub(super) fn fresh_bytes(&self) -> usize {
        match &self.order {
            Order::Free(free) => free.bytes(),
            Order::Lines(lines) => lines.bytes(),
        }
    }

    /// Due debts in memory of a binding without order.
    pub(super) fn debts_len(&self) -> usize {
        match &self.order {
            Order::Free(free) => free.debts_len(),
            Order::Lines(_) => 0,
        }
    }

    /// Debts known of a binding in order.
    pub(super) fn rows(&self) -> usize {
        match &self.order {
            Order::Free(_) => 0,
            Order::Lines(lines) => lines.rows(),
        }
    }

    pub(super) fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Deliveries in memory that wait for a slot.
    pub(super) fn len(&self) -> usize {
        self.fresh_len() + self.debts_len()
    }
}

impl Ready {
    pub(super) fn any(self) -> bool {
        self.fresh || self.others
    }
}

impl Order {
    fn new(lane: Lane, ordering: Ordering) -> Self {
        match ordering {
            Ordering::None => Self::Free(Box::default()),
            Ordering::Key => Self::Lines(Box::new(Lines::new(lane))),
        }
    }
}

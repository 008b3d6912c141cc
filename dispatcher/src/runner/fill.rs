//! Where deliveries come from: the reader of the lane, and the debts that are due.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::{Owed, OwedReason, StoredEvent};
use bellwire_schemas::{Address, FinalState, Seq, Timestamp};

use super::Runner;
use super::admit::MAX_BURSTS;
use super::cut::cancelled;
use super::part::MAX_UNFLUSHED;
use super::queue::{Job, Stream, line_of};
use super::settle::{FILTER_MISMATCH, is_retry};
use crate::decide::{Admission, Candidate, admit};

/// Events read at once, or a batch's worth if that is more.
const READ_EVENTS: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// The reader goes on when fewer fresh deliveries than this, or than two batches, wait for a slot. It is also how far a
/// key's event can be behind a flood of another key and still have its turn with the next batches.
const WINDOW: usize = 1_024;
/// And when their payloads are smaller than this, or than a batch may have, so that large events cost no more memory
/// than many.
const WINDOW_BYTES: usize = 1 << 20;
/// Shorter lines are not worth their rows while it is their number that fills the window.
const WORTH: usize = 16;
/// Debts asked for at once; asked again when fewer than half of them wait for a slot.
const READ_DEBTS: usize = 64;
/// Debts of a binding in order read at once when its lane is taken.
const PAGE: usize = 10_000;
/// Debts of a binding in order in one lane: with more, it reads no further until some have ended.
const MAX_DEBTS: usize = 100_000;
/// When to read again what was not there yet.
const AGAIN_REST: Duration = Duration::from_millis(50);
/// When to look again for debts after the ledger refused, or for those that are in memory under another guise.
const DEBT_REST: Duration = Duration::from_secs(1);
/// So many events behind the end of its lane, a binding without order delivers what arrives now and what it missed in
/// turn.
const FAR_BEHIND: u64 = 10_000;

impl Runner {
    /// Takes on what there is room for.
    pub(super) async fn fill(&mut self) {
        if !self.is_taking() {
            return;
        }
        let now = self.scope.rooms.clock.now();
        let is_due = self.due_at.is_some_and(|at| at <= now);
        let (few, has_room) = (self.queue.debts_len() < READ_DEBTS / 2, self.has_room());
        if is_due && self.learns() {
            self.learn_debts(now).await;
        } else if is_due && few && has_room {
            self.load_debts(now).await;
        } else if few && !has_room && !self.learns() {
            self.load_kept(READ_DEBTS / 2, now).await;
        }
        self.relieve(now);
        if self.can_read() {
            self.split();
            self.read_events().await;
        }
        self.queue.set_read(self.cursor.read(), now);
    }

    /// Whether debts are read all at once.
    pub(super) fn learns(&self) -> bool {
        self.plan.is_ordered() || !self.is_learned
    }

    /// Whether the reader may go on and there is something to read.
    pub(super) fn can_read(&self) -> bool {
        let tail = *self.tail.borrow();
        self.wants_events()
            && (tail >= self.cursor.next() || self.cursor.next_live().is_some_and(|next| tail >= next))
    }

    /// Whether the reader may go on.
    pub(super) fn wants_events(&self) -> bool {
        self.is_taking()
            && self.is_learned
            && self.queue.fresh_len() < self.window()
            && self.queue.fresh_bytes() < self.window_bytes()
            && self.queue.rows() < MAX_DEBTS
            && self.bursts.len() < MAX_BURSTS
            && self.unflushed() < MAX_UNFLUSHED
            && !self.cursor.is_stretched()
            && self.read_after.is_none_or(|at| {
                let now = self.scope.rooms.clock.now();
                // A longer rest than was asked for means that the clock was set back.
                at <= now || at.since(now) > DEBT_REST
            })
    }

    /// Why the reader does not go on although nothing asked it to stop.
    pub(super) fn stalled(&self) -> Option<&'static str> {
        if self.cursor.is_stretched() {
            Some("cursor-span")
        } else if self.queue.rows() >= MAX_DEBTS || self.bursts.len() >= MAX_BURSTS {
            Some("parked-limit")
        } else {
            None
        }
    }

    fn window(&self) -> usize {
        WINDOW.max(2 * self.plan.spec.batch.size as usize)
    }

    fn window_bytes(&self) -> usize {
        let batch = self.plan.spec.batch;
        let one = if batch.size > 1 { usize::try_from(batch.bytes.0).unwrap_or(usize::MAX) } else { 0 };
        WINDOW_BYTES.max(one)
    }

    /// Makes room for other keys: what waits behind a slow key goes to the ledger when the window is full of it, though
    /// only if other keys went ahead. And what is out for long lets the cursor pass before it has to stop.
    fn relieve(&mut self, now: Timestamp) {
        let many = self.queue.fresh_len() >= self.window();
        let is_full = many || self.queue.fresh_bytes() >= self.window_bytes() || self.cursor.is_stretched();
        if self.queue.is_ordered()
            && is_full
            && self.unflushed() < MAX_UNFLUSHED
            && !self.cursor.done().is_empty()
            && !self.queue.ready(now).any()
        {
            // A few that fill the window by their size or hold the cursor are worth their rows, too.
            let jobs = self.queue.relieve(if many { WORTH } else { 1 });
            self.spill(jobs, now);
        }
        self.prune_bursts(now);
        if self.bursts.len() >= MAX_BURSTS {
            self.read_after = Some(now.plus(DEBT_REST));
        }
        if self.cursor.is_stretched() && self.unflushed() < MAX_UNFLUSHED {
            self.let_pass(now);
        }
    }

    /// Everything in flight becomes a debt, so that it does not hold the cursor.
    fn let_pass(&mut self, now: Timestamp) {
        let mut aboard = std::mem::take(&mut self.aboard);
        for flight in aboard.values_mut() {
            for job in flight.jobs.iter_mut().filter(|job| job.debt.is_none()) {
                let key = job.key().map(str::to_owned);
                let seq = job.address.seq;
                let (attempts, since, error) = (job.attempts, job.since, job.error.clone());
                if self.plan.spec.singleton.is_some() {
                    self.retries.insert(seq, job.line);
                }
                self.part.owed.push(Owed {
                    seq,
                    attempts,
                    next_at: now,
                    since,
                    error,
                    reason: OwedReason::Retry,
                    key,
                });
                self.part.changed.push(self.queue.hold(seq, job.line));
                self.cursor.settle(seq);
                job.debt = Some(OwedReason::Retry);
            }
        }
        self.aboard = aboard;
    }

    /// Far behind, a binding without order reads the end of the lane, too.
    fn split(&mut self) {
        self.cursor.jump();
        let tail = *self.tail.borrow();
        let is_far = tail.0.saturating_sub(self.cursor.next().0) > FAR_BEHIND;
        // What is last of a burst, or came first, is told by reading in order.
        if !self.remembers() && is_far && self.cursor.next_live().is_none() {
            self.cursor.split(tail);
        }
    }

    async fn read_events(&mut self) {
        let tail = *self.tail.borrow_and_update();
        let (from, stream) = match self.cursor.next_live().filter(|next| *next <= tail) {
            // In turn, by what waits of each; the gap first when both are empty.
            Some(live) if self.queue.stream_len(Stream::Live) < self.queue.stream_len(Stream::Cursor) => {
                (live, Stream::Live)
            }
            Some(live) if self.cursor.next() > tail => (live, Stream::Live),
            _ => (self.cursor.next(), Stream::Cursor),
        };
        let most = READ_EVENTS.max(self.plan.spec.batch.size as usize);
        let limit = most.min(MAX_UNFLUSHED.saturating_sub(self.unflushed()).max(1));
        let read = self.scope.rooms.feed.read(self.scope.lane, from, limit, READ_BYTES).await;
        let now = self.scope.rooms.clock.now();
        match read {
            Ok(events) => {
                self.read_after = None;
                self.set_unread(None);
                if events.is_empty() {
                    self.skip_removed(tail).await;
                }
                for event in events {
                    self.meet(event, stream);
                }
                self.part.moved(now);
            }
            Err(error) => {
                tracing::warn!(lane = %self.scope.lane, binding = %self.binding.name, %error, "cannot read the lane");
                self.read_after = Some(now.plus(DEBT_REST));
                self.set_unread(Some(error.to_string()));
            }
        }
    }

    /// Everything up to the tail has been removed by retention, unless the ledger does not reach that far: then it has
    /// lost events that were seen (a fail-over), and what comes to their places must not be skipped.
    async fn skip_removed(&mut self, tail: Seq) {
        let (rooms, lane) = (Arc::clone(&self.scope.rooms), self.scope.lane);
        let gone = match rooms.ledger().tail(lane).await {
            Ok(now) if now >= tail => {
                // They may have come between the two questions.
                rooms
                    .ledger()
                    .read(lane, self.cursor.next(), 1, 1)
                    .await
                    .map(|events| events.first().is_none_or(|event| event.address.seq > tail))
            }
            Ok(_) => Ok(false),
            Err(error) => Err(error),
        };
        match gone {
            Ok(true) => self.cursor.skip_to(tail),
            Ok(false) => self.read_after = Some(rooms.clock.now().plus(AGAIN_REST)),
            Err(error) => {
                tracing::warn!(%lane, binding = %self.binding.name, %error, "cannot read the lane");
                self.read_after = Some(rooms.clock.now().plus(DEBT_REST));
            }
        }
    }

    /// Notes an event of the lane; those met before are passed over.
    fn meet(&mut self, event: StoredEvent, stream: Stream) {
        let seq = event.address.seq;
        let is_new = match stream {
            Stream::Cursor => self.cursor.arrive(seq),
            Stream::Live => self.cursor.arrive_live(seq),
        };
        if is_new {
            self.consider(event, stream);
        }
    }

    /// Decides what becomes of one event of the lane.
    pub(super) fn consider(&mut self, event: StoredEvent, stream: Stream) {
        let seq = event.address.seq;
        if event.source != self.plan.spec.source {
            self.cursor.settle(seq);
            self.release(event.address);
            return;
        }
        let now = self.scope.rooms.clock.now();
        if let Some(error) = self.cancelled.remove(&seq) {
            self.settle_cancelled(&Job::fresh(event), error);
            return;
        }
        let filter = self.plan.filter_at(event.address);
        let matches = filter.patterns().is_empty() || filter.matches(&self.scope.envelopes.of(&event));
        match admit(&self.plan.policy, &Candidate { matches, since: event.accepted_at, now }) {
            Admission::Filtered => self.settle_filtered(&event, FILTER_MISMATCH, now),
            Admission::Expired => self.settle_unattempted(&Job::fresh(event), FinalState::Expired, "too-old"),
            Admission::Attempt => self.line_up(Job::fresh(event), stream, now),
        }
    }

    /// Reads all debts of the binding, where what they say matters for later events.
    async fn learn_debts(&mut self, now: Timestamp) {
        let (mut rows, mut last): (Vec<Owed>, Seq) = (Vec::new(), Seq(0));
        loop {
            let page = self.scope.rooms.ledger().debts(self.scope.lane, self.binding.id, last, PAGE).await;
            match page {
                Ok(page) => {
                    let is_last = page.len() < PAGE;
                    let after_page = page.last().map(|row| row.seq);
                    rows.extend(page.into_iter().filter(|row| self.matters(row)));
                    last = after_page.unwrap_or(last);
                    if is_last {
                        break;
                    }
                }
                Err(error) => {
                    tracing::warn!(lane = %self.scope.lane, binding = %self.binding.name, %error, "cannot read the debts");
                    self.due_at = Some(now.plus(DEBT_REST));
                    return;
                }
            }
        }
        let requests = rows.extract_if(.., |row| row.reason == OwedReason::Cancelled).collect();
        self.cancel(requests);
        self.queue.learn(&rows, now);
        if !self.plan.is_ordered() {
            self.release_parked(&rows, now);
        }
        if !self.is_learned {
            self.recall(&rows);
        }
        // Without order, those that are due are asked for next.
        self.due_at = (!self.plan.is_ordered()).then_some(now);
        self.is_learned = true;
    }

    /// Whether a debt must be known before events are read.
    fn matters(&self, row: &Owed) -> bool {
        match row.reason {
            _ if self.plan.is_ordered() => true,
            _ if is_retry(row) => self.plan.spec.singleton.is_some(),
            OwedReason::Parked | OwedReason::Blocked | OwedReason::Debounced | OwedReason::Cancelled => true,
            OwedReason::Retry | OwedReason::Redrive | OwedReason::Replay(_) | OwedReason::Delayed => false,
        }
    }

    /// Debts that waited for their key, of a binding that is not in order any more, are due now.
    fn release_parked(&mut self, rows: &[Owed], now: Timestamp) {
        for row in rows {
            if row.waits_for_key() && !self.queue.is_held(row.seq) {
                let owed = Owed { next_at: now, reason: OwedReason::Retry, ..row.clone() };
                let line = line_of(row.key.as_deref(), row.seq);
                self.part.changed.push(self.queue.owe(&owed, line, now));
                self.part.owed.push(owed);
            }
        }
    }

    /// Does what operators asked for: gives up deliveries that are no debts yet.
    pub(super) fn cancel(&mut self, requests: Vec<Owed>) {
        let now = self.scope.rooms.clock.now();
        for request in requests {
            let seq = request.seq;
            let error = request.error.unwrap_or_else(cancelled);
            if self.cursor.is_settled(seq) {
                // Its attempt failed before the request was heard: it is a debt by now.
                if !self.queue.is_held(seq) {
                    let line = line_of(request.key.as_deref(), seq);
                    let mut job = Job::blank(Address::new(self.scope.lane, seq), line, now);
                    job.debt = Some(OwedReason::Cancelled);
                    self.settle_cancelled(&job, error);
                }
                continue;
            }
            if let Some(job) = self.queue.remove(seq, now) {
                self.settle_cancelled(&job, error);
            } else if !self.cut(seq, error.clone()) {
                self.cancelled.insert(seq, error);
            }
        }
    }

    async fn load_debts(&mut self, now: Timestamp) {
        // Rows of debts in memory are still there, so they come with the answer.
        let limit = self.queue.held_len() + self.cancelled.len() + self.cuts.len() + READ_DEBTS;
        let due = self.scope.rooms.ledger().due(self.scope.lane, self.binding.id, now, limit).await;
        let due = match due {
            Ok(due) => due,
            Err(error) => {
                tracing::warn!(lane = %self.scope.lane, binding = %self.binding.name, %error, "cannot read the debts");
                self.due_at = Some(now.plus(DEBT_REST));
                return;
            }
        };
        let full = due.due.len() >= limit;
        let mut deferred = false;
        let (requests, owed): (Vec<Owed>, Vec<Owed>) =
            due.due.into_iter().partition(|row| row.reason == OwedReason::Cancelled);
        self.cancel(requests);
        for owed in owed {
            if self.cursor.is_settled(owed.seq) {
                let job = Job::debt(self.scope.lane, owed, self.plan.spec.batch.bisect);
                if self.is_let_in(&job) {
                    self.queue.push_due(job);
                }
            } else {
                // The cursor still holds the same place: first things first.
                deferred = true;
            }
        }
        let rest = deferred.then(|| now.plus(DEBT_REST));
        self.due_at = match (full, rest) {
            (true, None) => Some(now),
            (true, rest) => rest,
            (false, rest) => due.next_at.into_iter().chain(rest).min(),
        };
    }
}

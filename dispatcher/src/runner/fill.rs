//! Where deliveries come from: the reader of the lane, and the debts that are due.

use std::sync::Arc;
use std::time::Duration;

use bellwire_ledger::StoredEvent;
use bellwire_schemas::{FinalState, Seq, Timestamp};

use super::Runner;
use super::part::MAX_UNFLUSHED;
use super::queue::Job;
use crate::decide::{Admission, Candidate, admit};

/// Events read at once.
const READ_EVENTS: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;
/// The reader goes on when fewer fresh deliveries than this wait for a slot.
const LOW_FRESH: usize = 64;
/// And when their payloads are smaller than this, so that large events cost no more memory than many.
const LOW_BYTES: usize = 2 << 20;
/// Debts asked for at once; asked again when fewer than half of them wait for a slot.
const READ_DEBTS: usize = 64;
/// When to read again what was not there yet.
const AGAIN_REST: Duration = Duration::from_millis(50);
/// When to look again for debts after the ledger refused, or for those that are in memory under another guise.
const DEBT_REST: Duration = Duration::from_secs(1);

impl Runner {
    /// Takes on what there is room for.
    pub(super) async fn fill(&mut self) {
        if !self.is_taking() {
            return;
        }
        let now = self.scope.rooms.clock.now();
        if self.due_at.is_some_and(|at| at <= now) && self.queue.debts_len() < READ_DEBTS / 2 {
            self.load_debts(now).await;
        }
        if self.can_read() {
            self.read_events().await;
        }
    }

    /// Whether the reader may go on and there is something to read.
    pub(super) fn can_read(&self) -> bool {
        self.wants_events() && *self.tail.borrow() >= self.cursor.next()
    }

    /// Whether the reader may go on.
    pub(super) fn wants_events(&self) -> bool {
        self.is_taking()
            && self.queue.fresh_len() < LOW_FRESH
            && self.queue.fresh_bytes() < LOW_BYTES
            && self.unflushed() < MAX_UNFLUSHED
            && !self.cursor.is_stretched()
            && self.read_after.is_none_or(|at| {
                let now = self.scope.rooms.clock.now();
                // A longer rest than was asked for means that the clock was set back.
                at <= now || at.since(now) > DEBT_REST
            })
    }

    async fn read_events(&mut self) {
        let tail = *self.tail.borrow_and_update();
        let limit = READ_EVENTS.min(MAX_UNFLUSHED.saturating_sub(self.unflushed()).max(1));
        let read = self.scope.rooms.feed.read(self.scope.lane, self.cursor.next(), limit, READ_BYTES).await;
        let now = self.scope.rooms.clock.now();
        match read {
            Ok(events) => {
                self.read_after = None;
                self.set_unread(None);
                if events.is_empty() {
                    self.skip_removed(tail).await;
                }
                for event in events {
                    self.consider(event);
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

    /// Decides what becomes of one event of the lane.
    pub(super) fn consider(&mut self, event: StoredEvent) {
        let seq = event.address.seq;
        if !self.cursor.arrive(seq) {
            return;
        }
        if event.source != self.plan.spec.source {
            self.cursor.settle(seq);
            return;
        }
        let now = self.scope.rooms.clock.now();
        let filter = &self.plan.filter;
        let matches = filter.patterns().is_empty() || filter.matches(&self.scope.envelopes.of(&event));
        match admit(&self.plan.policy, &Candidate { matches, since: event.accepted_at, now }) {
            Admission::Filtered => self.settle_filtered(&event, now),
            Admission::Expired => self.settle_unattempted(&Job::fresh(event), FinalState::Expired, "too-old"),
            Admission::Attempt => self.queue.push_fresh(Job::fresh(event)),
        }
    }

    async fn load_debts(&mut self, now: Timestamp) {
        // Rows of debts in memory are still there, so they come with the answer.
        let limit = self.queue.held_len() + READ_DEBTS;
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
        for owed in due.due {
            if self.cursor.is_settled(owed.seq) {
                self.queue.push_debt(Job::debt(self.scope.lane, owed));
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

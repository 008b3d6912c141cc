//! What stands between the filter and the queue: a later time, else the end of a burst, and a delivery of the same key
//! that is not over (`singles.rs`). What is turned away ends as filtered, and says why.

use std::collections::HashSet;
use std::time::Duration;

use bellwire_ledger::{LogOutcome, Owed, OwedReason};
use bellwire_schemas::event::{DELIVER_AT, MAX_DELAY};
use bellwire_schemas::service::Debounce;
use bellwire_schemas::{Address, ErrorInfo, FailureClass, FinalState, Seq, Timestamp};

use super::Runner;
use super::queue::{Job, Stream, line_of};
use super::settle::keeps_key;
use super::singles::group;

/// What an event's time may be beyond the limit by what the ledger notes: the door's clock is another one, and it was
/// asked before.
const SLACK: Duration = Duration::from_secs(86_400);
/// A burst that is long over when it is read waits this long, so that the rest of it is read, too.
const CATCH_UP: Duration = Duration::from_millis(250);
/// Bursts of one binding in one lane at a time; with more, it reads no further until some are over.
pub(super) const MAX_BURSTS: usize = 100_000;

/// Events of a key that came in close succession, of which the last one waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    last: Seq,
    first_at: Timestamp,
    due_at: Timestamp,
}

impl Runner {
    /// Where a delivery waits that the filter let through.
    pub(super) fn line_up(&mut self, job: Job, stream: Stream, now: Timestamp) {
        let asked = deliver_at(&job);
        if let Some(at) = asked.filter(|at| *at > now) {
            let job = Job { since: at, ..job };
            self.owe(&job, 0, at, None, OwedReason::Delayed);
            return;
        }
        // Its own time wins, also when it has passed.
        if let Some(rule) = self.plan.spec.debounce.filter(|_| asked.is_none()) {
            self.debounce(&job, rule, now);
            return;
        }
        if let Some(rule) = self.plan.spec.singleton
            && !self.is_alone(&job, rule)
        {
            return;
        }
        match self.queue.is_parked(job.line) {
            true => self.spill(vec![job], now),
            false => self.queue.push_fresh(job, stream, now),
        }
    }

    /// Makes the event the last of its burst, and ends the one before.
    fn debounce(&mut self, job: &Job, rule: Debounce, now: Timestamp) {
        let key = group(job.key());
        let seq = job.address.seq;
        let before = self.bursts.get(&key).copied();
        let came_at = job.since;
        let goes_on = |burst: &Burst| burst.due_at > now && burst.due_at > came_at;
        let first_at = before.filter(goes_on).map_or(came_at, |burst| burst.first_at);
        let latest = rule.max_wait.map(|most| first_at.plus(most));
        let quiet = came_at.plus(rule.wait);
        let due_at = latest.map_or(quiet, |latest| quiet.min(latest)).max(now.plus(CATCH_UP));
        if let Some(burst) = before.filter(goes_on) {
            self.end_debounced(burst.last, job.line);
        }
        self.bursts.insert(key, Burst { last: seq, first_at, due_at });
        let job = Job { since: first_at, ..job.clone() };
        self.owe(&job, 0, due_at, None, OwedReason::Debounced);
    }

    /// Forgets bursts that are over, when there are many.
    pub(super) fn prune_bursts(&mut self, now: Timestamp) {
        if self.bursts.len() >= MAX_BURSTS {
            self.bursts.retain(|_, burst| burst.due_at > now);
        }
    }

    fn end_debounced(&mut self, seq: Seq, line: u64) {
        let mut job = self.blank(seq, line);
        job.debt = Some(OwedReason::Debounced);
        let now = self.scope.rooms.clock.now();
        let mut entry = self.entry(&job, 0, now, LogOutcome::Final(FinalState::Filtered));
        entry.error = Some(ErrorInfo::platform(FailureClass::Function, "Delivery.debounced", ""));
        self.finish(&job, entry);
        self.tell_settled(job.address, FinalState::Filtered, "debounced");
    }

    /// Ends a delivery for a later one: in memory, in flight, or owed.
    pub(super) fn supersede(&mut self, seq: Seq, error: ErrorInfo) {
        let now = self.scope.rooms.clock.now();
        if let Some(job) = self.queue.remove(seq, now) {
            self.settle_cancelled(&job, error);
        } else if !self.cut(seq, error.clone())
            && let Some(line) = self.retries.remove(&seq)
        {
            let mut job = self.blank(seq, line);
            job.debt = Some(OwedReason::Retry);
            self.settle_cancelled(&job, error);
        }
    }

    /// Takes from the debts what is needed to go on, after the lane was taken or somebody else changed them: bursts, and
    /// what is under way.
    pub(super) fn recall(&mut self, rows: &[Owed]) {
        let queue = &self.queue;
        self.bursts.retain(|_, burst| queue.is_held(burst.last));
        self.late.keep_only(|seq| queue.is_held(seq));
        self.kept.keep_only(|seq| queue.is_held(seq));
        let (singles, lane) = (&self.binding.singles, self.scope.lane);
        let owed: HashSet<Seq> = rows.iter().map(|row| row.seq).collect();
        self.retries.retain(|seq, _| {
            let is_owed = queue.is_held(*seq) || owed.contains(seq);
            if !is_owed {
                singles.leave(Address::new(lane, *seq));
            }
            is_owed
        });
        // What memory knows more of is not what its row says.
        for row in rows {
            if self.queue.is_held(row.seq) {
                continue;
            }
            let line = line_of(row.key.as_deref(), row.seq);
            self.note_late(row, line);
            let key = group(row.key.as_deref());
            match row.reason {
                OwedReason::Debounced if row.attempts == 0 => {
                    let burst = Burst { last: row.seq, first_at: row.since, due_at: row.next_at };
                    self.bursts.insert(key, burst);
                }
                _ if self.plan.spec.singleton.is_some() && keeps_key(row) => {
                    let address = Address::new(self.scope.lane, row.seq);
                    self.binding.singles.enter(key, address, false);
                    self.keep_key(row, line);
                }
                _ => {}
            }
        }
    }

    /// Whether debts must be read before events, to know what they say about later ones.
    pub(super) fn remembers(&self) -> bool {
        let spec = &self.plan.spec;
        self.plan.is_ordered() || spec.debounce.is_some() || spec.singleton.is_some()
    }

    fn blank(&self, seq: Seq, line: u64) -> Job {
        Job::blank(Address::new(self.scope.lane, seq), line, self.scope.rooms.clock.now())
    }
}

/// The time that an event asks for. The doors refuse what is none, or too far; of older events, the one means at once,
/// the other the limit.
fn deliver_at(job: &Job) -> Option<Timestamp> {
    let stored = job.event.as_ref()?;
    let asked = stored.event.extensions.get(DELIVER_AT)?.as_str()?;
    let at = Timestamp::parse(asked).ok()?;
    Some(at.min(stored.accepted_at.plus(MAX_DELAY + SLACK)))
}

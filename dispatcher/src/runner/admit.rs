//! What stands between the filter and the queue: a later time, a delivery of the same key that is not over, the end of a
//! burst. In this order; what is turned away ends as filtered, and says why.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_ledger::{LogOutcome, Owed, OwedReason};
use bellwire_schemas::service::{Debounce, Singleton};
use bellwire_schemas::{Address, ErrorInfo, FailureClass, FinalState, Lane, Seq, Timestamp};
use serde_json::Value;

use super::Runner;
use super::queue::{Job, Stream, line_of};

/// The CloudEvents extension that asks for a later delivery; an RFC 3339 time.
const DELIVER_AT: &str = "deliverat";
/// Longest delay that an event may ask for; a later time is taken as this.
const MAX_DELAY: Duration = Duration::from_secs(366 * 86_400);
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
        if let Some(at) = deliver_at(&job).filter(|at| *at > now) {
            let job = Job { since: at, ..job };
            self.owe(&job, 0, at, None, OwedReason::Delayed);
            return;
        }
        if let Some(rule) = self.plan.spec.singleton
            && !self.is_alone(&job, rule)
        {
            return;
        }
        match self.plan.spec.debounce {
            Some(rule) => self.debounce(&job, rule, now),
            None if self.queue.is_parked(job.line) => self.spill(vec![job], now),
            None => self.queue.push_fresh(job, stream, now),
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

    /// Whether no delivery of the same key is under way, or it was given up for this one. Else this one has ended.
    fn is_alone(&mut self, job: &Job, rule: Singleton) -> bool {
        let key = group(job.key());
        let now = self.scope.rooms.clock.now();
        let Some(other) = self.binding.singles.enter(key, job.address, rule == Singleton::Cancel) else {
            return true;
        };
        match rule {
            Singleton::Skip => {
                if let Some(event) = &job.event {
                    self.settle_filtered(&event.clone(), "singleton", now);
                }
                false
            }
            Singleton::Cancel => {
                let message = format!("{} came while it was under way", job.address);
                let error = ErrorInfo::platform(FailureClass::Function, "Delivery.singleton", message);
                if other.lane == self.scope.lane {
                    self.supersede(other.seq, error);
                } else {
                    self.binding.supersede(other, error);
                }
                true
            }
        }
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
        for row in rows.iter().filter(|row| !self.queue.is_held(row.seq)) {
            let key = group(row.key.as_deref());
            match row.reason {
                OwedReason::Debounced if row.attempts == 0 => {
                    let burst = Burst { last: row.seq, first_at: row.since, due_at: row.next_at };
                    self.bursts.insert(key, burst);
                }
                OwedReason::Retry if self.plan.spec.singleton.is_some() => {
                    let address = Address::new(self.scope.lane, row.seq);
                    self.binding.singles.enter(key, address, false);
                    self.retries.insert(row.seq, line_of(row.key.as_deref(), row.seq));
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

/// One group for each key, one for all events without.
fn group(key: Option<&str>) -> u64 {
    key.map_or(0, |key| line_of(Some(key), Seq(0)))
}

fn deliver_at(job: &Job) -> Option<Timestamp> {
    let stored = job.event.as_ref()?;
    let asked = stored.event.extensions.get(DELIVER_AT).and_then(Value::as_str)?;
    let at = Timestamp::parse(asked).ok()?;
    Some(at.min(stored.accepted_at.plus(MAX_DELAY)))
}

/// The deliveries of a binding that are under way, one for each key, over all lanes here.
#[derive(Debug, Default)]
pub(crate) struct Singles(Mutex<Under>);

/// Which delivery of a key is under way, and which key a delivery is of.
#[derive(Debug, Default)]
struct Under {
    by_key: HashMap<u64, Address>,
    key_of: HashMap<Address, u64>,
}

impl Singles {
    /// Enters a delivery, or says which one is under way; with `replace`, it takes that one's place.
    fn enter(&self, key: u64, address: Address, replace: bool) -> Option<Address> {
        let mut all = self.lock();
        let other = all.by_key.get(&key).copied().filter(|other| *other != address);
        if other.is_none() || replace {
            all.by_key.insert(key, address);
            all.key_of.insert(address, key);
        }
        if let Some(other) = other.filter(|_| replace) {
            all.key_of.remove(&other);
        }
        other
    }

    /// A delivery is over.
    pub(crate) fn leave(&self, address: Address) {
        let mut all = self.lock();
        if let Some(key) = all.key_of.remove(&address) {
            all.by_key.remove(&key);
        }
    }

    /// A lane is not ours any more.
    pub(crate) fn forget(&self, lane: Lane) {
        let mut all = self.lock();
        all.by_key.retain(|_, other| other.lane != lane);
        all.key_of.retain(|other, _| other.lane != lane);
    }

    fn lock(&self) -> MutexGuard<'_, Under> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! One delivery of a key at a time (`singleton`): which one is under way, and what becomes of the others.
//!
//! A fresh event is asked when it is read, one that asked for a later time (or waited for the end of its burst) when it is
//! due. What an operator wants again, and a retry, is never turned away and gives nobody up: it waits here until its key
//! is free.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwire_ledger::{DeliveryKey, LogOutcome, Owed, OwedReason};
use bellwire_schemas::service::Singleton;
use bellwire_schemas::{Address, ErrorInfo, FailureClass, FinalState, Lane, Seq, Timestamp};

use super::Runner;
use super::part::MAX_UNFLUSHED;
use super::queue::{Job, line_of};
use super::settle::turned_away;

/// The word for a delivery that another of its key turned away.
const SINGLETON: &str = "singleton";
/// When to look again for keys that came free in another lane; those of the own lane are noticed at once.
const KEY_REST: Duration = Duration::from_millis(250);
/// Debts of a binding in one lane that wait in memory for their key; with more, no further ones are read until some have
/// run. A replay keeps fewer open.
const MAX_WAITING: usize = 4_096;
/// When to look again for a debt that the ledger does not give.
const KEPT_REST: Duration = Duration::from_secs(1);

/// Due debts whose key is not free, in the order in which they became due.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_key: HashMap<u64, VecDeque<Job>>,
    len: usize,
    /// How many ends there were when the keys were last looked at; `None` when somebody came since.
    seen: Option<u64>,
}

impl Runner {
    /// Of deliveries that are about to start, those that may: where one of a key is let run at a time, the others end
    /// as filtered, wait, or take its place.
    pub(super) fn alone(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        let Some(rule) = self.plan.spec.singleton else { return jobs };
        let mut jobs: Vec<Option<Job>> = jobs.into_iter().map(Some).collect();
        for at in 0..jobs.len() {
            // Fresh ones were asked when they were read.
            let Some(job) = jobs[at].take_if(|job| job.debt.is_some()) else { continue };
            match self.ask(&job, rule, &mut jobs) {
                Say::Go => jobs[at] = Some(job),
                Say::Wait => self.waiting.push(job),
                Say::Ended => {}
            }
        }
        jobs.into_iter().flatten().collect()
    }

    /// Whether a debt that is due may stand in line; a delayed one whose key is not free has ended.
    pub(super) fn is_let_in(&mut self, job: &Job) -> bool {
        let is_late = job.debt.as_ref().is_some_and(|reason| is_late(reason, job.attempts));
        match self.plan.spec.singleton {
            // Memory knows more of what is held: it was asked already.
            Some(rule) if is_late && !self.queue.is_held(job.address.seq) => {
                self.ask(job, rule, &mut []) != Say::Ended
            }
            _ => true,
        }
    }

    /// Notes when a delayed debt of a binding in order is due: its line does not say so while a batch of it is out.
    pub(super) fn note_late(&mut self, owed: &Owed, line: u64) {
        let is_asked = self.plan.is_ordered() && self.plan.spec.singleton.is_some();
        if is_asked && is_late(&owed.reason, owed.attempts) {
            self.late.insert(owed.seq, owed.next_at, line);
        }
    }

    /// Asks the delayed debts of a binding in order that are due, and puts debts back in line whose key is free now.
    pub(super) fn look_at_keys(&mut self, now: Timestamp) {
        let rule = self.plan.spec.singleton;
        while self.unflushed() < MAX_UNFLUSHED
            && let Some((seq, line)) = self.late.pop_due(now)
        {
            let mut job = Job::blank(Address::new(self.scope.lane, seq), line, now);
            job.debt = Some(OwedReason::Delayed);
            if let Some(rule) = rule {
                self.ask(&job, rule, &mut []);
            }
        }
        let singles = &self.binding.singles;
        let free = if rule.is_some() { self.waiting.next(singles) } else { self.waiting.take() };
        if rule.is_some() {
            self.retries.extend(free.iter().map(|job| (job.address.seq, job.line)));
        }
        self.queue.put_back(free, now);
    }

    /// When the next of them is due, or the keys are to be looked at again.
    pub(super) fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let again = (self.waiting.len > 0).then(|| now.plus(KEY_REST));
        let late = self.late.first_at().filter(|_| self.unflushed() < MAX_UNFLUSHED);
        again.into_iter().chain(late).min()
    }

    /// Whether further debts may be read: some of them may have to wait, others may end.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len < MAX_WAITING && self.unflushed() < MAX_UNFLUSHED
    }

    /// Notes a debt that holds its key.
    pub(super) fn keep_key(&mut self, owed: &Owed, line: u64) {
        self.retries.insert(owed.seq, line);
        self.kept.insert(owed.seq, owed.next_at, line);
    }

    /// A delivery does not hold its key any more.
    pub(super) fn release(&mut self, address: Address) {
        self.binding.singles.leave(address);
        self.retries.remove(&address.seq);
        self.late.remove(address.seq);
        self.kept.remove(address.seq);
    }

    /// What is under way and owed holds its key from now on, under another rule.
    pub(super) fn learn_keys(&mut self, before: Option<Singleton>) {
        if self.plan.spec.singleton.is_none() {
            return;
        }
        let (singles, lane) = (&self.binding.singles, self.scope.lane);
        if before.is_none() {
            // What was noted under an earlier rule may have ended.
            singles.forget(lane);
            self.retries.clear();
        }
        for job in self.aboard.values().flat_map(|flight| &flight.jobs) {
            singles.enter(group_of(job), job.address, false);
        }
        (self.is_learned, self.due_at) = (false, Some(self.scope.rooms.clock.now()));
    }

    /// Reads due debts that hold their key, while too many wait for theirs to read all that are due: without them, none
    /// of those would ever run.
    pub(super) async fn load_kept(&mut self, most: usize, now: Timestamp) {
        let (queue, singles, lane) = (&self.queue, &self.binding.singles, self.scope.lane);
        let is_away = |seq: Seq| !queue.is_held(seq) && singles.holds(Address::new(lane, seq));
        let due: Vec<_> = self.kept.due(now).filter(|(seq, _)| is_away(*seq)).take(most).collect();
        for (seq, line) in due {
            let address = Address::new(lane, seq);
            let delivery = DeliveryKey { binding: self.binding.id, address };
            let next_at = match self.scope.rooms.ledger().owed(delivery).await {
                Ok(Some(row)) if row.reason == OwedReason::Cancelled => {
                    self.cancel(vec![row]);
                    continue;
                }
                Ok(Some(row)) if row.next_at <= now && self.cursor.is_settled(seq) => {
                    self.kept.remove(seq);
                    self.queue.push_due(Job::debt(lane, row, self.plan.spec.batch.bisect));
                    continue;
                }
                Ok(Some(row)) => row.next_at,
                Ok(None) => {
                    self.release(address);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%lane, binding = %self.binding.name, %error, "cannot read the debts");
                    now
                }
            };
            self.kept.insert(seq, next_at.max(now.plus(KEPT_REST)), line);
        }
    }

    /// Whether no delivery of the same key is under way, or it was given up for this fresh one. Else this one has ended.
    pub(super) fn is_alone(&mut self, job: &Job, rule: Singleton) -> bool {
        let now = self.scope.rooms.clock.now();
        let replaces = rule == Singleton::Cancel;
        match self.binding.singles.enter(group(job.key()), job.address, replaces) {
            None => true,
            Some(other) if replaces => {
                self.take_place(other, job.address, &mut []);
                true
            }
            Some(_) => {
                if let Some(event) = &job.event {
                    self.settle_filtered(&event.clone(), SINGLETON, now);
                }
                false
            }
        }
    }

    /// Forgets debts that wait for their key; their rows are read again.
    pub(super) fn drop_waiting(&mut self) {
        for job in self.waiting.take() {
            self.queue.forget(job.address.seq);
        }
    }

    /// Asks whether a due debt may go on; `beside`: what is about to start with it.
    fn ask(&mut self, job: &Job, rule: Singleton, beside: &mut [Option<Job>]) -> Say {
        let is_late = job.debt.as_ref().is_some_and(|reason| is_late(reason, job.attempts));
        let replaces = is_late && rule == Singleton::Cancel;
        match self.binding.singles.enter(group_of(job), job.address, replaces) {
            None => {}
            Some(other) if replaces => self.take_place(other, job.address, beside),
            Some(_) if is_late => {
                self.turn_away(job);
                return Say::Ended;
            }
            Some(_) => return Say::Wait,
        }
        self.retries.insert(job.address.seq, job.line);
        self.late.remove(job.address.seq);
        self.kept.remove(job.address.seq);
        Say::Go
    }

    /// Gives a delivery up for a later one of its key, also when it is about to start beside it.
    fn take_place(&mut self, other: Address, later: Address, beside: &mut [Option<Job>]) {
        let message = format!("{later} came while it was under way");
        let error = ErrorInfo::platform(FailureClass::Function, "Delivery.singleton", message);
        let found = beside.iter_mut().find_map(|job| job.take_if(|job| job.address == other));
        match found {
            Some(job) => self.settle_cancelled(&job, error),
            None if other.lane == self.scope.lane => self.supersede(other.seq, error),
            None => self.binding.supersede(other, error),
        }
    }

    /// Ends a debt whose key is not free.
    fn turn_away(&mut self, job: &Job) {
        let now = self.scope.rooms.clock.now();
        let mut entry = self.entry(job, 0, now, LogOutcome::Final(FinalState::Filtered));
        entry.error = Some(turned_away(SINGLETON));
        self.finish(job, entry);
        self.tell_settled(job.address, FinalState::Filtered, SINGLETON);
    }
}

/// When debts are due, and their lines.
#[derive(Debug, Default)]
pub(super) struct Times {
    times: BTreeSet<(Timestamp, Seq)>,
    rows: HashMap<Seq, (Timestamp, u64)>,
}

/// Whether a debt may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    /// It has its key.
    Go,
    /// When its key is free.
    Wait,
    /// It was turned away.
    Ended,
}

impl Times {
    fn insert(&mut self, seq: Seq, at: Timestamp, line: u64) {
        self.remove(seq);
        self.times.insert((at, seq));
        self.rows.insert(seq, (at, line));
    }

    /// It has ended.
    pub(super) fn remove(&mut self, seq: Seq) {
        if let Some((at, _)) = self.rows.remove(&seq) {
            self.times.remove(&(at, seq));
        }
    }

    /// Keeps those of which memory knows more than the ledger.
    pub(super) fn keep_only(&mut self, is_held: impl Fn(Seq) -> bool) {
        self.rows.retain(|seq, _| is_held(*seq));
        self.times.retain(|(_, seq)| is_held(*seq));
    }

    fn first_at(&self) -> Option<Timestamp> {
        self.times.first().map(|(at, _)| *at)
    }

    fn due(&self, now: Timestamp) -> impl Iterator<Item = (Seq, u64)> {
        let due = self.times.iter().take_while(move |(at, _)| *at <= now);
        due.filter_map(|(_, seq)| self.rows.get(seq).map(|(_, line)| (*seq, *line)))
    }

    fn pop_due(&mut self, now: Timestamp) -> Option<(Seq, u64)> {
        let (_, seq) = *self.times.first().filter(|(at, _)| *at <= now)?;
        self.times.pop_first();
        self.rows.remove(&seq).map(|(_, line)| (seq, line))
    }
}

impl Waiting {
    fn push(&mut self, job: Job) {
        self.by_key.entry(group_of(&job)).or_default().push_back(job);
        self.len += 1;
        self.seen = None;
    }

    /// Takes the first of each key out that is free; it holds the key from then on, so that nothing overtakes it.
    fn next(&mut self, singles: &Singles) -> Vec<Job> {
        if self.len == 0 {
            return Vec::new();
        }
        let mut all = singles.lock();
        if self.seen == Some(all.ended) {
            return Vec::new();
        }
        self.seen = Some(all.ended);
        let mut free = Vec::new();
        self.by_key.retain(|key, jobs| {
            if !all.by_key.contains_key(key)
                && let Some(job) = jobs.pop_front()
            {
                all.by_key.insert(*key, job.address);
                all.key_of.insert(job.address, *key);
                free.push(job);
            }
            !jobs.is_empty()
        });
        self.len -= free.len();
        free.sort_by_key(|job| job.address);
        free
    }

    fn take(&mut self) -> Vec<Job> {
        let mut jobs: Vec<Job> = std::mem::take(self).by_key.into_values().flatten().collect();
        jobs.sort_by_key(|job| job.address);
        jobs
    }
}

/// Whether a debt is one that asked for a later time, or was the last of its burst, and was not attempted yet.
fn is_late(reason: &OwedReason, attempts: u32) -> bool {
    attempts == 0 && matches!(reason, OwedReason::Delayed | OwedReason::Debounced)
}

/// One group for each key, one for all events without.
pub(super) fn group(key: Option<&str>) -> u64 {
    key.map_or(0, |key| line_of(Some(key), Seq(0)))
}

/// The same for a delivery whose event may not be read: its line says whether it has a key.
fn group_of(job: &Job) -> u64 {
    if job.line == line_of(None, job.address.seq) { 0 } else { job.line }
}

/// The deliveries of a binding that are under way, one for each key, over all lanes here.
#[derive(Debug, Default)]
pub(crate) struct Singles(Mutex<Under>);

/// Which delivery of a key is under way, and which key a delivery is of.
#[derive(Debug, Default)]
struct Under {
    by_key: HashMap<u64, Address>,
    key_of: HashMap<Address, u64>,
    /// Counts what makes keys free.
    ended: u64,
}

impl Singles {
    /// Enters a delivery, or says which one is under way; with `replace`, it takes that one's place.
    pub(super) fn enter(&self, key: u64, address: Address, replace: bool) -> Option<Address> {
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
            all.ended += 1;
        }
    }

    /// Whether a delivery holds its key.
    pub(super) fn holds(&self, address: Address) -> bool {
        self.lock().key_of.contains_key(&address)
    }

    /// A lane is not ours any more.
    pub(crate) fn forget(&self, lane: Lane) {
        let mut all = self.lock();
        all.by_key.retain(|_, other| other.lane != lane);
        all.key_of.retain(|other, _| other.lane != lane);
        all.ended += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Under> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

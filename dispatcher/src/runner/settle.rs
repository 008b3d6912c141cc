//! Outcomes become lines, debts, dead letters and facts.

use std::sync::Arc;

use bellwire_ledger::flush::fingerprint;
use bellwire_ledger::{DeadLetter, LogEntry, LogOutcome, Owed, OwedReason, StoredEvent};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Address, ErrorInfo, FailureClass, FinalState, Timestamp};
use bellwire_workers::Emission;

use super::Runner;
use super::attempt::{Called, End as Ending, Landed, idempotency_key, shaped};
use super::queue::{Job, Stream};
use crate::decide::{FAR, Next};
use crate::sending::{self, Bounds, End, Report};
use crate::shape::Account;

/// The word for an event that the filter turned away.
pub(super) const FILTER_MISMATCH: &str = "filter-mismatch";

/// How much of what the function printed a dead letter keeps: the end of it.
const DEAD_LOG_BYTES: usize = 4 << 10;

impl Runner {
    /// Takes the result of an attempt; `lines`: those that were out with it.
    pub(super) fn land(&mut self, landed: Landed, lines: &[u64]) {
        let now = self.scope.rooms.clock.now();
        let Landed { mut jobs, called } = landed;
        jobs.sort_by_key(|(job, _)| job.address);
        self.board.update(|face| {
            for (job, _) in &jobs {
                face.running.remove(&job.address.seq);
            }
        });
        let half = jobs.len().div_ceil(2);
        let mut emits = called.as_ref().map(|called| called.emitted());
        let (mut again, mut behind) = (Vec::new(), Vec::new());
        for (mut job, end) in jobs {
            match (end, &called) {
                (Ending::Next { next, error, first_at }, Some(called)) => {
                    if let Some(job) = self.settle_called(job, called, (next, error, first_at), &mut emits) {
                        behind.push(job);
                    }
                }
                (Ending::Halved, _) => {
                    job.most = half;
                    again.push(job);
                }
                (Ending::Missing, _) => self.settle_missing(&job),
                (Ending::Gone, _) => self.forget(&job),
                (Ending::Cancelled(error), _) => self.settle_cancelled(&job, error),
                (Ending::Expired, _) => self.settle_unattempted(&job, FinalState::Expired, "too-old"),
                (Ending::Behind | Ending::Untried | Ending::Next { .. }, _) => again.push(job),
            }
        }
        let new = again.iter().chain(&behind).filter(|job| job.is_new()).map(|job| job.line);
        let new: Vec<u64> = new.collect();
        self.queue.put_back(again, now);
        behind.into_iter().for_each(|job| self.queue.put_behind(job, now));
        for line in lines {
            if self.queue.is_parked(*line) {
                let followers = self.queue.park(*line);
                self.spill(followers, now);
            }
        }
        if new.iter().any(|line| !self.queue.is_parked(*line)) {
            self.go_on();
        }
        self.queue.landed(lines.iter().copied(), now);
    }

    /// Fresh deliveries that wait for their key become debts, so that the cursor passes them.
    pub(super) fn spill(&mut self, jobs: Vec<Job>, now: Timestamp) {
        for job in jobs {
            self.owe(&job, job.attempts, now, job.error.clone(), OwedReason::Parked);
        }
    }

    /// Ends a delivery without an attempt.
    pub(super) fn settle_unattempted(&mut self, job: &Job, state: FinalState, reason: &str) {
        let now = self.scope.rooms.clock.now();
        if state == FinalState::Expired
            && let Some(stored) = &job.event
        {
            let request_id = idempotency_key(&self.plan, job, stored);
            let last = (job.attempts, request_id.as_str(), "");
            self.send_on(job, End::Expired(job.error.as_ref()), now, last);
        }
        let entry = self.entry(job, 0, now, LogOutcome::Final(state));
        self.finish(job, entry);
        self.tell_settled(job.address, state, reason);
    }

    /// Ends a delivery that somebody gave up; `error` says who.
    pub(super) fn settle_cancelled(&mut self, job: &Job, error: ErrorInfo) {
        let now = self.scope.rooms.clock.now();
        let mut entry = self.entry(job, 0, now, LogOutcome::Final(FinalState::Discarded));
        entry.error = Some(error);
        if job.debt.is_none() {
            // The row that asked for it.
            self.part.settled.push(job.address.seq);
            self.part.changed.push(self.queue.hold(job.address.seq, job.line));
        }
        self.finish(job, entry);
        self.tell_settled(job.address, FinalState::Discarded, "cancelled");
    }

    /// The same for an event that the filter, a debounce or a singleton turned away; `reason` is the word of it.
    pub(super) fn settle_filtered(&mut self, event: &StoredEvent, reason: &'static str, now: Timestamp) {
        let job = Job::fresh(event.clone());
        let mut entry = self.entry(&job, 0, now, LogOutcome::Final(FinalState::Filtered));
        if reason != FILTER_MISMATCH {
            entry.error = Some(turned_away(reason));
        }
        self.cursor.settle(event.address.seq);
        self.release(event.address);
        self.part.log.push(entry);
        self.tell_settled(event.address, FinalState::Filtered, reason);
    }

    fn settle_missing(&mut self, job: &Job) {
        let message = format!("event {} is not in the ledger any more", job.address);
        tracing::error!(binding = %self.plan.record.name, address = %job.address, "{message}");
        let at = self.scope.rooms.clock.now();
        let mut entry = self.entry(job, 0, at, LogOutcome::Final(FinalState::Discarded));
        entry.error = Some(ErrorInfo::platform(FailureClass::Function, "Ledger.EventMissing", message));
        self.finish(job, entry);
        self.tell_settled(job.address, FinalState::Discarded, "event-missing");
    }

    /// Notes what follows a call for one delivery of it; gives it back when the call did not count.
    fn settle_called(
        &mut self,
        job: Job,
        called: &Called,
        (next, error, first_at): (Next, Option<ErrorInfo>, Timestamp),
        emits: &mut Option<Vec<Emission>>,
    ) -> Option<Job> {
        if let Next::Wait { .. } = next {
            return Some(job);
        }
        let number = job.attempts.saturating_add(1);
        let outcome = match next {
            Next::Delivered => LogOutcome::Final(FinalState::Delivered),
            Next::Dead(_) => LogOutcome::Final(FinalState::Dead),
            Next::Expired => LogOutcome::Final(FinalState::Expired),
            Next::Retry { .. } | Next::Blocked(_) | Next::Wait { .. } => LogOutcome::Failed,
        };
        self.tell_attempt(&job, number, called, (&next, error.as_ref()), outcome);
        let mut entry = self.entry(&job, number, called.started_at, outcome);
        entry.duration_ms = u32::try_from(called.result.duration.as_millis()).unwrap_or(u32::MAX);
        entry.worker.clone_from(&called.result.worker);
        entry.version.clone_from(&called.result.version);
        let end = match (&next, &called.result.answer, &error) {
            (Next::Delivered, Ok(answer), _) => Some(End::Delivered(answer)),
            (Next::Dead(_), _, Some(error)) => Some(End::Dead(error)),
            (Next::Expired, _, Some(error)) => Some(End::Expired(Some(error))),
            _ => None,
        };
        if let Some(end) = end {
            self.send_on(&job, end, called.ended_at, (number, &called.request_id, &entry.version));
        }
        if next == Next::Delivered
            && let Some(emitted) = emits.take()
        {
            self.emit(&job, emitted, called.ended_at);
        }
        entry.error.clone_from(&error);
        let reason = job.debt.clone().unwrap_or(OwedReason::Retry);
        match (next, error) {
            (Next::Retry { at }, error) => {
                self.part.log.push(entry);
                let reason = if reason == OwedReason::Parked { OwedReason::Retry } else { reason };
                self.owe(&job, number, at, error, reason);
            }
            (Next::Blocked(_), error) => {
                self.part.log.push(entry);
                self.owe(&job, number, FAR, error, OwedReason::Blocked);
            }
            (Next::Dead(_), Some(error)) => {
                self.bury(&job, number, called, first_at, error);
                self.finish(&job, entry);
            }
            _ => self.finish(&job, entry),
        }
        None
    }

    fn bury(&mut self, job: &Job, attempts: u32, called: &Called, first_at: Timestamp, error: ErrorInfo) {
        let Some(event) = &job.event else { return };
        let logs = tail(called.result.logs.clone());
        let event = StoredEvent::clone(event);
        let (binding, fingerprint) = (self.plan.record.id, fingerprint(&error));
        let died_at = called.ended_at;
        self.part.dead.push(DeadLetter {
            binding,
            event,
            died_at,
            first_at,
            attempts,
            error,
            fingerprint,
            logs,
        });
    }

    /// Puts what the binding sends after this end beside the outcome. `last`: attempts made, the last one's request id
    /// and the version that ran.
    fn send_on(&mut self, job: &Job, end: End<'_>, at: Timestamp, last: (u32, &str, &str)) {
        let Some(sending) = sending::wanted(&self.plan.spec, &end) else { return };
        let Some(stored) = &job.event else { return };
        let (attempts, request_id, version) = last;
        let rooms = &self.scope.rooms;
        let report = Report {
            end,
            at,
            attempts,
            request_id,
            function: self.plan.spec.function.as_str(),
            version,
            since: job.since,
            replay: job.replay(),
            account: Account::default(),
        };
        let bounds = Bounds { lanes: rooms.ledger().lanes(), event_bytes: rooms.event_bytes };
        let request = shaped(&self.plan, &[stored.as_ref()]).payload;
        let binding = self.plan.record.name.as_str();
        let new = sending::event(binding, sending, stored, &report, &request, bounds);
        self.part.emit(new);
    }

    /// Puts the events that the function sent beside its success.
    fn emit(&mut self, job: &Job, emitted: Vec<Emission>, at: Timestamp) {
        let Some(stored) = job.event.as_ref().filter(|_| !emitted.is_empty()) else { return };
        let lanes = self.scope.rooms.ledger().lanes();
        let delivery = idempotency_key(&self.plan, job, stored);
        let binding = self.plan.record.name.as_str();
        for (number, emission) in emitted.into_iter().enumerate() {
            self.part.emit(sending::emitted(binding, emission, number, &delivery, stored, at, lanes));
        }
    }

    /// Writes a debt, new or another state of one.
    pub(super) fn owe(
        &mut self,
        job: &Job,
        attempts: u32,
        at: Timestamp,
        error: Option<ErrorInfo>,
        reason: OwedReason,
    ) {
        let now = self.scope.rooms.clock.now();
        let key = job.key().map(str::to_owned);
        let owed = Owed { seq: job.address.seq, attempts, next_at: at, since: job.since, error, reason, key };
        if self.plan.spec.singleton.is_some() && keeps_key(&owed) {
            self.keep_key(&owed, job.line);
        }
        self.note_late(&owed, job.line);
        let change = self.queue.owe(&owed, job.line, now);
        self.part.changed.push(change);
        self.part.owed.push(owed);
        if job.debt.is_none() {
            self.cursor.settle(job.address.seq);
        }
    }

    pub(super) fn finish(&mut self, job: &Job, entry: LogEntry) {
        self.part.log.push(entry);
        self.release(job.address);
        let seq = job.address.seq;
        match job.debt {
            Some(_) => {
                self.part.settled.push(seq);
                self.part.changed.push(self.queue.end(job));
            }
            None => self.cursor.settle(seq),
        }
    }

    pub(super) fn entry(&self, job: &Job, attempt: u32, at: Timestamp, outcome: LogOutcome) -> LogEntry {
        LogEntry {
            seq: job.address.seq,
            attempt,
            at,
            duration_ms: 0,
            outcome,
            error: None,
            worker: String::new(),
            version: String::new(),
            revision: self.plan.revision_at(job.address),
            replay: job.replay().cloned(),
        }
    }

    pub(super) fn tell_settled(&self, address: Address, state: FinalState, reason: &str) {
        let live = &self.scope.rooms.live;
        if live.receiver_count() > 0 {
            let (at, binding) = (self.scope.rooms.clock.now(), self.plan.record.name.clone());
            let _ = live.send(Fact::Settled { at, address, binding, state, reason: reason.into() });
        }
    }

    fn tell_attempt(
        &self,
        job: &Job,
        number: u32,
        called: &Called,
        (next, error): (&Next, Option<&ErrorInfo>),
        outcome: LogOutcome,
    ) {
        let live = &self.scope.rooms.live;
        if live.receiver_count() == 0 {
            return;
        }
        let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let _ = live.send(Fact::Attempt {
            at: called.ended_at,
            address: job.address,
            binding: self.plan.record.name.clone(),
            function: self.plan.spec.function.clone(),
            attempt: number,
            attempts: self.plan.policy.retry.attempts,
            duration_ms: millis(called.result.duration),
            init_ms: called.result.init.map(millis),
            state: match outcome {
                LogOutcome::Final(state) => Some(state),
                LogOutcome::Failed => None,
            },
            error: error.cloned(),
            next_at: match next {
                Next::Retry { at } => Some(*at),
                _ => None,
            },
            logs: called.result.logs.clone(),
        });
    }

    /// Re-evaluates deliveries in memory under a new plan: a changed filter takes effect on all that did not start.
    pub(super) fn reconsider(&mut self) {
        for job in self.queue.take_fresh() {
            if let Some(event) = job.event.map(Arc::unwrap_or_clone) {
                self.consider(event, Stream::Cursor);
            }
        }
    }
}

/// Why an event was turned away, as its line in the log says it.
pub(super) fn turned_away(reason: &str) -> ErrorInfo {
    ErrorInfo::platform(FailureClass::Function, &format!("Delivery.{reason}"), "")
}

/// Whether a debt has failed before and is tried again.
pub(super) fn is_retry(owed: &Owed) -> bool {
    match owed.reason {
        OwedReason::Retry => true,
        OwedReason::Delayed | OwedReason::Debounced | OwedReason::Redrive | OwedReason::Replay(_) => {
            owed.attempts > 0
        }
        OwedReason::Parked | OwedReason::Blocked | OwedReason::Cancelled => false,
    }
}

/// Whether a debt holds its key, where one of a key is let run at a time: it has failed before, or waits for its turn.
pub(super) fn keeps_key(owed: &Owed) -> bool {
    is_retry(owed) || matches!(owed.reason, OwedReason::Parked | OwedReason::Blocked)
}

/// The last lines within the limit; a line that alone is longer is cut at its start.
fn tail(logs: Vec<String>) -> Vec<String> {
    let mut left = DEAD_LOG_BYTES;
    let mut kept = Vec::new();
    for line in logs.into_iter().rev() {
        if line.len() >= left {
            let mut from = line.len() - left.saturating_sub(1);
            while !line.is_char_boundary(from) {
                from += 1;
            }
            if from < line.len() {
                kept.push(line[from..].to_owned());
            }
            break;
        }
        left -= line.len() + 1;
        kept.push(line);
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_keeps_the_end_of_what_was_printed() {
        let lines: Vec<String> = (0..2_000).map(|n| format!("line {n}")).collect();
        let kept = tail(lines.clone());
        assert_eq!(kept.last(), lines.last());
        assert!(kept.iter().map(|l| l.len() + 1).sum::<usize>() <= DEAD_LOG_BYTES);
        let long = tail(vec!["é".repeat(10_000)]);
        assert!(long[0].len() < DEAD_LOG_BYTES && long[0].len() > DEAD_LOG_BYTES - 4);
        assert_eq!(tail(vec!["a".into(), "b".into()]), ["a", "b"]);
    }
}

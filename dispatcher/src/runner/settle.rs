//! Outcomes become lines, debts, dead letters and facts.

use std::sync::Arc;

use bellwire_ledger::flush::fingerprint;
use bellwire_ledger::{DeadLetter, LogEntry, LogOutcome, Owed, OwedReason, StoredEvent};
use bellwire_schemas::live::Fact;
use bellwire_schemas::{Address, ErrorInfo, FailureClass, FinalState, Timestamp};
use bellwire_workers::Emission;

use super::Runner;
use super::attempt::{Called, Landed, Outcome, idempotency_key, shaped};
use super::queue::Job;
use crate::decide::Next;
use crate::sending::{self, Bounds, End, Report};
use crate::shape::Account;

/// How much of what the function printed a dead letter keeps: the end of it.
const DEAD_LOG_BYTES: usize = 4 << 10;

impl Runner {
    /// Takes the result of an attempt.
    pub(super) fn land(&mut self, landed: Landed) {
        let Landed { job, outcome } = landed;
        self.board.update(|face| {
            face.running.remove(&job.address.seq);
        });
        match outcome {
            Outcome::Untried => self.queue.put_back(job),
            Outcome::Missing => self.settle_missing(&job),
            Outcome::Called(called) => self.settle_called(job, *called),
            Outcome::Expired => self.settle_unattempted(&job, FinalState::Expired, "too-old"),
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

    /// The same for an event straight from the reader.
    pub(super) fn settle_filtered(&mut self, event: &StoredEvent, now: Timestamp) {
        self.cursor.settle(event.address.seq);
        self.part.log.push(LogEntry {
            seq: event.address.seq,
            attempt: 0,
            at: now,
            duration_ms: 0,
            outcome: LogOutcome::Final(FinalState::Filtered),
            error: None,
            worker: String::new(),
            version: String::new(),
            revision: self.plan.record.revision,
            replay: None,
        });
        self.tell_settled(event.address, FinalState::Filtered, "filter-mismatch");
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

    fn settle_called(&mut self, job: Job, mut called: Called) {
        if let Next::Wait { .. } = called.next {
            self.queue.put_back(job);
            return;
        }
        let number = job.attempts.saturating_add(1);
        let outcome = match called.next {
            Next::Delivered => LogOutcome::Final(FinalState::Delivered),
            Next::Dead(_) => LogOutcome::Final(FinalState::Dead),
            Next::Expired => LogOutcome::Final(FinalState::Expired),
            Next::Retry { .. } | Next::Wait { .. } => LogOutcome::Failed,
        };
        self.tell_attempt(&job, number, &called, outcome);
        let mut entry = self.entry(&job, number, called.started_at, outcome);
        entry.duration_ms = u32::try_from(called.result.duration.as_millis()).unwrap_or(u32::MAX);
        entry.worker = called.result.worker;
        entry.version = called.result.version;
        let end = match (&called.next, &called.result.answer) {
            (Next::Delivered, Ok(answer)) => Some(End::Delivered(answer)),
            (Next::Dead(_), Err(error)) => Some(End::Dead(error)),
            (Next::Expired, Err(error)) => Some(End::Expired(Some(error))),
            _ => None,
        };
        if let Some(end) = end {
            self.send_on(&job, end, called.ended_at, (number, &called.request_id, &entry.version));
        }
        if let (Next::Delivered, Ok(answer)) = (&called.next, &mut called.result.answer) {
            let emitted = std::mem::take(&mut answer.emitted);
            self.emit(&job, emitted, called.ended_at);
        }
        let error = called.result.answer.err();
        entry.error.clone_from(&error);
        match (called.next, error) {
            (Next::Retry { at }, error) => self.owe(&job, entry, number, at, error),
            (Next::Dead(_), Some(error)) => {
                if let Some(event) = &job.event {
                    let logs = tail(called.result.logs);
                    let event = StoredEvent::clone(event);
                    let (died_at, first_at) = (called.ended_at, called.first_at);
                    let (binding, attempts, fingerprint) = (self.plan.record.id, number, fingerprint(&error));
                    let dead =
                        DeadLetter { binding, event, died_at, first_at, attempts, error, fingerprint, logs };
                    self.part.dead.push(dead);
                }
                self.finish(&job, entry);
            }
            _ => self.finish(&job, entry),
        }
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
        let request = shaped(&self.plan, stored).payload;
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

    fn owe(&mut self, job: &Job, entry: LogEntry, attempts: u32, at: Timestamp, error: Option<ErrorInfo>) {
        self.part.log.push(entry);
        let reason = job.debt.clone().unwrap_or(OwedReason::Retry);
        let seq = job.address.seq;
        self.part.owed.push(Owed { seq, attempts, next_at: at, since: job.since, error, reason, key: None });
        match job.debt {
            Some(_) => self.part.released.push(seq),
            None => self.cursor.settle(seq),
        }
    }

    fn finish(&mut self, job: &Job, entry: LogEntry) {
        self.part.log.push(entry);
        let seq = job.address.seq;
        match job.debt {
            Some(_) => {
                self.part.settled.push(seq);
                self.part.released.push(seq);
            }
            None => self.cursor.settle(seq),
        }
    }

    fn entry(&self, job: &Job, attempt: u32, at: Timestamp, outcome: LogOutcome) -> LogEntry {
        LogEntry {
            seq: job.address.seq,
            attempt,
            at,
            duration_ms: 0,
            outcome,
            error: None,
            worker: String::new(),
            version: String::new(),
            revision: self.plan.record.revision,
            replay: job.replay().cloned(),
        }
    }

    fn tell_settled(&self, address: Address, state: FinalState, reason: &str) {
        let live = &self.scope.rooms.live;
        if live.receiver_count() > 0 {
            let (at, binding) = (self.scope.rooms.clock.now(), self.plan.record.name.clone());
            let _ = live.send(Fact::Settled { at, address, binding, state, reason: reason.into() });
        }
    }

    fn tell_attempt(&self, job: &Job, number: u32, called: &Called, outcome: LogOutcome) {
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
            error: called.result.answer.as_ref().err().cloned(),
            next_at: match called.next {
                Next::Retry { at } => Some(at),
                _ => None,
            },
            logs: called.result.logs.clone(),
        });
    }

    /// Re-evaluates deliveries in memory under a new plan: a changed filter takes effect on all that did not start.
    pub(super) fn reconsider(&mut self) {
        for job in self.queue.take_fresh() {
            if let Some(event) = job.event.map(Arc::unwrap_or_clone) {
                self.consider(event);
            }
        }
    }
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

//! Deliveries leave the queue as a batch when there is a slot in the binding's and the function's gate, the rate allows
//! it, the batch is full or has waited its time, and the function may be called.

use std::sync::Arc;

use bellwire_schemas::{FinalState, Timestamp};
use rand::Rng as _;
use tokio::task::AbortHandle;

use super::Runner;
use super::attempt::{Permits, Right, attempt, expire};
use super::part::MAX_UNFLUSHED;
use super::queue::{Job, Ready, Room};
use crate::binding::{Admit, Binding, Hold, Pass, Target};
use crate::decide::{Admission, Candidate, admit};

/// An attempt that is out.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) jobs: Vec<Job>,
    /// The lines of its batch.
    pub(super) lines: Vec<u64>,
    pub(super) abort: AbortHandle,
}

impl Runner {
    /// Starts as many attempts as there are slots for.
    pub(super) fn launch(&mut self) {
        (self.probe_at, self.wake_at, self.hold) = (None, None, None);
        self.look_at_keys(self.scope.rooms.clock.now());
        while self.is_taking() && self.scope.licence.holds() && self.unflushed() < MAX_UNFLUSHED {
            let now = self.scope.rooms.clock.now();
            let ready = self.queue.ready(now);
            if !ready.fresh {
                self.ready_since = None;
            }
            if !ready.any() {
                break;
            }
            let Some(room) = self.room(ready, now) else { break };
            let Some(permits) = self.permits() else {
                self.hold = Some(Hold::Slots);
                return;
            };
            match self.plan.target.admit() {
                Admit::Go(pass) => self.start(room, (pass, permits), now),
                Admit::Later(at) => {
                    (self.probe_at, self.hold) = (at, Some(Hold::Function));
                    break;
                }
            }
        }
        // Nothing to start: a slot that was waited for goes to somebody else.
        self.permits = None;
        if self.queue.len() == 0 && self.queue.rows() == 0 {
            self.entering = None;
        }
    }

    /// New events are back that were in a batch before: they do not wait for the window again.
    pub(super) fn go_on(&mut self) {
        self.ready_since = Some(Timestamp::from_micros(0));
    }

    /// What the next batch may hold; `None` when it has to wait, for the rate or for more events. Only new events are
    /// waited for: what is due, or comes back in parts, goes without them.
    fn room(&mut self, ready: Ready, now: Timestamp) -> Option<Room> {
        let batch = self.plan.spec.batch;
        let bytes = usize::try_from(batch.bytes.0).unwrap_or(usize::MAX);
        let mut room = Room { events: batch.size as usize, bytes, bisect: batch.bisect, fresh: true };
        if !batch.window.is_zero() {
            room.fresh = ready.fresh && (self.is_window_over(now) || self.queue.fills(room, now));
        }
        if !room.fresh && !ready.others {
            self.hold = self.wake_at.map(Hold::Window);
            return None;
        }
        if let Some(rate) = self.plan.spec.rate {
            match self.binding.meter.allowance(rate, self.binding.share(), room.events, now) {
                Ok(events) => room.events = events,
                Err(at) => {
                    (self.wake_at, self.hold) = (Some(at), Some(Hold::Rate(at)));
                    return None;
                }
            }
        }
        Some(room)
    }

    /// Whether new events that fill no batch have waited long enough; if not, the time is noted.
    fn is_window_over(&mut self, now: Timestamp) -> bool {
        let over = self.ready_since.get_or_insert(now).plus(self.plan.spec.batch.window);
        if over > now {
            self.wake_at = Some(over);
        }
        over <= now
    }

    /// Starts one batch.
    fn start(&mut self, room: Room, (pass, permits): (Pass, Permits), now: Timestamp) {
        let jobs = self.queue.take(room, now);
        let taken = lines_of(&jobs);
        if jobs.iter().any(Job::is_new) {
            self.ready_since = None;
        }
        let (jobs, old): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| {
            let candidate = Candidate { matches: true, since: job.since, now };
            admit(&self.plan.policy, &candidate) != Admission::Expired
        });
        old.into_iter().for_each(|job| self.expire(job));
        let jobs = self.alone(jobs);
        let lines = lines_of(&jobs);
        self.queue.landed(taken.into_iter().filter(|line| lines.binary_search(line).is_err()), now);
        if jobs.is_empty() {
            self.permits = Some(permits);
            return;
        }
        self.board.update(|face| face.running.extend(jobs.iter().map(|job| (job.address.seq, job.line))));
        if self.plan.spec.rate.is_some() {
            self.binding.meter.spend(jobs.len());
        }
        let random = self.rng.random();
        let (rooms, plan) = (Arc::clone(&self.scope.rooms), Arc::clone(&self.plan));
        let right = Right { licence: Arc::clone(&self.scope.licence), pass, permits };
        let abort = self.flights.spawn(attempt(rooms, plan, jobs.clone(), right, random));
        self.aboard.insert(abort.id(), Flight { jobs, lines, abort });
    }

    /// Ends a delivery that is too old for another attempt.
    fn expire(&mut self, job: Job) {
        if job.event.is_none() && self.plan.spec.on_failure.is_some() {
            let (rooms, plan) = (Arc::clone(&self.scope.rooms), Arc::clone(&self.plan));
            let abort = self.flights.spawn(expire(rooms, plan, job.clone()));
            self.aboard.insert(abort.id(), Flight { jobs: vec![job], lines: Vec::new(), abort });
        } else {
            self.settle_unattempted(&job, FinalState::Expired, "too-old");
        }
    }

    /// Slots in both gates, or a place in line.
    fn permits(&mut self) -> Option<Permits> {
        if let Some(permits) = self.permits.take() {
            return Some(permits);
        }
        if self.entering.is_some() {
            return None;
        }
        if let Some(_binding) = self.binding.gate.try_enter()
            && let Some(_function) = self.plan.target.gate.try_enter()
        {
            return Some(Permits { _binding, _function });
        }
        self.entering = Some(Box::pin(enter(Arc::clone(&self.binding), Arc::clone(&self.plan.target))));
        None
    }
}

/// The lines of a batch, each once.
fn lines_of(jobs: &[Job]) -> Vec<u64> {
    let mut lines: Vec<u64> = jobs.iter().map(|job| job.line).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

/// Waits in the binding's line first, so that a binding at its own limit takes nothing from the others.
async fn enter(binding: Arc<Binding>, target: Arc<Target>) -> Option<Permits> {
    let _binding = binding.gate.enter().await?;
    let _function = target.gate.enter().await?;
    Some(Permits { _binding, _function })
}

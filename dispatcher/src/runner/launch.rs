//! Deliveries leave the queue when there is a slot in the binding's and the function's gate and the function may be
//! called.

use std::sync::Arc;

use bellwire_schemas::FinalState;
use rand::Rng as _;

use super::Runner;
use super::attempt::{Permits, Right, attempt, expire};
use super::part::MAX_UNFLUSHED;
use crate::binding::{Admit, Binding, Target};
use crate::decide::{Admission, Candidate, admit};

impl Runner {
    /// Starts as many attempts as there are slots for.
    pub(super) fn launch(&mut self) {
        self.probe_at = None;
        while self.is_taking() && self.scope.licence.holds() && self.unflushed() < MAX_UNFLUSHED {
            let Some(job) = self.queue.pop() else { break };
            let now = self.scope.rooms.clock.now();
            let candidate = Candidate { matches: true, since: job.since, now };
            if admit(&self.plan.policy, &candidate) == Admission::Expired {
                if job.event.is_none() && self.plan.spec.on_failure.is_some() {
                    let (rooms, plan) = (Arc::clone(&self.scope.rooms), Arc::clone(&self.plan));
                    let id = self.flights.spawn(expire(rooms, plan, job.clone())).id();
                    self.aboard.insert(id, job);
                } else {
                    self.settle_unattempted(&job, FinalState::Expired, "too-old");
                }
                continue;
            }
            let Some(permits) = self.permits() else {
                self.queue.put_back(job);
                return;
            };
            match self.plan.target.admit() {
                Admit::Go(pass) => {
                    self.board.update(|face| {
                        face.running.insert(job.address.seq);
                    });
                    let random = self.rng.random();
                    let (rooms, plan) = (Arc::clone(&self.scope.rooms), Arc::clone(&self.plan));
                    let right = Right { licence: Arc::clone(&self.scope.licence), pass, permits };
                    let run = attempt(rooms, plan, job.clone(), right, random);
                    let id = self.flights.spawn(run).id();
                    self.aboard.insert(id, job);
                }
                Admit::Later(at) => {
                    self.queue.put_back(job);
                    self.probe_at = at;
                    break;
                }
            }
        }
        // Nothing to start: a slot that was waited for goes to somebody else.
        self.permits = None;
        if self.queue.len() == 0 {
            self.entering = None;
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

/// Waits in the binding's line first, so that a binding at its own limit takes nothing from the others.
async fn enter(binding: Arc<Binding>, target: Arc<Target>) -> Option<Permits> {
    let _binding = binding.gate.enter().await?;
    let _function = target.gate.enter().await?;
    Some(Permits { _binding, _function })
}

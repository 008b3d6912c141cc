//! Breaking off attempts, because somebody gave their delivery up.

use bellwire_schemas::{ErrorInfo, FailureClass, Seq};
use tokio::task::Id;

use super::Runner;
use super::queue::Job;

impl Runner {
    /// Breaks off the attempt that a delivery is in; false when there is none.
    pub(super) fn cut(&mut self, seq: Seq, error: ErrorInfo) -> bool {
        let Some((id, flight)) =
            self.aboard.iter().find(|(_, flight)| flight.jobs.iter().any(|job| job.address.seq == seq))
        else {
            return false;
        };
        flight.abort.abort();
        self.cuts.entry(*id).or_default().push((seq, Some(error)));
        true
    }

    /// Breaks off attempts whose debts were given up in the ledger already.
    pub(super) fn break_off(&mut self) {
        let mut given_up = self.board.take_given_up();
        for (id, flight) in &self.aboard {
            for job in flight.jobs.iter().filter(|job| job.debt.is_some()) {
                if let Some(None) = given_up.get(&job.address.seq) {
                    self.cuts.entry(*id).or_default().push((job.address.seq, None));
                    flight.abort.abort();
                }
            }
        }
        for (seq, error) in std::mem::take(&mut given_up) {
            if let Some(error) = error {
                self.supersede(seq, error);
            }
        }
    }

    /// A debt is gone from the ledger.
    pub(super) fn forget(&mut self, job: &Job) {
        self.queue.forget(job.address.seq);
        self.release(job.address);
    }

    /// An attempt was broken off: what was given up ends, the others of its batch wait again.
    pub(super) fn broken_off(&mut self, id: Id, jobs: Vec<Job>, lines: &[u64]) {
        let now = self.scope.rooms.clock.now();
        let given_up = self.cuts.remove(&id).unwrap_or_default();
        self.board.update(|face| {
            for job in &jobs {
                face.running.remove(&job.address.seq);
            }
        });
        let mut again = Vec::new();
        for job in jobs {
            match given_up.iter().find(|(seq, _)| *seq == job.address.seq) {
                Some((_, Some(error))) => self.settle_cancelled(&job, error.clone()),
                Some((_, None)) => self.forget(&job),
                None => again.push(job),
            }
        }
        if again.iter().any(Job::is_new) {
            self.go_on();
        }
        self.queue.put_back(again, now);
        self.queue.landed(lines.iter().copied(), now);
    }
}

/// The end of a delivery whose request says nothing more.
pub(super) fn cancelled() -> ErrorInfo {
    ErrorInfo::platform(FailureClass::Function, "Operator.Cancelled", "cancelled")
}

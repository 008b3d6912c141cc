//! Breaking off attempts, because somebody gave their delivery up.

use bellwire_schemas::{ErrorInfo, Seq};
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
        self.cuts.entry(*id).or_default().push((seq, error));
        true
    }

    /// Breaks off attempts whose debts were given up in the ledger already.
    pub(super) fn break_off(&mut self) {
        let mut given_up = self.board.take_given_up();
        for flight in self.aboard.values() {
            if flight.jobs.iter().any(|job| job.debt.is_some() && given_up.contains_key(&job.address.seq)) {
                flight.abort.abort();
            }
        }
        for (seq, error) in std::mem::take(&mut given_up) {
            if let Some(error) = error {
                self.supersede(seq, error);
            }
        }
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
                Some((_, error)) => self.settle_cancelled(&job, error.clone()),
                None => again.push(job),
            }
        }
        self.queue.put_back(again, now);
        self.queue.landed(lines.iter().copied(), now);
    }
}

//! What a handle remembers of the lanes it flushes: where bindings stand, and flushes that may not be durable yet.
//!
//! An asynchronous commit that was answered is lost when the server stops within a moment. Then a later checkpoint would
//! cover places whose log is gone. So each stays here until a synchronous commit after it has been answered, and is
//! sent again when it is found to be missing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bellwire_schemas::{BindingId, Epoch, Lane};

use super::plan::{SharedPlan, Stand};

/// Bytes of unconfirmed flushes of one lane; beyond that a flush waits until they are confirmed.
const MAX_BYTES: usize = 8 << 20;
/// How long a flush may stay unconfirmed before the next one sees to it; heartbeats usually come earlier.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The memory of all lanes.
#[derive(Default)]
pub(in crate::postgres) struct Deliveries {
    lanes: Mutex<HashMap<Lane, Arc<LaneMemory>>>,
    /// Held by whoever confirms; one is enough.
    pub(super) confirming: tokio::sync::Mutex<()>,
}

/// The memory of one lane.
#[derive(Default)]
pub(in crate::postgres) struct LaneMemory {
    /// Held during a flush: flushes of a lane go one after the other.
    pub turn: tokio::sync::Mutex<Stands>,
    kept: Mutex<Kept>,
}

/// What is known of the bindings of a lane, under one epoch.
#[derive(Default)]
pub(in crate::postgres) struct Stands {
    pub epoch: Epoch,
    /// Of each binding, what its newest checkpoint is; taken out while a flush is under way.
    pub known: HashMap<BindingId, Stand>,
    /// A flush whose outcome is not known.
    pub pending: Option<SharedPlan>,
}

#[derive(Default)]
struct Kept {
    plans: VecDeque<(u64, Instant, SharedPlan)>,
    next: u64,
    bytes: usize,
}

impl Kept {
    fn retain(&mut self, wanted: impl Fn(&SharedPlan) -> bool) {
        if self.plans.iter().any(|(_, _, plan)| !wanted(plan)) {
            self.plans.retain(|(_, _, plan)| wanted(plan));
            self.weigh();
        }
    }

    fn weigh(&mut self) {
        self.bytes = self.plans.iter().map(|(_, _, plan)| plan.bytes).sum();
    }
}

/// The newest unconfirmed flushes of a lane at one moment.
pub(in crate::postgres) struct Asked {
    pub lane: Lane,
    /// The number of the last one.
    upto: u64,
    /// The newest version of each binding in them.
    pub newest: HashMap<BindingId, u64>,
}

impl Deliveries {
    /// The memory of a lane.
    pub(in crate::postgres) fn lane(&self, lane: Lane) -> Arc<LaneMemory> {
        self.lanes().entry(lane).or_default().clone()
    }

    /// What there is to confirm, of all lanes.
    pub(in crate::postgres) fn unconfirmed(&self) -> Vec<Asked> {
        let lanes = self.lanes();
        let mut asked: Vec<_> = lanes.iter().filter_map(|(lane, memory)| memory.unconfirmed(*lane)).collect();
        asked.sort_by_key(|asked| asked.lane);
        asked
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Arc<LaneMemory>>> {
        self.lanes.lock().expect("no code panics while it holds this lock")
    }
}

impl LaneMemory {
    /// Keeps a flush that was answered but may not be durable yet. Those of an older epoch are no longer ours to repeat.
    pub fn keep(&self, plan: SharedPlan) {
        let mut kept = self.kept();
        kept.retain(|p| p.epoch >= plan.epoch);
        let n = kept.next;
        kept.next += 1;
        kept.bytes += plan.bytes;
        kept.plans.push_back((n, Instant::now(), plan));
    }

    /// Forgets what was asked about, because it is durable.
    pub fn confirmed(&self, asked: &Asked) {
        let mut kept = self.kept();
        let durable = kept.plans.iter().take_while(|(n, _, _)| *n <= asked.upto).count();
        kept.plans.drain(..durable);
        kept.weigh();
    }

    /// Forgets the flushes of an epoch that has ended.
    pub fn forget(&self, epoch: Epoch) {
        self.kept().retain(|p| p.epoch != epoch);
    }

    /// The flushes that may be missing under an epoch, oldest first.
    pub fn plans(&self, epoch: Epoch) -> Vec<SharedPlan> {
        self.kept().plans.iter().map(|(_, _, plan)| plan.clone()).filter(|p| p.epoch == epoch).collect()
    }

    /// Whether a flush that was answered is newer than where its binding stands.
    pub fn is_ahead_of(&self, epoch: Epoch, stands: &HashMap<BindingId, Stand>) -> bool {
        let kept = self.kept();
        let mut parts = kept
            .plans
            .iter()
            .filter(|(_, _, plan)| plan.epoch == epoch)
            .flat_map(|(_, _, plan)| plan.parts());
        parts.any(|(binding, version)| {
            stands.get(&binding).is_some_and(|stand| stand.checkpoint.version < version)
        })
    }

    /// Whether too much or too old flushes are unconfirmed.
    pub(in crate::postgres) fn is_overdue(&self) -> bool {
        let kept = self.kept();
        kept.bytes > MAX_BYTES || kept.plans.front().is_some_and(|(_, at, _)| at.elapsed() > MAX_AGE)
    }

    /// What there is to confirm in this lane.
    pub fn unconfirmed(&self, lane: Lane) -> Option<Asked> {
        let kept = self.kept();
        let upto = kept.plans.back()?.0;
        let newest = kept.plans.iter().flat_map(|(_, _, plan)| plan.parts()).collect();
        Some(Asked { lane, upto, newest })
    }

    /// Lets time pass for the flushes kept.
    #[cfg(test)]
    pub(in crate::postgres) fn age(&self, by: Duration) {
        for (_, at, _) in &mut self.kept().plans {
            *at -= by;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code panics while it holds this lock")
    }
}

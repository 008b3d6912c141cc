//! Whether an attempt may start: asked right before it does, answered from memory.
//!
//! A lease counts from before its heartbeat was sent, on the monotonic clock, which goes on while the process is stopped
//! (SIGSTOP) and knows no time zones and no steps. It does not count the sleep of the whole machine; then the epochs of
//! the ledger still keep late results out.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bellwire_ledger::LaneOwner;
use bellwire_schemas::{Epoch, Lane};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::lane::Stop;

/// How long all leases of this controller are believed, and the newest epoch seen of each lane.
#[derive(Debug)]
pub(crate) struct Fence {
    trust: RwLock<Trust>,
    /// Without others there is nothing to fear.
    bounded: bool,
    reopened: watch::Sender<u64>,
}

#[derive(Debug)]
struct Trust {
    until: Option<Instant>,
    newest: Vec<Epoch>,
}

impl Fence {
    /// Closed until the first confirmation; for a ledger that nobody shares always open.
    pub(crate) fn new(lanes: u16, is_shared: bool) -> Self {
        let trust = Trust { until: None, newest: vec![Epoch(0); usize::from(lanes)] };
        Self { trust: RwLock::new(trust), bounded: is_shared, reopened: watch::Sender::new(0) }
    }

    /// Whether the leases are believed now.
    pub(crate) fn is_open(&self) -> bool {
        !self.bounded || self.read().until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether an attempt may start in a lane that was taken under this epoch.
    pub(crate) fn may_start(&self, lane: Lane, epoch: Epoch) -> bool {
        let trust = self.read();
        let open = !self.bounded || trust.until.is_some_and(|until| Instant::now() < until);
        open && place(lane).and_then(|at| trust.newest.get(at)).is_none_or(|newest| *newest <= epoch)
    }

    /// A heartbeat was answered: its leases are believed up to `until`, and lanes under newer epochs are not ours.
    pub(crate) fn confirm(&self, until: Instant, lanes: &[LaneOwner]) {
        let was_open = self.is_open();
        {
            let mut trust = self.trust.write().unwrap_or_else(PoisonError::into_inner);
            trust.until = trust.until.max(Some(until));
            for seen in lanes {
                if let Some(newest) = place(seen.lane).and_then(|at| trust.newest.get_mut(at)) {
                    *newest = seen.epoch.max(*newest);
                }
            }
        }
        if !was_open {
            self.reopened.send_modify(|n| *n = n.wrapping_add(1));
        }
    }

    /// How long the leases are still believed; `None` when no lease can end.
    pub(crate) fn left(&self) -> Option<Duration> {
        let until = self.read().until;
        self.bounded.then(|| until.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now())))
    }

    /// Told when it opens again.
    pub(crate) fn reopened(&self) -> watch::Receiver<u64> {
        self.reopened.subscribe()
    }

    fn read(&self) -> RwLockReadGuard<'_, Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(lane: Lane) -> Option<usize> {
    usize::from(lane.0).checked_sub(1)
}

/// The right to start attempts in one lane.
#[derive(Debug)]
pub(crate) struct Licence {
    pub(crate) fence: Arc<Fence>,
    pub(crate) lane: Lane,
    pub(crate) epoch: Epoch,
    pub(crate) stop: watch::Receiver<Stop>,
}

impl Licence {
    /// Whether it holds at this moment.
    pub(crate) fn holds(&self) -> bool {
        *self.stop.borrow() == Stop::Run && self.fence.may_start(self.lane, self.epoch)
    }
}

/// Who does what must be done once in the whole cluster: the owner of the first lane.
#[derive(Clone, Debug)]
pub(crate) struct Lead {
    pub(crate) fence: Arc<Fence>,
    pub(crate) epoch: watch::Receiver<Option<Epoch>>,
}

impl Lead {
    /// Whether it is this controller.
    pub(crate) fn is_ours(&self) -> bool {
        self.epoch.borrow().is_some_and(|epoch| self.fence.may_start(Lane(1), epoch))
    }
}

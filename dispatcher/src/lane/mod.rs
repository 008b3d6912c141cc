//! One lane: taken under an epoch, one runner for each binding, one flusher for all of them; dropped whole when the
//! epoch is lost.
//!
//! `flusher.rs` turns what the runners have to tell into commits, `envelopes.rs` parses each event once for all of
//! them.

mod envelopes;
mod flusher;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwire_schemas::{BindingId, Epoch, Lane, Vital};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::binding::Binding;
use crate::rooms::Rooms;
use crate::runner::Runner;
use envelopes::Envelopes;
pub(crate) use flusher::Request;
use flusher::{Flusher, Last};

/// How long to rest before asking again for a lane that another controller holds, or after a fault.
const ACQUIRE_REST: Duration = Duration::from_secs(1);
/// Parts that wait for the flusher. Each runner has one at most; more bindings than this take turns.
const WAITING_PARTS: usize = 4_096;

/// How the dispatcher runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    /// On.
    #[default]
    Run,
    /// Take nothing on, let attempts end, flush, release.
    Drain,
    /// As before, but give attempts up.
    Now,
}

/// What the runners of an owned lane share.
pub(crate) struct Scope {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) lane: Lane,
    pub(crate) envelopes: Envelopes,
    pub(crate) flusher: mpsc::Sender<Request>,
    pub(crate) stop: watch::Receiver<Stop>,
}

/// The bindings in force, and a signal when the set changes.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    bindings: Mutex<BTreeMap<BindingId, Arc<Binding>>>,
    changed: watch::Sender<u64>,
}

/// A lane and whether it is ours.
pub(crate) struct LaneTask {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) lane: Lane,
    pub(crate) roster: Arc<Roster>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) epoch: watch::Sender<Option<Epoch>>,
}

/// Why a lane was let go.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Stopped,
    Fenced,
    Fault,
}

impl Roster {
    pub(crate) fn all(&self) -> BTreeMap<BindingId, Arc<Binding>> {
        self.bindings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn replace(&self, bindings: BTreeMap<BindingId, Arc<Binding>>) {
        *self.bindings.lock().unwrap_or_else(PoisonError::into_inner) = bindings;
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl LaneTask {
    /// Owns the lane as long as it can, and takes it again when it was lost.
    pub(crate) async fn run(mut self) {
        let _vital = Vital("a lane");
        while *self.stop.borrow() == Stop::Run {
            let now = self.rooms.clock.now();
            match self.rooms.ledger().acquire(self.rooms.controller, self.lane, now).await {
                Ok(Some(epoch)) => {
                    self.epoch.send_replace(Some(epoch));
                    let end = self.own(epoch).await;
                    self.epoch.send_replace(None);
                    if end == End::Stopped {
                        if let Err(error) = self.rooms.ledger().release(self.lane, epoch).await {
                            tracing::warn!(lane = %self.lane, %error, "cannot give the lane back");
                        }
                        return;
                    }
                    tracing::warn!(lane = %self.lane, ?end, "let the lane go, taking it again");
                }
                Ok(None) => tracing::debug!(lane = %self.lane, "another controller holds the lane"),
                Err(error) => tracing::warn!(lane = %self.lane, %error, "cannot take the lane"),
            }
            tokio::select! {
                () = tokio::time::sleep(ACQUIRE_REST) => {}
                _ = self.stop.changed() => {}
            }
        }
    }

    async fn own(&self, epoch: Epoch) -> End {
        let (flusher, requests) = mpsc::channel(WAITING_PARTS);
        let scope = Arc::new(Scope {
            rooms: Arc::clone(&self.rooms),
            lane: self.lane,
            envelopes: Envelopes::default(),
            flusher,
            stop: self.stop.clone(),
        });
        let flusher = Flusher::new(Arc::clone(&self.rooms), self.lane, epoch, requests);
        let mut flusher = AbortOnDrop(tokio::spawn(flusher.run()));
        let mut runners = Runners::default();
        let mut changed = self.roster.changed.subscribe();
        let mut stop = self.stop.clone();
        loop {
            let running = *stop.borrow_and_update() == Stop::Run;
            changed.borrow_and_update();
            if running {
                runners.complete(&self.roster, &scope);
            } else if runners.tasks.is_empty() {
                break;
            }
            tokio::select! {
                last = &mut flusher.0 => return if matches!(last, Ok(Last::Fenced)) { End::Fenced } else { End::Fault },
                Some(ended) = runners.tasks.join_next_with_id() => if !runners.ended(ended) { return End::Fault },
                Ok(()) = changed.changed() => {}
                Ok(()) = stop.changed() => {}
            }
        }
        // The last sender goes, so the flusher ends after what it still holds.
        drop(scope);
        match (&mut flusher.0).await {
            Ok(Last::Fenced) => End::Fenced,
            _ => End::Stopped,
        }
    }
}

/// The runners of a lane by binding; dropping them ends their attempts.
#[derive(Default)]
struct Runners {
    tasks: JoinSet<()>,
    by_task: HashMap<Id, BindingId>,
}

impl Runners {
    /// Starts a runner for each active binding that has none.
    fn complete(&mut self, roster: &Roster, scope: &Arc<Scope>) {
        for (id, binding) in roster.all() {
            if binding.plan().active && !self.by_task.values().any(|running| *running == id) {
                let task = self.tasks.spawn(start(Arc::clone(scope), binding));
                self.by_task.insert(task.id(), id);
            }
        }
    }

    /// False when a runner broke down: then what the lane holds in memory is not to be trusted.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) -> bool {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.by_task.remove(&id);
        if let Err(error) = &ended {
            tracing::error!(%error, "a runner broke down");
        }
        ended.is_ok()
    }
}

async fn start(scope: Arc<Scope>, binding: Arc<Binding>) {
    let mut stop = scope.stop.clone();
    loop {
        match Runner::load(Arc::clone(&scope), Arc::clone(&binding)).await {
            Ok(runner) => return runner.run().await,
            Err(error) => {
                tracing::warn!(lane = %scope.lane, binding = %binding.name, %error, "cannot read the checkpoint");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(ACQUIRE_REST) => {}
            _ = stop.changed() => return,
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

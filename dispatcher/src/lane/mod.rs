//! One lane: taken under an epoch when the keeper of the leases says so, one runner for each binding, one flusher for
//! all of them; given back in order, or dropped whole when the epoch is lost.
//!
//! `flusher.rs` turns what the runners have to tell into commits, `envelopes.rs` parses each event once for all of
//! them.

mod envelopes;
mod flusher;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bellwire_schemas::live::Fact;
use bellwire_schemas::{BindingId, BindingName, Epoch, Lane, Vital};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::binding::Binding;
use crate::lease::{Fence, Licence};
use crate::rooms::Rooms;
use crate::runner::Runner;
use envelopes::Envelopes;
pub(crate) use flusher::Request;
use flusher::{Flusher, Last};

/// How long the ledger may take to hand a lane over: it waits for the last flush of the owner before.
const TAKE: Duration = Duration::from_secs(10);
/// How long the last flush of a lane that is given back may take after its attempts have ended or were given up.
const LAST_FLUSH: Duration = Duration::from_secs(4);
/// Between two looks at whether the runners of a lane get on.
const LOOK: Duration = Duration::from_secs(10);
/// Before a checkpoint that could not be read is asked for again.
const LOAD_REST: Duration = Duration::from_secs(1);
/// Parts that wait for the flusher. Each runner has one at most; more bindings than this take turns.
const WAITING_PARTS: usize = 4_096;

/// How the dispatcher runs, or a lane of it; later ones are stricter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// On.
    #[default]
    Run,
    /// Take nothing on, let attempts end, flush, release.
    Drain,
    /// As before, but only for a short time: another controller waits for the lane.
    Give,
    /// As before, but give attempts up.
    Now,
    /// The lane is not ours any more: drop all memory of it, flush nothing.
    Lost,
}

/// What the runners of an owned lane share.
pub(crate) struct Scope {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) lane: Lane,
    pub(crate) envelopes: Envelopes,
    pub(crate) flusher: mpsc::Sender<Request>,
    pub(crate) stop: watch::Receiver<Stop>,
    pub(crate) licence: Arc<Licence>,
}

/// The bindings in force, and a signal when the set changes.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    bindings: Mutex<BTreeMap<BindingId, Arc<Binding>>>,
    changed: watch::Sender<u64>,
}

/// One ownership of a lane, from taking it to giving it back.
pub(crate) struct LaneTask {
    pub(crate) rooms: Arc<Rooms>,
    pub(crate) lane: Lane,
    pub(crate) roster: Arc<Roster>,
    pub(crate) fence: Arc<Fence>,
    pub(crate) stop: watch::Sender<Stop>,
    pub(crate) epoch: watch::Sender<Option<Epoch>>,
}

/// How an ownership ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Given back in order.
    Released,
    /// Somebody else has it.
    Lost,
    /// It could not be taken.
    Refused,
    /// Something broke down; what was in memory is not to be trusted.
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
    /// Takes the lane, and owns it until it is told to stop or loses it.
    pub(crate) async fn run(self) -> End {
        let _vital = Vital("a lane");
        let mut stop = self.stop.subscribe();
        let taken = tokio::select! {
            taken = self.take() => taken,
            _ = stop.wait_for(|stop| *stop != Stop::Run) => return End::Released,
        };
        let Some(epoch) = taken else { return End::Refused };
        self.epoch.send_replace(Some(epoch));
        let end = self.own(epoch).await;
        self.epoch.send_replace(None);
        if self.rooms.ledger().is_shared() {
            self.rooms.feed.forget(self.lane);
        }
        match end {
            End::Released | End::Fault => self.release(epoch).await,
            End::Lost | End::Refused => {
                tracing::warn!(lane = %self.lane, %epoch, "let the lane go: what was not flushed is repeated by its owner");
            }
        }
        end
    }

    /// The new epoch, with the place known up to which the lane is written.
    async fn take(&self) -> Option<Epoch> {
        let (ledger, lane) = (self.rooms.ledger(), self.lane);
        let now = self.rooms.clock.now();
        let epoch = match timeout(TAKE, ledger.acquire(self.rooms.controller, lane, now)).await {
            Ok(Ok(Some(epoch))) => epoch,
            Ok(Ok(None)) => {
                tracing::debug!(%lane, "another controller holds the lane");
                return None;
            }
            Ok(Err(error)) => {
                tracing::warn!(%lane, %error, "cannot take the lane");
                return None;
            }
            Err(_) => {
                tracing::warn!(%lane, "cannot take the lane: the ledger does not answer");
                return None;
            }
        };
        match timeout(TAKE, self.rooms.feed.learn(lane)).await {
            Ok(Ok(())) => {
                tracing::debug!(%lane, %epoch, "took the lane");
                Some(epoch)
            }
            failed => {
                let error = failed.map(|answer| answer.map_err(|error| error.to_string()));
                tracing::warn!(%lane, ?error, "cannot read where the lane ends");
                self.release(epoch).await;
                None
            }
        }
    }

    /// A runner that is alive but does not get on.
    fn stuck(&self) -> Option<(BindingName, &'static str)> {
        let all = self.roster.all();
        all.values().find_map(|binding| Some((binding.name.clone(), binding.stuck(self.lane)?)))
    }

    fn say_stuck(&self, binding: &BindingName, what: &str) {
        let (at, subject) = (self.rooms.clock.now(), binding.to_string());
        let detail = format!("lane {}: its runner {what} and does not get on", self.lane);
        let _ = self.rooms.live.send(Fact::Condition { at, subject, state: "stalled".into(), detail });
    }

    async fn release(&self, epoch: Epoch) {
        match timeout(LAST_FLUSH, self.rooms.ledger().release(self.lane, epoch)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(lane = %self.lane, %error, "cannot give the lane back"),
            Err(_) => {
                tracing::warn!(lane = %self.lane, "cannot give the lane back: the ledger does not answer")
            }
        }
    }

    async fn own(&self, epoch: Epoch) -> End {
        let (sender, requests) = mpsc::channel(WAITING_PARTS);
        let (fence, lane) = (Arc::clone(&self.fence), self.lane);
        let licence = Arc::new(Licence { fence, lane, epoch, stop: self.stop.subscribe() });
        let (stop, rooms) = (self.stop.subscribe(), Arc::clone(&self.rooms));
        let scope = Scope { rooms, lane, envelopes: Envelopes::default(), flusher: sender, stop, licence };
        let mut scope = Some(Arc::new(scope));
        let flusher = Flusher::new(Arc::clone(&self.rooms), lane, epoch, requests);
        let mut flusher = AbortOnDrop(tokio::spawn(flusher.run()));
        let mut runners = Runners::default();
        let mut changed = self.roster.changed.subscribe();
        let mut stop = self.stop.subscribe();
        let mut given_at = None;
        loop {
            let order = *stop.borrow_and_update();
            changed.borrow_and_update();
            match order {
                Stop::Lost => return End::Lost,
                Stop::Give if given_at.is_none() => given_at = Some(Instant::now()),
                _ => {}
            }
            match &scope {
                Some(scope) if order == Stop::Run => runners.complete(&self.roster, scope),
                // The last sender goes, so the flusher ends after what it still holds.
                Some(_) if runners.tasks.is_empty() => scope = None,
                _ => {}
            }
            let give_up = given_at.map(|at| at + self.rooms.lease.give).filter(|_| order == Stop::Give);
            let limit = given_at.map(|at| at + self.rooms.lease.give + LAST_FLUSH);
            tokio::select! {
                last = &mut flusher.0 => return match last {
                    Ok(Last::Fenced) => End::Lost,
                    Ok(Last::Drained) if order != Stop::Run => End::Released,
                    _ => End::Fault,
                },
                Some(ended) = runners.tasks.join_next_with_id() => if !runners.ended(ended) { return End::Fault },
                Ok(()) = changed.changed() => {}
                Ok(()) = stop.changed() => {}
                () = sleep(LOOK) => if let Some((binding, what)) = self.stuck() {
                    tracing::error!(%lane, %binding, "its runner {what} and does not get on: taking the lane anew");
                    self.say_stuck(&binding, what);
                    return End::Fault;
                },
                () = until(give_up) => {
                    self.stop.send_if_modified(|stop| {
                        let given = *stop == Stop::Give;
                        if given {
                            *stop = Stop::Now;
                        }
                        given
                    });
                }
                () = until(limit) => {
                    tracing::warn!(%lane, "the last flush did not commit in time: its deliveries are repeated");
                    return End::Released;
                }
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
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
            () = tokio::time::sleep(LOAD_REST) => {}
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

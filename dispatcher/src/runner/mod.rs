//! The runner of one binding in one lane: reads, filters, starts attempts, gathers outcomes, flushes.
//!
//! It owns its cursor and shares nothing with other runners but the gates, so a slow binding holds up nobody. It never
//! waits for a retry whose debt row is not flushed, and forgets nothing before the ledger has confirmed it. What is
//! decided is decided in `decide.rs`; here it is done.
//!
//! Read `fill.rs` (what comes in), `queue/` (what waits), `launch.rs`, `load.rs` and `attempt.rs` (what runs),
//! `settle.rs` (what came of it), `part.rs` (what the ledger is told).

mod admit;
mod attempt;
mod cut;
mod fill;
mod launch;
mod load;
mod part;
mod queue;
mod settle;
mod singles;

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use bellwire_ledger::{Error, FlushOutcome, OwedReason};
use bellwire_schemas::{BindingId, ErrorInfo, Seq, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};

use crate::binding::{Binding, Board, Hold, Plan};
use crate::cursor::Cursor;
use crate::lane::{Request, Scope, Stop};
use admit::Burst;
use attempt::{Landed, Permits};
use launch::Flight;
use queue::{Queue, Stream};
pub(crate) use singles::Singles;
use singles::{Times, Waiting};

pub use part::MAX_UNFLUSHED;
use part::{Part, Sent};
pub(crate) use queue::line_of;

/// A cursor that moved over other sources' events is written at the latest after this long.
const MARK_LINGER: Duration = Duration::from_secs(1);
/// Longest sleep: a wall clock that was set back or forth is noticed after this long.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// Rest while more runners than the flusher's queue holds have something to tell.
const CROWDED_REST: Duration = Duration::from_millis(20);

/// One binding in one lane.
pub(crate) struct Runner {
    scope: Arc<Scope>,
    binding: Arc<Binding>,
    board: Arc<Board>,
    plan: Arc<Plan>,
    plans: watch::Receiver<Arc<Plan>>,
    pokes: watch::Receiver<u64>,
    conditions: watch::Receiver<u64>,
    stop: watch::Receiver<Stop>,
    reopened: watch::Receiver<u64>,
    tail: watch::Receiver<Seq>,
    cursor: Cursor,
    version: u64,
    queue: Queue,
    flights: JoinSet<Landed>,
    aboard: HashMap<Id, Flight>,
    /// Attempts that are broken off, with the deliveries that were given up; without an error, in the ledger already.
    cuts: HashMap<Id, Vec<(Seq, Option<ErrorInfo>)>>,
    /// Deliveries to give up when they are read.
    cancelled: HashMap<Seq, ErrorInfo>,
    entering: Option<Pin<Box<dyn Future<Output = Option<Permits>> + Send>>>,
    permits: Option<Permits>,
    part: Part,
    sent: Option<Sent>,
    /// The burst of each key, when the binding waits for its end.
    bursts: HashMap<u64, Burst>,
    /// The line of each debt that holds its key, of a binding that lets one delivery of a key be under way.
    retries: HashMap<Seq, u64>,
    /// Due debts of such a binding whose key is not free.
    waiting: Waiting,
    /// And those that asked for a later time, when it is in order.
    late: Times,
    /// When debts that hold their key are due.
    kept: Times,
    /// Whether the debts are known that later events depend on: nothing is read before.
    is_learned: bool,
    /// Since when new events are gathered for a batch.
    ready_since: Option<Timestamp>,
    /// When a batch is full enough, or the rate allows another.
    wake_at: Option<Timestamp>,
    /// What the last launch stopped at.
    hold: Option<Hold>,
    /// When to ask the ledger for debts.
    due_at: Option<Timestamp>,
    /// When the function may be probed.
    probe_at: Option<Timestamp>,
    /// When the reader may go on after a refusal.
    read_after: Option<Timestamp>,
    rng: StdRng,
}

/// Why a runner woke up.
enum Woken {
    Landed(Result<(Id, Landed), JoinError>),
    Answered(Option<FlushOutcome>),
    Entered(Option<Permits>),
    Poked,
    Other,
}

impl Runner {
    /// Loads where the binding stands.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub(crate) async fn load(scope: Arc<Scope>, binding: Arc<Binding>) -> Result<Self, Error> {
        let checkpoint = scope.rooms.ledger().checkpoint(scope.lane, binding.id).await?;
        let mut plans = binding.watch();
        let plan = Arc::clone(&plans.borrow_and_update());
        let has_parked = !plan.is_ordered() && has_parked(&scope, binding.id).await;
        let seed = scope.rooms.seed ^ (u64::from(scope.lane.0) << 32) ^ u64::from(binding.id.0);
        let now = scope.rooms.clock.now();
        binding.owned.fetch_add(1, Relaxed);
        let mut runner = Self {
            board: binding.board(scope.lane),
            pokes: binding.pokes(),
            conditions: plan.target.changes(),
            stop: scope.stop.clone(),
            reopened: scope.licence.fence.reopened(),
            tail: scope.rooms.feed.tail(scope.lane),
            cursor: Cursor::resume(&checkpoint),
            version: checkpoint.version,
            queue: Queue::new(scope.lane, plan.ordering()),
            is_learned: false,
            bursts: HashMap::new(),
            retries: HashMap::new(),
            waiting: Waiting::default(),
            late: Times::default(),
            kept: Times::default(),
            ready_since: None,
            wake_at: None,
            hold: None,
            cuts: HashMap::new(),
            cancelled: HashMap::new(),
            flights: JoinSet::new(),
            aboard: HashMap::new(),
            entering: None,
            permits: None,
            part: Part::default(),
            sent: None,
            due_at: Some(now),
            probe_at: None,
            read_after: None,
            rng: StdRng::seed_from_u64(seed),
            plan,
            plans,
            scope,
            binding,
        };
        runner.is_learned = !runner.remembers() && !has_parked;
        Ok(runner)
    }

    /// Runs until the binding is dropped, the dispatcher stops, or the lane is lost.
    pub(crate) async fn run(mut self) {
        loop {
            self.adapt();
            self.board.beat("reads", self.sent.is_some());
            self.fill().await;
            self.launch();
            if !self.send() {
                return lost().await;
            }
            if self.is_finished() {
                return;
            }
            self.publish();
            self.board.beat("waits", self.sent.is_some());
            // With more to read, only a glance at what else happened.
            let woken = if self.can_read() { self.glance().await } else { self.wait().await };
            match woken {
                Woken::Landed(landed) => {
                    self.joined(landed);
                    while let Some(landed) = self.flights.try_join_next_with_id() {
                        self.joined(landed);
                    }
                }
                Woken::Answered(Some(FlushOutcome::Flushed)) => self.confirmed(),
                Woken::Answered(Some(FlushOutcome::Fenced) | None) => return lost().await,
                Woken::Entered(permits) => {
                    self.entering = None;
                    self.permits = permits;
                }
                Woken::Poked => {
                    self.queue.drop_debts();
                    self.drop_waiting();
                    self.break_off();
                    if self.remembers() {
                        self.is_learned = false;
                    }
                    let now = self.scope.rooms.clock.now();
                    self.due_at = Some(now);
                    // A new debt may have come for a place whose end is committed but not confirmed: it is passed over
                    // now, so look again then.
                    if let Some(sent) = &mut self.sent {
                        (sent.next_due, sent.is_poked) = (Some(now), true);
                    }
                }
                Woken::Other => {}
            }
        }
    }

    /// Whether new deliveries are taken on.
    fn is_taking(&self) -> bool {
        *self.stop.borrow() == Stop::Run && self.plan.held().is_none()
    }

    /// Outcomes that the ledger has not confirmed.
    fn unflushed(&self) -> usize {
        self.part.weight() + self.sent.as_ref().map_or(0, |sent| sent.weight)
    }

    fn adapt(&mut self) {
        if self.plans.has_changed().unwrap_or(false) {
            let before = self.plan.spec.singleton;
            self.plan = Arc::clone(&self.plans.borrow_and_update());
            self.conditions = self.plan.target.changes();
            // Slots of another function are worth nothing.
            self.entering = None;
            self.permits = None;
            self.reorder();
            if self.plan.spec.singleton != before {
                self.learn_keys(before);
            }
            self.reconsider();
        }
        // In order, what runs on leases that are not believed any more must not meet the next owner's attempts.
        let is_adrift = self.plan.is_ordered() && !self.scope.licence.fence.is_open();
        if (*self.stop.borrow() >= Stop::Now || is_adrift) && !self.flights.is_empty() {
            self.flights.abort_all();
        }
    }

    /// Starts the queue over when the plan's order is another one.
    fn reorder(&mut self) {
        if self.queue.is_ordered() == self.plan.is_ordered() {
            return;
        }
        self.drop_waiting();
        let fresh = self.queue.take_fresh();
        let aboard = self.aboard.values().flat_map(|flight| flight.lines.iter().copied());
        self.queue.reorder(self.plan.ordering(), aboard);
        let now = self.scope.rooms.clock.now();
        for job in fresh {
            self.queue.push_fresh(job, Stream::Cursor, now);
        }
        self.due_at = Some(now);
        if self.plan.is_ordered() {
            self.is_learned = !self.remembers();
        } else {
            self.unpark(now);
        }
    }

    /// Without order nothing waits for its key any more: rows that say so are read and made due, those on their way to
    /// the ledger when they are there.
    fn unpark(&mut self, now: Timestamp) {
        for owed in self.part.owed.iter_mut().filter(|owed| owed.waits_for_key()) {
            (owed.next_at, owed.reason) = (now, OwedReason::Retry);
        }
        if let Some(sent) = &mut self.sent {
            sent.is_parking = true;
        }
        self.is_learned = false;
    }

    fn is_ending(&self) -> bool {
        *self.stop.borrow() != Stop::Run || !self.plan.active
    }

    fn is_finished(&self) -> bool {
        let quiet = self.flights.is_empty() && self.sent.is_none() && self.part.is_empty();
        self.is_ending() && quiet && self.part.moved_at.is_none()
    }

    /// Hands the outcomes to the flusher, if it is time and no flush is under way. False when the flusher is gone.
    fn send(&mut self) -> bool {
        let now = self.scope.rooms.clock.now();
        let linger = || self.part.moved_at.is_some_and(|at| self.is_ending() || now.since(at) >= MARK_LINGER);
        if self.sent.is_some() || (self.part.is_empty() && !linger()) {
            return true;
        }
        let Ok(place) = self.scope.flusher.try_reserve() else {
            return !self.scope.flusher.is_closed();
        };
        let (reply, answer) = oneshot::channel();
        self.version += 1;
        let (part, sent) = self.part.take(self.binding.id, self.version, &self.cursor, answer);
        self.sent = Some(sent);
        place.send(Request { part, reply, board: Arc::clone(&self.board) });
        true
    }

    fn confirmed(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        self.board.update(|face| face.no_progress = None);
        let now = self.scope.rooms.clock.now();
        for change in sent.changed {
            self.queue.confirm(change, now);
        }
        if sent.is_parking && !self.queue.is_ordered() {
            (self.is_learned, self.due_at) = (false, Some(now));
        }
        if !self.queue.is_ordered() || sent.is_poked {
            self.due_at = self.due_at.into_iter().chain(sent.next_due).min();
        }
    }

    fn joined(&mut self, landed: Result<(Id, Landed), JoinError>) {
        match landed {
            Ok((id, mut landed)) => {
                self.cuts.remove(&id);
                let Some(flight) = self.aboard.remove(&id) else { return };
                // Some may have become debts while they were out.
                let debts: HashMap<_, _> =
                    flight.jobs.into_iter().map(|job| (job.address, job.debt)).collect();
                for (job, _) in &mut landed.jobs {
                    if job.debt.is_none()
                        && let Some(debt) = debts.get(&job.address)
                    {
                        job.debt.clone_from(debt);
                    }
                }
                self.land(landed, &flight.lines);
            }
            Err(error) => {
                let Some(Flight { jobs, lines, .. }) = self.aboard.remove(&error.id()) else { return };
                if error.is_cancelled() {
                    self.broken_off(error.id(), jobs, &lines);
                    return;
                }
                tracing::error!(binding = %self.binding.name, %error, "an attempt broke down");
                let (rooms, plan) = (Arc::clone(&self.scope.rooms), Arc::clone(&self.plan));
                let abort = self.flights.spawn(attempt::broken(rooms, plan, jobs.clone(), error.to_string()));
                self.aboard.insert(abort.id(), Flight { jobs, lines, abort });
            }
        }
    }

    fn set_unread(&self, unread: Option<String>) {
        self.board.update(|face| face.unread = unread);
    }

    fn publish(&self) {
        let (stalled, rows) = (self.stalled(), self.queue.rows());
        let is_idle = !self.can_read() && self.queue.len() == 0;
        let hold = if self.unflushed() >= MAX_UNFLUSHED { Some(Hold::Unflushed) } else { self.hold };
        self.board.update(|face| {
            face.next_due = self.due_at;
            face.mark = self.cursor.mark();
            face.read = self.cursor.read();
            face.hold = hold;
            face.unflushed = self.unflushed();
            face.queued = self.queue.len();
            face.stalled = stalled;
            face.parked = rows;
            if is_idle {
                face.no_progress = None;
            }
        });
    }

    /// Lets other tasks run and takes what is ready.
    async fn glance(&mut self) -> Woken {
        tokio::task::yield_now().await;
        if self.pokes.has_changed().unwrap_or(false) {
            self.pokes.mark_unchanged();
            return Woken::Poked;
        }
        if let Some(entering) = &mut self.entering
            && let Poll::Ready(permits) = poll_fn(|cx| Poll::Ready(entering.as_mut().poll(cx))).await
        {
            return Woken::Entered(permits);
        }
        if let Some(landed) = self.flights.try_join_next_with_id() {
            return Woken::Landed(landed);
        }
        let answer = self.sent.as_mut().map(|sent| sent.reply.try_recv());
        match answer {
            Some(Ok(outcome)) => Woken::Answered(Some(outcome)),
            Some(Err(oneshot::error::TryRecvError::Closed)) => Woken::Answered(None),
            _ => Woken::Other,
        }
    }

    async fn wait(&mut self) -> Woken {
        let wants_events = self.wants_events();
        let sleep = self.sleep();
        let Self { flights, sent, entering, tail, plans, pokes, conditions, stop, reopened, .. } = self;
        tokio::select! {
            Some(landed) = flights.join_next_with_id() => Woken::Landed(landed),
            answer = async { (&mut sent.as_mut()?.reply).await.ok() }, if sent.is_some() => Woken::Answered(answer),
            permits = async { entering.as_mut()?.await }, if entering.is_some() => Woken::Entered(permits),
            Ok(()) = tail.changed(), if wants_events => Woken::Other,
            Ok(()) = pokes.changed() => Woken::Poked,
            Ok(()) = plans.changed() => { plans.mark_changed(); Woken::Other }
            Ok(()) = conditions.changed() => Woken::Other,
            Ok(()) = stop.changed() => Woken::Other,
            Ok(()) = reopened.changed() => Woken::Other,
            () = tokio::time::sleep(sleep) => Woken::Other,
        }
    }

    /// Until the next thing that time brings: a debt, a probe, a mark to write.
    fn sleep(&self) -> Duration {
        if self.sent.is_none() && !self.part.is_empty() {
            // The flusher's queue was full.
            return CROWDED_REST;
        }
        let now = self.scope.rooms.clock.now();
        let taking = self.is_taking();
        let key = self.next_look(now).filter(|_| taking);
        let has_room = self.learns() || (self.queue.debts_len() == 0 && self.has_room());
        let due = self.due_at.filter(|_| taking && has_room);
        let mark = self.part.moved_at.filter(|_| self.sent.is_none()).map(|at| at.plus(MARK_LINGER));
        let probe = self.probe_at.filter(|_| taking);
        let read = self.read_after.filter(|_| taking);
        // What `launch` would do nothing about: a flush or the leases wake it.
        let launching = taking && self.scope.licence.holds() && self.unflushed() < MAX_UNFLUSHED;
        let line = self.queue.next_at().filter(|_| launching);
        let wake = self.wake_at.filter(|_| launching);
        let at = [due, mark, probe, read, line, wake, key].into_iter().flatten().min();
        // In order, attempts are broken off when the leases run out.
        let trust =
            self.scope.licence.fence.left().filter(|_| self.plan.is_ordered() && !self.flights.is_empty());
        let longest = trust.unwrap_or(LONGEST_SLEEP).clamp(Duration::from_millis(1), LONGEST_SLEEP);
        // Clocks count microseconds, timers milliseconds: never wake before the time has come.
        at.map_or(longest, |at| (at.since(now) + Duration::from_millis(1)).min(longest))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.board.update(|face| *face = Default::default());
        self.binding.owned.fetch_sub(1, Relaxed);
        self.binding.singles.forget(self.scope.lane);
    }
}

/// Whether a binding without order may have debts that wait for their key, from the time when it had one.
async fn has_parked(scope: &Scope, binding: BindingId) -> bool {
    scope.rooms.ledger().has_parked(scope.lane, binding).await.unwrap_or_else(|error| {
        tracing::warn!(lane = %scope.lane, %error, "cannot ask for parked deliveries: all debts are read");
        true
    })
}

/// The lane has another owner: nothing is left to do but to be dropped with it.
async fn lost() {
    std::future::pending().await
}
